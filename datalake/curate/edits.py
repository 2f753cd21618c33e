"""Edits of text: the repair every document gets before it is measured, and line edits of documents that are kept.

Repair changes what is broken or invisible and no wording: lone surrogates, line breaks of any convention, control
characters, Unicode's composed form (NFC), kinds of space, blank space at the ends of lines, runs of blank lines.
Zero-width joiners stay, since Persian, Indic scripts and emoji are written with them, and so does the ideographic
space that begins a Chinese paragraph.
"""

from __future__ import annotations

import re
import unicodedata

from datalake.curate.presets import LineEdits, Repair

_SURROGATE = re.compile("[\ud800-\udfff]")
_BREAKS = re.compile("\r\n|[\r\v\f\x85\u2028\u2029]")
_CODE_BREAKS = re.compile("\r\n|\r")
# C0 and C1 controls but tab, line break (and form feed, a page break in code); soft hyphen, word joiner, byte-order
# mark.
_CONTROLS = re.compile("[\x00-\x08\x0e-\x1f\x7f-\x84\x86-\x9f\xad\u200b\u2060\ufeff]")
_CODE_CONTROLS = re.compile("[\x00-\x08\x0e-\x1f\x7f]|\\A\ufeff")
_SPACES = re.compile("[\xa0\u1680\u2000-\u200a\u202f\u205f]")
_LINE_FINAL = re.compile(r"[^\S\n]+$", re.MULTILINE)
_BLANK_LINES = re.compile(r"\n{3,}")
_URL = re.compile(r"(?:https?://|ftp://|www\.)[^\s<>\"'()\u3000-\u303f\uff00-\uffef]+", re.IGNORECASE)
_SNIPPET = re.compile(r"items in cart|read more\.\.\.$|^sign-in", re.IGNORECASE)
EDITED_WORDS = 10  # as in metrics.py, which counts what is removed
CITATION = re.compile(r"\[[0-9]*\]|\[edit\]|\[citation needed\]")


def repair_surrogates(text: str) -> str:
    """Surrogate pairs joined to the character they stand for, lone ones replaced by U+FFFD."""
    if _SURROGATE.search(text) is None:
        return text
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


def repair(text: str, kind: Repair = "text") -> str:
    """The repaired text; of code only line breaks, control characters and surrogates; idempotent.

    `no_urls` takes addresses out, too, before anything is measured (RefinedWeb, DCLM).
    """
    text = repair_surrogates(text)
    if kind == "none":
        return text
    if kind == "code":
        return _CODE_CONTROLS.sub("", _CODE_BREAKS.sub("\n", text))
    text = _CONTROLS.sub("", _BREAKS.sub("\n", text))
    text = unicodedata.normalize("NFC", _SPACES.sub(" ", text))
    if kind == "no_urls":
        text = _URL.sub("", text)
    return _BLANK_LINES.sub("\n\n", _LINE_FINAL.sub("", text)).strip("\n")


def lines_of(text: str) -> list[str]:
    """The lines that metrics speak of: stripped, without blank ones."""
    return [line for line in map(str.strip, text.split("\n")) if line]


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
