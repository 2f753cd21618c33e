"""Character references of HTML (`&eacute;`, `&#233;`) as the characters they stand for, however long they are."""

from __future__ import annotations

import html
import re

# Beyond Unicode's last code point, U+10FFFF. The standard library makes a number of any of them, and Python refuses to
# make one of more than 4,300 digits.
_BEYOND = re.compile(r"&#(?:0*[1-9][0-9]{7,}|[xX]0*[1-9a-fA-F][0-9a-fA-F]{6,});?")


def unescape(text: str) -> str:
    """The text with its references resolved; one to what is no character is U+FFFD."""
    return html.unescape(_BEYOND.sub("\ufffd", text)) if "&" in text else text
