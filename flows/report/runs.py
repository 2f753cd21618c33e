"""The runs of a lake with the figures that each is known by, and what two of them differ in."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from hashlib import sha256
from typing import Any

from datalake.lake.lake import Lake
from datalake.lake.records import Manifest, StageRecord, manifests, read_record

# A figure of a run: its name, the stage that tells it, and where in the stage's record it stands.
_FIGURES = (
    ("records", "ingest", "counts", "records"),
    ("raw", "ingest", "counts", "raw"),
    ("kept", "curate", "counts", "documents"),
    ("clean", "deduplicate", "", "records_out"),
    ("tokens", "tokenize", "counts", "tokens"),
    ("pretrain loss", "pretrain", "report", "heldout_loss"),
    ("sft loss", "sft", "report", "heldout_loss"),
    ("reward accuracy", "reward", "report", "heldout_accuracy"),
    ("ppo score", "ppo", "report", "score_last"),
    ("grpo score", "grpo", "report", "score_last"),
)

_LONGEST = 300  # characters of a recipe's value that are shown

Row = dict[str, Any]


def all_runs(lake: Lake) -> list[Row]:
    """All runs of a lake, each in one row, by the time of their start."""
    rows = [*unfinished(lake), *(describe(lake, manifest) for manifest in manifests(lake))]
    return sorted(rows, key=lambda row: (row["started"], row["run"]))


def describe(lake: Lake, manifest: Manifest) -> Row:
    """A finished run in one row. Its state is `complete`, `until STAGE`, or `partial` where shards are unfinished."""
    states: dict[str, int] = {}
    for report in manifest.stages:
        if report.state != "skipped":
            states[report.state] = states.get(report.state, 0) + 1
    state = f"until {manifest.until}" if manifest.until else "complete"
    return {
        "run": manifest.run,
        "corpus": manifest.corpus,
        "started": manifest.started,
        "seconds": (manifest.finished - manifest.started).total_seconds(),
        "state": "partial" if "partial" in states else state,
        "stages": states,
        "figures": figures(records_of(lake, manifest)),
    }


def unfinished(lake: Lake) -> Iterator[Row]:
    """Runs that built something and never came to their end, or haven't yet: known by their stages' records."""
    ended = {manifest.run for manifest in manifests(lake)}
    found: dict[str, list[StageRecord]] = {}
    for path in (lake.root / "records").glob("*.json"):
        record = read_record(lake, path.stem)
        if record is not None and record.run and record.run not in ended:
            found.setdefault(record.run, []).append(record)
    for run, records in found.items():
        started = min(record.started for record in records)
        last = max(record.started + timedelta(seconds=record.seconds) for record in records)
        yield {
            "run": run,
            "corpus": records[0].corpus,
            "started": started,
            "seconds": (last - started).total_seconds(),
            "state": "unfinished",
            "stages": {"ran": len(records)},
            "figures": figures({record.stage: record for record in records}),
        }


def records_of(lake: Lake, manifest: Manifest) -> dict[str, StageRecord]:
    """The records of a run's stages by name."""
    return {
        report.stage: record
        for report in manifest.stages
        if (record := read_record(lake, report.fingerprint or "")) is not None
    }


def figures(records: dict[str, StageRecord]) -> dict[str, float]:
    """The figures that a run is known by, those it has."""
    found = {}
    for name, stage, part, key in _FIGURES:
        if stage in records:
            body = records[stage].model_dump(include={part or key})
            value = (body[part] if part else body).get(key)
            if value is not None:
                found[name] = value
    return found


# Two runs -----------------------------------------------------------------------------------------------------------


def compare(lake: Lake, first: Manifest, second: Manifest) -> Row:
    """What two runs differ in: their recipes' values, their stages, what these counted, and figures of evaluation."""
    records = [records_of(lake, manifest) for manifest in (first, second)]
    recipes = [dict(_leaves(manifest.recipe)) for manifest in (first, second)]
    return {
        "runs": [describe(lake, first), describe(lake, second)],
        "recipe": _differences(*recipes),
        "stages": [
            row
            for row in _side_by_side(*({r.stage: r for r in manifest.stages} for manifest in (first, second)))
            if row["first"] is None or row["second"] is None or row["first"]["made"] != row["second"]["made"]
        ],
        "counts": _differences(*map(_counts, records)),
        "figures": _differences(*map(figures, records)),
        "evaluations": _differences(*map(_evaluations, records)),
    }


def _leaves(value: Any, place: str = "") -> Iterator[tuple[str, Any]]:
    """A recipe's values by their keys: `curate.preset`, `sources[0].paths`. `runtime` shapes no output: left out.

    Of several things with names each is told by its own, so that one more doesn't move the others; a file's text, which
    a recipe holds where that shapes the output, by its digest.
    """
    if isinstance(value, dict) and value:
        for key, item in value.items():
            if place or key != "runtime":
                yield from _leaves(item, f"{place}.{key}" if place else str(key))
    elif isinstance(value, list) and any(isinstance(item, dict) for item in value):
        for number, item in enumerate(value):
            yield from _leaves(item, f"{place}[{(item.get('name') if isinstance(item, dict) else None) or number}]")
    elif isinstance(value, str) and len(value) > _LONGEST:
        yield place, f"{len(value):,} characters, SHA-256 {sha256(value.encode()).hexdigest()[:16]}"
    else:
        yield place, value


def _differences(first: dict[str, Any], second: dict[str, Any]) -> dict[str, list[Any]]:
    """What has another value in the second, or is in one of them only: [before, after]."""
    names = dict.fromkeys((*first, *second))
    return {name: [first.get(name), second.get(name)] for name in names if first.get(name) != second.get(name)}


def _side_by_side(first: dict[str, Any], second: dict[str, Any]) -> Iterator[Row]:
    for stage in dict.fromkeys((*first, *second)):
        sides = [
            None
            if report is None or report.state == "skipped"
            else {
                "state": report.state,
                "records_in": report.records_in,
                "records_out": report.records_out,
                "made": sorted(ref.data_version for ref in report.outputs.values()),
            }
            for report in (first.get(stage), second.get(stage))
        ]
        if sides != [None, None]:
            yield {"stage": stage, "first": sides[0], "second": sides[1]}


def _counts(records: dict[str, StageRecord]) -> dict[str, int]:
    return {f"{stage}: {name}": value for stage, record in records.items() for name, value in record.counts.items()}


def _evaluations(records: dict[str, StageRecord]) -> dict[str, Any]:
    rows = records["evaluate"].report.get("results", []) if "evaluate" in records else []
    return {f"{row['checkpoint']} {row['task']}.{row['metric']}": row["value"] for row in rows}
