"""Scripts of East Asia: shares of characters (ChineseWebText, Chen et al. 2023, arXiv:2311.01149, of Chinese ones)."""

from __future__ import annotations

from datalake.compiled import kernel
from datalake.curate.metrics.family import Family, Metric
from datalake.curate.metrics.prepared.document import Document, Numbers
from datalake.text.characters import HIRAGANA, KATAKANA

METRICS = (
    Metric("han_ratio", False, r"characters in [\u4e00-\u9fa5] / characters (ChineseWebText)"),
    Metric("kana_ratio", False, "hiragana and katakana / characters"),
    Metric("hangul_ratio", False, "hangul syllables / characters"),
)


@kernel
def measure(document: Document, row: Numbers) -> None:
    """Shares of ideographs, kana and hangul."""
    codes, kinds = document.codes, document.kinds
    han, kana, hangul = 0, 0, 0
    for at in range(len(codes)):  # without a branch, so that it is done for many at a time
        c = codes[at]
        kana += kinds[at] & (HIRAGANA | KATAKANA) != 0
        han += (c >= 0x4E00) & (c <= 0x9FA5)
        hangul += (c >= 0xAC00) & (c <= 0xD7A3)
    row[0] = han / len(codes)
    row[1] = kana / len(codes)
    row[2] = hangul / len(codes)


FAMILY = Family(METRICS, measure)
