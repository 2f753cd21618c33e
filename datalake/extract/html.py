"""Text and title of a web page: its bytes decoded, its main content chosen, its white space tidied.

Bytes are decoded as browsers do (WHATWG Encoding and HTML standards): byte-order mark, then the HTTP header's charset,
then the `<meta>` prescan of the first 1,024 bytes, then an XML declaration, then detection. One thing is done that
browsers don't do: bytes that are valid UTF-8 and not all ASCII are UTF-8, whatever is declared; in another charset that
doesn't happen by chance.
"""

from __future__ import annotations

import codecs
import re
from typing import NamedTuple

from resiliparse.parse.encoding import detect_encoding, map_encoding_to_html5

from datalake.extract.blocks import Page, cut
from datalake.extract.main_content import load_model, main_text, title_of, whole_text
from datalake.extract.others import resiliparse, trafilatura

OTHERS = {"resiliparse": resiliparse, "trafilatura": trafilatura}
TITLE_CHARACTERS = 1_000


_META = re.compile(rb"""<meta\b[^>]*?\bcharset\s*=\s*["']?\s*([a-zA-Z0-9_:.()+-]+)""", re.IGNORECASE)
_XML = re.compile(rb"""<\?xml\b[^>]{0,200}?\bencoding\s*=\s*["']([a-zA-Z0-9_:.()+-]+)["']""")
_MARKS = ((codecs.BOM_UTF8, "utf-8"), (codecs.BOM_UTF16_BE, "utf-16-be"), (codecs.BOM_UTF16_LE, "utf-16-le"))

_CONTROLS = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff]")
_INVISIBLE = re.compile("[\u00ad\u200b\u2060\ufeff]")  # soft hyphen, zero-width space, word joiner, stray BOM
_BLANKS = re.compile("[\u00a0\u1680\u2000-\u200a\u202f\u205f\u3000]")
_LINE_ENDS = re.compile(r"\r\n?|[\u2028\u2029\x85]")
_TRAILING = re.compile(r"[ \t]+(?=\n|\Z)")
_GAPS = re.compile(r"\n{3,}")


class Extracted(NamedTuple):
    """A page's text (paragraphs parted by blank lines; empty when it has none) and its title (may be empty)."""

    text: str
    title: str


def extract(html: str | bytes, main_content: bool = True, extractor: str = "blocks", model: str = "") -> Extracted:
    """The text and title of a page. Never raises on what a page may hold, however damaged.

    With `main_content` navigation, comments, advertisements and the like are left out, unless nothing would remain:
    then the page gives its whole text. `extractor` is `blocks` (ours, by the model in the file `model`, empty: the one
    that comes with it), `resiliparse` or `trafilatura`. Bytes are decoded with `decode`.
    """
    if isinstance(html, bytes):
        html = decode(html)[0]
    html = html.encode("utf-8", "replace").decode("utf-8")  # lone surrogates have no place in UTF-8
    page = cut(html)
    text = ""
    if main_content:
        text = tidy(_text(html, page, True, extractor, model))
    if not text:
        text = tidy(_text(html, page, False, extractor, model))
    return Extracted(text, " ".join(tidy(title_of(page)).split())[:TITLE_CHARACTERS])


def _text(html: str, page: Page, main_content: bool, extractor: str, model: str) -> str:
    if extractor == "blocks":
        return main_text(page, load_model(model)) if main_content else whole_text(page)
    return OTHERS[extractor](html, main_content)


def decode(data: bytes, charset: str | None = None) -> tuple[str, str]:
    """The text of a page's bytes and the charset it was read by, as WHATWG-compatible Python codec name.

    `charset` is what the HTTP header declares. Bytes that don't belong become U+FFFD.
    """
    for mark, name in _MARKS:
        if data.startswith(mark):
            return data[len(mark) :].decode(name, "replace"), name
    if not data.isascii():
        try:
            return data.decode("utf-8"), "utf-8"
        except UnicodeDecodeError as error:
            if error.start > 0 and error.start >= len(data) - 3 and not data[: error.start].isascii():  # cut short
                return data.decode("utf-8", "replace"), "utf-8"
    declared = _known(charset)
    if declared is None:
        match = _META.search(data[:1024]) or _XML.match(data[:1024])
        declared = _known(match[1].decode("ascii")) if match else None
        if declared is not None and declared.startswith("utf-16"):
            declared = "utf-8"  # a meta element that could be read as ASCII isn't in UTF-16
    name = declared or _known(detect_encoding(data[:100_000])) or "utf-8"
    return data.decode(name, "replace"), name


def _known(label: str | None) -> str | None:
    """The codec a charset label means on the web (`latin1` is windows-1252), None where it means nothing."""
    if not label:
        return None
    name = map_encoding_to_html5(label.strip().strip("\"'").lower(), fallback_utf8=False)
    if not name:
        return None
    try:
        # Not every codec of Python turns bytes into text (`rot13`, `hex`).
        b"".decode(name)
    except (LookupError, ValueError):
        return None
    return name


def tidy(text: str) -> str:
    """The text with one kind of line end and of space, no control or invisible characters, at most one blank line."""
    text = _CONTROLS.sub("", _LINE_ENDS.sub("\n", text))
    text = _BLANKS.sub(" ", _INVISIBLE.sub("", text))
    return _GAPS.sub("\n\n", _TRAILING.sub("", text)).strip("\n \t")
