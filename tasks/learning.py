"""The stages that train: one for each method of `models.methods`, made here. `models` does the learning.

A method takes local paths and plain values, runs alone on the cluster and keeps states to resume from in the lake, so
that a killed run goes on from its last one. It appends to `metrics.jsonl`, which is what the progress bar, the curves
and `runs.metrics` are made from.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from datalake.errors import UserError
from datalake.lake.lake import Lake
from datalake.lake.records import StageRecord
from models.methods import METHODS
from models.training.config import TrainingConfig
from models.training.diagnosis import findings
from models.training.metrics import read_metrics
from tasks.cluster import Actors, run_alone, run_ranks
from tasks.dialogues import HoldOut
from tasks.material import material
from tasks.outputs import Folder
from tasks.produced import Produced
from tasks.runtime import Runtime
from tasks.shown.artifacts import progress
from tasks.shown.training import Training, metric_rows, of_record, sample_rows
from tasks.stage import Stage, stage

# What shapes a checkpoint beside our own code: the arithmetic, the text as tokens, the files it is written to.
LEARNING = ("torch", "numpy", "tokenizers", "transformers", "safetensors")


MANY = 0.03  # of what a stage was given: where more is left out, it is a warning


class Trained(NamedTuple):
    """A checkpoint."""

    model: Folder


def learning(name: str) -> Stage[Any, Any, Trained]:
    """The stage of a method. Its inputs are references by the names of what they are, see `tasks.material`."""
    method = METHODS[name]

    def learn(config: TrainingConfig, runtime: Runtime, **inputs: Any) -> Produced:
        made = material(method, runtime.lake, inputs)
        steps = planned_steps(config, made.records)
        states = runtime.lake.root / "states"
        work = partial(_train, name, actors=Actors(runtime.config))
        report = train_alone(name, work, steps, runtime, config, made.inputs, states)
        warnings = [*report.get("warnings", ()), *made.report.get("warnings", ())]
        report |= made.report | ({"warnings": warnings} if warnings else {})
        rows, note = left_out(report, made.items, made.noun)
        note = "; ".join(filter(None, (ended_early(report, steps), note)))
        return trained(name, report, runtime, made.records, left_out=rows, note=note)

    learn.__doc__ = method.prepare.__doc__
    return stage(Trained, version=method.version, libraries=LEARNING, name=name)(learn)


def _train(
    name: str,
    config: Any,
    inputs: dict[str, Any],
    states: Path,
    out: Path,
    ranks: Any = None,
    actors: Actors | None = None,
) -> dict[str, Any]:
    """Where the work is done: torch is imported here."""
    with actors or nullcontext():
        return METHODS[name](config, out=out, states=states, ranks=ranks, actors=actors, **inputs)


def planned_steps(config: TrainingConfig, items: int) -> int:
    """About how many steps a stage will take, for its progress bar."""
    steps = getattr(config, "total_steps", getattr(config, "steps", None))
    return steps or max(1, math.ceil(getattr(config, "epochs", 1) * math.ceil(items / config.batch)))


def train_alone(
    title: str, work: Callable[..., dict[str, Any]], steps: int, runtime: Runtime, *arguments: Any
) -> dict[str, Any]:
    """Run a training function alone on the cluster, or in several ranks, while its metrics drive the progress bar;
    returns its report."""
    out = runtime.folder
    out.mkdir(parents=True, exist_ok=True)

    shown = Training(title, out)
    with progress(title, steps, "steps") as bar:

        def progressed() -> tuple[int, str]:
            step, note = shown.progress()
            return min(step, steps), note

        def poll() -> None:
            shown.look()
            bar.at(*progressed())

        bar.look = progressed
        run = run_alone if runtime.config.ranks == 1 else run_ranks
        report = dict(run(work, *arguments, out, runtime=runtime, poll=poll))
    shown.look(ended=True)
    return report


def ended_early(report: dict[str, Any], steps: int) -> str:
    """A line about a run that stopped by one of its own rules; empty where it didn't."""
    stopped = report.get("stopped")
    if stopped is None:
        return ""
    model = f"; the model is that of step {stopped['good']:,}" if stopped["good"] < stopped["step"] else ""
    return f"stopped at step {stopped['step']:,} of {steps:,} (stop_when {stopped['rule']}): {stopped['why']}{model}"


def left_out(report: dict[str, Any], items: Sequence[dict[str, Any]], noun: str) -> tuple[list[dict[str, Any]], str]:
    """Rows of `runs.left_out` from what a training function says it couldn't use, and a line about them.

    `report["left_out"]`, lists of [number in `items`, reason, tokens, room], is taken out of the report. Where they are
    many, the line is a warning and tells their lengths.
    """
    rows = [
        {"id": items[number]["id"], "reason": reason, "tokens": tokens, "room": room}
        for number, reason, tokens, room in report.pop("left_out", ())
    ]
    reasons = report["left_out_by_reason"] = dict(Counter(row["reason"] for row in rows).most_common())
    parts = [f"{count:,} {reason}" for reason, count in reasons.items()]
    said = [f"{len(rows):,} of {len(items):,} {noun} left out ({'; '.join(parts)})"] if rows else []
    if len(rows) > MANY * len(items):
        lengths = (f"{count:,} {length}" for length, count in report["left_out_by_length"].items())
        said = [f"warning: {said[0]}", "by length " + ", ".join(lengths)]
    if report.get("cut"):
        said.append(f"{report['cut']:,} of {len(items):,} {noun} cut to fit the context")
    return rows, ", ".join(said)


def trained(name: str, report: dict[str, Any], runtime: Runtime, records_in: int, **more: Any) -> Produced:
    """What every training stage produces: a checkpoint, metrics with what they say, a report, answers it wrote."""
    report["findings"] = [one._asdict() for one in findings(read_metrics(runtime.folder / "metrics.jsonl"))]
    samples = sample_rows(runtime.folder)
    return Produced(
        folders={name: runtime.folder / "checkpoint"},
        counts={key: value for key, value in report.items() if isinstance(value, int) and not isinstance(value, bool)},
        records_in=records_in,
        records_out=int(report.get("steps", 0)),
        report=report,
        metrics=metric_rows(runtime.folder / "metrics.jsonl"),
        samples=samples,
        pages=of_record(report, samples),
        checkpoint=name,
        **more,
    )


def rows_of_step(lake: Lake, record: StageRecord, step: int) -> tuple[tuple[str, ...], list[dict[str, Any]]]:
    """What a step (from 1, as `runs.metrics` counts) of a training stage saw, row by row: the tables that the `id`s are
    of, and `id` and `tokens`.

    Of a document also `first_token`: tokens are a stretch of it. Tokens of a dialogue are those that fit, of a pair
    both answers' with their prompts, of PPO the prompt's.

    Raises:
        UserError: for a stage without steps, a step it didn't take, or one that an earlier version of the code trained.
    """
    name = record.stage
    if name not in METHODS:
        raise UserError(f"{name} trains no model, so it has no steps: give one of {', '.join(METHODS)}")
    method, stopped = METHODS[name], record.report.get("stopped")
    if stopped is not None and step > stopped["step"]:
        raise UserError(f"step {step} wasn't taken: this {name} stopped at step {stopped['step']} ({stopped['why']})")
    if record.version != method.version:
        raise UserError(
            f"this {name} was trained by another version of Headwater, which took other batches: run its recipe again"
        )
    inputs: dict[str, Any] = {
        input: refs[0] if len(refs) == 1 else refs for input, refs in record.inputs.items() if refs
    }
    plain = record.payload["inputs"]
    if "holdout" in plain:
        inputs["holdout"] = HoldOut.model_validate(plain["holdout"])
    if "repetition_seed" in plain:
        inputs["repetition_seed"] = int(plain["repetition_seed"])
    made = material(method, lake, inputs)
    config = method.config.model_validate(record.payload["config"])
    seen = method.seen(config, step, **made.inputs)
    if made.items:
        return made.tables, [{"id": made.items[number]["id"], "tokens": tokens} for number, tokens in seen]
    return made.tables, [{"id": id, "first_token": first, "tokens": count} for id, first, count in seen]
