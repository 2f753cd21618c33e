"""What a lake remembers of runs: a record per finished stage, a manifest per finished run.

A record says everything that shaped an output (the fingerprint's payload), what came out, and how: `headwater trace`
walks records, and "why did this rerun?" is the difference of two payloads. A manifest names the references a run ended
with, cache hits included: `headwater query` shows a corpus through the manifest of its last finished run.
"""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
from pydantic import BaseModel, Field, model_validator

from datalake.atomic import write_atomically
from datalake.errors import UserError, first_line, note
from datalake.lake.contents import Digest, Name
from datalake.lake.lake import FolderRef, Lake, Ref, TableRef
from datalake.places import several
from datalake.tables import ID, TIMESTAMP

STAGES = pa.schema(
    [
        ("fingerprint", pa.string()),
        ("stage", pa.string()),
        ("version", pa.string()),
        ("corpus", pa.string()),
        ("run", pa.string()),
        ("state", pa.string()),
        ("started", TIMESTAMP),
        ("seconds", pa.float64()),
        ("records_in", pa.int64()),
        ("records_out", pa.int64()),
        ("payload", pa.string()),
        ("inputs", pa.string()),
        ("outputs", pa.string()),
        ("counts", pa.string()),
        ("git_commit", pa.string()),
        ("git_dirty", pa.bool_()),
        ("versions", pa.string()),
        ("flow_run", pa.string()),
        ("task_run", pa.string()),
    ]
)
METRICS = pa.schema(
    [
        ("fingerprint", pa.string()),
        ("stage", pa.string()),
        ("step", pa.int64()),
        ("name", pa.string()),
        ("value", pa.float64()),
    ]
)
SAMPLES = pa.schema(
    [
        ("fingerprint", pa.string()),
        ("stage", pa.string()),
        ("step", pa.int64()),
        ("prompt", pa.large_string()),
        ("answer", pa.large_string()),
        ("tokens", pa.int64()),
        ("ended", pa.bool_()),
        ("figures", pa.map_(pa.string(), pa.float64())),
    ]
)
LEFT_OUT = pa.schema(
    [
        ("fingerprint", pa.string()),
        ("stage", pa.string()),
        ("id", ID),
        ("reason", pa.string()),
        ("tokens", pa.int64()),
        ("room", pa.int64()),
    ]
)
SPIKES = pa.schema(
    [
        ("fingerprint", pa.string()),
        ("stage", pa.string()),
        ("run", pa.string()),
        ("spike", pa.int64()),
        ("step", pa.int64()),
        ("id", ID),
        ("uri", pa.string()),
        ("tokens", pa.int64()),
        ("loss", pa.float64()),
        ("rank", pa.int64()),
    ]
)
EVALUATIONS = pa.schema(
    [
        ("fingerprint", pa.string()),
        ("checkpoint", pa.string()),
        ("task", pa.string()),
        ("metric", pa.string()),
        ("value", pa.float64()),
        ("low", pa.float64()),
        ("high", pa.float64()),
        ("n", pa.int64()),
        ("seen", pa.float64()),  # the share of its items that documents hold which trained the checkpoint
        ("without", pa.float64()),  # the value without these
    ]
)
ANSWERS = pa.schema(
    [
        ("fingerprint", pa.string()),  # the checkpoint's, or its files' version where no stage made it
        ("checkpoint", pa.string()),
        ("task", pa.string()),
        ("item", pa.string()),
        ("seed", pa.int64()),
        ("shots", pa.int64()),
        ("reasons", pa.bool_()),
        ("prompt", pa.large_string()),
        ("answer", pa.large_string()),
        ("target", pa.large_string()),
        ("scores", pa.map_(pa.string(), pa.float64())),
        ("cut", pa.bool_()),
        ("documents", pa.list_(pa.string())),
    ]
)
CHECKPOINTS = pa.schema(
    [
        ("fingerprint", pa.string()),
        ("stage", pa.string()),
        ("path", pa.string()),
        ("corpus", pa.string()),
        ("record", pa.string()),
        ("ancestors", pa.list_(pa.string())),
        ("created", TIMESTAMP),
    ]
)


class StageRecord(BaseModel):
    """One finished stage: what went in, what shaped it, what came out."""

    stage: str
    version: str
    corpus: Name
    fingerprint: Digest
    state: str = Field(description="`done`, or `partial` when some shards could not be finished")
    payload: dict[str, Any]
    inputs: dict[str, list[TableRef | FolderRef]]
    outputs: dict[Name, TableRef | FolderRef]
    counts: dict[str, int]
    report: dict[str, Any] = Field(default_factory=dict, description="what the stage says of itself beyond counts")
    unfinished: dict[str, str] = Field(default_factory=dict, description="shards that failed, and why")
    note: str = Field("", description="what a person should know of it, in one line")
    records_in: int = 0
    records_out: int = 0
    started: datetime
    seconds: float
    git_commit: str | None = None
    git_dirty: bool | None = None
    versions: dict[str, str] = Field(default_factory=dict)
    run: str = ""
    flow_run: str | None = None
    task_run: str | None = None

    def reported(self, state: str, seconds: float) -> StageReport:
        """What a run says of the stage where it is or was built; `state` is the run's, unless shards are unfinished."""
        notes = [*self.report.get("warnings", ()), self.note]
        if self.state == "partial":
            state, count = "partial", len(self.unfinished)
            name, reason = next(iter(self.unfinished.items()))
            shards, these = ("1 shard", "this one") if count == 1 else (f"{count} shards", "these")
            notes.insert(0, f"{shards} unfinished ({name}: {reason}); run again to do just {these}")
        return StageReport(
            stage=self.stage,
            state=state,
            seconds=seconds,
            records_in=self.records_in,
            records_out=self.records_out,
            fingerprint=self.fingerprint,
            outputs=self.outputs,
            note="; ".join(filter(None, notes)),
        )


class StageReport(BaseModel):
    """What one run did about one stage; the `stages` of `headwater run --json`."""

    stage: str
    state: str
    seconds: float
    records_in: int | None = None
    records_out: int | None = None
    fingerprint: Digest | None = None
    outputs: dict[Name, TableRef | FolderRef] = Field(default_factory=dict)
    note: str = ""

    @property
    def asked_for(self) -> bool:
        """Whether the stage belongs to what was asked for: those after --until go without saying."""
        return self.state != "skipped" or not self.note.startswith("after --until")

    @property
    def line(self) -> str:
        """The stage in one line: its name, state, seconds, records in and out, and what there is to say."""
        return f"  {self.stage:<12} {self.state:<8} {self.seconds:>8.1f} s {self.rows}  {self.note}".rstrip()

    @property
    def rows(self) -> str:
        """Records in and out, where they are known."""
        return "" if self.records_in is None else f"{self.records_in:>12,} in {self.records_out or 0:>12,} out"


class Manifest(BaseModel):
    """One finished run: its recipe and the references it ended with."""

    run: Digest
    corpus: Name
    recipe: dict[str, Any]
    started: datetime
    finished: datetime
    flow_run: str | None = None
    until: str | None = Field(None, description="the last stage that was asked for; null: all of them")
    stages: list[StageReport]

    @model_validator(mode="before")
    @classmethod
    def _until_of_notes(cls, data: Any) -> Any:
        """Manifests from before `until` was written say it in the notes of skipped stages."""
        if not isinstance(data, dict) or "until" in data:
            return data
        stages = [stage for stage in data.get("stages") or () if isinstance(stage, dict)]
        notes = [str(stage.get("note", "")) for stage in stages if stage.get("state") == "skipped"]
        told = next((note for note in notes if note.startswith("after --until ")), "")
        return {**data, "until": told.removeprefix("after --until ") or None}

    @property
    def refs(self) -> dict[str, Ref]:
        """Every output of the run by its short name: `raw`, `clean`..."""
        return {name: ref for report in self.stages for name, ref in report.outputs.items()}


def now() -> datetime:
    """The present, in UTC."""
    return datetime.now(UTC)


def record_path(fingerprint: str) -> str:
    """Where a record lies, relative to the lake."""
    return f"records/{fingerprint}.json"


def read_record(lake: Lake, fingerprint: str) -> StageRecord | None:
    """The record of a fingerprint, or None when that has never been built (or a write was cut by a full disk)."""
    try:
        return StageRecord.model_validate_json((lake.root / record_path(fingerprint)).read_bytes())
    except (OSError, ValueError):
        return None


def lineage(lake: Lake, record: StageRecord) -> dict[str, StageRecord | None]:
    """A record and every stage it rests on by fingerprint, nearest first; None where a record is no longer there."""
    found: dict[str, StageRecord | None] = {record.fingerprint: record}
    queue = [record]
    while queue:
        for ref in [ref for refs in queue.pop(0).inputs.values() for ref in refs]:
            if ref.fingerprint not in found:
                parent = found[ref.fingerprint] = read_record(lake, ref.fingerprint)
                if parent is not None:
                    queue.append(parent)
    return found


def write_record(lake: Lake, record: StageRecord) -> None:
    """Write a record beside its outputs and as one row of `runs.stages`."""
    write_atomically(lake.root / record_path(record.fingerprint), record.model_dump_json(indent=1).encode())
    row = record.model_dump(include=set(STAGES.names) - {"payload", "inputs", "outputs", "counts", "versions"})
    body = record.model_dump(mode="json")
    for name in ("payload", "inputs", "outputs", "counts", "versions"):
        row[name] = json.dumps(body[name], sort_keys=True, ensure_ascii=False)
    lake.append_rows("runs.stages", STAGES, [row], record.fingerprint)


def write_manifest(lake: Lake, manifest: Manifest) -> None:
    """Write a run's manifest: from this moment on the run is a finished one."""
    body = manifest.model_dump_json(indent=1).encode()
    write_atomically(lake.root / "runs" / f"{manifest.run}.json", body, private=True)  # it says where all data lies


def manifests(lake: Lake) -> list[Manifest]:
    """All finished runs, oldest first."""
    found = filter(None, several(_manifest_in, (lake.root / "runs").glob("*.json"), lake.root))
    return sorted(found, key=lambda manifest: (manifest.finished, manifest.run))


def _manifest_in(path: Path) -> Manifest | None:
    """The manifest in a file; None, and a note, where it can't be read: cut by a full disk, say."""
    try:
        return Manifest.model_validate_json(path.read_bytes())
    except (OSError, ValueError) as error:
        note(f"the manifest {path} can't be read ({first_line(error)}): remove it, or run its recipe again")
        return None


def find_manifest(lake: Lake, run: str | None = None, corpus: str | None = None) -> Manifest:
    """The manifest of a run (or of the last one, of a corpus). Raises UserError when there is none."""
    found = [m for m in manifests(lake) if corpus is None or m.corpus == corpus]
    if run and run != "last":
        found = [m for m in found if m.run == run] or [m for m in found if m.run.startswith(run)]
        if len({m.run for m in found}) > 1:
            names = ", ".join(m.run for m in found[-10:])
            raise UserError(f"{run} is the beginning of {len(found)} runs: name one of {names}")
    if not found:
        known = ", ".join(m.run for m in manifests(lake)[-5:]) or "none yet"
        raise UserError(f"no finished run {run or ''} in {lake.root} (finished runs: {known})".replace("  ", " "))
    return found[-1]
