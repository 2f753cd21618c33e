"""Character references of HTML (`&eacute;`, `&#233;`) as the characters they stand for, however long they are."""

from __future__ import annotations

import html
import re

# The standard library makes a number of whatever digits stand there, and Python refuses to of more than 4,300.
_LONG = re.compile(r"&#(?:([0-9]{9,})|[xX]([0-9a-fA-F]{9,}));?")
_MOST = 8  # digits; those of the last code point, U+10FFFF, are 7 and 6


def unescape(text: str) -> str:
    """The text with its references resolved; one to what is no character is U+FFFD."""
    return html.unescape(_LONG.sub(_short, text)) if "&" in text else text


def _short(match: re.Match[str]) -> str:
    digits = (match[1] or match[2]).lstrip("0") or "0"
    return "\ufffd" if len(digits) > _MOST else f"&#{'' if match[1] else 'x'}{digits};"
