"""Stretches of evaluation sets cut from documents that stay, sentence by sentence.

GPT-3 (Brown et al. 2020, appendix C) cuts 200 characters on either side of an overlap and drops a document of which
more than ten pieces are left; NeMo Curator does the same. A window cuts sentences in two, and takes as much of a line
as of a page. Here a cut goes to the ends of the sentences that it touches (in code, of the lines), as far as there are
any within those 200 characters; figures and signs that are left between two cuts go, too. Whether a document is dropped
is left to the share of its words that overlap.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple

from datalake.curate.checks.decontaminate import Index, Stretch
from datalake.text.characters import CJK_TERMINAL, CLOSERS, TERMINAL, tables

WINDOW = 200  # characters on either side of an overlap, as GPT-3 has them
_ROUNDS = 8  # of cutting; a text that holds more of them, one within the other, was made so, and nothing of it is left
_CLOSERS = frozenset(CLOSERS)
_LETTER = re.compile(r"[^\W\d_]")


class Cut(NamedTuple):
    """A text without stretches, and how many characters those had."""

    text: str
    characters: int


def cut(text: str, index: Index, code: bool = False) -> Cut:
    """The text without what evaluation sets have of it. What is left holds no n-gram of theirs."""
    left = text
    for _ in range(_ROUNDS):
        spans = spans_of(left, index.look(left)[1], code)
        if not spans:
            return Cut(left, len(text) - len(left))
        left = _without(left, spans)  # what is joined may hold one, too
    return Cut("", len(text))


def spans_of(text: str, stretches: Sequence[Stretch], code: bool = False) -> list[Stretch]:
    """What is cut of a text for these stretches: whole sentences, in their order, none touching the next.

    The row is that of the longest stretch in a cut.
    """
    spans: list[Stretch] = []
    longest = 0
    for stretch in sorted(stretches):
        start, end = _back(text, stretch.start, code), _on(text, stretch.end, code)
        size = stretch.end - stretch.start
        if spans and (start <= spans[-1].end or _LETTER.search(text, spans[-1].end, start) is None):
            row = stretch.row if size > longest else spans[-1].row
            spans[-1] = Stretch(min(start, spans[-1].start), max(end, spans[-1].end), row)
            longest = max(size, longest)
        else:
            spans.append(Stretch(start, end, stretch.row))
            longest = size
    return spans


def _ends(text: str, place: int, code: bool) -> bool:
    """Whether a sentence, or a line, ends right before a place."""
    if place == 0 or place == len(text) or text[place - 1] == "\n":
        return True
    if code or text[place] in _CLOSERS:
        return False
    at = place - 1
    while at > 0 and place - at < 4 and text[at] in _CLOSERS:
        at -= 1
    kind = tables().classes[ord(text[at])]
    return bool(kind & CJK_TERMINAL or (kind & TERMINAL and text[place].isspace()) or text[at] == "…")


def _back(text: str, start: int, code: bool) -> int:
    """The beginning of the sentence that a place is in, or the place, if that is farther than the window."""
    return next((at for at in range(start, max(-1, start - WINDOW - 1), -1) if _ends(text, at, code)), start)


def _on(text: str, end: int, code: bool) -> int:
    """The end of the sentence that ends at or after a place."""
    return next((at for at in range(end, min(len(text), end + WINDOW) + 1) if _ends(text, at, code)), end)


def _without(text: str, spans: Sequence[Stretch]) -> str:
    """The text without these spans, and without the blanks and line breaks that would stand there twice."""
    out: list[str] = []
    before, breaks, blank = 0, 0, True  # how what is left so far ends: line breaks, a blank (or nothing at all)
    for start, end in [*((span.start, span.end) for span in spans), (len(text), len(text))]:
        part = text[before:start]
        if before and text[before - 1] != "\n" and blank:
            part = part.lstrip(" ")
        if before:
            leading = len(part) - len(part.lstrip("\n"))
            part = part[min(leading, breaks if out else leading) :]
        if part:
            out.append(part)
            breaks = len(part) - len(part.rstrip("\n"))
            blank = part[-1].isspace()
        before = end
    return "".join(out)
