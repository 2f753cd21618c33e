"""What the preset `auto` asks for besides: prose, lines without notices, repetition within lines; defined here."""

from __future__ import annotations

from datalake.compiled import kernel
from datalake.curate.metrics.family import Family, Metric
from datalake.curate.metrics.prepared.document import (
    END,
    FATE,
    KEPT_AUTO,
    LEFT,
    LOREM_IPSUM,
    PHRASES,
    START,
    UNCITED,
    Document,
    Numbers,
    Places,
)
from datalake.curate.metrics.prepared.english import FEW_WORDS
from datalake.curate.metrics.prepared.lines import unclosed
from datalake.text.characters import CJK_TERMINAL, CLOSER, LOWER, SPACE, STOP_CHAR, TERMINAL, Classes, Points

PROSE_WORDS, VERSE_WORDS, NOTICE_WORDS = 8, 4, 20  # the least of a line of prose or verse, the most of a notice

METRICS = (
    Metric(
        "prose",
        False,
        "share of n-grams' words in lines of prose (8 of them, and a sentence that ends there or goes on in lower case "
        "in the next line, or two full-width commas) or verse (4, with a terminal mark or comma at the end), but for "
        "lines that end in an ellipsis",
        of_tokens=True,
    ),
    Metric("line_end", False, "as line_punct, after quotation marks and brackets that close the line are left out"),
    Metric(
        "stop_word_share", False, "stop words per word, where a list of words that are tokens is known", of_tokens=True
    ),
    Metric("within_10gram", False, "later_10gram less later_line_chars, at least 0: what repeats but for whole lines"),
    Metric(
        "auto_lines",
        True,
        "lines that the line edits of `auto` keep (3 words beside citations, no notice of cookies or JavaScript)",
    ),
)


@kernel
def measure(document: Document, row: Numbers) -> None:
    """Shares of prose, of lines with an end, of stop words; lines that speak of cookies in a notice's words go."""
    kinds, lines, count = document.kinds, document.lines, document.line_count
    if document.stops_are_tokens and document.words:
        row[2] = document.stops / document.words
    if not count:
        return
    ended = 0
    for k in range(count):
        end = unclosed(kinds, lines[START, k], lines[END, k])
        ended += end > lines[START, k] and kinds[end - 1] & STOP_CHAR != 0
    row[1] = ended / count
    words = document.gram_words
    if words:
        prose = _prose_words(document.codes, kinds, document.word_starts, words, lines[START], lines[END], count)
        row[0] = prose / words
        row[3] = max(0.0, document.later[8] - document.line_repeats.later_characters / len(document.codes))
    if document.english:
        row[4] = 0.0
        for k in range(count):
            fate, left = lines[FATE, k], lines[UNCITED, k]
            notice = lines[PHRASES, k] != 0 and left <= NOTICE_WORDS
            if fate in (LEFT, LOREM_IPSUM) or left < FEW_WORDS or notice:
                continue
            document.kept[k] |= KEPT_AUTO
            row[4] += 1


@kernel
def _prose_words(
    codes: Points, kinds: Classes, starts: Places, words: int, line_starts: Places, line_ends: Places, lines: int
) -> int:
    """How many of the words that begin at `starts` stand in lines of prose or verse.

    A line that ends in an ellipsis is cut short, as teasers of other pages are.
    """
    prose, word = 0, 0
    for k in range(lines):
        first = word
        while word < words and starts[word] < line_ends[k]:
            word += 1
        if word - first < VERSE_WORDS:
            continue
        last = unclosed(kinds, line_starts[k], line_ends[k])
        final = codes[last - 1]
        if final == 0x2026 or final == codes[last - 2] == 46:
            continue
        if kinds[last - 1] & TERMINAL or final in (0x2C, 0xFF0C):
            prose += word - first
        elif word - first >= PROSE_WORDS:
            goes_on = k + 1 < lines and kinds[line_starts[k + 1]] & LOWER != 0
            if goes_on or _holds_sentence(codes, kinds, line_starts[k], line_ends[k]):
                prose += word - first
    return prose


@kernel
def _holds_sentence(codes: Points, kinds: Classes, start: int, end: int) -> bool:
    """Whether a line has a sentence's end, as `_sentences` has it but for dots in a row, or two full-width commas."""
    commas, at = 0, start
    while at < end:
        if not kinds[at] & TERMINAL:
            commas += codes[at] == 0xFF0C
            at += 1
            continue
        begin = at
        while at < end and kinds[at] & TERMINAL:
            at += 1
        if at - begin > 1 and codes[at - 1] == codes[at - 2] == 46:
            continue
        cjk = kinds[at - 1] & CJK_TERMINAL != 0
        while at < end and kinds[at] & CLOSER:
            at += 1
        after = at
        while after < end and kinds[after] & SPACE:
            after += 1
        if cjk or after == end or (after > at and not kinds[after] & LOWER):
            return True
    return commas > 1


FAMILY = Family(METRICS, measure)
