"""Multistream bzip2: many complete streams one after another, so that a part of a file can be read alone.

Dumps of Wikipedia are written so (about a hundred pages a stream), with an index of `offset:page id:title` lines
beside them. A file is cut where a stream's signature stands, before anything is decoded: damage can then never reach
beyond the next signature, and a part reads exactly what the whole file would read there. A stream that begins with a
`<page>` is a *seam*: no page reaches across it, and only there is a dump split.
"""

from __future__ import annotations

import bz2
import re
from collections.abc import Iterable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import BinaryIO, NamedTuple

from datalake.archive import Span
from datalake.document import Quarantined
from datalake.formats.allowance import BOMB, Allowance, BombError
from datalake.formats.streams import BLOCK, decompressed
from datalake.origin import Origin

SIGNATURE = re.compile(rb"BZh[1-9](?:1AY&SY|\x17rE8P\x90)")
_LENGTH = 10  # bytes of a signature
_LOOK_AHEAD = 16 << 20  # bytes looked through for a seam without an index; a stream of 100 pages has about 1 MB
_MOST_HEAD = 1 << 20  # decompressed bytes a head may have; siteinfo of the largest wikis has 10,000
_FED = 1 << 14  # bytes of the file that go to the decoder at once
_BEGINNING = 64  # decompressed bytes of a stream that tell whether a page begins with it
_SEAM = re.compile(rb"\s*<page[\s>]")


class Seam(NamedTuple):
    """A stream begins at this byte of the file, and a page with it: what stood open before is not continued."""

    offset: int
    page: bool


def first_bytes(path: str | Path, offset: int, most: int) -> bytes:
    """The first decompressed bytes of the stream at an offset, at most so many; fewer where it is damaged or ends."""
    out = b""
    with Path(path).open("rb") as stream:
        _, pieces = next(_segments(stream, offset, None), (0, iter(())))
        decoder = bz2.BZ2Decompressor()
        try:
            for piece in _even(pieces):
                data = piece
                while len(out) < most and not decoder.eof:
                    out += decoder.decompress(data, most - len(out))
                    data = b""
                    if decoder.needs_input:
                        break
                if len(out) >= most or decoder.eof:
                    break
        except OSError as error:
            if error.errno is not None:
                raise
    return out


def begins_with_page(path: str | Path, offset: int) -> bool:
    """Whether a whole signature stands at an offset and its stream begins with a `<page>`."""
    with Path(path).open("rb") as stream:
        stream.seek(offset)
        if not SIGNATURE.match(stream.read(_LENGTH)):
            return False
    return bool(_SEAM.match(first_bytes(path, offset, _BEGINNING)))


def index_beside(path: str | Path) -> Path | None:
    """The multistream index of a dump, where one lies beside it under the name that the dumps' publisher gives it."""
    path = Path(path)
    if "multistream" not in path.name or "multistream-index" in path.name:
        return None
    name = path.name.replace("multistream", "multistream-index", 1).replace(".xml", ".txt", 1)
    for candidate in (name, name.removesuffix(".bz2")):
        if path.with_name(candidate).is_file():
            return path.with_name(candidate)
    return None


def index_offsets(path: str | Path) -> Iterator[int]:
    """The offsets of an index in its order, each once; lines that aren't of its form are passed over."""
    last, rest = -1, b""
    for chunk in decompressed(path, Origin("", "", "")):
        if isinstance(chunk, Quarantined):
            continue
        lines = (rest + chunk).split(b"\n")
        rest = lines.pop()
        for line in lines:
            number = line.partition(b":")[0]
            if number.isdigit() and (offset := int(number)) != last:
                last = offset
                yield offset


def split(path: str | Path, size: int) -> list[tuple[Span, ...]]:
    """The spans of a file's parts of at least `size` compressed bytes; one empty tuple where it can't be split.

    Each part after the first begins with the span of the first stream, which holds the export's head. Cuts are seams
    taken from the index beside the file, else found by their signatures; an index entry at which no page begins is not
    taken. Raises OSError for a file that can't be read.
    """
    whole: list[tuple[Span, ...]] = [()]
    length = Path(path).stat().st_size
    with Path(path).open("rb") as stream:
        if size <= 0 or length <= size or not SIGNATURE.match(stream.read(_LENGTH)):
            return whole
        head = first_bytes(path, 0, _MOST_HEAD)
        if head[:2] in (b"\xff\xfe", b"\xfe\xff") or b"\0" in head[:4]:
            return whole  # UTF-16: only the beginning says so
        second = next(_signatures(stream, _LENGTH, _LOOK_AHEAD), None)
        if second is None:
            return whole
        index = index_beside(path)
        cuts = list(_cuts(path, size, length, index_offsets(index))) if index else []
        if not cuts:
            cuts = list(_found_cuts(path, stream, size, length))
    if not cuts:
        return whole
    bounds = [0, *cuts, length]
    spans = [Span("", start, end - start) for start, end in pairwise(bounds)]
    return [(spans[0],), *((Span("", 0, second), span) for span in spans[1:])]


def _cuts(path: str | Path, size: int, length: int, offsets: Iterable[int]) -> Iterator[int]:
    """Of offsets in rising order, those that end a part."""
    last = 0
    for offset in offsets:
        if last + size <= offset < length and begins_with_page(path, offset):
            last = offset
            yield offset


def _found_cuts(path: str | Path, stream: BinaryIO, size: int, length: int) -> Iterator[int]:
    """Seams by their signatures, until none follows within reach."""
    last = 0
    while last + size < length:
        found = next(
            (place for place in _signatures(stream, last + size, _LOOK_AHEAD) if begins_with_page(path, place)), None
        )
        if found is None:
            return
        last = found
        yield found


def _signatures(stream: BinaryIO, start: int, most: int) -> Iterator[int]:
    """Where signatures stand from an offset on, within so many bytes."""
    end, place, tail = start + most, start, b""
    while place < end:
        stream.seek(place)
        block = stream.read(min(BLOCK, end - place))
        if not block:
            return
        data = tail + block
        for match in SIGNATURE.finditer(data):
            yield place - len(tail) + match.start()
        place += len(block)
        tail = data[-(_LENGTH - 1) :]
        # a signature ends within the tail's bytes only together with bytes that follow: none is seen twice


def streams(path: str | Path, span: Span | None, origin: Origin) -> Iterator[bytes | Seam | Quarantined]:
    """A span of a bzip2 file (None: all of it), decompressed in blocks; a `Seam` before each stream's first bytes.

    Damage is a `Quarantined` with offset and length in the file: the stream it is in, or what is no stream. Holds one
    block of the file, what the decoder needs, and at most one block of output.
    """
    with Path(path).open("rb") as stream:
        start = span.offset if span else 0
        end = span.offset + span.length if span else None
        allowance = Allowance((Path(path).stat().st_size if end is None else end) - start)
        for begin, pieces in _segments(stream, start, end):
            try:
                for found in _segment(begin, pieces, origin):
                    allowance.take(len(found) if isinstance(found, bytes) else 0)
                    yield found
            except BombError as error:
                yield origin.lost(BOMB, f"bzip2: {error}", begin, -1)
                return


def _segments(stream: BinaryIO, start: int, end: int | None) -> Iterator[tuple[int, Iterator[bytes]]]:
    """The file cut before each signature: where a segment begins and its bytes, to be read before the next."""
    stream.seek(start)
    place = start  # offset of the buffer's first byte
    buffer = b""
    finished = False

    def fill() -> None:
        nonlocal buffer, finished
        room = BLOCK if end is None else min(BLOCK, end - place - len(buffer))
        block = stream.read(room) if room > 0 else b""
        finished = not block
        buffer += block

    def pieces() -> Iterator[bytes]:
        nonlocal place, buffer
        first = True  # the signature that the segment begins with is its own
        while True:
            match = SIGNATURE.search(buffer, 1 if first else 0)
            if match:
                out, buffer = buffer[: match.start()], buffer[match.start() :]
                place += len(out)
                yield out
                return
            keep = 0 if finished else _LENGTH - 1
            if len(buffer) > keep + (_LENGTH if first else 0) or (finished and buffer):
                out, buffer = buffer[: len(buffer) - keep], buffer[len(buffer) - keep :]
                place += len(out)
                first = False
                yield out
            if finished:
                return
            fill()

    fill()
    while buffer or not finished:
        if not buffer:
            fill()
            continue
        rest = pieces()
        yield place, rest
        for _ in rest:
            pass


def _even(pieces: Iterator[bytes]) -> Iterator[bytes]:
    """The same bytes in pieces of equal size: an error takes its call's output along, so calls must not depend on the
    blocks that the file happened to be read in.
    """
    held = b""
    for piece in pieces:
        held += piece
        full = (len(held) - 1) // _FED * _FED
        for place in range(0, full, _FED):
            yield held[place : place + _FED]
        held = held[full:]
    if held:
        yield held


def _segment(begin: int, pieces: Iterator[bytes], origin: Origin) -> Iterator[bytes | Seam | Quarantined]:
    """One segment: a stream and what follows it, or bytes that are no stream."""
    decoder = bz2.BZ2Decompressor()
    seen, used, head = 0, 0, b""
    announced = False
    damage = ""
    junk = False  # something behind the stream's end
    for piece in _even(pieces):
        if not seen and not SIGNATURE.match(piece):
            damage = "no bzip2 stream here"
        seen += len(piece)
        if damage:
            junk = junk or bool(piece.strip(b"\0"))
            continue
        try:
            data = piece
            while not decoder.eof:
                # the first call asks for no more than is looked at: an error takes its call's output with it
                out = decoder.decompress(data, BLOCK if announced else _BEGINNING - len(head))
                data = b""
                if out and not announced:
                    head += out
                    if len(head) >= _BEGINNING:
                        yield Seam(begin, bool(_SEAM.match(head)))
                        yield head
                        announced = True
                elif out:
                    yield out
                if decoder.needs_input:
                    break
            if decoder.eof:
                junk = junk or bool(data.strip(b"\0")) or bool(decoder.unused_data.strip(b"\0"))
                damage, used = "ended", used or seen - len(data or decoder.unused_data)
        except OSError as error:
            if error.errno is not None:
                raise  # the disk's, not bzip2's, which says of bad data OSError without a number
            damage = f"bzip2: {error}"
    if head and not announced:
        yield Seam(begin, bool(_SEAM.match(head)))
        yield head
    if damage == "ended":
        if junk:
            yield origin.lost("damaged", "no bzip2 stream here", begin + used, seen - used)
    elif damage == "no bzip2 stream here":
        if junk:
            yield origin.lost("damaged", damage, begin, seen)
    elif damage:
        yield origin.lost("damaged", damage, begin, seen)
    else:
        yield origin.lost("truncated", "the bytes end inside a stream", begin, seen)
