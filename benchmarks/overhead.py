"""What orchestration costs: empty shards through `map_shards`, beside bare Ray, on one cluster in one run.

    .venv/bin/python benchmarks/overhead.py [--shards 1000] [--rounds 7] [--workers 2]

Four contestants take turns in every round, in an order that rotates from round to round, so that a neighbour's noise
falls on all of them alike:

- `ray_batch`: a no-op task submitted once per shard, everything fetched at the end (as fast as plain Ray goes);
- `ray_window`: the same with at most `window` tasks per worker under way, the least that bounds what is in flight;
- `map_shards`: empty shards, each with a folder in which a finished one is looked for first;
- `map_shards_found`: the same shards when all are finished already, so nothing reaches Ray.

Prints medians over the rounds and the ratio of `map_shards` to `ray_batch`; the goal is at most 1.5. The last line is
one JSON object.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import platform
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from datalake.lake.shards import ShardResult, finish_shard
from tasks.cluster import Shard, map_shards
from tasks.cluster.connect import connect, disconnect
from tasks.runtime import Runtime, RuntimeConfig

GOAL = 1.5


def nothing(shard: Shard) -> None:
    """The work of an empty shard."""


def shards_in(folder: Path, amount: int) -> list[Shard]:
    return [Shard(f"shard-{i:04d}", f"{i:064x}", i, folder / f"{i:04d}") for i in range(amount)]


def ray_batch(ray: Any, task: Any, amount: int) -> int:
    return len(ray.get([task.remote(i) for i in range(amount)]))


def ray_window(ray: Any, task: Any, amount: int, window: int) -> int:
    flights: list[Any] = []
    fetched = submitted = 0
    while fetched < amount:
        while submitted < amount and len(flights) < window:
            flights.append(task.remote(submitted))
            submitted += 1
        ready, flights = ray.wait(flights, num_returns=1)
        fetched += len(ray.get(ready))
    return fetched


def mapped(shards: list[Shard], runtime: Runtime, state: str) -> int:
    return sum(result.state == state for result in map_shards(nothing, shards, runtime))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shards", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--workers", type=int, default=2)
    options = parser.parse_args()
    amount = options.shards
    with tempfile.TemporaryDirectory(prefix="headwater-overhead-") as folder:
        runtime = Runtime(RuntimeConfig(workers=options.workers), Path(folder), "benchmark")
        start = time.perf_counter()
        ray = connect(runtime.config)
        print(f"Ray {ray.__version__} is up after {time.perf_counter() - start:.1f} s; {options.workers} workers")
        window = runtime.config.window * runtime.config.workers
        task = ray.remote(num_cpus=1)(lambda index: index)
        fresh, done = shards_in(Path(folder) / "fresh", amount), shards_in(Path(folder) / "done", amount)
        for shard in done:
            shard.folder.mkdir(parents=True)
            finish_shard(shard.folder, ShardResult(shard.name, shard.key))
        contestants: dict[str, Callable[[], int]] = {
            "ray_batch": lambda: ray_batch(ray, task, amount),
            "ray_window": lambda: ray_window(ray, task, amount, window),
            "map_shards": lambda: mapped(fresh, runtime, "ran"),
            "map_shards_found": lambda: mapped(done, runtime, "found"),
        }
        ray_batch(ray, task, 50)  # workers started and the function loaded before the clock runs
        mapped(fresh[:50], runtime, "ran")
        seconds: dict[str, list[float]] = {name: [] for name in contestants}
        for number in range(options.rounds):
            names = list(contestants)
            turn = number % len(names)
            for name in names[turn:] + names[:turn]:
                start = time.perf_counter()
                done_now = contestants[name]()
                seconds[name].append(time.perf_counter() - start)
                assert done_now == amount, f"{name} finished {done_now} of {amount}"
            print("  ".join(f"{name} {taken[-1]:.3f} s" for name, taken in seconds.items()))
        disconnect()
    median = {name: statistics.median(taken) for name, taken in seconds.items()}
    ratio = median["map_shards"] / median["ray_batch"]
    for name, taken in median.items():
        print(f"{name:<18}{taken:8.3f} s{amount / taken:12,.0f} shards/s")
    print(f"map_shards takes {ratio:.2f} times bare Ray's batch (goal: at most {GOAL})")
    print(
        json.dumps(
            {
                "bench": "overhead",
                "shards": amount,
                "rounds": options.rounds,
                "workers": options.workers,
                "cores": os.cpu_count(),
                "median_seconds": {name: round(taken, 4) for name, taken in median.items()},
                "ratio": round(ratio, 3),
                "ratio_window": round(median["map_shards"] / median["ray_window"], 3),
                "goal": GOAL,
                "reached": ratio <= GOAL,
                "versions": {"ray": importlib.metadata.version("ray"), "python": platform.python_version()},
            }
        )
    )


if __name__ == "__main__":
    main()
