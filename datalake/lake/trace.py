"""The ancestors of a model, and what one of its training steps saw: a walk over the records of stages."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from datalake import places
from datalake.errors import UserError
from datalake.lake.lake import FolderRef, Lake
from datalake.lake.ledger import connect
from datalake.lake.records import Manifest, StageRecord, find_manifest, lineage, manifests, read_record
from datalake.lake.tags import tags

Row = dict[str, Any]


def find_checkpoint(
    lake: Lake, name: str, training: Sequence[str], answering: Sequence[str], run: str | None = None
) -> StageRecord:
    """The record of a training stage by stage name (of the last run that has it, or of `run`), tag, folder, or
    fingerprint.

    `newest` is the model that was made last, of a run that hasn't finished too. `last` is the last model that
    answers (`ppo`, else `sft`...) of the last run that went on to the last training stage; where none did, of the
    last one that has any. `training` are the stages that make a model and `answering` those of them whose model
    writes, in the pipeline's order.

    Raises:
        UserError: when there is none, or the folder is not a checkpoint of this lake.
    """
    runs = [find_manifest(lake, run)] if run else list(reversed(manifests(lake)))
    those = f"run {runs[0].run} of {lake.root} has no" if run else f"no finished run in {lake.root} has a"
    if name == "last":
        for one in sorted(runs, key=lambda one: _cut_short(one, training)):  # in their order otherwise
            for stage in reversed(answering):
                if record := _record_of(lake, one, stage):
                    return record
        raise UserError(f"{those} model: run a recipe without --until")
    if name in training:
        for one in runs:
            if record := _record_of(lake, one, name):
                return record
        raise UserError(f"{those} model of stage {name}: run a recipe up to it")
    if name == "newest":
        if made := _newest(lake, answering):
            return made
        raise UserError(f"{lake.root} has no model: run a recipe")
    if (tagged := tags(lake).get(name)) is not None:
        if record := read_record(lake, tagged["fingerprint"]):
            return record
        raise UserError(f"the tag {name} names {tagged['fingerprint'][:16]}, whose record is gone: tag another")
    prints = [file.stem for file in (lake.root / "records").glob("*.json")]
    known = [found for found in prints if name and found.startswith(name)]
    if len(known) == 1 and (record := read_record(lake, known[0])):
        return record
    if len(known) > 1 and len(name) >= 4:
        raise UserError(f"{name} is the beginning of {len(known)} fingerprints: give more of it")
    # A user that there isn't stays as it is written, where Path.expanduser raises.
    place = places.place(name) if places.is_address(name) else Path(os.path.expanduser(name)).absolute()  # noqa: PTH111
    for found in prints:
        record = read_record(lake, found)
        if record and name and any(place in (path, path.parent) for path in _folders(lake, record)):
            return record
    raise UserError(
        f"{name} is not a checkpoint of {lake.root}: give a stage (ppo), a tag, a checkpoint's folder, or a fingerprint"
    )


def _newest(lake: Lake, stages: Sequence[str]) -> StageRecord | None:
    """The model of these stages that was made last."""
    records = [read_record(lake, file.stem) for file in (lake.root / "records").glob("*.json")]
    made = [one for one in records if one and one.stage in stages and any(map(lake.present, one.outputs.values()))]
    return max(made, key=lambda one: (one.started, one.fingerprint), default=None)


def _cut_short(run: Manifest, training: Sequence[str]) -> bool:
    """Whether a run was ended before the last training stage that its recipe has."""
    last = next((stage for stage in reversed(training) if run.recipe.get(stage) is not None), training[-1])
    return run.until is not None and not any(report.stage == last and report.outputs for report in run.stages)


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


def ancestors(lake: Lake, record: StageRecord) -> list[Row]:
    """A checkpoint's stage and every stage it rests on, nearest first, down to the archives and their contents."""
    return [_summary(one) for one in lineage(lake, record).values() if one]


def _summary(record: StageRecord) -> Row:
    body = record.model_dump(mode="json", exclude={"payload", "report"})
    body["config"] = record.payload["config"]
    body["outputs"] = [ref.model_dump(mode="json") for ref in record.outputs.values()]
    body["archives"] = record.payload["inputs"].get("archives", [])
    return body


def with_addresses(lake: Lake, record: StageRecord, seen: Sequence[Row], tables: Sequence[str]) -> list[Row]:
    """The rows that a training step saw, each with `uri`, `source` and `language` of its `id` in one of these tables
    before them.

    None where they have no such row any more.
    """
    # The run that used it may have another corpus than the one that built it: equal sources share their stages.
    manifest = find_manifest_of(lake, record)
    ids = sorted({row["id"] for row in seen})
    opened = connect(lake, manifest.run)
    found = []
    for table in tables:
        sql = f'SELECT id, uri, source, language FROM "{manifest.corpus}"."{table}" WHERE id IN (SELECT unnest(?))'
        found += opened.execute(sql, [ids]).fetchall()
    known = {id: columns for id, *columns in found}
    names = ("uri", "source", "language")
    return [dict(zip(names, known.get(row["id"], [None] * 3), strict=True)) | row for row in seen]
