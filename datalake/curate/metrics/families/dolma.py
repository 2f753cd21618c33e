"""What Dolma's taggers count of tokens and n-grams (Soldaini et al. 2024, arXiv:2402.00159; its gopher.py)."""

from __future__ import annotations

import numpy as np

from datalake.compiled import kernel
from datalake.curate.metrics.family import Family, Metric
from datalake.curate.metrics.prepared.document import Document, Numbers, Places

METRICS = (
    Metric("median_word_length", False, "median length of tokens, symbols included (Dolma)", of_tokens=True),
    Metric("symbol_words", False, "share of tokens that hold # or … (Dolma)", of_tokens=True),
    Metric("symbol_ratio", False, "#, ... and … together per word (DCLM)", of_tokens=True),
    Metric("stop_word_count", True, "occurrences of stop words, where a list is known (DCLM, Dolma)"),
    *(
        Metric(f"repeat_{n}gram", False, f"characters of {n}-grams that repeat / of all {n}-grams (Dolma)")
        for n in range(5, 11)
    ),
)


@kernel
def measure(document: Document, row: Numbers) -> None:
    """Lengths and symbols of tokens, stop words, n-grams that repeat."""
    tokens, words = document.tokens, document.words
    if tokens:
        row[0] = _median(document.lengths, tokens)
        row[1] = document.symbol_tokens / tokens
    if words:
        row[2] = (document.signs + document.ellipses) / words
    if document.stops >= 0:
        row[3] = document.stops
    row[4:10] = document.repeated


@kernel
def _median(histogram: Places, count: int) -> float:
    """The median of `count` lengths, counted by length."""
    middle = np.zeros(2)
    for half in range(2):
        rank, length = (count + half - 1) // 2, -1
        while rank >= 0:
            length += 1
            rank -= histogram[length]
        middle[half] = length
    return (middle[0] + middle[1]) / 2


FAMILY = Family(METRICS, measure)
