"""Text and title of a web page: its bytes decoded, its main content chosen, its white space tidied.

Bytes are decoded by `datalake.extract.html.charset`, as browsers do.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from datalake.compiled import kernel
from datalake.extract.html.blocks import Page, cut
from datalake.extract.html.charset import decode
from datalake.extract.html.formulas import with_formulas
from datalake.extract.html.main_content import load_model, main_text, title_of, whole_text
from datalake.extract.html.others import resiliparse, trafilatura
from datalake.text.characters import Points, points

OTHERS = {"resiliparse": resiliparse, "trafilatura": trafilatura}
TITLE_CHARACTERS = 1_000


_NEWLINE, _BLANK, _TAB = 10, 32, 9
_LINE_ENDS = (0x85, 0x2028, 0x2029)
_INVISIBLE = (0xAD, 0x200B, 0x2060, 0xFEFF)  # soft hyphen, zero-width space, word joiner, stray BOM
_BLANKS = (0xA0, 0x1680, *range(0x2000, 0x200B), 0x202F, 0x205F, 0x3000)


class Extracted(NamedTuple):
    """A page's text (paragraphs parted by blank lines; empty when it has none) and its title (may be empty)."""

    text: str
    title: str


def extract(html: str | bytes, main_content: bool = True, extractor: str = "blocks", model: str = "") -> Extracted:
    """The text and title of a page. Never raises on what a page may hold, however damaged.

    With `main_content` navigation, comments, advertisements and the like are left out, unless nothing would remain:
    then the page gives its whole text. `extractor` is `blocks` (ours, by the model in the file `model`, empty: the one
    that comes with it), `resiliparse` or `trafilatura`. Bytes are decoded with `decode`.
    """
    if isinstance(html, bytes):
        html = decode(html)[0]
    try:
        html.encode()
    except UnicodeEncodeError:  # lone surrogates have no place in UTF-8
        html = html.encode("utf-8", "replace").decode("utf-8")
    page = cut(with_formulas(html) if extractor == "blocks" else html)
    text = ""
    if main_content:
        text = tidy(_text(html, page, True, extractor, model))
    if not text:
        text = tidy(_text(html, page, False, extractor, model))
    return Extracted(text, " ".join(tidy(title_of(page)).split())[:TITLE_CHARACTERS])


def _text(html: str, page: Page, main_content: bool, extractor: str, model: str) -> str:
    if extractor == "blocks":
        return main_text(page, load_model(model)) if main_content else whole_text(page)
    return OTHERS[extractor](html, main_content)


def tidy(text: str) -> str:
    """The text with one kind of line end and of space, no control or invisible characters, at most one blank line."""
    return _tidied(points(text)).astype("<u4", copy=False).tobytes().decode("utf-32-le")


@kernel
def _tidied(codes: Points) -> Points:
    out, size = np.empty(len(codes), np.uint32), 0
    for at in range(len(codes)):
        code = codes[at]
        if code < 32 or 127 <= code < 0xA1 or code == 0xAD or code >= 0x1680:
            if code == 13:
                if at + 1 < len(codes) and codes[at + 1] == _NEWLINE:
                    continue
                code = np.uint32(_NEWLINE)
            elif code in _LINE_ENDS:
                code = np.uint32(_NEWLINE)
            elif code < 32:
                if code != _NEWLINE and code != _TAB:
                    continue
            elif code < 0xA0 or code in _INVISIBLE or 0xD800 <= code < 0xE000:  # controls, lone surrogates
                continue
            elif code in _BLANKS:
                code = np.uint32(_BLANK)
        if code == _NEWLINE:
            while size and out[size - 1] in (_BLANK, _TAB):
                size -= 1
            if size > 1 and out[size - 1] == _NEWLINE and out[size - 2] == _NEWLINE:
                continue
        if not size and code in (_NEWLINE, _BLANK, _TAB):
            continue
        out[size] = code
        size += 1
    while size and out[size - 1] in (_NEWLINE, _BLANK, _TAB):
        size -= 1
    return out[:size]
