"""What ChineseWebText's filters ask for (Chen et al. 2023, arXiv:2311.01149)."""

from __future__ import annotations

import numpy as np

from datalake.compiled import kernel
from datalake.curate.metrics.family import Family, Metric
from datalake.curate.metrics.prepared.document import Document, Numbers
from datalake.curate.metrics.prepared.repeats import BASE, K1, group
from datalake.text.hashes import fmix64

_GRAM = 13  # characters

METRICS = (
    Metric("chars_per_line", False, "characters / lines (ChineseWebText)"),
    Metric("char_13gram", False, "13-character grams that repeat / all of them, in Chinese (ChineseWebText)"),
    Metric(
        "traditional", True, "characters of the traditional script alone, where they stand; Chinese (ChineseWebText)"
    ),
)


@kernel
def measure(document: Document, row: Numbers) -> None:
    """Characters per line; of Chinese, grams of 13 characters, space apart, and the traditional script."""
    codes = document.codes
    if document.line_count:
        row[0] = len(codes) / document.line_count
    if not document.chinese:
        return
    row[2] = document.traditional
    hashes = np.empty(len(codes), np.uint64)
    n = _GRAM
    power = np.uint64(1)
    for _ in range(n):
        power *= BASE
    window = np.zeros(n, np.uint64)
    seen, count, h = 0, 0, np.uint64(0)
    for c in codes:
        if c == 32 or c == 10 or c == 9:
            continue
        value = fmix64(np.uint64(c) + K1)
        h = h * BASE + value - window[seen % n] * power
        window[seen % n] = value
        seen += 1
        if seen >= n:
            hashes[count] = fmix64(h)
            count += 1
    if not count:
        return
    first, counts = np.empty(count, np.int64), np.empty(count, np.int64)
    group(hashes, count, first, counts)
    again = 0
    for k in range(count):
        again += counts[first[k]] > 1
    row[1] = again / count


FAMILY = Family(METRICS, measure)
