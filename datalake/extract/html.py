"""Text and title of a web page: Resiliparse's extraction (Bevendorff et al., ECIR 2018), bounded on any page.

Bytes are decoded as browsers do (WHATWG Encoding and HTML standards): byte-order mark, then the HTTP header's charset,
then the `<meta>` prescan of the first 1,024 bytes, then detection. One thing is done that browsers don't do: bytes that
are valid UTF-8 and not all ASCII are UTF-8, whatever is declared; in another charset that doesn't happen by chance.
"""

from __future__ import annotations

import codecs
import re
from typing import NamedTuple

from resiliparse.extract.html2text import extract_plain_text
from resiliparse.parse.encoding import detect_encoding, map_encoding_to_html5
from resiliparse.parse.html import HTMLTree

# Blink's limit (kMaximumHTMLParserDOMTreeDepth): deeper elements become siblings. The extractor's time is quadratic
# in depth, so without it a page of 500 kB of `<div>` takes ten minutes.
MAX_DEPTH = 512
# Unclosed formatting elements are opened anew in each paragraph that follows: nodes multiply without a bound.
MAX_FORMATTING = 64
TITLE_CHARACTERS = 1_000


def _names(words: str) -> frozenset[str]:
    return frozenset(words.split())


_TAG = re.compile(r"<(/?)([a-zA-Z][^\s/>]*)[^>]*>?")
# Elements that never nest in themselves: they have no content, or the next one closes them (HTML standard, 13.1.2.4).
_FLAT = _names(
    "area base br col embed hr img input link meta param source track wbr p li dt dd option optgroup tr td th thead "
    "tbody tfoot colgroup caption rp rt html head body"
)
_FORMATTING = _names("a b big code em font i nobr s small strike strong tt u")
_SCOPE = _names("applet marquee object table template svg math select")
_SPECIAL = _SCOPE | _names(
    "address article aside blockquote button center details dialog dir div dl fieldset figcaption figure footer form "
    "frameset h1 h2 h3 h4 h5 h6 header hgroup iframe main menu nav noembed noframes noscript ol plaintext pre script "
    "search section style summary textarea title ul xmp"
)
_META = re.compile(rb"""<meta\b[^>]*?\bcharset\s*=\s*["']?\s*([a-zA-Z0-9_:.()+-]+)""", re.IGNORECASE)
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


def extract(html: str | bytes, main_content: bool = True) -> Extracted:
    """The text and title of a page. Never raises on what a page may hold, however damaged.

    With `main_content` navigation, headers, footers and the like are left out, unless nothing would remain: then the
    page gives its whole text. Bytes are decoded with `decode`.
    """
    if isinstance(html, bytes):
        html = decode(html)[0]
    # Lone surrogates have no place in UTF-8, and NUL ends strings inside the parser.
    html = _bound_depth(html.encode("utf-8", "replace").decode("utf-8").replace("\x00", "\ufffd"))
    tree = HTMLTree.parse(html)
    text = ""
    if main_content:
        text = tidy(extract_plain_text(tree, main_content=True))
    if not text:
        text = tidy(extract_plain_text(tree, main_content=False))
    return Extracted(text, " ".join(tidy(tree.title or "").split())[:TITLE_CHARACTERS])


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
        match = _META.search(data[:1024])
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


def _bound_depth(html: str) -> str:
    """The page with tags left out that would open elements deeper than MAX_DEPTH or MAX_FORMATTING; their text stays.

    Follows the tree construction of the HTML standard (13.2.6) only as far as depth needs it: which end tags close
    which elements. A page within the bounds, as nearly all are, comes back as it is.
    """
    if html.count("<") <= MAX_FORMATTING:
        return html
    stack: list[str] = []
    formatting, foreign, last = 0, False, 0
    out: list[str] = []
    for match in _TAG.finditer(html):
        name = match[2].lower()
        if name in _FLAT:
            continue
        if match[1]:
            closed = _close(stack, name)
            formatting -= sum(1 for one in closed if one in _FORMATTING)
            if "svg" in closed or "math" in closed:
                foreign = False
            continue
        if name in ("svg", "math"):
            foreign = True
        elif foreign and (name in _SPECIAL or name in _FORMATTING or name == "span"):
            foreign = False  # these end foreign content
        if foreign and match[0].endswith("/>"):  # closes itself there, and nowhere else
            continue
        if len(stack) >= MAX_DEPTH or (name in _FORMATTING and formatting >= MAX_FORMATTING):
            out.append(html[last : match.start()] + ("" if name in _FORMATTING else " "))
            last = match.end()
            continue
        stack.append(name)
        formatting += name in _FORMATTING
    return "".join([*out, html[last:]]) if out else html


def _close(stack: list[str], name: str) -> list[str]:
    """Takes off the stack what an end tag closes, and returns it."""
    for at in range(len(stack) - 1, -1, -1):
        if stack[at] == name:
            if name in _FORMATTING:  # blocks inside an unclosed formatting element outlive its end tag
                del stack[at]
                return [name]
            closed = stack[at:]
            del stack[at:]
            return closed
        bars = stack[at] in _SCOPE or (stack[at] in _SPECIAL and name not in _SPECIAL and name not in _FORMATTING)
        if bars and name not in _SCOPE:
            return []
    return []
