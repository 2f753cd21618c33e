"""Text in the character set that a file declares; Python's codecs that are none (`idna`, `undefined`) aren't taken."""

from __future__ import annotations

import codecs

# What Python's source, domain names and tests are written with.
_NO_CHARSETS = frozenset(
    ("undefined", "idna", "punycode", "unicode-escape", "raw-unicode-escape", "unicode_escape", "raw_unicode_escape")
)


def decoded(content: bytes, declared: str) -> str:
    """The text of bytes in a declared character set. Raises UnicodeError where they aren't in it, or it is none."""
    try:
        name = codecs.lookup(declared).name
        if name in _NO_CHARSETS:
            raise LookupError
        return content.decode(name)
    except (LookupError, ImportError, ValueError) as error:
        if isinstance(error, UnicodeError):
            raise
        raise UnicodeError(f"no encoding {declared[:40]!r}") from error
