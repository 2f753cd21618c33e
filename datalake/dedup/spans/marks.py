"""One shard's documents to what tells their repeated parts: hashes of lines, and fingerprints of word runs.

Both depend on a shard's documents and on the marking part of a config alone (spans_config.py): a shard is marked once.

Words are those of shingles.py. Loops run over code points of the lower-cased text, one for each of the original's, so
that places are places in the original: U+0130, whose lower case is two characters, stays one and is read here as i and
a character that ends the word, as its combining dot does.

Fingerprints are winnowing's (Schleimer, Wilkerson, Aiken 2003, "Winnowing: local algorithms for document
fingerprinting"): of every `window` hashes of `gram` words in a row the least one, the rightmost of equals. Equal runs
of gram + window - 1 words therefore share a fingerprint at the same place in both.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from datalake.compiled import kernel
from datalake.dedup.spans.schema import FINGERPRINTS, MEMBERS, UNITS
from datalake.dedup.spans_config import LineMarking, SubstringMarking
from datalake.dedup.texts.shingles import ALONE, SPACE, WORD_CHARACTER, characters
from datalake.text.characters import Points, points
from datalake.text.hashes import fmix64

Ints = npt.NDArray[np.int64]
Hashes = npt.NDArray[np.uint64]
Bytes = npt.NDArray[np.uint8]

COLUMNS = ["id", "text", "source", "created"]

DOTTED_I = 0x130
LINE_FEED = 0x0A
_WORD, _ALONE, _SPACE = 1, 2, 4
_DROPPED, _DIGIT = 1, 2
# Compiled loops are cached by this file's content and hold these numbers as constants.
if (WORD_CHARACTER, ALONE, SPACE) != (_WORD, _ALONE, _SPACE):
    raise RuntimeError("datalake/dedup/spans/marks.py: the classes of characters differ from shingles.py")

# What CCNet takes out of a line beside control characters (cc_net/text_normalizer.py, UNICODE_PUNCT), as code points.
# ASCII punctuation is not among it. The full-width digit one, which is, has become 0 by then.
CCNET_PUNCTUATION = (
    "ff0c 3002 3001 201e 201d 201c ab bb 300d 300c 300a 300b b4 2236 ff1a ff1f ff01 ff08 ff09 ff1b 2013 2014 "
    "ff0e ff5e 2019 2026 2501 3008 3009 3010 3011 ff05 25ba"
)

_K1 = np.uint64(0x9E3779B97F4A7C15)  # 2^64 / golden ratio
_K2 = np.uint64(0xC2B2AE3D27D4EB4F)  # a prime of xxHash64
_BASE = np.uint64(0xD6E8FEB86659FD93)  # odd, so that every word of a gram counts with all its bits


@cache
def ccnet_table() -> Bytes:
    """For each code point whether CCNet drops it or reads it as 0, shape (0x110000,)."""
    table = np.zeros(0x110000, np.uint8)
    table[[int(point, 16) for point in CCNET_PUNCTUATION.split()]] = _DROPPED
    table[[*range(32), *range(127, 160)]] = _DROPPED
    table[[point for point in range(0x110000) if chr(point).isdecimal()]] = _DIGIT
    return table


@cache
def c4_table() -> Bytes:
    """C4 drops nothing and changes no digit, shape (0x110000,)."""
    return np.zeros(0x110000, np.uint8)


def lowered_points(text: str) -> Points:
    """Code points of the lower-cased text, one for each of the text's; U+0130 stands for itself."""
    lower = text.lower()
    if len(lower) == len(text):
        return points(lower)
    lowered = points(text.replace(chr(DOTTED_I), "I").lower()).copy()  # both are cased, so sigmas are the same
    lowered[points(text) == DOTTED_I] = DOTTED_I
    return lowered


@kernel(inline="always")
def _chain(h: np.uint64, value: Any) -> np.uint64:
    h ^= np.uint64(value) * _K1
    return (h << np.uint64(31) | h >> np.uint64(33)) * _K2


# Words ----------------------------------------------------------------------------------------------------------


class Words(NamedTuple):
    """A text's words: their hashes, and where each begins and ends in characters."""

    hashes: Hashes
    starts: Ints
    ends: Ints


@kernel
def _scan_words(text: Points, classes: Bytes, hashes: Hashes, starts: Ints, ends: Ints) -> int:
    count = 0
    h = np.uint64(0)
    inside = False
    for at in range(len(text)):
        point = text[at]
        dotted = point == DOTTED_I
        low = np.uint32(0x69) if dotted else point
        kind = classes[low]
        if kind & _WORD and not kind & _ALONE:
            if not inside:
                inside = True
                h = np.uint64(0)
                starts[count] = at
            h = _chain(h, low)
            if dotted:
                hashes[count], ends[count] = fmix64(h), at + 1
                count += 1
                inside = False
        else:
            if inside:
                hashes[count], ends[count] = fmix64(h), at
                count += 1
                inside = False
            if kind & _ALONE:
                hashes[count], starts[count], ends[count] = fmix64(np.uint64(low) * _K1), at, at + 1
                count += 1
    if inside:
        hashes[count], ends[count] = fmix64(h), len(text)
        count += 1
    return count


def words_of(text: str) -> Words:
    """The words of a text, by the definition in shingles.py."""
    lowered = lowered_points(text)
    size = len(lowered) + 1
    hashes, starts, ends = np.empty(size, np.uint64), np.empty(size, np.int64), np.empty(size, np.int64)
    count = _scan_words(lowered, characters().classes, hashes, starts, ends)
    return Words(hashes[:count], starts[:count], ends[:count])


@kernel
def _winnow(words: Hashes, gram: int, window: int, hashes: Hashes, positions: npt.NDArray[np.int32]) -> int:
    grams = len(words) - gram + 1
    if grams < window:
        return 0
    rolled = np.empty(grams, np.uint64)
    leaving = np.uint64(1)  # _BASE^gram: the weight of the word that leaves
    h = np.uint64(0)
    for k in range(gram):
        h = h * _BASE + words[k]
        leaving *= _BASE
    rolled[0] = fmix64(h)
    for k in range(gram, len(words)):
        h = h * _BASE + words[k] - leaving * words[k - gram]
        rolled[k - gram + 1] = fmix64(h)
    count = 0
    least = -1
    for last in range(window - 1, grams):
        first = last - window + 1
        before = least
        if least < first:
            least = first
            for k in range(first + 1, last + 1):
                if rolled[k] <= rolled[least]:
                    least = k
        elif rolled[last] <= rolled[least]:
            least = last
        if least != before:
            hashes[count], positions[count] = rolled[least], least
            count += 1
    return count


def winnow(words: Hashes, marking: SubstringMarking) -> tuple[Hashes, npt.NDArray[np.int32]]:
    """The fingerprints of a text's words: hashes of `gram` words, and the number of the first of these."""
    room = max(len(words), 1)
    hashes, positions = np.empty(room, np.uint64), np.empty(room, np.int32)
    count = _winnow(words, marking.gram, marking.window, hashes, positions)
    return hashes[:count], positions[:count]


# Lines and paragraphs -------------------------------------------------------------------------------------------


class Units(NamedTuple):
    """A text's lines or paragraphs of at least the minimum."""

    hashes: Hashes
    starts: Ints
    ends: Ints


@kernel
def _hash_unit(
    text: Points, start: int, stop: int, classes: Bytes, table: Bytes, of_words: bool
) -> tuple[np.uint64, int]:
    """(hash of the normalised unit, its length); `start` and `stop` are without white space around it."""
    h = np.uint64(0)
    size, words, inside = 0, 0, False
    for at in range(start, stop):
        point = text[at]
        what = table[point]
        dotted = point == DOTTED_I
        if dotted:  # its lower case is two characters
            h = _chain(_chain(h, np.uint32(0x69)), np.uint32(0x307))
            size += 2
        elif what & _DROPPED == 0:
            h = _chain(h, np.uint32(0x30) if what & _DIGIT else point)
            size += 1
        kind = classes[np.uint32(0x69) if dotted else point]
        if kind & _WORD and not kind & _ALONE:
            words += not inside
            inside = not dotted
        else:
            words += kind & _ALONE != 0
            inside = False
    return fmix64(h ^ np.uint64(size)), words if of_words else size


@kernel
def _scan_units(
    text: Points,
    classes: Bytes,
    table: Bytes,
    paragraphs: bool,
    minimum: int,
    of_words: bool,
    hashes: Hashes,
    starts: Ints,
    ends: Ints,
) -> int:
    count, length = 0, len(text)
    begin, first, last = 0, -1, -1  # of the unit: where it begins, its first and last character that is no space
    earlier = 0  # where the unit before it ends, without the white space that follows it
    blank = False  # a blank line since the last one with text
    at = 0
    while at < length:
        stop, solid, end = at, -1, -1  # the line's end, its first and last character that is no space
        while stop < length and text[stop] != LINE_FEED:
            if classes[text[stop]] & _SPACE == 0:
                solid = stop if solid < 0 else solid
                end = stop
            stop += 1
        if solid < 0:
            blank = True
        else:
            if first < 0:
                first = solid
            elif blank or not paragraphs:
                hash, size = _hash_unit(text, first, last + 1, classes, table, of_words)
                if size >= minimum:
                    hashes[count], starts[count], ends[count] = hash, begin, at
                    count += 1
                begin, first, earlier = at, solid, last + 1
            last, blank = end, False
        at = stop + 1
    if first >= 0:
        hash, size = _hash_unit(text, first, last + 1, classes, table, of_words)
        if size >= minimum:
            # The last one takes the break before it along, as there is none after it.
            hashes[count], starts[count], ends[count] = hash, min(begin, earlier), length
            count += 1
    return count


def units_of(text: str, marking: LineMarking) -> Units:
    """The lines or paragraphs of a text that reach the minimum.

    Each spans the white space up to the next one; the first also what is before it, and the last also what is between
    the one before and itself. So a text of which all units are cut has nothing left, and no blank lines pile up.
    """
    lowered = lowered_points(text)
    room = text.count("\n") + 1
    hashes, starts, ends = np.empty(room, np.uint64), np.empty(room, np.int64), np.empty(room, np.int64)
    count = _scan_units(
        lowered,
        characters().classes,
        ccnet_table() if marking.normalise == "ccnet" else c4_table(),
        marking.unit == "paragraph",
        marking.minimum,
        marking.measure == "words",
        hashes,
        starts,
        ends,
    )
    return Units(hashes[:count], starts[:count], ends[:count])


# Shards ---------------------------------------------------------------------------------------------------------


class Marks(NamedTuple):
    """A shard's documents (MEMBERS), and their units or fingerprints, sorted by hash (UNITS or FINGERPRINTS)."""

    members: pa.Table
    marks: pa.Table


def mark(batches: Iterable[pa.RecordBatch], marking: LineMarking | SubstringMarking) -> Marks:
    """Marks record batches with the columns `id, text, source, created`."""
    lines = isinstance(marking, LineMarking)
    schema = UNITS if lines else FINGERPRINTS
    members, document = [MEMBERS.empty_table()], 0
    found: list[tuple[np.ndarray, ...]] = [(np.empty(0, np.uint64), *[np.empty(0, np.int32)] * (len(schema) - 1))]
    for batch in batches:
        sizes = []
        for text in batch.column("text").to_pylist():
            text = text or ""
            if isinstance(marking, LineMarking):
                units, words = units_of(text, marking), 0
                columns: tuple[np.ndarray, ...] = units.hashes, units.starts, units.ends
            else:
                scanned = words_of(text).hashes
                columns, words = winnow(scanned, marking), len(scanned)
            sizes.append((len(text), words))
            rows = np.full(len(columns[0]), document, np.int32)
            found.append((columns[0].copy(), rows, *(column.astype(np.int32) for column in columns[1:])))
            document += 1
        lengths = np.array(sizes, np.int64).reshape(-1, 2)
        of_batch = [batch.column(name).cast(MEMBERS.field(name).type) for name in ("id", "source", "created")]
        columns_of = [*of_batch, pa.array(lengths[:, 0]), pa.array(lengths[:, 1])]
        members.append(pa.Table.from_arrays(columns_of, schema=MEMBERS))
    gathered = [np.concatenate(column) for column in zip(*found, strict=True)]
    gathered[0] = gathered[0].view(np.int64)
    order = np.lexsort((gathered[2], gathered[1], gathered[0]))
    marks = pa.Table.from_arrays([pa.array(column[order]) for column in gathered], schema=schema)
    return Marks(pa.concat_tables(members), marks)
