"""Facts on English lines that the line rules of corpora ask for: C4's, its variants', FineWeb's, RefinedWeb's.

C4 (Raffel et al. 2020, arXiv:1910.10683, and its code in TensorFlow Datasets) leaves out lines by the words and
phrases in them, in the order of `FATES`; its variants differ in which lines they put to these checks. Pieces are
datatrove's, close to spaCy's tokens.
"""

from __future__ import annotations

import numpy as np

from datalake.compiled import kernel
from datalake.curate.metrics.prepared.document import (
    CURLY_BRACKET,
    DIGITS,
    END,
    FATE,
    FINAL,
    JAVASCRIPT,
    KEPT,
    LEFT,
    LOREM_IPSUM,
    PHRASES,
    POLICY,
    SENTENCES,
    START,
    STOPPED,
    TERMINATED,
    UNCITED,
    UNCITED_SIZE,
    UPPER_CASE,
    WORDED,
    Hashes,
    Places,
    Text,
)
from datalake.curate.metrics.prepared.lines import sentences
from datalake.curate.metrics.prepared.repeats import hash_exact
from datalake.text.characters import ALNUM, LETTER, SPACE, STOP_CHAR, TERMINAL, UPPER, Points, concatenated

MAX_WORD, FEW_WORDS = 1000, 3  # of C4 and of FineWeb

_PHRASES = (
    "lorem ipsum",
    "javascript",
    "terms of use",
    "privacy policy",
    "cookie policy",
    "uses cookies",
    "use of cookies",
    "use cookies",
)
_LOREM_BIT, _JAVASCRIPT_BIT = 1, 2
_PHRASE_CODES, _PHRASE_BOUNDS = concatenated(_PHRASES)
_CITATION_CODES, _CITATION_BOUNDS = concatenated(("edit]", "citation needed]"))
# Two letters in each phrase that seldom stand together, and where: a phrase is looked for around such a pair alone.
_PAIRS = ("ps", "ja", "ms", "va", "ki", "ki", "ki", "ki")
_ANCHORS = np.array([phrase.index(pair) for phrase, pair in zip(_PHRASES, _PAIRS, strict=True)])
_SECOND = np.zeros(128, np.uint32)  # the second letter by the first
_SECOND[[ord(pair[0]) for pair in _PAIRS]] = [ord(pair[1]) for pair in _PAIRS]


@kernel
def english_lines(text: Text, lines: Places, hashes: Hashes, count: int) -> tuple[int, int]:
    """Write facts on English lines into the rows of `lines`; pieces in all of them, and those with a letter."""
    codes, kinds, classes, lower = text.codes, text.kinds, text.classes, text.lower
    starts, ends = lines[START], lines[END]
    pieces, alpha, longest = 0, 0, 0
    for k in range(count):
        longest = max(longest, ends[k] - starts[k])
    room = np.empty(longest, np.uint32)
    for k in range(count):
        words, widest = 0, 0  # white-space words of the line as it stands
        cited, curly, ends_within = False, False, False
        upper, digits, worded = 0, 0, 0  # worded: words with a letter or digit
        at, until = starts[k], ends[k]
        while at < until:
            if kinds[at] & SPACE:
                at += 1
                continue
            word, run = at, at
            inside, joined, dotted, letter_before = False, False, False, False
            letters = 0
            while at < until and not kinds[at] & SPACE:
                run = at
                while at < until and kinds[at] & ALNUM:
                    upper += kinds[at] & UPPER != 0
                    letters += kinds[at] & LETTER != 0
                    at += 1
                digits += at - run - letters
                c = codes[at] if at < until else 32
                if at > run:
                    inside = True
                    letter = letters > 0
                    letters = 0
                    if joined:
                        alpha += letter and not letter_before
                        letter_before |= letter
                    else:
                        pieces += 1
                        alpha += letter
                        letter_before = letter
                    joined = False
                    if at == until or kinds[at] & SPACE:
                        continue
                    within = at + 1 < until and kinds[at + 1] & ALNUM != 0
                    if within and c in (46, 47, 95, 44, 58):  # . / _ , : inside a number, a name, an address
                        joined = True
                        dotted |= c == 46
                    elif not (within and c in (39, 0x2019)) and not (c == 46 and dotted):  # don't; the last . of a.m.
                        pieces += 1
                elif not (at > word and codes[at - 1] == c and c in (46, 45)):  # ... and -- are one piece
                    pieces += 1
                upper += kinds[at] & UPPER != 0
                cited |= c == 91
                curly |= c == 123
                ends_within |= kinds[at] & TERMINAL != 0 and at < until - 1
                at += 1
            words += 1
            worded += inside
            widest = max(widest, at - word)
        lines[WORDED, k], lines[UPPER_CASE, k], lines[DIGITS, k] = worded, upper, digits
        lines[FATE, k] = LEFT
        if widest > MAX_WORD:
            continue
        size = ends[k] - starts[k]
        if cited:
            size = _uncited(codes, starts[k], ends[k], room)
            line = room[:size]
            ends_within = True
        else:
            line = codes[starts[k] : ends[k]]
        left = words
        if size < ends[k] - starts[k]:
            left, inside = 0, False  # white-space words without citations
            for at in range(size):
                space = classes[line[at]] & SPACE != 0
                left += not space and not inside
                inside = not space
        final = line[size - 1] if size else 0
        terminal = final in (46, 63, 33, 34)  # . ? ! "
        if final == 46 and size > 2 and line[size - 2] == 46 and line[size - 3] == 46:
            terminal = False
        if words < FEW_WORDS:  # the widest of the rules: `left` never exceeds `words`
            continue
        found = _phrases(line, size, lower)
        lines[UNCITED, k], lines[TERMINATED, k], lines[FINAL, k], lines[PHRASES, k] = left, terminal, final, found
        if found & _LOREM_BIT:
            lines[FATE, k] = LOREM_IPSUM
        elif found & _JAVASCRIPT_BIT:
            lines[FATE, k] = JAVASCRIPT
        elif curly:
            lines[FATE, k] = CURLY_BRACKET
        elif found:
            lines[FATE, k] = POLICY
        else:
            lines[FATE, k] = KEPT
            lines[SENTENCES, k] = sentences(line, size, classes) if ends_within else 1
            while size and classes[line[size - 1]] & SPACE:
                size -= 1
            lines[UNCITED_SIZE, k] = size
            lines[STOPPED, k] = size > 0 and classes[line[size - 1]] & STOP_CHAR != 0
            hashes[1, k] = hash_exact(line, 0, size) if cited else hashes[0, k]
    return pieces, alpha


@kernel
def _phrases(line: Points, size: int, lower: Points) -> int:
    """Bits of the phrases that the lower-cased line holds."""
    found = 0
    for at in range(size - 1):
        c = lower[line[at]]
        if c > 127 or not _SECOND[c] or _SECOND[c] != lower[line[at + 1]]:
            continue
        for p in range(len(_PHRASE_BOUNDS) - 1):
            begin, length = at - _ANCHORS[p], _PHRASE_BOUNDS[p + 1] - _PHRASE_BOUNDS[p]
            if begin < 0 or begin + length > size or lower[line[begin]] != _PHRASE_CODES[_PHRASE_BOUNDS[p]]:
                continue
            k = 0
            while k < length and lower[line[begin + k]] == _PHRASE_CODES[_PHRASE_BOUNDS[p] + k]:
                k += 1
            if k == length:
                found |= 1 << p
    return found


@kernel
def _uncited(codes: Points, start: int, end: int, out: Points) -> int:
    r"""The line without matches of `\[\d*\]|\[edit\]|\[citation needed\]` into `out`; returns its length.

    Of digits the ASCII ones, in which citations are numbered.
    """
    size, at = 0, start
    while at < end:
        if codes[at] == 91:  # [
            k = at + 1
            while k < end and 48 <= codes[k] <= 57:
                k += 1
            if k < end and codes[k] == 93:  # ]
                at = k + 1
                continue
            skipped = False
            for m in range(len(_CITATION_BOUNDS) - 1):
                length = _CITATION_BOUNDS[m + 1] - _CITATION_BOUNDS[m]
                if at + 1 + length > end:
                    continue
                k = 0
                while k < length and codes[at + 1 + k] == _CITATION_CODES[_CITATION_BOUNDS[m] + k]:
                    k += 1
                if k == length:
                    at += 1 + length
                    skipped = True
                    break
            if skipped:
                continue
        out[size] = codes[at]
        size += 1
        at += 1
    return size
