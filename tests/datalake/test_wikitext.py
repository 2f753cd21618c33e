"""Wikitext becomes readable text, and damaged wikitext neither raises nor takes more than linear work."""

from __future__ import annotations

import random
import re
import tarfile
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from opencc import OpenCC

from datalake.extract.wiki.chinese import convert
from datalake.extract.wiki.wikitext import APPARATUS, Options, choose_variant, clean


def text(wikitext: str, **options: Any) -> str:
    return clean(wikitext, Options(**options), title="Here")


@pytest.mark.parametrize(
    ("wikitext", "expected"),
    [
        ("A '''bold''' and ''slanted'' word.", "A bold and slanted word."),
        ("A [[cat|small cat]] and a [[dog]].", "A small cat and a dog."),
        ("[[File:x.png|thumb|A [[cat]]]]Text.", "Text."),
        ("Text.\n[[Category:Cats]]\n[[fr:Chat]]", "Text."),
        ("See [[:Category:Cats]].", "See Category:Cats."),
        ("Fact.<ref>Book, p. 3</ref> More<ref name=a />.", "Fact. More."),
        ("Fact.<!-- hidden --> More.", "Fact. More."),
        ("[http://example.org The site] and [http://example.org].", "The site and."),
        ("It is {{convert|10|km|mi}} long.", "It is 10 kilometres (6.2 mi) long."),
        ("It is {{convert|10|to|20|km|mi}} long.", "It is 10 to 20 kilometres (6.2 to 12 mi) long."),
        ("Made {{start date|1990|5|3}}.", "Made May 3, 1990."),
        ("Made {{start date|1990|05|03|df=y}}.", "Made 3 May 1990."),
        ("Died {{death date and age|2000|1|2|1920|3|4}}.", "Died January 2, 2000 (aged 79)."),
        ("At {{coord|52|31|12|N|13|24|18|E|display=inline,title}}.", "At 52°31′12″N 13°24′18″E."),
        ("At{{coord|52|31|N|13|24|E|display=title}}.", "At."),
        ("{{pop density|3645257|640081.87|km2|sqmi}}", "5.7/km² (15/sq mi)"),
        ("The vowel {{IPA|/a/}} and {{ill|Foo|de|Fuu}}.", "The vowel /a/ and Foo."),
        ("({{lang-de|Berlin}})", "(German: Berlin)"),
        ("{{PAGENAME}} {{{1|default}}}", "Here default"),
        ("About {{val|1.5|e=6|u=m}}.", "About 1.5×10^6 m."),
        ("About {{frac|1|2}} of {{nowrap|5 kg}}.", "About 1/2 of 5 kg."),
        ("{{As of|2010}} it grows.", "As of 2010 it grows."),
        ("{{Infobox country|name=X|area={{convert|1|km2}}}}Text.", "Text."),
        ("Paris ({{IPA|x}}; {{lang|fr|Paris}}) is.", "Paris (Paris) is."),
        ("Paris ({{IPA|x}}) is.", "Paris is."),
        ("5&nbsp;km &lt; 6&nbsp;km", "5 km < 6 km"),
        ("* one\n* two\n** three", "- one\n- two\n- three"),
        ("<math>x^2 + y^2</math> holds.", "$x^2 + y^2$ holds."),
        ("<nowiki>[[no link]]</nowiki> stays.", "[[no link]] stays."),
        ("__NOTOC__Text.", "Text."),
        ("{{link-en|内存|Memory}}很大。", "内存很大。"),
        ("", ""),
    ],
)
def test_markup_becomes_what_it_shows(wikitext: str, expected: str) -> None:
    assert text(wikitext) == expected


def test_headings_stay_where_there_is_text_below_and_apparatus_goes() -> None:
    page = (
        "Lead.\n\n== History ==\nOld.\n\n== Empty ==\n\n== References ==\nA book.\n=== More ===\nb\n== After ==\nEnd."
    )
    assert text(page) == "Lead.\n\nHistory\n\nOld.\n\nAfter\n\nEnd."
    assert {"references", "参考文献", "外部連結", "see also"} <= APPARATUS


def test_a_heading_above_a_heading_with_text_stays() -> None:
    assert text("== A ==\n=== B ===\nText.\n=== C ===\n") == "A\n\nB\n\nText."


def test_tables_keep_their_cells_and_navigation_goes() -> None:
    table = '{| class="wikitable"\n|+ Planets\n! Name !! Moons\n|-\n| Earth || 1\n|-\n| [[Mars]] || {{nowrap|2}}\n|}'
    assert text(table) == "Planets\nName | Moons\nEarth | 1\nMars | 2"
    assert text('{| class="navbox"\n| a || b\n|-\n| c || d\n|}Text.') == "Text."


def test_code_keeps_its_lines_and_spaces() -> None:
    page = 'Code:\n<syntaxhighlight lang="python">\ndef f(x):\n    return  x\n</syntaxhighlight>\nEnd.'
    assert text(page) == "Code:\n\ndef f(x):\n    return  x\n\nEnd."


@pytest.mark.parametrize(
    ("markup", "simplified", "traditional"),
    [
        ("-{zh-hans:软件;zh-hant:軟體}-", "软件", "軟體"),
        ("-{zh-cn:软件; zh-tw:軟體; zh-hk:軟件;}-", "软件", "軟體"),
        ("-{保留}-", "保留", "保留"),
        ("-{R|原文}-", "原文", "原文"),
        ("-{H|zh-hans:甲;zh-hant:乙}-", "", ""),
        ("-{A|zh-hans:甲;zh-hant:乙}-", "甲", "乙"),
        ("-{T|zh-hans:甲;zh-hant:乙}-", "", ""),
        ("-{zh-hans:甲-{zh-hans:丙;zh-hant:丁}-;zh-hant:乙}-", "甲丙", "乙"),
        ("-{未完", "-{未完", "-{未完"),
    ],
)
def test_one_variant_of_chinese_is_chosen(markup: str, simplified: str, traditional: str) -> None:
    assert choose_variant(markup, "zh-hans") == simplified
    assert choose_variant(markup, "zh-tw") == traditional


def test_variants_in_formulas_are_left_alone() -> None:
    assert text("<math>e^{-{x}}-1</math>") == "$e^{-{x}}-1$"


DAMAGED = {
    "open templates": "{{a|" * 20_000,
    "open links": "[[a|" * 20_000,
    "open tables": "{|\n|a\n" * 5_000,
    "open external links": "[http://a " * 20_000,
    "open references": "<ref>a" * 20_000,
    "open references before one end": "<ref>a\n\n" * 20_000 + "</ref>",
    "deep templates": "{{a|" * 2_000 + "}}" * 2_000,
    "deep links": "[[a|" * 2_000 + "]]" * 2_000,
    "crossed brackets": "{{[[" * 5_000 + "}}]]" * 5_000,
    "deep arguments": "{{{a|" * 5_000 + "}}}" * 5_000,
    "list markers": "*#:;" * 10_000,
    "spaces": " " * 200_000 + "x",
    "commas": "," * 200_000 + "x",
    "parentheses": "(" * 50_000,
    "variants": "-{a;" * 5_000 + "}-" * 5_000,
    "tags": "<b" * 50_000,
    "comments": "<!--" * 20_000,
}


@pytest.mark.parametrize("name", DAMAGED)
def test_damage_costs_no_more_than_length_allows(name: str) -> None:
    start = time.process_time()
    clean(DAMAGED[name])
    assert time.process_time() - start < 5  # the parser alone: minutes on several of these


def test_an_unclosed_bracket_costs_no_text() -> None:
    assert text("Before {{broken and [[open. After.") == "Before broken and open. After."


def test_what_nests_beyond_the_bound_goes_and_the_rest_stays() -> None:
    page = (
        "Lead [[a|link]].\n\n== Part ==\n" + "{{nowrap|" * 60 + "}}" * 60 + "* item [[File:x|y]]\n\n== References ==\nb"
    )
    assert text(page) == "Lead link.\n\nPart\n\n* item"


@pytest.mark.parametrize(
    ("wikitext", "expected"),
    [
        # values as Template:Convert's own documentation shows them
        ("{{convert|100|km|mi}}", "100 kilometres (62 mi)"),
        ("{{convert|1|mi|km}}", "1 mile (1.6 km)"),
        ("{{convert|123|mi|km}}", "123 miles (198 km)"),
        ("{{convert|20000|ft|m|sp=us}}", "20,000 feet (6,100 m)"),
        ("{{convert|5|ft|10|in|m}}", "5 ft 10 in (1.78 m)"),
        ("{{convert|60|to|170|kg|lb}}", "60 to 170 kilograms (130 to 370 lb)"),
        ("{{convert|10|C|F}}", "10 °C (50 °F)"),
        ("{{convert|-40|F|C}}", "−40 °F (−40 °C)"),
        ("a {{convert|10|km|mi|adj=on}} walk", "a 10-kilometre (6.2 mi) walk"),
        ("{{convert|2|km|mi|abbr=on}}", "2 km (1.2 mi)"),
        ("{{convert|1.8|m|ftin}}", "1.8 metres (5 ft 11 in)"),
        ("{{convert|12|furlong|m}}", "12 furlong"),
        ("{{convert|1/0|km|mi}}", "1/0 kilometres"),
        ("{{convert|x|km|mi}}", "x kilometres"),
        ("{{convert}}", ""),
        ("{{height|m=1.8}} {{weight|kg=70}}", "1.8 m (5 ft 11 in) 70 kg (150 lb)"),
    ],
)
def test_measures_show_what_they_convert_to(wikitext: str, expected: str) -> None:
    assert text(wikitext) == expected


@pytest.mark.parametrize(
    ("language", "wikitext", "expected"),
    [
        ("fr", "{{unité|3500|hab./km|2}} au {{s-|XX}}", "3500 hab./km² au XXe siècle"),
        ("fr", "{{date|1|janvier|2000}}, {{lien|trad=X|fr=Y}}", "1er janvier 2000, Y"),
        ("pt", "no {{séc|XIII}}", "no século XIII"),
        ("it", "{{TA|3 743,21 km²}}", "3 743,21 km²"),
        ("ko", "{{llang|de|Berlin}}", "Berlin"),
        ("vi", "{{convert|10|km|mi}}", "10 km (6.2 mi)"),
        ("zh", "{{bd|1900年|1月2日|1980年|3月4日}}", "（1900年1月2日－1980年3月4日）"),
        ("zh", "{{birth date|1900|1|2}}、{{le|内存|Memory}}", "1900年1月2日、内存"),
        ("en", "{{citation|title=A book|year=1990}}It.", "It."),
    ],
)
def test_templates_follow_the_language_of_the_wiki(language: str, wikitext: str, expected: str) -> None:
    assert text(wikitext, language=language) == expected


def test_ages_are_counted_at_the_time_of_the_revision() -> None:
    birth = "{{birth date and age|1990|5|3}}; {{age|1990|5|3}}"
    when = datetime(2020, 5, 2, tzinfo=UTC)
    assert clean(birth, Options(), when=when) == "May 3, 1990 (age 29); 29"
    assert clean(birth, Options()) == "May 3, 1990;"


def test_infoboxes_stay_as_lines_where_asked() -> None:
    page = "{{Infobox country|name=X|image=x.png|area={{convert|1|km2}}|empty=}}Text."
    assert text(page) == "Text."
    assert text(page, infoboxes=True) == "name: X\narea: 1 square kilometre (0.39 sq mi)\n\nText."


def test_attributes_of_cells_are_no_text() -> None:
    table = '{|\n! Name !! style="width:3em" | Is\n|-\n| a || colspan="2" {{n/a}}\n|-\n| b || style=x:0|\n|}'
    assert text(table) == "Name | Is\na | N/A\nb"


def test_a_table_in_a_cell_is_one_line_of_it() -> None:
    assert text("{|\n| a\n| \n{|\n| x || y\n|-\n| z\n|}\n|-\n| b || c\n|}") == "a | x | y; z\nb | c"


ZH = {"language": "zh", "conversion": "script"}


@pytest.mark.parametrize(
    ("variant", "wikitext", "expected"),
    [
        ("zh-cn", "這是軟體的發展。", "这是软体的发展。"),
        ("zh-tw", "这是软件的发展。", "這是軟件的發展。"),
        ("zh-hk", "里面的头发", "裏面的頭髮"),
        ("zh-tw", "皇后在台灣的里程", "皇后在台灣的里程"),  # traditional already
        ("zh-cn", "-{后}-與後", "后与后"),
        ("zh-cn", "-{發}-展與發展", "發展与发展"),
        ("zh-tw", "-{A|zh-cn:软件;zh-tw:軟體;}-，软件发展", "軟體，軟體發展"),
        ("zh-cn", "-{H|zh-cn:软件;zh-tw:軟體;}-軟體的發展", "软件的发展"),
        ("zh-cn", "-{H|zh-cn:软件;zh-tw:軟體;}--{-|zh-cn:软件;zh-tw:軟體;}-軟體", "软体"),
        ("zh-cn", "-{H|巨集=>zh-cn:宏;}-巨集與巨集", "宏与宏"),
        ("zh-tw", "-{H|巨集=>zh-cn:宏;}-巨集", "巨集"),
        ("zh-cn", "{{NoteTA|G1=IT|T=zh-cn:甲;zh-tw:乙|1=zh-cn:软件;zh-tw:軟體}}軟體", "软件"),
        ("zh-cn", "-{N|zh-tw}-", "臺灣正體"),
        ("zh-cn", "-{D|zh-cn:软件;zh-tw:軟體;}-", "大陆简体：软件；臺灣正體：軟體"),
        ("zh-cn", "{{lang|ja|東京}}和東京，《機動戦士ガンダム》", "東京和东京，《機動戦士ガンダム》"),
        ("zh-cn", "<code>發</code><math>發</math>發", "發$發$发"),
        ("zh-cn", "水（{{lang-en|Water}}）是化學品", "水（Water）是化学品"),
    ],
)
def test_chinese_is_written_in_the_chosen_variant(variant: str, wikitext: str, expected: str) -> None:
    assert text(wikitext, variant=variant, **ZH) == expected


def test_vocabulary_follows_the_region_where_asked() -> None:
    assert text("滑鼠與軟體", variant="zh-cn", language="zh", conversion="vocabulary") == "鼠标与软件"
    assert text("鼠标与软件", variant="zh-tw", language="zh", conversion="vocabulary") == "滑鼠與軟體"
    assert text("滑鼠與軟體", variant="zh-cn", language="zh", conversion="none") == "滑鼠與軟體"


def test_real_chinese_text_survives_conversion(samples: Path) -> None:
    with tarfile.open(samples / "wiki/zhwiki-plain-100-articles.tar.xz") as archive:
        files = [archive.extractfile(member) for member in archive.getmembers() if member.isfile()]
        articles = [file.read().decode("utf-8", "replace")[:3000] for file in files if file][:40]
    oracle = OpenCC("t2s")
    for article in articles:
        kept = re.compile("[\u3041-\u30ff]")
        lines = [line for line in article.split("\n") if not kept.search(line)]
        simplified = convert("\n".join(lines), "zh-cn", "script", {})
        assert simplified == "\n".join(oracle.convert(line) for line in lines)
        assert convert(simplified, "zh-cn", "script", {}) == simplified
        traditional = convert(simplified, "zh-hant", "script", {})
        assert convert(traditional, "zh-hant", "script", {}) == traditional
        assert len(traditional) == len(simplified)


def test_random_markup_never_raises() -> None:
    pieces = [
        "{{",
        "}}",
        "[[",
        "]]",
        "{|",
        "|}",
        "|",
        "==",
        "'''",
        "<ref>",
        "</ref>",
        "-{",
        "}-",
        "a",
        "<",
        ">",
        "*",
        "&amp;",
        "{{{",
        "}}}",
        "<math>",
        "</math>",
        "zh:",
        "!",
        "[http://x",
    ]
    pieces += ["\n", " ", "\ue000", "1\ue001"]
    for seed in range(400):
        wikitext = "".join(random.Random(seed).choices(pieces, k=80))
        cleaned = clean(wikitext)
        assert "\ue000" not in cleaned
        assert "\ue001" not in cleaned
        assert clean(wikitext) == cleaned
