r"""Decontamination: which n-grams of evaluation sets a document holds, how much of it they cover, where and whose.

Two levels are compared. *Exact*: white-space tokens as they stand (a Chinese character is a token of its own).
*Normalised*: lower-cased words of the text in Unicode's compatibility form (NFKC), without invisible characters; they
are the project's words, `[\u3400-\u9fff]|[^\W_]+`, but a run of letters and digits ends before a Chinese character,
so that 1949年 and 1949 年 are alike.

An n-gram is the shortest run of words that weighs n (13 by default, GPT-3's), where a Chinese character weighs half a
word: 26 characters in Chinese. Thirteen characters are seven words there (1.8 characters each), a length that names of
institutions reach. A reading of an evaluation row that is shorter than that is looked for as a whole if it has 8 words
or 13 characters. N-grams of which less than half is words with a letter (calendars, columns of figures) are left out,
but for rows that have no others.

Lookup: word hashes are summed into a polynomial, so the hash of any run costs two multiplications. A bit map knows
every run of five words of the sets: where the last five words of a run aren't there, no run with them in it is, and as
many are skipped. What passes is looked up in a table in buckets, and what is found there compared with the words of the
evaluation row, character by character: equal hashes of different words count for nothing.
"""

from __future__ import annotations

import re
import threading
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator
from functools import cache
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from datalake.compiled import kernel
from datalake.curate.checks.decontaminate_config import SECTION, DecontaminateConfig
from datalake.curate.checks.evaluation_sets import EvaluationRow, evaluation_rows
from datalake.errors import UserError
from datalake.text.characters import ALNUM, IDEOGRAPH, LETTER, SPACE, Classes, Points, points, tables
from datalake.text.hashes import fmix64
from datalake.text.normal_forms import normal_form

Ints = npt.NDArray[np.int32]
Longs = npt.NDArray[np.int64]
Hashes = npt.NDArray[np.uint64]
Bytes = npt.NDArray[np.uint8]

EXACT, NORMALISED = "exact", "normalised"
PIECE = 5  # words; no run that is looked for has fewer
_NOT_SIMPLE = 0xFFFFFFFF
_CHANGED = 0x33480  # no character of a word, nor one that NFKC changes, is assigned beyond (Unicode 16)
_INVISIBLE = re.compile("[\xad\u200b\u2060\ufeff]")
_K1 = np.uint64(0x9E3779B97F4A7C15)  # 2^64 / golden ratio
_SEED = np.uint64(0x2545F4914F6CDD1D)
_BASE = np.uint64(0xD6E8FEB86659FD93)
# Compiled loops are cached by this file's content and hold these numbers as constants.
if (SPACE, LETTER, ALNUM, IDEOGRAPH) != (1, 2, 4, 8):
    raise RuntimeError("datalake/curate/checks/decontaminate.py: the classes differ from characters.py")


class Overlap(NamedTuple):
    """What a document holds of evaluation sets; all of it empty or 0 where that is nothing.

    Where both levels find something, `ngrams`, `share` and the span are each the larger one's.
    """

    ngrams: int  # distinct n-grams (and whole short rows) found
    share: float  # of the document's words, those within one
    start: int | None = None  # the longest stretch of text they cover, as character offsets
    end: int | None = None
    level: str | None = None  # `exact` where tokens as they stand overlap, else `normalised`
    row: str | None = None  # `set#row`: the evaluation row with the most n-grams in that stretch


class Stretch(NamedTuple):
    """A stretch of a text that an overlap covers, in characters, and the evaluation row with most n-grams in it."""

    start: int
    end: int
    row: str  # `set#row`


class SetCounts(NamedTuple):
    """What an index holds of one file of evaluation sets (normalised level)."""

    set: str
    rows: int
    whole: int  # rows without an n-gram, looked for as a whole
    ignored: int  # rows too short for that
    ngrams: int  # distinct
    numbers: int  # n-grams left out as mostly figures
    frequent: int  # distinct n-grams left out as in too many rows


@kernel
def _split(
    codes: Points,
    begin: int,
    end: int,
    classes: Classes,
    fold: Points,
    exact: bool,
    starts: Ints,
    ends: Ints,
    hashes: Hashes,
    kinds: Bytes,
    count: int,
) -> int:
    """Words of a stretch of text from number `count` on: bounds, hashes, kinds; returns how many there are then.

    A kind's two low bits are the weight in halves of a word, bit 2 says that it has a letter, bit 3 an ideograph.
    """
    skipped, stop = (0, SPACE | IDEOGRAPH) if exact else (IDEOGRAPH | ALNUM, IDEOGRAPH)
    at = begin
    while at < end:
        code = codes[at]
        kind = classes[code]
        if (exact and kind & SPACE) or (not exact and not kind & skipped):
            at += 1
            continue
        starts[count] = at
        h = (_SEED ^ np.uint64(fold[code])) * _K1
        h ^= h >> np.uint64(29)
        at += 1
        if kind & IDEOGRAPH:
            kinds[count] = 13  # half a word, with a letter, an ideograph
        else:
            letter = kind & LETTER
            while at < end:
                inner = classes[codes[at]]
                if inner & stop or not (exact or inner & ALNUM):
                    break
                letter |= inner & LETTER
                h = (h ^ np.uint64(fold[codes[at]])) * _K1
                h ^= h >> np.uint64(29)
                at += 1
            # Punctuation among Chinese characters weighs as they do.
            half = exact and code >= 0x2000 and not kind & ALNUM
            kinds[count] = (1 if half else 2) | (4 if letter else 0)
        ends[count] = at
        hashes[count] = fmix64(h)
        count += 1
    return count


@kernel
def _split_all(
    codes: Points,
    bounds: Longs,
    classes: Classes,
    fold: Points,
    exact: bool,
    starts: Ints,
    ends: Ints,
    hashes: Hashes,
    kinds: Bytes,
    word_bounds: Longs,
) -> int:
    """The words of texts that lie one behind the other, and where each text's words begin into `word_bounds`."""
    count = 0
    for text in range(len(bounds) - 1):
        word_bounds[text] = count
        count = _split(codes, bounds[text], bounds[text + 1], classes, fold, exact, starts, ends, hashes, kinds, count)
    word_bounds[len(bounds) - 1] = count
    return count


@kernel
def _grams(
    word_bounds: Longs,
    hashes: Hashes,
    kinds: Bytes,
    mains: npt.NDArray[np.bool_],
    goal: int,
    least: int,
    characters: int,
    grams: Hashes,
    places: Ints,
    sizes: Bytes,
    texts: Ints,
    wholes: Bytes,
) -> tuple[int, Longs]:
    """The hash of every n-gram of weight `goal` of every text, with its first word, words and text.

    Of a text that weighs less, but `least` or has so many `characters`, the run of its first words that weighs
    `characters` (at most `least`), marked in `wholes`, with the number of all its words. N-grams of mostly figures are
    left out, but where a text of `mains` has no others. Returns how many there are, and for each text 0 where it is
    looked for by n-grams, 1 as a whole, 2 not at all; behind these, for each, how many n-grams were left out.
    """
    made = 0
    state = np.zeros(2 * (len(word_bounds) - 1), np.int64)
    half = len(word_bounds) - 1
    for text in range(half):
        first, last = word_bounds[text], word_bounds[text + 1]
        found, before = False, made
        for attempt in range(2):
            j, weight, lettered = first, 0, 0
            for i in range(first, last):
                while j < last and weight < goal:
                    weight += kinds[j] & 3
                    lettered += (kinds[j] & 3) * (kinds[j] >> 2 & 1)
                    j += 1
                if weight < goal:
                    break
                found = True
                if attempt or 2 * lettered >= weight:
                    h = np.uint64(0)
                    for k in range(i, j):
                        h = h * _BASE + hashes[k]
                    grams[made], places[made], sizes[made], texts[made], wholes[made] = fmix64(h), i, j - i, text, 0
                    made += 1
                else:
                    state[half + text] += 1
                weight -= kinds[i] & 3
                lettered -= (kinds[i] & 3) * (kinds[i] >> 2 & 1)
            if made > before or not found or not mains[text]:
                break
            state[half + text] = 0  # nothing but figures: then they are what tells the row
        if found:
            continue
        weight, ideographs, lettered = 0, 0, 0
        for k in range(first, last):
            weight += kinds[k] & 3
            ideographs += kinds[k] >> 3 & 1
            lettered += (kinds[k] & 3) * (kinds[k] >> 2 & 1)
        if (weight < least and ideographs < characters) or 2 * lettered < weight:
            state[text] = 2
            continue
        state[text] = 1
        h, weight, k = np.uint64(0), 0, first
        while weight < characters:
            h = h * _BASE + hashes[k]
            weight += kinds[k] & 3
            k += 1
        grams[made], places[made], sizes[made], texts[made], wholes[made] = fmix64(h), first, last - first, text, 1
        made += 1
    return made, state


@kernel
def _same(
    codes: Points,
    fold: Points,
    starts: Ints,
    ends: Ints,
    at: int,
    count: int,
    own_codes: Points,
    own_starts: Ints,
    own_ends: Ints,
    place: int,
    size: int,
) -> bool:
    """Whether `size` words of the text from word `at` on are those of the evaluation set from `place` on."""
    if at + size > count:
        return False
    for k in range(size):
        a, b = starts[at + k], own_starts[place + k]
        length = ends[at + k] - a
        if length != own_ends[place + k] - b:
            return False
        for c in range(length):
            if fold[codes[a + c]] != own_codes[b + c]:
                return False
    return True


@kernel
def _pieces(word_bounds: Longs, hashes: Hashes, texts: npt.NDArray[np.bool_], size: int, out: Hashes) -> int:
    """The hash of every run of `size` words of these texts; returns how many."""
    made = 0
    for text in range(len(word_bounds) - 1):
        if texts[text]:
            for i in range(word_bounds[text], word_bounds[text + 1] - size + 1):
                h = np.uint64(0)
                for k in range(i, i + size):
                    h = h * _BASE + hashes[k]
                out[made] = fmix64(h)
                made += 1
    return made


@kernel
def _find(
    codes: Points,
    own_codes: Points,
    fold: Points,
    starts: Ints,
    ends: Ints,
    own_starts: Ints,
    own_ends: Ints,
    sums: Hashes,
    kinds: Bytes,
    count: int,
    powers: Hashes,
    goal: int,
    keys: Hashes,
    places: Ints,
    sizes: Bytes,
    buckets: Ints,
    bits: int,
    filter_: Bytes,
    filter_bits: int,
) -> Longs:
    """Where a text's words are those of a table's runs, three numbers each: first word, words, place in the table.

    `sums`: the polynomial over the words before each. `goal`: weight of the runs that the keys are hashes of. `filter_`
    knows the hashes of all runs of PIECE words in them: where the last words of a run are none of these, no run with
    them in it is in the table, and the next one looked at begins behind their first.
    """
    hits = np.empty(12, np.int64)
    found, i, j, weight = 0, 0, 0, 0
    while True:
        while j < count and weight < goal:
            weight += kinds[j] & 3
            j += 1
        if weight < goal:
            break
        h = fmix64(sums[j] - sums[j - PIECE] * powers[PIECE])
        spot = np.int64(h >> np.uint64(64 - filter_bits))
        if not filter_[spot >> 3] >> (spot & 7) & 1:
            while i < j - PIECE + 1:
                weight -= kinds[i] & 3
                i += 1
            continue
        h = fmix64(sums[j] - sums[i] * powers[j - i])
        bucket = np.int64(h >> np.uint64(64 - bits))
        for k in range(buckets[bucket], buckets[bucket + 1]):
            if keys[k] == h and _same(
                codes, fold, starts, ends, i, count, own_codes, own_starts, own_ends, places[k], sizes[k]
            ):
                if 3 * found + 3 > len(hits):
                    hits = np.concatenate((hits, np.empty_like(hits)))
                hits[3 * found], hits[3 * found + 1], hits[3 * found + 2] = i, sizes[k], k
                found += 1
        weight -= kinds[i] & 3
        i += 1
    return hits[: 3 * found]


@kernel
def _look(
    codes: Points,
    classes: Classes,
    fold: Points,
    exact: bool,
    starts: Ints,
    ends: Ints,
    sums: Hashes,
    kinds: Bytes,
    powers: Hashes,
    own_codes: Points,
    own_starts: Ints,
    own_ends: Ints,
    goal: int,
    keys: Hashes,
    places: Ints,
    sizes: Bytes,
    buckets: Ints,
    bits: int,
    filter_: Bytes,
    filter_bits: int,
    short_goal: int,
    short_keys: Hashes,
    short_places: Ints,
    short_sizes: Bytes,
    short_buckets: Ints,
    short_bits: int,
    short_filter: Bytes,
    short_filter_bits: int,
) -> tuple[int, Longs, Longs]:
    """How many words a text has, and the hits of n-grams and of whole short rows among them."""
    count = _split(codes, 0, len(codes), classes, fold, exact, starts, ends, sums, kinds, 0)
    total = np.uint64(0)
    for k in range(count):
        total, sums[k] = total * _BASE + sums[k], total
    sums[count] = total
    long = _find(
        codes, own_codes, fold, starts, ends, own_starts, own_ends, sums, kinds, count, powers, goal,
        keys, places, sizes, buckets, bits, filter_, filter_bits,
    )  # fmt: skip
    short = _find(
        codes, own_codes, fold, starts, ends, own_starts, own_ends, sums, kinds, count, powers, short_goal,
        short_keys, short_places, short_sizes, short_buckets, short_bits, short_filter, short_filter_bits,
    )  # fmt: skip
    return count, long, short


class _Table(NamedTuple):
    """A table of runs of words: sorted hashes, with where each one's words lie, how many they are, and its row."""

    keys: Hashes
    places: Ints
    sizes: Bytes
    rows: Ints
    buckets: Ints  # where keys with the same leading bits begin
    bits: int
    filter: Bytes  # a bit for the leading bits of each piece's hash
    filter_bits: int

    @classmethod
    def of(cls, keys: Hashes, places: Ints, sizes: Bytes, rows: Ints, pieces: Hashes, about: int) -> _Table:
        """A table of sorted keys. The filter has 16 to 32 bits for each of `about` so many distinct pieces."""
        bits = max(1, len(keys).bit_length())
        ends = np.arange(1, 1 << bits, dtype=np.uint64) << np.uint64(64 - bits)
        buckets = np.concatenate([[0], np.searchsorted(keys, ends), [len(keys)]]).astype(np.int32)
        filter_bits = max(1, about.bit_length()) + 4
        marks = np.zeros(1 << filter_bits, np.bool_)
        marks[(pieces >> np.uint64(64 - filter_bits)).astype(np.int64)] = True
        return cls(keys, places, sizes, rows, buckets, bits, np.packbits(marks, bitorder="little"), filter_bits)


class _Level(NamedTuple):
    """All of the evaluation sets at one level."""

    exact: bool
    fold: Points  # what a character counts as
    codes: Points  # the readings' characters, folded
    starts: Ints  # of their words
    ends: Ints
    grams: _Table
    wholes: _Table


@cache
def _simple() -> Points:
    """For every character the one it is in NFKC, _NOT_SIMPLE where that depends on others or isn't one.

    A character that is no part of a word, nor becomes one, stays.
    """
    table = np.arange(0x110000, dtype=np.uint32)
    for point in range(0x80, _CHANGED):
        character = chr(point)
        form = unicodedata.normalize("NFKC", character)
        if not _begins(character) or _INVISIBLE.match(character):
            table[point] = _NOT_SIMPLE
        elif len(form) == 1:
            table[point] = ord(form)
        elif any(map(str.isalnum, form)):
            table[point] = _NOT_SIMPLE
    return table


@cache
def _as_it_stands() -> Points:
    return np.arange(0x110000, dtype=np.uint32)


def _normal(text: str) -> str:
    """The text whose words the normalised level compares."""
    if text.isascii():
        return text
    text = normal_form("NFKC", text)
    return _INVISIBLE.sub("", text) if _INVISIBLE.search(text) else text


class Index:
    """The n-grams of evaluation sets. `overlap` looks a text up and is safe in threads.

    `sets` tells what is in it by file, `files` which file each set (a file, or a member of an archive) is in.
    """

    def __init__(self, rows: Iterable[EvaluationRow], config: DecontaminateConfig):
        self._goal = 2 * config.ngram
        self._characters = -(-13 * config.shortest // 8)
        self._powers = np.array([pow(int(_BASE), k, 1 << 64) for k in range(self._goal + 2)], np.uint64)
        self._sets: list[str] = []
        self._set_of: list[int] = []
        self._numbers: list[int] = []
        self.files: dict[str, str] = {}
        files: dict[str, int] = {}
        file_of: list[int] = []
        numbers: dict[str, int] = {}
        readings: list[str] = []
        reading_row: list[int] = []
        for row, entry in enumerate(rows):
            if entry.set not in numbers:
                numbers[entry.set] = len(self._sets)
                self._sets.append(entry.set)
                self.files[entry.set] = entry.file
            self._set_of.append(numbers[entry.set])
            self._numbers.append(entry.number)
            file_of.append(files.setdefault(entry.file, len(files)))
            readings += entry.readings
            reading_row += [row] * len(entry.readings)
        row_of = np.array(reading_row, np.int32)
        file_of_row = np.array(file_of, np.int64)
        normal, self.sets = self._level(False, [_normal(t) for t in readings], row_of, file_of_row, list(files), config)
        exact, _ = self._level(True, readings, row_of, file_of_row, list(files), config)
        self._levels = (exact, normal)

    def _level(
        self,
        exact: bool,
        texts: list[str],
        row_of: Ints,
        file_of_row: Longs,
        files: list[str],
        config: DecontaminateConfig,
    ) -> tuple[_Level, list[SetCounts]]:
        fold = _as_it_stands() if exact else tables().lower
        codes = points("".join(texts))
        if len(codes) >= 2**31:
            raise UserError("curate.decontaminate: the evaluation sets hold more than 2^31 characters: leave some out")
        bounds = np.cumsum([0, *map(len, texts)], dtype=np.int64)
        size = len(codes)
        starts, ends = np.empty(size, np.int32), np.empty(size, np.int32)
        hashes, kinds = np.empty(size, np.uint64), np.empty(size, np.uint8)
        word_bounds = np.zeros(len(bounds), np.int64)
        words = _split_all(codes, bounds, tables().classes, fold, exact, starts, ends, hashes, kinds, word_bounds)
        starts, ends, hashes, kinds = starts[:words].copy(), ends[:words].copy(), hashes[:words], kinds[:words]
        mains = np.ones(len(texts), np.bool_)  # the first reading of each row
        mains[1:] = row_of[1:] != row_of[:-1]
        room = words + len(texts)
        grams, wholes, sizes = np.empty(room, np.uint64), np.empty(room, np.uint8), np.empty(room, np.uint8)
        places, of_text = np.empty(room, np.int32), np.empty(room, np.int32)
        made, state = _grams(
            word_bounds, hashes, kinds, mains, self._goal, 2 * config.shortest, self._characters, grams, places, sizes,
            of_text, wholes,
        )  # fmt: skip
        grams, wholes, sizes, places = grams[:made], wholes[:made] == 1, sizes[:made], places[:made]
        rows = row_of[of_text[:made]] if made else np.zeros(0, np.int32)

        order = np.argsort(grams, kind="stable")  # stable: of equal ones the first row's comes first
        order = order[~wholes[order]]
        keys, row = grams[order], rows[order]
        new = np.ones(len(keys), np.bool_)
        new[1:] = keys[1:] != keys[:-1]
        first = np.flatnonzero(new)
        another = new.copy()  # an n-gram's first, or its first in another row
        another[1:] |= row[1:] != row[:-1]
        in_rows = np.add.reduceat(another, first, dtype=np.int64) if len(first) else np.zeros(0, np.int64)
        few = np.ones(len(first), np.bool_) if config.max_rows is None else in_rows <= config.max_rows
        kept = order[first[few]]
        long_pieces = self._pieces(word_bounds, hashes, state[: len(texts)] != 1)
        table = _Table.of(grams[kept], places[kept], sizes[kept], rows[kept], long_pieces, len(kept))

        short = np.flatnonzero(wholes)
        once: dict[bytes, int] = {}  # of equal rows the first
        for k in short.tolist():
            once.setdefault(hashes[places[k] : places[k] + sizes[k]].tobytes(), k)
        short = np.array(list(once.values()), np.int64)
        short = short[np.argsort(grams[short], kind="stable")]
        short_pieces = self._pieces(word_bounds, hashes, state[: len(texts)] == 1)
        short_table = _Table.of(
            grams[short], places[short], sizes[short], rows[short], short_pieces, int(sizes[short].sum())
        )
        counts = _counts(files, file_of_row, row_of, state, row, new, np.repeat(few, np.diff([*first, len(keys)])))
        return _Level(exact, fold, fold[codes], starts, ends, table, short_table), counts

    @staticmethod
    def _pieces(word_bounds: Longs, hashes: Hashes, texts: npt.NDArray[np.bool_]) -> Hashes:
        """Hashes of the runs of PIECE words of these texts."""
        out = np.empty(len(hashes), np.uint64)
        return out[: _pieces(word_bounds, hashes, texts, PIECE, out)]

    def name(self, row: int) -> str:
        """`set#row` of a row by its place among all."""
        return f"{self._sets[self._set_of[row]]}#{self._numbers[row]}"

    def overlap(self, text: str) -> Overlap:
        """What the text holds of the evaluation sets. Offsets are into the text as given."""
        return self.look(text)[0]

    def look(self, text: str) -> tuple[Overlap, list[Stretch]]:
        """What the text holds of the evaluation sets, and all stretches that overlaps cover, in their order.

        Stretches are those of both levels, which may lie one over the other.
        """
        exact, normal = self._levels
        codes = points(text)
        best = self._overlap(exact, codes)
        normalised = codes if text.isascii() else _simple()[codes]
        if len(codes) and normalised.max() == _NOT_SIMPLE:
            form = _normal(text)
            found = self._overlap(normal, points(form))
            if found is not None and form != text:
                overlap, stretches = found
                assert overlap.start is not None
                assert overlap.end is not None
                ends = (place for stretch in stretches for place in (stretch.start, stretch.end - 1))
                there = dict(_originals(text, sorted({*ends, overlap.start, overlap.end - 1})))
                found = (
                    overlap._replace(start=there[overlap.start][0], end=there[overlap.end - 1][1]),
                    [s._replace(start=there[s.start][0], end=there[s.end - 1][1]) for s in stretches],
                )
        else:
            found = self._overlap(normal, normalised)
        if best is not None and found is not None:
            return _larger(best[0], found[0]), sorted(best[1] + found[1])
        return best or found or (Overlap(0, 0.0), [])

    def _overlap(self, level: _Level, codes: Points) -> tuple[Overlap, list[Stretch]] | None:
        grams, wholes = level.grams, level.wholes
        starts, ends, sums, kinds = _room.of(len(codes))
        words, long, short = _look(
            codes, tables().classes, level.fold, level.exact, starts, ends, sums, kinds, self._powers,
            level.codes, level.starts, level.ends, self._goal,
            grams.keys, grams.places, grams.sizes, grams.buckets, grams.bits, grams.filter, grams.filter_bits,
            self._characters,
            wholes.keys, wholes.places, wholes.sizes, wholes.buckets, wholes.bits, wholes.filter, wholes.filter_bits,
        )  # fmt: skip
        if not len(long) and not len(short):
            return None
        at, size, which = np.concatenate([long, short]).reshape(-1, 3).T
        row = np.concatenate([grams.rows[long[2::3]], wholes.rows[short[2::3]]])
        which[len(long) // 3 :] += len(grams.keys)
        order = np.argsort(at, kind="stable")
        at, size, which, row = at[order], size[order], which[order], row[order]
        until = np.maximum.accumulate(at + size)
        begins = np.flatnonzero(np.concatenate([[True], at[1:] > until[:-1]]))
        lasts = np.append(begins[1:], len(at)) - 1
        covered = int((until[lasts] - at[begins]).sum())
        stretches = []
        for first, last in zip(begins.tolist(), lasts.tolist(), strict=True):
            _, each = np.unique(which[first : last + 1], return_index=True)
            rows = Counter(row[first : last + 1][each].tolist())
            name = self.name(min(rows, key=lambda row: (-rows[row], row)))
            stretches.append(Stretch(int(starts[at[first]]), int(ends[until[last] - 1]), name))
        longest = max(stretches, key=lambda stretch: stretch.end - stretch.start)
        ngrams, level_name = len(np.unique(which)), EXACT if level.exact else NORMALISED
        return Overlap(ngrams, covered / words, longest.start, longest.end, level_name, longest.row), stretches


def _larger(exact: Overlap, normal: Overlap) -> Overlap:
    """Both levels' findings as one: the larger of each, and the row of the longer stretch."""
    assert exact.start is not None
    assert exact.end is not None
    assert normal.start is not None
    assert normal.end is not None
    where = exact if exact.end - exact.start >= normal.end - normal.start else normal
    return where._replace(ngrams=max(exact.ngrams, normal.ngrams), share=max(exact.share, normal.share), level=EXACT)


def _counts(
    files: list[str],
    file_of_row: Longs,
    row_of: Ints,
    state: Longs,
    rows: Ints,
    new: npt.NDArray[np.bool_],
    few: npt.NDArray[np.bool_],
) -> list[SetCounts]:
    """What is in an index by file, from every n-gram's rows in the order of their hashes."""
    texts = len(row_of)
    size = len(files)
    total = np.bincount(file_of_row, minlength=size)
    best = np.full(len(file_of_row), 2, np.int64)  # a row's best reading
    np.minimum.at(best, row_of, state[:texts])
    file = file_of_row[rows] if len(rows) else np.zeros(0, np.int64)
    another = new.copy()
    another[1:] |= file[1:] != file[:-1]
    figures = np.zeros(size, np.int64)
    np.add.at(figures, file_of_row[row_of] if texts else np.zeros(0, np.int64), state[texts:])
    columns = (
        total,
        np.bincount(file_of_row[best == 1], minlength=size),
        np.bincount(file_of_row[best == 2], minlength=size),
        np.bincount(file[another & few], minlength=size),
        figures,
        np.bincount(file[another & ~few], minlength=size),
    )
    return [SetCounts(name, *(int(column[k]) for column in columns)) for k, name in enumerate(files)]


def _begins(character: str) -> bool:
    """Whether normalising never joins the character to what is before it."""
    first = unicodedata.normalize("NFKD", character)[0]
    return not (unicodedata.category(first)[0] == "M" or 0x1160 <= ord(first) <= 0x11FF)


def _original(text: str, place: int) -> tuple[int, int]:
    """Bounds of the characters of a text that character number `place` of its normalised form comes from."""
    return next(_originals(text, [place]))[1]


def _originals(text: str, places: Iterable[int]) -> Iterator[tuple[int, tuple[int, int]]]:
    """(place, what `_original` gives) of places in the normalised form, in their order: one way through the text."""
    start, before, close = 0, 0, 0  # `close`: where the stretch ends that holds the place, walked by characters
    for place in places:
        while start < len(text):  # whole stretches first: normalising one is far cheaper than its characters
            end = start + (1 if start < close else 4096)
            while end < len(text) and not _begins(text[end]):
                end += 1
            length = len(_normal(text[start:end]))
            if before + length > place:
                if start < close:
                    yield place, (start, min(end, len(text)))
                    break
                close = end
                continue
            start, before = end, before + length
        else:
            yield place, (len(text), len(text))


class _Room(threading.local):
    """Each thread's arrays for words, kept from text to text: fresh ones cost page faults."""

    def __init__(self) -> None:
        self.size = 0
        self.arrays: tuple[Any, ...] = ()

    def of(self, characters: int) -> tuple[Any, ...]:
        """Starts, ends, sums of hashes and kinds of the words of so many characters."""
        if characters > _ROOM_KEPT:
            return _arrays(characters)
        if characters >= self.size:
            self.size = 1 << (characters + 1).bit_length()
            self.arrays = _arrays(self.size)
        return self.arrays


def _arrays(size: int) -> tuple[Any, ...]:
    return (
        np.empty(size, np.int32),
        np.empty(size, np.int32),
        np.empty(size + 1, np.uint64),
        np.empty(size, np.uint8),
    )


_ROOM_KEPT = 1 << 20  # characters; a longer text gets room of its own, given back after it
_room = _Room()
_lock = threading.Lock()
_held: dict[bytes, Index] = {}


def index_of(config: DecontaminateConfig) -> Index:
    """The index of a config's evaluation sets, built once in a process.

    Raises:
        UserError: where a set can't be read, or the files are not those the config was made with.
    """
    from datalake.identity import canonical

    key = canonical(config)
    with _lock:
        if key not in _held:
            config.paths.check(f"{SECTION}.paths")
            _held.clear()  # one at a time: it may be large
            near = 2 * config.ngram  # Chinese characters of an n-gram
            rows = (row for name, path in config.paths.listed() for row in evaluation_rows(name, path, near))
            _held[key] = Index(rows, config)
        return _held[key]
