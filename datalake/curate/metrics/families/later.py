"""Repetition as datatrove measures it: what comes after the first occurrence counts, over the length of the text.

The thresholds of FineWeb (Penedo et al. 2024, arXiv:2406.17557) and FineWeb-2 were set on these.
"""

from __future__ import annotations

from datalake.compiled import kernel
from datalake.curate.metrics.family import Family, Metric
from datalake.curate.metrics.prepared.document import Document, Numbers

METRICS = (
    Metric("later_line_frac", False, "lines seen before / lines (datatrove)"),
    Metric("later_line_chars", False, "characters of these / characters of the text (datatrove)"),
    Metric("later_para_frac", False, "paragraphs seen before / paragraphs (datatrove)"),
    Metric("later_para_chars", False, "characters of these / characters of the text (datatrove)"),
    *(
        Metric(
            f"later_top_{n}gram",
            False,
            f"most frequent {n}-gram, the first of several: count x (its words and a space between them) / characters; "
            "0 if once (datatrove)",
        )
        for n in (2, 3, 4)
    ),
    *(
        Metric(
            f"later_{n}gram",
            False,
            f"{n}-grams seen before, not overlapping: characters of their words / characters (datatrove)",
        )
        for n in range(5, 11)
    ),
)


@kernel
def measure(document: Document, row: Numbers) -> None:
    """Shares of lines, paragraphs and n-grams that were seen before."""
    size = len(document.codes)
    if document.line_count:
        row[0] = document.line_repeats.later / document.line_count
        row[1] = document.line_repeats.later_characters / size
        row[2] = document.paragraph_repeats.later / document.paragraph_count
        row[3] = document.paragraph_repeats.later_characters / size
    row[4:13] = document.later


FAMILY = Family(METRICS, measure)
