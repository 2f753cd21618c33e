"""The tables that records become: a column for each field of their dataclasses, in the same order."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import fields
from datetime import datetime
from types import NoneType
from typing import Any, get_args, get_type_hints

import pyarrow as pa

from datalake.document import Conversation, Document, Messages, Preference, Quarantined, Refused, Text, scrub

ID = pa.binary(16)
TIMESTAMP = pa.timestamp("us", tz="UTC")
ATTRIBUTES = pa.map_(pa.string(), pa.string())
MESSAGES = pa.list_(pa.struct([("role", pa.string()), ("content", pa.string())]))
_TYPES = (
    (bytes, ID),
    (str, pa.string()),
    (Text, pa.large_string()),
    (int, pa.int64()),
    (float, pa.float32()),
    (datetime, TIMESTAMP),
    (dict[str, str], ATTRIBUTES),
    (Messages, MESSAGES),
)


def schema_of(kind: type) -> pa.Schema:
    """The columns of a dataclass of records; a field that may be None has its other type."""
    hints = get_type_hints(kind, include_extras=True)
    return pa.schema([(field.name, _type_of(hints[field.name])) for field in fields(kind)])


def _type_of(hint: Any) -> pa.DataType:
    found = [column for known, column in _TYPES if hint == known]
    if found:
        return found[0]
    (other,) = (one for one in get_args(hint) if one is not NoneType)
    return _type_of(other)


RAW = DOCUMENTS = schema_of(Document)
REFUSED = schema_of(Refused)
QUARANTINE = schema_of(Quarantined)
CONVERSATIONS = schema_of(Conversation)
PREFERENCES = schema_of(Preference)

# The table each kind of entry goes to; `Passed` goes to none.
TABLES: dict[type, tuple[str, pa.Schema]] = {
    Document: ("raw", RAW),
    Conversation: ("conversations", CONVERSATIONS),
    Preference: ("preferences", PREFERENCES),
    Refused: ("refused", REFUSED),
    Quarantined: ("quarantine", QUARANTINE),
}


def to_table(entries: Iterable[Any], schema: pa.Schema) -> pa.Table:
    """Entries of one kind as an Arrow table. Maps are sorted and strings scrubbed: equal entries, equal bytes.

    Of keys that scrubbing makes equal the last in their order stays. An integer beyond 64 bits is -1, unknown.
    """
    entries = list(entries)
    columns = []
    for column in schema:
        values = [getattr(entry, column.name) for entry in entries]
        if column.type == ATTRIBUTES:
            values = [sorted({scrub(k): scrub(v) for k, v in sorted(value.items())}.items()) for value in values]
        elif column.type == MESSAGES:
            values = [[{k: scrub(v) for k, v in message.items()} for message in value] for value in values]
        elif column.type == pa.int64():
            values = [value if -1 <= value < 1 << 63 else -1 for value in values]
        elif pa.types.is_string(column.type) or pa.types.is_large_string(column.type):
            values = [None if value is None else scrub(value) for value in values]
        columns.append(pa.array(values, column.type))
    return pa.Table.from_arrays(columns, schema=schema)


def storable(entries: list[Any], schema: pa.Schema) -> tuple[list[Any], pa.Table, list[Quarantined]]:
    """Of entries of one kind those that a table can hold, that table, and for each of the others a `Quarantined`."""
    try:
        return entries, to_table(entries, schema), []
    except Exception:  # which of them, is found by trying each
        kept, lost = [], []
    for entry in entries:
        try:
            to_table([entry], schema)
            kept.append(entry)
        except Exception as error:
            detail = f"can't be stored: {type(error).__name__}: {' '.join(str(error).split())}"[:200]
            where = [value if isinstance(value, int) else -1 for value in (entry.offset, getattr(entry, "length", -1))]
            lost.append(Quarantined(str(entry.source), str(entry.archive), "unexpected", detail, *where))
    return kept, to_table(kept, schema), lost
