"""What a body is by its bytes, as browsers find out where nothing is declared (MIME Sniffing standard, section 7.1).

A browser believes a server that says text/html, and shows noise; for a corpus a music file under that name is no page.
The patterns are xtractmime's, which is Scrapy's.
"""

from __future__ import annotations

import re

from xtractmime import extract_mime

_HEADER = 1445  # bytes the standard looks at
# Markup anywhere in the header: a page that begins oddly (text first, or a stray control character) is a page.
_MARKUP = re.compile(rb"<\x00?(?:!|/?\x00?[a-z])", re.IGNORECASE)
_PAGE = re.compile(
    rb"<(?:!doctype|html|head|body|title|meta|script|style|link|div|span|p|a|h[1-6]|table|ul|font|center|br|frameset)[\s/>]",
    re.IGNORECASE,
)
_TEXT = ("text/html", "text/plain", "text/xml")
_BINARY, _BITMAP = "application/octet-stream", "image/bmp"


def media_type_of(body: bytes) -> str:
    """`text/html`, `text/plain`, `text/xml`, or the kind of binary file (`application/octet-stream`: some other).

    Text with markup in it is `text/html`, even if it doesn't begin with it.
    """
    header = body[:_HEADER]
    found = extract_mime(header).decode("ascii")
    if found in _TEXT:
        return "text/html" if found == "text/plain" and _MARKUP.search(header) else found
    if found == _BINARY:
        # UTF-16 has zero bytes, and a page may hold a control character; files that hold a `<` by chance hold no tags.
        return "text/html" if _PAGE.search(header.replace(b"\0", b"")) and _mostly_text(header) else found
    # A signature of two letters may begin a text, too.
    return "text/html" if found == _BITMAP and _PAGE.search(header) and _mostly_text(header) else found


def _mostly_text(header: bytes) -> bool:
    """Whether few bytes are control characters; in UTF-16 every other one may be zero."""
    plain = header.replace(b"\0", b"") if header.count(b"\0") * 2 <= len(header) + 2 else header
    controls = sum(byte < 0x20 and byte not in b"\t\n\x0c\r\x1b" for byte in plain)
    return controls * 50 <= len(plain)
