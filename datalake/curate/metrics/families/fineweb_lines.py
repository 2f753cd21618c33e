"""FineWeb's variant of C4's line rules, and its own filters on what these leave (arXiv:2406.17557, section 3.5)."""

from __future__ import annotations

import numpy as np

from datalake.compiled import kernel
from datalake.curate.metrics.families.fineweb import SHORT_LINE
from datalake.curate.metrics.family import Family, Metric
from datalake.curate.metrics.prepared.document import (
    CURLY_BRACKET,
    FATE,
    KEPT,
    KEPT_FINEWEB,
    LOREM_IPSUM,
    SENTENCES,
    STOPPED,
    UNCITED,
    UNCITED_SIZE,
    Document,
    Numbers,
)
from datalake.curate.metrics.prepared.repeats import group

METRICS = (
    Metric("fw_lines", True, "lines that FineWeb's variant of C4's line rules keeps (3 words, any ending)"),
    Metric("fw_sentences", True, "sentences on these lines"),
    Metric("fw_lorem_ipsum", True, "as c4_lorem_ipsum, for FineWeb's variant"),
    Metric("fw_curly_bracket", True, "as c4_curly_bracket, for FineWeb's variant"),
    Metric("fw_line_punct", False, "line_punct of the text of these lines: FineWeb measures after C4's edits"),
    Metric("fw_short_lines", False, "short_lines of the text of these lines"),
    Metric("fw_char_dup", False, "char_dup of the text of these lines"),
    Metric("fw_newline_ratio", False, "line breaks per white-space word of the text of these lines"),
)


@kernel
def measure(document: Document, row: Numbers) -> None:
    """What becomes of English lines of 3 words, and what FineWeb measures of those that stay."""
    count, lines = document.line_count, document.lines
    if not document.english or not count:
        return
    row[:4] = 0.0
    hashes, sizes = np.empty(count, np.uint64), np.empty(count, np.int64)
    kept, punct, short, words, characters = 0, 0, 0, 0, 0
    for k in range(count):
        fate = lines[FATE, k]
        row[2] += fate == LOREM_IPSUM
        row[3] += fate == CURLY_BRACKET
        if fate == KEPT:
            document.kept[k] |= KEPT_FINEWEB
            row[0] += 1
            row[1] += lines[SENTENCES, k]
            punct += lines[STOPPED, k]
            short += lines[UNCITED_SIZE, k] <= SHORT_LINE
            words += lines[UNCITED, k]
            characters += lines[UNCITED_SIZE, k]
            hashes[kept], sizes[kept] = document.line_hashes[1, k], lines[UNCITED_SIZE, k]
            kept += 1
    if not kept:
        return
    first, counts = np.empty(kept, np.int64), np.empty(kept, np.int64)
    group(hashes, kept, first, counts)
    again = 0
    for k in range(kept):
        if first[k] != k:
            again += sizes[k]
    row[4] = punct / kept
    row[5] = short / kept
    if characters:
        row[6] = again / characters
    if words:
        row[7] = (kept - 1) / words


FAMILY = Family(METRICS, measure)
