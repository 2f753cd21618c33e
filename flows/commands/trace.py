"""`headwater trace`: the ancestors of a model, and what one of its training steps saw."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from datalake.errors import UserError
from datalake.lake.lake import FolderRef, Lake
from datalake.lake.ledger import connect
from datalake.lake.records import Manifest, StageRecord, find_manifest, lineage, manifests, read_record
from flows.output import as_json, as_table, line
from flows.stages import ANSWERING, STAGES, TRAINING

_ARCHIVES_SHOWN = 20


def find_checkpoint(lake: Lake, name: str) -> StageRecord:
    """The record of a training stage by stage name (of the last run that has it), folder, or fingerprint.

    `last` is the last model that answers (`ppo`, else `sft`...) of the last run that went on to the last training
    stage; where none did, of the last one that has any.

    Raises:
        UserError: when there is none, or the folder is not a checkpoint of this lake.
    """
    if name == "last":
        runs = list(reversed(manifests(lake)))
        for run in sorted(runs, key=_cut_short):  # in their order otherwise
            for stage in reversed(ANSWERING):
                if record := _record_of(lake, run, stage):
                    return record
        raise UserError(f"no finished run in {lake.root} has a model: run a recipe without --until")
    if name in TRAINING:
        for run in reversed(manifests(lake)):
            if record := _record_of(lake, run, name):
                return record
        raise UserError(f"no finished run in {lake.root} has a model of stage {name}: run a recipe up to it")
    prints = [file.stem for file in (lake.root / "records").glob("*.json")]
    known = [found for found in prints if name and found.startswith(name)]
    if len(known) == 1 and (record := read_record(lake, known[0])):
        return record
    if len(known) > 1 and len(name) >= 4:
        raise UserError(f"{name} is the beginning of {len(known)} fingerprints: give more of it")
    # A user that there isn't stays as it is written, where Path.expanduser raises.
    place = Path(os.path.expanduser(name)).absolute() if name else None  # noqa: PTH111
    for found in prints:
        record = read_record(lake, found)
        if record and place and any(place in (path, path.parent) for path in _folders(lake, record)):
            return record
    raise UserError(
        f"{name} is not a checkpoint of {lake.root}: give a stage (ppo), a checkpoint's folder, or a fingerprint"
    )


def _cut_short(run: Manifest) -> bool:
    """Whether a run was ended before its last training stage."""
    return run.until in STAGES and STAGES.index(run.until) < STAGES.index(TRAINING[-1])


def _record_of(lake: Lake, run: Manifest, stage: str) -> StageRecord | None:
    prints = [report.fingerprint for report in run.stages if report.stage == stage and report.outputs]
    return read_record(lake, prints[0]) if prints and prints[0] else None


def _folders(lake: Lake, record: StageRecord) -> list[Path]:
    return [lake.path(ref) for ref in record.outputs.values() if isinstance(ref, FolderRef)]


def find_manifest_of(lake: Lake, record: StageRecord) -> Manifest:
    """The last finished run that used a record."""
    for manifest in reversed(manifests(lake)):
        if any(report.fingerprint == record.fingerprint for report in manifest.stages):
            return manifest
    return find_manifest(lake, corpus=record.corpus)


def trace_checkpoint(checkpoint: str, step: int | None, lake_folder: Path, json: bool) -> int:
    """Print a model's ancestors, nearest first, or what one training step saw."""
    lake = Lake(lake_folder).require()
    record = find_checkpoint(lake, checkpoint)
    if step is not None:
        return _trace_step(lake, record, step, json)
    ancestors = [_summary(one) for one in lineage(lake, record).values() if one]
    if json:
        as_json(ancestors)
        return 0
    as_table(
        ["stage", "fingerprint", "records in", "records out", "seconds", "commit", "made"],
        [
            [
                one["stage"],
                one["fingerprint"][:16],
                one["records_in"],
                one["records_out"],
                one["seconds"],
                (one["git_commit"] or "")[:12] + ("+" if one["git_dirty"] else ""),
                ", ".join(ref.get("table") or ref.get("name", "") for ref in one["outputs"]),
            ]
            for one in ancestors
        ],
    )
    archives: list[dict[str, Any]] = next((one["archives"] for one in ancestors if one["archives"]), [])
    line(f"\n{len(archives)} archives at the source:")
    for archive in archives[:_ARCHIVES_SHOWN]:
        line(f"  {archive['kind']}  {archive['name']}  {archive['version'][:16]}")
    if len(archives) > _ARCHIVES_SHOWN:
        line(f"  ... and {len(archives) - _ARCHIVES_SHOWN} more (--json shows all)")
    return 0


def _summary(record: StageRecord) -> dict[str, Any]:
    body = record.model_dump(mode="json", exclude={"payload", "report"})
    body["config"] = record.payload["config"]
    body["outputs"] = [ref.model_dump(mode="json") for ref in record.outputs.values()]
    body["archives"] = record.payload["inputs"].get("archives", [])
    return body


def _trace_step(lake: Lake, record: StageRecord, step: int, json: bool) -> int:
    """Print what a step of a training stage saw: documents, dialogues, pairs, or the dialogues of its prompts."""
    from tasks.order import TABLES, rows_of_step

    seen = rows_of_step(lake, record, step)
    # The run that used it may have another corpus than the one that built it: equal sources share their stages.
    manifest = find_manifest_of(lake, record)
    table = f'"{manifest.corpus}"."{TABLES[record.stage]}"'
    known = {
        row[0]: row[1:]
        for row in connect(lake, manifest.run)
        .execute(
            f"SELECT id, uri, source, language FROM {table} WHERE id IN (SELECT unnest(?))",
            [sorted({row["id"] for row in seen})],
        )
        .fetchall()
    }
    rows = [
        dict(zip(("uri", "source", "language"), known.get(row["id"], (None, None, None)), strict=True)) | row
        for row in seen
    ]
    if json:
        as_json(rows)
    else:
        as_table(list(rows[0]), [list(row.values()) for row in rows])
    return 0
