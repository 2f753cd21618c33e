"""What a corpus is made of: the records that sources yield. Imports nothing heavy; their tables are `datalake.tables`.

A *record* is one thing a source offers: a WARC `response`, `resource` or `conversion` record, a `<page>`, a code
file, a row. Reading turns each record into exactly one `Entry`: a `Document`, `Conversation` or
`Preference` (it becomes raw), a `Refused` (read, but not taken) or a `Quarantined` (could not be read). Hence, always:

    records in = raw + refused + quarantined
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Annotated

import xxhash

Text = Annotated[str, "long"]  # of which a table may hold more than 2 GiB together
Messages = list[dict[str, str]]


def document_id(source: str, archive: str, locator: str) -> bytes:
    """The 16-byte identity of a record: xxh3_128 of source kind, archive name relative to its root, and locator.

    The locator is what finds the record in its archive: the WARC offset, `page/revision`, `path@blob`, a row's id.
    """
    return xxhash.xxh3_128_digest("\x1f".join((source, archive, locator)).encode("utf-8", "surrogatepass"))


@dataclass(slots=True)
class Document:
    """One text with its provenance. `attributes` values are strings; `attributes["group"]` is the unit of hold-out."""

    id: bytes
    text: Text
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
    messages: Messages
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
    prompt: Messages
    chosen: Text | None
    rejected: Text | None
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
