"""Metrics of code files that depend on the programming language (StarCoder): comments, visible text, size of data.

Sources: StarCoder's basic filters keep Python, Java and JavaScript whose comments and docstrings are more than 1% and
less than 80% of the characters, HTML with enough text for a reader, JSON and YAML of moderate size.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from datalake.compiled import kernel
from datalake.curate.metrics.family import Family, Metric
from datalake.text.characters import Points, points

METRICS = (
    Metric(
        "comment_ratio",
        False,
        "comments and docstrings / characters; Python, Java, JavaScript (StarCoder)",
    ),
    Metric("html_text", True, "characters a reader sees; HTML files (StarCoder)"),
    Metric("html_ratio", False, "these / characters; HTML files (StarCoder)"),
    Metric("data_chars", True, "code points of JSON and YAML files (StarCoder)"),
)
FAMILY = Family(METRICS)
_PYTHON, _C = 0, 1
_STYLES = {"Python": _PYTHON, "Java": _C, "JavaScript": _C}


def measure_code(text: str, language: str, row: npt.NDArray[np.float64]) -> None:
    """Write what has a meaning for this programming language (as Linguist names it) to the family's part of the row."""
    if not text:
        return
    if language in _STYLES:
        row[0] = comment_characters(text, language) / len(text)
    elif language == "HTML":
        from resiliparse.extract.html2text import extract_plain_text

        seen = len(extract_plain_text(text.encode("utf-8", "replace").decode(), preserve_formatting=False))
        row[1] = seen
        row[2] = seen / len(text)
    elif language in ("JSON", "YAML"):
        row[3] = len(text)


def comment_characters(text: str, language: str) -> int:
    """Characters inside comments, marks included; in Python docstrings, too. Python, Java, JavaScript; else 0.

    Told by a scan for strings and comments, without a parse: it holds for files that don't parse. A docstring is a
    string in three quotation marks that begins a line. A regular expression literal of JavaScript with a quotation
    mark or `//` in it is read as a string or comment.
    """
    style = _STYLES.get(language)
    return 0 if style is None else int(_comments(points(text), style))


@kernel
def _comments(codes: Points, style: int) -> int:
    size, at, found = len(codes), 0, 0
    fresh = True  # nothing but space on this line so far
    while at < size:
        c = codes[at]
        if c == 10:
            fresh = True
            at += 1
            continue
        if c == 32 or c == 9:
            at += 1
            continue
        begin = at
        following = codes[at + 1] if at + 1 < size else 0
        if (style == 0 and c == 35) or (style == 1 and c == 47 and following == 47):  # # or //
            while at < size and codes[at] != 10:
                at += 1
            found += at - begin
        elif style == 1 and c == 47 and following == 42:  # /*
            at += 2
            while at < size and not (codes[at - 1] == 42 and codes[at] == 47 and at - begin > 2):
                at += 1
            at = min(at + 1, size)
            found += at - begin
        elif c == 34 or c == 39 or (style == 1 and c == 96):
            third = codes[at + 2] if at + 2 < size else 0
            if style == 0 and following == c and third == c:
                at += 3
                while at < size:
                    if codes[at] == 92:
                        at += 2
                    elif codes[at] == c and at + 2 < size and codes[at + 1] == c and codes[at + 2] == c:
                        at += 3
                        break
                    else:
                        at += 1
                at = min(at, size)
                if fresh:
                    found += at - begin
            else:
                at += 1
                while at < size and codes[at] != c and (codes[at] != 10 or c == 96):
                    at += 2 if codes[at] == 92 else 1
                at = min(at + (at < size and codes[at] == c), size)
        else:
            at += 1
        fresh = False
    return found
