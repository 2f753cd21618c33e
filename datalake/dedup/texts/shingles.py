"""From text to a set of 64-bit shingle hashes, compiled, and equal to plain Python for every Unicode text.

Words are runs of letters and digits, lower-cased; in scripts written without spaces (`UNSPACED`: Chinese, Japanese,
Thai, Lao, Khmer, Burmese, Tibetan) each character is a word. A shingle is n consecutive words; a text of fewer than n
words is one shingle as a whole, a text without words has none.

Lower-casing and the classes of characters are those of the running Python: tables over all code points are read off
`str.lower` and `re`. Two rules of `str.lower` are not one character to one and are followed here: U+0130 becomes two
characters, and a capital sigma becomes a final one at the end of a word (Unicode 3.13, rule Final_Sigma).

Hashes: a word's is a multiply-rotate chain over its code points with the 64-bit finaliser of MurmurHash3; a shingle's
is a polynomial over its words' hashes, rolled from one shingle to the next, finalised likewise. Two different shingles
collide with a probability of about 2^-60, so Jaccard over hashes is exact for all practical purposes.
"""

from __future__ import annotations

import re
from functools import cache
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import xxhash

from datalake.compiled import kernel
from datalake.text.hashes import fmix64

# Scripts that put no space between words: Thai and Lao, Tibetan, Burmese, Khmer, kana, ideographs.
UNSPACED = (
    r"\u0e00-\u0eff\u0f00-\u0fff\u1000-\u109f\u1780-\u17ff\u3005-\u3007\u3040-\u30ff\u31f0-\u31ff"
    r"\u3400-\u9fff\uf900-\ufaff\uff66-\uff9f\U00020000-\U0003ffff"
)
WORD = re.compile(rf"(?![{UNSPACED}])[^\W_](?:(?![{UNSPACED}])[^\W_])*|[^\W_]")

Bytes = npt.NDArray[np.uint8]
Ints = npt.NDArray[np.int64]
Hashes = npt.NDArray[np.uint64]

CODE_POINTS = 0x110000
CAPITAL_SIGMA, SIGMA, FINAL_SIGMA = 0x3A3, 0x3C3, 0x3C2
DOTTED_I = 0x130  # the one character whose lower case is two: i and U+0307, combining dot above
COMBINING_DOT = 0x307

# Bits of the character classes. WORD_CHARACTER and ALONE (a word by itself) are asked of lower-cased text, the others
# of the original.
WORD_CHARACTER, ALONE, SPACE, CASED, IGNORABLE = 1, 2, 4, 8, 16

_K1 = np.uint64(0x9E3779B97F4A7C15)  # 2^64 / golden ratio
_K2 = np.uint64(0xC2B2AE3D27D4EB4F)  # a prime of xxHash64
_BASE = np.uint64(0xD6E8FEB86659FD93)  # odd, so that every word of a shingle counts with all its bits


class Characters(NamedTuple):
    """Tables over all code points."""

    lower: npt.NDArray[np.uint32]  # shape (0x110000,): lower case, one to one
    classes: Bytes  # shape (0x110000,): bits of the character's classes


@cache
def characters() -> Characters:
    """The tables, read off this Python's own `str.lower` and `re`."""
    points = np.arange(CODE_POINTS, dtype=np.uint32)
    every = _text(points)
    lowered = [
        _points(every[:DOTTED_I].lower()),
        np.array([ord("i")], np.uint32),
        _points(every[DOTTED_I + 1 :].lower()),
    ]
    # A lone sigma among all the others would see its neighbours: set it by hand, as any other it is lower-cased alone.
    lower = np.concatenate(lowered)
    lower[CAPITAL_SIGMA] = SIGMA
    if len(lower) != CODE_POINTS:
        raise RuntimeError("shingles.py: this Python lower-cases further characters to more than one")

    classes = np.zeros(CODE_POINTS, np.uint8)
    classes[_points("".join(re.findall(r"[^\W_]", every)))] |= WORD_CHARACTER
    classes[_points("".join(re.findall(rf"(?=[^\W_])[{UNSPACED}]", every)))] |= ALONE
    classes[_points("".join(re.findall(r"\s", every)))] |= SPACE
    # Cased and case-ignorable have no public face: ask what a sigma after the character, or after A and it, becomes.
    classes[_sigma_is_final(points, before="")] |= CASED
    classes[_sigma_is_final(points, before="A") & (classes & CASED == 0)] |= IGNORABLE
    return Characters(lower, classes)


def _sigma_is_final(points: npt.NDArray[np.uint32], before: str) -> npt.NDArray[np.bool_]:
    """Whether a capital sigma after `before` and the character is lower-cased as a final one, for each character."""
    columns = [np.full(CODE_POINTS, ord("\n"), np.uint32)]  # neither cased nor ignorable: keeps the rows apart
    columns += [np.full(CODE_POINTS, ord(c), np.uint32) for c in before]
    columns += [np.where(points == DOTTED_I, ord("A"), points).astype(np.uint32)]  # as cased as A, and of one length
    columns += [np.full(CODE_POINTS, CAPITAL_SIGMA, np.uint32)]
    rows = _points(_text(np.stack(columns, axis=1).ravel()).lower() + "\n").ravel()
    return rows[:-1].reshape(CODE_POINTS, len(columns))[:, -1] == FINAL_SIGMA


def _text(points: npt.NDArray[np.uint32]) -> str:
    return points.astype("<u4").tobytes().decode("utf-32-le", "surrogatepass")


def _points(text: str) -> npt.NDArray[np.uint32]:
    return np.frombuffer(text.encode("utf-32-le", "surrogatepass"), "<u4").astype(np.uint32)


@kernel(nogil=False)
def _decode(data: Bytes, at: int) -> tuple[Any, int]:
    """(code point, its bytes) at a position of valid UTF-8."""
    first = np.int64(data[at])
    if first < 0x80:
        return first, 1
    if first < 0xE0:
        return (first & 0x1F) << 6 | np.int64(data[at + 1]) & 0x3F, 2
    if first < 0xF0:
        return (first & 0x0F) << 12 | (np.int64(data[at + 1]) & 0x3F) << 6 | np.int64(data[at + 2]) & 0x3F, 3
    return (
        (first & 0x07) << 18
        | (np.int64(data[at + 1]) & 0x3F) << 12
        | (np.int64(data[at + 2]) & 0x3F) << 6
        | np.int64(data[at + 3]) & 0x3F
    ), 4


@kernel(nogil=False)
def _encode(point: Any, out: Bytes, at: int) -> int:
    """Writes a code point as UTF-8 and returns the position after it."""
    if point < 0x80:
        out[at] = point
        return at + 1
    if point < 0x800:
        out[at] = 0xC0 | point >> 6
        out[at + 1] = 0x80 | point & 0x3F
        return at + 2
    if point < 0x10000:
        out[at] = 0xE0 | point >> 12
        out[at + 1] = 0x80 | point >> 6 & 0x3F
        out[at + 2] = 0x80 | point & 0x3F
        return at + 3
    out[at] = 0xF0 | point >> 18
    out[at + 1] = 0x80 | point >> 12 & 0x3F
    out[at + 2] = 0x80 | point >> 6 & 0x3F
    out[at + 3] = 0x80 | point & 0x3F
    return at + 4


@kernel(nogil=False)
def _is_final_sigma(data: Bytes, start: int, stop: int, at: int, classes: Bytes) -> bool:
    """Whether the capital sigma at `at` ends a word: cased before it, none after, ignorable characters skipped."""
    cased = False
    k = at
    while k > start:
        k -= 1
        while data[k] & 0xC0 == 0x80:
            k -= 1
        kind = classes[_decode(data, k)[0]]
        if kind & IGNORABLE == 0:
            cased = kind & CASED != 0
            break
    if not cased:
        return False
    k = at + 2
    while k < stop:
        point, size = _decode(data, k)
        kind = classes[point]
        if kind & IGNORABLE == 0:
            return kind & CASED == 0
        k += size
    return True


@kernel(nogil=False)
def _scan(
    data: Bytes,
    start: int,
    stop: int,
    lower: npt.NDArray[np.uint32],
    classes: Bytes,
    words: Hashes,
    normal: Bytes,
) -> tuple[int, int, int]:
    """One text's word hashes into `words` and its normalised bytes into `normal`.

    Returns (words, normalised bytes, code points).
    """
    count, written, points = 0, 0, 0
    h = np.uint64(0)
    inside = False  # within a run of word characters
    spaced = False  # white space seen since the last character written
    at = start
    while at < stop:
        byte = data[at]
        if byte < 0x80:  # a run of ASCII, by the same rules
            low = np.int64(lower[byte])
            kind = classes[low]
            at += 1
            points += 1
            if kind & SPACE == 0:
                if spaced and written:
                    normal[written] = 0x20
                    written += 1
                spaced = False
                normal[written] = low
                written += 1
            if kind & WORD_CHARACTER:
                if not inside:
                    inside = True
                    h = np.uint64(0)
                h ^= np.uint64(low) * _K1
                h = (h << np.uint64(31) | h >> np.uint64(33)) * _K2
                while at < stop and data[at] < 0x80:
                    low = np.int64(lower[data[at]])
                    if classes[low] & WORD_CHARACTER == 0:
                        break
                    at += 1
                    points += 1
                    normal[written] = low
                    written += 1
                    h ^= np.uint64(low) * _K1
                    h = (h << np.uint64(31) | h >> np.uint64(33)) * _K2
                continue
            if inside:
                words[count] = fmix64(h)
                count += 1
                inside = False
            if kind & SPACE:
                spaced = True
            continue
        point, size = _decode(data, at)
        points += 1
        second = 0
        if point == DOTTED_I:
            low, second = np.int64(0x69), COMBINING_DOT
        elif point == CAPITAL_SIGMA:
            low = np.int64(FINAL_SIGMA if _is_final_sigma(data, start, stop, at, classes) else SIGMA)
        else:
            low = np.int64(lower[point])
        at += size
        while True:
            kind = classes[low]
            if kind & SPACE:
                spaced = True
            else:
                if spaced and written:
                    normal[written] = 0x20
                    written += 1
                spaced = False
                written = _encode(low, normal, written)
            if kind & WORD_CHARACTER and not kind & ALONE:
                if not inside:
                    inside = True
                    h = np.uint64(0)
                h ^= np.uint64(low) * _K1
                h = (h << np.uint64(31) | h >> np.uint64(33)) * _K2
            else:
                if inside:
                    words[count] = fmix64(h)
                    count += 1
                    inside = False
                if kind & ALONE:
                    words[count] = fmix64(np.uint64(low) * _K1)
                    count += 1
            if second == 0:
                break
            low, second = np.int64(second), 0
    if inside:
        words[count] = fmix64(h)
        count += 1
    return count, written, points


@kernel(nogil=False)
def sort_unique(values: Hashes, count: int, spare: Hashes, ends: Ints) -> int:
    """Sorts the first `count` values and drops repeats, in place; returns how many are left.

    Values are hashes, hence even over their range: one distribution by their leading bits leaves next to nothing for
    the insertion sort that follows. `spare` holds at least `count` values, `ends` at least 2 * count + 2.
    """
    if count < 2:
        return count
    bits = 1
    while 1 << bits < count:
        bits += 1
    shift = np.uint64(64 - bits)
    buckets = 1 << bits
    ends[: buckets + 1] = 0
    for k in range(count):
        ends[np.int64(values[k] >> shift) + 1] += 1
    for k in range(buckets):
        ends[k + 1] += ends[k]
    for k in range(count):
        bucket = np.int64(values[k] >> shift)
        spare[ends[bucket]] = values[k]
        ends[bucket] += 1
    kept = 0
    for k in range(count):
        value = spare[k]
        place = kept
        while place > 0 and values[place - 1] > value:
            place -= 1
        if place > 0 and values[place - 1] == value:
            continue
        for m in range(kept, place, -1):
            values[m] = values[m - 1]
        values[place] = value
        kept += 1
    return kept


@kernel(nogil=False)
def _roll(words: Hashes, count: int, ngram: int, out: Hashes) -> int:
    """The hash of every run of `ngram` words (of all words where there are fewer) into `out`; returns how many."""
    if count == 0:
        return 0
    width = min(count, ngram)
    leaving = np.uint64(1)  # _BASE^width: the weight of the word that leaves the window
    h = np.uint64(0)
    for k in range(width):
        h = h * _BASE + words[k]
        leaving *= _BASE
    out[0] = fmix64(h)
    for k in range(width, count):
        h = h * _BASE + words[k] - leaving * words[k - width]
        out[k - width + 1] = fmix64(h)
    return count - width + 1


@kernel
def _shingle(
    data: Bytes,
    offsets: Ints,
    ngram: int,
    lower: npt.NDArray[np.uint32],
    classes: Bytes,
    shingles: Hashes,
    ends: Ints,
    counts: Ints,
    points: Ints,
    normal: Bytes,
    normal_ends: Ints,
) -> None:
    longest = 0
    for d in range(len(offsets) - 1):
        longest = max(longest, offsets[d + 1] - offsets[d])
    room = longest // 2 + 2
    words, spare, places = np.empty(room, np.uint64), np.empty(room, np.uint64), np.empty(2 * room + 2, np.int64)
    done, written = 0, 0
    for d in range(len(offsets) - 1):
        counts[d], size, points[d] = _scan(data, offsets[d], offsets[d + 1], lower, classes, words, normal[written:])
        written += size
        normal_ends[d] = written
        runs = _roll(words, counts[d], ngram, shingles[done:])
        done += sort_unique(shingles[done:], runs, spare, places)
        ends[d] = done


class Shingled(NamedTuple):
    """Texts as shingle sets, flat: text k's shingles are `shingles[ends[k - 1]:ends[k]]`, sorted, each once."""

    shingles: Hashes
    ends: Ints
    words: Ints
    characters: Ints
    text_hashes: list[bytes]  # xxh3_128 of the normalised texts


def utf8(texts: pa.Array) -> tuple[Bytes, Ints]:
    """A string array's bytes and its n + 1 offsets, without copying the bytes. Nulls read as empty texts."""
    texts = texts.cast(pa.large_string())
    if texts.null_count:
        texts = texts.fill_null("")
    if not len(texts):
        return np.empty(0, np.uint8), np.zeros(1, np.int64)
    _, offsets, data = texts.buffers()
    bounds = np.frombuffer(offsets, np.int64)[texts.offset : texts.offset + len(texts) + 1]
    return np.frombuffer(data, np.uint8) if data is not None and data.size else np.empty(0, np.uint8), bounds


def shingle(texts: pa.Array, ngram: int) -> Shingled:
    """The shingle sets, sizes and text hashes of an Arrow string array."""
    data, offsets = utf8(texts)
    n, size = len(offsets) - 1, int(offsets[-1] - offsets[0])
    tables = characters()
    # A word takes at least two bytes, its separator's or an ideograph's included; lower case half as many again.
    shingles = np.empty(size // 2 + 2 * n + 1, np.uint64)
    normal = np.empty(size + size // 2 + 2 * n + 4, np.uint8)
    ends, counts, points, normal_ends = (np.zeros(n, np.int64) for _ in range(4))
    _shingle(data, offsets, ngram, *tables, shingles, ends, counts, points, normal, normal_ends)
    view, begin, hashes = normal.data, 0, []
    for end in normal_ends.tolist():
        hashes.append(xxhash.xxh3_128_digest(view[begin:end]))
        begin = end
    return Shingled(shingles[: ends[-1] if n else 0].copy(), ends, counts, points, hashes)


@kernel
def _count(data: Bytes, offsets: Ints, lower: npt.NDArray[np.uint32], classes: Bytes, counts: Ints) -> None:
    for d in range(len(offsets) - 1):
        size = offsets[d + 1] - offsets[d]
        words, normal = np.empty(size // 2 + 2, np.uint64), np.empty(size + size // 2 + 4, np.uint8)
        counts[d] = _scan(data, offsets[d], offsets[d + 1], lower, classes, words, normal)[0]


def count_words(texts: pa.Array) -> Ints:
    """The number of words in each text of an Arrow string array."""
    data, offsets = utf8(texts)
    counts = np.zeros(len(offsets) - 1, np.int64)
    _count(data, offsets, *characters(), counts)
    return counts


def word_list(text: str) -> list[str]:
    """The words of a text in plain Python: the definition that the compiled code follows."""
    return WORD.findall(text.lower())


def normalise(text: str) -> str:
    """The text whose hash is the exact level: lower-cased, white space as single spaces. The definition."""
    return " ".join(text.lower().split())
