"""Text from outside as a terminal may show it.

What a page, a file's name or a model says can hold escape sequences that move the cursor, retitle the window or type on
the user's behalf (ECMA-48: ESC and the C1 controls), and marks that turn the order of characters around (Unicode TR9,
the embeddings, overrides and isolates). They are shown as they would be written in a program: `\\x1b`, `\\u202e`.
"""

from __future__ import annotations

import re
from typing import TextIO

# Controls but for tab and line feed, direction overrides, line and paragraph separators, lone surrogates.
_UNSAFE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")

_NO_BYTE = re.compile("[\ud800-\udc7f\udd00-\udfff]")  # surrogates that stand for no byte of an argument


def printable(text: str) -> str:
    """The text with what a terminal would act on written out; tabs and line feeds stay."""
    return _UNSAFE.sub(lambda match: match[0].encode("unicode_escape").decode("ascii"), text)


def one_line(text: str) -> str:
    """The same as one line: every stretch of white space is a space."""
    return printable(" ".join(text.split()))


def json_safe(text: str) -> str:
    """JSON with the same characters as JSON's own escapes: it says the same and does nothing to a terminal."""
    return _UNSAFE.sub(lambda match: f"\\u{ord(match[0]):04x}", text)


def from_terminal(text: str) -> str:
    """What was typed or given as an argument as proper Unicode: bytes that are no UTF-8 become U+FFFD."""
    return _NO_BYTE.sub("\ufffd", text).encode("utf-8", "surrogateescape").decode("utf-8", "replace")


def write(text: str, stream: TextIO | None, end: str = "\n") -> None:
    """Write text as it is, with what the stream's encoding lacks written out; nothing where the stream is closed."""
    if stream is None:
        return
    encoding = getattr(stream, "encoding", None) or "utf-8"
    stream.write(text.encode(encoding, "backslashreplace").decode(encoding) + end)
    stream.flush()
