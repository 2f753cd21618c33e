"""What FineWeb's own filters ask of lines (Penedo et al. 2024, arXiv:2406.17557, section 3.6)."""

from __future__ import annotations

from datalake.compiled import kernel
from datalake.curate.metrics.family import Family, Metric
from datalake.curate.metrics.prepared.document import END, START, Document, Numbers
from datalake.text.characters import STOP_CHAR

SHORT_LINE = 30  # characters

METRICS = (
    Metric(
        "line_punct", False, "share of lines that end in a terminal mark of any script, no quotation mark (FineWeb)"
    ),
    Metric("short_lines", False, "share of lines of at most 30 characters (FineWeb)"),
    Metric("char_dup", False, "characters of lines seen before / characters but line breaks (FineWeb)"),
    Metric("newline_ratio", False, "line breaks per token (FineWeb)", of_tokens=True),
)


@kernel
def measure(document: Document, row: Numbers) -> None:
    """Shares of lines, of characters in repeated ones, of line breaks."""
    lines, count = document.lines, document.line_count
    punct, short = 0, 0
    for k in range(count):
        punct += document.kinds[lines[END, k] - 1] & STOP_CHAR != 0
        short += lines[END, k] - lines[START, k] <= SHORT_LINE
    if count:
        row[0] = punct / count
        row[1] = short / count
        row[2] = document.line_repeats.later_characters / (len(document.codes) - document.breaks)
    if document.tokens:
        row[3] = document.breaks / document.tokens


FAMILY = Family(METRICS, measure)
