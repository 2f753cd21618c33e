"""Decontamination: what is in the samples' evaluation sets, how fast documents are looked up, what is found and missed.

Sets: all of `eval/` of the samples (`HEADWATER_SAMPLES`, else ../shared/samples). Speed: stretches of 2 kB of the gold
texts of real pages, one thread, by its processor time, best of rounds. Found: pages (through ingest) and rows of
instructions and texts that hold an n-gram, each shown. Missed: every row of CMMLU and ARC as a page would have it, with
lettered alternatives or with the right answer behind the question.

    .venv/bin/python benchmarks/decontaminate.py [--rounds N] [--ngram N]
"""

from __future__ import annotations

import argparse
import csv
import gzip
import io
import json
import os
import resource
import sys
import tarfile
import time
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

import numpy as np  # noqa: E402

from datalake.curate.checks.decontaminate import Index, index_of  # noqa: E402
from datalake.curate.checks.decontaminate_config import DecontaminateConfig  # noqa: E402
from datalake.curate.checks.evaluation_sets import evaluation_rows  # noqa: E402
from datalake.document import Document  # noqa: E402
from datalake.sources import reader  # noqa: E402
from datalake.sources.web.config import CommonCrawl  # noqa: E402
from datalake.sources.wikipedia.config import Wikipedia  # noqa: E402

SAMPLES = Path(os.environ.get("HEADWATER_SAMPLES", ROOT.parent / "shared" / "samples"))


def gold() -> list[tuple[str, str]]:
    """(language, text) of the gold texts of real pages."""
    with gzip.open(SAMPLES / "cc/pages/pages-dev.jsonl.gz", "rt") as file:
        rows = [json.loads(line) for line in file]
    return [(row["lang"], row["gold_text"]) for row in rows if row.get("gold_text")]


def documents() -> Iterator[tuple[str, str, str]]:
    """(group, name, text): pages and articles as samples.yaml reads them, rows of instructions and texts."""
    crawl = CommonCrawl(paths=[f"{SAMPLES}/cc/pages/*.warc.gz", f"{SAMPLES}/cc/warc/*.warc.gz"])
    for source in (crawl, Wikipedia(paths=[f"{SAMPLES}/wiki/enwiki-latest-pages-articles1*.bz2"])):
        for shard in reader(source.kind).archives(source):
            for entry in reader(source.kind).read(shard, source):
                if isinstance(entry, Document):
                    yield source.kind, entry.uri, entry.text
    for folder in ("instruction", "text"):
        for path in sorted((SAMPLES / folder).glob("*.json*")):
            for row in evaluation_rows(path.name, str(path)):
                yield folder, f"{row.set}#{row.number}", row.readings[0]


def speed(index: Index, texts: list[str], rounds: int) -> float:
    """Documents a second of a core."""
    best = float("inf")
    for _ in range(rounds + 1):  # the first one warms up
        start = time.process_time()
        for text in texts:
            index.overlap(text)
        best = min(best, time.process_time() - start)
    return len(texts) / best


def as_pages() -> dict[str, list[str]]:
    """Every row of CMMLU and ARC as pages write such."""
    made: dict[str, list[str]] = {}
    with tarfile.open(SAMPLES / "eval/cmmlu.tar.gz") as archive:
        for member in archive:
            if member.name.endswith(".csv") and (file := archive.extractfile(member)):
                for row in csv.DictReader(io.TextIOWrapper(file, "utf-8")):
                    letters = "\n".join(f"{letter}. {row[letter]}" for letter in "ABCD")
                    made.setdefault("CMMLU, lettered", []).append(f"第3题 {row['Question']}\n{letters}")
                    made.setdefault("CMMLU, answered", []).append(row["Question"] + row[row["Answer"]])
    for name in ("arc_easy", "arc_challenge"):
        with gzip.open(SAMPLES / f"eval/llmfoundry/{name}.jsonl.gz", "rt") as lines:
            for line in lines:
                row = json.loads(line)
                question = row["query"].removeprefix("Question: ")
                letters = "\n".join(f"{a}. {b}" for a, b in zip("ABCDE", row["choices"], strict=False))
                made.setdefault("ARC, lettered", []).append(f"3) {question}\n{letters}")
                made.setdefault("ARC, answered", []).append(f"{question} {row['choices'][row['gold']]}")
    return made


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--ngram", type=int, default=13)
    arguments = parser.parse_args()
    config = DecontaminateConfig(paths=[str(SAMPLES / "eval")], ngram=arguments.ngram, shortest=min(8, arguments.ngram))
    before, start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.perf_counter()
    index = index_of(config)
    seconds = time.perf_counter() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    parts = [a for level in index._levels for part in (level, level.grams, level.wholes) for a in part]
    held = sum(part.nbytes for part in parts if isinstance(part, np.ndarray))
    rows, grams = sum(s.rows for s in index.sets), sum(len(level.grams.keys) for level in index._levels)
    print(
        f"{rows} rows, {grams} n-grams of both levels: {seconds:.1f} s, {held / 1e6:.0f} MB, peak {peak / 1e3:.0f} MB"
    )
    print("set rows whole ignored ngrams figures frequent")
    for counts in index.sets:
        print(*counts)
    for language, size in (("en", 2_000), ("zh", 667)):
        texts = [
            text[k : k + size] for own, text in gold() if own == language for k in range(0, len(text) - size, size)
        ]
        bytes_each = sum(len(text.encode()) for text in texts) / len(texts)
        found = speed(index, texts[:3_000], arguments.rounds)
        print(f"speed {language}: {found:,.0f} documents/s, {min(3_000, len(texts))} of {bytes_each:,.0f} bytes")
    for what, pages in as_pages().items():
        hits = sum(index.overlap(page).ngrams > 0 for page in pages)
        print(f"found of {what}: {hits} of {len(pages)} ({hits / len(pages):.1%})")
    groups: dict[str, list[int]] = {}
    for group, name, text in documents():
        overlap = index.overlap(text)
        counts_of = groups.setdefault(group, [0, 0])
        counts_of[0] += 1
        if overlap.ngrams:
            counts_of[1] += 1
            words = " ".join(text[overlap.start : overlap.end].split())
            print(f"  {name}: {overlap.ngrams} {overlap.share:.3f} {overlap.level} {overlap.row} {words[:150]}")
    for group, (total, hit) in groups.items():
        print(f"{group}: {hit} of {total} contaminated")


if __name__ == "__main__":
    main()
