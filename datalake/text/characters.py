"""Characters: the classes of all code points, as tables that compiled loops look a code point up in.

Classes are those of the running Python (its Unicode version; UPPER is what has a lower case), but for sentence-ending
punctuation, which is the property Sentence_Terminal of Unicode 16 (PropList.txt) with the ellipsis and closing
quotation marks.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

Points = npt.NDArray[np.uint32]
Classes = npt.NDArray[np.uint16]

(
    SPACE,
    LETTER,
    ALNUM,
    IDEOGRAPH,
    HIRAGANA,
    KATAKANA,
    LOWER,
    TERMINAL,
    CLOSER,
    CJK_TERMINAL,
    LINE_END,
    UPPER,
    STOP_CHAR,
) = (1 << k for k in range(13))

# No letters or digits are assigned beyond (Unicode 16); the planes above are tags, variation selectors and private use.
_ASSIGNED = 0x33480

SENTENCE_TERMINAL = (
    "21 2e 3f 589 61d-61f 6d4 700-702 7f9 837 839 83d-83e 964-965 104a-104b 1362 1367-1368 166e 1735-1736 "
    "17d4-17d5 1803 1809 1944-1945 1aa8-1aab 1b4e-1b4f 1b5a-1b5b 1b5e-1b5f 1b7d-1b7f 1c3b-1c3c 1c7e-1c7f 2024 "
    "203c-203d 2047-2049 2cf9-2cfb 2e2e 2e3c 2e53-2e54 2e60-2e61 3002 a4ff a60e-a60f a6f3 a6f7 a876-a877 "
    "a8ce-a8cf a92f a9c8-a9c9 aa5d-aa5f aaf0-aaf1 abeb fe12 fe15-fe16 fe52 fe56-fe57 ff01 ff0e ff1f ff61 "
    "10a56-10a57 10f55-10f59 10f86-10f89 11047-11048 110be-110c1 11141-11143 111c5-111c6 111cd 111de-111df "
    "11238-11239 1123b-1123c 112a9 113d4-113d5 1144b-1144c 115c2-115c3 115c9-115d7 11641-11642 1173c-1173e 11944 "
    "11946 11a42-11a43 11a9b-11a9c 11c41-11c42 11ef7-11ef8 11f43-11f44 16a6e-16a6f 16af5 16b37-16b38 16b44 "
    "16d6e-16d6f 16e98 1bc9f 1da88 "
)
# What may stand between a sentence's end and the space after it.
CLOSERS = "\"')]}»”’」』】》）〉〕"
# A line that ends in a quotation mark ends a sentence for the extractor, too.
LINE_ENDS = "\"'…”’」』"
# What FineWeb's stop characters (datatrove's TERMINAL_PUNCTUATION) leave out of Sentence_Terminal, and have beyond it.
NO_STOP_CHARS = "1b4e-1b4f 1b7f 2024 2cf9-2cfb 2e60-2e61 fe12 fe15-fe16 113d4-113d5 16d6e-16d6f"
MORE_STOP_CHARS = "17d6 17d9-17da"  # of Khmer
# These end a sentence without a space after them.
CJK_TERMINALS = "。！？｡"


class Tables(NamedTuple):
    """Tables over all code points."""

    classes: Classes  # shape (0x110000,): bits of the character's classes
    lower: Points  # shape (0x110000,): lower case, where that is one character; else the character


def terminal_points() -> list[int]:
    """The code points of Sentence_Terminal."""
    return _spanned(SENTENCE_TERMINAL)


def stop_points() -> list[int]:
    """The code points of FineWeb's stop characters: a line that ends in one ends in punctuation."""
    return sorted(set(terminal_points()) - set(_spanned(NO_STOP_CHARS)) | set(_spanned(MORE_STOP_CHARS)))


def _spanned(spans: str) -> list[int]:
    points: list[int] = []
    for span in spans.split():
        first, _, last = span.partition("-")
        points.extend(range(int(first, 16), int(last or first, 16) + 1))
    return points


@cache
def tables() -> Tables:
    """The classes and lower case of every code point (about 0.1 s, once in a process)."""
    classes = np.zeros(0x110000, np.uint16)
    lower = np.arange(0x110000, dtype=np.uint32)
    for point in range(_ASSIGNED):
        character = chr(point)
        bits = 0
        if character.isspace():
            bits |= SPACE
        elif character.isalnum():
            bits |= ALNUM
            if character.isalpha():
                bits |= LETTER
            if character.islower():
                bits |= LOWER
        low = character.lower()
        if len(low) == 1:
            lower[point] = ord(low)
            if low != character:
                bits |= UPPER
        classes[point] = bits
    classes[0x3400:0xA000] |= IDEOGRAPH
    classes[0x3041:0x30A0] |= HIRAGANA
    for first, last in ((0x30A1, 0x30FB), (0x30FC, 0x3100), (0x31F0, 0x3200), (0xFF66, 0xFFA0)):
        classes[first:last] |= KATAKANA
    classes[terminal_points()] |= TERMINAL | LINE_END
    classes[stop_points()] |= STOP_CHAR
    for characters, bit in ((CLOSERS, CLOSER), (LINE_ENDS, LINE_END), (CJK_TERMINALS, CJK_TERMINAL)):
        classes[[ord(c) for c in characters]] |= bit
    return Tables(classes, lower)


def points(text: str) -> Points:
    """The text's code points, shape (len(text),); lone surrogates stand for themselves."""
    return np.frombuffer(text.encode("utf-32-le", "surrogatepass"), "<u4").astype(np.uint32, copy=False)


def concatenated(texts: Sequence[str]) -> tuple[Points, npt.NDArray[np.int64]]:
    """Several texts' code points one after the other, and their n + 1 bounds."""
    return points("".join(texts)), np.cumsum([0, *map(len, texts)], dtype=np.int64)
