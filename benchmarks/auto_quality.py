"""How much good text the preset `auto` keeps, and how much else, on pages that were read and labelled one by one.

    .venv/bin/python benchmarks/auto_quality.py [--samples ../shared/samples]

The population is the English and Chinese pages of `cc/pages` as `ingest` gives them, 100 articles of the Chinese
Wikipedia as plain text and 100 rows of ChineseWebText, each text once. `data/auto_labels.jsonl` has 200 of each
language, by address and SHA-256 of the text that was read. They were drawn by hash among what `auto` dropped (at most
100) and, to 200, among what it kept, as it was then: FineWeb's rules for English and FineWeb-2's for Chinese, the
column `before`. The verdict was given from the text alone: `good` for running prose and whatever else is worth
learning from, `junk` for menus, stubs, listings, products, teasers, promotion, spam, spun and generated text.

A label stands for as many documents as its stratum (language, dropped or kept) has for each of its labels. Recall is
the share of good documents that are kept, precision the share of kept documents that are good; intervals of 95% are
percentiles of 2,000 bootstrap samples drawn within strata. Thresholds were chosen on the half `tuning`, which a hash of
the text parts from the half `held`.
"""

from __future__ import annotations

import argparse
import gzip
import hashlib
import json
import os
import random
import tarfile
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from curate import documents_of

from datalake.curate.config import CurateConfig
from datalake.curate.curate import curate_batch
from datalake.document import Document
from datalake.tables import RAW, to_table

LABELS = Path(__file__).parent / "data" / "auto_labels.jsonl"
# Documents in each stratum when the pages were drawn.
SIZES = {("en", "dropped"): 125, ("en", "kept"): 342, ("zh", "dropped"): 78, ("zh", "kept"): 299}
BOOTSTRAP = 2000


class Label(NamedTuple):
    """A page that was read: where it was drawn, its half and verdict, and whether it is kept now."""

    stratum: tuple[str, str]
    half: str
    good: bool
    kept: bool


class Counts(NamedTuple):
    """Documents, estimated: good ones kept and dropped, others kept."""

    good_kept: float
    good_lost: float
    junk_kept: float

    @property
    def recall(self) -> float:
        return self.good_kept / (self.good_kept + self.good_lost)

    @property
    def precision(self) -> float:
        return self.good_kept / (self.good_kept + self.junk_kept)


def population(samples: Path) -> dict[tuple[str, str], Document]:
    """(set, address) to document."""
    pages = documents_of(samples / "cc" / "pages")
    found = {("pages", one.uri): one for one in pages if one.language in ("en", "zh")}
    plain = replace(pages[0], language="zh", source="text", attributes={})
    with tarfile.open(samples / "wiki" / "zhwiki-plain-100-articles.tar.xz") as tar:
        for member in tar:
            if member.name.endswith(".txt") and (stream := tar.extractfile(member)):
                found["zhwiki", member.name] = replace(plain, text=stream.read().decode("utf-8", "replace"))
    with gzip.open(samples / "text" / "chinesewebtext-2021-43-cleared1.jsonl.gz", "rt", encoding="utf-8") as lines:
        for row in map(json.loads, lines):
            found["chinesewebtext", row["url"]] = replace(plain, text=row["raw_content"])
    return found


def labelled(documents: dict[tuple[str, str], Document]) -> list[Label]:
    """The labels, with today's verdicts; says how many of the texts aren't those that were read."""
    rows = [json.loads(line) for line in LABELS.read_text(encoding="utf-8").splitlines()]
    there = [row for row in rows if (row["set"], row["address"]) in documents]
    texts = [documents[row["set"], row["address"]] for row in there]
    changed = sum(
        hashlib.sha256(one.text.encode("utf-8", "surrogatepass")).hexdigest() != row["sha256"]
        for row, one in zip(there, texts, strict=True)
    )
    print(
        f"{len(rows)} labels, {len(rows) - len(there)} without a document, {changed} of texts that have changed since"
    )
    verdicts = curate_batch(to_table(texts, RAW), CurateConfig())[0]["verdict"].to_pylist()
    return [
        Label((row["language"], row["stratum"]), row["half"], row["verdict"] == "good", verdict == "kept")
        for row, verdict in zip(there, verdicts, strict=True)
    ]


def counts(labels: Sequence[Label], before: bool) -> Counts:
    """What the labels say about the population, by the verdicts of when they were drawn or of today."""
    of = Counter(label.stratum for label in labels)
    good_kept, good_lost, junk_kept = 0.0, 0.0, 0.0
    for label in labels:
        weight = SIZES[label.stratum] / of[label.stratum]
        kept = label.stratum[1] == "kept" if before else label.kept
        good_kept += weight * (label.good and kept)
        good_lost += weight * (label.good and not kept)
        junk_kept += weight * (not label.good and kept)
    return Counts(good_kept, good_lost, junk_kept)


def resampled(labels: Sequence[Label], seed: int = 0) -> Iterator[list[Label]]:
    """Bootstrap samples of the labels, each stratum by itself."""
    rng = random.Random(seed)
    strata = [[label for label in labels if label.stratum == one] for one in sorted({x.stratum for x in labels})]
    for _ in range(BOOTSTRAP):
        yield [label for stratum in strata for label in rng.choices(stratum, k=len(stratum))]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    default = Path(os.environ.get("HEADWATER_SAMPLES", "../shared/samples"))
    parser.add_argument("--samples", type=Path, default=default)
    everything = labelled(population(parser.parse_args().samples))
    print("\n| language | half | labels | | good text lost | junk kept | recall | precision |")
    print("| --- | --- | ---: | --- | ---: | ---: | ---: | ---: |")
    for language in ("en", "zh"):
        for half in ("tuning", "held", "both"):
            labels = [one for one in everything if one.stratum[0] == language and half in (one.half, "both")]
            again = list(resampled(labels))
            for name, before in (("before", True), ("now", False)):
                told = counts(labels, before)
                samples = [counts(one, before) for one in again]
                cells = []
                for what in ("recall", "precision"):
                    values = sorted(getattr(one, what) for one in samples)
                    low, high = values[int(0.025 * BOOTSTRAP)], values[int(0.975 * BOOTSTRAP)]
                    cells.append(f"{getattr(told, what):.3f} ({low:.3f} to {high:.3f})")
                lost = f"{told.good_lost:.0f} of {told.good_kept + told.good_lost:.0f}"
                kept = f"{told.junk_kept:.0f} of {told.good_kept + told.junk_kept:.0f}"
                print(f"| {language} | {half} | {len(labels)} | {name} | {lost} | {kept} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
