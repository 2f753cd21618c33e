"""Rows that lie within one object, as programs write a whole table that way.

Under a key (`{"data": [...]}`, or splits: `{"train": [...], "test": [...]}`), by their ids (`{"a1": {...}}`), and as
pandas writes them: by columns (`{"text": {"0": ...}}`), or names and cells apart (`{"columns": [...], "data":
[[...]]}`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from typing import Any

from datalake.formats.rows.json import Row

KEYS = frozenset(
    ("data", "items", "rows", "examples", "records", "samples", "entries", "dialogues", "train", "training", "test",
     "validation", "valid", "val", "dev", "eval")
)  # fmt: skip
_LOOKED_AT = 16  # rows, of which one has to be one


def rows_within(row: Row, is_row: Callable[[dict[str, Any]], bool], keys: frozenset[str] | None = None) -> list[Row]:
    """The rows in an object that is none itself, at its place, numbered anew; [] where it holds none.

    Lists of them stand under these `keys` alone (None: under any), where rows have lists of objects themselves.

    What stands beside them, such as a version, is a column of each; where they have one of that name, they are no rows.
    What is no object in a list of rows is one that its reader quarantines.
    """
    if not isinstance(row.value, dict) or is_row(row.value):
        return []
    for shape in (_apart, _by_columns, _by_ids, partial(_under_keys, keys=keys)):
        found, beside = shape(row.value)
        looked_at = [value for value in found[:_LOOKED_AT] if isinstance(value, dict)]
        # By themselves: with what stands beside them, the turns of a dialogue would be rows.
        if any(map(is_row, looked_at)) and all(beside.keys().isdisjoint(value) for value in looked_at):
            return [
                replace(row, number=row.number + number, value=beside | value if isinstance(value, dict) else value)
                for number, value in enumerate(found)
            ]
    return []


_Found = tuple[list[Any], dict[str, Any]]  # rows, and what stands beside them


def _apart(value: dict[str, Any]) -> _Found:
    names, cells = value.get("columns"), value.get("data")
    if not (isinstance(names, list) and isinstance(cells, list) and all(isinstance(name, str) for name in names)):
        return [], {}
    beside = {name: other for name, other in value.items() if name not in ("columns", "data", "index")}
    return [
        dict(zip(names, each, strict=True)) if isinstance(each, list) and len(each) == len(names) else each
        for each in cells
    ], beside


def _by_columns(value: dict[str, Any]) -> _Found:
    columns = list(value.values())
    if not columns or not all(isinstance(column, dict) and column.keys() == columns[0].keys() for column in columns):
        return [], {}
    return [{name: column[key] for name, column in value.items()} for key in columns[0]], {}


def _by_ids(value: dict[str, Any]) -> _Found:
    if not all(isinstance(inner, dict) for inner in value.values()):
        return [], {}
    return [inner if "id" in inner else {"id": key, **inner} for key, inner in value.items()], {}


def _under_keys(value: dict[str, Any], keys: frozenset[str] | None) -> _Found:
    lists = {
        name: inner for name, inner in value.items() if _of_objects(inner) and (keys is None or name.lower() in keys)
    }
    beside = {name: inner for name, inner in value.items() if name not in lists}
    return [item for inner in lists.values() for item in _taken(inner)], beside


def _of_objects(value: Any) -> bool:
    return isinstance(value, list) and any(isinstance(item, dict) for item in value[:_LOOKED_AT])


def _taken(items: list[Any]) -> Iterator[Any]:
    """The items; the viewer of the Hugging Face hub has each row in one with its number."""
    for item in items:
        yield item["row"] if isinstance(item, dict) and {"row_idx", "row"} <= item.keys() else item
