"""RefinedWeb's line rules (Penedo et al. 2023, arXiv:2306.01116, appendix G.2) as DCLM has them (arXiv:2406.11794).

Lines in capitals, of digits, of social counters and of one word go, and snippets in short lines; datatrove's pieces.
"""

from __future__ import annotations

from datalake.compiled import kernel
from datalake.curate.metrics.family import Family, Metric
from datalake.curate.metrics.prepared.document import (
    DIGITS,
    END,
    KEPT_DCLM,
    START,
    UPPER_CASE,
    WORDED,
    Document,
    Numbers,
)
from datalake.text.characters import ALNUM, SPACE, Classes, Points, concatenated

# The greatest shares of a line's characters, the least of its words, the most of an edited one's.
MAX_CAPITALS, MAX_DIGITS, MIN_WORDS, EDITED_WORDS = 0.5, 0.999999, 2, 10

# What social counters count, and the snippets that line edits take out of short lines: anywhere; at the end; at the
# beginning.
_COUNTED_CODES, _COUNTED_BOUNDS = concatenated(
    (
        *("likes", "shares", "comments", "retweets", "reposts", "quotes", "bookmarks", "upvotes", "downvotes"),
        *("downloads", "views", "followers"),
    )
)
_SNIPPET_CODES, _SNIPPET_BOUNDS = concatenated(("items in cart", "read more...", "sign-in"))

METRICS = (
    Metric("dclm_lines", True, "lines that RefinedWeb's line rules keep (capitals, digits, counters, 2 words; DCLM)"),
    Metric("dclm_removed", False, "share of words that RefinedWeb's line edits remove (DCLM)"),
    Metric("alpha_pieces", False, "share of pieces with a letter, symbols being pieces, too (datatrove)"),
)


@kernel
def measure(document: Document, row: Numbers) -> None:
    """Lines that stay, words that go, pieces with a letter; of English texts."""
    lines, codes = document.lines, document.codes
    if not document.english or not document.line_count:
        return
    kept, total, removed = 0, 0, 0
    for k in range(document.line_count):
        start, end, words = lines[START, k], lines[END, k], lines[WORDED, k]
        total += words
        if (
            words < MIN_WORDS
            or lines[UPPER_CASE, k] > MAX_CAPITALS * (end - start)
            or lines[DIGITS, k] > MAX_DIGITS * (end - start)
            or (lines[DIGITS, k] and _counter(codes, start, end, document.classes))
        ):
            removed += words
        else:
            document.kept[k] |= KEPT_DCLM
            kept += 1
            if words <= EDITED_WORDS:
                removed += _snippet_words(codes, start, end, document.lower)
    row[0] = kept
    if total:
        row[1] = removed / total
    if document.pieces:
        row[2] = document.alphabetic_pieces / document.pieces


@kernel
def _counter(codes: Points, start: int, end: int, classes: Classes) -> bool:
    r"""Whether a line is a social counter: `\W*` digits with `,` and `.`, K, M or B, space, what is counted, `\W*`."""
    at = start
    while at < end and not (classes[codes[at]] & ALNUM or codes[at] == 95):
        at += 1
    if at == end or not 48 <= codes[at] <= 57:
        return False
    while at < end and (48 <= codes[at] <= 57 or codes[at] == 44 or codes[at] == 46):
        at += 1
    if at < end and codes[at] in (75, 107, 77, 109, 66, 98):
        at += 1
    space = at
    while at < end and classes[codes[at]] & SPACE:
        at += 1
    if at == space:
        return False
    begin = at
    while at < end and (classes[codes[at]] & ALNUM or codes[at] == 95):
        at += 1
    length = at - begin
    while at < end and not (classes[codes[at]] & ALNUM or codes[at] == 95):
        at += 1
    if at < end:
        return False
    for w in range(len(_COUNTED_BOUNDS) - 1):
        if _COUNTED_BOUNDS[w + 1] - _COUNTED_BOUNDS[w] != length:
            continue
        k = 0
        while k < length and codes[begin + k] == _COUNTED_CODES[_COUNTED_BOUNDS[w] + k]:
            k += 1
        if k == length:
            return True
    return False


@kernel
def _at(codes: Points, at: int, end: int, lower: Points, first: int, last: int) -> bool:
    """Whether the lower-cased code points from `at` on are _SNIPPET_CODES[first:last]."""
    if at < 0 or at + last - first > end:
        return False
    k = 0
    while k < last - first and lower[codes[at + k]] == _SNIPPET_CODES[first + k]:
        k += 1
    return k == last - first


@kernel
def _snippet_words(codes: Points, start: int, end: int, lower: Points) -> int:
    """How many words of a short line RefinedWeb's snippets take with them."""
    b, removed, at = _SNIPPET_BOUNDS, 0, start
    while at < end:
        if _at(codes, at, end, lower, b[0], b[1]):
            removed += 3
            at += b[1] - b[0]
        else:
            at += 1
    removed += 2 * _at(codes, end - (b[2] - b[1]), end, lower, b[1], b[2])
    removed += _at(codes, start, end, lower, b[2], b[3])
    return removed


FAMILY = Family(METRICS, measure)
