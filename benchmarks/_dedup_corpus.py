"""A seeded corpus rich in near-duplicates whose similarities are known, and a judge of what a deduplicator removed.

Families of documents: a base of 2 to 12 paragraphs of real pages, a fifth of their words exchanged so that strangers
that draw the same paragraph stay far apart, and edited copies of it. The truth is plain Python: the Jaccard index of
the sets of lower-cased word 5-grams, of every pair of documents within a family. No code of Headwater stands in it.
"""

from __future__ import annotations

import gzip
import json
import re
import resource
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from itertools import combinations
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

WORD = re.compile(r"[\u3400-\u9fff]|[^\W_]+")
NGRAM = 5
MARKUP = set("<>{}")  # what betrays a line that is no prose
ROWS_PER_FILE = 10_000
NOISE = 0.2  # of a paragraph's words that are exchanged before any document is made of it
SIZES, SIZE_WEIGHTS = (1, 2, 3, 4, 6, 10), (55, 22, 10, 7, 4, 2)
EDITS, EDIT_WEIGHTS = ("exact", "words", "drop", "add", "case"), (8, 64, 12, 10, 6)
RATES = (0.003, 0.006, 0.01, 0.015, 0.02, 0.03, 0.04, 0.06, 0.09)
BINS = (0.5, 0.6, 0.7, 0.8, 0.9, 1.0)

# `name` is `id` as text, FAMILY-MEMBER in sixteen characters; the other columns are what `sign_file` asks for.
DOCUMENTS = pa.schema(
    [
        ("id", pa.binary(16)),
        ("name", pa.string()),
        ("text", pa.string()),
        ("source", pa.string()),
        ("uri", pa.string()),
        ("created", pa.timestamp("us", "UTC")),
    ]
)


class Corpus(NamedTuple):
    """Where it lies, and how much it is. `truth` has the columns a, b (names) and jaccard."""

    files: list[Path]
    truth: Path
    documents: int
    families: int
    bytes: int

    @property
    def folder(self) -> Path:
        return self.files[0].parent


def shingles(text: str) -> set[tuple[str, ...]]:
    """The set of lower-cased word 5-grams; a shorter text is one shingle as a whole."""
    words = WORD.findall(text.lower())
    if len(words) <= NGRAM:
        return {tuple(words)} if words else set()
    return set(zip(*(words[k:] for k in range(NGRAM)), strict=False))


def jaccard(a: set[Any], b: set[Any]) -> float:
    both = len(a & b)
    return both / (len(a) + len(b) - both) if a or b else 1.0


def paragraphs_of(pages: Path) -> tuple[list[np.ndarray], list[str], int]:
    """Lines of English main content as word numbers, the words, and how many of them (the first) may replace others."""
    seen: dict[str, None] = {}
    with gzip.open(pages, "rt", encoding="utf-8") as stream:
        for row in map(json.loads, stream):
            if row.get("lang") == "en":
                lines = (" ".join(line.split()) for line in (row.get("gold_text") or "").split("\n"))
                prose = (line for line in lines if 120 <= len(line) <= 1200 and not MARKUP & set(line))
                seen |= dict.fromkeys(prose)
    if not seen:
        raise SystemExit(f"{pages}: no row of English `gold_text`")
    counts = Counter(word for line in seen for word in line.split())
    plain = sorted(word for word, n in counts.items() if n > 1 and word.isascii() and word.isalpha() and word.islower())
    words = plain + sorted(counts.keys() - set(plain))
    number = {word: k for k, word in enumerate(words)}
    return [np.array([number[word] for word in line.split()], np.int32) for line in seen], words, len(plain)


class _Maker:
    def __init__(self, pages: Path, seed: int) -> None:
        self.pool, self.words, self.plain = paragraphs_of(pages)
        self.random = np.random.default_rng(seed)

    def _exchange(self, paragraph: np.ndarray, rate: float) -> np.ndarray:
        chosen = self.random.random(len(paragraph)) < rate
        return np.where(chosen, self.random.integers(self.plain, size=len(paragraph), dtype=np.int32), paragraph)

    def _paragraph(self) -> np.ndarray:
        return self._exchange(self.pool[self.random.integers(len(self.pool))], NOISE)

    def _text(self, paragraphs: Iterable[np.ndarray]) -> str:
        words = self.words
        return "\n".join(" ".join([words[k] for k in one.tolist()]) for one in paragraphs)

    def _edited(self, base: list[np.ndarray]) -> str:
        kind = EDITS[self._weighted(EDIT_WEIGHTS)]
        if kind == "words":
            rate = RATES[self.random.integers(len(RATES))]
            return self._text(self._exchange(one, rate) for one in base)
        if kind == "drop" and len(base) > 2:
            gone = self.random.integers(len(base))
            return self._text(one for k, one in enumerate(base) if k != gone)
        if kind == "add":
            return self._text([*base, self._paragraph()])
        if kind == "case":
            words = self._text(base).split(" ")
            raised = (self.random.random(len(words)) < 0.2).tolist()
            return " ".join(word.upper() if up else word for word, up in zip(words, raised, strict=True))
        return self._text(base)

    def _weighted(self, weights: tuple[int, ...]) -> int:
        return int(np.searchsorted(np.cumsum(weights), self.random.integers(sum(weights)), side="right"))

    def families(self, documents: int) -> Iterator[list[str]]:
        """Texts, family by family, until there are as many as asked for."""
        while documents:
            base = [self._paragraph() for _ in range(self.random.integers(2, 13))]
            size = min(SIZES[self._weighted(SIZE_WEIGHTS)], documents)
            yield [self._text(base)] + [self._edited(base) for _ in range(size - 1)]
            documents -= size


def corpus(folder: Path, pages: Path, documents: int, seed: int = 7) -> Corpus:
    """The corpus of this size and seed under `folder`, made unless it lies there."""
    place = folder / f"documents-{documents}-seed-{seed}"
    files = [place / f"documents-{k:05d}.parquet" for k in range(-(-documents // ROWS_PER_FILE))]
    done = place / "corpus.json"  # comes last
    if not done.exists():
        start = time.perf_counter()
        place.mkdir(parents=True, exist_ok=True)
        maker = _Maker(pages, seed)
        names: list[str] = []
        texts: list[str] = []
        truth: dict[str, list[Any]] = {"a": [], "b": [], "jaccard": []}
        families = 0
        for members in maker.families(documents):
            of_family = [f"{families:09d}-{k:06d}" for k in range(len(members))]
            names += of_family
            texts += members
            families += 1
            sets = [shingles(text) for text in members] if len(members) > 1 else []
            for i, j in combinations(range(len(sets)), 2):
                truth["a"].append(of_family[i])
                truth["b"].append(of_family[j])
                truth["jaccard"].append(jaccard(sets[i], sets[j]))
        order = maker.random.permutation(documents).tolist()
        size = 0
        for k, file in enumerate(files):
            chosen = order[k * ROWS_PER_FILE : (k + 1) * ROWS_PER_FILE]
            some = [texts[i] for i in chosen]
            size += sum(len(text.encode()) for text in some)
            columns = [
                pa.array([names[i].encode() for i in chosen], pa.binary(16)),
                pa.array([names[i] for i in chosen]),
                pa.array(some),
                pa.array(["web"] * len(chosen)),
                pa.nulls(len(chosen), pa.string()),
                pa.nulls(len(chosen), DOCUMENTS.field("created").type),
            ]
            pq.write_table(pa.Table.from_arrays(columns, schema=DOCUMENTS), file)
        pq.write_table(pa.table(truth), place / "truth.parquet")
        seconds = round(time.perf_counter() - start, 1)
        done.write_text(json.dumps({"documents": documents, "families": families, "bytes": size, "seconds": seconds}))
    about = json.loads(done.read_text())
    return Corpus(files, place / "truth.parquet", about["documents"], about["families"], about["bytes"])


def judge(truth: pa.Table, removed: set[str], thresholds: Iterable[float]) -> dict[str, Any]:
    """What the removal of these names was worth, by the truth alone.

    `caught`: of the pairs of a bin, [lower edge, next edge), the share of which not both were kept, and how many pairs;
    `caught_0.8`: the same of all pairs from 0.8 on. `precise_T`: of the removed documents, the share that has a kept
    document of its family at T or above; None where nothing was removed. `lost`: families of which nothing was kept.
    """
    a, b, alike = truth["a"].to_pylist(), truth["b"].to_pylist(), truth["jaccard"].to_pylist()
    found, all_of = [0] * (len(BINS) + 1), [0] * (len(BINS) + 1)
    best: dict[str, float] = {}  # of each removed document, the similarity of the most similar kept one
    for x, y, s in zip(a, b, alike, strict=True):
        bin_ = sum(s >= edge for edge in BINS)
        gone = (x in removed) + (y in removed)
        all_of[bin_] += 1
        found[bin_] += gone > 0
        if gone == 1:
            one = x if x in removed else y
            best[one] = max(best.get(one, 0.0), s)
    whole = Counter(name[:9] for name in dict.fromkeys((*a, *b)))
    taken = Counter(name[:9] for name in removed)
    high = range(1 + BINS.index(0.8), len(BINS) + 1)
    answer: dict[str, Any] = {
        "removed": len(removed),
        "caught": {
            str(edge): [found[k] / all_of[k] if all_of[k] else None, all_of[k]] for k, edge in enumerate(BINS, 1)
        },
        "caught_0.8": sum(found[k] for k in high) / max(1, sum(all_of[k] for k in high)),
        "missed_0.8": sum(all_of[k] - found[k] for k in high),
        # a document that is a family by itself is in no pair: one that goes is lost
        "lost": sum(number >= whole.get(family, 1) for family, number in taken.items()),
    }
    for threshold in thresholds:
        precise = sum(s >= threshold for s in best.values())
        answer[f"precise_{threshold}"] = precise / len(removed) if removed else None
    return answer


def peak_mb() -> int:
    """Peak resident MB of this very process. `ru_maxrss` would carry over what its parent had at the fork."""
    try:
        (line,) = [x for x in Path("/proc/self/status").read_text().splitlines() if x.startswith("VmHWM")]
        return int(line.split()[1]) // 1024
    except OSError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
