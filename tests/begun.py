"""Runs as processes of their own, for tests of what ends them before their time."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import world

Start = Callable[..., "Begun"]


@dataclass
class Begun:
    """A run begun as a process. It writes to files: pipes would stay open in what it leaves behind."""

    process: subprocess.Popen[bytes]
    out: Path
    err: Path

    def told(self) -> str:
        return self.err.read_text(errors="replace")[-3000:]


def processes_of(lake: Path) -> list[psutil.Process]:
    """Every process that was started for a run in this lake."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get("HEADWATER_PROCESS_LAKE") == str(lake) and process.pid != os.getpid():
                found.append(process)
        except (psutil.Error, OSError):
            continue
    return [process for process in found if process.status() != psutil.STATUS_ZOMBIE]


def ended(run: Begun, seconds: float = 400) -> dict[str, Any]:
    """The JSON of a run that ends well."""
    assert run.process.wait(seconds) == 0, run.told()
    return dict(json.loads(run.out.read_text()))


def wait_for(run: Begun, moment: Callable[[], bool], seconds: float = 300, every: float = 0.002) -> None:
    """Wait until the moment has come while the run goes on; it is looked for `every` so many seconds."""
    deadline = time.monotonic() + seconds
    while not moment():
        assert run.process.poll() is None, f"ended before the moment came: {run.told()}"
        assert time.monotonic() < deadline, "the moment never came"
        time.sleep(every)


def kill_when(run: Begun, moment: Callable[[], bool], seconds: float = 300) -> None:
    """SIGKILL as soon as the moment has come."""
    wait_for(run, moment, seconds)
    run.process.send_signal(signal.SIGKILL)
    assert run.process.wait(30) == -signal.SIGKILL


def steps_done(lake: Path) -> int:
    """How many steps of pretraining are written down."""
    return sum(len(path.read_bytes().splitlines()) for path in (lake / "folders").glob("pretrain/*/metrics.jsonl"))


def state(body: dict[str, Any], stage: str) -> str:
    return next(str(report["state"]) for report in body["stages"] if report["stage"] == stage)


def many_archives(folder: Path, archives: int, pages: int) -> dict[str, Any]:
    """A recipe over archives of pages, enough for a kill to fall between two shards."""
    for number in range(archives):
        world.crawl(folder / f"{number:02d}.warc.gz", 1000 * number, pages)
    source = {"kind": "common_crawl", "paths": [f"{folder}/*.warc.gz"]}
    return {
        "corpus": "small",
        "sources": [source],
        "curate": {"preset": "none"},
        "mixture": {"holdout": 0.1},
        **world.tiny_models(),
        "runtime": world.on_ray(2),
    }
