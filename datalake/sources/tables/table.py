"""Rows with a text: JSON Lines and JSON arrays, Parquet, CSV, and plain text files; also compressed, in zip and in tar.

A record is a row, or a text file (or a line or block of one: `text_unit`). Which columns are id, text, address,
language, licence and time is configured (`columns`) or known by the corpus's name (`format`, see `mappings`); the rest
of a row's plain values is kept in its attributes. A file inside an archive is called `archive/member`. Folders called
`column=value` below what `paths` names are columns of the rows in them, as Hive and Spark partition tables.

Memory: one row of at most 8 times `max_bytes` (at least 1 MiB); see `rows`, `csv_rows` and `parquet` for their factors.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from typing import Any
from urllib.parse import urlsplit

from datalake.archive import Archive
from datalake.document import Document, Entry, Quarantined, Refused
from datalake.formats.rows.files import RowFile, Shape, form, row_files
from datalake.formats.rows.json import Chunks, Locators, Row, split_lines
from datalake.formats.streams import peek
from datalake.origin import Origin, Stretch
from datalake.paths import expand
from datalake.sources.tables import mappings
from datalake.sources.tables.config import Columns, Table
from datalake.sources.tables.mappings import MAPPINGS, Mapping, at
from datalake.text.charsets import decoded

__all__ = ["archives", "form", "read"]


def archives(config: Table) -> list[Archive]:
    """One a file."""
    return [Archive(config.kind, name, path) for name, path in expand(config.paths)]


def read(archive: Archive, config: Table) -> Iterator[Entry]:
    """One entry a row: a document, refused (empty, too_large, column, link), or quarantined where it is malformed."""
    longest = max(1 << 20, 8 * config.max_bytes)
    whole = config.origin(archive)
    for file in whole.framed(row_files(archive.path, whole)):
        if not isinstance(file, RowFile):
            yield file
            continue
        if file.form == "text":
            rows = file.partitioned(_texts(file, config, longest))
        else:
            shape = Shape(partial(_is_row, config=config), lambda names: _is_row(dict.fromkeys(names, "x"), config))
            rows = file.rows(longest, config.delimiter, config.header, shape)
        make = partial(_document, locators=Locators(), file=file, config=config)
        yield from file.origin.entries(rows, make)


@dataclass(frozen=True, slots=True)
class _Plan:
    """How the rows of one format are read: its mapping, the user's own columns over it, and what attributes leave."""

    corpus: str
    mapping: Mapping
    taken: frozenset[str]

    @property
    def columns_of_text(self) -> set[str]:
        """The columns that the text may be made of."""
        return {part.partition(".")[0] for part in (self.mapping.text, *self.mapping.text.replace("+", "|").split("|"))}


@lru_cache(maxsize=64)
def _plan(format: str, columns: Columns) -> _Plan:
    if format in MAPPINGS:
        corpus, mapping = format, replace(MAPPINGS[format], **columns.model_dump(exclude_unset=True))
    else:
        corpus, mapping = "", Mapping(**columns.model_dump())
    paths = (mapping.id, mapping.text, mapping.uri, mapping.language, mapping.licence, mapping.created)
    taken = {part for path in paths for part in (path, *path.replace("+", "|").split("|"))}
    return _Plan(corpus, mapping, frozenset(taken))


def _is_row(value: dict[str, Any], config: Table) -> bool:
    """Whether an object has a column of text, if with nothing in it."""
    format = (mappings.recognise(value) or "columns") if config.format == "auto" else config.format
    path = _plan(format, config.columns).mapping.text
    found = at(value, path)
    return mappings.as_text(found) is not None or (mappings.has(value, path) and not isinstance(found, dict))


def _document(row: Row, locators: Locators, file: RowFile, config: Table) -> Document | Refused | Quarantined:
    origin = file.origin
    if not isinstance(row.value, dict):
        return origin.quarantined(row, "row", f"row {row.number} is a {type(row.value).__name__}, not an object")
    value: dict[str, Any] = row.value
    format = (mappings.recognise(value) or "columns") if config.format == "auto" else config.format
    plan = _plan(format, config.columns)
    mapping = plan.mapping
    locator = locators.of(at(value, mapping.id), row.number)
    own = at(value, mapping.uri)
    uri = own if isinstance(own, str) and own else origin.uri(locator)
    refused = partial(origin.refused, row, locator, uri=uri)
    found = at(value, mapping.text)
    text = mappings.as_text(found)
    if isinstance(found, bytes):  # a column that its writer marked as no text
        told = decoded(found)
        if told is None:
            return origin.quarantined(row, "encoding", "bytes that are no text")
        text = told[0]
    if damage := row.damage(origin, [text or ""], plan.columns_of_text):
        return damage
    if found is None and plan.corpus == "openwebtext" and uri == own:
        return refused("link", "an address without its text")
    if found is None and mappings.has(value, mapping.text):
        return refused("empty")
    if text is None:
        return refused("column", f"no text in column {mapping.text!r}")
    if not text.strip():
        return refused("empty")
    if len(text.encode("utf-8", "replace")) > config.max_bytes:
        return refused("too_large", f"{len(text)} characters")
    attributes = mappings.attributes_of(value, plan.taken)
    language = _language(value, mapping, attributes)
    licence = _licence(value, mapping, attributes, config)
    attributes |= {key: plain for key, path in mapping.attributes.items() if (plain := mappings.plain(at(value, path)))}
    if row.lost:
        attributes["lost"] = ", ".join(row.lost)
    if file.charset:
        attributes["charset"] = file.charset
    if plan.corpus:
        attributes["corpus"] = plan.corpus
    attributes.setdefault("group", (uri == own and _host(uri)) or origin.uri(locator))
    created = mappings.time_of(at(value, mapping.created))
    return origin.document(row, locator, text, attributes, uri=uri, language=language, licence=licence, created=created)


def _language(value: dict[str, Any], mapping: Mapping, attributes: dict[str, str]) -> tuple[str, float] | None:
    """The language that the row names. A name that is no code stays in the attributes."""
    named = at(value, mapping.language)
    if isinstance(named, str) and named.strip():
        if code := mappings.language_code(named[:100]):
            score = at(value, mapping.language_score)
            plain = isinstance(score, int | float) and not isinstance(score, bool) and 0 <= score <= 1
            return code, float(score) if plain else 1.0
        attributes["language_named"] = named[:100]
    return None


def _licence(value: dict[str, Any], mapping: Mapping, attributes: dict[str, str], config: Table) -> str | None:
    """The licence that the row names, else the configured one, else the collection's, which is marked as such.

    One that can't be told in SPDX stays in the attributes, and nothing takes its place.
    """
    if named := mappings.plain(at(value, mapping.licence)):
        licence = mappings.spdx(at(value, mapping.licence))
        if licence is None:
            attributes["licence_named"] = named
        return licence
    if config.licence is None and mapping.of_collection:
        attributes["licence_of"] = "collection"
    return config.licence or mapping.of_collection


def _host(uri: str) -> str:
    """The host of a web address, by which pages of all sources are held out together; "" where it has none."""
    try:
        parts = urlsplit(uri)
        return (parts.hostname or "") if parts.scheme in ("http", "https") else ""
    except ValueError:
        return ""


def _texts(file: RowFile, config: Table, longest: int) -> Iterator[Row | Quarantined | Refused]:
    """The texts of a text file, each as a row: the file, or its lines, or its blocks that blank lines part."""
    origin = file.origin
    first, chunks = peek(file.chunks, 4096)
    if config.format == "openwebtext" and _is_link(first):
        column, unit = "url", "line"
    else:
        column, unit = _plan(config.format, config.columns).mapping.text, config.text_unit
    if unit == "file":
        yield _whole(chunks, column, origin, config)
        return
    pending: list[bytes] = []
    number = start = size = 0

    def row(end: int) -> Row | Quarantined:
        content = b"\n".join(pending)
        if size > longest:
            return origin.lost("too_large", f"a block of {size} bytes", start, end - start)
        try:
            return Row(number, start, end - start, {column: content.decode("utf-8").strip()})
        except UnicodeDecodeError as error:
            return origin.lost("encoding", str(error)[:200], start, end - start)

    end = 0
    for line in split_lines(chunks, origin, longest):
        blank = isinstance(line, Quarantined) or not line[1].strip()
        if pending and (blank or unit == "line"):
            yield row(end)
            number += 1
            pending, size = [], 0
        if isinstance(line, Quarantined):
            yield line
            number += line.reason in ("too_large", "truncated")
        elif not blank:
            start = start if pending else line[0]
            end = line[0] + len(line[1])
            size += len(line[1]) + 1
            pending.append(line[1] if size <= longest else b"")
    if pending:
        yield row(end)


def _is_link(head: bytes) -> bool:
    """Whether a text begins with a line that is a web address and nothing else."""
    line = head.lstrip().partition(b"\n")[0].strip()
    return line.startswith((b"http://", b"https://")) and b" " not in line


def _whole(chunks: Chunks, column: str, origin: Origin, config: Table) -> Row | Quarantined | Refused:
    """A text file as one row. No more of it than may be taken is held."""
    parts: list[bytes] = []
    size = 0
    for chunk in chunks:
        if isinstance(chunk, Quarantined):
            return chunk
        parts.append(chunk)
        size += len(chunk)
        if size > config.max_bytes:
            return origin.refused(Stretch(0, size), "0", "too_large", f"more than {config.max_bytes} bytes")
    try:
        text = b"".join(parts).decode("utf-8")
    except UnicodeDecodeError as error:
        return origin.lost("encoding", str(error)[:200], error.start, size - error.start)
    return Row(0, 0, size, {column: text})
