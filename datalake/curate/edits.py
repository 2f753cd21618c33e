"""Edits of text: the repair every document gets before it is measured, and line edits of documents that are kept.

Repair changes what is broken or invisible and no wording: lone surrogates, line breaks of any convention, control
characters, Unicode's composed form (NFC), kinds of space, blank space at the ends of lines, runs of blank lines.
Zero-width joiners stay, since Persian, Indic scripts and emoji are written with them, and so does the ideographic
space that begins a Chinese paragraph.
"""

from __future__ import annotations

import re
from functools import cache

import numpy as np
import numpy.typing as npt

from datalake.compiled import kernel
from datalake.curate.rules import LineEdits, Repair
from datalake.text.characters import Points, points
from datalake.text.normal_forms import normal_form

_BREAKS = re.compile("\r\n|[\r\v\f\x85\u2028\u2029]")
_CODE_BREAKS = re.compile("\r\n|\r")
# C0 and C1 controls but tab, line break (and form feed, a page break in code); soft hyphen, word joiner, byte-order
# mark.
_CONTROLS = re.compile("[\x00-\x08\x0e-\x1f\x7f-\x84\x86-\x9f\xad\u200b\u2060\ufeff]")
_CODE_CONTROLS = re.compile("[\x00-\x08\x0e-\x1f\x7f]|\\A\ufeff")
_SPACES = re.compile("[\xa0\u1680\u2000-\u200a\u202f\u205f]")
_BLANK_LINES = re.compile(r"\n{3,}")
# An address, not what goes on behind it without a space: a sentence's mark, Chinese but at the start of a path's part.
_CJK = r"\u3040-\u30ff\u3400-\u9fff\uac00-\ud7a3"
_URL = re.compile(
    r"(?:https?://|ftp://|(?<![a-z0-9.])www\.(?=[a-z0-9]))"
    rf"(?:[^\s<>\"'()\u3000-\u303f\uff00-\uffef{_CJK}]|(?<=[/=])[{_CJK}]+)*(?<![.,;:!?])",
    re.IGNORECASE,
)
_SNIPPET = re.compile(r"items in cart|read more\.\.\.$|^sign-in", re.IGNORECASE | re.ASCII)
FENCE = "```"  # a line that begins with it begins and ends a block of code
EDITED_WORDS = 10  # as in metrics/families/dclm.py, which counts what is removed
CITATION = re.compile(r"\[[0-9]*\]|\[edit\]|\[citation needed\]")


def repair_surrogates(text: str) -> str:
    """Surrogate pairs joined to the character they stand for, lone ones replaced by U+FFFD."""
    try:
        text.encode()  # faster than looking for one: it fails at the first
        return text
    except UnicodeEncodeError:
        pass
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


def repair(text: str, kind: Repair = "text") -> str:
    """The repaired text; of code only line breaks, control characters and surrogates; idempotent.

    `no_urls` takes addresses out, too, before anything is measured (RefinedWeb, DCLM).
    """
    if kind in ("none", "code"):
        text = repair_surrogates(text)
        return text if kind == "none" else _CODE_CONTROLS.sub("", _CODE_BREAKS.sub("\n", text))
    faults = _faults(points(text), _kinds())
    if faults & _SURROGATES:
        text = repair_surrogates(text)
    if faults & _UNWANTED:
        text = _SPACES.sub(" ", _CONTROLS.sub("", _BREAKS.sub("\n", text)))
    if faults & _COMPOSABLE:
        text = normal_form("NFC", text)
    if kind == "no_urls" and (shorter := _URL.sub("", text)) != text:
        text, faults = shorter, faults | _BLANKS
    # What was taken out may leave blank space behind.
    if not faults:
        return text
    return _BLANK_LINES.sub("\n\n", "\n".join(map(str.rstrip, text.split("\n")))).strip("\n")


_SURROGATES, _UNWANTED, _COMPOSABLE, _BLANKS, _LINE_SPACE = 1, 2, 4, 8, 16


@cache
def _kinds() -> npt.NDArray[np.uint8]:
    """What is to be done about each code point, shape (0x110000,): bits, 0 for nearly all."""
    kinds = np.zeros(0x110000, np.uint8)
    kinds[0xD800:0xE000] |= _SURROGATES
    # Composition begins at the first combining mark; a text below it is in composed form.
    kinds[0x300:] |= _COMPOSABLE
    for first, last in _COMPOSED:
        kinds[first:last] &= 255 - _COMPOSABLE
    for point in range(0x10000):
        character = chr(point)
        if _BREAKS.match(character) or _CONTROLS.match(character) or _SPACES.match(character):
            kinds[point] |= _UNWANTED
        if character.isspace() and character != "\n":
            kinds[point] |= _LINE_SPACE
    return kinds


# Common blocks of which no character is ever changed by composition or joined to the one before: punctuation, CJK
# symbols, ideographs, full-width forms. Whatever lies elsewhere is left to Python's own check.
_COMPOSED = ((0x2010, 0x2060), (0x3000, 0x302A), (0x3400, 0x9FFF), (0xFF00, 0xFFE0))


@kernel
def _faults(codes: Points, kinds: npt.NDArray[np.uint8]) -> int:
    """Bits of what there is to repair in a text, so that a clean one is passed without further looking."""
    found, breaks, space = 0, 3, False  # a line break at the very beginning is a blank line
    for c in codes:
        kind = kinds[c]
        found |= kind
        if c == 10:
            breaks += 1
            if space or breaks > 2:
                found |= _BLANKS
            space = False
        else:
            breaks = 0
            space = kind & _LINE_SPACE != 0
    if space or (len(codes) and codes[-1] == 10):
        found |= _BLANKS
    return found & ~_LINE_SPACE


def lines_of(text: str) -> list[str]:
    """The lines that metrics speak of: stripped, without blank ones."""
    return [line for line in map(str.strip, text.split("\n")) if line]


def code_lines(text: str) -> list[bool]:
    """For each line of the text whether it is of a block of code: between lines of three backticks, and these."""
    lines = text.split("\n")
    out, begun = [False] * len(lines), -1
    for number, line in enumerate(lines):
        if not line.startswith(FENCE):
            continue
        if begun < 0:
            begun = number
        elif not line[len(FENCE) :].strip():
            out[begun : number + 1] = [True] * (number + 1 - begun)
            begun = -1
    return out


def prose_of(text: str) -> str:
    """The text without its blocks of code."""
    if FENCE not in text or not any(of_code := code_lines(text)):
        return text
    prose = (line for line, code in zip(text.split("\n"), of_code, strict=True) if not code)
    return _BLANK_LINES.sub("\n\n", "\n".join(prose)).strip("\n")


def keep_prose_lines(text: str, kept: list[bool], edits: LineEdits) -> str:
    """As `keep_lines`, of a text whose prose alone was judged: its blocks of code stay where they are, as they are.

    Nothing is left where no line of prose is.
    """
    prose = prose_of(text)
    if edits == "none" or len(prose) == len(text):
        return keep_lines(text, kept, edits)
    if not keep_lines(prose, kept, edits):
        return ""
    flags, out = iter(kept), []
    for line, code in zip(text.split("\n"), code_lines(text), strict=True):
        if code:
            out.append(line)
        elif line.strip():
            edited = keep_lines(line, [next(flags)], edits)
            if edited:
                out.append(edited)
    return "\n".join(out)


def keep_lines(text: str, kept: list[bool], edits: LineEdits) -> str:
    """The text of the lines kept (one truth value per line of `lines_of`).

    C4 and its variants take citation marks out of these; RefinedWeb takes snippets of shops and links out of lines of
    at most 10 words.
    """
    if edits == "none":
        return text
    lines = [line for line, keep in zip(lines_of(text), kept, strict=True) if keep]
    if edits == "refinedweb":
        edited = (_SNIPPET.sub("", line).strip() if _words(line) <= EDITED_WORDS else line for line in lines)
        return "\n".join(line for line in edited if line)
    return "\n".join(CITATION.sub("", line).rstrip() for line in lines).strip()


def _words(line: str) -> int:
    """Words of a line as RefinedWeb's line rules count them: what white space separates and holds a letter or digit."""
    return sum(any(map(str.isalnum, word)) for word in line.split())
