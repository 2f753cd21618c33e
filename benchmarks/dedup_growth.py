"""How the decision of deduplication grows with the number of documents: time and peak memory.

    .venv/bin/python benchmarks/dedup_growth.py [--sizes 100000 1000000] [--shingles 64] [--threads 1]
        [--memory-gb 4] [--family 20] [--ranges 0] [--folder build/dedup] [--json result.json]

No texts: shards of signatures are made as signing would write them, of random shingles in families of edited copies
(half of the documents are copies, a third are near enough to go), scattered over the shards. All sizes have the same
distribution of shingles a document (log-normal, --shingles on average): 64 is a short page, so that 10,000,000
documents take 8 GB of disk; pages of the samples have about 300. With --family all families have so many documents:
pairs are as many as the square of it. Making shards isn't counted. Each size is decided in a
process of its own, after a first decision on a few documents; the exponent is the slope of a straight line through the
logarithms. `lost` counts families of which nothing is kept, `caught` is the share of the copies with a Jaccard index of
0.8 or more to their base of which not both are kept. Prints a Markdown table.

With --ranges each size is decided once more, over so many ranges of hashes (0: as many as memory asks for): by
--threads processes on Ray that share --memory-gb, or with --cluster inline one after the other in this one. The files
must be the same, byte for byte; the peak is that of the largest process. --only-ranges leaves out the one process.
"""

from __future__ import annotations

import argparse
import json
import platform
import shutil
import time
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

import numba
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
from _dedup_corpus import peak_mb
from dedup import in_a_process, wiped

from datalake.dedup.config import DedupConfig, SigningConfig
from datalake.dedup.decide import decide
from datalake.dedup.tables import parts_of
from datalake.dedup.texts.bands import buckets
from datalake.dedup.texts.minhash import sign
from datalake.dedup.texts.sign import as_binary, signature_schema
from datalake.lake.shards import ROW_GROUP_ROWS, encoding

ROWS_PER_SHARD = 50_000
SIZES, SIZE_WEIGHTS = (1, 2, 3, 4, 6, 10), (0.55, 0.22, 0.10, 0.07, 0.04, 0.02)  # of families, as in _dedup_corpus.py
RATES = (0.0, 0.005, 0.01, 0.02, 0.05, 0.08, 0.11, 0.15, 0.2, 0.3)  # shingles exchanged: Jaccard (1 - r) / (1 + r)

HELD = 12 << 30  # the budget of the one process whose files those of the ranges are compared with

Ints = npt.NDArray[np.int64]
Hashes = npt.NDArray[np.uint64]


class Plan(NamedTuple):
    """By document: its family, how many shingles it has, and how many of these it doesn't share with its base."""

    family: Ints
    size: Ints
    own: Ints


def plan(documents: int, shingles: int, seed: int, alike: int | None = None) -> Plan:
    """Families of documents, of `alike` each if given; a family's first one is its base, with nothing of its own."""
    random = np.random.default_rng(seed)
    sizes = random.choice(SIZES, size=documents, p=SIZE_WEIGHTS)
    if alike is not None:
        sizes[:] = alike
    sizes = sizes[: np.searchsorted(np.cumsum(sizes), documents) + 1]
    family = np.repeat(np.arange(len(sizes)), sizes)[:documents]
    spread = 0.8
    drawn = random.lognormal(np.log(shingles) - spread**2 / 2, spread, size=len(sizes))
    size = np.clip(drawn, 5, 100 * shingles).astype(np.int64)[family]
    own = np.rint(random.choice(RATES, size=documents) * size).astype(np.int64)
    own[np.flatnonzero(np.diff(family, prepend=-1))] = 0
    return Plan(family, size, own)


@numba.njit(cache=True)
def _mix(a: np.uint64, b: np.uint64) -> np.uint64:
    """SplitMix64's finaliser (Steele, Lea, Flood 2014) over both."""
    h = a * np.uint64(0x9E3779B97F4A7C15) + b * np.uint64(0xD1342543DE82EF95) + np.uint64(1)
    h = (h ^ (h >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    h = (h ^ (h >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return h ^ (h >> np.uint64(31))


@numba.njit(cache=True)
def _fill(numbers: Ints, family: Ints, own: Ints, ends: Ints, shingles: Hashes, keys: Hashes) -> None:
    begin = 0
    for d in range(len(numbers)):
        size = ends[d] - begin
        kin, self = np.uint64(family[d]), np.uint64(numbers[d] + (1 << 40))
        first = np.int64(_mix(self, np.uint64(1 << 41)) % np.uint64(size))  # an edit is a run of shingles, as in texts
        for k in range(size):
            edited = (k - first) % size < own[d]
            shingles[begin + k] = _mix(self if edited else kin, np.uint64(k))
        shingles[begin : ends[d]].sort()
        keys[d, 0] = _mix(self if own[d] else kin, np.uint64(1 << 42))
        keys[d, 1] = keys[d, 0] + np.uint64(1)
        begin = ends[d]


def write_shard(path: Path, numbers: Ints, of: Plan, signing: SigningConfig) -> None:
    """The documents of these numbers as signing would write them. The one place that knows the columns."""
    ends = np.cumsum(of.size[numbers])
    shingles, keys = np.empty(ends[-1], np.uint64), np.empty((len(numbers), 2), np.uint64)
    _fill(numbers, of.family[numbers], of.own[numbers], ends, shingles, keys)
    banded = buckets(sign(shingles, ends, signing.bands * signing.rows, signing.seed), signing.bands, signing.rows)
    hashed = numbers.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15)  # random order, and the number can be told
    ids = np.stack((hashed, numbers.astype(np.uint64)), axis=1)
    words = of.size[numbers] + signing.ngram - 1
    rows = len(numbers)
    columns = [
        _binary(ids),
        pa.array(["web"]).take(pa.array(np.zeros(rows, np.int64))),
        pa.nulls(rows, pa.timestamp("us", "UTC")),
        pa.array(6 * words + (hashed >> np.uint64(61)).astype(np.int64)),  # copies differ a little in length
        pa.array(words),
        pa.nulls(rows, pa.int64()),
        _binary(keys),
        _binary(keys),
        pa.array(np.diff(ends, prepend=0)),
        as_binary(banded.ravel(), np.arange(1, rows + 1) * signing.bands),
        as_binary(shingles, ends),
    ]
    table = pa.Table.from_arrays(columns, schema=signature_schema(signing))
    pq.write_table(table, path, row_group_size=ROW_GROUP_ROWS, **encoding(table.schema))


def _binary(halves: Hashes) -> pa.Array:
    data = pa.py_buffer(halves.astype(">u8").tobytes())
    return pa.FixedSizeBinaryArray.from_buffers(pa.binary(16), len(halves), [None, data])


def make(folder: Path, documents: int, shingles: int, seed: int, alike: int | None = None) -> list[Path]:
    """The shards of one size."""
    of = plan(documents, shingles, seed, alike)
    order = np.random.default_rng(seed + 1).permutation(documents)
    files = []
    for k in range(0, documents, ROWS_PER_SHARD):
        files.append(folder / f"signatures-{k // ROWS_PER_SHARD:05d}.parquet")
        write_shard(files[-1], order[k : k + ROWS_PER_SHARD], of, DedupConfig().signing)
    return files


def decided(
    files: list[Path], warm: list[Path], shingles: int, seed: int, alike: int | None, threads: int, memory: int
) -> dict[str, Any]:
    """One decision: seconds, peak memory before and after it, counts, and what the plan says of it."""
    for _ in decide(warm, DedupConfig(), threads).pairs_by_id():
        pass
    before = peak_mb()
    start, busy = time.perf_counter(), time.process_time()
    decision = decide(files, DedupConfig(), threads, memory, files[0].parent)
    for _ in chain(decision.pairs_by_id(), decision.duplicates_by_id()):  # as the stage writes them
        pass
    seconds, processor, peak = time.perf_counter() - start, time.process_time() - busy, peak_mb()

    of = plan(decision.report["documents"], shingles, seed, alike)
    gone = np.zeros(len(of.family), np.bool_)
    gone[decision.corpus.ids[decision.target != np.arange(len(gone)), 1]] = True
    first = np.flatnonzero(np.diff(of.family, prepend=-1))
    copies = np.flatnonzero((of.size - of.own) / (of.size + of.own) >= 0.8)
    copies = copies[first[of.family[copies]] != copies]
    caught = gone[copies] | gone[first[of.family[copies]]]
    return {
        "seconds": seconds,
        "processor": processor,
        "peak_mb": peak,
        "peak_before_mb": before,
        "report": decision.report,
        "spilled_mb": decision.spilled // 1_000_000,
        "lost": int(np.sum(np.bincount(of.family, ~gone) == 0)),
        "caught": float(caught.mean()),
    }


def written(files: list[Path], threads: int, memory: int, folder: Path) -> list[str]:
    """The digests of the files that one process writes of a decision."""
    from tasks.deduplicate import _decide

    outputs = _outputs(files, folder)
    paths = [str(file) for file in files]
    return _digests(_decide(paths, [], [], DedupConfig(), threads, memory / (1 << 30), outputs))


def over_ranges(
    files: list[Path], ranges: int, workers: int, cluster: str, memory: int, folder: Path
) -> dict[str, Any]:
    """The same over ranges: seconds, by step too, the peak of the largest process, digests and counts."""
    from datalake.lake.shards import ShardFile
    from tasks import ranges as module
    from tasks.cluster.connect import connect, disconnect
    from tasks.runtime import Runtime, RuntimeConfig

    config = RuntimeConfig(workers=workers, memory_gb=memory / (1 << 30), cluster=cluster, window=1)
    runtime = Runtime(config, folder / "lake", "growth")
    shards = [
        ShardFile("signatures", str(file), pq.read_metadata(file).num_rows, "", file.stat().st_size) for file in files
    ]
    documents = sum(shard.rows for shard in shards)
    ranges = ranges or max(module.ranges_of(documents, config, False), workers)
    if cluster != "inline":
        connect(config)
    peaks, steps, disk = [0], {}, [0]
    work, one = module._work, module.Steps.map

    def peaked(*given: Any) -> Any:
        result = work(*given)
        result.counts["peak_mb"] = peak_mb()
        return result

    def add(counts: dict[str, int], more: dict[str, int], adding: Any = module._add) -> None:
        peaks[0] = max(peaks[0], more.pop("peak_mb", 0))
        adding(counts, more)

    def timed(self: Any, step: str, *given: Any) -> Any:
        begun = time.process_time() if cluster == "inline" else time.perf_counter()
        counts = one(self, step, *given)
        steps[step] = round((time.process_time() if cluster == "inline" else time.perf_counter()) - begun, 1)
        disk[0] = max(disk[0], sum(path.stat().st_size for path in self.plan.root.rglob("*.arrow")))
        return counts

    module._work, module._add, module.Steps.map = peaked, add, timed  # type: ignore[method-assign]
    begun, busy = time.perf_counter(), time.process_time()
    outputs = _outputs(files, folder)
    made = module.decide_over_ranges(shards, [], DedupConfig(), ranges, outputs, folder / "scratch", runtime)
    seconds, processor = time.perf_counter() - begun, time.process_time() - busy
    disconnect()
    return {
        "ranges": ranges,
        "seconds": seconds,
        "processor": processor if cluster == "inline" else None,
        "peak_mb": peaks[0],
        "driver_mb": peak_mb(),
        "scratch_mb": disk[0] // 1_000_000,
        "steps": steps,
        "digests": _digests(made),
        "report": made[0].counts,
    }


def _outputs(files: list[Path], folder: Path) -> list[tuple[Path, str]]:
    parts = parts_of(sum(pq.read_metadata(file).num_rows for file in files))
    return [(folder / f"decided-{k}", f"{k:064d}") for k in range(parts)]


def _digests(made: list[Any]) -> list[str]:
    return [file.digest for part in made for file in part.files]


def slope(sizes: list[int], values: list[float]) -> float:
    """The exponent e of the best fit values ~ sizes^e."""
    return float(np.polyfit(np.log(sizes), np.log(values), 1)[0])


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--sizes", type=int, nargs="+", default=[100_000, 1_000_000], help="numbers of documents")
    parser.add_argument("--shingles", type=int, default=64, help="shingles of a document, on average")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--memory-gb", type=float, default=4, help="the budget of the decision")
    parser.add_argument("--family", type=int, help="documents of every family, else from 1 to 10")
    parser.add_argument("--ranges", type=int, help="decide over so many ranges, too; 0: as many as memory asks for")
    parser.add_argument("--cluster", default="local", help="of the ranges: inline is one after the other, without Ray")
    parser.add_argument("--only-ranges", action="store_true", help="and not in one process")
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--folder", type=Path, default=Path("build/dedup"), help="of shards, removed after use")
    parser.add_argument("--json", type=Path, help="write everything here")
    given = parser.parse_args()

    work = given.folder / "growth"
    warm = make(wiped(work / "warm"), 200, given.shingles, given.seed)
    runs: list[dict[str, Any]] = []
    print("| documents | kept | candidates | shards | seconds | of processor time | peak memory | lost | caught |")
    print("| ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |", flush=True)
    for size in sorted(given.sizes):
        needed, free = size * (8 * (given.shingles + DedupConfig().signing.bands) + 100), shutil.disk_usage(work).free
        if needed > free:
            raise SystemExit(f"{size:,} documents need {needed / 1e9:.0f} GB in {work}, {free / 1e9:.0f} GB are free")
        files = make(wiped(work / str(size)), size, given.shingles, given.seed, given.family)
        memory = int(given.memory_gb * (1 << 30))
        disk = sum(file.stat().st_size for file in files) // 1_000_000
        over: dict[str, Any] = {}
        if given.ranges is not None:
            place = work / str(size) / "over"
            over = in_a_process(over_ranges, files, given.ranges, given.threads, given.cluster, memory, place)
            kept, same = over["report"]["kept"], "not compared"
            if not given.only_ranges:
                one = in_a_process(written, files, given.threads, max(memory, HELD), work / str(size) / "one")
                same = "the same files" if one == over["digests"] else "OTHER FILES"
            print(
                f"| {size:,} | {kept:,} | {over['report']['candidates']:,} | {disk:,} MB | {over['seconds']:.1f} "
                f"| {over['processor']} "
                f"| {over['ranges']} ranges: {same} | {over['peak_mb']:,} MB | driver {over['driver_mb']:,} MB "
                f"| scratch {over['scratch_mb']:,} MB |\n| | {over['steps']} |",
                flush=True,
            )
        if given.only_ranges:
            shutil.rmtree(work / str(size))
            continue
        one = in_a_process(decided, files, warm, given.shingles, given.seed, given.family, given.threads, memory)
        one |= {"documents": size, "disk_mb": disk, "over_ranges": over}
        shutil.rmtree(work / str(size))
        runs.append(one)
        kept, candidates = one["report"]["kept"], one["report"]["candidates"]
        print(
            f"| {size:,} | {kept:,} | {candidates:,} | {one['disk_mb']:,} MB | {one['seconds']:.1f} "
            f"| {one['processor']:.1f} | {one['peak_mb']:,} MB | {one['lost']} | {one['caught']:.4f} |",
            flush=True,
        )
    shutil.rmtree(work)
    result: dict[str, Any] = {"runs": runs, "shingles": given.shingles, "machine": platform.machine()}
    if len(runs) > 1:
        sizes = [one["documents"] for one in runs]
        grown = [max(1, one["peak_mb"] - one["peak_before_mb"]) for one in runs]
        result["exponent_processor"] = slope(sizes, [one["processor"] for one in runs])
        result["exponent_memory"] = slope(sizes, grown)
        print(f"\nprocessor time grows with the documents to the power of {result['exponent_processor']:.2f}, ", end="")
        print(f"memory beyond the process itself to that of {result['exponent_memory']:.2f}")
    if given.json:
        given.json.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
