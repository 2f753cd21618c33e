"""What the server of `headwater up` takes: many shards through one flow run, and many flow runs at once.

    .venv/bin/python benchmarks/service.py shards [--amount 10000] [--workers 2]
    .venv/bin/python benchmarks/service.py runs [--amount 50]

`shards`: a recipe over that many files, a document and a shard each, run up to `ingest` by the worker. `runs`: that
many runs of the deployment `ingest` are asked for within seconds, each of a recipe and corpus of its own in one lake;
the deployment's own limit of one at a time is lifted, the work pool's stays. Both start a server, worker and lake of
their own in a temporary folder, and end them. Twice a second the server's memory (resident set) and its database's size
are read. The last line is one JSON object.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import platform
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

import psutil
import yaml

from flows.service.api import Api

ENDED = ("COMPLETED", "FAILED", "CRASHED", "CANCELLED")


class Watch:
    """The server's memory and database while something happens."""

    def __init__(self, server: int, home: Path) -> None:
        self.process, self.home = psutil.Process(server), home
        self.memory: list[int] = []
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)

    def __enter__(self) -> Watch:
        self.before = self.now()
        self._cpu = self.process.cpu_times()
        self._began = time.perf_counter()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.seconds = time.perf_counter() - self._began
        self._over.set()
        self._thread.join()
        self.after = self.now()
        used = self.process.cpu_times()
        self.cpu = used.user + used.system - self._cpu.user - self._cpu.system

    def now(self) -> dict[str, float]:
        database = sum(path.stat().st_size for path in self.home.glob("prefect.db*"))
        return {"memory_mb": self.process.memory_info().rss / 1e6, "database_mb": database / 1e6}

    def _look(self) -> None:
        while not self._over.wait(0.5):
            self.memory.append(self.process.memory_info().rss)

    def told(self) -> dict[str, float]:
        found = {
            "seconds": self.seconds,
            "server_cpu_s": self.cpu,
            "memory_before_mb": self.before["memory_mb"],
            "memory_peak_mb": max(self.memory) / 1e6,
            "memory_after_mb": self.after["memory_mb"],
            "database_before_mb": self.before["database_mb"],
            "database_after_mb": self.after["database_mb"],
        }
        return {name: round(value, 1) for name, value in found.items()}


def toy(folder: Path, corpus: str, files: int, runtime: dict[str, Any]) -> Path:
    """A recipe over so many files of one document."""
    texts = folder / corpus
    texts.mkdir(parents=True)
    for number in range(files):
        (texts / f"{number:06d}.jsonl").write_text(json.dumps({"text": f"text {number} of {corpus}"}) + "\n")
    recipe = folder / f"{corpus}.yaml"
    source = {"kind": "table", "paths": [f"{texts}/*.jsonl"]}
    recipe.write_text(yaml.safe_dump({"corpus": corpus, "sources": [source], "runtime": runtime}))
    return recipe


def ended(api: Api, ids: list[str]) -> dict[str, Any]:
    """The runs by id, once all have ended."""
    while True:
        found: dict[str, Any] = {}
        for first in range(0, len(ids), 100):
            wanted = {"flow_runs": {"id": {"any_": ids[first : first + 100]}}}
            found |= {run["id"]: run for run in api("/flow_runs/filter", wanted)}
        if all(run["state"]["type"] in ENDED for run in found.values()):
            return found
        time.sleep(1)


def ask(api: Api, deployment: str, recipe: Path) -> str:
    body = {"parameters": {"recipe": str(recipe)}}
    return str(api(f"/deployments/{deployment}/create_flow_run", body)["id"])


def shards(api: Api, watch: Watch, folder: Path, amount: int, workers: int) -> dict[str, Any]:
    recipe = toy(folder, "many", amount, {"workers": workers, "cluster": "local", "memory_gb": 2})
    deployment = api("/deployments/name/ingest/ingest")["id"]
    with watch:
        (run,) = ended(api, [ask(api, deployment, recipe)]).values()
    state = run["state"]
    return {"state": state["type"], "why": state["message"], "run_s": round(run["total_run_time"], 1)}


def runs(api: Api, watch: Watch, folder: Path, amount: int) -> dict[str, Any]:
    recipes = [toy(folder, f"corpus_{n}", 1, {"workers": 1, "cluster": "inline"}) for n in range(amount)]
    deployment = api("/deployments/name/ingest/ingest")["id"]
    api(f"/deployments/{deployment}", {"concurrency_limit": None, "concurrency_options": None}, "PATCH")
    limit = api("/work_pools/headwater")["concurrency_limit"]
    with watch:
        began = time.perf_counter()
        ids = [ask(api, deployment, recipe) for recipe in recipes]
        asked = time.perf_counter() - began
        done = ended(api, ids)
    states = Counter(run["state"]["type"] for run in done.values())
    why = next((run["state"]["message"] for run in done.values() if run["state"]["type"] != "COMPLETED"), None)
    return {"states": dict(states), "why": why, "pool_limit": limit, "asked_s": round(asked, 1)}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("what", choices=("shards", "runs"))
    parser.add_argument("--amount", type=int)
    parser.add_argument("--workers", type=int, default=2)
    options = parser.parse_args()
    amount = options.amount or {"shards": 10_000, "runs": 50}[options.what]
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        lake = folder / "lake"
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        command = [sys.executable, "-m", "flows.cli"]
        common = ["--lake", str(lake), "--json"]
        up = subprocess.run([*command, "up", "--port", str(port), *common], stdout=subprocess.PIPE, check=True)
        told = json.loads(up.stdout)
        try:
            api, watch = Api(told["url"], told["login"]), Watch(told["server"], lake / "prefect")
            if options.what == "shards":
                found = shards(api, watch, folder, amount, options.workers)
            else:
                found = runs(api, watch, folder, amount)
            found |= watch.told() | {
                "database_is_locked": (lake / "prefect/server.log").read_text().count("database is locked")
            }
        finally:
            subprocess.run([*command, "down", *common], stdout=subprocess.DEVNULL, check=True)
    versions = {name: importlib.metadata.version(name) for name in ("prefect", "ray")}
    machine = {"machine": platform.machine(), "cpus": os.cpu_count(), "load": [round(x, 1) for x in os.getloadavg()]}
    print(json.dumps({"bench": f"service {options.what}", "amount": amount, **found, **versions, **machine}))


if __name__ == "__main__":
    main()
