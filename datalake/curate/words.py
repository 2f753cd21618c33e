"""Chinese words, by rjieba: the dictionary and model of jieba (MIT), which comes with the package.

They are the words that FineWeb-2's Chinese thresholds are about.
"""

from __future__ import annotations


def segment(text: str) -> list[str]:
    """Chinese words: the text cut by rjieba into pieces that joined give the text. Lone surrogates count as U+FFFD."""
    import rjieba

    try:
        pieces: list[str] = rjieba.cut(text)
    except UnicodeEncodeError:
        pieces = rjieba.cut("".join("\ufffd" if "\ud800" <= c <= "\udfff" else c for c in text))
    return pieces
