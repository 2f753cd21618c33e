"""Sentences with holes where a template stood, by language, on the samples' dumps and on the pages of the tests.

    .venv/bin/python benchmarks/wiki_holes.py [--code CHECKOUT] [--show N]

A template or parser function that renders as nothing leaves a mark in the text. A sentence (no row of a table) has a
hole where there is a mark beside its words and

- the template was given words or numbers, or its name is words (`{{XIXe siècle}}`); or
- whatever it was given, the mark stands between a preposition, article or conjunction and a stop (`found by □, and`).

Of templates that show nothing of their arguments to a reader (notes, doubts of editors, sounds, flags, notices; by a
list of their names that the code measured doesn't share) the first doesn't count. `--code` measures another checkout by
the same rules.
"""

from __future__ import annotations

import argparse
import os
import re
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

ROOT = Path(__file__).parents[1]
HOLE, NOTHING = "\uf8f0", "\uf8f1"  # private use, which no code of ours uses

_NO_WORDS = re.compile(
    r"(?:sfn|harv|ref(?!nec)|efn|note|cite|citation(?! bloc)|fact|cn$|r$|rp$|fn|page needed|ipa|respell|pron|audio|"
    r"listen|мфа|afi|api|"
    r"flagicon|flag icon|bandera|bandeira|прапор|پرچمک|ธง|when|who|which|where|by whom|clarify|dubious|disputed|better|"
    r"qualify|weasel|peacock|pov|vague|update|full|verify|inflation|coord|infobox|use |short desc|main$|see also|"
    r"further|about$|"
    r"for$|other uses|redirect|stub|portal|commons|metadaten|default|display|הערה|صدا|lien web|ouvrage|article$|"
    r"actualizar|"
    r"link audio|prononc|nowrap (?:begin|end)|langue|msapi|isbn|sic$|clear|-$|reflist|official|url|imdb|anchor|"
    r"citation needed|"
    r"#invoke|#tag|#if|#switch|.*[ -]inline|.*needed|.*:|"
    r"要出典$|來源請求|来源请求|нет аи|cita requerida|belege|carece de fontes\?|refn|lang|quote|cquote)",
    re.IGNORECASE,
)
_END = re.compile(r"(?<=[.!?。！？؟।])[\"”»’)]{0,2}(?:\s+|(?<=[。！？])|$)|\n+")
_BEFORE_STOP = {
    "en": "the a an of by in on at to from with for and or near called",
    "simple": "the a an of by in on at to from with for and or",
    "de": "der die das des dem den ein eine einer von im mit zu zur nach bei und oder am",
    "fr": "le la les un une des du de à au aux par avec pour et ou sous dans",
    "es": "el los las un una de del a al por con para y en", "pt": "o os um uma de do da em no na por com para e",
    "it": "il lo gli un una di del della da in nel nella con per ed al", "ru": "в с к на из от и до у по за для",
    "uk": "в з до на із від та і у по за для", "bg": "в с на от и до по за",
}  # fmt: skip

_LONG_WORD = re.compile("[\u0e00-\u0e7f\u3040-\u9fff]{5}")


def pages_of_tests() -> Iterator[tuple[str, str, str]]:
    """Language, title and wikitext of the pages that were written for the tests."""
    for path in sorted((ROOT / "tests/datalake/wiki").glob("wiki-*.xml")):
        root = ElementTree.fromstring(path.read_text("utf-8"))
        language = root.get("{http://www.w3.org/XML/1998/namespace}lang", "en")
        for page in root.iterfind("{*}page"):
            yield language, page.findtext("{*}title") or "", page.findtext("{*}revision/{*}text") or ""


def counts_as_words(values: list[str]) -> bool:
    """Whether a template that showed nothing was given something to show."""
    name = " ".join(values[0].split()).strip()
    if not name or _NO_WORDS.match(name):
        return False
    given = [value for value in values[1:] if "=" not in value and re.search(r"[^\W_]", value)]
    given = [
        value for value in given if not re.search(r"//|\.(?:jpe?g|png|svg|gif|ogg)$|^#|^\d+px$", value.strip(), re.I)
    ]
    return bool(given) or (len(values) == 1 and re.match(r"[IVXLC]+e\b|[A-Z]{3}$", name) is not None)


def marked(module: Any) -> None:
    """Make the module's templates leave a mark where they leave nothing: `HOLE` where they were given words."""
    render = module._template

    def template(values: list[str], *others: Any) -> str:
        shown: str = render(values, *others)
        return shown if shown.strip() else HOLE if counts_as_words(values) else NOTHING

    module._template = template


def holes(text: str, language: str) -> tuple[int, list[str]]:
    """How many sentences a text has, and those with a hole."""
    words = "|".join(_BEFORE_STOP.get(language, "\ufffe").split())
    beside = re.compile(rf"\w[^\w\n]{{0,3}}{HOLE}|{HOLE}[^\w\n]{{0,3}}\w")
    bare = re.compile(rf"(?<![\w'’-])(?:{words}) ?[{HOLE}{NOTHING}]+ ?[,;.)]", re.IGNORECASE)
    count, found = 0, []
    for sentence in _END.split(text):
        if " | " in sentence or (len(re.findall(r"\w+", sentence)) < 3 and not _LONG_WORD.search(sentence)):
            continue
        count += 1
        if beside.search(sentence) or bare.search(sentence):
            found.append(sentence.replace(HOLE, "□").replace(NOTHING, "▫"))
    return count, found


def main() -> None:
    """Print a row of a table for each language and each set of pages."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--code", type=Path, default=ROOT, help="the checkout to measure, else this one")
    parser.add_argument("--show", type=int, default=0, help="print so many sentences with holes a language")
    options = parser.parse_args()
    sys.path[:0] = [str(options.code.resolve()), str(ROOT / "benchmarks")]
    from datalake.extract.wiki import wikitext  # after the path is set, and before `wikipedia` puts another before it

    assert Path(wikitext.__file__).is_relative_to(options.code.resolve())
    import wikipedia

    marked(wikitext)
    samples = Path(os.environ.get("HEADWATER_SAMPLES", ROOT.parent / "shared" / "samples"))
    sets: dict[str, list[tuple[str, str, str]]] = {
        "samples": [(page.language, page.title, page.text) for page in wikipedia.pages(samples)],
        "tests": list(pages_of_tests()),
    }
    print("| pages | language | sentences | with holes | share |\n| --- | --- | --- | --- | --- |")
    for name, found in sets.items():
        sentences: Counter[str] = Counter()
        broken: dict[str, list[str]] = {}
        for language, title, source in found:
            text = wikitext.clean(source, wikitext.Options(language=language), title)
            count, with_holes = holes(text, language)
            sentences[language] += count
            broken.setdefault(language, []).extend(with_holes)
        for language in sorted(sentences):
            bad = len(broken[language])
            print(
                f"| {name} | {language} | {sentences[language]:,} | {bad:,} | {bad / max(sentences[language], 1):.2%} |"
            )
            for sentence in broken[language][: options.show]:
                print("   ", " ".join(sentence.split())[:200])
        bad = sum(map(len, broken.values()))
        print(f"| {name} | all | {sentences.total():,} | {bad:,} | {bad / max(sentences.total(), 1):.2%} |")


if __name__ == "__main__":
    main()
