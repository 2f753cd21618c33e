"""Whole commands beside each other, each on one core, from their start to their end."""

from __future__ import annotations

import json
import os
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

HEADWATER = Path(sys.executable).with_name("headwater")


def on_one_core(command: list[str], log: Path) -> tuple[float, str]:
    """Seconds of a command pinned, with all that it starts, to one core, and what it printed."""
    core = str(max(os.sched_getaffinity(0)))
    start = time.perf_counter()
    with log.open("w") as errors:
        ended = subprocess.run(["taskset", "-c", core, *command], stdout=subprocess.PIPE, stderr=errors)
    seconds = time.perf_counter() - start
    if ended.returncode:
        raise SystemExit(f"{command[0]} ended with {ended.returncode}: see {log}")
    return seconds, ended.stdout.decode()


def headwater_run(recipe: Path, until: str, work: Path) -> dict[str, float]:
    """A run in a new lake with one worker: seconds of the command (`whole`), of its stages together and of each, and
    the documents that the last one left (`kept`)."""
    lake = work / "lake"
    shutil.rmtree(lake, ignore_errors=True)
    command = [str(HEADWATER), "run", str(recipe), "--until", until, "--lake", str(lake), "--workers", "1", "--json"]
    whole, printed = on_one_core(command, work / "headwater.log")
    ran = [one for one in json.loads(printed)["stages"] if one["state"] == "ran"]
    seconds = {one["stage"]: one["seconds"] for one in ran}
    return {"whole": whole, "stages": sum(seconds.values()), **seconds, "kept": ran[-1]["records_out"]}


def taking_turns(contestants: dict[str, Callable[[], dict[str, float]]], rounds: int) -> dict[str, Any]:
    """Medians of what each contestant gives over the rounds, in which they take turns, and how many times as long the
    first takes as each other one."""
    taken: dict[str, list[dict[str, float]]] = {name: [] for name in contestants}
    for k in range(rounds):
        for name in sorted(contestants, reverse=k % 2 == 1):
            taken[name].append(contestants[name]())
            print(name, {key: round(value, 1) for key, value in taken[name][-1].items()}, flush=True)
    medians: dict[str, Any] = {
        name: {key: round(statistics.median(one[key] for one in all_of), 2) for key in all_of[0]}
        for name, all_of in taken.items()
    }
    first, *others = contestants
    ratios = {f"times {name}": round(medians[first]["whole"] / medians[name]["whole"], 3) for name in others}
    return medians | ratios


def in_turns(script: str, names: list[str], rounds: int, words: list[str], threads: int) -> Iterator[tuple[str, Any]]:
    """What each contestant of a script prints last, as JSON, in rounds whose order rotates: each in a process of its
    own, `script --contestant NAME WORDS...`, with so many threads."""
    surroundings = os.environ | {
        "OMP_NUM_THREADS": str(threads),
        "HF_HUB_OFFLINE": "1",
        "TRL_EXPERIMENTAL_SILENCE": "1",
    }
    for turn in range(rounds):
        shift = turn % len(names)
        for name in names[shift:] + names[:shift]:
            command = [sys.executable, script, "--contestant", name, *words]
            ended = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, env=surroundings)
            yield name, json.loads(ended.stdout.splitlines()[-1])
