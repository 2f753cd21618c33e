"""Rows of JSON files: JSON Lines, one JSON array, or one object; compressed or not, damaged or not.

Every row or span that can't be read is one `Quarantined` with its offset in the decompressed stream.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import xxhash

from datalake.document import Quarantined
from datalake.sources.streams import as_utf8, decompressed

LONGEST = 1 << 26  # bytes of a row, unless the caller knows better
MAX_WHOLE = 1 << 30  # bytes of a JSON array, which has to be held at once
_SPACE = b" \t\r\n"


@dataclass(slots=True)
class Row:
    """One row: its number from 0, its place in the decompressed stream, and its value."""

    number: int
    offset: int
    length: int
    value: Any


def lines(path: str, archive: str, source: str, longest: int) -> Iterator[tuple[int, bytes] | Quarantined]:
    """(offset, line) of each line with something in it; lines beyond `longest` bytes are quarantined."""
    buffer = b""
    base = 0
    for chunk in as_utf8(decompressed(path, archive, source)):
        if isinstance(chunk, Quarantined):
            if buffer.strip():
                yield Quarantined(source, archive, "truncated", "a row breaks off at damage", base, len(buffer))
            base, buffer = base + len(buffer), b""
            yield chunk
            continue
        buffer += chunk
        *whole, buffer = buffer.split(b"\n")
        for line in whole:
            if len(line) > longest:
                yield Quarantined(source, archive, "too_large", f"a row of {len(line)} bytes", base, len(line))
            elif line.strip():
                yield base, line
            base += len(line) + 1
        if len(buffer) > 16 * longest:  # no end of line in sight: give the span up rather than hold it
            yield Quarantined(source, archive, "too_large", "a row without an end", base, len(buffer))
            base, buffer = base + len(buffer), b""
    if len(buffer) > longest:
        yield Quarantined(source, archive, "too_large", f"a row of {len(buffer)} bytes", base, len(buffer))
    elif buffer.strip():
        yield base, buffer


def json_rows(path: str, archive: str, source: str, longest: int = 1 << 26) -> Iterator[Row | Quarantined]:
    """All rows of a JSON file in order. First character and line tell its form."""
    first = b""
    for chunk in as_utf8(decompressed(path, archive, source)):
        if isinstance(chunk, Quarantined):
            break
        first = (first + chunk).lstrip(_SPACE)
        if len(first) > 1:
            break
    if first[:1] == b"[" and not _is_line(first):
        yield from _array(path, archive, source)
        return
    number = 0
    for line in lines(path, archive, source, longest):
        if isinstance(line, Quarantined):
            yield line
            continue
        offset, content = line
        value, problem = _load(content)
        if problem and number == 0 and content.strip() in (b"{", b"["):
            yield from _array(path, archive, source)
            return
        number += 1
        if problem:
            yield Quarantined(source, archive, "json", problem, offset, len(content))
        else:
            yield Row(number - 1, offset, len(content), value)


def _is_line(first: bytes) -> bool:
    """Whether the first line alone is a JSON array of plain values (a row), with more lines behind it."""
    line, end, rest = first.partition(b"\n")
    value, problem = _load(line)
    return bool(end and rest.strip() and not problem and not any(isinstance(item, dict) for item in value))


def _load(content: bytes) -> tuple[Any, str]:
    """(value, "") or (None, what is wrong)."""
    try:
        return json.loads(content), ""
    except (ValueError, RecursionError) as error:
        return None, str(error)[:200]


def _array(path: str, archive: str, source: str) -> Iterator[Row | Quarantined]:
    """The elements of one JSON array, or one object; what follows a malformed element can't be told apart any more."""
    parts: list[bytes] = []
    size = 0
    damage: list[Quarantined] = []
    for chunk in as_utf8(decompressed(path, archive, source)):
        if isinstance(chunk, Quarantined):
            damage.append(chunk)
            break  # behind damage there is no telling where an element begins
        parts.append(chunk)
        size += len(chunk)
        if size > MAX_WHOLE:
            yield Quarantined(source, archive, "too_large", f"a JSON array of more than {MAX_WHOLE} bytes", 0, -1)
            return
    text = b"".join(parts).decode("utf-8", "surrogateescape")
    decoder = json.JSONDecoder()
    place = _skip(text, 0)
    inside = text[place : place + 1] == "["
    place = _skip(text, place + 1) if inside else place
    number = 0
    while place < len(text) and not (inside and text[place] == "]"):
        try:
            value, end = decoder.raw_decode(text, place)
        except (ValueError, RecursionError) as error:
            yield Quarantined(source, archive, "json", str(error)[:200], place, len(text) - place)
            yield from damage
            return
        yield Row(number, place, end - place, value)
        number += 1
        place = _skip(text, end)
        if inside and text[place : place + 1] == ",":
            place = _skip(text, place + 1)
        elif inside and text[place : place + 1] not in ("]", ""):
            yield Quarantined(source, archive, "json", "no comma between two rows", place, len(text) - place)
            yield from damage
            return
    if inside and place >= len(text) and not damage:
        yield Quarantined(source, archive, "truncated", "the array doesn't end", place, 0)
    elif inside and text[place + 1 :].strip():
        yield Quarantined(source, archive, "json", "text behind the array", place + 1, len(text) - place - 1)
    yield from damage


def _skip(text: str, place: int) -> int:
    while place < len(text) and text[place] in " \t\r\n":
        place += 1
    return place


class Locators:
    """The locator of each row of one archive: its own id where it has one that is new, else its number."""

    def __init__(self) -> None:
        self._seen: set[int] = set()

    def of(self, own: Any, number: int) -> str:
        """`own` as text; the number where there is none; `own~number` where another row has it already."""
        if not isinstance(own, str | int) or isinstance(own, bool) or own == "":
            return str(number)
        key = xxhash.xxh3_64_intdigest(str(own).encode("utf-8", "surrogatepass"))
        if key in self._seen:
            return f"{own}~{number}"
        self._seen.add(key)
        return str(own)
