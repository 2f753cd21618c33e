"""Whether the driver's memory grows with the number of shards: very many empty ones through `map_shards`.

    .venv/bin/python benchmarks/many_shards.py [--shards 100000] [--cluster local] [--workers 2] [--lake DIR]

Shards come from a generator, each is looked for in the lake before it is handed over (a folder, or an address of a
store), and results are counted and dropped, as a stage's are that writes them down. The driver's peak memory is read
after a hundredth, a tenth and all of the shards. The last line is one JSON object.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import platform
import resource
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from datalake.places import root_of
from tasks.cluster import Shard, map_shards
from tasks.cluster.connect import disconnect
from tasks.runtime import Runtime, RuntimeConfig

GOAL_MB = 1_000


def nothing(shard: Shard) -> None:
    """The work of an empty shard."""


def shards_in(lake: Path, amount: int) -> Iterator[Shard]:
    for number in range(amount):
        key = f"{number:064x}"
        yield Shard(f"shard {number}", key, number, lake / "shards" / "empty" / key[-2:] / key)


def peak_mb() -> float:
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, 1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shards", type=int, default=100_000)
    parser.add_argument("--cluster", default="local")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--lake", help="a folder or an address; a temporary folder unless given")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="headwater-shards-") as folder:
        lake = root_of(options.lake or folder)
        config = RuntimeConfig(workers=options.workers, cluster=options.cluster, memory_gb=1)
        runtime = Runtime(config, lake, "benchmark")
        marks = {max(1, options.shards // part) for part in (100, 10, 1)}
        peaks, start, done = {"0": peak_mb()}, time.perf_counter(), 0
        for result in map_shards(nothing, shards_in(lake, options.shards), runtime):
            assert result.state == "ran", result
            done += 1
            if done in marks:
                peaks[str(done)] = peak_mb()
                print(f"{done:,} shards: {time.perf_counter() - start:.1f} s, peak {peaks[str(done)]} MB", flush=True)
        seconds = time.perf_counter() - start
        disconnect()
    assert done == options.shards
    told = {
        "bench": "many_shards",
        "shards": done,
        "cluster": options.cluster,
        "lake": "folder" if not options.lake else str(lake).partition("://")[0],
        "workers": options.workers,
        "seconds": round(seconds, 1),
        "shards_per_second": round(done / seconds),
        "peak_mb": peaks,
        "goal_mb": GOAL_MB,
        "reached": peaks[str(done)] < GOAL_MB,
        "cpus": os.cpu_count(),
        "load": [round(x, 1) for x in os.getloadavg()],
        "versions": {"ray": importlib.metadata.version("ray"), "python": platform.python_version()},
    }
    print(json.dumps(told))


if __name__ == "__main__":
    main()
