"""The body of an HTTP message without its transfer and content encodings (RFC 9112, section 7; RFC 9110, section 8.4).

Archives hold bodies as they went over the wire, and also bodies that were decoded under headers that say they weren't:
a body that plainly isn't encoded as declared is taken as it is, as browsers do.
"""

from __future__ import annotations

import io
import re
import zlib
from collections.abc import Callable, Iterable

from fastwarc.stream_io import BrotliReader, ZstdReader

PIECE = 1 << 16
_CHUNK_SIZE = re.compile(rb"[ \t]*([0-9a-fA-F]{1,15})[ \t]*(?:;[^\r\n]{0,1000})?\r?\n")
_TEXT = re.compile(rb"(?:\xef\xbb\xbf)?\s*[<\w]")
_MOST_ENCODINGS = 8  # one over the other


class BodyError(ValueError):
    """A body that can't be decoded. `reason` is one word: chunking or content_encoding."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason


class BodyTooLargeError(ValueError):
    """A body that decodes to more bytes than allowed."""


def decode_body(
    body: bytes, transfer_encodings: Iterable[str], content_encodings: Iterable[str], limit: int, cut: bool = False
) -> bytes:
    """The body with its encodings undone, in the reverse of the order in which the headers name them.

    `limit` bounds the bytes of every step. `cut` says that the crawler is known to have cut the body short
    (WARC-Truncated): then what is there is decoded. Encodings nobody knows are passed over, as browsers do. Raises
    BodyError on a damaged body and BodyTooLargeError beyond the limit.
    """
    for name in reversed([part.strip().lower() for value in transfer_encodings for part in value.split(",")]):
        body = unchunk(body, cut) if name == "chunked" else _decode(body, name, limit, cut)
    undone = 0
    for name in reversed([part.strip().lower() for value in content_encodings for part in value.split(",")]):
        before, body = body, _decode(body, name, limit, cut)
        undone += body is not before
        if undone > _MOST_ENCODINGS:
            raise BodyError("content_encoding", f"encoded more than {_MOST_ENCODINGS} times")
    return body


def unchunk(body: bytes, cut: bool = False) -> bytes:
    """A chunked body's content; a body that doesn't begin with a chunk's size is returned as it is."""
    match = _CHUNK_SIZE.match(body)
    if match is None:
        return body
    chunks: list[bytes] = []
    at = 0
    while True:
        match = _CHUNK_SIZE.match(body, at)
        if match is None:
            if not chunks:
                return body
            if cut or at >= len(body):
                break
            raise BodyError("chunking", f"no chunk size at byte {at}")
        size = int(match[1], 16)
        at = match.end()
        if size == 0:
            return b"".join(chunks)
        if at + size > len(body) and not cut:
            if not chunks:  # the first "size" was the body's own text
                return body
            raise BodyError("chunking", f"a chunk of {size} bytes has {len(body) - at}")
        chunks.append(body[at : at + size])
        at += size
        at += 2 if body.startswith(b"\r\n", at) else 1 if body.startswith(b"\n", at) else 0
    if cut or at >= len(body):
        if not cut:
            raise BodyError("chunking", "ends without its last chunk")
        return b"".join(chunks)
    return body


def _decode(body: bytes, name: str, limit: int, cut: bool) -> bytes:
    """The body without one encoding."""
    if name in ("gzip", "x-gzip"):
        decoders: list[Callable[[], bytes]] = [lambda: _inflate(body, 31, limit, cut)]
        if not body.startswith(b"\x1f\x8b"):
            return body
    elif name == "deflate":  # zlib's format by the standard, bare deflate by custom
        decoders = [lambda: _inflate(body, 15, limit, cut), lambda: _inflate(body, -15, limit, cut)]
    elif name == "br":
        decoders = [lambda: _read(BrotliReader(io.BytesIO(body)), limit, cut)]
    elif name == "zstd":
        decoders = [lambda: _read(ZstdReader(io.BytesIO(body)), limit, cut)]
    else:
        return body
    error = "empty"
    for decoder in decoders:
        try:
            return decoder()
        except (zlib.error, OSError, EOFError) as failure:
            error = str(failure) or type(failure).__name__
    if not body or (name != "gzip" and _TEXT.match(body) and b"<" in body[:1024] and b"\x00" not in body[:1024]):
        return body
    raise BodyError("content_encoding", f"{name}: {error}"[:200])


def _inflate(body: bytes, bits: int, limit: int, cut: bool) -> bytes:
    """All gzip members, or one zlib or deflate stream."""
    out = bytearray()
    at = 0
    while at < len(body):
        inflater = zlib.decompressobj(bits)
        member, size = bytearray(), 1 << 10  # bytes fed at a time grow with the member: it is many small ones at worst
        try:
            while at < len(body) and not inflater.eof:
                piece = body[at : at + size]
                member += inflater.decompress(piece, limit + 1 - len(out) - len(member))
                at += len(piece) - len(inflater.unused_data)
                size *= 2
                if len(out) + len(member) > limit:
                    raise BodyTooLargeError
        except zlib.error:
            if out and bits == 31:  # bytes after the last member
                break
            raise
        out += member
        if not inflater.eof:
            if cut:
                break
            raise EOFError("ends before its time")
        if bits != 31 or not body.startswith(b"\x1f\x8b", at):
            break
    return bytes(out)


def _read(reader: BrotliReader | ZstdReader, limit: int, cut: bool) -> bytes:
    """All that a reader gives, within the limit."""
    out = bytearray()
    try:
        while piece := reader.read(PIECE):
            out += piece
            if len(out) > limit:
                raise BodyTooLargeError
    except OSError:
        if not (cut and out):
            raise
    return bytes(out)
