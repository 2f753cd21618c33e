"""What becomes of a run that something happens to: how it ends, how fast, and whether the next one makes it good.

    .venv/bin/python benchmarks/accidents.py [--rounds 3] [--only ingest] [--runtime inline local]

Each accident befalls a run of a small recipe, a process with a Prefect server of its own, once a round. Then the same
command is given again, and its tables and weights are compared, byte for byte, with those of a run that nothing
happened to. Seconds are from the accident to the end of the command. Prints a table in Markdown; the last line is one
JSON object. Exits with 1 where a run left a process, a traceback or other bytes.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import yaml

ROOT = Path(__file__).resolve().parents[1]
PATIENCE_S = 600
WORDS = """the river teacher of an engine and garden letter market that museum planet with school sailor to be doctor
""".split()  # noqa: SIM905


def recipe(folder: Path, cluster: str) -> dict[str, Any]:
    """Forty files of texts, and a model that trains for some seconds."""
    for number in range(40):
        draw = random.Random(number)
        rows = [{"id": f"{number}-{row}", "text": " ".join(draw.choices(WORDS, k=150))} for row in range(100)]
        (folder / f"{number:02d}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return {
        "corpus": "small",
        "sources": [{"kind": "table", "paths": [f"{folder}/*.jsonl"]}],
        "curate": {"preset": "none"},
        "tokenizer": {"vocabulary": 320},
        "pretrain": {
            "layers": 2, "width": 32, "heads": 2, "kv_heads": 1, "context": 64, "batch": 4, "steps": 150,
            "checkpoint_every": 1000, "eval_every": 0,
        },
        "runtime": {"workers": 2, "cluster": cluster},
    }  # fmt: skip


@dataclass
class Run:
    """A run in `lake` as a process, until `pretrain`."""

    lake: Path
    process: subprocess.Popen[bytes]
    error: Path

    @classmethod
    def begin(cls, body: dict[str, Any], lake: Path, folder: Path) -> Run:
        path, error = folder / "recipe.yaml", folder / "error"
        path.write_text(yaml.safe_dump(body))
        command = [
            sys.executable,
            "-m",
            "flows.cli",
            "run",
            str(path),
            "--lake",
            str(lake),
            "--until",
            "pretrain",
            "--json",
        ]
        environment = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT")}
        environment["PYTHONPATH"] = str(ROOT)
        with error.open("wb") as told, (folder / "out").open("wb") as out:
            process = subprocess.Popen(
                command, stdout=out, stderr=told, env=environment, start_new_session=True, cwd=folder
            )
        return cls(lake, process, error)

    def wait_for(self, moment: Callable[[Run], bool]) -> None:
        deadline = time.monotonic() + PATIENCE_S
        while not moment(self):
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise SystemExit(f"the moment never came: {self.error.read_text(errors='replace')[-2000:]}")
            time.sleep(0.005)

    def signal(self, number: int) -> None:
        os.killpg(self.process.pid, number)

    def processes(self) -> list[psutil.Process]:
        """What was started for the run, beside the run itself."""
        found = []
        for process in psutil.process_iter():
            try:
                mine = process.environ().get("HEADWATER_PROCESS_LAKE") == str(self.lake)
                if mine and process.pid != self.process.pid and process.status() != psutil.STATUS_ZOMBIE:
                    found.append(process)
            except (psutil.Error, OSError):
                continue
        return found

    def kill(self, name: str) -> None:
        """SIGKILL to a part of the run by a word of its command line."""
        next(process for process in self.processes() if name in " ".join(process.cmdline()[:6])).kill()


def among_shards(run: Run) -> bool:
    return len(list(run.lake.glob("shards/ingest/*/*"))) >= 6


def in_training(run: Run) -> bool:
    return any(len(path.read_bytes().splitlines()) >= 3 for path in run.lake.glob("folders/pretrain/*/metrics.jsonl"))


def at_start(run: Run) -> bool:
    return bool(run.processes())


def twice(run: Run) -> None:
    run.signal(signal.SIGINT)
    time.sleep(0.7)
    if run.process.poll() is None:
        run.signal(signal.SIGINT)


@dataclass
class Accident:
    """What happens when; `status` is how the command ends then (0: it goes on), on the clusters named."""

    name: str
    moment: Callable[[Run], bool]
    act: Callable[[Run], None]
    status: int
    clusters: tuple[str, ...] = ("inline", "local")


def signalled(number: int) -> Callable[[Run], None]:
    return lambda run: run.signal(number)


def killed(name: str) -> Callable[[Run], None]:
    return lambda run: run.kill(name)


ACCIDENTS = [
    Accident("Ctrl-C while it starts", at_start, signalled(signal.SIGINT), 130),
    *(
        Accident(f"{what} in `{stage}`", moment, act, status)
        for stage, moment in (("ingest", among_shards), ("pretrain", in_training))
        for what, act, status in (
            ("Ctrl-C", signalled(signal.SIGINT), 130),
            ("Ctrl-C twice", twice, 130),
            ("SIGTERM", signalled(signal.SIGTERM), 143),
            ("SIGHUP", signalled(signal.SIGHUP), 129),
            ("SIGKILL to the whole group", signalled(signal.SIGKILL), -9),
            ("its own Prefect server killed", killed("flows.service"), 0),
        )
    ),
    *(
        Accident(f"Ray's {name} killed in `{stage}`", moment, killed(name), 1, ("local",))
        for stage, moment in (("ingest", among_shards), ("pretrain", in_training))
        for name in ("raylet/raylet", "gcs/gcs_server")
    ),
]


def contents(lake: Path) -> dict[str, str]:
    """Digests of all that a lake's tables and models are made of, by path."""
    kinds = ("*.parquet", "*.safetensors", "*.bin")
    paths = [path for top in ("shards", "folders") for kind in kinds for path in (lake / top).rglob(kind)]
    kept = [path for path in paths if "step-" not in str(path)]
    return {str(path.relative_to(lake)): hashlib.sha256(path.read_bytes()).hexdigest() for path in kept}


def befall(accident: Accident, body: dict[str, Any], folder: Path, whole: dict[str, str]) -> dict[str, Any]:
    """One accident and the run after it: seconds, status, last line, and what is wrong ('' where nothing is)."""
    lake = folder / "lake"
    run = Run.begin(body, lake, folder)
    run.wait_for(accident.moment)
    began = time.monotonic()
    accident.act(run)
    status = run.process.wait(PATIENCE_S)
    seconds = time.monotonic() - began
    told = run.error.read_text(errors="replace").strip()
    left = [] if status == -9 else run.processes()  # after SIGKILL it is the next run that ends them
    again = Run.begin(body, lake, folder)
    after = again.process.wait(PATIENCE_S)
    wrong = {
        f"status {status}": status != accident.status,
        f"{len(left)} processes left": bool(left),
        "a traceback": "Traceback" in told or "*** SIG" in told,
        f"the next run ended with {after}": after != 0,
        "processes left after the next run": bool(again.processes()),
        "other bytes": contents(lake) != whole,
    }
    last = told.splitlines()[-1] if told else ""
    return {"seconds": seconds, "last": last, "wrong": ", ".join(name for name, true in wrong.items() if true)}


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", default="", help="accidents whose name has this in it")
    parser.add_argument("--runtime", nargs="+", choices=["inline", "local"], default=["inline", "local"])
    arguments = parser.parse_args()
    chosen = [one for one in ACCIDENTS if arguments.only in one.name]
    results: dict[str, list[dict[str, Any]]] = {}
    with tempfile.TemporaryDirectory() as top:
        for cluster in arguments.runtime:
            texts = Path(top) / f"texts-{cluster}"
            texts.mkdir()
            body = recipe(texts, cluster)
            undisturbed = Path(top) / f"undisturbed-{cluster}"
            undisturbed.mkdir()
            if Run.begin(body, undisturbed / "lake", undisturbed).process.wait(PATIENCE_S):
                raise SystemExit((undisturbed / "error").read_text()[-2000:])
            whole = contents(undisturbed / "lake")
            for number in range(arguments.rounds):
                for accident in chosen:
                    if cluster in accident.clusters:
                        folder = Path(top) / f"{cluster}-{number}-{chosen.index(accident)}"
                        folder.mkdir()
                        one = befall(accident, body, folder, whole)
                        results.setdefault(f"{accident.name} | {cluster}", []).append(one)
                        print(f"{accident.name}, {cluster}: {one}", file=sys.stderr, flush=True)
    print("| what was done | `runtime.cluster` | how often | seconds (median, largest) | ended as it should |")
    print("| --- | --- | --- | --- | --- |")
    for name, found in results.items():
        seconds = [one["seconds"] for one in found]
        good = sum(not one["wrong"] for one in found)
        print(
            f"| {name} | {len(found)} | {statistics.median(seconds):.1f}, {max(seconds):.1f} | {good} of {len(found)} |"
        )
    print(json.dumps({"load": os.getloadavg(), "results": results}))
    return int(any(one["wrong"] for found in results.values() for one in found))


if __name__ == "__main__":
    sys.exit(main())
