"""A text prepared for the kernels of metrics."""

from __future__ import annotations

import numpy as np

from datalake.compiled import kernel
from datalake.curate.metrics.prepared.document import END, START, Document, Text
from datalake.curate.metrics.prepared.english import english_lines
from datalake.curate.metrics.prepared.grams import grams
from datalake.curate.metrics.prepared.lines import lines_and_paragraphs
from datalake.curate.metrics.prepared.repeats import repeats
from datalake.curate.metrics.prepared.tokens import (
    ALPHABETIC,
    LENGTH,
    SEEN,
    STOPPED,
    SYMBOLS,
    TOKENS,
    WORDS,
    tokens_and_words,
)


@kernel
def prepare(text: Text) -> Document:
    """The document of a text that isn't empty."""
    size = len(text.codes)
    for at in range(size):
        text.kinds[at] = text.classes[text.codes[at]]
    tally, lengths, words = tokens_and_words(text)
    stops, distinct, seen = text.stop_count, text.distinct_stops, tally[SEEN]
    if len(text.stops) > 1:
        stops, distinct = tally[STOPPED], 0
        while seen:
            distinct += 1
            seen &= seen - 1
    covered, later, repeated = grams(text.hashes, text.starts, text.ends, words, size)
    lines, line_hashes, line_count, paragraph_repeats, paragraph_count = lines_and_paragraphs(text)
    pieces, alphabetic_pieces = english_lines(text, lines, line_hashes, line_count) if text.english else (0, 0)
    return Document(
        text.codes,
        text.kinds,
        text.classes,
        text.lower,
        text.starts,
        text.ends,
        text.hashes,
        lines,
        line_hashes,
        np.zeros(line_count, np.uint8),
        lengths,
        covered,
        later,
        repeated,
        words,
        tally[TOKENS],
        tally[WORDS],
        tally[LENGTH],
        tally[ALPHABETIC],
        tally[SYMBOLS],
        stops,
        distinct,
        len(text.stops) > 1,
        line_count,
        paragraph_count,
        repeats(lines[START], lines[END], line_hashes[0], line_count),
        paragraph_repeats,
        pieces,
        alphabetic_pieces,
        text.breaks,
        text.signs,
        text.ellipses,
        text.english,
        text.chinese,
        text.traditional,
        text.language_score,
    )
