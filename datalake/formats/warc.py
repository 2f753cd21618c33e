"""Framing of WARC (ISO 28500) and ARC archives: every byte is in a record, between two records, or in a fault.

Archives are plain, gzip or Zstandard (`frames`), with a member for each record or one for all. What to do on damage is
why framing is done here: a library that resynchronises silently loses records without a trace. Here each unreadable
record or span of bytes is one `Fault`, and reading goes on at the next member or header that can be found.

The work is in two steps: an archive is cut into *segments* of bytes without a gap (`_segments`), and a segment into
records (`_frame`). Bounds: plain archives and large segments are mapped, not read, so that memory
is 32 MiB of a segment, 64 KiB of a header, the caller's limit of a block, and for Zstandard `frames`' bounds. On disk a
segment takes at most 4 GiB of one temporary file, in the folder that TMPDIR names, unlinked when it is made.
"""

from __future__ import annotations

import base64
import hashlib
import mmap
import re
import tempfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import zstandard

from datalake.formats import arc
from datalake.formats import zstd as frames
from datalake.formats.allowance import Allowance

PIECE = 1 << 16
MAX_HEADER = 1 << 16  # bytes of a record's header
IN_MEMORY = 32 << 20  # inflated bytes of a segment that are kept in memory; more go to a temporary file
MAX_SEGMENT = 4 << 30  # inflated bytes of a segment: what a gzip bomb may cost
MAX_HELD = 1_000
MAGIC = b"\x1f\x8b\x08"

_VERSION = re.compile(rb"WARC/\d\.\d{1,2}[ \t]*\r?\n")
# A header anywhere: the version's line and the beginning of a named field.
_START = re.compile(rb"WARC/\d\.\d{1,2}[ \t]*\r?\n[A-Za-z][A-Za-z0-9-]{0,60}[ \t]*:")
_END_OF_HEADER = re.compile(rb"\n\r?\n")
_NOT_BETWEEN = re.compile(rb"[^\r\n \t]")
_OTHER = {
    b"\x04\x22\x4d\x18": "lz4",
    b"BZh": "bzip2",
    b"\xfd7zXZ": "xz",
    b"PK\x03\x04": "zip",
}

Bytes = bytes | bytearray | mmap.mmap


@dataclass(frozen=True, slots=True)
class _Form:
    """How records of a kind of archive begin: where one has to, anywhere, and where its header ends."""

    name: str
    here: re.Pattern[bytes]
    anywhere: re.Pattern[bytes]
    end_of_header: re.Pattern[bytes]
    fields: Callable[[bytes], dict[str, str]]


@dataclass(slots=True)
class Record:
    """One WARC record, or one of an ARC archive with its line's fields under WARC's names.

    - `type`: its WARC-Type, lower case. `headers`: named fields, names in lower case, the first of each name.
    - `offset`: where its gzip member (in a plain archive: its header) begins in the archive; `inner`: how far into the
      inflated bytes from there it begins, 0 but in archives compressed as a whole.
    - `length`: bytes of its member when that is its own, else of its header and block.
    - `block`: its content, `block_length` bytes; None when that is more than the limit.
    """

    type: str
    headers: dict[str, str]
    block: bytes | None
    block_length: int
    offset: int
    inner: int
    length: int

    @property
    def locator(self) -> str:
        """What finds the record in its archive."""
        return f"{self.offset}+{self.inner}" if self.inner else str(self.offset)


@dataclass(slots=True)
class Fault:
    """A record or span of bytes that can't be read: `offset` and `length` in the archive, -1 where unknown.

    Reasons: `not_an_archive`, `no_header` (bytes before the next header), `header` (unusable), `content_length` (not
    the true one), `truncated`, `gzip`, `zstd` (damaged member), `checksum` (of a member), `garbage` (between members),
    `too_large` (a member that inflates without end).
    """

    reason: str
    detail: str = ""
    offset: int = -1
    length: int = -1


@dataclass(slots=True)
class _Segment:
    """Bytes without a gap: a plain archive, or one member (gzip, Zstandard) and those that continue its bytes."""

    data: Bytes
    offset: int
    length: int
    packed: bool
    damage: Fault | None = None  # what ends it before its time

    def span(self, begin: int, end: int) -> tuple[int, int]:
        """Offset and length in the archive of bytes of this segment."""
        if not self.packed:
            return self.offset + begin, end - begin
        return self.offset, self.length if begin == 0 and end >= len(self.data) else -1


def records(path: str, max_bytes: int) -> Iterator[Record | Fault]:
    """All records and faults of an archive, in order. A file that is no archive gives one Fault `not_an_archive`.

    Blocks longer than `max_bytes` aren't kept. Raises OSError alone, when the file can't be read: that is no property
    of the archive and may pass.
    """
    with Path(path).open("rb") as file:
        size = file.seek(0, 2)
        file.seek(0)
        head = file.read(8)
        held: list[Fault] | None = []  # until a record shows that this is an archive at all
        form = None
        for segment in _segments(file, size, head):
            form = _form(segment.data, form)
            for one in _frame(segment, form, max_bytes):
                if held is None:
                    yield one
                elif isinstance(one, Fault) and len(held) < MAX_HELD:
                    held.append(one)
                else:
                    yield from held
                    held = None
                    yield one
        if held is not None:
            if all(fault.reason in ("no_header", "garbage") for fault in held):
                kind = next((name for magic, name in _OTHER.items() if head.startswith(magic)), "")
                detail = f"{kind} file" if kind else "no WARC or ARC header" if size else "empty file"
                held = [Fault("not_an_archive", detail, 0, size)]
            yield from held


def _form(data: Bytes, before: _Form | None) -> _Form:
    """The form of a segment by what it begins with, else that of the one before, else of the first record in it."""
    begun = _NOT_BETWEEN.search(data, 0, MAX_HEADER)
    for form in (_WARC, _ARC):
        if begun is not None and form.here.match(data, begun.start()):
            return form
    if before is not None:
        return before
    first = [_next_start(data, form, 0, len(data)) for form in (_WARC, _ARC)]
    return _ARC if first[1] < first[0] else _WARC


def _frame(segment: _Segment, form: _Form, max_bytes: int) -> Iterator[Record | Fault]:
    """The records of one segment and its faults, its own damage last."""
    data, size, damage = segment.data, len(segment.data), segment.damage
    suspect = damage is not None and damage.reason != "truncated"  # its last bytes may be noise
    at = 0

    def fault(reason: str, detail: str, begin: int, end: int) -> Fault:
        if segment.packed and begin:
            detail = f"{detail}, {begin} inflated bytes into the member"
        return Fault(reason, detail, *segment.span(begin, end))

    while (begun := _NOT_BETWEEN.search(data, at)) is not None:
        begin = begun.start()
        if not form.here.match(data, begin):
            at = _next_start(data, form, begin, size)
            if at == size and damage is not None:
                break
            yield fault("no_header", f"{at - begin} bytes", begin, at)
            continue
        ending = form.end_of_header.search(data, begin, begin + MAX_HEADER)
        if ending is None:
            at = _next_start(data, form, begin + 5, size)
            if at < size:
                yield fault("header", "without an end", begin, at)
            elif damage is None:
                reason = "truncated" if size - begin < MAX_HEADER else "header"
                yield fault(reason, "ends within a header", begin, size)
            continue
        start = ending.end()
        headers = form.fields(bytes(data[begin:start]))
        kind, declared = headers.get("warc-type", "").lower(), headers.get("content-length", "")
        if not kind or not (declared.isascii() and declared.isdigit()):
            at = _next_start(data, form, start, size)
            yield fault("header", f"Content-Length {declared[:40]!r}, WARC-Type {kind[:40]!r}", begin, at)
            continue
        stated = int(declared[:18])
        end = start + stated
        follows = _NOT_BETWEEN.search(data, end) if end <= size else None
        fits = end <= size and (follows is None or bool(form.here.match(data, follows.start())))
        if not fits:
            nested = _next_start(data, form, start, min(end, size))
            if nested < min(end, size):
                yield fault("content_length", f"says {stated}, {nested - start} are there", begin, nested)
                at = nested
                continue
            if end > size:
                if damage is None:
                    yield fault("truncated", f"says {stated}, {size - start} are there", begin, size)
                at = size
                break
        at = end
        if suspect and (follows is None or not _digest_holds(headers, data, start, end)):
            if follows is None:
                break  # the damage speaks for it
            yield fault("checksum", "block digest, in a damaged member", begin, end)
            continue
        offset = segment.span(begin, end)[0]
        alone = segment.packed and begin == 0 and follows is None
        yield Record(
            kind,
            headers,
            bytes(data[start:end]) if stated <= max_bytes else None,
            stated,
            offset,
            begin if segment.packed else 0,
            segment.length if alone else end - begin,
        )
    if damage is not None:
        yield damage


def _next_start(data: Bytes, form: _Form, begin: int, end: int) -> int:
    """Where the next header begins, `end` if there is none before it."""
    match = form.anywhere.search(data, begin, min(len(data), end + MAX_HEADER))
    return match.start() if match is not None and match.start() < end else end


def _fields(header: bytes) -> dict[str, str]:
    """Named fields of a record's header, the first of each name; folded lines are joined."""
    fields: dict[str, str] = {}
    name = ""
    for line in header.splitlines()[1:]:
        text = line.decode("utf-8", "replace")
        if text[:1] in (" ", "\t"):
            if name:
                fields[name] += " " + text.strip()
            continue
        key, colon, value = text.partition(":")
        name = key.strip().lower()
        if not colon or name in fields:
            name = ""
        else:
            fields[name] = value.strip()
    return fields


_WARC = _Form("WARC", _VERSION, _START, _END_OF_HEADER, _fields)
_ARC = _Form("ARC", arc.LINE, arc.START, arc.END_OF_LINE, arc.fields)


def _begins(out: bytes) -> bool:
    """Whether these bytes begin with a record's header."""
    out = out.lstrip(b"\r\n \t")
    return out.startswith(b"WARC/") or arc.LINE.match(out) is not None


def _digest_holds(headers: dict[str, str], data: Bytes, start: int, end: int) -> bool:
    """Whether a block agrees with its SHA-1 digest; True where there is none to compare."""
    algorithm, _, stated = headers.get("warc-block-digest", "").partition(":")
    if algorithm.lower() != "sha1":
        return True
    digest = hashlib.sha1(memoryview(data)[start:end], usedforsecurity=False).digest()
    return stated.upper() in (base64.b32encode(digest).decode(), digest.hex().upper())


def _segments(file: BinaryIO, size: int, head: bytes) -> Iterator[_Segment]:
    """The segments of an archive, and for what can't be inflated segments with damage."""
    if not size:
        return
    codec: _Codec = _Gzip()
    if head.startswith(frames.MAGIC) or frames.skippable(head):
        codec = _Zstd(frames.dictionary(file))
    elif not head.startswith(MAGIC):
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            # A gzip archive whose very beginning is damaged still has its other members.
            if any(form.anywhere.search(data) for form in (_WARC, _ARC)) or _next_member(codec, file, 0, size) == size:
                yield _Segment(data, 0, size, packed=False)
                return
    at, allowance = 0, Allowance(size)
    while at < size:
        if isinstance(codec, _Zstd):
            file.seek(at)
            if skipped := frames.skippable(file.read(8)):  # holds no content by its definition
                if at + skipped > size:
                    fault = Fault("truncated", "ends within a skippable frame", at, size - at)
                    yield _Segment(b"", at, size - at, True, fault)
                at += skipped
                continue
        if not codec.is_member(file, at):
            after = _next_member(codec, file, at, size)
            if after < size or not _only_zeros(file, at, size):  # gzip itself pads with zeros
                yield _Segment(b"", at, after - at, True, Fault("garbage", f"{after - at} bytes", at, after - at))
            at = after
            continue
        with _Room(min(MAX_SEGMENT, allowance.left)) as room:
            begin, damage = at, None
            while True:
                damage, at = codec.inflate(file, at, room)
                if damage is not None or at >= size or not _continues(codec, file, at):
                    break
            if damage is not None:
                at = _next_member(codec, file, at + 1, size)  # from the damaged member's own beginning
                damage.offset, damage.length = begin, at - begin
            allowance.left = max(0, allowance.left - room.size)
            yield _Segment(room.data(), begin, at - begin, True, damage)


class _Gzip:
    """Members of gzip (RFC 1952)."""

    magic = MAGIC

    def inflate(self, file: BinaryIO, begin: int, room: _Room) -> tuple[Fault | None, int]:
        return _inflate(file, begin, room)

    def glimpse(self, file: BinaryIO, at: int) -> tuple[bytes, bool]:
        return _glimpse(file, at)

    def is_member(self, file: BinaryIO, at: int) -> bool:
        return _is_member(file, at)


class _Zstd:
    """Frames of Zstandard, with the dictionary that the archive begins with."""

    magic = frames.MAGIC

    def __init__(self, known: zstandard.ZstdCompressionDict | None) -> None:
        self.known = known

    def inflate(self, file: BinaryIO, begin: int, room: _Room) -> tuple[Fault | None, int]:
        reason, detail, at = frames.inflate(file, begin, self.known, room.write, room.most - room.size)
        return (Fault(reason, detail) if reason else None), at

    def glimpse(self, file: BinaryIO, at: int) -> tuple[bytes, bool]:
        return frames.glimpse(file, at, self.known, PIECE)

    def is_member(self, file: BinaryIO, at: int) -> bool:
        file.seek(at)
        return file.read(4) == frames.MAGIC


_Codec = _Gzip | _Zstd


def _inflate(file: BinaryIO, begin: int, room: _Room) -> tuple[Fault | None, int]:
    """Inflates one member into `room`: (None, where it ends), or what is wrong and where the member begins.

    All bytes before the damage are inflated.
    """
    file.seek(begin)
    inflater = zlib.decompressobj(31)
    while not inflater.eof:
        piece = file.read(PIECE)
        if not piece:
            return Fault("truncated", "ends within a gzip member"), begin
        while piece and not inflater.eof:
            saved = inflater.copy()
            try:
                out = inflater.decompress(piece, 1 << 20)
            except zlib.error as error:
                _salvage(saved, piece, room)
                check = "incorrect data check" in str(error) or "incorrect length check" in str(error)
                reason = "checksum" if check else "gzip"
                return Fault(reason, str(error)), begin
            if room.size + len(out) > room.most:
                return Fault("too_large", f"inflates to more than {room.most} bytes"), begin
            room.write(out)
            piece = inflater.unconsumed_tail
    return None, file.tell() - len(inflater.unused_data)


def _salvage(inflater: zlib._Decompress, piece: bytes, room: _Room) -> None:
    """What can be had from a piece before its damage, byte by byte."""
    for at in range(len(piece)):
        try:
            room.write(inflater.decompress(piece[at : at + 1]))
        except zlib.error:
            return


def _glimpse(file: BinaryIO, at: int) -> tuple[bytes, bool]:
    """The first inflated bytes of what may be a member, and whether it ends well among them; empty if it is none."""
    file.seek(at)
    raw = file.read(512)
    if not raw.startswith(MAGIC) or len(raw) < 4 or raw[3] & 0xE0:  # reserved flags
        return b"", False
    try:  # mostly told by a few bytes
        zlib.decompressobj(31).decompress(raw, 256)
    except zlib.error:
        return b"", False
    raw += file.read(PIECE + 512)
    inflater = zlib.decompressobj(31)
    try:
        out = inflater.decompress(raw, PIECE + 1)
    except zlib.error:
        try:  # damage further in: its beginning may still be good
            out = zlib.decompressobj(31).decompress(raw, 256)
        except zlib.error:
            return b"", False
    return out, inflater.eof


def _is_member(file: BinaryIO, at: int) -> bool:
    """Whether a gzip member begins here, damaged further in or not."""
    file.seek(at)
    head = file.read(4)
    return head.startswith(MAGIC) and (len(head) < 4 or not head[3] & 0xE0)


def _continues(codec: _Codec, file: BinaryIO, at: int) -> bool:
    """Whether the member here goes on with the bytes of the one before: whole, and not the beginning of a record."""
    if isinstance(codec, _Gzip):  # mostly told by a few bytes
        file.seek(at)
        try:
            if _begins(zlib.decompressobj(31).decompress(file.read(512), 512)):
                return False
        except zlib.error:
            return False
    out, whole = codec.glimpse(file, at)
    return whole and bool(out.strip(b"\r\n \t")) and not _begins(out)


def _next_member(codec: _Codec, file: BinaryIO, at: int, size: int) -> int:
    """Where after damage the next member begins that starts a record or is whole; `size` if there is none."""
    while at < size:
        file.seek(at)
        piece = file.read(1 << 20)
        found = piece.find(codec.magic)
        while found >= 0:
            out, whole = codec.glimpse(file, at + found)
            if whole or _begins(out):
                return at + found
            found = piece.find(codec.magic, found + 1)
        at += max(1, len(piece) - len(codec.magic) + 1) if len(piece) == 1 << 20 else len(piece)
    return size


def _only_zeros(file: BinaryIO, begin: int, end: int) -> bool:
    """Whether all bytes of the range are zero."""
    file.seek(begin)
    while begin < end:
        piece = file.read(min(PIECE, end - begin))
        if piece.strip(b"\0"):
            return False
        begin += len(piece)
    return True


class _Room:
    """Where a segment of at most `most` bytes is inflated to: memory, and a mapped temporary file once it is large."""

    def __init__(self, most: int) -> None:
        self.most = most
        self._bytes = bytearray()
        self._file: BinaryIO | None = None
        self._map: mmap.mmap | None = None
        self.size = 0

    def write(self, data: bytes) -> None:
        self.size += len(data)
        if self._file is None and self.size > IN_MEMORY:
            self._file = tempfile.TemporaryFile()  # noqa: SIM115 - closed with the room
            self._file.write(self._bytes)
            self._bytes = bytearray()
        if self._file is not None:
            self._file.write(data)
        else:
            self._bytes += data

    def data(self) -> Bytes:
        """All that was written."""
        if self._file is None:
            return self._bytes
        self._file.flush()
        self._map = mmap.mmap(self._file.fileno(), 0, access=mmap.ACCESS_READ)
        return self._map

    def __enter__(self) -> _Room:
        return self

    def __exit__(self, *_: object) -> None:
        if self._map is not None:
            self._map.close()
        if self._file is not None:
            self._file.close()
