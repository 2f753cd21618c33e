"""Bytes out of files that may be compressed and may be damaged: read on behind the damage, say where it is.

Compression is told by a file's first bytes, not its name: gzip (RFC 1952), bzip2, xz, Zstandard (RFC 8878) or none.
Archives made of many streams (multistream bzip2, gzip members, Zstandard frames) lose only the damaged stream: reading
goes on at the next signature.
"""

from __future__ import annotations

import bz2
import codecs
import lzma
import re
import zlib
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import Any

import zstandard

from datalake.document import Quarantined
from datalake.formats.allowance import BOMB, Allowance, BombError, allowance_of
from datalake.origin import Origin

BLOCK = 1 << 18
ZSTD_PIECE = 1 << 9  # bytes of a frame at once: no more than 17 MB come of them (a block of 128 KiB has 4)
ZSTD_WINDOW = 1 << 31  # bytes a frame may look back: the largest there is (`zstd --long=31`); held as far as it is used
XZ_MEMORY = 3 << 29  # bytes that a stream may ask for: a dictionary of 1 GiB; xz's own largest has 64 MiB

_SIGNATURES = {
    "gzip": re.compile(rb"\x1f\x8b\x08[\x00-\x1f]"),
    "bzip2": re.compile(rb"BZh[1-9](?:1AY&SY|\x17rE8P\x90)"),
    "xz": re.compile(rb"\xfd7zXZ\x00"),
    "zstd": re.compile(rb"\x28\xb5\x2f\xfd|[\x50-\x5f]\x2a\x4d\x18"),  # a frame, or one to skip
}
_LONGEST_SIGNATURE = 10


def compression(head: bytes) -> str:
    """`gzip`, `bzip2`, `xz`, `zstd` or `none`, from a file's first bytes."""
    return next((name for name, signature in _SIGNATURES.items() if signature.match(head)), "none")


def decompressed(path: str | Path, origin: Origin, allowance: Allowance | None = None) -> Iterator[bytes | Quarantined]:
    """A file's bytes in blocks, decompressed. Damage is a `Quarantined` with offset and length in the file itself.

    What unpacks beyond the allowance (empty: the file's own) is one of reason `bomb`, and ends the reading.

    Never raises for what is in the file. A file that can't be opened or read raises OSError: that is no property of the
    file's content and may pass, so the shard is tried again instead of being remembered without its records.
    """
    with Path(path).open("rb") as stream:
        head = stream.read(_LONGEST_SIGNATURE)
        kind = compression(head)
        if kind == "none":
            yield head
            while block := stream.read(BLOCK):
                yield block
        else:
            yield from _streams(head, stream, kind, origin, allowance or allowance_of(path))


def peek(chunks: Iterator[bytes | Quarantined], size: int) -> tuple[bytes, Iterator[bytes | Quarantined]]:
    """The first `size` bytes (fewer before damage, and at the end), and all chunks again."""
    taken: list[bytes | Quarantined] = []
    head = bytearray()
    for chunk in chunks:
        taken.append(chunk)
        if isinstance(chunk, Quarantined):
            break
        head += chunk
        if len(head) >= size:
            break
    return bytes(head[:size]), chain(taken, chunks)


def _decoder(kind: str) -> Any:
    if kind == "gzip":
        return zlib.decompressobj(wbits=31)
    if kind == "zstd":
        return _Frame()
    return bz2.BZ2Decompressor() if kind == "bzip2" else lzma.LZMADecompressor(lzma.FORMAT_XZ, XZ_MEMORY)


class _Frame:
    """One Zstandard frame, decompressed as the other decoders do it."""

    def __init__(self) -> None:
        self._object = zstandard.ZstdDecompressor(max_window_size=ZSTD_WINDOW).decompressobj()
        self._rest = b""

    @property
    def eof(self) -> bool:
        """Whether the frame has ended."""
        return self._object.eof

    @property
    def unused_data(self) -> bytes:
        """Input behind the frame."""
        return self._object.unused_data + self._rest

    def decompress(self, data: bytes) -> tuple[bytes, bytes]:
        """Output of the next `ZSTD_PIECE` bytes, and the input behind them while the frame goes on."""
        piece, self._rest = data[:ZSTD_PIECE], data[ZSTD_PIECE:]
        out = self._object.decompress(piece)
        return out, b"" if self.eof else self._rest


def _decode(decoder: Any, kind: str, data: bytes) -> tuple[bytes, bytes]:
    """At most a block of output, and the input not yet used up while the stream goes on."""
    if kind == "gzip":
        out = decoder.decompress(data, BLOCK)
        return out, b"" if decoder.eof else decoder.unconsumed_tail
    if kind == "zstd":
        found: tuple[bytes, bytes] = decoder.decompress(data)
        return found
    return decoder.decompress(data, BLOCK), b""


def _streams(
    head: bytes, stream: Any, kind: str, origin: Origin, allowance: Allowance
) -> Iterator[bytes | Quarantined]:
    """One compressed stream after another; from damage on to the next signature."""
    signature = _SIGNATURES[kind]
    pending = head + stream.read(BLOCK)
    read = len(pending)  # bytes of the file that are read
    while pending:
        begin = read - len(pending)
        if not signature.match(pending):
            if not pending.strip(b"\0"):  # padding
                pending = stream.read(BLOCK)
                read += len(pending)
                continue
            pending, read = _resynchronise(pending, read, stream, signature)
            yield origin.lost("damaged", f"no {kind} stream here", begin, read - len(pending) - begin)
            continue
        decoder = _decoder(kind)
        last = pending  # the input that damage would be in
        try:
            while not decoder.eof:
                last = pending or last  # a decoder may keep what it was given
                out, pending = _decode(decoder, kind, pending)
                if out:
                    allowance.take(len(out))
                    yield out
                if not decoder.eof and not pending and getattr(decoder, "needs_input", True):
                    pending = stream.read(BLOCK)
                    read += len(pending)
                    if not pending:
                        yield origin.lost("truncated", "the file ends inside a stream", begin, -1)
                        return
            pending = decoder.unused_data
            if len(pending) < _LONGEST_SIGNATURE:
                more = stream.read(BLOCK)
                read += len(more)
                pending += more
        except BombError as error:
            yield origin.lost(BOMB, f"{kind}: {error}", begin, -1)
            return
        except (OSError, zlib.error, lzma.LZMAError, EOFError, zstandard.ZstdError) as error:
            if isinstance(error, OSError) and error.errno is not None:
                raise  # the disk's, not bzip2's, which says of bad data OSError without a number
            start = max(read - len(last), begin + 1)
            pending, read = _resynchronise(last[start - (read - len(last)) :], read, stream, signature)
            yield origin.lost("damaged", f"{kind}: {error}", begin, read - len(pending) - begin)


def _resynchronise(pending: bytes, read: int, stream: Any, signature: re.Pattern[bytes]) -> tuple[bytes, int]:
    """Input from the next signature on, and how much of the file is read."""
    while not (match := signature.search(pending)):
        more = stream.read(BLOCK)
        if not more:
            return b"", read
        read += len(more)
        pending = pending[-_LONGEST_SIGNATURE:] + more
    return pending[match.start() :], read


def as_utf8(chunks: Iterator[bytes | Quarantined]) -> Iterator[bytes | Quarantined]:
    """The same bytes with UTF-16 made UTF-8 and a byte-order mark taken off; `Quarantined` passes through."""
    decoder: codecs.IncrementalDecoder | None = None
    head = b""
    started = False
    for chunk in chunks:
        if isinstance(chunk, Quarantined):
            yield chunk
            continue
        if not started:
            head += chunk
            if len(head) < 4:
                continue
            chunk, decoder, started = *_by_head(head), True
        yield decoder.decode(chunk).encode("utf-8", "replace") if decoder else chunk
    if not started and head:
        chunk, decoder = _by_head(head)
        yield decoder.decode(chunk).encode("utf-8", "replace") if decoder else chunk
    if decoder and (tail := decoder.decode(b"", True)):
        yield tail.encode("utf-8", "replace")


def _by_head(head: bytes) -> tuple[bytes, codecs.IncrementalDecoder | None]:
    """The beginning without its mark, and a decoder if it is UTF-16 (by mark, or by zeros beside ASCII)."""
    if head.startswith(codecs.BOM_UTF8):
        return head[3:], None
    for mark, name in ((codecs.BOM_UTF16_LE, "utf-16-le"), (codecs.BOM_UTF16_BE, "utf-16-be")):
        if head.startswith(mark):
            return head[2:], codecs.getincrementaldecoder(name)("replace")
    if len(head) >= 4 and head[0] and not head[1] and head[2] and not head[3]:
        return head, codecs.getincrementaldecoder("utf-16-le")("replace")
    if len(head) >= 4 and not head[0] and head[1] and not head[2] and head[3]:
        return head, codecs.getincrementaldecoder("utf-16-be")("replace")
    return head, None
