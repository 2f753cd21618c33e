"""Chinese: words by rjieba (the dictionary and model of jieba, MIT, inside the package), scripts by OpenCC.

The words are those that FineWeb-2's Chinese thresholds are about.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from datalake.text.characters import Points, points

if TYPE_CHECKING:
    from opencc import OpenCC


def segment(text: str) -> list[str]:
    """Chinese words: the text cut by rjieba into pieces that joined give the text. Lone surrogates count as U+FFFD."""
    import rjieba

    try:
        pieces: list[str] = rjieba.cut(text)
    except UnicodeEncodeError:
        pieces = rjieba.cut(_without_surrogates(text))
    return pieces


def _without_surrogates(text: str) -> str:
    return "".join("\ufffd" if "\ud800" <= c <= "\udfff" else c for c in text)


def traditional_characters(text: str) -> int:
    """Characters of a text that only traditional Chinese is written with, where they stand.

    乾 alone is 干 in simplified Chinese, but 乾隆 and 乾坤 are written with it there, too: OpenCC's phrases know.
    """
    codes = points(text)
    try:
        simple = points(_converter().convert(text))
    except UnicodeEncodeError:
        simple = points(_converter().convert(_without_surrogates(text)))
    only = traditional_table()[codes]
    return int(np.count_nonzero(only & (codes != simple) if len(simple) == len(codes) else only))


@cache
def _converter() -> OpenCC:
    from opencc import OpenCC

    return OpenCC("t2s")


@cache
def traditional_table() -> npt.NDArray[np.bool_]:
    """Which code points, shape (0x110000,), only traditional Chinese is written with: OpenCC makes another of them."""
    return simplified_table() != np.arange(0x110000)


@cache
def simplified_table() -> Points:
    """Each code point, shape (0x110000,), as simplified Chinese has it by OpenCC, a character taken by itself."""
    table, convert = np.arange(0x110000, dtype=np.uint32), _converter().convert
    for first, last in ((0x3400, 0xA000), (0xF900, 0xFB00), (0x20000, 0x2FA20)):
        alone = "\n".join(map(chr, range(first, last)))
        table[first:last] = [ord(simple[0]) for simple in convert(alone).split("\n")]
    return table
