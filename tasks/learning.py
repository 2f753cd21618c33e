"""The stages that train: one for each method of `models.methods`, made here. `models` does the learning.

A method takes local paths and plain values, runs alone on the cluster and keeps states to resume from in the lake, so
that a killed run goes on from its last one. It appends to `metrics.jsonl`, which is what the progress bar, the curves
and `runs.metrics` are made from.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa

from datalake.atomic import write_atomically
from datalake.errors import UserError
from datalake.identity import plain
from datalake.lake.copies import workplace
from datalake.lake.lake import RUNNING, Lake, TableRef
from datalake.lake.parquet import read_table
from datalake.lake.records import Manifest, StageRecord, read_record
from datalake.tables import ID
from models.methods import METHODS
from models.training.config import TrainingConfig
from models.training.diagnosis import Finding, findings
from models.training.method import Method
from models.training.metrics import read_metrics
from tasks.asked import Asked
from tasks.cluster import Actors, run_alone, run_job, run_ranks
from tasks.dialogues import HoldOut
from tasks.material import Material, at_hand, material
from tasks.outputs import Folder
from tasks.produced import Produced
from tasks.realised import add_shares
from tasks.runtime import Runtime
from tasks.shown.artifacts import note, progress, say
from tasks.shown.tracking import Tracked, tracking
from tasks.shown.training import Training, metric_rows, of_record, sample_rows
from tasks.stage import Stage, refs_of, stage

# What shapes a checkpoint beside our own code: the arithmetic, the text as tokens, the files it is written to.
LEARNING = ("torch", "numpy", "tokenizers", "transformers", "safetensors")


FINDINGS = 5  # spikes that are told by themselves
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
        if runtime.config.jobs is None:
            arguments = config, made.inputs, runtime.lake.root / "states"
            report = train_alone(name, _work_of(name, runtime), steps, runtime, *arguments)
        else:
            report = _followed(name, config, steps, runtime, _as_job, Asked.of(config, runtime, inputs))
        warnings = [*report.get("warnings", ()), *made.report.get("warnings", ())]
        report |= made.report | ({"warnings": warnings} if warnings else {})
        rows, note = left_out(report, made.items, made.noun)
        blamed, spiked = spikes(report, made.items, runtime.lake, inputs)
        cut, pieces = in_pieces(report)
        if "mixture" in inputs:
            add_shares(report, runtime.lake, inputs["mixture"])
        note = "; ".join(filter(None, (ended_early(report, steps), spiked, note, pieces, learned(report))))
        return trained(name, report, runtime, made.records, left_out=rows + cut, spikes=blamed, note=note)

    learn.__doc__ = method.prepare.__doc__
    return stage(Trained, version=method.version, libraries=LEARNING, name=name)(learn)


def _work_of(name: str, runtime: Runtime) -> Callable[..., dict[str, Any]]:
    return partial(_train, name, actors=Actors(runtime.config))


def train_here(name: str, config: Any, runtime: Runtime, inputs: dict[str, Any]) -> dict[str, Any]:
    """A training stage on the cluster that this process is a job of; `config` as JSON has it. Returns its report."""
    method = METHODS[name]
    made = material(method, runtime.lake, inputs)
    arguments = method.config.model_validate(config), made.inputs, runtime.lake.root / "states", runtime.folder
    return dict(_run_of(runtime)(_work_of(name, runtime), *arguments, runtime=runtime))


def _as_job(asked: Asked, out: Path, runtime: Runtime, poll: Callable[[], None]) -> dict[str, Any]:
    return run_job(asked.job(out), runtime, poll, note)


def _run_of(runtime: Runtime) -> Callable[..., dict[str, Any]]:
    """How training reaches the cluster: alone, or in ranks."""
    return run_alone if runtime.config.ranks == 1 else run_ranks


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
    with actors or nullcontext(), workplace(out, leads=ranks is None or ranks.leads) as here:
        return METHODS[name](config, out=here, states=states, ranks=ranks, actors=actors, **at_hand(inputs))


def planned_steps(config: TrainingConfig, items: int) -> int:
    """About how many steps a stage will take, for its progress bar."""
    steps = getattr(config, "total_steps", getattr(config, "steps", None))
    return steps or max(1, math.ceil(getattr(config, "epochs", 1) * math.ceil(items / config.batch)))


def train_alone(
    title: str, work: Callable[..., dict[str, Any]], steps: int, runtime: Runtime, *arguments: Any
) -> dict[str, Any]:
    """Run a training function alone on the cluster, or in several ranks, while its metrics drive the progress bar;
    returns its report."""
    return _followed(title, arguments[0], steps, runtime, _run_of(runtime), work, *arguments)


def _followed(
    title: str, config: Any, steps: int, runtime: Runtime, run: Callable[..., dict[str, Any]], *arguments: Any
) -> dict[str, Any]:
    """`run(*arguments, folder, ...)` while the metrics that it writes into the folder drive the progress bar."""
    out = runtime.folder
    told = {"fingerprint": runtime.fingerprint, "stage": title}
    write_atomically(out / RUNNING, json.dumps(told).encode())  # whose metrics these are, before there is a record
    settings = plain(config) if isinstance(config, TrainingConfig) else {}
    tracked = Tracked(runtime.corpus, title, runtime.fingerprint, settings)
    shown = Training(title, out)
    places = {name: runtime.lake_root / "tracking" / name for name in runtime.config.tracking}
    with (
        tracking(places, out, tracked, say) as tracks,
        progress(title, steps, "steps") as bar,
    ):

        def progressed() -> tuple[int, str]:
            step, note = shown.progress()
            return min(step, steps), note

        def poll() -> None:
            shown.look()
            tracks.look()
            bar.at(*progressed())

        bar.look = progressed
        report = dict(run(*arguments, out, runtime=runtime, poll=poll))
    shown.look(ended=True)
    return report


def ended_early(report: dict[str, Any], steps: int) -> str:
    """A line about a run that stopped by one of its own rules; empty where it didn't."""
    stopped = report.get("stopped")
    if stopped is None:
        return ""
    model = f"; the model is that of step {stopped['good']:,}" if stopped["good"] < stopped["step"] else ""
    return f"stopped at step {stopped['step']:,} of {steps:,} (stop_when {stopped['rule']}): {stopped['why']}{model}"


def learned(report: dict[str, Any]) -> str:
    """A line about tokens that adapters had to bring along; empty where there were none."""
    tokens = report.get("learned_tokens", ())
    return f"the base never learned {', '.join(tokens)}: their rows are trained beside the adapters" if tokens else ""


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


def in_pieces(report: dict[str, Any]) -> tuple[list[dict[str, Any]], str]:
    """Rows of `runs.left_out` of documents that are longer than a row and were packed in pieces, and a line about them.

    `report["in_pieces"]`, lists of [id in hex, tokens, room], is taken out of the report.
    """
    rows = [
        {"id": bytes.fromhex(id), "reason": f"packed in {-(-tokens // room)} pieces", "tokens": tokens, "room": room}
        for id, tokens, room in report.pop("in_pieces", ())
    ]
    if not rows:
        return [], ""
    report["documents_in_pieces"] = len(rows)
    return rows, f"{len(rows):,} documents longer than a row of {rows[0]['room']:,} tokens packed in pieces"


def spikes(
    report: dict[str, Any], items: Sequence[dict[str, Any]], lake: Lake, inputs: dict[str, Any]
) -> tuple[list[dict[str, Any]], str]:
    """Rows of `runs.spikes` from what a training function says of updates it refused, and a line about them.

    `report["spikes"]`, lists of [spike, step, id in hex or number in `items`, tokens, loss, rank], is taken out of the
    report; how many spikes there were, and the document that did worst in each, stay in it.
    """
    rows = []
    for spike, step, who, tokens, loss, rank in report.pop("spikes", ()):
        id = bytes.fromhex(who) if isinstance(who, str) else items[who]["id"]
        rows.append({"spike": spike, "step": step, "id": id, "tokens": tokens, "loss": loss, "rank": rank})
    known = addresses(lake, inputs, {row["id"] for row in rows})
    for row in rows:
        row["uri"] = known.get(row["id"])
    worst = [row for row in rows if row["rank"] == 1]
    said = []
    if worst:
        report["spike_culprits"] = [
            {"spike": row["spike"], "step": row["step"], "uri": row["uri"] or row["id"].hex(), "loss": row["loss"]}
            for row in worst
        ]
        one = max(worst, key=lambda row: row["loss"])
        named = f"{one['uri'] or one['id'].hex()} ({one['loss']:.3g} nats a token at step {one['step']:,})"
        said.append(f"updates spiked at {len(worst):,} steps; worst of their documents {named}: see runs.spikes")
    for first, last in report.get("left_out_steps", ()):
        said.append(f"steps {first:,} to {last:,} were undone and left out")
    return rows, ", ".join(said)


def _spiked(report: dict[str, Any]) -> list[Finding]:
    """The worst document of each spike as a finding; of many spikes of the first ones."""
    advice = "look at it with headwater explain"
    return [
        Finding(
            "spiked",
            f"the loss spikes at step {one['spike']:,}; worst of its documents {one['uri']} at step {one['step']:,}"
            f" ({one['loss']:.3g} nats a token)",
            "loss",
            one["spike"],
            one["spike"],
            advice,
            "note",
        )
        for one in report.get("spike_culprits", ())[:FINDINGS]
    ]


def addresses(lake: Lake, inputs: dict[str, Any], ids: set[bytes]) -> dict[bytes, str]:
    """The addresses of these records in the tables that a stage was given, or in those that these were made of."""
    refs = [ref for value in inputs.values() for ref in refs_of(value) if isinstance(ref, TableRef)]
    makers = filter(None, (read_record(lake, ref.fingerprint) for ref in refs))
    refs += [ref for maker in makers for of in maker.inputs.values() for ref in of if isinstance(ref, TableRef)]
    found: dict[bytes, str] = {}
    for ref in refs if ids else ():
        if ref.rows and {"id", "uri"} <= set(lake.schema(ref).names):
            for file in lake.files(ref):
                rows = read_table(file, ["id", "uri"], [("id", "in", sorted(ids))])
                found |= zip(rows["id"].to_pylist(), rows["uri"].to_pylist(), strict=True)
    return found


def trained(name: str, report: dict[str, Any], runtime: Runtime, records_in: int, **more: Any) -> Produced:
    """What every training stage produces: a checkpoint, metrics with what they say, a report, answers it wrote."""
    found = [*findings(read_metrics(runtime.folder / "metrics.jsonl")), *_spiked(report)]
    report["findings"] = [one._asdict() for one in found]
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
    stopped = record.report.get("stopped")
    if stopped is not None and step > stopped["step"]:
        raise UserError(f"step {step} wasn't taken: this {name} stopped at step {stopped['step']} ({stopped['why']})")
    for first, last in record.report.get("left_out_steps", ()):
        if first <= step <= last:
            raise UserError(
                f"step {step} trained nothing: steps {first} to {last} of this {name} were undone and left out after a"
                " spike; runs.spikes has their documents"
            )
    method, made, config = _trained_on(lake, record)
    seen = method.seen(config, step, **made.inputs)
    if made.items:
        return made.tables, [{"id": made.items[number]["id"], "tokens": tokens} for number, tokens in seen]
    return made.tables, [{"id": id, "first_token": first, "tokens": count} for id, first, count in seen]


def _trained_on(lake: Lake, record: StageRecord) -> tuple[Method[Any], Material, TrainingConfig]:
    """The method of a training stage, what it was given, and its config. Raises UserError where an earlier version of
    the code trained, which took other steps."""
    method = METHODS[record.stage]
    if record.version != method.version:
        raise UserError(
            f"this {record.stage} was trained by another version of Headwater, which took other batches: run its recipe"
            " again"
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
    made.inputs = at_hand(made.inputs)
    return method, made, method.config.model_validate(record.payload["config"])


ORDER = pa.schema(
    [
        ("step", pa.int64()),
        ("position", pa.int64()),
        ("id", ID),
        ("first_token", pa.int64()),
        ("tokens", pa.int64()),
    ]
)


def order(lake: Lake, manifest: Manifest) -> pa.Table | None:
    """`<corpus>.order`: which document stood where in each step (from 1) of a run's pretraining, `tokens` of it from
    `first_token` on; None where it had none."""
    prints = [report.fingerprint for report in manifest.stages if report.stage == "pretrain" and report.fingerprint]
    record = read_record(lake, prints[0]) if prints else None
    if record is None:
        return None
    method, made, config = _trained_on(lake, record)
    data = method.data(config, **method.given(made.inputs))
    undone = {step for first, last in record.report.get("left_out_steps", ()) for step in range(first, last + 1)}
    taken = [step for step in range(1, record.report["steps"] + 1) if step not in undone]
    tables = [
        pa.table([[step] * len(seen), range(1, len(seen) + 1), *zip(*seen, strict=True)], schema=ORDER)
        for step in taken
        if (seen := data.seen(step - 1))
    ]
    return pa.concat_tables(tables) if tables else ORDER.empty_table()
