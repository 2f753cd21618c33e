"""Rows with a text: JSON Lines and JSON arrays, Parquet, CSV, and plain text files (one document a file).

A record is a row. Which columns are id, text, address, language, licence and time is configured (`columns`); the rest
of a row's plain values is kept in its attributes. Text files and JSON may be compressed; their form is told by the
file's name, without the ending of the compression.
"""

from __future__ import annotations

import codecs
import csv
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import PurePosixPath
from typing import Any

from datalake.document import Document, Entry, Quarantined, Refused, document_id
from datalake.language import detect
from datalake.sources.config import Table
from datalake.sources.parquet import parquet_rows
from datalake.sources.protocol import InputShard, expand
from datalake.sources.rows import Locators, Row, json_rows
from datalake.sources.streams import as_utf8, decompressed

KIND = "table"
COMPRESSIONS = (".gz", ".bz2", ".xz", ".zst")
LONGEST_ATTRIBUTE = 1_000  # characters; longer values aren't metadata


def shards(config: Table) -> list[InputShard]:
    """One shard a file."""
    return [InputShard(KIND, name, path) for name, path in expand(config.paths)]


def form(name: str) -> str:
    """`parquet`, `csv`, `tsv`, `text` or `json`, by a file's name."""
    path = PurePosixPath(name.lower())
    while path.suffix in COMPRESSIONS:
        path = path.with_suffix("")
    known = {".parquet": "parquet", ".csv": "csv", ".tsv": "tsv", ".txt": "text", ".text": "text", ".md": "text"}
    return known.get(path.suffix, "json")


def read(shard: InputShard, config: Table) -> Iterator[Entry]:
    """One entry a row: a document, refused (empty, too_large, column), or quarantined where it is malformed."""
    style = form(shard.name)
    if style == "text":
        yield _whole(shard, config)
        return
    locators = Locators()
    if style == "parquet":
        rows = parquet_rows(shard.path, shard.name, config.label, max(1 << 20, 8 * config.max_bytes))
    elif style in ("csv", "tsv"):
        rows = _csv(shard, config, "\t" if style == "tsv" else ",")
    else:
        rows = json_rows(shard.path, shard.name, config.label, max(1 << 20, 8 * config.max_bytes))
    for row in rows:
        if isinstance(row, Quarantined):
            yield row
        elif not isinstance(row.value, dict):
            what = f"row {row.number} is a {type(row.value).__name__}, not an object"
            yield Quarantined(config.label, shard.name, "row", what, row.offset, row.length)
        else:
            yield _document(row, locators, shard, config)


def _document(row: Row, locators: Locators, shard: InputShard, config: Table) -> Document | Refused:
    columns, value = config.columns, row.value
    locator = locators.of(value.get(columns.id), row.number)
    identity = document_id(KIND, shard.name, locator)
    own = value.get(columns.uri)
    uri = own if isinstance(own, str) and own else f"{shard.name}#{locator}"

    def refused(reason: str, detail: str = "") -> Refused:
        where = {"archive": shard.name, "offset": row.offset, "length": row.length}
        return Refused(identity, config.label, uri, reason, detail, "und", **where)  # type: ignore[arg-type]

    text = value.get(columns.text)
    if columns.text not in value or not isinstance(text, str | None):
        return refused("column", f"no text in column {columns.text!r}")
    if text is None or not text.strip():
        return refused("empty")
    if len(text.encode("utf-8", "replace")) > config.max_bytes:
        return refused("too_large", f"{len(text)} characters")
    named = value.get(columns.language)
    language, score = (named, 1.0) if isinstance(named, str) and named else _detect(text, config)
    licence = value.get(columns.licence)
    taken = {columns.id, columns.text, columns.uri, columns.language, columns.licence, columns.created}
    attributes = {str(key): plain for key, item in value.items() if key not in taken and (plain := _plain(item))}
    attributes.setdefault("group", locator)
    return Document(
        id=identity,
        text=text,
        source=config.label,
        uri=uri,
        language=language,
        language_score=score,
        licence=licence if isinstance(licence, str) and licence else config.licence,
        created=_time(value.get(columns.created)),
        archive=shard.name,
        offset=row.offset,
        length=row.length,
        attributes=attributes,
    )


def _detect(text: str, config: Table) -> tuple[str, float]:
    how = config.language
    return detect(text, model=how.model, threshold=how.threshold, characters=how.characters)


def _plain(value: Any) -> str:
    """A value worth keeping as attribute, as text; "" for nested, long or missing ones."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str | int | float) and len(str(value)) <= LONGEST_ATTRIBUTE:
        return str(value)
    return ""


def _time(value: Any) -> datetime | None:
    """A time given as such or in ISO 8601; without a zone it is UTC."""
    try:
        time = value if isinstance(value, datetime) else datetime.fromisoformat(value)
    except (TypeError, ValueError):
        return None
    return time if time.tzinfo else time.replace(tzinfo=UTC)


def _whole(shard: InputShard, config: Table) -> Entry:
    """A text file as one document."""
    parts: list[bytes] = []
    size = 0
    for chunk in as_utf8(decompressed(shard.path, shard.name, config.label)):
        if isinstance(chunk, Quarantined):
            return chunk
        parts.append(chunk)
        size += len(chunk)
        if size > config.max_bytes:
            break
    identity = document_id(KIND, shard.name, "0")
    uri = f"{shard.name}#0"
    if size > config.max_bytes:
        detail = f"more than {config.max_bytes} bytes"
        return Refused(identity, config.label, uri, "too_large", detail, archive=shard.name, length=size)
    try:
        text = b"".join(parts).decode("utf-8")
    except UnicodeDecodeError as error:
        return Quarantined(config.label, shard.name, "encoding", str(error), error.start, size - error.start)
    return _document(Row(0, 0, size, {config.columns.text: text}), Locators(), shard, config)


def _csv(shard: InputShard, config: Table, delimiter: str) -> Iterator[Row | Quarantined]:
    """Rows of a CSV file (RFC 4180) by its header. Offset is the row's first line in the decompressed stream."""
    damage: list[Quarantined] = []
    places: list[int] = [0]  # where each line begins

    def text_lines() -> Iterator[str]:
        decoder = codecs.getincrementaldecoder("utf-8")("surrogateescape")
        rest = ""
        for chunk in as_utf8(decompressed(shard.path, shard.name, config.label)):
            if isinstance(chunk, Quarantined):
                damage.append(chunk)
                continue
            *whole, rest = (rest + decoder.decode(chunk)).split("\n")
            for line in whole:
                places.append(places[-1] + len(line.encode("utf-8", "surrogateescape")) + 1)
                yield line + "\n"
        if rest:
            places.append(places[-1] + len(rest.encode("utf-8", "surrogateescape")))
            yield rest

    csv.field_size_limit(min(sys.maxsize, 2**31 - 1, max(1 << 20, 8 * config.max_bytes)))
    reader = csv.reader(text_lines(), delimiter=delimiter, strict=True)
    header: list[str] | None = None
    number = 0
    while True:
        start = reader.line_num
        try:
            cells = next(reader)
        except StopIteration:
            break
        except csv.Error as error:
            yield Quarantined(config.label, shard.name, "csv", str(error), places[start], places[-1] - places[start])
            number += 1
            continue
        offset = places[start]
        length = places[reader.line_num] - offset
        if not cells:
            continue
        if header is None:
            header = cells
        elif len(cells) != len(header):
            problem = f"row {number} has {len(cells)} cells, the header {len(header)}"
            yield Quarantined(config.label, shard.name, "csv", problem, offset, length)
            number += 1
        elif any("\udc80" <= character <= "\udcff" for cell in cells for character in cell):
            yield Quarantined(config.label, shard.name, "encoding", f"row {number} isn't UTF-8", offset, length)
            number += 1
        else:
            yield Row(number, offset, length, dict(zip(header, cells, strict=True)))
            number += 1
    yield from damage
