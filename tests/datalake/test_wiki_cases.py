"""Wikitext of public bug reports says what a reader of the page sees; pages of `wiki/` were written for these tests."""

from __future__ import annotations

from pathlib import Path

import pytest

from datalake.document import Document, Entry, Passed, Quarantined, Refused
from datalake.extract.wiki.formatting import without_quotes
from datalake.extract.wiki.functions import evaluate
from datalake.extract.wiki.wikitext import Options, clean
from datalake.sources.wikipedia.config import Wikipedia
from datalake.sources.wikipedia.dump import archives, read

FOLDER = Path(__file__).parent / "wiki"

# By file: the text of each document in its order.
PAGES = {
    "wiki-apostrophes": [
        "L'armonium o armonio (in francese, harmonium) è uno strumento a tastiera che si trova in molte case "
        "della valle.",
        "Dans sa jeunesse il lisait l'Odyssée et l'Iliade, puis un roman tiré d'Hamlet que son oncle lui avait prêté. "
        "L'Andalousie lui plaisait aussi.\n\nL'épistémologie est restée son métier.",
        "The upper stage was Eagle's own engine, and the crew kept Columbia's logs. It was the lander's last flight.",
    ],
    "wiki-code-tags": [
        "The <br> element breaks a line, and <div class='a'> begins a block. In C++ one writes std::vector<int> v; or "
        "std::map<int, int> m;, in Java List<String> names and <Enter> or <ok>. A comparison is a < b && c > d.\n\n"
        "<p>Copyright &amp;copy; 2024</p>\n\n<p>text</p>\n\n"
        "The law is $a < b$ and <ref> is a tag. The <ref>...</ref> tag and x < y too."
    ],
    "wiki-colon-links": [
        "She liked the series Re:Zero, CSI:NY and the games R:Racing Evolution and H2O: Footprints in the Sand, and "
        "played Nier:Automata and ef:A Tale on trains."
    ],
    "wiki-file-alias": [
        "Joki virtaa vanhan myllyn ohi ja niityt sen varrella ovat kuivuneet.\n\n"
        "Kaupunginvaltuusto päättää asiasta syksyllä."
    ],
    "wiki-holes-de": [
        "Die Mühle (The Mill) steht am Fluss. Der Müller sagte: „Der Fluss vergisst nichts.“ Danach schwieg er.\n\n"
        "„Das Wasser war nie so niedrig.“\n— Ida Müller\n\nEnde."
    ],
    "wiki-holes-en": [
        "Ida Keeper (née Miller; 3 March [O.S. 19 February] 1880 – 1950) grew up near I-5 and won the 1921 season for "
        "the United States. She wrote that “the river never forgets”, and that [the mill] was 3rd of its "
        "kind. Dinosaurs "
        "lived there 66 million years ago. The town (Chinese: 河谷; pinyin: Hégǔ) honours her, as did the poet Otto "
        "(fl. 1900)."
    ],
    "wiki-holes-fr": [
        "Le moulin date du XIXe siècle et se trouve à 2000 m d'altitude. Il fut bâti par des moines sous Louis XIV. "
        "Il tourne encore. Il a 12345 tuiles."
    ],
    "wiki-holes-it": [
        "Il mulino è alto 30 m e dista 12,5 km dal fiume. Fu costruito nel Medioevo dai monaci della valle. "
        "La ruota pesa "
        "800 kg e gira tre volte al minuto."
    ],
    "wiki-holes-ja": ["水車小屋は髙橋と辻堂の間にある。二百年前に修道士が建てたといわれる。現在は町の博物館である。"],
    "wiki-holes-ru": [
        "Иван Мельник родился 25 октября (13 октября) 1880 в селе, где жило 12 345 человек. Он работал в "
        "Долина мельниц "
        "и дружил с Отто Келлером. Он говорил:\n\nРека ничего не забывает.\n— Мельник\n\nОн умер в 1950 году."
    ],
    "wiki-leading-space": [
        "The mean of readings is computed so:\n\nfunction mean(readings)\n    total ← 0\n    for each value "
        "in readings\n"
        "        if value is known\n            total ← total + value\n    return total / count\n\nIt takes one pass."
    ],
    "wiki-misc": [
        "The law is $E=mc^2$ and [[not a link]] is shown. Then text.\n\nFirst line of verse\nsecond line, indented\n"
        "third line\n\nif a:\n    b()\n\nLast sentence with /mɪl/ and moulin."
    ],
    "wiki-parser-functions": [
        "Sjön är 12345 m lång och ligger -10 °C kall på vintern. Den är 12 km (7.5 mi) bred, sägs det. Ett år är "
        "12 månader. See heter den på tyska."
    ],
    # A wiki shows `{{ship|Japanese battleship|Kaede||2}}` without its type: it stays, since it says what Kaede is.
    "wiki-ship": [
        "The ferry MV Senora Bella sank in a storm in 1931. It was found by USS Lantern, and HMS Meadow (D99) took the "
        "passengers aboard. The older SS Great Compass and the Japanese battleship Kaede lay in harbour, with two "
        "Lantern-class cruisers beside them. King Otto (r. 1901–1931) sent a note, as did the painter Ida (fl. 1920)."
    ],
    "wiki-sup": [
        "The river gauge counts about 10^6 pulses a day and overflows at 2^32 − 1. Its mass is 3.2×10^−3 kg, the speed "
        "of light is 2.998 × 10^8 m/s, and the area is 12 m^2. It measures H2O and was the 1st of its kind."
    ],
    "wiki-table-br": [
        "Levels of the river:\n\nLevels by year\nYear | Level | Measure\n1950 | 3.2 m (spring) | none\n1970 | 2.8 m\n"
        "1990 | 2.1 m | dredged twice N/A\n\nEnd."
    ],
    "wiki-v03": ["A mill grinds grain beside the river."],
    "wiki-versions": [
        "Formula E = mc²\n\nText about the formula.\n\na=b\n\nMore text.\n\nCommented heading\n\nThird.",
        "The main slot has this text.",
    ],
    "wiki-w-template": [
        "Uranium is a metal that can be used in nuclear weapons and in nuclear power plants, and radium is "
        "found beside it."
    ],
    "wiki-zh": [
        "乾隆皇帝是清朝的君主，以此为借口出巡，声名狼藉的官员随行于后。皇后了解此事，计算机一词当时还没有。著名的诗人乘出租车来到沈阳，"
        "覆盖著白雪的街道上干干净净。他答复说：「发现了头发。」"
    ],
}
REFUSED = {"wiki-v03": ["namespace", "redirect"], "wiki-versions": ["empty"]}


def entries(path: Path) -> list[Entry]:
    config = Wikipedia(paths=[str(path)])
    (shard,) = archives(config)
    return [entry for entry in read(shard, config) if not isinstance(entry, Passed)]


@pytest.mark.parametrize("name", sorted(path.stem for path in FOLDER.glob("*.xml")))
def test_each_page_is_a_document_that_says_what_it_shows(name: str) -> None:
    found = entries(FOLDER / f"{name}.xml")
    assert [entry.text for entry in found if isinstance(entry, Document)] == PAGES[name]
    assert [entry.reason for entry in found if isinstance(entry, Refused)] == REFUSED.get(name, [])
    assert len(found) == (FOLDER / f"{name}.xml").read_text("utf-8").count("<page>")


# Elements of an export


HEAD = '<mediawiki xml:lang="eo"><siteinfo><dbname>eowiki</dbname><namespaces>{}</namespaces></siteinfo>'
PAGE = (
    "<page><title>Rivero</title><ns>0</ns><id>1</id><revision><id>2</id><timestamp>2024-02-01T00:00:00Z</timestamp>"
    "{}</revision></page>"
)
TEXT = '<text xml:space="preserve">La rivero fluas. [[Bildo:Ponto|eta|La ponto]] [[Kategorio:Riveroj]]</text>'


@pytest.mark.parametrize(
    "namespaces",
    [
        '<namespace key="0" case="first-letter" /><namespace key="6">Bildo</namespace>',
        '<namespace key="0" case="first-letter"/><namespace case="first-letter" key="6">Bildo</namespace>',
        "<namespace key='0'/>\n<namespace key = '6' case='first-letter' >Bildo</namespace >",
        '<namespace/><namespace /><namespace key="6">Bild&#111;</namespace>',
        '<namespace key="0"></namespace><namespace key="6"> Bildo </namespace>',
        '<namespace key="6">Bildo</namespace><namespace key="0" case="first-letter" />',
    ],
)
def test_an_empty_element_takes_no_other_along(tmp_path: Path, namespaces: str) -> None:
    path = tmp_path / "dump.xml"
    both = namespaces + '<namespace key="10" /><namespace key="14">Kategorio</namespace>'
    path.write_text(HEAD.format(both) + PAGE.format(TEXT) + "</mediawiki>", "utf-8")
    (document,) = entries(path)
    assert isinstance(document, Document)
    assert document.text == "La rivero fluas."


@pytest.mark.parametrize(
    ("inside", "kind"),
    [
        ("<contributor deleted='deleted'/><comment deleted='deleted'/><sha1/>" + TEXT, Document),
        ("<minor/><comment /><model />" + TEXT, Document),
        ("<text/>", Refused),
        ("<text xml:space='preserve' bytes='0' />", Refused),
        ('<text deleted="deleted" xml:space="preserve" />', Refused),
        ("<content><role>x</role><text>other</text></content>" + TEXT, Document),
        ("<text><![CDATA[La <b>rivero</b> &lt; 3]]></text>", Document),
    ],
)
def test_empty_elements_of_a_page(tmp_path: Path, inside: str, kind: type) -> None:
    path = tmp_path / "dump.xml"
    path.write_text(HEAD.format("") + PAGE.format(inside) * 2 + "</mediawiki>", "utf-8")
    assert [type(entry) for entry in entries(path)] == [kind, kind]


def test_a_page_without_content_costs_itself_alone(tmp_path: Path) -> None:
    path = tmp_path / "dump.xml"
    path.write_text(HEAD.format("") + "<page />" + PAGE.format(TEXT) + "<page/>" + "</mediawiki>", "utf-8")
    assert [type(entry) for entry in entries(path)] == [Quarantined, Document, Quarantined]


# Wikitext


@pytest.mark.parametrize(
    ("source", "text"),
    [
        ("''a''", "a"), ("'''a'''", "a"), ("'''''a'''''", "a"), ("''a '''b''' c''", "a b c"),
        ("'''a ''b'' c'''", "a b c"),
        ("L''''amour'''", "L'amour"), ("l'''Iliade'' et l'''Odyssée''", "l'Iliade et l'Odyssée"),
        ("l'''Iliade''", "l'Iliade"),
        ("''Eagle'''s and ''Swan'''s", "Eagle's and Swan's"), ("pre'''fix ''and'' more'''", "prefix and more"),
        ("''a'''b'''c''", "abc"), ("it's ''so'' and 'so'", "it's so and 'so'"), ("''''''a''''''", "'a'"),
        ("''open\n''again", "open\nagain"), ("''a'' || l'''b''", "a || l'b"), ("'''a", "a"),
    ],
)  # fmt: skip
def test_apostrophes_beside_quotes_stay(source: str, text: str) -> None:
    assert without_quotes(source) == text


@pytest.mark.parametrize(
    ("source", "text"),
    [
        # code and what looks like a tag
        ("<code>&lt;b&gt;</code> and <tt>&lt;i&gt;</tt>", "<b> and <i>"),
        ("<code>f()</code> and g() ({{IPA|x}}).", "f() and g()."),
        ("<code>''x''[[a|b]]{{nowrap|c d}}</code>", "xbc d"),
        ("List<String> and #include <stdio.h>", "List<String> and #include <stdio.h>"),
        ("<pre>a &lt; <nowiki>b</nowiki></pre>", "a < b"),
        ('<syntaxhighlight lang="c" inline>a &lt; b</syntaxhighlight>', "a &lt; b"),
        ("<math>\\begin{matrix}a&b\\end{matrix} &gt; 0</math>", "$\\begin{matrix}a&b\\end{matrix} > 0$"),
        ("<code>\ndef f():\n    return 1\n</code>", "def f():\n    return 1"),
        # scripts
        ("m<sup>2</sup>, CO<sub>2</sub>, 2<sup>n&minus;1</sup>, x<sub>i</sub><sup>2</sup>", "m^2, CO2, 2^(n−1), x_i^2"),
        ("10{{sup|6}}, H{{sub|2}}O, x<sub>{{mvar|i}}</sub>", "10^6, H2O, x_i"),
        ("1<sup>er</sup>, M<sup>me</sup>, Na<sup>+</sup>, <sup>14</sup>C", "1er, Mme, Na+, ^14C"),
        ("{{convert|12|m<sup>2</sup>|sqft}}", "12 square metres (130 sq ft)"),
        ("open 2<sup>5 text", "open 25 text"),
        # what isn't shown, and what is shown otherwise
        ('A<span style="display:none">hidden</span> word', "A word"),
        ("<ruby>漢<rp>(</rp><rt>かん</rt><rp>)</rp></ruby>字", "漢字"),
        ("a <q>quoted</q> word", "a “quoted” word"),
        # indented lines
        (" if x:\n     y()\n * z", "if x:\n    y()\n* z"),
        (" one  two\n \n three", "one  two\n\nthree"),
        ("{{Infobox\n |a = b\n  |c = d\n}}\n Text {{nowrap|a\n  b}}.", "Text a\nb."),
        ("{|\n |  a\n |  b\n|-\n | c\n|}", "a | b\nc"),
        # links
        ("[[Kuva:A.jpg|x]][[Hình:B c.SVG|nhỏ|x]][[Imagine:Foo.jpeg]]a", "a"),
        ("[[Imagine: John Lennon]], [[2001: A Space Odyssey]], [[Mission: Impossible]]", "Imagine: John Lennon, "
         "2001: A Space Odyssey, Mission: Impossible"),
        ("a [[de:A]][[DE:A]][[zh-min-nan:A]][[simple: A]][[be-x-old:A]]", "a"),
        ("see [[:de:A]], [[:File:A.jpg]] and [[commons:File:A.jpg|a photo]]", "see de:A, File:A.jpg and a photo"),
        # comments
        ("one\n<!-- a line -->\ntwo<!-- x --> three", "one\ntwo three"),
        ("<nowiki><!-- shown --></nowiki> a <!-- never closed", "<!-- shown --> a"),
        ("a\n<syntaxhighlight>\n<!--\n</syntaxhighlight>\nb <!-- c -->", "a\n\n<!--\n\nb"),
        # brackets in brackets
        ("See [[A|Text [[B]]]], {{IPAc-en|z|{|n}} and [http://x.example <nowiki>[A]: b</nowiki>].",
         "See Text B, /z{n/ and [A]: b."),
        ("[[Image:H.svg|thumb|\n{|class=x\n! a !! b\n|-\n|c || d\n|}\n]]\nText.", "Text."),
        ("{|\n! a {{!!}} b\n{{!-}}\n| c {{!!}} d\n|}", "a | b\nc | d"),
        # functions
        ("{{#if: | a | b }}{{#ifeq:a|a|c|d}}{{#switch:2|1=x|2=y}}{{#expr:2^3 round 1}}{{uc:e}}", "bcy8E"),
        ("{{#switch:q|1=x|2|3=y|#default=z}}{{#switch:2|1=x|2|3=y}}{{#ifexpr:1-1|a|b}}", "zyb"),
        ("a{{#invoke:x|y}}{{#tag:ref|b}}{{DEFAULTSORT:c}}", "a"),
        ("x{{' \"}} {{-\"}}{{USD|5}}", "x'\" \"US$5"),
    ],
)  # fmt: skip
def test_what_a_page_shows(source: str, text: str) -> None:
    assert clean(source) == text


@pytest.mark.parametrize(
    ("language", "source", "text"),
    [
        # an unknown template in a sentence leaves its words
        ("en", "It was {{tpl|quite old}} and {{tpl|small}}.", "It was quite old and small."),
        ("en", "By {{tpl|Mill (village)|the Mill}}, in {{tpl|1880}}, {{tpl|foo.jpg}}he {{tpl|text=went}} home.",
         "By the Mill, in 1880, he went home."),
        ("en", "It has {{tpl|three|#ff0000|yes|12px}} rooms.", "It has three rooms."),
        ("en", "He said {{IPAc-en|m|ɪ|l}} for mill ({{IPAc-en|m|ɪ|l}}).", "He said /mɪl/ for mill."),
        ("de", "Er wohnt in {{Ort|Talheim}}, {{Höhe|312|DE-NHN}} hoch, seit {{Datum|3|5|1990}}.",
         "Er wohnt in Talheim, 312 m hoch, seit 3.5.1990."),
        ("es", "El río mide {{cantidad|30 km}} y {{marca|nace|cursiva=no}} en {{enlace|la sierra}}.",
         "El río mide 30 km y nace en la sierra."),
        ("fr", "Elle a {{nombre|300|habitants}} au {{IIIe siècle}}, selon {{p.|12}} et {{inconnu|la carte}}.",
         "Elle a 300 habitants au IIIe siècle, selon p. 12 et la carte."),
        ("it", "La torre, {{prec|vecchia}} e {{sconosciuto|alta 30 metri}}, cadde.",
         "La torre, vecchia e alta 30 metri, cadde."),
        ("ja", "川は{{未知|谷}}を流れる。{{未知|古い橋がある。}}村は静かだ。{{要出典|date=2020年}}",
         "川は谷を流れる。古い橋がある。村は静かだ。"),
        ("ko", "강은 {{미지|계곡}}을 흐르고 {{임시링크|마을|en|Village}}에 닿는다.{{출처}}",
         "강은 계곡을 흐르고 마을에 닿는다."),
        ("pt", "O rio tem {{fmtn|1000|km}} e {{carece de fontes|nasce na serra.|data=maio}} Fim.",
         "O rio tem 1000 km e nasce na serra. Fim."),
        ("ru",
         "Река длиной {{км|30}} течёт в {{неизв|долине}}{{нет АИ|2|12|2020}} с {{год|1880}} года до {{н. э.}} Вот.",
         "Река длиной 30 км течёт в долине с 1880 года до н. э. Вот."),
        ("zh", "水车位于{{未知|河谷}}旁，{{来源请求|time=2020}}高{{未知|30米}}。", "水车位于河谷旁，高30米。"),
        ("ar", "يقع النهر في {{مجهول|الوادي}} الكبير.{{بحاجة لمصدر}}", "يقع النهر في الوادي الكبير."),
        ("pl", "Rzeka ma {{km|30}} i {{nieznany|płynie}} w dolinie{{fakt|data=2020-01}}.",
         "Rzeka ma 30 km i płynie w dolinie."),
        ("tr", "Antik Yunanca ''{{dil|grc|matesis}}'' kelimesi.", "Antik Yunanca matesis kelimesi."),
        # tables of them by language
        ("ko", "{{임시링크|오토|en|Otto}}는 {{국기나라|독일}} 사람이다.", "오토는 독일 사람이다."),
        ("ja", "{{仮リンク|オットー|en|Otto}}は村を出た。", "オットーは村を出た。"),
        ("ru", "Это {{num|1234|м}}, {{comment|слово|пояснение}} и {{iw|Отто|Отто К.|de|Otto}}.",
         "Это 1234 м, слово и Отто К.."),
        ("it", "Dista {{M|5|ul=km}} da qui.", "Dista 5 km da qui."),
        ("fr", "{{Mme|Ida}} vécut au {{sp-|XIX|e}}, au {{n°|5}}.", "Mme Ida vécut au XIXe siècle, au n° 5."),
        ("en", "{{m|en|word}} is so.", "word is so."),
        # words that editors doubt
        ("fr",
         "Le moulin {{quand|naguère|date=mai 2020}} tourna{{quand}} {{pas clair|vite}} {{quand|mai 2020}}.",
         "Le moulin naguère tourna vite."),
        ("it", "Il mulino {{senza fonte|gira}} {{quando|oggi}} {{citazione necessaria|marzo 2020}}.",
         "Il mulino gira oggi."),
        ("pt", "O moinho {{carece de fontes|é antigo|março de 2020}} e gira.", "O moinho é antigo e gira."),
        ("ja", "水車は{{要検証範囲|古く|date=2020}}、{{いつ範囲|昔}}建った{{いつ|date=2020}}。",
         "水車は古く、昔建った。"),
        ("en", "The mill is {{dubious span|old}} and {{clarify span|red|date=May}}{{clarify|what?}}.",
         "The mill is old and red."),
        # and one that is no part of a sentence nothing
        ("en", "{{Box|A notice of many words about it.}}\n'''Mill''' is.\n\n{{Bar|one|two}}\n\nEnd.",
         "Mill is.\n\nEnd."),
        ("en", "{{Infobox mill|Some|words}}'''Mill''' is. {{Use dmy dates|date=May}} It runs.", "Mill is. It runs."),
        ("en", "Mill{{sfn|Smith|2001}} is old.{{rp|12}} So{{efn|A note.}} it is.{{cn|date=May 2020}}",
         "Mill is old. So it is."),
        ("en", "Mill is old.{{unknown note|Smith}} It{{unknown mark|x}} runs.", "Mill is old. It runs."),
        ("en", "* {{flagicon|GER}} [[Jens]]\n* {{cite book|A title|1990}}", "- Jens"),
        ("en", "It is {{convert|10|km|mi}} long. {{coord|1|2|N|3|4|E|display=title}}",
         "It is 10 kilometres (6.2 mi) long."),
    ],
)  # fmt: skip
def test_templates_that_no_table_knows(language: str, source: str, text: str) -> None:
    assert clean(source, Options(language=language)) == text


def test_expressions_are_bounded() -> None:
    assert evaluate("3*(4-1) div 2") == 4.5
    assert [evaluate(text) for text in ("9^9^9^9", "1/0", "a", "", "((", "1" * 500, "__import__(1)")] == [None] * 7
