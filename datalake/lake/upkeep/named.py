"""What the records, manifests and checkpoints of a lake name: the files that have to stay."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from datalake.errors import first_line
from datalake.lake.contents import Contents
from datalake.lake.lake import FolderRef, Lake, Ref, TableRef
from datalake.lake.parquet import read_table
from datalake.lake.records import Manifest, StageRecord

ANY = ""  # in place of a stage's name, where it isn't known


@dataclass
class Named:
    """What is named, as paths in the lake: `files` of tables and folders, the `lists` that say so, `folders`.

    `fingerprints` are their first 16 digits, as folders are called. `stages` are those that have a record. `snapshots`
    are those that a reference without a list rests on, by table; such a stage is `unclear`: what it names is not known.
    """

    files: set[str] = field(default_factory=set)
    lists: set[str] = field(default_factory=set)
    folders: set[str] = field(default_factory=set)
    fingerprints: set[str] = field(default_factory=set)
    stages: set[str] = field(default_factory=set)
    snapshots: dict[str, set[int]] = field(default_factory=dict)
    unclear: set[str] = field(default_factory=set)
    notes: list[str] = field(default_factory=list)


def named(lake: Lake) -> Named:
    """Read what is named. Where a record or manifest can't be read, every list of files counts as named."""
    found, refs, whole = Named(), dict[Ref, str](), True
    for path in [*(lake.root / "records").glob("*.json"), *(lake.root / "runs").glob("*.json")]:
        try:
            for ref, stage in _references(path, found):
                refs[ref] = refs.get(ref) or stage
        except (OSError, ValueError) as error:
            whole = False
            why = first_line(error)
            found.notes.append(f"{lake.relative(path)} can't be read ({why}): every list of files counts as named")
    for ref, stage in refs.items():
        _name(found, lake, ref, stage)
    if not whole:
        _name_all(found, lake)
    for file in lake.current_files("models.checkpoints"):  # also where their records are lost
        for row in read_table(file, ["fingerprint", "path"]).to_pylist():
            found.fingerprints.add(row["fingerprint"][:16])
            found.folders.add(row["path"])
    return found


def _references(path: Path, found: Named) -> Iterator[tuple[Ref, str]]:
    """The references of a record or a manifest, each with the stage that made it where that is known."""
    data = path.read_bytes()
    if path.parent.name == "records":
        record = StageRecord.model_validate_json(data)
        found.fingerprints.add(record.fingerprint[:16])
        found.stages.add(record.stage)
        yield from ((ref, record.stage) for ref in record.outputs.values())
        yield from ((ref, ANY) for refs in record.inputs.values() for ref in refs)
    else:
        for report in Manifest.model_validate_json(data).stages:
            if report.fingerprint:
                found.fingerprints.add(report.fingerprint[:16])
            yield from ((ref, report.stage) for ref in report.outputs.values())


def _name(found: Named, lake: Lake, ref: Ref, stage: str) -> None:
    """Name what a reference holds."""
    found.fingerprints.add(ref.fingerprint[:16])
    if isinstance(ref, FolderRef):
        found.folders.add(ref.path)
    held = lake.contents(ref)
    if held is not None:
        found.lists.add(lake.list_of(ref))
        found.files.update(entry.path for entry in held.files)
    elif isinstance(ref, TableRef) and ref.rows:  # of a lake from before there were lists, or its list is lost
        found.unclear.add(stage)
        if ref.snapshot is not None:
            found.snapshots.setdefault(ref.table, set()).add(ref.snapshot)


def _name_all(found: Named, lake: Lake) -> None:
    """Name what any list holds."""
    for path in (lake.root / "contents").glob("*/*.json"):
        found.lists.add(lake.relative(path))
        try:
            held = Contents.model_validate_json(path.read_bytes())
        except (OSError, ValueError):
            found.unclear.add(ANY)
            continue
        found.fingerprints.add(held.fingerprint[:16])
        found.files.update(entry.path for entry in held.files)
