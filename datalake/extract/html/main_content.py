"""The main content of a page: which of its blocks are content by a trained model, and their text.

Two forests of boosted trees judge each block in turn; the second one sees what the first made of the whole page.
`main_content.npz` holds them; `benchmarks/train_main_content.py` makes such a file from pages with their texts. A
block is content when its probability is at least one half.
"""

from __future__ import annotations

import html as entities
import zipfile
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from datalake.compiled import kernel
from datalake.errors import UserError
from datalake.extract.html.blocks import (
    BR,
    BREAKS,
    CHARS,
    DD,
    DIGITS,
    DIV,
    DT,
    E_CODE,
    E_HIDDEN,
    E_KEYWORDS,
    E_NUMBERS,
    E_PARENT,
    E_START,
    E_TAG,
    ELEMENT,
    ENDED_BY,
    FIRST_PIECE,
    H1,
    HASH,
    KEYWORDS,
    LAST_PIECE,
    LI,
    NO_NUMBER,
    OL,
    PRE,
    TABLE,
    TBODY,
    TD,
    TFOOT,
    TH,
    THEAD,
    TR,
    WORDS,
    Ints,
    P,
    Page,
    hash_of_words,
)
from datalake.extract.html.features import FIRST_NAMES, SECOND_NAMES, first_features, second_features
from datalake.extract.html.forest import Scorer, load, predict, scorer
from datalake.text.characters import ALNUM, SPACE, Classes, Points, points, tables

MODEL = Path(__file__).with_name("main_content.npz")
_NEWLINE, _BLANK, _BAR, _DASH, _POINT, _TICK = (np.uint32(ord(character)) for character in "\n |-.`")
_ENDS_OF_CODE = tuple(np.uint32(ord(character)) for character in ";{})")

_TABLE_PARTS = (TBODY, THEAD, TFOOT)
_UNNUMBERED = sum(
    1 << KEYWORDS.index(words) for words in ("comment", "nav", "menu", "crumb|path", "pager|paging|pagin", "reply")
)
_CELL_CHARACTERS = 300  # of a cell of data, at most
_HEADING_WORDS = 3  # a heading of fewer may well be said again: a song's name in its text
_TITLE_CHARACTERS = 300

Kept = npt.NDArray[np.bool_]


class Model(NamedTuple):
    """The forests of both passes."""

    first: Scorer
    second: Scorer


@lru_cache(maxsize=8)
def load_model(path: str = "") -> Model:
    """The model of a file, the one that comes with this package when empty.

    Raises UserError where there is no such file, or where it was made for other features than these.
    """
    try:
        with np.load(path or MODEL) as arrays:
            names = [arrays["features"].tolist(), arrays["second_features"].tolist()]
            model = Model(scorer(load(arrays, "first")), scorer(load(arrays, "second")))
    except (OSError, KeyError, IndexError, ValueError, zipfile.BadZipFile) as error:
        raise UserError(f"{path or MODEL} is no model of main content ({error}): correct `extractor.model`") from None
    if names != [list(FIRST_NAMES), list(SECOND_NAMES)]:
        raise UserError(
            f"{path or MODEL} was trained for other features than this version computes: train it again "
            "(benchmarks/train_main_content.py)"
        )
    return model


def probabilities(page: Page, model: Model) -> npt.NDArray[np.float64]:
    """How likely each block is content, shape (blocks,)."""
    first, kinds = first_features(page)
    return predict(model.second, second_features(predict(model.first, first), first, kinds))


def main_text(page: Page, model: Model) -> str:
    """The text of a page's content; empty when no block is content."""
    if not len(page.blocks):
        return ""
    title, known = points(title_of(page)[:_TITLE_CHARACTERS]), tables()
    kept = _without_hidden(page, probabilities(page, model) >= 0.5)
    return text_of(page, _said_once(page.blocks, page.elements, kept, title, known.classes, known.lower))


def _without_hidden(page: Page, kept: Kept) -> Kept:
    """The kept blocks that a reader sees; all of them where most of their words wait for a script to show them."""
    hidden = page.elements[page.blocks[:, ELEMENT], E_HIDDEN] != 0
    words = page.blocks[:, WORDS]
    return kept if words[kept & hidden].sum() > words[kept & ~hidden].sum() else kept & ~hidden


def whole_text(page: Page) -> str:
    """The text of a page but for what it hides (`display: none`, choices of a form, `<template>`, `<noscript>`)."""
    shown = page.elements[page.blocks[:, ELEMENT], E_HIDDEN] == 0
    return text_of(page, shown if shown.any() else np.ones(len(shown), np.bool_))


def title_of(page: Page) -> str:
    """The text of the page's `<title>`."""
    begin, end = page.title
    return "" if begin < 0 else _decoded(page.codes[begin:end])


def text_of(page: Page, kept: Kept) -> str:
    """The text of the kept blocks: a list item begins with a dash or its number, cells of a row are parted by bars.

    Blocks are parted by a blank line, those of a list or a table and lines ended by `<br>` by a line break. White
    space is kept within `<pre>` and else collapsed; code within `<pre>` stands between lines of three backticks, and
    the numbers of its lines are left out.
    """
    return _decoded(_write(page.codes, page.pieces, page.blocks, page.elements, kept, tables().classes))


def _decoded(codes: Points) -> str:
    """Code points as text, character references put in."""
    text = codes.astype("<u4", copy=False).tobytes().decode("utf-32-le", "replace")
    return entities.unescape(text) if "&" in text else text


@kernel
def _said_once(blocks: Ints, elements: Ints, kept: Kept, title: Points, classes: Classes, lower: Points) -> Kept:
    """The kept blocks without those that say the page's heading again, as its trail, lists and captions do.

    Headings are blocks within `<h1>`, and the page's title, whole or what is before or after a mark that parts it (a
    bar, a dash between spaces). Of the kept blocks with a heading's words the first in an `<h1>` stays, else the first.
    """
    headed = np.zeros(len(elements), np.bool_)
    for e in range(1, len(elements)):
        headed[e] = headed[elements[e, E_PARENT]] or elements[e, E_TAG] == H1
    headings, count = np.empty(len(blocks) + 2 * len(title) + 1, np.int64), 0
    for i in range(len(blocks)):
        if blocks[i, WORDS] >= _HEADING_WORDS and headed[blocks[i, ELEMENT]]:
            headings[count] = blocks[i, HASH]
            count += 1
    at, size = 0, len(title)
    while at <= size:
        begin = at
        if at < size and classes[title[at]] & SPACE:
            at += 1
            while at < size and not classes[title[at]] & (SPACE | ALNUM):
                at += 1
            if at == begin + 1 or at == size or not classes[title[at]] & SPACE:
                at = begin + 1
                continue
        elif at < size and title[at] not in (58, 124, 187):  # : | »
            at += 1
            continue
        at += 1
        for first, last in ((0, begin), (min(at, size), size)):
            words, value = hash_of_words(title[first:last], classes, lower)
            if words >= _HEADING_WORDS:
                headings[count] = value
                count += 1
    out = kept.copy()
    headings = np.sort(headings[:count])
    said = np.full(count, -1, np.int64)  # the block that stays of each heading
    for i in range(len(blocks)):
        k = np.searchsorted(headings, blocks[i, HASH])
        if not out[i] or k == count or headings[k] != blocks[i, HASH]:
            continue
        if said[k] >= 0:
            if headed[blocks[said[k], ELEMENT]] or not headed[blocks[i, ELEMENT]]:
                out[i] = False
                continue
            out[said[k]] = False
        said[k] = i
    return out


@kernel
def _between(blocks: Ints, elements: Ints, items: Ints, cells: Ints, before: int, after: int) -> int:
    """What parts two kept blocks: 0 a blank line, 1 a line break, 2 a bar, 3 a space."""
    here, there = blocks[before, ELEMENT], blocks[after, ELEMENT]
    tag = elements[there, E_TAG]
    cell, other = cells[there], cells[here]
    if cell > 0 and cell == other:
        return 3
    if here == there:
        return 1 if blocks[before, ENDED_BY] == BR and blocks[after, BREAKS] < 2 else 0
    if tag in (DT, DD):
        return 1 if elements[here, E_TAG] in (DT, DD) else 0
    if tag == LI:
        return 1 if items[here] >= 0 else 0
    if cell > 0 and other > 0:
        row, other = elements[cell, E_PARENT], elements[other, E_PARENT]
        if row == other:
            return 2
        if (
            elements[row, E_TAG] == TR
            and elements[other, E_TAG] == TR
            and _table(elements, row) == _table(elements, other)
        ):
            return 1
    return 0


@kernel
def _table(elements: Ints, row: int) -> int:
    """The table of a row, past the body that it stands in."""
    parent = elements[row, E_PARENT]
    return elements[parent, E_PARENT] if elements[parent, E_TAG] in _TABLE_PARTS else parent


@kernel
def _small_cells(blocks: Ints, elements: Ints) -> Ints:
    """Of each element the cell of a table it stands in, if that is one of data: short, in a row of several.

    0 where it is none: a cell of a layout is as long as a page, or has lists, tables and headings in it.
    """
    cells = np.zeros(len(elements), np.int64)
    large, of_row, chars = np.zeros(len(elements), np.bool_), cells.copy(), cells.copy()
    for e in range(1, len(elements)):
        tag, parent = elements[e, E_TAG], elements[e, E_PARENT]
        if tag in (TD, TH):
            cells[e] = e
            of_row[parent] += 1
        else:
            cells[e] = cells[parent]
        if tag not in (TD, TH, P, DIV):
            large[cells[e]] = True
        if tag == TABLE:
            large[cells[parent]] = True
            cells[e] = 0
    for i in range(len(blocks)):
        chars[cells[blocks[i, ELEMENT]]] += blocks[i, CHARS]
    for e in range(1, len(elements)):
        cell = cells[e]
        if cell and (large[cell] or chars[cell] > _CELL_CHARACTERS or of_row[elements[cell, E_PARENT]] < 2):
            cells[e] = 0
    return cells


@kernel
def _is_shown(codes: Points, pieces: Ints, block: Ints, classes: Classes) -> bool:
    """Whether a block has any text that a reader sees."""
    for p in range(block[FIRST_PIECE], block[LAST_PIECE]):
        if pieces[p, 0] < 0:
            return True
        for k in range(pieces[p, 0], pieces[p, 1]):
            code = codes[k]
            if not (code < 0x110000 and classes[code] & SPACE) and code >= 32:
                return True
    return False


@kernel
def _numbered(elements: Ints) -> Ints:
    """The number of each item of an ordered list, NO_NUMBER for other elements.

    Lists of comments, trails and menus go without: their numbers seldom are part of what they say.
    """
    following, out = np.full(len(elements), 1, np.int64), np.full(len(elements), NO_NUMBER, np.int64)
    for e in range(1, len(elements)):
        parent, start = elements[e, E_PARENT], elements[e, E_START]
        if start != NO_NUMBER:
            following[e] = start
        if (
            elements[e, E_TAG] == LI
            and elements[parent, E_TAG] == OL
            and not elements[parent, E_KEYWORDS] & _UNNUMBERED
        ):
            out[e] = start if start != NO_NUMBER else following[parent]
            following[parent] = out[e] + 1
    return out


@kernel
def _codes_of(codes: Points, pieces: Ints, blocks: Ints, elements: Ints, verbatim: Ints) -> npt.NDArray[np.bool_]:
    """Which `<pre>` hold code: named so, with `<code>` within, or a quarter of their lines ends as code does."""
    lines, ended = np.zeros(len(elements), np.int64), np.zeros(len(elements), np.int64)
    for i in range(len(blocks)):
        e = verbatim[blocks[i, ELEMENT]]
        if not e:
            continue
        last = np.uint32(0)
        for p in range(blocks[i, FIRST_PIECE], blocks[i, LAST_PIECE]):
            for k in range(pieces[p, 0], pieces[p, 1]):
                if codes[k] == _NEWLINE:
                    lines[e] += last != 0
                    ended[e] += last in _ENDS_OF_CODE
                    last = np.uint32(0)
                elif codes[k] > 32:
                    last = codes[k]
        lines[e] += last != 0
        ended[e] += last in _ENDS_OF_CODE
    out = np.zeros(len(elements), np.bool_)
    for e in range(1, len(elements)):
        out[e] = verbatim[e] == e and (elements[e, E_CODE] != 0 or (lines[e] > 1 and 4 * ended[e] >= lines[e]))
        if verbatim[e] and verbatim[e] != e and elements[e, E_CODE]:
            out[verbatim[e]] = True
    return out


@kernel
def _put_number(out: Points, at: int, number: int) -> int:
    """Writes a number; returns where it ends."""
    if number < 0:
        out[at] = _DASH
        at, number = at + 1, -number
    tens = 1
    while number // tens >= 10:
        tens *= 10
    while tens:
        out[at] = np.uint32(48 + number // tens % 10)
        at, tens = at + 1, tens // 10
    return at


@kernel
def _write(codes: Points, pieces: Ints, blocks: Ints, elements: Ints, kept: Kept, classes: Classes) -> Points:
    size = 0
    for i in range(len(blocks)):
        if kept[i]:
            size += 32
            for p in range(blocks[i, FIRST_PIECE], blocks[i, LAST_PIECE]):
                size += pieces[p, 1] - pieces[p, 0] + 1
    out = np.empty(size + 8, np.uint32)
    items, verbatim = np.full(len(elements), -1, np.int64), np.zeros(len(elements), np.int64)
    for e in range(1, len(elements)):
        parent = elements[e, E_PARENT]
        items[e] = e if elements[e, E_TAG] == LI else items[parent]
        verbatim[e] = e if not verbatim[parent] and elements[e, E_TAG] == PRE else verbatim[parent]
    cells = _small_cells(blocks, elements)
    begun, numbers = np.zeros(len(elements) + 1, np.bool_), _numbered(elements)
    is_code = _codes_of(codes, pieces, blocks, elements, verbatim)
    at, before, fenced = 0, -1, 0
    for i in range(len(blocks)):
        e = blocks[i, ELEMENT]
        first_of_item = items[e] >= 0 and not begun[items[e]]
        if items[e] >= 0:
            begun[items[e]] = True
        if not kept[i] or not _is_shown(codes, pieces, blocks[i], classes):
            continue
        if elements[e, E_NUMBERS] and blocks[i, CHARS] == blocks[i, DIGITS] + blocks[i, WORDS] - 1:
            continue
        fence = verbatim[e] if is_code[verbatim[e]] else 0
        if fenced and fence != fenced:
            out[at], out[at + 1], out[at + 2], out[at + 3] = _NEWLINE, _TICK, _TICK, _TICK
            at += 4
        if before >= 0:
            how = _between(blocks, elements, items, cells, before, i)
            if fence != fenced:
                how = 0
            elif fence:
                how = 1 if blocks[i, BREAKS] < 2 else 0
            if how == 2:
                out[at], out[at + 1], out[at + 2] = _BLANK, _BAR, _BLANK
                at += 3
            elif how == 3:
                out[at] = _BLANK
                at += 1
            else:
                out[at] = _NEWLINE
                at += 1
                list_goes_on = first_of_item and items[blocks[before, ELEMENT]] >= 0 and fence == fenced
                if how == 0 and not list_goes_on:
                    out[at] = _NEWLINE
                    at += 1
        if fence and fence != fenced:
            out[at], out[at + 1], out[at + 2], out[at + 3] = _TICK, _TICK, _TICK, _NEWLINE
            at += 4
        elif first_of_item and not fence:
            if numbers[items[e]] == NO_NUMBER:
                out[at] = _DASH
                at += 1
            else:
                at = _put_number(out, at, numbers[items[e]])
                out[at] = _POINT
                at += 1
            out[at] = _BLANK
            at += 1
        before, fenced = i, fence
        begin = at
        for p in range(blocks[i, FIRST_PIECE], blocks[i, LAST_PIECE]):
            if pieces[p, 0] < 0:
                out[at] = np.uint32(-pieces[p, 0])
                at += 1
                continue
            if pieces[p, 0] == pieces[p, 1] and at > begin and out[at - 1] != _BLANK:
                out[at] = _BLANK
                at += 1
            for k in range(pieces[p, 0], pieces[p, 1]):
                code = codes[k]
                if not verbatim[e]:
                    if code < 0x110000 and classes[code] & SPACE:
                        if at == begin or out[at - 1] == _BLANK:
                            continue
                        code = _BLANK
                elif at == begin and (code == _NEWLINE or code == 13):
                    continue
                out[at] = code
                at += 1
        while at > begin and (out[at - 1] == _BLANK or out[at - 1] == _NEWLINE or out[at - 1] == 13):
            at -= 1
    if fenced:
        out[at], out[at + 1], out[at + 2], out[at + 3] = _NEWLINE, _TICK, _TICK, _TICK
        at += 4
    return out[:at]
