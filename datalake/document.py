"""What a corpus is made of: the records that sources yield and the schemas of the tables they become.

A *record* is one thing a source offers: a WARC `response`, `resource` or `conversion` record, a `<page>`, a code
file, a row. Reading turns each record into exactly one `Entry`: a `Document`, `Conversation` or
`Preference` (it becomes raw), a `Refused` (read, but not taken) or a `Quarantined` (could not be read). Hence, always:

    records in = raw + refused + quarantined
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa
import xxhash

ID = pa.binary(16)
TIMESTAMP = pa.timestamp("us", tz="UTC")
ATTRIBUTES = pa.map_(pa.string(), pa.string())
MESSAGES = pa.list_(pa.struct([("role", pa.string()), ("content", pa.string())]))


def document_id(source: str, archive: str, locator: str) -> bytes:
    """The 16-byte identity of a record: xxh3_128 of source kind, archive name relative to its root, and locator.

    The locator is what finds the record in its archive: the WARC offset, `page/revision`, `path@blob`, a row's id.
    """
    return xxhash.xxh3_128_digest("\x1f".join((source, archive, locator)).encode("utf-8", "surrogatepass"))


@dataclass(slots=True)
class Document:
    """One text with its provenance. `attributes` values are strings; `attributes["group"]` is the unit of hold-out."""

    id: bytes
    text: str
    source: str
    uri: str
    language: str = "und"
    language_score: float = 0.0
    licence: str | None = None
    created: datetime | None = None
    archive: str = ""
    offset: int = 0
    length: int = 0
    attributes: dict[str, str] = field(default_factory=dict)


@dataclass(slots=True)
class Conversation:
    """One dialogue: messages of role `system`, `user`, `assistant` (or `tool`), ending with the assistant."""

    id: bytes
    source: str
    uri: str
    messages: list[dict[str, str]]
    language: str = "und"
    licence: str | None = None
    archive: str = ""
    offset: int = 0
    attributes: dict[str, str] = field(default_factory=dict)


@dataclass(slots=True)
class Preference:
    """A prompt (messages ending with the user's) and two answers to it, the first preferred.

    One of them is None where an answer was judged by itself: a good one has no rejected, a bad one no chosen.
    """

    id: bytes
    source: str
    uri: str
    prompt: list[dict[str, str]]
    chosen: str | None
    rejected: str | None
    language: str = "und"
    licence: str | None = None
    archive: str = ""
    offset: int = 0
    attributes: dict[str, str] = field(default_factory=dict)


@dataclass(slots=True)
class Refused:
    """A record that was read and not taken. `reason` is one word: status, media_type, redirect, namespace, empty..."""

    id: bytes
    source: str
    uri: str
    reason: str
    detail: str = ""
    language: str = "und"
    archive: str = ""
    offset: int = 0
    length: int = 0


@dataclass(slots=True)
class Quarantined:
    """A record or span of bytes that could not be read. `offset` and `length` are bytes in the archive, -1 unknown."""

    source: str
    archive: str
    reason: str
    detail: str = ""
    offset: int = -1
    length: int = -1


@dataclass(slots=True)
class Passed:
    """Something in the archive that is no record (a WARC `request`, a `<siteinfo>`): counted by its type, not kept."""

    type: str


Entry = Document | Conversation | Preference | Refused | Quarantined | Passed

_PROVENANCE = [
    ("licence", pa.string()),
    ("created", TIMESTAMP),
    ("archive", pa.string()),
    ("offset", pa.int64()),
    ("length", pa.int64()),
    ("attributes", ATTRIBUTES),
]

RAW = pa.schema(
    [
        ("id", ID),
        ("text", pa.large_string()),
        ("source", pa.string()),
        ("uri", pa.string()),
        ("language", pa.string()),
        ("language_score", pa.float32()),
        *_PROVENANCE,
    ]
)
DOCUMENTS = RAW

REFUSED = pa.schema(
    [
        ("id", ID),
        ("source", pa.string()),
        ("uri", pa.string()),
        ("reason", pa.string()),
        ("detail", pa.string()),
        ("language", pa.string()),
        ("archive", pa.string()),
        ("offset", pa.int64()),
        ("length", pa.int64()),
    ]
)
QUARANTINE = pa.schema(
    [
        ("source", pa.string()),
        ("archive", pa.string()),
        ("reason", pa.string()),
        ("detail", pa.string()),
        ("offset", pa.int64()),
        ("length", pa.int64()),
    ]
)
CONVERSATIONS = pa.schema(
    [
        ("id", ID),
        ("source", pa.string()),
        ("uri", pa.string()),
        ("messages", MESSAGES),
        ("language", pa.string()),
        ("licence", pa.string()),
        ("archive", pa.string()),
        ("offset", pa.int64()),
        ("attributes", ATTRIBUTES),
    ]
)
PREFERENCES = pa.schema(
    [
        ("id", ID),
        ("source", pa.string()),
        ("uri", pa.string()),
        ("prompt", MESSAGES),
        ("chosen", pa.large_string()),
        ("rejected", pa.large_string()),
        ("language", pa.string()),
        ("licence", pa.string()),
        ("archive", pa.string()),
        ("offset", pa.int64()),
        ("attributes", ATTRIBUTES),
    ]
)

# The table each kind of entry goes to; `Passed` goes to none.
TABLES: dict[type, tuple[str, pa.Schema]] = {
    Document: ("raw", RAW),
    Conversation: ("conversations", CONVERSATIONS),
    Preference: ("preferences", PREFERENCES),
    Refused: ("refused", REFUSED),
    Quarantined: ("quarantine", QUARANTINE),
}


def utc(time: datetime) -> datetime | None:
    """A time in UTC, which one without a zone is in already; None where that leaves the years 1 to 9999."""
    try:
        return time.replace(tzinfo=UTC) if time.tzinfo is None else time.astimezone(UTC)
    except (ValueError, OverflowError):
        return None


def moment(text: str) -> datetime | None:
    """The time that a text says in ISO 8601, in UTC; None where it says none."""
    try:
        return utc(datetime.fromisoformat(text.strip()))
    except ValueError:
        return None


def scrub(text: str) -> str:
    """The text with lone surrogates and NUL replaced, so that it always encodes as UTF-8."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        text = text.encode("utf-8", "replace").decode("utf-8")
    return text.replace("\x00", "\ufffd")


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
