"""Deduplication beside rensa, datasketch and datatrove: how fast signatures and the whole stage, and what each finds.

    .venv/bin/python benchmarks/dedup.py --peer-python PEER/bin/python [--documents 100000] [--peer-documents 20000]
        [--rounds 3] [--workers 1] [--folder build/dedup] [--json result.json] [--pages PAGES.jsonl.gz]

PEER is a virtual environment with what `peer_dedup.py` names; without it only Headwater is measured. All read the same
Parquet files of `_dedup_corpus.py` (seeded, made once under --folder), each contestant in a process of its own, in
turns in every round; medians over the rounds. Imports, compiled code and what is loaded at the first use come before
the clock. `times as fast` is what Headwater is, by time and by processor time, which a busy machine disturbs less.
Contestants too slow or too large for all documents get a smaller corpus of the same making, which the tables name:
Headwater and rensa --documents, rensa's flags, datasketch and datatrove with plain words --peer-documents, datatrove
with its own tokenizer a quarter of these.

`signatures`: texts in memory to shingles to MinHash signatures, on one core; words are those of one regular expression
for all but datatrove, which simplifies texts in its own way and, by default, has spaCy find the words. `whole`: reading
documents to knowing what to remove, with all files that the contestant writes on the way, on --workers cores. Quality
is judged by exact similarities of planted pairs (`_dedup_corpus.judge`), and every removal of Headwater's once more in
plain Python: the document that it names must be kept, and similar from the threshold on, just as much as stated. Prints
Markdown tables.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import platform
import shutil
import statistics
import subprocess
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from _dedup_corpus import BINS, Corpus, corpus, jaccard, judge, peak_mb, shingles

CONFIG: dict[str, Any] = {}  # DedupConfig's own defaults
PEER = Path(__file__).with_name("peer_dedup.py")
PEERS = {
    "rensa": "rensa, clusters by union-find",
    "rensa-flags": "rensa, flags without a choice",
    "datasketch": "datasketch `MinHashLSH`",
    "datatrove-regex": "datatrove, plain words",
    "datatrove": "datatrove, its defaults",
}
TITLES = {"headwater": "**Headwater**"} | PEERS


def in_a_process(work: Callable[..., Any], *given: Any) -> Any:
    """The answer of a function called in a new process."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        return pool.submit(work, *given).result()


def sign_shard(place: Path, file: Path) -> tuple[str, dict[str, float]]:
    """One file of documents to one of signatures, as the stage does it: its path, and seconds by part."""
    from datalake.dedup.config import DedupConfig
    from datalake.dedup.texts.sign import COLUMNS, sign_batches, signature_schema
    from datalake.lake.parquet import read_batches
    from datalake.lake.shards import ShardWriter

    signing = DedupConfig(**CONFIG).signing
    schema = signature_schema(signing)
    start = time.perf_counter()
    read = sign = 0.0
    with ShardWriter(place / file.stem, file.stem, "0" * 64, {"signatures": schema}) as out:
        batches = read_batches(str(file), COLUMNS)
        while True:
            before = time.perf_counter()
            batch = next(batches, None)
            read += time.perf_counter() - before
            if batch is None:
                break
            before = time.perf_counter()
            (signed,) = sign_batches([batch], signing)
            sign += time.perf_counter() - before
            out.write("signatures", pa.Table.from_batches([signed], schema))
    write = time.perf_counter() - start - read - sign
    return out.result.files[0].path, {"read": read, "sign": sign, "write": write}


def warm(work: Path) -> None:
    """Everything compiled, imported and opened once, on a few documents."""
    from datalake.dedup.config import DedupConfig
    from datalake.dedup.decide import decide
    from datalake.dedup.texts.sign import COLUMNS

    words = [f"word{k}" for k in range(40)]
    texts = [" ".join(words), " ".join([*words, "more"]), " ".join(words)]
    ids = pa.array([bytes([k] * 16) for k in range(3)], pa.binary(16))
    rows = [
        ids,
        pa.array(texts),
        pa.array(["web"] * 3),
        pa.nulls(3, pa.string()),
        pa.nulls(3, pa.timestamp("us", "UTC")),
    ]
    pq.write_table(pa.table(rows, names=COLUMNS), work / "warm.parquet")
    decide([sign_shard(work / "warm", work / "warm.parquet")[0]], DedupConfig(**CONFIG))


def signatures(files: list[Path], work: Path) -> dict[str, Any]:
    """Headwater's shingles and signatures of all texts, in memory."""
    from datalake.dedup.config import DedupConfig
    from datalake.dedup.texts.sign import BATCH_ROWS, COLUMNS, sign_batches

    warm(work)
    signing = DedupConfig(**CONFIG).signing
    batches = [b for file in files for b in pq.read_table(file, columns=COLUMNS).to_batches(BATCH_ROWS)]
    start, busy = time.perf_counter(), time.process_time()
    for _ in sign_batches(batches, signing):
        pass
    seconds, processor = time.perf_counter() - start, time.process_time() - busy
    parts = {"shingles and signatures": seconds}
    return {"seconds": seconds, "processor": processor, "parts": parts, "peak_mb": peak_mb()}


def whole(files: list[Path], work: Path, workers: int) -> dict[str, Any]:
    """Headwater's whole stage: files of documents to files of signatures, and of pairs and duplicates."""
    from datalake.dedup.config import DedupConfig
    from datalake.dedup.decide import decide
    from datalake.dedup.schema import DUPLICATES, PAIRS
    from datalake.lake.shards import ShardWriter

    warm(work)
    parts: dict[str, float] = {"read": 0.0, "sign": 0.0, "write": 0.0}
    one = partial(sign_shard, work)
    if workers > 1:
        pool = ProcessPoolExecutor(workers, multiprocessing.get_context("spawn"))
        list(pool.map(one, [work / "warm.parquet"] * workers))
    start, busy = time.perf_counter(), time.process_time()
    signed = list(map(one, files) if workers == 1 else pool.map(one, files))
    for _, seconds in signed:
        parts = {name: parts[name] + seconds[name] / workers for name in parts}
    before = time.perf_counter()
    decision = decide([path for path, _ in signed], DedupConfig(**CONFIG), workers)
    parts["decide"] = time.perf_counter() - before
    before = time.perf_counter()
    with ShardWriter(work / "decide", "decide", "0" * 64, {"pairs": PAIRS, "duplicates": DUPLICATES}) as out:
        out.write("pairs", decision.pairs)
        out.write("duplicates", decision.duplicates)
    parts["write decisions"] = time.perf_counter() - before
    seconds, processor = time.perf_counter() - start, time.process_time() - busy
    if workers > 1:
        pool.shutdown()
    spent = {"seconds": seconds, "processor": processor, "parts": parts}
    return spent | {"peak_mb": peak_mb(), "report": decision.report}


def wiped(folder: Path) -> Path:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder


def run(system: str, kind: str, documents: Corpus, work: Path, python: str, workers: int) -> dict[str, Any]:
    """One contestant's seconds, parts and peak memory; what it removed lies in its folder under `work` afterwards."""
    if system == "headwater":
        folder = wiped(work / system)
        if kind == "signatures":
            return in_a_process(signatures, documents.files, folder)  # type: ignore[no-any-return]
        return in_a_process(whole, documents.files, folder, workers)  # type: ignore[no-any-return]
    command = [python, str(PEER), system, kind, str(documents.folder), str(work / system), "--workers", str(workers)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{system} failed: {done.stderr[-2000:]}")
    answer: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return answer


def partners(folder: Path) -> dict[str, tuple[str, float]]:
    """Of each document that Headwater removed, the one that it names instead and their similarity."""
    rows = pq.read_table(folder / "decide" / "duplicates.parquet", filters=pc.field("duplicate_of").is_valid())
    return {
        row["id"].decode(): (row["duplicate_of"].decode(), row["similarity"])
        for row in rows.select(["id", "duplicate_of", "similarity"]).to_pylist()
    }


def check(documents: Corpus, partner: dict[str, tuple[str, float]], threshold: float) -> dict[str, int]:
    """Every removal in plain Python: how many there are, whose partner isn't kept, lies below, or is misstated."""
    texts: dict[str, str] = {}
    for file in documents.files:
        table = pq.read_table(file, columns=["name", "text"])
        texts |= zip(table["name"].to_pylist(), table["text"].to_pylist(), strict=True)
    found = {"removed": len(partner), "partner not kept": 0, "partner below threshold": 0, "similarity misstated": 0}
    for name, (other, stated) in partner.items():
        exact = jaccard(shingles(texts[name]), shingles(texts[other]))
        found["partner not kept"] += other in partner
        found["partner below threshold"] += exact < threshold
        found["similarity misstated"] += abs(exact - stated) > 1e-12
    return found


def main() -> None:
    from datalake.dedup.config import DedupConfig

    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--peer-python", default=os.environ.get("PEER_PYTHON"), help="an interpreter with the others")
    parser.add_argument("--documents", type=int, default=100_000, help="of Headwater and rensa")
    parser.add_argument("--peer-documents", type=int, default=20_000, help="of datasketch and datatrove")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--workers", type=int, default=1, help="cores for a whole stage")
    parser.add_argument("--folder", type=Path, default=Path("build/dedup"), help="of corpora and what is written")
    parser.add_argument("--seed", type=int, default=7, help="of the corpora")
    parser.add_argument("--json", type=Path, help="write everything here, every round of it")
    samples = Path(os.environ.get("HEADWATER_SAMPLES", "../shared/samples"))
    parser.add_argument("--pages", type=Path, default=samples / "cc" / "pages" / "pages-dev.jsonl.gz")
    given = parser.parse_args()
    large, middle, small = (
        corpus(given.folder, given.pages, count, given.seed)
        for count in (given.documents, given.peer_documents, given.peer_documents // 4)
    )
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[-given.workers :])
    os.environ["NUMBA_NUM_THREADS"] = os.environ["OMP_NUM_THREADS"] = str(given.workers)
    contestants = ["headwater", *PEERS] if given.peer_python else ["headwater"]
    of = dict.fromkeys(contestants, middle) | {"datatrove": small}
    plan = [("signatures", name, of[name]) for name in contestants if name != "rensa-flags"]
    of |= {"headwater": large, "rensa": large}
    plan += [("whole", name, of[name]) for name in contestants]
    work = given.folder / "work"

    rounds: list[dict[str, Any]] = []
    for number in range(given.rounds):
        one: dict[str, Any] = {"signatures": {}, "whole": {}}
        for kind, name, documents in plan:
            one[kind][name] = answer = run(
                name, kind, documents, work, given.peer_python or "", 1 if kind == "signatures" else given.workers
            )
            speed = documents.documents / answer["seconds"]
            print(f"round {number + 1}: {kind} {name} {answer['seconds']:.1f} s, {speed:,.0f} docs/s", flush=True)
        rounds.append(one)

    config = DedupConfig(**CONFIG)
    result: dict[str, Any] = {
        "documents": {name: one.documents for name, one in of.items()},
        "bytes": {name: one.bytes for name, one in of.items()},
        "config": config.model_dump(mode="json") | config.signing.model_dump(),
        "workers": given.workers,
        "machine": platform.machine(),
        "rounds": rounds,
    }
    cores = "1 core" if given.workers == 1 else f"{given.workers} cores"
    mean = large.bytes / large.documents / 1000
    print(f"\ndocuments of {mean:.1f} kB on average, medians of {given.rounds} rounds, all of this one run")
    for kind, title in (("signatures", "signatures, one core"), ("whole", f"whole stage, {cores}")):
        result[kind] = {}
        print(f"\n| {title} | documents | docs/s | MB/s | times as fast | by processor time | peak memory | by part |")
        print("| --- | ---: | ---: | ---: | ---: | ---: | ---: | --- |")
        ours = next(documents for k, name, documents in plan if (k, name) == (kind, "headwater"))
        for name, documents in ((name, documents) for k, name, documents in plan if k == kind):
            runs = [(one[kind]["headwater"], one[kind][name]) for one in rounds]
            seconds = statistics.median(run["seconds"] for _, run in runs)
            per_byte = ours.bytes / documents.bytes
            parts = {part: statistics.median(run["parts"][part] for _, run in runs) for part in runs[0][1]["parts"]}
            result[kind][name] = row = {
                "documents": documents.documents,
                "docs_s": documents.documents / seconds,
                "mb_s": documents.bytes / seconds / 1e6,
                "ratio": per_byte * statistics.median(run["seconds"] / base["seconds"] for base, run in runs),
                # of the first process alone, so only where there is no other
                "ratio_processor": per_byte
                * statistics.median(run["processor"] / base["processor"] for base, run in runs),
                "peak_mb": max(run["peak_mb"] for _, run in runs),
                "parts": parts,
            }
            alone = f"{row['ratio_processor']:.1f}" if kind == "signatures" or given.workers == 1 else ""
            print(
                f"| {TITLES[name]} | {documents.documents:,} | {row['docs_s']:,.0f} | {row['mb_s']:.2f} "
                f"| {row['ratio']:.1f} | {alone} | {row['peak_mb']:,} MB "
                f"| {', '.join(f'{part} {spent:.1f} s' for part, spent in parts.items())} |"
            )

    print("\n| caught, of pairs of Jaccard | " + " | ".join(f"from {edge}" for edge in BINS) + " | all from 0.8 |")
    print("| --- |" + " ---: |" * (len(BINS) + 1))
    quality: dict[str, Any] = {}
    for name in contestants:
        if name == "rensa-flags":
            continue
        if name == "headwater":
            partner = partners(work / name)
            removed = set(partner)
        else:
            removed = set((work / name / "removed.txt").read_text().split())
        quality[name] = one = judge(pq.read_table(of[name].truth), removed, (0.7, 0.8))
        bins = " | ".join("" if share is None else f"{share:.4f}" for share, _ in one["caught"].values())
        print(f"| {TITLES[name]} | {bins} | {one['caught_0.8']:.4f} |")
    print("\n| removals | removed | kept partner from 0.8 | kept partner from 0.7 | families lost |")
    print("| --- | ---: | ---: | ---: | ---: |")
    for name, one in quality.items():
        shares = " | ".join("" if one[k] is None else f"{one[k]:.4f}" for k in ("precise_0.8", "precise_0.7"))
        print(f"| {TITLES[name]} | {one['removed']:,} | {shares} | {one['lost']:,} |")

    result["quality"] = quality
    result["check"] = found = check(large, partner, config.threshold)
    print(f"\nHeadwater's removals, each in plain Python: {json.dumps(found)}")
    print("pairs by Jaccard:", json.dumps({edge: n for edge, (_, n) in quality["headwater"]["caught"].items()}))
    if given.json:
        given.json.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
