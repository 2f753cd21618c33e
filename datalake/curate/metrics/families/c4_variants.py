"""C4's line rules as its paper has them (arXiv:1910.10683, section 2.2), and as datatrove's filter does."""

from __future__ import annotations

from datalake.compiled import kernel
from datalake.curate.metrics.family import Family, Metric
from datalake.curate.metrics.prepared.document import (
    CURLY_BRACKET,
    FATE,
    FINAL,
    KEPT,
    KEPT_DATATROVE,
    KEPT_PAPER,
    LOREM_IPSUM,
    POLICY,
    SENTENCES,
    TERMINATED,
    UNCITED,
    Document,
    Numbers,
)
from datalake.curate.metrics.prepared.english import FEW_WORDS

METRICS = (
    Metric("c4p_lines", True, "lines that C4's line rules as its paper has them keep (3 words, terminal mark)"),
    Metric("c4p_sentences", True, "sentences on these lines"),
    Metric("c4p_lorem_ipsum", True, "as c4_lorem_ipsum, for the paper's variant"),
    Metric("c4p_curly_bracket", True, "as c4_curly_bracket, for the paper's variant"),
    Metric("c4d_lines", True, "lines that datatrove's variant keeps (3 words, terminal punctuation or an apostrophe)"),
    Metric("c4d_sentences", True, "sentences on these lines"),
    Metric("c4d_lorem_ipsum", True, "as c4_lorem_ipsum, for datatrove's variant"),
    Metric("c4d_curly_bracket", True, "as c4_curly_bracket, for datatrove's variant"),
)


@kernel
def measure(document: Document, row: Numbers) -> None:
    """What becomes of English lines of 3 words with a terminal mark; datatrove counts words with citations."""
    if not document.english or not document.line_count:
        return
    lines = document.lines
    row[:] = 0.0
    for k in range(document.line_count):
        fate = lines[FATE, k]
        if fate > POLICY:
            continue
        if lines[TERMINATED, k] and lines[UNCITED, k] >= FEW_WORDS:
            if fate == KEPT:
                document.kept[k] |= KEPT_PAPER
                row[0] += 1
                row[1] += lines[SENTENCES, k]
            row[2] += fate == LOREM_IPSUM
            row[3] += fate == CURLY_BRACKET
        if lines[TERMINATED, k] or lines[FINAL, k] == 39:
            if fate == KEPT:
                document.kept[k] |= KEPT_DATATROVE
                row[4] += 1
                row[5] += lines[SENTENCES, k]
            row[6] += fate == LOREM_IPSUM
            row[7] += fate == CURLY_BRACKET


FAMILY = Family(METRICS, measure)
