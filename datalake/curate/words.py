"""Chinese: words by rjieba (the dictionary and model of jieba, MIT, inside the package), scripts by OpenCC.

The words are those that FineWeb-2's Chinese thresholds are about.
"""

from __future__ import annotations

from functools import cache

import numpy as np
import numpy.typing as npt


def segment(text: str) -> list[str]:
    """Chinese words: the text cut by rjieba into pieces that joined give the text. Lone surrogates count as U+FFFD."""
    import rjieba

    try:
        pieces: list[str] = rjieba.cut(text)
    except UnicodeEncodeError:
        pieces = rjieba.cut("".join("\ufffd" if "\ud800" <= c <= "\udfff" else c for c in text))
    return pieces


@cache
def traditional_table() -> npt.NDArray[np.bool_]:
    """Which code points, shape (0x110000,), only traditional Chinese is written with: OpenCC makes another of them."""
    from opencc import OpenCC

    table, convert = np.zeros(0x110000, np.bool_), OpenCC("t2s").convert
    for first, last in ((0x3400, 0xA000), (0xF900, 0xFB00), (0x20000, 0x2FA20)):
        alone = [chr(point) for point in range(first, last)]
        simple = convert("\n".join(alone)).split("\n")
        table[first:last] = [one != other for one, other in zip(alone, simple, strict=True)]
    return table
