"""By which encoding a page's bytes are read: as browsers do (HTML standard, "determining the character encoding").

A byte-order mark, the HTTP header's charset, the head's `<meta>`, an XML declaration; else detection by chardetng,
which is Firefox's. A `<meta>` counts where a browser finds it: not in a comment, a script or another attribute.

Two things are done that browsers don't do, since a text is wanted and not a page's look: bytes that are valid UTF-8 are
UTF-8 whatever is declared (in another charset that doesn't happen by chance, given some characters), and a declaration
under which most characters are damaged is passed over.
"""

from __future__ import annotations

import codecs
import re

from datalake.text import encodings
from datalake.text.charsets import beyond_ascii, damaged, detected, few_wrong
from datalake.text.encodings import encoding_of

_MARKS = ((codecs.BOM_UTF8, "utf-8"), (codecs.BOM_UTF16_BE, "utf-16be"), (codecs.BOM_UTF16_LE, "utf-16le"))
_PRESCAN = 1024  # bytes that browsers always look at; further ones while they are the head's
_HEAD = 65_536
_BY_CHANCE = 4  # so many characters can be valid UTF-8 by chance in another charset

_TOKEN = re.compile(
    rb"<(?:(?P<comment>!--)"
    rb"|(?P<raw>script|style|title|textarea|noscript|xmp|iframe|noembed|noframes)\b"
    rb"|(?P<tag>/?[a-z][^\s/>]*+)"
    rb"|(?P<other>[!/?]))",
    re.IGNORECASE,
)
_ATTRIBUTE = re.compile(
    rb"""[\s/]*+(?P<end>>|$)|[\s/]*+(?P<name>=?[^\s/>=]*+)(?:\s*+=\s*+(?:"(?P<double>[^"]*+)(?:"|$)|'(?P<single>[^']*+)(?:'|$)|(?P<bare>[^\s>]*+)))?"""
)
_IN_HEAD = {b"html", b"head", b"meta", b"link", b"base", b"object", b"basefont", b"bgsound", b"command", b"template"}
_CONTENT = re.compile(rb"""charset\s*+=\s*+(?:"([^"]*+)"|'([^']*+)'|([^\s;"']++))""", re.IGNORECASE)
_XML = re.compile(rb"""<\?xml\b[^>]{0,200}?\bencoding\s*=\s*["']([^"'>]{1,60})["']""")


def decode(data: bytes, charset: str | None = None, host: str = "") -> tuple[str, str]:
    """The text of a page's bytes, and the encoding it was read by, as the WHATWG standard names it (lower case).

    `charset` is what the HTTP header declares; the end of `host` (`.ru`) helps detection. Bytes that don't belong
    become U+FFFD.
    """
    for mark, name in _MARKS:
        if data.startswith(mark):
            return encodings.decode(data[len(mark) :], name), name
    declared = encoding_of((charset or "").strip().strip("\"'"))
    inside = declared_inside(data)
    told = declared or inside
    if told == "utf-16le" or told == "utf-16be":
        # A page that says so inside isn't; of those whose header says so some aren't.
        told = told if declared and _is_utf_16(data, told) else "utf-8"
    if not data.isascii() and (text := _as_utf_8(data, told)) is not None:
        return text, "utf-8"
    if told:
        text = encodings.decode(data, told)
        if not damaged(text):
            return text, told
        for other in dict.fromkeys((inside, detected(data, host))):
            if other and other != told and not damaged(found := encodings.decode(data, other)):
                return found, other
        return text, told
    name = detected(data, host)
    return encodings.decode(data, name), name


def declared_inside(data: bytes) -> str | None:
    """The encoding that the head's `<meta>` or an XML declaration names; None where none does."""
    head = data[:_HEAD]
    at = 0
    while at >= 0 and (match := _TOKEN.search(head, at)):
        at = match.end()
        if match["comment"]:
            at = head.find(b"-->", at - 2)  # `<!-->` is one, too
        elif match["other"]:
            at = head.find(b">", at)
        elif match["raw"]:
            closing = re.compile(rb"</" + match["raw"] + rb"\b", re.IGNORECASE).search(head, at)
            at = closing.end() if closing else -1
        elif tag := match["tag"]:
            attributes, at = _attributes(head, at)
            name = tag.lower()
            if name == b"meta" and (found := _of_meta(attributes)):
                return "utf-8" if found.startswith("utf-16") else "windows-1252" if found == "x-user-defined" else found
            if name == b"body" or (at > _PRESCAN and name.removeprefix(b"/") not in _IN_HEAD):
                break
    if match := _XML.match(head):
        found = encoding_of(match[1].decode("ascii", "replace"))
        return "utf-8" if found and found.startswith("utf-16") else found
    return None


def _attributes(head: bytes, at: int) -> tuple[dict[bytes, bytes], int]:
    """A tag's attributes by lower-case name, the first of a name, and where the tag ends."""
    found: dict[bytes, bytes] = {}
    while (match := _ATTRIBUTE.match(head, at)) and match["end"] is None:
        if match.end() == at:  # a name that can't be one
            at += 1
            continue
        at = match.end()
        value = match["double"] or match["single"] or match["bare"] or b""
        found.setdefault((match["name"] or b"").lower(), value)
    return found, match.end() if match else len(head)


def _of_meta(attributes: dict[bytes, bytes]) -> str | None:
    if b"charset" in attributes and (found := encoding_of(attributes[b"charset"].decode("ascii", "replace"))):
        return found
    if attributes.get(b"http-equiv", b"").strip().lower() == b"content-type":
        match = _CONTENT.search(attributes.get(b"content", b""))
        if match:
            return encoding_of((match[1] or match[2] or match[3] or b"").decode("ascii", "replace"))
    return None


def _as_utf_8(data: bytes, told: str | None) -> str | None:
    """The text where bytes beyond ASCII are UTF-8, damage here and there allowed where nothing else is declared."""
    try:
        text = data.decode("utf-8")
        by_chance = told not in (None, "utf-8") and beyond_ascii(text) < _BY_CHANCE
        return None if by_chance else text
    except UnicodeDecodeError as error:
        cut = error.start > 0 and error.start >= len(data) - 3 and not data[: error.start].isascii()
    text = data.decode("utf-8", "replace")
    return text if cut or (few_wrong(text) and told in (None, "utf-8")) else None


def _is_utf_16(data: bytes, name: str) -> bool:
    """Whether a page's markup stands in 16-bit units: `<` and a zero byte."""
    return (b"<\0" if name == "utf-16le" else b"\0<") in data[:_PRESCAN]
