"""Wikitext to text: pages and megabytes a second, markup left over, numbers lost, beside mwparserfromhell's strip_code.

Pages: all articles of the samples' real dumps (`HEADWATER_SAMPLES`, else ../shared/samples). Both tools get the same
wikitext, decompressed and parsed from XML beforehand, in turns, in this one process; medians of rounds.

A number is *lost* if it stands among the digits of the wikitext that a reader sees and not among those of the text.
What a reader sees is taken as the wikitext without comments, references, galleries, formulas and code; without tables
of layout, infoboxes and navigation; without files, categories and addresses; and of templates only those that show a
number given to them (convert, val, dates, quantities...). Sections of apparatus don't count for either tool.

    .venv/bin/python benchmarks/wikipedia.py [--rounds N] [--dropped N]
"""

from __future__ import annotations

import argparse
import bz2
import html
import json
import os
import re
import statistics
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple
from xml.etree import ElementTree

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

import mwparserfromhell  # noqa: E402

from datalake.extract.wiki import wikitext as ours  # noqa: E402
from datalake.extract.wiki.templates import _TABLE  # noqa: E402
from datalake.extract.wiki.wikitext import APPARATUS, FILES_AND_CATEGORIES, Options, clean  # noqa: E402

MARKUP = ("{{", "}}", "[[", "]]", "<ref", "&nbsp;", "'''")


class Page(NamedTuple):
    language: str
    title: str
    revision: str
    text: str


def pages(root: Path) -> Iterator[Page]:
    """Articles of every sample dump; redirects left out. The language is the file name's: the small dumps' heads all
    say English.
    """
    for path in sorted([*(root / "wiki").glob("*.bz2"), *(root / "wiki/minidumps").glob("*.bz2")]):
        raw = bz2.decompress(path.read_bytes())
        xml = raw.decode("utf-16" if raw[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8")
        language = re.split(r"wiki|-", path.name)[0]
        for match in re.finditer(r"<page>.*?</page>", xml, re.DOTALL):
            page = ElementTree.fromstring(match[0])
            text = page.findtext("revision/text") or ""
            if page.findtext("ns") == "0" and page.find("redirect") is None and not re.match(r"#redirect", text, re.I):
                yield Page(language, page.findtext("title") or "", page.findtext("revision/id") or "", text)


def headwater(page: Page) -> str:
    return clean(page.text, Options(language=page.language), page.title)


def strip_code(page: Page) -> str:
    return str(mwparserfromhell.parse(page.text).strip_code())


_INNER = re.compile(r"\{\{([^{}]*)\}\}")
_NUMBER = re.compile(r"\d+")


def visible_numbers(page: Page) -> Counter[str]:
    """Digits that a reader sees, by an independent and cruder way than the code measured: patterns, innermost first."""
    text = re.sub(r"<!--.*?-->", "", page.text, flags=re.DOTALL)
    text = re.sub(r"<ref[^<>]*/>", "", text)
    for tag in ("ref", "gallery", "timeline", "math", "syntaxhighlight", "source", "imagemap", "score", "pre", "code"):
        text = re.sub(rf"<{tag}\b[^<>]*>.*?</{tag}\s*>", "", text, flags=re.DOTALL | re.IGNORECASE)
    text = re.sub(r"</?[A-Za-z][^<>]*>", " ", text)
    for _ in range(12):
        text, found = _INNER.subn(_shown, text)
        if not found:
            break
    for _ in range(6):
        text, found = re.subn(r"\[\[([^\[\]]*)\]\]", _link, text)
        if not found:
            break
    text = re.sub(r"\[?(?:https?:)?//[^\s\]]+", " ", text)
    text = re.sub(r"(?ms)^[ :*]*\{\|[^\n]*(?:infobox|navbox|sidebar|toc)[^\n]*$.*?^\s*\|\}", " ", text)
    text = re.sub(r"(?m)^\s*(?:\{\||\|-).*$", " ", text)  # attributes of tables and rows
    names = r"style|width|colspan|rowspan|bgcolor|align|height|border|cell\w+|class|id"
    text = re.sub(rf"(?:{names})\s*=\s*(?:\"[^\"]*\"|[^\s|]+)", " ", text)
    text = html.unescape(text)
    return numbers(without_apparatus(text))


def _shown(match: re.Match[str]) -> str:
    """Of a template without others in it: the numbers among the arguments of those that show one."""
    name, *arguments = match[1].split("|")
    key = " ".join(name.split()).lower()
    shows = ("convert", "cvt", "val", "frac", "nowrap", "birth date", "death date", "start date", "unité", "nombre",
             "formatnum", "as of", "date-", "ta", "lang", "bar percent", "nts", "circa")  # fmt: skip
    if key not in shows:
        return " "
    plain = [
        re.sub(r"^\s*[12]\s*=", "", item) for item in arguments if "=" not in item or re.match(r"\s*[12]\s*=", item)
    ]
    if key in ("convert", "cvt"):
        plain = plain[:1]  # the value; later arguments may be decimals to round to
    if "date" in key:
        plain = [item.strip().lstrip("0") for item in (plain[:1] + plain[2:3])]  # the month becomes a word
    return " " + " ".join(plain) + " "


def _link(match: re.Match[str]) -> str:
    title, bar, label = match[1].partition("|")
    prefix, colon, _ = title.partition(":")
    if colon and prefix.strip().lower().replace(" ", "_") in FILES_AND_CATEGORIES:
        return " "
    return label if bar else title


def without_apparatus(text: str) -> str:
    out, skipping = [], 0
    for line in text.split("\n"):
        if match := re.match(r"(={2,6})\s*(.*?)\s*={2,6}\s*$", line):
            level = len(match[1])
            if not skipping or level <= skipping:
                skipping = level if match[2].casefold() in APPARATUS else 0
        if not skipping:
            out.append(line)
    return "\n".join(out)


def numbers(text: str) -> Counter[str]:
    """Runs of digits, thousands written together."""
    return Counter(_NUMBER.findall(re.sub(r"(?<=\d)[,\u00a0\u202f ](?=\d{3}(?!\d))", "", text)))


def measure(tools: dict[str, Callable[[Page], str]], found: list[Page], rounds: int) -> dict[str, float]:
    """Median seconds of processor time over all pages, in turns."""
    times: dict[str, list[float]] = {name: [] for name in tools}
    for number in range(rounds):
        for name, tool in tools.items():
            start = time.process_time()
            for page in found:
                tool(page)
            times[name].append(time.process_time() - start)
        print(f"round {number + 1}: " + "  ".join(f"{name} {values[-1]:.2f} s" for name, values in times.items()))
    return {name: statistics.median(values) for name, values in times.items()}


def dropped(found: list[Page], most: int) -> None:
    """Templates that render as nothing in the middle of a line, most frequent first, with an example."""

    words_of = ours.words_of

    def marked(name: str, positional: list[str], named: dict[str, str], place: Any) -> str:
        return words_of(name, positional, named, place) or f"\uf8f0{name}\uf8f1"

    counts: Counter[str] = Counter()
    examples: dict[str, str] = {}
    ours.words_of = marked
    for page in found:
        text = headwater(page)
        for match in re.finditer("[\\w,(] ?\uf8f0([^\uf8f0\uf8f1]*)\uf8f1 ?[\\w,)]", text):
            name = f"{page.language} {match[1].lower()[:40]}"
            counts[name] += 1
            around = text[max(0, match.start() - 30) : match.end() + 20]
            examples.setdefault(name, " ".join(re.sub("[\uf8f0\uf8f1]", "¦", around).split()))
    ours.words_of = words_of
    for name, count in counts.most_common(most):
        print(f"{count:5} {name:30} {examples[name]}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--dropped", type=int, default=0, help="only list the templates dropped within lines")
    options = parser.parse_args()
    found = list(pages(Path(os.environ.get("HEADWATER_SAMPLES", ROOT.parent / "shared" / "samples"))))
    if options.dropped:
        dropped(found, options.dropped)
        return
    size = sum(len(page.text.encode()) for page in found) / 1e6
    tools = {"headwater": headwater, "strip_code": strip_code}
    print(f"{len(found)} pages, {size:.1f} MB of wikitext, {len(_TABLE)} names of templates")
    seconds = measure(tools, found, options.rounds)
    languages = sorted({page.language for page in found})
    rows = []
    for language in (*languages, "all"):
        here = [page for page in found if language in (page.language, "all")]
        seen = [visible_numbers(page) for page in here]
        for name, tool in tools.items():
            texts = [tool(page) for page in here]
            have = [numbers(without_apparatus(text) if name == "strip_code" else text) for text in texts]
            lost = sum((want - got).total() for want, got in zip(seen, have, strict=True))
            total = sum(want.total() for want in seen)
            characters = sum(map(len, texts))
            left = sum(text.count(mark) for text in texts for mark in MARKUP)
            bars = sum(len(re.findall(r"(?m)^[|!]|\|\w+=", text)) for text in texts)
            rows.append((language, len(here), name, characters, left, bars, lost, total))
    print("| language | pages | tool | characters | markup left | table bars left | numbers lost |\n|" + " --- |" * 7)
    for language, count, name, characters, left, bars, lost, total in rows:
        share = f"{lost:,} of {total:,} ({lost / max(total, 1):.1%})"
        print(f"| {language} | {count} | {name} | {characters:,} | {left:,} | {bars:,} | {share} |")
    for name, value in seconds.items():
        print(f"{name:12} {len(found) / value:8.1f} pages/s  {size / value:6.2f} MB/s")
    ratio = seconds["strip_code"] / seconds["headwater"]
    print(f"headwater is {ratio:.2f} times as fast as strip_code")
    print(json.dumps({
        "bench": "wikipedia", "pages": len(found), "megabytes": round(size, 3), "rounds": options.rounds,
        "median_seconds": {name: round(value, 3) for name, value in seconds.items()}, "ratio": round(ratio, 3),
        "versions": {"mwparserfromhell": mwparserfromhell.__version__, "python": sys.version.split()[0]},
    }))  # fmt: skip


if __name__ == "__main__":
    main()
