"""Duplicates in meaning as documents grow: seconds, processor time, peak memory, and recall against all pairs.

Embeddings are made up: unit vectors in clouds of every density, sizes drawn by Zipf's law (exponent 1.3), so that the
largest clouds are as crowded as templates are on the web. Recall is the share of the documents that go when all are
compared with all (`--judge`) and that go with clusters and probes, too.

    python benchmarks/dedup_semantic.py --documents 50000 200000
    python benchmarks/dedup_semantic.py --documents 50000 --probes 0 1 2 4 8 --judge
"""

from __future__ import annotations

import argparse
import json
import resource
import tempfile
import time
from multiprocessing import get_context
from typing import Any

import numpy as np
import pyarrow as pa

from datalake.dedup.config import SemanticConfig
from datalake.dedup.meaning.semantic import Meaning, settle_meaning
from datalake.dedup.schema import EMBEDDINGS
from datalake.dedup.texts.signed import as_bytes
from datalake.dedup.texts.spill import Spill


def made(documents: int, dimension: int, seed: int = 0) -> tuple[np.ndarray, list[pa.Table]]:
    """Ids, shape (documents, 2), and embeddings of so many documents in shards of 10,000."""
    draw = np.random.default_rng(seed)
    ids = np.stack((np.zeros(documents, np.uint64), np.arange(documents, dtype=np.uint64)), 1)
    clouds = documents // 8
    middles = draw.normal(size=(clouds, dimension)).astype(np.float32)
    middles += 3 * middles[draw.integers(max(1, clouds // 50), size=clouds)]  # topics
    middles /= np.linalg.norm(middles, axis=1, keepdims=True)
    shards = []
    for start in range(0, documents, 10_000):
        count = min(10_000, documents - start)
        chosen = middles[(draw.zipf(1.3, size=count) * 7919) % clouds]
        away = draw.normal(size=chosen.shape).astype(np.float32) / np.sqrt(dimension)
        vectors = chosen + away * draw.uniform(0.05, 0.5, size=(count, 1)).astype(np.float32)
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        values = pa.array([row.tobytes() for row in vectors.astype("<f2")], pa.binary())
        columns = [as_bytes(ids[start : start + count]), values]
        shards.append(pa.Table.from_arrays(columns, schema=EMBEDDINGS))
    return ids, shards


def decided(ids: np.ndarray, shards: list[pa.Table], memory: int, **settings: Any) -> tuple[Meaning, float, float]:
    """The decision, its seconds, and those of processor time."""
    config = SemanticConfig(model={"paths": ["made-up"], "version": "made-up"}, **settings)
    with tempfile.TemporaryDirectory() as folder, Spill(memory, memory // 16, folder) as spill:
        start, busy = time.perf_counter(), time.process_time()
        meaning = settle_meaning(shards, ids, np.arange(len(ids)), config, spill)
        return meaning, time.perf_counter() - start, time.process_time() - busy


def measure(documents: int, dimension: int, probes: list[int], judge: bool, memory: int) -> list[dict[str, Any]]:
    """A row for each number of probes."""
    ids, shards = made(documents, dimension)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    decided(ids[:500], [shards[0].slice(0, 500)], memory, clusters=10)  # compiles
    rows = []
    for some in probes:
        meaning, seconds, busy = decided(ids, shards, memory, probes=some)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        row = {"documents": documents, "dimension": dimension, "probes": some, "seconds": round(seconds, 1)}
        row["processor"] = round(busy, 1)
        rows.append(row | meaning.report | {"peak_mb_above_input": (peak - before) >> 10, "meaning": meaning})
    if judge:
        truth, seconds, busy = decided(ids, shards, memory, clusters=1)
        gone = truth.partner >= 0
        for row in rows:
            row["recall"] = round(float(np.sum(gone & (row["meaning"].partner >= 0)) / np.sum(gone)), 4)
            row |= {"seconds_all_with_all": round(seconds, 1), "processor_all_with_all": round(busy, 1)}
    return [{name: value for name, value in row.items() if name != "meaning"} for row in rows]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--documents", type=int, nargs="+", default=[50_000], help="how many, each in its own process")
    parser.add_argument("--dimension", type=int, default=384, help="of the embeddings")
    parser.add_argument("--probes", type=int, nargs="+", default=[4], help="deduplicate.semantic.probes")
    parser.add_argument("--judge", action="store_true", help="compare all with all, too")
    parser.add_argument("--memory-mb", type=int, default=4096, help="budget; embeddings beyond it lie in files")
    asked = parser.parse_args()
    for documents in asked.documents:
        with get_context("spawn").Pool(1) as pool:
            work = documents, asked.dimension, asked.probes, asked.judge, asked.memory_mb << 20
            for row in pool.apply(measure, work):
                print(json.dumps(row), flush=True)


if __name__ == "__main__":
    main()
