"""What the stages that train share. `models` does the learning; here it meets the lake.

A training function takes local paths and plain values, runs alone on the cluster and keeps its state for resuming in
the stage's folder, so a killed run goes on from its last checkpoint. It appends to `metrics.jsonl`, which is what the
progress bar, the curves and `runs.metrics` are made from.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from models.training.config import RewardConfig, SftConfig
from tasks.cluster import run_alone
from tasks.outputs import Folder
from tasks.produced import Produced
from tasks.runtime import Runtime
from tasks.shown.artifacts import Curves, progress

# What shapes a checkpoint beside our own code: the arithmetic, the text as tokens, the files it is written to.
LEARNING = ("torch", "numpy", "tokenizers", "transformers", "safetensors")


MANY = 0.03  # of what a stage was given: where more is left out, it is a warning


class Trained(NamedTuple):
    """A checkpoint."""

    model: Folder


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """Rows (step, name, value) of a trainer's `metrics.jsonl`, complete lines only."""
    rows = []
    if path.exists():
        for line in path.read_text().splitlines():
            try:
                values = json.loads(line)
            except json.JSONDecodeError:  # the line being written just now
                continue
            step = values.pop("step")
            rows += [
                {"step": step, "name": name, "value": float(value)}
                for name, value in values.items()
                if isinstance(value, int | float)
            ]
    return rows


def planned_steps(config: SftConfig | RewardConfig, items: int) -> int:
    """About how many steps a stage will take, for its progress bar."""
    return config.steps or max(1, math.ceil(config.epochs * math.ceil(items / config.batch)))


def train_alone(
    title: str, work: Callable[..., dict[str, Any]], steps: int, runtime: Runtime, *arguments: Any
) -> dict[str, Any]:
    """Run a training function alone on the cluster while its metrics drive the progress bar; returns its report."""
    out = runtime.folder
    out.mkdir(parents=True, exist_ok=True)

    drawn = Curves(title)
    with progress(title, steps, "steps") as bar:

        def rows() -> list[dict[str, Any]]:
            return read_metrics(out / "metrics.jsonl")

        def progressed(rows: list[dict[str, Any]]) -> tuple[int, str]:
            if not rows:
                return 0, ""
            last = {row["name"]: row["value"] for row in rows[-12:]}
            note = next((f"{name} {last[name]:.3f}" for name in ("loss", "reward") if name in last), "")
            return min(int(rows[-1]["step"]), steps), note

        def poll() -> None:
            read = rows()
            drawn.at(read)
            bar.at(*progressed(read))

        bar.look = lambda: progressed(rows())
        return dict(run_alone(work, *arguments, out, runtime=runtime, poll=poll))


def left_out(report: dict[str, Any], items: Sequence[dict[str, Any]], noun: str) -> tuple[list[dict[str, Any]], str]:
    """Rows of `runs.left_out` from what a training function says it couldn't use, and a line about them.

    `report["left_out"]`, lists of [number in `items`, reason, tokens, room], is taken out of the report. Where they are
    many, the line is a warning and tells their lengths.
    """
    rows = [
        {"id": items[number]["id"], "reason": reason, "tokens": tokens, "room": room}
        for number, reason, tokens, room in report.pop("left_out")
    ]
    parts = [f"{count:,} {reason}" for reason, count in Counter(row["reason"] for row in rows).most_common()]
    said = [f"{len(rows):,} of {len(items):,} {noun} left out ({'; '.join(parts)})"] if rows else []
    if len(rows) > MANY * len(items):
        lengths = (f"{count:,} {length}" for length, count in report["left_out_by_length"].items())
        said = [f"warning: {said[0]}", "by length " + ", ".join(lengths)]
    if report.get("cut"):
        said.append(f"{report['cut']:,} of {len(items):,} {noun} cut to fit the context")
    return rows, ", ".join(said)


def trained(name: str, report: dict[str, Any], runtime: Runtime, records_in: int, **more: Any) -> Produced:
    """What every training stage produces: a checkpoint, metrics, a report."""
    return Produced(
        folders={name: runtime.folder / "checkpoint"},
        counts={key: value for key, value in report.items() if isinstance(value, int) and not isinstance(value, bool)},
        records_in=records_in,
        records_out=int(report.get("steps", 0)),
        report=report,
        metrics=read_metrics(runtime.folder / "metrics.jsonl"),
        checkpoint=name,
        **more,
    )
