"""Zstandard frames (RFC 8878) in archives: where each begins and ends, and what is in it up to its damage.

A frame is walked block by block: its end is known without a guess, what is inflated at once is a block of 128 KiB,
and what comes before damage is had. Memory: a window of at most 128 MiB, and a dictionary of at most 8 MiB. The
dictionary of an archive stands in a skippable frame before the others (IIPC's WARC with Zstandard 1.0), itself
compressed or not.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import BinaryIO

import zstandard

MAGIC = b"\x28\xb5\x2f\xfd"
DICTIONARY = b"\x5d\x2a\x4d\x18"
MAX_WINDOW = 128 << 20
MAX_DICTIONARY = 8 << 20
_MAX_BLOCK = 1 << 17
_MAX_FRAME_HEADER = 18


def skippable(head: bytes) -> int:
    """Bytes of the skippable frame that begins here, 0 where none does."""
    if len(head) < 8 or head[1:4] != DICTIONARY[1:] or head[0] & 0xF0 != 0x50:
        return 0
    return 8 + int.from_bytes(head[4:8], "little")


def dictionary(file: BinaryIO) -> zstandard.ZstdCompressionDict | None:
    """The dictionary that an archive begins with, None where it has none that can be read."""
    file.seek(0)
    head = file.read(8)
    length = skippable(head) - 8
    if not head.startswith(DICTIONARY) or not 0 < length <= MAX_DICTIONARY:
        return None
    content = file.read(length)
    if content.startswith(MAGIC):
        out = bytearray()
        file.seek(8)
        if inflate(file, 8, None, out.extend, MAX_DICTIONARY)[0]:
            return None
        content = bytes(out)
    try:
        return zstandard.ZstdCompressionDict(content)
    except zstandard.ZstdError:
        return None


def inflate(
    file: BinaryIO,
    begin: int,
    known: zstandard.ZstdCompressionDict | None,
    write: Callable[[bytes], object],
    most: int,
) -> tuple[str, str, int]:
    """Inflates the frame that begins here: (reason and detail of what is wrong, both empty if nothing is, its end).

    Reasons: `truncated`, `zstd` (damaged, or of a dictionary that isn't here), `too_large` (more than `most` bytes).
    """
    file.seek(begin)
    head = file.read(_MAX_FRAME_HEADER)
    try:
        size = zstandard.frame_header_size(head)
        if size > len(head):
            return "truncated", "ends within a frame", begin
        checksum = 4 if zstandard.get_frame_parameters(head).has_checksum else 0
        inflater = zstandard.ZstdDecompressor(dict_data=known, max_window_size=MAX_WINDOW).decompressobj()
        inflater.decompress(head[:size])
    except (zstandard.ZstdError, ValueError) as error:
        return ("truncated" if len(head) < _MAX_FRAME_HEADER else "zstd"), str(error), begin
    file.seek(begin + size)
    done, last = 0, False
    try:
        while not last:
            start = file.read(3)
            number = int.from_bytes(start, "little")
            last, length = bool(number & 1), 1 if number >> 1 & 3 == 1 else number >> 3
            if len(start) == 3 and length > _MAX_BLOCK:
                return "zstd", f"a block of {length} bytes", begin
            content = file.read(length)
            if len(start) < 3 or len(content) < length:
                write(inflater.decompress(start + content))
                return "truncated", "ends within a frame", begin
            out = inflater.decompress(start + content)
            done += len(out)
            if done > most:
                return "too_large", f"inflates to more than {most} bytes", begin
            write(out)
        end = file.read(checksum)
        if len(end) < checksum:
            return "truncated", "ends within a frame", begin
        if checksum:
            inflater.decompress(end)
    except zstandard.ZstdError as error:
        return "zstd", str(error), begin
    return "", "", file.tell()


def glimpse(file: BinaryIO, at: int, known: zstandard.ZstdCompressionDict | None, most: int) -> tuple[bytes, bool]:
    """The first inflated bytes of what may be a frame, and whether it ends well among them; empty if it is none."""
    file.seek(at)
    if file.read(4) != MAGIC:
        return b"", False
    out = bytearray()
    reason, _, _ = inflate(file, at, known, out.extend, most)
    return bytes(out), not reason
