"""Pages a second from WARC to a committed Parquet shard, beside extraction alone on the same pages' bytes.

    .venv/bin/python benchmarks/ingest.py [--rounds 5] [--samples ../shared/samples/cc/pages]

Both take turns in every round, in this process alone, on one core where the system lets it be chosen; what is loaded at
the first use is loaded before the clock runs. `ingest` is what the stage does with an archive; `extraction` is `decode`
and `extract` on the bodies that it got from the same archives, kept in memory. The parts are then measured one by one,
each on what the part before it gave, and `other` is what they leave. Prints medians over the rounds; the last line is
one JSON object.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from datalake.document import Document, Passed
from datalake.extract.html.charset import decode
from datalake.extract.html.page import extract
from datalake.formats import warc
from datalake.lake.shards import ShardWriter
from datalake.sources.web import common_crawl
from datalake.sources.web.config import CommonCrawl
from datalake.tables import TABLES, to_table
from datalake.text.language import detect

BLOCK = 256
TAKEN = ("raw", "refused", "quarantine")
SCHEMAS = {name: schema for name, schema in TABLES.values() if name in TAKEN}


def write(entries: Any, folder: Path) -> int:
    """A shard of these entries as the stage commits it; returns how many are documents."""
    pages = 0
    with ShardWriter(folder, "shard", "0" * 64, SCHEMAS) as out:
        blocks: dict[str, list[Any]] = {name: [] for name in SCHEMAS}
        for entry in entries:
            if isinstance(entry, Passed):
                continue
            pages += isinstance(entry, Document)
            name, _ = TABLES[type(entry)]
            blocks[name].append(entry)
            if len(blocks[name]) >= BLOCK:
                out.write(name, to_table(blocks[name], SCHEMAS[name]))
                blocks[name].clear()
        for name, rest in blocks.items():
            out.write(name, to_table(rest, SCHEMAS[name]))
    return pages


def timed(work: Callable[[], Any]) -> tuple[float, Any]:
    start = time.perf_counter()
    result = work()
    return time.perf_counter() - start, result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--samples", default="../shared/samples/cc/pages")
    options = parser.parse_args()
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    paths = sorted(str(path) for path in Path(options.samples).glob("*.warc.gz"))
    if not paths:
        raise SystemExit(f"no *.warc.gz in {options.samples}: name a folder of them with --samples")
    config = CommonCrawl(paths=paths)
    shards = common_crawl.archives(config)

    def read() -> list[Any]:
        return [entry for shard in shards for entry in common_crawl.read(shard, config)]

    def frame() -> list[warc.Record]:
        found = (one for path in paths for one in warc.records(path, config.max_bytes))
        return [one for one in found if isinstance(one, warc.Record) and one.type == "response"]

    def http(records: list[warc.Record]) -> list[tuple[bytes, str | None]]:
        out = []
        for one in records:
            try:
                _, declared, body = common_crawl._http(one, one.block or b"", config.max_bytes)
            except Exception:  # refused or damaged
                continue
            charset = common_crawl._CHARSET.search(declared)
            out.append((body, charset[1] if charset else None))
        return out

    records = frame()
    bodies = http(records)
    texts = [decode(body, charset)[0] for body, charset in bodies]
    language = config.language

    def languages(documents: list[str]) -> None:
        for text in documents:
            detect(text, model=language.model, threshold=language.threshold, characters=language.characters)

    entries = read()
    documents = [entry.text for entry in entries if isinstance(entry, Document)]
    seconds: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory(prefix="headwater-ingest-") as folder:
        number = 0

        def shard(source: Callable[[], Any]) -> int:
            nonlocal number
            number += 1
            return write(source(), Path(folder, str(number)))

        contestants: dict[str, Callable[[], Any]] = {
            "ingest": lambda: shard(lambda: (e for s in shards for e in common_crawl.read(s, config))),
            "extraction": lambda: [extract(decode(*one)[0], config.main_content) for one in bodies],
            "framing": frame,
            "http": lambda: http(records),
            "charset": lambda: [decode(*one) for one in bodies],
            "extract": lambda: [extract(text, config.main_content) for text in texts],
            "language": lambda: languages(documents),
            "parquet": lambda: shard(lambda: entries),
        }
        for round_number in range(options.rounds):
            names = list(contestants)
            turn = round_number % len(names)
            for name in names[turn:] + names[:turn]:
                taken, result = timed(contestants[name])
                seconds.setdefault(name, []).append(taken)
                if name == "ingest":
                    assert result == len(documents)
    median = {name: statistics.median(seconds[name]) for name in contestants}
    parts = ("framing", "http", "charset", "extract", "language", "parquet")
    median["other"] = median["ingest"] - sum(median[name] for name in parts)
    pages = len(bodies)
    print(f"{len(records)} responses, {pages} bodies, {len(documents)} documents; median of {options.rounds} rounds")
    for name, taken in median.items():
        rate = f"{pages / taken:12,.0f} pages/s" if name in ("ingest", "extraction") else ""
        print(f"{name:<12}{taken:8.3f} s{taken / median['ingest']:8.1%}{rate}")
    ratio = median["ingest"] / median["extraction"]
    print(f"ingest takes {ratio:.2f} times extraction alone")
    print(
        json.dumps(
            {
                "bench": "ingest",
                "pages": pages,
                "documents": len(documents),
                "rounds": options.rounds,
                "median_seconds": {name: round(taken, 4) for name, taken in median.items()},
                "pages_per_second": {name: round(pages / median[name], 1) for name in ("ingest", "extraction")},
                "ratio": round(ratio, 3),
                "python": platform.python_version(),
            }
        )
    )


if __name__ == "__main__":
    main()
