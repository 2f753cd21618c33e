"""Rows of JSON files: JSON Lines, JSON arrays, one object or several; compressed or not, damaged or not.

Every row or span that can't be read is one `Quarantined` with its offset in the decompressed stream, and reading goes
on behind it. In JSON Lines the next line is the next row. In an array a malformed row ends where its brackets close;
where they don't, at the next one that begins as the first one did.

As Python reads JSON, `NaN` and `Infinity` are numbers, the last of two equal keys counts, and lone surrogates and NUL
stay in a text (they are replaced when it is stored).

Memory: one row of at most `longest` bytes, raw and as Python objects (twenty times as much if it is all brackets, less
than twice for a text); in an array as much again for what is read with it. A longer row is passed over without being
held.
"""

from __future__ import annotations

import json
import re
from bisect import bisect_right
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import chain
from typing import Any

import xxhash

from datalake.document import Quarantined
from datalake.formats.streams import as_utf8, decompressed
from datalake.origin import Origin

LONGEST = 1 << 26  # bytes of a row, unless the caller knows better
Chunks = Iterator[bytes | Quarantined]

_SPACE = b" \t\r\n\x1e"  # the last begins each text of RFC 7464
_BETWEEN = b", \t\r\n\f\v"
_HEAD = 1 << 20  # bytes of a first line that are looked at to tell the form
# A whole string, a bracket, or a quote whose string doesn't end in what there is.
# Possessive, so that a string of any length costs no memory.
_TOKEN = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"|[{}\[\]"]', re.DOTALL)
_IN_STRING = re.compile(rb'[^"\\]*+(?:\\.[^"\\]*+)*+"', re.DOTALL)
_SCALAR_END = re.compile(rb"[,\]\s]")
_DECODER = json.JSONDecoder()
_BEGINNING = re.compile(rb'\{\s*+"[^"\\]*+(?:\\.[^"\\]*+)*+"\s*+:')


@dataclass(slots=True)
class Row:
    """One row: its number from 0, its place in the decompressed stream, and its value.

    `replaced` says what was wrong with the bytes of a text in it, which are U+FFFD now; `lost` names columns that can't
    be read.
    """

    number: int
    offset: int
    length: int
    value: Any
    replaced: str = ""
    lost: tuple[str, ...] = ()

    def damage(
        self, origin: Origin, texts: Iterable[str] = (), columns: Iterable[str] | None = None
    ) -> Quarantined | None:
        """What is wrong with the row where these columns (None: all) are needed and these texts came of it."""
        if missing := [name for name in self.lost if columns is None or name in columns]:
            problem = f"column {', '.join(missing)} can't be read"[:200]
            return origin.lost("parquet", problem, self.offset, self.length)
        if self.replaced and any("\ufffd" in text for text in texts):
            return origin.lost("encoding", self.replaced, self.offset, self.length)
        return None


def split_lines(chunks: Chunks, origin: Origin, longest: int) -> Iterator[tuple[int, bytes] | Quarantined]:
    """(offset, line without its "\\n") of every line. One beyond `longest` bytes is one `too_large`, and isn't held."""
    parts: list[bytes] = []  # of the line that hasn't ended
    base = size = 0  # where it begins, how much of it there is

    def too_large() -> Quarantined:
        return origin.lost("too_large", f"a row of {size} bytes", base, size)

    for chunk in chunks:
        if isinstance(chunk, Quarantined):
            if size > longest:
                yield too_large()
            elif b"".join(parts).strip(_SPACE):
                yield origin.lost("truncated", "a row breaks off at damage", base, size)
            base, size, parts = base + size, 0, []
            yield chunk
            continue
        first, *others = chunk.split(b"\n")
        size += len(first)
        if size <= longest:
            parts.append(first)
        else:
            parts = []
        for line in others:  # each begins behind an end of line
            if size > longest:
                yield too_large()
            else:
                yield base, b"".join(parts)
            base, size = base + size + 1, len(line)
            parts = [line] if size <= longest else []
    if size > longest:
        yield too_large()
    elif size:
        yield base, b"".join(parts)


def json_rows(path: str, origin: Origin, longest: int = LONGEST) -> Iterator[Row | Quarantined]:
    """All rows of a JSON file in order. Its first line tells its form."""
    yield from rows_of_json(as_utf8(decompressed(path, origin)), origin, longest)


def rows_of_json(chunks: Chunks, origin: Origin, longest: int = LONGEST) -> Iterator[Row | Quarantined]:
    """`json_rows` of bytes from elsewhere, in UTF-8."""
    head, chunks = _peek(chunks)
    if _is_lines(head):
        yield from _line_rows(chunks, origin, longest)
    else:
        yield from _Values(chunks, origin, longest).rows()


def _peek(chunks: Chunks) -> tuple[bytes, Chunks]:
    """The first line with something in it and something of what is behind it, and all chunks again.

    Where that line is no value, as much as tells where the first value ends, up to `_HEAD`.
    """
    taken: list[bytes | Quarantined] = []
    head = bytearray()
    looked = 0
    for chunk in chunks:
        taken.append(chunk)
        if isinstance(chunk, Quarantined):
            break
        head += chunk if head else chunk.lstrip(_SPACE)
        if len(head) < 2 * looked:  # not anew for each of many small chunks
            continue
        looked = len(head)
        line, _, rest = bytes(head).partition(b"\n")
        if len(head) > _HEAD or (rest.strip(_SPACE) and (line[:1] != b"{" or _ended(head) or not _load(line)[1])):
            break
    return bytes(head), chain(taken, chunks)


def _is_lines(head: bytes) -> bool:
    """Whether a file that begins so has a row a line.

    Not where an array of rows or an object of several lines begins, nor where a second object follows the first in its
    line. A line that breaks off before a whole one is damage.
    """
    line, end, rest = head.partition(b"\n")
    if head[:1] == b"[":  # rows can be arrays too, if more than one line has one
        value, problem = _load(line)
        return bool(end and rest.strip(_SPACE) and not problem and not any(isinstance(item, dict) for item in value))
    if head[:1] != b"{" or not _load(line)[1]:
        return True
    size = _ended(head)
    if size and b"\n" not in head[:size]:
        return not (head[size:].partition(b"\n")[0].lstrip()[:1] == b"{" and not _load(head[:size])[1])
    if size and not _load(head[:size])[1]:
        return False
    following = rest.lstrip(_SPACE).partition(b"\n")[0]
    return _ended(line) > 0 or _in_string(line) or not following or not _load(following)[1]


def _ended(content: bytes | bytearray) -> int:
    """The length of the object that bytes begin with, by its brackets; 0 where it doesn't end in them."""
    depth = 0
    for token in _TOKEN.finditer(content):
        first = content[token.start()]
        if first == 0x22:
            if token.end() - token.start() == 1:
                return 0
            continue
        depth += 1 if first in b"{[" else -1
        if depth <= 0:
            return token.end()
    return 0


def _in_string(line: bytes) -> bool:
    """Whether a string is open at the end of a line, which no JSON has."""
    return any(token.group() == b'"' for token in _TOKEN.finditer(line))


def _load(content: bytes) -> tuple[Any, str]:
    """(value, "") or (None, what is wrong)."""
    try:
        return json.loads(content), ""
    except (ValueError, RecursionError) as error:
        return None, str(error)[:200]


def _line_rows(chunks: Chunks, origin: Origin, longest: int) -> Iterator[Row | Quarantined]:
    number = 0
    for line in split_lines(chunks, origin, longest):
        if isinstance(line, Quarantined):
            number += line.reason in ("too_large", "truncated")
            yield line
            continue
        offset, content = line
        if not content.strip(_SPACE):
            continue
        value, problem = _load(content.strip(_SPACE))
        if not problem:
            yield Row(number, offset, len(content), value)
        elif several := _several(content):
            for start, size, value in several:
                yield Row(number, offset + start, size, value)
                number += 1
            continue
        else:
            yield origin.lost("json", problem, offset, len(content))
        number += 1


def _several(line: bytes) -> list[tuple[int, int, Any]]:
    """(place, length, value) of the objects of a line in which a comma or another object follows one.

    Empty if it holds anything else. An array whose brackets were cut off has commas at the ends of its lines.
    """
    found = []
    try:
        text = line.decode("utf-8")
        place = offset = 0
        while place < len(text):
            begin = place + len(text[place : place + 16]) - len(text[place : place + 16].lstrip(", \t\r\n\x1e"))
            offset += begin - place
            place = begin
            if place >= len(text):
                break
            if text[place] != "{":
                if text[place] in ", \t\r":  # more than 16 of them
                    continue
                return []
            value, end = _DECODER.raw_decode(text, place)
            size = len(text[place:end].encode("utf-8"))
            found.append((offset, size, value))
            place, offset = end, offset + size
    except (ValueError, RecursionError):
        return []
    return found


class _Values:
    """The values of a JSON stream: elements of its arrays, and values outside of any. Holds one of them at a time."""

    def __init__(self, chunks: Chunks, origin: Origin, longest: int):
        self.chunks, self.origin, self.longest = chunks, origin, longest
        self.window = b""  # what is read and not yet done with
        self.place = 0  # how much of it is done with
        self.base = 0  # where it begins in the stream
        self.ended = False
        self.damage: list[Quarantined] = []  # met while reading on: `window` ends where it is
        self.number = 0
        self.like = b""  # how the first good object begins, and so its neighbours
        self.nested = False  # whether good objects hold others that begin so
        self.separated = True  # whether a comma, or the array's beginning, stands before what comes

    def rows(self) -> Iterator[Row | Quarantined]:
        inside, whole = False, True  # in an array; the last element not cut off
        while True:
            if not self._skip_space():
                if not self.damage:
                    break
                yield self.damage.pop()
                if inside or self.like:  # somewhere inside an element, who knows where
                    yield from self._resume()
                continue
            byte = self.window[self.place : self.place + 1]
            if byte == b"[" and not inside:
                inside = self.separated = True
                self.place += 1
            elif byte == b"]" and inside:
                inside = False
                self.place += 1
            elif byte == b"," and (not self.separated if inside else self.number > 0):
                self.separated = True
                self.place += 1
            else:
                entry = self._element(inside)
                whole = not isinstance(entry, Quarantined) or entry.reason != "truncated"
                yield entry
        if inside and whole:
            yield self._lost("truncated", "the array doesn't end", self.place, self.place)

    def _element(self, inside: bool) -> Row | Quarantined:
        """The value that begins here, or what is lost of it."""
        size = self._end()
        if size > self.longest:
            self.separated = False
            return self._too_long()
        content = self.window[self.place : self.place + size] if size >= 0 else b""
        value, problem = _load(content) if content else (None, "a row doesn't end")
        separated, self.separated = self.separated or not inside, False
        if problem and (self.like or not content):
            following = self._neighbour(self.place + 1, self.place + size if content else len(self.window))
            if following >= 0:  # the brackets closed in another row, or never
                size = following - self.place
                self.separated = True
            elif not content:
                start, self.place = self.place, len(self.window)
                return self._lost("truncated", problem, start, self.place)
        start, number = self.place, self.number
        self.place += size
        self.number += 1
        if not problem and not separated:
            problem = "no comma before this row"
        if problem:
            return self._lost("json", problem, start, self.place)
        if isinstance(value, dict):
            if not self.like and (first := _BEGINNING.match(content)):
                self.like = first.group()
            self.nested = self.nested or content.find(self.like, len(self.like)) >= 0
        return Row(number, self.base + start, size, value)

    def _lost(self, reason: str, detail: str, start: int, end: int) -> Quarantined:
        return self.origin.lost(reason, detail, self.base + start, end - start)

    def _more(self) -> bool:
        """Read on, as much again as there is, so that what is looked at anew each time stays in proportion."""
        if self.ended or self.damage:
            return False
        parts = [self.window[self.place :]]
        self.base += self.place
        self.place, self.window = 0, b""  # not held while it is copied
        size = len(parts[0])
        goal = size + min(size, self.longest) + 1 if size > self.longest else min(2 * size, self.longest) + 1
        while size < goal:
            chunk = next(self.chunks, None)
            if chunk is None:
                self.ended = True
                break
            if isinstance(chunk, Quarantined):
                self.damage.append(chunk)
                break
            parts.append(chunk)
            size += len(chunk)
        self.window = b"".join(parts)
        return size > len(parts[0])

    def _skip_space(self) -> bool:
        """Go to the next byte that isn't space; False at the end or where damage is."""
        while True:
            while self.window[self.place : self.place + 1] in (b" ", b"\t", b"\r", b"\n"):
                self.place += 1
            if self.place < len(self.window):
                return True
            if not self._more():
                return False

    def _end(self) -> int:
        """The length of the value that begins here; more than `longest` if it is longer; -1 if it doesn't end."""
        at = self.window[self.place : self.place + 1]
        depth, looked = 0, 0  # how deep, and how far from the value's beginning
        while True:
            if at in (b"{", b"[", b'"'):
                for token in _TOKEN.finditer(self.window, self.place + looked):
                    first = self.window[token.start()]
                    if first == 0x22:  # a string
                        if token.end() - token.start() == 1:
                            break
                    else:
                        depth += 1 if first in b"{[" else -1
                    looked = token.end() - self.place
                    if depth <= 0:
                        return looked
                else:
                    looked = len(self.window) - self.place
            elif match := _SCALAR_END.search(self.window, self.place + max(looked, 1)):
                return match.start() - self.place
            else:
                looked = len(self.window) - self.place
            if len(self.window) - self.place > self.longest:  # with a neighbour in sight it isn't long but broken
                return -1 if self._neighbour(self.place + 1, len(self.window)) >= 0 else self.longest + 1
            if not self._more():
                return looked if at not in (b"{", b"[", b'"') and self.ended else -1

    def _neighbour(self, start: int, end: int) -> int:
        """Where, in this part of the window, an object begins as the first good one did, with its key; -1: nowhere.

        Where good objects hold others that begin alike, as trees do, that is no sign: -1.
        """
        first = _BEGINNING.match(self.window, self.place) if not self.like else None
        like = first.group() if first else self.like
        if not like or self.nested:
            return -1
        place = self.window.find(like, start + 1, end)
        while place >= 0 and self.window[place - 1] not in _BETWEEN:
            place = self.window.find(like, place + 1, end)
        return place

    def _too_long(self) -> Quarantined:
        """Pass over the value that begins here, whatever its length, without holding it."""
        start = self.base + self.place
        depth, in_string, done = 0, False, False
        scalar = self.window[self.place : self.place + 1] not in (b"{", b"[", b'"')
        while not done:
            if in_string:
                match = _IN_STRING.match(self.window, self.place)
            else:
                match = (_SCALAR_END if scalar else _TOKEN).search(self.window, self.place)
            if not match:
                self.place = len(self.window) - (_open_escape(self.window) if in_string else 0)
                if not self._more():
                    self.place = len(self.window)
                    break
                continue
            first = self.window[match.start()]
            self.place = match.start() if scalar else match.end()
            if in_string:
                in_string = False
            elif first == 0x22:
                in_string = match.end() - match.start() == 1
            else:
                depth += 1 if first in b"{[" else -1
            done = scalar or (depth <= 0 and not in_string)
        self.number += 1
        size = self.base + self.place - start
        return self.origin.lost("too_large", f"a row of {size} bytes", start, size)

    def _resume(self) -> Iterator[Quarantined]:
        """Go on, behind damage, at the next object that begins as those before did."""
        self.separated = True
        start = self.base + self.place
        while (place := self._neighbour(self.place, len(self.window))) < 0:
            self.place = max(self.place, len(self.window) - 4096)  # a beginning may lie across the end
            if not self._more():
                place = len(self.window)
                break
        self.place = place
        if (end := self.base + place) > start:
            yield self.origin.lost("json", "the row that damage is in", start, end - start)


def _open_escape(window: bytes) -> int:
    """1 if the window ends in a backslash that escapes what follows, else 0."""
    return (len(window) - len(window.rstrip(b"\\"))) % 2


class Locators:
    """The locator of each row of one archive, no two alike: its own id where it has one that is new, else its number.

    Memory: a hash of each own id; rows without one cost nothing while they follow each other.
    """

    def __init__(self) -> None:
        self._seen: set[int] = set()
        self._numbered: list[list[int]] = []  # runs of rows known by their number: the first, and behind the last

    def of(self, own: Any, number: int) -> str:
        """`own` as text; the number where there is none; `own~number` (`~number`) where another row has that already.

        Rows come in the order of their numbers; one that is several records may come several times.
        """
        if not isinstance(own, str | int) or isinstance(own, bool) or own == "":
            if number >= (self._numbered[-1][1] if self._numbered else 0) and not self._has(str(number)):
                if self._numbered and self._numbered[-1][1] == number:
                    self._numbered[-1][1] += 1
                else:
                    self._numbered.append([number, number + 1])
                return str(number)
            own = ""
        locator = str(own)
        while not locator or self._has(locator):
            locator = f"{locator}~{number}"
        self._seen.add(_hashed(locator))
        return locator

    def _has(self, locator: str) -> bool:
        if _hashed(locator) in self._seen:
            return True
        if not (locator.isascii() and locator.isdigit()) or len(locator) > 18 or str(int(locator)) != locator:
            return False
        place = bisect_right(self._numbered, int(locator), key=lambda run: run[0]) - 1
        return place >= 0 and int(locator) < self._numbered[place][1]


def _hashed(locator: str) -> int:
    return xxhash.xxh3_64_intdigest(locator.encode("utf-8", "surrogatepass"))
