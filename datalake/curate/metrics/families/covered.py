"""Repetition as set coverage: every occurrence of what repeats counts, over the characters of lines or words.

The definition of DCLM (Li et al. 2024, arXiv:2406.11794) and RedPajama-v2 of what Gopher's repetition filters measure.
"""

from __future__ import annotations

from datalake.compiled import kernel
from datalake.curate.metrics.family import Family, Metric
from datalake.curate.metrics.prepared.document import Document, Numbers

METRICS = (
    Metric("dup_line_frac", False, "lines that occur more than once, all occurrences / lines (DCLM)"),
    Metric("dup_line_chars", False, "characters of these / characters of lines (DCLM)"),
    Metric("dup_para_frac", False, "paragraphs that occur more than once, all occurrences / paragraphs (DCLM)"),
    Metric("dup_para_chars", False, "characters of these / characters of paragraphs (DCLM)"),
    *(
        Metric(
            f"top_{n}gram", False, f"most frequent {n}-gram: count x characters / characters of words; 0 if once (DCLM)"
        )
        for n in (2, 3, 4)
    ),
    *(
        Metric(f"dup_{n}gram", False, f"characters of words in any repeated {n}-gram / characters of words (DCLM)")
        for n in range(5, 11)
    ),
)


@kernel
def measure(document: Document, row: Numbers) -> None:
    """Shares of lines, paragraphs and n-grams that occur more than once."""
    if document.line_count:
        row[0] = document.line_repeats.all / document.line_count
        row[1] = document.line_repeats.all_characters / document.line_repeats.characters
        row[2] = document.paragraph_repeats.all / document.paragraph_count
        row[3] = document.paragraph_repeats.all_characters / document.paragraph_repeats.characters
    row[4:13] = document.covered


FAMILY = Family(METRICS, measure)
