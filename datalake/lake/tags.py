"""Names that people give to checkpoints of a lake: `current`, `v3`. A name can move; the table keeps where it was."""

from __future__ import annotations

import re
from typing import Any

import pyarrow as pa

from datalake.errors import UserError
from datalake.lake.lake import Lake
from datalake.lake.parquet import read_table
from datalake.lake.records import StageRecord, now
from datalake.tables import TIMESTAMP

TAGS = pa.schema(
    [
        ("tag", pa.string()),
        ("fingerprint", pa.string()),
        ("stage", pa.string()),
        ("corpus", pa.string()),
        ("before", pa.string()),  # the fingerprint that the tag named before; null: none
        ("note", pa.string()),
        ("created", TIMESTAMP),
    ]
)
_NAME = re.compile(r"[a-z][a-z0-9._-]{0,63}")
_HEX = re.compile(r"[0-9a-f]+")  # what could be the beginning of a fingerprint


def tags(lake: Lake) -> dict[str, dict[str, Any]]:
    """The last row of `models.tags` for each tag, by its name."""
    rows = [row for path in lake.current_files("models.tags") for row in read_table(path).to_pylist()]
    return {row["tag"]: row for row in sorted(rows, key=lambda row: (row["created"], row["fingerprint"]))}


def check_name(name: str, taken: frozenset[str] | set[str] = frozenset()) -> None:
    """Raises UserError for a name that no tag may have: `taken` ones (stages), and those of fingerprints."""
    if not _NAME.fullmatch(name) or _HEX.fullmatch(name):
        raise UserError(
            f"{name!r} can't be a tag: use lower-case letters, digits, dots and dashes, not hex digits alone"
        )
    if name in taken:
        raise UserError(f"{name!r} can't be a tag: it is a stage, or means one; choose another name")


def tag(
    lake: Lake, name: str, record: StageRecord, note: str = "", move: bool = False, taken: frozenset[str] = frozenset()
) -> dict[str, Any]:
    """Give a checkpoint a name; returns the row of `models.tags`.

    Raises:
        UserError: where another checkpoint has the name and it isn't to `move`, or no tag may have it.
    """
    check_name(name, taken)
    there = tags(lake).get(name)
    if there and there["fingerprint"] == record.fingerprint:
        return there
    if there and not move:
        raise UserError(
            f"{name} is a tag already, of {there['stage']} {there['fingerprint'][:16]}: choose another, or --move"
        )
    row = {
        "tag": name,
        "fingerprint": record.fingerprint,
        "stage": record.stage,
        "corpus": record.corpus,
        "before": there["fingerprint"] if there else None,
        "note": note,
        "created": now(),
    }
    lake.append_rows("models.tags", TAGS, [row], record.fingerprint)
    return row
