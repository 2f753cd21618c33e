"""C4's line rules as its code has them (Raffel et al. 2020, arXiv:1910.10683; TensorFlow Datasets, c4_utils.py)."""

from __future__ import annotations

from datalake.compiled import kernel
from datalake.curate.metrics.family import Family, Metric
from datalake.curate.metrics.prepared.document import (
    CURLY_BRACKET,
    FATE,
    JAVASCRIPT,
    KEPT,
    KEPT_C4,
    LOREM_IPSUM,
    POLICY,
    SENTENCES,
    TERMINATED,
    UNCITED,
    Document,
    Numbers,
)

C4_WORDS = 5  # the least of a line

METRICS = (
    Metric("c4_lines", True, "lines that C4's line rules keep (5 words, terminal punctuation)"),
    Metric("c4_sentences", True, "sentences on these lines"),
    Metric("c4_javascript", True, "lines that C4 drops for the word javascript"),
    Metric("c4_policy", True, "lines that C4 drops for a cookie or policy phrase"),
    Metric("c4_lorem_ipsum", True, "lines with lorem ipsum that reach C4's check for it"),
    Metric("c4_curly_bracket", True, "lines with { that reach C4's check for it"),
)


@kernel
def measure(document: Document, row: Numbers) -> None:
    """What becomes of English lines of 5 words with a terminal mark."""
    if not document.english or not document.line_count:
        return
    lines = document.lines
    row[:] = 0.0
    for k in range(document.line_count):
        fate = lines[FATE, k]
        if fate > POLICY or not lines[TERMINATED, k] or lines[UNCITED, k] < C4_WORDS:
            continue
        if fate == KEPT:
            document.kept[k] |= KEPT_C4
            row[0] += 1
            row[1] += lines[SENTENCES, k]
        row[2] += fate == JAVASCRIPT
        row[3] += fate == POLICY
        row[4] += fate == LOREM_IPSUM
        row[5] += fate == CURLY_BRACKET


FAMILY = Family(METRICS, measure)
