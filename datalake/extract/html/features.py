"""What a block of a page looks like, in numbers: the features that a model of main content judges by.

Two sets. Those of the *first* pass describe a block, the elements around it, blocks of the same kind on the page and
its neighbours. Those of the *second* describe what the first pass made of the page: how likely the neighbours, the
blocks of the same kind and the whole page are content. Shares are of words unless said otherwise; -1 stands for what
isn't there. No feature knows a word of any language but those of the page's own title and the English ones that
designers name classes with.

The ideas are those of Boilerpipe (Kohlschütter et al. 2010: link density and neighbours), Dragnet (Peters and Lecocq
2013: class and id words) and Web2Text (Vogels et al. 2018: features of ancestors); measured on pages of all kinds they
stand in docs/benchmarks.md.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from datalake.compiled import kernel
from datalake.extract.html.blocks import (
    BOLD_CHARS,
    CHARS,
    DIGITS,
    E_DEPTH,
    E_HIDDEN,
    E_KEY,
    E_KEYWORDS,
    E_PARENT,
    E_TAG,
    ELEMENT,
    ENDED_BY,
    ENDS_SENTENCE,
    FIRST_PIECE,
    HASH,
    IMAGES,
    INLINE_TAGS,
    KEYWORDS,
    LAST_PIECE,
    LINK_CHARS,
    LINKS,
    PUNCTUATION,
    TAG,
    TAGS,
    UPPER,
    WORDS,
    Ints,
    Page,
)
from datalake.text.characters import ALNUM, IDEOGRAPH, Classes, Points, tables

Features = npt.NDArray[np.float32]
Numbers = npt.NDArray[np.float64]

_OWN = (
    "words", "chars", "link_share", "punctuation_per_word", "punctuation", "ends_sentence", "digit_share",
    "upper_share", "chars_per_word", "tags_per_word", "tags", "links", "images", "bold_share", "tag", "parent_tag",
    "ended_by", "depth", "hidden", "place", "number", "blocks", "words_before", "page_words", "same_text", "same_kind",
    "kind_words", "kind_link_share", "kind_mean_words", "kind_punctuation", "in_title", "of_title", "from_title",
    "from_h1", "from_largest",
)  # fmt: skip
_ANCESTORS = (
    "li",
    "table",
    "form",
    "nav",
    "footer",
    "header",
    "aside",
    "article",
    "main",
    "blockquote",
    "dl",
    "section",
    "h1",
)
_AROUND = ("words", "link_share", "mean_words", "punctuation")  # of the element and the three around it
_SHARED = ("up", "down", "words", "link_share")  # of the element that holds this block and the largest
_LIKE_OWN = (0, 2, 3, 5, 14, 13, 27)  # of a neighbour
_NEIGHBOURS = (-3, -2, -1, 1, 2, 3)
_WINDOWS = (5, 12)  # blocks to each side
_IN_WINDOW = ("words", "link_share", "punctuation")

FIRST_NAMES: tuple[str, ...] = (
    *_OWN,
    *(f"in_{name}" for name in _ANCESTORS),
    *(f"named_{words.partition('|')[0]}" for words in KEYWORDS),
    *(f"around_{level}_{name}" for level in range(4) for name in _AROUND),
    *(f"shared_{name}" for name in _SHARED),
    *(f"neighbour_{offset}_{_OWN[column]}" for offset in _NEIGHBOURS for column in _LIKE_OWN),
    *(f"window_{width}_{name}" for width in _WINDOWS for name in _IN_WINDOW),
)
_SCORE_OFFSETS = (-4, -3, -2, -1, 1, 2, 3, 4)
_SCORE_WINDOWS = (3, 8, 20)
_TAKEN = ("words", "link_share", "punctuation_per_word", "ends_sentence", "tag", "hidden", "ended_by", "words_before",
          "kind_words", "kind_link_share", "kind_mean_words", "in_title", "of_title", "from_title", "from_h1",
          "from_largest")  # fmt: skip
SECOND_NAMES: tuple[str, ...] = (
    "score",
    *(f"score_{offset}" for offset in _SCORE_OFFSETS),
    *(f"score_window_{width}" for width in _SCORE_WINDOWS),
    "content", "content_share", "best", "rank", "content_before", "kind_score",
    *_TAKEN,
    *FIRST_NAMES[-len(_WINDOWS) * len(_IN_WINDOW) :],
)  # fmt: skip

# Numbers for the compiled loops, which hold them as constants.
_IN, _NAMED = len(_OWN), len(_OWN) + len(_ANCESTORS)
_AROUND_AT = _NAMED + len(KEYWORDS)
_SHARED_AT = _AROUND_AT + 4 * len(_AROUND)
_NEIGHBOURS_AT = _SHARED_AT + len(_SHARED)
_WINDOWS_AT = _NEIGHBOURS_AT + len(_NEIGHBOURS) * len(_LIKE_OWN)
_WIDTH, _SECOND_WIDTH = len(FIRST_NAMES), len(SECOND_NAMES)
_TAKEN_COLUMNS = tuple(FIRST_NAMES.index(name) for name in _TAKEN)
_GROUPS = len(KEYWORDS)
_ANCESTOR_COUNT = len(_ANCESTORS)
_HEADING = TAG["h1"]
_ANCESTOR_BITS = np.array(
    [
        1 << _ANCESTORS.index("h1" if name in ("h2", "h3", "h4", "h5", "h6") else name)
        if name in _ANCESTORS or name in ("h2", "h3", "h4", "h5", "h6")
        else 0
        for name in TAGS
    ]
)
_MAX_TITLE = 64  # words of the title
_TITLE_CHARS = 400  # characters looked at, in the title and in each block
_MIX = np.int64(-0x61C8864680B583EB)


def first_features(page: Page) -> tuple[Features, Ints]:
    """Features of the first pass, shape (blocks, len(FIRST_NAMES)), and for each block the first one of its kind.

    Blocks are of a kind when their elements and the elements around these have the same tags and classes.
    """
    known = tables()
    return _first(page.codes, page.pieces, page.blocks, page.elements, *page.title, known.classes, known.lower)


def second_features(scores: Numbers, first: Features, kinds: Ints) -> Features:
    """Features of the second pass, shape (blocks, len(SECOND_NAMES)), from what the first pass scored (0 to 1)."""
    return _second(scores, first, kinds)


@kernel
def _words_of(codes: Points, begin: int, end: int, classes: Classes, lower: Points, out: Ints, count: int) -> int:
    """Hashes of the words of a stretch, appended to `out` as far as there is room; returns how many there are now."""
    value, within = np.int64(0), False
    for k in range(begin, end + 1):
        code = codes[k] if k < end else np.uint32(32)
        kind = classes[code] if code < 0x110000 else np.uint16(0)
        if kind & ALNUM and not kind & IDEOGRAPH:
            value = (value ^ np.int64(lower[code])) * _MIX
            value ^= value >> np.int64(29)
            within = True
            continue
        if within and count < len(out):
            out[count] = value
            count += 1
        value, within = np.int64(0), False
        if kind & IDEOGRAPH and count < len(out):
            out[count] = np.int64(code) * _MIX
            count += 1
    return count


@kernel
def _distinct(words: Ints, count: int) -> int:
    """The distinct words moved to the front; returns how many."""
    kept = 0
    for k in range(count):
        new = True
        for j in range(kept):
            if words[j] == words[k]:
                new = False
                break
        if new:
            words[kept] = words[k]
            kept += 1
    return kept


@kernel
def _first_equal(keys: Ints) -> Ints:
    """For each item the index of the first one equal to it."""
    bits = 3
    while 1 << bits < 2 * len(keys):
        bits += 1
    mask = (1 << bits) - 1
    slots, out = np.full(1 << bits, -1, np.int64), np.empty(len(keys), np.int64)
    for k in range(len(keys)):
        mixed = keys[k] * _MIX
        at = (mixed ^ (mixed >> np.int64(32))) & mask
        while slots[at] >= 0 and keys[slots[at]] != keys[k]:
            at = (at + 1) & mask
        if slots[at] < 0:
            slots[at] = k
        out[k] = slots[at]
    return out


@kernel
def _first(
    codes: Points,
    pieces: Ints,
    blocks: Ints,
    elements: Ints,
    title_begin: int,
    title_end: int,
    classes: Classes,
    lower: Points,
) -> tuple[Features, Ints]:
    count, element_count = len(blocks), len(elements)
    out = np.zeros((count, _WIDTH), np.float32)
    kinds = np.zeros(count, np.int64)
    if not count:
        return out, kinds
    title = np.zeros(_MAX_TITLE, np.int64)
    title_words = 0
    if title_begin >= 0:
        title_words = _words_of(
            codes, title_begin, min(title_end, title_begin + _TITLE_CHARS), classes, lower, title, 0
        )
        title_words = _distinct(title, title_words)

    # Of each element: tags and keywords of it and those around it; words, link words, blocks, punctuation within.
    tags, named = np.zeros(element_count, np.int64), np.zeros(element_count, np.int64)
    within = np.zeros((element_count, 4))
    for e in range(element_count):
        parent = elements[e, E_PARENT]
        if parent >= 0:
            tags[e], named[e] = tags[parent], named[parent] | elements[e, E_KEYWORDS]
        tags[e] |= _ANCESTOR_BITS[elements[e, E_TAG]]
    largest, most, total = 0, -1.0, 0.0
    keys = np.empty(count, np.int64)
    for i in range(count):
        block = blocks[i]
        e = block[ELEMENT]
        words, linked = float(block[WORDS]), block[LINK_CHARS] / block[CHARS]
        total += words
        within[e, 0] += words
        within[e, 1] += words * linked
        within[e, 2] += 1
        within[e, 3] += block[PUNCTUATION]
        if words * (1 - linked) > most:
            largest, most = i, words * (1 - linked)
        parent = elements[e, E_PARENT]
        keys[i] = elements[e, E_KEY] * 31 + (elements[parent, E_KEY] if parent >= 0 else 5)
    for e in range(element_count - 1, 0, -1):
        within[elements[e, E_PARENT]] += within[e]
    total = max(total, 1.0)
    kinds[:] = _first_equal(keys)
    same = _first_equal(blocks[:, HASH].copy())
    of_kind, repeats = np.zeros((count, 4)), np.zeros(count)
    for i in range(count):
        block, kind = blocks[i], kinds[i]
        of_kind[kind, 0] += 1
        of_kind[kind, 1] += block[WORDS]
        of_kind[kind, 2] += block[WORDS] * block[LINK_CHARS] / block[CHARS]
        of_kind[kind, 3] += block[PUNCTUATION]
        repeats[same[i]] += 1
    path, step, e = np.full(element_count, -1, np.int64), 0, blocks[largest, ELEMENT]
    while e >= 0:
        path[e] = step
        step += 1
        e = elements[e, E_PARENT]

    heading, titled, likeness, before = -1, -1, 0.0, 0.0
    seen = np.zeros(_TITLE_CHARS, np.int64)
    for i in range(count):
        block, x, kind = blocks[i], out[i], kinds[i]
        e = block[ELEMENT]
        parent = elements[e, E_PARENT]
        words, chars = float(block[WORDS]), float(block[CHARS])
        some = max(words, 1.0)
        if heading < 0 and elements[e, E_TAG] == _HEADING:
            heading = i
        if title_words:
            looked, left = 0, _TITLE_CHARS
            for p in range(block[FIRST_PIECE], block[LAST_PIECE]):
                end = min(pieces[p, 1], pieces[p, 0] + left)
                looked = _words_of(codes, pieces[p, 0], end, classes, lower, seen, looked)
                left -= end - pieces[p, 0]
                if left <= 0:
                    break
            hits, hit = 0, np.uint64(0)
            for k in range(looked):
                for j in range(title_words):
                    if seen[k] == title[j]:
                        hits += 1
                        hit |= np.uint64(1) << np.uint64(j)
                        break
            shared = 0
            while hit:
                shared += 1
                hit &= hit - np.uint64(1)
            x[30], x[31] = hits / max(looked, 1), shared / title_words
            alike = shared / (title_words + looked - hits)
            if alike > likeness:
                titled, likeness = i, alike
        x[0], x[1], x[2] = words, chars, block[LINK_CHARS] / chars
        x[3], x[4], x[5] = block[PUNCTUATION] / some, block[PUNCTUATION], block[ENDS_SENTENCE]
        x[6], x[7], x[8] = block[DIGITS] / chars, block[UPPER] / chars, chars / some
        x[9], x[10], x[11], x[12] = block[INLINE_TAGS] / some, block[INLINE_TAGS], block[LINKS], block[IMAGES]
        x[13], x[14] = block[BOLD_CHARS] / chars, elements[e, E_TAG]
        x[15] = elements[parent, E_TAG] if parent >= 0 else 0
        x[16], x[17], x[18] = block[ENDED_BY], elements[e, E_DEPTH], elements[e, E_HIDDEN]
        x[19], x[20], x[21], x[22], x[23] = i / count, i, count, before / total, total
        x[24], x[25], x[26] = repeats[same[i]], of_kind[kind, 0], of_kind[kind, 1] / total
        x[27], x[28] = of_kind[kind, 2] / max(of_kind[kind, 1], 1.0), of_kind[kind, 1] / of_kind[kind, 0]
        x[29], x[34] = of_kind[kind, 3] / max(of_kind[kind, 1], 1.0), i - largest
        before += words
        for k in range(_ANCESTOR_COUNT):
            x[_IN + k] = tags[e] >> k & 1
        near = elements[e, E_KEYWORDS] | (elements[parent, E_KEYWORDS] if parent >= 0 else 0)
        for k in range(_GROUPS):
            x[_NAMED + k] = 2 if near >> k & 1 else named[e] >> k & 1
        outer = e
        for level in range(4):
            at = _AROUND_AT + 4 * level
            if outer >= 0:
                around = within[outer]
                x[at], x[at + 1] = around[0] / total, around[1] / max(around[0], 1.0)
                x[at + 2], x[at + 3] = around[0] / around[2], around[3] / max(around[0], 1.0)
                outer = elements[outer, E_PARENT]
            else:
                x[at], x[at + 1], x[at + 2], x[at + 3] = 1, -1, -1, -1
        outer, up = e, 0
        while path[outer] < 0:
            outer = elements[outer, E_PARENT]
            up += 1
        x[_SHARED_AT], x[_SHARED_AT + 1] = up, path[outer]
        x[_SHARED_AT + 2] = within[outer, 0] / total
        x[_SHARED_AT + 3] = within[outer, 1] / max(within[outer, 0], 1.0)

    sums = np.zeros((count + 1, 3))  # words, link words and punctuation before each block
    for i in range(count):
        x = out[i]
        x[32] = i - titled if titled >= 0 else 0
        x[33] = i - heading if heading >= 0 else -999
        sums[i + 1, 0] = sums[i, 0] + x[0]
        sums[i + 1, 1] = sums[i, 1] + x[0] * x[2]
        sums[i + 1, 2] = sums[i, 2] + x[4]
    for i in range(count):
        x, at = out[i], _NEIGHBOURS_AT
        for offset in _NEIGHBOURS:
            for column in _LIKE_OWN:
                x[at] = out[i + offset, column] if 0 <= i + offset < count else -1
                at += 1
        for width in _WINDOWS:
            begin, end = max(0, i - width), min(count, i + width + 1)
            words = sums[end, 0] - sums[begin, 0]
            x[at] = words
            x[at + 1] = (sums[end, 1] - sums[begin, 1]) / max(words, 1.0)
            x[at + 2] = (sums[end, 2] - sums[begin, 2]) / max(words, 1.0)
            at += 3
    return out, kinds


@kernel
def _second(scores: Numbers, first: Features, kinds: Ints) -> Features:
    count = len(scores)
    out = np.zeros((count, _SECOND_WIDTH), np.float32)
    sums = np.zeros((count + 1, 2))  # words that are content, and words, before each block
    of_kind = np.zeros((count, 2))
    best = 0.0
    for i in range(count):
        words = float(first[i, 0])
        sums[i + 1, 0] = sums[i, 0] + scores[i] * words
        sums[i + 1, 1] = sums[i, 1] + words
        of_kind[kinds[i], 0] += scores[i] * words
        of_kind[kinds[i], 1] += words
        best = max(best, scores[i])
    content, total = sums[count, 0], max(sums[count, 1], 1.0)
    ranks = np.empty(count, np.int64)
    order = np.argsort(-scores, kind="mergesort")
    for k in range(count):
        ranks[order[k]] = k
    for i in range(count):
        x = out[i]
        x[0] = scores[i]
        at = 1
        for offset in _SCORE_OFFSETS:
            x[at] = scores[i + offset] if 0 <= i + offset < count else -1
            at += 1
        for width in _SCORE_WINDOWS:
            begin, end = max(0, i - width), min(count, i + width + 1)
            x[at] = (sums[end, 0] - sums[begin, 0]) / max(sums[end, 1] - sums[begin, 1], 1.0)
            at += 1
        x[at], x[at + 1], x[at + 2], x[at + 3] = content, content / total, best, ranks[i]
        x[at + 4] = sums[i + 1, 0] / max(content, 1e-9)
        x[at + 5] = of_kind[kinds[i], 0] / max(of_kind[kinds[i], 1], 1.0)
        at += 6
        for column in _TAKEN_COLUMNS:
            x[at] = first[i, column]
            at += 1
        for column in range(_WINDOWS_AT, _WIDTH):
            x[at] = first[i, column]
            at += 1
    return out
