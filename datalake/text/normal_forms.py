"""Unicode's normal forms (UAX 15) in time linear in the text.

Python sorts the marks behind a letter by insertion, which takes time quadratic in their number; a text meant to harm
has a million of them. Longer runs than writing systems have are put in their order (UAX 15, section 3.11: a stable
sort by combining class) before, which changes no normal form.
"""

from __future__ import annotations

import unicodedata
from functools import cache
from typing import Literal

import numpy as np
import numpy.typing as npt

from datalake.text.characters import points

Form = Literal["NFC", "NFD", "NFKC", "NFKD"]
LONG_RUN = 31  # marks: one more than the Stream-Safe Text Format (section 13) allows
_FIRST, _LAST = 0x300, 0x1E94A  # no mark has a combining class before or behind these (Unicode 16)


def normal_form(form: Form, text: str) -> str:
    """`unicodedata.normalize`, and the same result."""
    if unicodedata.is_normalized(form, text):  # quick, as that marks are out of order is seen at once
        return text
    decomposed: Form = "NFKD" if form.startswith("NFK") else "NFD"
    marks = _marks(decomposed)[points(text)]
    if np.count_nonzero(marks) >= LONG_RUN:
        text = _ordered(text, marks, decomposed)
    return unicodedata.normalize(form, text)


def _ordered(text: str, marks: npt.NDArray[np.bool_], decomposed: Form) -> str:
    """The text with its long runs of marks in their order; `marks`: which of its characters are marks."""
    runs = np.flatnonzero(np.diff(marks, prepend=False, append=False)).reshape(-1, 2)
    parts, done = [], 0
    for begin, end in runs[runs[:, 1] - runs[:, 0] >= LONG_RUN].tolist():
        run = "".join(unicodedata.normalize(decomposed, mark) for mark in text[begin:end])
        parts += [text[done:begin], *sorted(run, key=unicodedata.combining)]
        done = end
    return "".join((*parts, text[done:]))


@cache
def _marks(decomposed: Form) -> npt.NDArray[np.bool_]:
    """Which code points, shape (0x110000,), are marks or stand for marks alone."""
    table = np.zeros(0x110000, np.bool_)
    for point in range(_FIRST, _LAST + 1):
        table[point] = unicodedata.combining(unicodedata.normalize(decomposed, chr(point))[0]) > 0
    return table
