"""Bytes to text in the encodings of the web, as the WHATWG Encoding standard's decoders read them.

Python has codecs of the same names that read other characters: its `shift_jis` and `big5` lack what Windows and Hong
Kong added, so a character is lost and takes its neighbours along. Each decoder here follows its section of the standard
(https://encoding.spec.whatwg.org), byte for byte; labels and indexes are the standard's, in `encodings.npz`, which
`benchmarks/build_encodings.py` makes from its files.

What the standard refuses only since it has been used to smuggle scripts past filters is read, for here nothing is run:
HZ and ISO-2022-KR, and in ISO-2022-JP an escape sequence straight behind another.
"""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from datalake.compiled import kernel

FILE = Path(__file__).with_name("encodings.npz")

Bytes = npt.NDArray[np.uint8]
Points = npt.NDArray[np.uint32]

# Read by Python's codecs: the standard's UTF decoders, and what it replaces.
_BY_PYTHON = {
    "utf-8": "utf-8",
    "utf-16le": "utf-16-le",
    "utf-16be": "utf-16-be",
    "hz-gb-2312": "hz",
    "iso-2022-kr": "iso2022_kr",
    "csiso2022kr": "iso2022_kr",
}
_NONE = 0  # no index maps a pointer to U+0000
_REPLACEMENT = 0xFFFD


class Indexes(NamedTuple):
    """The standard's indexes: code points by pointer, 0 where a pointer has none."""

    gb18030: Points
    big5: Points
    jis0208: Points
    jis0212: Points
    euc_kr: Points
    range_pointers: Points
    range_points: Points


class Standard(NamedTuple):
    """What `encodings.npz` holds: an encoding's name by label, indexes, and tables of the single-byte encodings."""

    labels: dict[str, str]
    indexes: Indexes
    single: dict[str, Points]


@cache
def standard() -> Standard:
    """The standard's labels and tables, read once a process."""
    with np.load(FILE) as file:
        labels = json.loads(file["labels"].tobytes())
        indexes = Indexes(*(file[name].astype(np.uint32) for name in Indexes._fields))
        single = {name: file[name].astype(np.uint32) for name in json.loads(file["single"].tobytes())}
    high = np.arange(128, dtype=np.uint32)
    single["x-user-defined"] = high + 0xF780
    single["iso-8859-8-i"] = single["iso-8859-8"]
    ascii_half = np.arange(128, dtype=np.uint32)
    return Standard(labels, indexes, {name: np.concatenate([ascii_half, half]) for name, half in single.items()})


def encoding_of(label: str | None) -> str | None:
    """The name of the encoding that a label means (`latin1` is `windows-1252`), None where it means none."""
    if not label:
        return None
    label = label.strip("\t\n\f\r ").lower()
    name = standard().labels.get(label)
    if name == "replacement":
        return label if label in _BY_PYTHON else None
    return name


def decode(data: bytes, encoding: str) -> str:
    """The text of bytes in an encoding named as `encoding_of` names it. What doesn't belong becomes U+FFFD.

    Raises:
        LookupError: where there is no such encoding.
    """
    if encoding in _BY_PYTHON:
        return data.decode(_BY_PYTHON[encoding], "replace")
    if data.isascii() and encoding != "iso-2022-jp":
        return data.decode("ascii")
    tables, codes = standard(), np.frombuffer(data, dtype=np.uint8)
    if encoding in tables.single:
        points = tables.single[encoding][codes]
        points[points == _NONE] = _REPLACEMENT
        points[codes == 0] = 0
        return _text(points)
    kernels = {
        "gbk": _gb18030,  # the standard's decoder of gbk is that of gb18030
        "gb18030": _gb18030,
        "big5": _big5,
        "euc-jp": _euc_jp,
        "shift_jis": _shift_jis,
        "euc-kr": _euc_kr,
        "iso-2022-jp": _iso_2022_jp,
    }
    if encoding not in kernels:
        raise LookupError(f"no encoding {encoding!r}")
    out = np.empty(2 * len(codes) + 2, dtype=np.uint32)
    return _text(out[: kernels[encoding](codes, tables.indexes, out)])


def _text(points: Points) -> str:
    return points.astype("<u4", copy=False).tobytes().decode("utf-32-le")


@kernel(nogil=False)
def _gb18030(data: Bytes, index: Indexes, out: Points) -> int:
    """Section 10.2.1. Bytes that a failed sequence gives back are read again from where they stand."""
    size, at, n = len(data), 0, 0
    while at < size:
        byte = data[at]
        at += 1
        if byte < 0x80:
            out[n] = byte
        elif byte == 0x80:
            out[n] = 0x20AC
        elif byte == 0xFF or at == size:
            out[n] = _REPLACEMENT
        elif 0x30 <= data[at] <= 0x39:
            # Four bytes; where a later one doesn't fit, all but the first are read again; cut short: one error.
            out[n] = _REPLACEMENT
            if at + 1 == size:
                at = size
            elif 0x81 <= data[at + 1] <= 0xFE:
                if at + 2 == size:
                    at = size
                elif 0x30 <= data[at + 2] <= 0x39:
                    pointer = ((byte - 0x81) * 10 + data[at] - 0x30) * 1260 + (data[at + 1] - 0x81) * 10
                    pointer += data[at + 2] - 0x30
                    at += 3
                    ranged = _in_ranges(pointer, index)
                    out[n] = ranged if ranged != _NONE else _REPLACEMENT
        else:
            trail = data[at]
            point = np.uint32(_NONE)
            if 0x40 <= trail <= 0x7E or 0x80 <= trail <= 0xFE:
                point = index.gb18030[(byte - 0x81) * 190 + trail - (0x40 if trail < 0x7F else 0x41)]
            at = _settle(point, trail, at, out, n)
        n += 1
    return n


@kernel(nogil=False)
def _settle(point: np.uint32, trail: int, at: int, out: Points, n: int) -> int:
    """Write what a lead and its trail stand for, and return where to go on: an ASCII byte that isn't a trail is read
    again, so that no markup is swallowed."""
    out[n] = point if point != _NONE else _REPLACEMENT
    return at + 1 if point != _NONE or trail >= 0x80 else at


@kernel(nogil=False)
def _in_ranges(pointer: int, index: Indexes) -> int:
    """The code point of a four-byte sequence: index gb18030 ranges."""
    if 39_419 < pointer < 189_000 or pointer > 1_237_575:
        return _NONE
    if pointer == 7_457:
        return 0xE7C7
    at = np.searchsorted(index.range_pointers, np.uint32(pointer), side="right") - 1
    return index.range_points[at] + pointer - index.range_pointers[at]


@kernel(nogil=False)
def _big5(data: Bytes, index: Indexes, out: Points) -> int:
    """Section 11.1.1. Four pointers stand for a letter and a combining mark."""
    size, at, n = len(data), 0, 0
    while at < size:
        byte = data[at]
        at += 1
        if byte < 0x80:
            out[n] = byte
        elif byte == 0x80 or byte == 0xFF or at == size:
            out[n] = _REPLACEMENT
        else:
            trail = data[at]
            point = np.uint32(_NONE)
            if 0x40 <= trail <= 0x7E or 0xA1 <= trail <= 0xFE:
                pointer = (byte - 0x81) * 157 + trail - (0x40 if trail < 0x7F else 0x62)
                if pointer in (1133, 1135, 1164, 1166):
                    out[n] = 0xCA if pointer < 1164 else 0xEA
                    n += 1
                    point = np.uint32(0x304 if pointer in (1133, 1164) else 0x30C)
                else:
                    point = index.big5[pointer]
            at = _settle(point, trail, at, out, n)
        n += 1
    return n


@kernel(nogil=False)
def _euc_jp(data: Bytes, index: Indexes, out: Points) -> int:
    """Section 12.1.1: two bytes for JIS X 0208 or half-width katakana, three for JIS X 0212."""
    size, at, n = len(data), 0, 0
    while at < size:
        lead = data[at]
        at += 1
        if lead < 0x80:
            out[n] = lead
            n += 1
            continue
        out[n] = _REPLACEMENT
        if (lead == 0x8E or lead == 0x8F or 0xA1 <= lead <= 0xFE) and at < size:
            trail = data[at]
            if lead == 0x8E and 0xA1 <= trail <= 0xDF:
                out[n] = 0xFF61 - 0xA1 + trail
                at += 1
            elif lead == 0x8F and 0xA1 <= trail <= 0xFE:
                at += 1
                if at < size:
                    at = _jis(index.jis0212, trail, data, at, out, n)
            else:
                at = _jis(index.jis0208, lead, data, at, out, n)
        n += 1
    return n


@kernel(nogil=False)
def _jis(index: Points, lead: int, data: Bytes, at: int, out: Points, n: int) -> int:
    """One character of rows and cells from 0xA1 on; an ASCII byte that doesn't belong is read again."""
    trail = data[at]
    point = np.uint32(_NONE)
    if 0xA1 <= lead <= 0xFE and 0xA1 <= trail <= 0xFE:
        pointer = (lead - 0xA1) * 94 + trail - 0xA1
        if pointer < len(index):
            point = index[pointer]
    return _settle(point, trail, at, out, n)


@kernel(nogil=False)
def _shift_jis(data: Bytes, index: Indexes, out: Points) -> int:
    """Section 12.3.1: Windows-31J; pointers from 8836 to 10715 are private use."""
    size, at, n = len(data), 0, 0
    while at < size:
        byte = data[at]
        at += 1
        if byte <= 0x80:
            out[n] = byte
        elif 0xA1 <= byte <= 0xDF:
            out[n] = 0xFF61 - 0xA1 + byte
        elif byte == 0xA0 or byte > 0xFC or at == size:
            out[n] = _REPLACEMENT
        else:
            trail = data[at]
            point = np.uint32(_NONE)
            if 0x40 <= trail <= 0x7E or 0x80 <= trail <= 0xFC:
                pointer = (byte - (0x81 if byte < 0xA0 else 0xC1)) * 188 + trail - (0x40 if trail < 0x7F else 0x41)
                if 8_836 <= pointer <= 10_715:
                    point = np.uint32(0xE000 - 8_836 + pointer)
                elif pointer < len(index.jis0208):
                    point = index.jis0208[pointer]
            at = _settle(point, trail, at, out, n)
        n += 1
    return n


@kernel(nogil=False)
def _euc_kr(data: Bytes, index: Indexes, out: Points) -> int:
    """Section 13.1.1: the whole of Windows-949."""
    size, at, n = len(data), 0, 0
    while at < size:
        byte = data[at]
        at += 1
        if byte < 0x80:
            out[n] = byte
        elif byte == 0x80 or byte == 0xFF or at == size:
            out[n] = _REPLACEMENT
        else:
            trail = data[at]
            point = np.uint32(_NONE)
            if 0x41 <= trail <= 0xFE:
                point = index.euc_kr[(byte - 0x81) * 190 + trail - 0x41]
            at = _settle(point, trail, at, out, n)
        n += 1
    return n


_ASCII, _ROMAN, _KATAKANA, _LEAD = range(4)


@kernel(nogil=False)
def _iso_2022_jp(data: Bytes, index: Indexes, out: Points) -> int:
    """Section 12.2.1, but for an escape sequence straight behind another, which the standard marks: it hides
    scripts from filters, and in old pages and mails it just ends a run of nothing."""
    size, at, n = len(data), 0, 0
    state = _ASCII
    while at < size:
        byte = data[at]
        if byte == 0x1B:
            following = _escaped(data, at)
            if following < 0:
                out[n] = _REPLACEMENT
                n += 1
                at += 1
                continue
            state = following
            at += 3
            continue
        at += 1
        if state == _LEAD and 0x21 <= byte <= 0x7E:
            out[n] = _REPLACEMENT
            if at < size and data[at] != 0x1B:
                trail = data[at]
                at += 1
                if 0x21 <= trail <= 0x7E:
                    point = index.jis0208[(byte - 0x21) * 94 + trail - 0x21]
                    if point != _NONE:
                        out[n] = point
        elif state == _KATAKANA and 0x21 <= byte <= 0x5F:
            out[n] = 0xFF61 - 0x21 + byte
        elif (state in (_ASCII, _ROMAN)) and byte < 0x80 and byte != 0x0E and byte != 0x0F:
            out[n] = byte
            if state == _ROMAN and byte == 0x5C:
                out[n] = 0xA5
            elif state == _ROMAN and byte == 0x7E:
                out[n] = 0x203E
        else:
            out[n] = _REPLACEMENT
        n += 1
    return n


@kernel(nogil=False)
def _escaped(data: Bytes, at: int) -> int:
    """The state that the escape sequence at a place leads to, -1 where it is none."""
    if at + 2 >= len(data):
        return -1
    lead, byte = data[at + 1], data[at + 2]
    if lead == 0x28 and byte == 0x42:
        return _ASCII
    if lead == 0x28 and byte == 0x4A:
        return _ROMAN
    if lead == 0x28 and byte == 0x49:
        return _KATAKANA
    if lead == 0x24 and (byte == 0x40 or byte == 0x42):
        return _LEAD
    return -1
