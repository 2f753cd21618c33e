"""The shape of lines and the share of letters: RedPajama's filters for code, StarCoder's (Li et al. 2023,
arXiv:2305.06161).
"""

from __future__ import annotations

from datalake.compiled import kernel
from datalake.curate.metrics.family import Family, Metric
from datalake.curate.metrics.prepared.document import Document, Numbers
from datalake.text.characters import ALNUM, LETTER, SPACE, concatenated

_XML, _ = concatenated(("<?xml version=",))
_BEGINNING = 100  # characters in which it is looked for

METRICS = (
    Metric("max_line", True, "characters of the longest line (RedPajama, code)"),
    Metric("mean_line", False, "mean characters of all lines, blank ones included (RedPajama, code)"),
    Metric("alnum_ratio", False, "letters and digits / characters (RedPajama, code)"),
    Metric("alpha_ratio", False, "letters / characters (StarCoder)"),
    Metric("alpha_per_token", False, r"letters per match of \w+|[^\w\s]+ (RedPajama, code)"),
    Metric("xml_header", True, "1 where <?xml version= stands in the first 100 characters (StarCoder)"),
)


@kernel
def measure(document: Document, row: Numbers) -> None:
    """Lengths of lines, shares of letters and digits."""
    codes, kinds, breaks = document.codes, document.kinds, document.breaks
    size = len(codes)
    longest, begin = 0, 0
    for at in range(size):
        if codes[at] == 10:
            longest = max(longest, at - begin)
            begin = at + 1
    row[0] = max(longest, size - begin)
    row[1] = (size - breaks) / (breaks + (codes[-1] != 10))
    letters, alnum = 0, 0
    for at in range(size):  # without a branch, so that it is done for many at a time
        letters += kinds[at] & LETTER != 0
        alnum += kinds[at] & ALNUM != 0
    tokens = 0  # runs of word characters, and of what is neither these nor space
    word, symbol = False, False
    for at in range(size):
        kind = kinds[at]
        word_here = (kind & ALNUM != 0) | (codes[at] == 95)
        symbol_here = (kind & SPACE == 0) & (not word_here)
        tokens += (word_here & (not word)) + (symbol_here & (not symbol))
        word, symbol = word_here, symbol_here
    row[2] = alnum / size
    row[3] = letters / size
    if tokens:
        row[4] = letters / tokens
    row[5] = 0.0
    for begin in range(min(size, _BEGINNING) - len(_XML) + 1):
        k = 0
        while k < len(_XML) and codes[begin + k] == _XML[k]:
            k += 1
        if k == len(_XML):
            row[5] = 1.0


FAMILY = Family(METRICS, measure)
