"""Sizes, and what Gopher's quality filters ask for (Rae et al. 2021, arXiv:2112.11446, table A1)."""

from __future__ import annotations

from datalake.compiled import kernel
from datalake.curate.metrics.family import Family, Metric
from datalake.curate.metrics.prepared.document import END, START, Document, Numbers

METRICS = (
    Metric("chars", True, "code points of the text"),
    Metric("lines", True, "lines that are not blank"),
    Metric("paragraphs", True, "runs of lines between blank lines"),
    Metric("tokens", True, "tokens, symbols included", of_tokens=True),
    Metric("words", True, "tokens with a letter or digit (Gopher)", of_tokens=True),
    Metric(
        "mean_word_length",
        False,
        "mean length of these, stripped of what is neither letter nor digit at the ends",
        of_tokens=True,
    ),
    Metric("hash_ratio", False, "# per token (Gopher)", of_tokens=True),
    Metric("ellipsis_ratio", False, "... and … per token (Gopher)", of_tokens=True),
    Metric("bullet_lines", False, "share of lines that begin with ● • * or - (Gopher; the set of DCLM)"),
    Metric("ellipsis_lines", False, "share of lines that end in ... or . . . or … (Gopher; the set of DCLM)"),
    Metric("alpha_words", False, "share of tokens with a letter (Gopher)", of_tokens=True),
    Metric(
        "stop_words", True, "distinct stop words of the document's language, where a list is known (Gopher, FineWeb-2)"
    ),
)


@kernel
def measure(document: Document, row: Numbers) -> None:
    """Sizes and shares of tokens and lines."""
    tokens, words, lines = document.tokens, document.words, document.line_count
    row[0] = len(document.codes)
    row[1] = lines
    row[2] = document.paragraph_count
    row[3] = tokens
    row[4] = words
    if words:
        row[5] = document.word_characters / words
    if tokens:
        row[6] = document.signs / tokens
        row[7] = document.ellipses / tokens
        row[10] = document.alphabetic_tokens / tokens
    if document.distinct_stops >= 0:
        row[11] = document.distinct_stops
    bullets, dotted, codes = 0, 0, document.codes
    for k in range(lines):
        a, b = document.lines[START, k], document.lines[END, k]
        bullets += codes[a] in (0x25CF, 0x2022, 42, 45)
        final = codes[b - 1]
        if final == 46 and b - a > 2:
            three = codes[b - 2] == 46 and codes[b - 3] == 46
            spaced = (
                b - a > 4 and codes[b - 2] == 32 and codes[b - 3] == 46 and codes[b - 4] == 32 and codes[b - 5] == 46
            )
            dotted += three or spaced
        elif final == 0x2026:
            dotted += 1
    if lines:
        row[8] = bullets / lines
        row[9] = dotted / lines


FAMILY = Family(METRICS, measure)
