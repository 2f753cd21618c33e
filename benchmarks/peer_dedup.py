"""Other deduplicators, for `dedup.py` to run beside Headwater in an interpreter of their own.

    PEER_PYTHON benchmarks/peer_dedup.py SYSTEM signatures|whole FOLDER RESULT [--workers 1]

PEER_PYTHON is a Python 3.11 with `rensa==0.5.0 datasketch==2.0.0 xxhash datatrove[io,processing]==0.10.1 spacy
lxml_html_clean`. FOLDER holds the Parquet files of `_dedup_corpus.py`, or the same documents as JSON lines (rensa and
datasketch read these too, with the standard library's json), RESULT is wiped and gets `removed.txt`. Each has
14 bands of 8 rows over word 5-grams, datatrove's defaults; of a cluster one document stays, the first.

`rensa` and `datasketch` are given sets of shingles made in Python (they have no text side), and clusters are made by
union-find over what the index answers. `rensa-flags` is rensa's fastest call, which flags every member of a cluster,
the first included: its speed alone is comparable. `datatrove` is its four steps with its own English tokenizer (spaCy),
`datatrove-regex` the same with words by one regular expression. Imports and what is loaded at the first use come before
the clock. Prints one JSON object.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import time
from collections.abc import Callable, Iterable
from multiprocessing import Pool
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
from _dedup_corpus import WORD, peak_mb, shingles

BANDS, ROWS = 14, 8
PERMUTATIONS = BANDS * ROWS


def read(folder: Path) -> tuple[list[str], list[str]]:
    """All names and texts."""
    if lines := sorted(folder.glob("*.jsonl")):
        rows = [json.loads(line) for file in lines for line in file.open(encoding="utf-8")]
        return [row["id"] for row in rows], [row["text"] for row in rows]
    tables = [pq.read_table(file, columns=["name", "text"]) for file in sorted(folder.glob("documents-*.parquet"))]
    return [n for t in tables for n in t["name"].to_pylist()], [x for t in tables for x in t["text"].to_pylist()]


def joined(text: str) -> list[str]:
    return [" ".join(one) for one in shingles(text)]


class Clusters:
    """Union-find; the smallest number of a cluster is its representative."""

    def __init__(self, count: int) -> None:
        self.parent = list(range(count))

    def find(self, x: int) -> int:
        parent = self.parent
        while parent[x] != x:
            parent[x] = parent[parent[x]]
            x = parent[x]
        return x

    def join(self, a: int, b: int) -> None:
        a, b = self.find(a), self.find(b)
        self.parent[max(a, b)] = min(a, b)

    def others(self) -> Iterable[int]:
        return (k for k in range(len(self.parent)) if self.find(k) != k)


class Clock:
    """Seconds by part, and the processor time of this process over all of them."""

    def __init__(self) -> None:
        self.parts: dict[str, float] = {}
        self.processor = 0.0

    def __call__(self, part: str, work: Callable[[], Any]) -> Any:
        start, busy = time.perf_counter(), time.process_time()
        try:
            return work()
        finally:
            self.parts[part] = self.parts.get(part, 0.0) + time.perf_counter() - start
            self.processor += time.process_time() - busy


def rensa_signatures(texts: list[str], clock: Clock) -> list[Any]:
    from rensa import RMinHash

    signatures: list[Any] = []
    for k in range(0, len(texts), 2000):
        sets = clock("shingles", lambda k=k: [joined(text) for text in texts[k : k + 2000]])
        signatures += clock("signatures", lambda s=sets: RMinHash.from_token_sets(s, PERMUTATIONS, 42))
    return signatures


def rensa(folder: Path, clock: Clock) -> list[str]:
    from rensa import RMinHashLSH

    names, texts = clock("read", lambda: read(folder))
    signatures = rensa_signatures(texts, clock)
    clusters = Clusters(len(names))

    def index() -> None:
        lsh = RMinHashLSH(threshold=0.7, num_perm=PERMUTATIONS, num_bands=BANDS)
        lsh.insert_many(signatures)
        for k, hits in enumerate(lsh.query_all(signatures)):
            for hit in hits:
                clusters.join(k, hit)

    clock("index", index)
    return [names[k] for k in clusters.others()]


def rensa_flags(folder: Path, clock: Clock) -> list[str]:
    from rensa import RMinHash, RMinHashLSH

    names, texts = clock("read", lambda: read(folder))
    sets = clock("shingles", lambda: [joined(text) for text in texts])
    matrix = clock("signatures", lambda: RMinHash.digest_matrix_from_token_sets(sets, PERMUTATIONS, 42))
    lsh = RMinHashLSH(threshold=0.7, num_perm=PERMUTATIONS, num_bands=BANDS)
    flags = clock("index", lambda: lsh.query_duplicate_flags_matrix_one_shot(matrix))
    return [name for name, flag in zip(names, flags, strict=True) if flag]


def hash32(data: bytes) -> int:
    import xxhash

    return xxhash.xxh32_intdigest(data)


def sketch(texts: list[str]) -> list[Any]:
    from datasketch import MinHash

    sets = [[one.encode() for one in joined(text)] for text in texts]
    return [m.hashvalues for m in MinHash.bulk(sets, num_perm=PERMUTATIONS, seed=1, hashfunc=hash32)]


def datasketch_signatures(texts: list[str], workers: int) -> list[Any]:
    blocks = [texts[k : k + 500] for k in range(0, len(texts), 500)]
    if workers == 1:
        return [one for block in blocks for one in sketch(block)]
    with Pool(workers) as pool:
        return [one for block in pool.imap(sketch, blocks) for one in block]


def datasketch(folder: Path, clock: Clock, workers: int) -> list[str]:
    from datasketch import MinHash, MinHashLSH

    names, texts = clock("read", lambda: read(folder))
    signatures = clock("shingles and signatures", lambda: datasketch_signatures(texts, workers))
    clusters = Clusters(len(names))

    def index() -> None:
        lsh, first = MinHashLSH(num_perm=PERMUTATIONS, params=(BANDS, ROWS)), MinHash(num_perm=PERMUTATIONS, seed=1)
        shared = {"num_perm": PERMUTATIONS, "seed": 1, "permutations": first.permutations, "scheme": first.scheme}
        for k, values in enumerate(signatures):
            one = MinHash(hashvalues=values, **shared)
            for hit in lsh.query(one):
                clusters.join(k, hit)
            lsh.insert(k, one, check_duplication=False)

    clock("index", index)
    return [names[k] for k in clusters.others()]


def language(system: str) -> Any:
    """What datatrove takes as a language: its name for English, or a tokenizer; loaded and used once."""
    from datatrove.utils.word_tokenizers import WordTokenizer, load_word_tokenizer

    class Words(WordTokenizer):
        def word_tokenize(self, text: str) -> list[str]:
            return WORD.findall(text)

        def sent_tokenize(self, text: str) -> list[str]:
            return [text]

        def span_tokenize(self, text: str) -> list[tuple[int, int]]:
            return [(0, len(text))]

    if system == "datatrove-regex":
        return Words("en")
    load_word_tokenizer("eng").word_tokenize("A first text.")
    return "eng"


def datatrove_signatures(texts: list[str], result: Path, system: str, clock: Clock) -> None:
    from datatrove.data import Document
    from datatrove.pipeline.dedup import MinhashDedupSignature

    step = MinhashDedupSignature(output_folder=str(result / "signatures"), language=language(system))
    clock("shingles and signatures", lambda: step.run((Document(text=text, id="") for text in texts), 0, 1))


def datatrove(folder: Path, result: Path, system: str, clock: Clock, workers: int) -> list[str]:
    from datatrove.executor import LocalPipelineExecutor
    from datatrove.pipeline.dedup import (
        MinhashDedupBuckets,
        MinhashDedupCluster,
        MinhashDedupFilter,
        MinhashDedupSignature,
    )
    from datatrove.pipeline.dedup.minhash import MinhashConfig
    from datatrove.pipeline.readers import ParquetReader
    from datatrove.pipeline.writers import ParquetWriter

    config, words = MinhashConfig(), language(system)
    signed, buckets, remove, kept = (str(result / name) for name in ("signatures", "buckets", "remove", "kept"))
    tasks = len(list(folder.glob("documents-*.parquet")))

    def reader() -> ParquetReader:
        return ParquetReader(str(folder), glob_pattern="documents-*.parquet", id_key="name", read_metadata=False)

    for part, steps, number in (
        ("signatures", [reader(), MinhashDedupSignature(signed, config=config, language=words)], tasks),
        ("buckets", [MinhashDedupBuckets(signed, buckets, config=config)], config.num_buckets),
        ("clusters", [MinhashDedupCluster(buckets, remove, config=config)], 1),
        ("filter", [reader(), MinhashDedupFilter(remove), ParquetWriter(kept)], tasks),
    ):
        logs = str(result / "logs" / part)
        executor = LocalPipelineExecutor(steps, tasks=number, workers=min(workers, number), logging_dir=logs)
        clock(part, executor.run)
    stays = {x for file in Path(kept).rglob("*.parquet") for x in pq.read_table(file, columns=["id"])["id"].to_pylist()}
    return [name for name in read(folder)[0] if name not in stays]


def main() -> None:
    systems = ("rensa", "rensa-flags", "datasketch", "datatrove", "datatrove-regex")
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("system", choices=systems)
    parser.add_argument("work", choices=("signatures", "whole"))
    parser.add_argument("folder", type=Path)
    parser.add_argument("result", type=Path)
    parser.add_argument("--workers", type=int, default=1)
    given = parser.parse_args()
    os.environ["RAYON_NUM_THREADS"] = str(given.workers)
    os.environ["HF_HUB_OFFLINE"] = "1"
    if given.system.startswith("datatrove"):
        import spacy  # noqa: F401
        from loguru import logger

        logger.remove()
    shutil.rmtree(given.result, ignore_errors=True)
    given.result.mkdir(parents=True)
    for first in sorted(given.folder.glob("documents-*.parquet"))[:1]:
        pq.read_table(first, columns=["name"])  # opens what pyarrow opens late
    clock = Clock()
    if given.work == "signatures":
        texts = read(given.folder)[1]
        if given.system == "rensa":
            rensa_signatures(texts, clock)
        elif given.system == "datasketch":
            clock("shingles and signatures", lambda: datasketch_signatures(texts, given.workers))
        else:
            datatrove_signatures(texts, given.result, given.system, clock)
        removed = []
    elif given.system == "rensa":
        removed = rensa(given.folder, clock)
    elif given.system == "rensa-flags":
        removed = rensa_flags(given.folder, clock)
    elif given.system == "datasketch":
        removed = datasketch(given.folder, clock, given.workers)
    else:
        removed = datatrove(given.folder, given.result, given.system, clock, given.workers)
    (given.result / "removed.txt").write_text("".join(name + "\n" for name in removed))
    answer = {"seconds": sum(clock.parts.values()), "processor": clock.processor, "parts": clock.parts}
    print(json.dumps(answer | {"peak_mb": peak_mb()}))


if __name__ == "__main__":
    main()
