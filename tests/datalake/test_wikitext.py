"""Wikitext becomes readable text, and damaged wikitext neither raises nor takes more than linear work."""

from __future__ import annotations

import random
import time
from typing import Any

import pytest

from datalake.extract.wikitext import APPARATUS, Options, choose_variant, clean


def text(wikitext: str, **options: Any) -> str:
    return clean(wikitext, Options(**options))


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
        ("It is {{convert|10|km|mi}} long.", "It is 10 km long."),
        ("It is {{convert|10|to|20|km|mi}} long.", "It is 10 to 20 km long."),
        ("Made {{start date|1990|5|3}}.", "Made 3 May 1990."),
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


def test_too_deep_a_page_is_stripped_and_says_so() -> None:
    page = "Lead [[a|link]].\n\n== Part ==\n" + "{{x|" * 50 + "}}" * 50 + "* item [[File:x|y]]\n\n== References ==\nb"
    cleaned = clean(page)
    assert cleaned.parser == "strip"
    assert cleaned.text == "Lead link.\n\nPart\n\n* item" or cleaned.text == "Lead link.\n\nPart\n\n- item"


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
        assert "\ue000" not in cleaned.text
        assert "\ue001" not in cleaned.text
        assert clean(wikitext) == cleaned
