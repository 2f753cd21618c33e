"""Reading web archives and extracting main content, beside warcio with Trafilatura, in one run on one core.

    .venv/bin/python benchmarks/extract.py [--pages DIR] [--folds DIR] [--rounds 5] [--parts]

Every system reads the same archives from their files, decodes each page and gives its text; rounds are interleaved, and
each figure is the median of the rounds. Quality is token F1 against the gold texts (bags of lower-cased words, Chinese
by character), a mean over pages. Our model was trained on these pages: its F1 here is that of the models of
`train_main_content.py --folds`, each of which scores only pages of sites that it hasn't seen, through the shipped code.
The gold of the family `pagesignal` is markup, not text: its pages are timed and not scored. `--parts` times the parts
of our extraction instead, each on what the one before it gave.

Needs trafilatura, lxml_html_clean and warcio.
"""

from __future__ import annotations

import argparse
import collections
import json
import os
import statistics
import time
from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

from train_main_content import NO_TEXT, bag, f1, fold_of, gold_rows

from datalake.extract.html.blocks import cut
from datalake.extract.html.charset import decode
from datalake.extract.html.features import first_features, second_features
from datalake.extract.html.forest import predict
from datalake.extract.html.main_content import load_model, text_of
from datalake.extract.html.page import extract, tidy
from datalake.formats import warc

Bodies = Callable[[Path], Iterator[tuple[str, bytes]]]


def our_bodies(path: Path) -> Iterator[tuple[str, bytes]]:
    """(origin, body) of each page, framed by `datalake.formats.warc`."""
    for record in warc.records(str(path), 1 << 30):
        if isinstance(record, warc.Record) and record.type == "response" and record.block is not None:
            yield record.headers["x-sample-origin"], record.block.partition(b"\r\n\r\n")[2]


def warcio_bodies(path: Path) -> Iterator[tuple[str, bytes]]:
    """The same by warcio."""
    from warcio.archiveiterator import ArchiveIterator

    with path.open("rb") as stream:
        for record in ArchiveIterator(stream):
            if record.rec_type == "response":
                yield record.rec_headers.get_header("X-Sample-Origin"), record.content_stream().read()


def ours(body: bytes) -> str:
    return extract(decode(body)[0]).text


def ours_resiliparse(body: bytes) -> str:
    return extract(decode(body)[0], True, "resiliparse").text


def trafilatura_precision(body: bytes) -> str:
    import trafilatura

    return trafilatura.extract(body, favor_precision=True) or ""


def trafilatura_default(body: bytes) -> str:
    import trafilatura

    return trafilatura.extract(body) or ""


SYSTEMS: dict[str, tuple[Bodies, Callable[[bytes], str]]] = {
    "headwater": (our_bodies, ours),
    "headwater, extractor resiliparse": (our_bodies, ours_resiliparse),
    "warcio + trafilatura, precision": (warcio_bodies, trafilatura_precision),
    "warcio + trafilatura": (warcio_bodies, trafilatura_default),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    samples = Path(os.environ.get("HEADWATER_SAMPLES", "../shared/samples"))
    parser.add_argument("--pages", type=Path, default=samples / "cc/pages")
    parser.add_argument("--folds", type=Path, default=None, help="models of the folds; without them ours has no F1")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--parts", action="store_true")
    options = parser.parse_args()
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    archives = sorted(options.pages.glob("pages-dev-*.warc.gz"))
    if options.parts:
        parts([body for path in archives for _, body in our_bodies(path)], options.rounds)
        return
    size = sum(len(body) for path in archives for _, body in our_bodies(path))
    gold = {
        row["origin"].encode("ascii", "replace").decode(): row
        for row in gold_rows(options.pages)
        if "gold_text" in row and row["origin"].split("/")[0] not in NO_TEXT
    }
    texts: dict[str, dict[str, str]] = {}
    seconds: dict[str, list[float]] = collections.defaultdict(list)
    for _, get in SYSTEMS.values():  # imports and compilation are start-up
        get(b"<html><body><p>" + b"A sentence to begin with. " * 20 + b"</p></body></html>")
    for number in range(options.rounds):
        for name, (bodies, get) in SYSTEMS.items():
            begin = time.perf_counter()
            texts[name] = {origin: get(body) for path in archives for origin, body in bodies(path)}
            seconds[name].append(time.perf_counter() - begin)
        print(
            f"round {number + 1}: " + "  ".join(f"{name} {times[-1]:.2f} s" for name, times in seconds.items()),
            flush=True,
        )
    texts["headwater"] = unseen(archives, gold, options.folds) if options.folds else {}
    pages = len(texts["warcio + trafilatura"])
    languages = [name for name, n in collections.Counter(row["lang"] for row in gold.values()).most_common() if n >= 10]
    print(f"\n{pages} pages, {size / 1e6:.1f} MB of HTML, {len(gold)} scored; medians of {options.rounds} rounds\n")
    print(f"| system | pages/s | MB/s | F1 | {' | '.join(languages)} |\n|{' --- |' * (4 + len(languages))}")
    result = {}
    for name, times in seconds.items():
        middle = statistics.median(times)
        by = collections.defaultdict(list)
        for origin, row in gold.items() if texts[name] else ():
            score = f1(bag(texts[name].get(origin, "")), bag(row["gold_text"]))
            for group in ("all", row["lang"]):
                by[group].append(score)
        means = {group: round(statistics.mean(values), 4) for group, values in by.items()}
        result[name] = {"pages_s": round(pages / middle, 1), "mb_s": round(size / 1e6 / middle, 2), "f1": means}
        cells = [f"{means.get(group, 0):.3f}" for group in ("all", *languages)]
        row = [f"{pages / middle:.0f}", f"{size / 1e6 / middle:.1f}", *cells]
        print(f"| {name} | {' | '.join(row)} |")
    ratio = result["headwater"]["pages_s"] / result["warcio + trafilatura, precision"]["pages_s"]
    print(f"\nheadwater reads and extracts {ratio:.1f} times as fast as warcio + trafilatura, precision (goal: 8)")
    print(json.dumps({
        "bench": "extract", "pages": pages, "bytes": size, "scored": len(gold), "rounds": options.rounds,
        "systems": result, "ratio": round(ratio, 2),
        "versions": {name: version(name) for name in ("trafilatura", "warcio", "resiliparse", "fastwarc", "numba")},
    }))  # fmt: skip


def parts(bodies: list[bytes], rounds: int) -> None:
    """Milliseconds a page of each part of our extraction, median of rounds."""
    model = load_model()
    seconds: dict[str, list[float]] = collections.defaultdict(list)

    def timed(name: str, get: Callable[[Any], Any], given: list[Any]) -> list[Any]:
        begin = time.perf_counter()
        found = [get(one) for one in given]
        seconds[name].append(time.perf_counter() - begin)
        return found

    for _ in range(rounds + 1):
        texts = timed("decoding", lambda body: decode(body)[0], bodies)
        pages = timed("cutting blocks", cut, texts)
        first = timed("features", first_features, pages)
        scores = timed("trees", lambda one: predict(model.first, one[0]), first)
        both = [(score, *one) for score, one in zip(scores, first, strict=True)]
        second = timed("features of the second pass", lambda one: second_features(*one), both)
        judged = timed("trees of the second pass", lambda one: predict(model.second, one), second)
        kept = [(page, score >= 0.5) for page, score in zip(pages, judged, strict=True)]
        timed("tidying", tidy, timed("writing the text", lambda one: text_of(*one), kept))
    for name, times in seconds.items():  # the first round compiles and fills caches
        print(f"{name:28s} {statistics.median(times[1:]) / len(bodies) * 1000:.2f} ms a page")


def unseen(archives: list[Path], gold: dict[str, dict[str, str]], folds: Path) -> dict[str, str]:
    """The text of each gold page by the model of its fold, which saw no page of its site."""
    texts = {}
    for path in archives:
        for origin, body in our_bodies(path):
            if row := gold.get(origin):
                model = str(folds / f"fold-{fold_of(row['url'], row['origin'])}.npz")
                texts[origin] = extract(decode(body)[0], model=model).text
    return texts


if __name__ == "__main__":
    main()
