"""Mojibake: UTF-8 that was read as Windows-1252 and written as UTF-8 once more, `Ã©` for `é` and `â€™` for `’`.

A definition of our own, narrower than the heuristics of ftfy (Speer 2019, doi:10.5281/zenodo.2591652): characters that
as bytes of Windows-1252 (of Latin-1, where it has none) are a whole character of UTF-8. A capital with an accent before
a quotation mark (`CAFÉ”`) looks alike, so a rule asks for a share, such as `mojibake < 0.005`.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from datalake.compiled import kernel
from datalake.curate.metrics.family import Family, Metric
from datalake.curate.metrics.prepared.document import Document, Numbers

METRICS = (
    Metric(
        "mojibake",
        False,
        "share of characters that as bytes of Windows-1252 are characters of UTF-8: encoded twice (after ftfy)",
    ),
)


def _bytes_of_characters() -> npt.NDArray[np.uint8]:
    """The byte from 0x80 on that a character is in Windows-1252, or Latin-1; 0 for those that are none."""
    table = np.zeros(0x2123, np.uint8)
    for byte in range(0x80, 0x100):
        table[byte] = byte
        table[ord(bytes([byte]).decode("cp1252", "ignore") or chr(byte))] = byte
    return table


_BYTES = _bytes_of_characters()


@kernel
def measure(document: Document, row: Numbers) -> None:
    """Characters of sequences: a lead byte of UTF-8, and as many bytes that go on as it asks for."""
    codes, size = document.codes, len(document.codes)
    found, at = 0, 0
    while at < size:
        c = codes[at]
        if c < 0xC2 or c > 0xF4:
            at += 1
            continue
        length = 2 + (c >= 0xE0) + (c >= 0xF0)
        end = at + 1
        while end < min(size, at + length):
            byte = _BYTES[codes[end]] if codes[end] < len(_BYTES) else 0
            if byte < 0x80 or byte > 0xBF:
                break
            end += 1
        if end == at + length:
            found += length
            at = end
        else:
            at += 1
    row[0] = found / size


FAMILY = Family(METRICS, measure)
