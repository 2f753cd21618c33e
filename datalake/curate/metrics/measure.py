"""All metrics of a text: prepared once, then given to the kernel of every family, which writes its part of the row."""

from __future__ import annotations

import threading
from functools import cache
from typing import Any

import numpy as np

from datalake.compiled import Kernel, kernel
from datalake.curate.languages import CHINESE, STOP_WORDS, UNSEGMENTED
from datalake.curate.metrics.catalog import FAMILIES, METRICS, NAMES, PLACES
from datalake.curate.metrics.prepared.document import Bits, Hashes, Numbers, Places, Text
from datalake.curate.metrics.prepared.prepare import prepare
from datalake.curate.metrics.prepared.repeats import hash_exact
from datalake.text.characters import Classes, points, tables
from datalake.text.chinese import segment, traditional_characters, traditional_table


def _all_families() -> Kernel:
    """A kernel that calls those of all families, each with its part of the row."""
    kernels = {name: family.measure for name, family in FAMILIES.items() if family.measure is not None}
    calls = [f"    {name}(document, row[{PLACES[name].start}:{PLACES[name].stop}])" for name in kernels]
    defined: dict[str, Any] = {"__name__": __name__, **kernels}
    exec("\n".join(["def families(document, row):", *calls]), defined)
    return kernel(defined["families"])


_families = _all_families()


@kernel
def _measure(text: Text, row: Numbers) -> Bits:
    """All metrics of kernels into the row; the kinds of its lines."""
    document = prepare(text)
    _families(document, row)
    return document.kept


@cache
def _stops(language: str) -> tuple[Hashes, int]:
    """Hashes of the stop words that are tokens, and the longest one's length.

    Before them stands a word of bits, which first letters there are (modulo 64): most tokens need no hash.
    """
    words = STOP_WORDS.get(language, ()) if language not in _STOPS_WITHIN else ()
    first = 0
    for word in words:
        first |= 1 << (ord(word[0]) & 63)
    hashes = [int(hash_exact(points(word), 0, len(word))) for word in words]
    return np.array([first, *hashes], np.uint64), max(map(len, words), default=0)


_STOPS_WITHIN = ("ja", "ko")  # stop words are parts of tokens


class _Room(threading.local):
    """Each thread's arrays, one entry a character, kept from text to text: fresh ones cost page faults."""

    def __init__(self) -> None:
        self.arrays = _arrays(0)

    def of(self, size: int) -> tuple[Places, Places, Hashes, Classes]:
        if size > _ROOM_KEPT:
            return _arrays(size)
        if size > len(self.arrays[0]):
            self.arrays = _arrays(1 << size.bit_length())
        starts, ends, hashes, kinds = self.arrays
        return starts, ends, hashes, kinds[:size]


def _arrays(size: int) -> tuple[Places, Places, Hashes, Classes]:
    """Bounds of words, their hashes, classes of characters."""
    return np.empty(size, np.int64), np.empty(size, np.int64), np.empty(size, np.uint64), np.empty(size, np.uint16)


_ROOM_KEPT = 1 << 20  # characters; a longer text gets room of its own, given back after it
_room = _Room()
_NO_SEGMENTS = np.zeros(0, np.int64)
_WHOLE = [metric.whole for metric in METRICS]
_OF_TOKENS = [k for k, metric in enumerate(METRICS) if metric.of_tokens]
_SIZES = [NAMES.index(name) for name in ("chars", "lines", "paragraphs", "tokens", "words")]
_SCORE = NAMES.index("language_score")


def measure_array(text: str, language: str = "und", score: float | None = None) -> tuple[Numbers, Bits]:
    """The metrics of a text in the order of `catalog.METRICS`, NaN where missing, and a kind for each of its lines.

    `language` chooses the segmenter and the stop words. The kinds, bits of KEPT_C4 and its neighbours, tell which lines
    line edits keep. Never raises, whatever the text.
    """
    row = np.full(len(NAMES), np.nan)
    if not text:
        if score:
            row[_SCORE] = score
        row[_SIZES] = 0
        return row, np.zeros(0, np.uint8)
    codes = points(text)
    classes, lower = tables()
    segments, traditional = _NO_SEGMENTS, 0
    if language in CHINESE:
        pieces = segment(text)
        segments = np.cumsum(np.fromiter(map(len, pieces), np.int64, len(pieces)))
        traditional = traditional_characters(text) if traditional_table()[codes].any() else 0
    stops, longest = _stops(language)
    distinct = count = -1
    if language in _STOPS_WITHIN:
        distinct = sum(word in text for word in STOP_WORDS[language])
        count = sum(map(text.count, STOP_WORDS[language]))
    starts, ends, hashes, kinds = _room.of(len(codes))
    kept = _measure(
        Text(
            codes=codes,
            kinds=kinds,
            classes=classes,
            lower=lower,
            segments=segments,
            stops=stops,
            longest_stop=longest,
            distinct_stops=distinct,
            stop_count=count,
            starts=starts,
            ends=ends,
            hashes=hashes,
            english=language == "en",
            chinese=len(segments) > 0,
            cut=language == "ja",
            traditional=traditional,
            breaks=text.count("\n"),
            signs=text.count("#"),
            ellipses=text.count("...") + text.count("…"),
            language_score=score or np.nan,
        ),
        row,
    )
    if language in UNSEGMENTED:
        row[_OF_TOKENS] = np.nan
    return row, kept


def measure(text: str, language: str = "und", score: float | None = None) -> dict[str, int | float | None]:
    """The metrics of a text by name, None where a metric is missing."""
    values = measure_array(text, language, score)[0].tolist()
    return {
        name: None if value != value else int(value) if whole else value
        for name, whole, value in zip(NAMES, _WHOLE, values, strict=True)
    }
