"""Other extractors than our own: Resiliparse (Bevendorff et al., ECIR 2018), bounded on any page, and Trafilatura."""

from __future__ import annotations

import re
from collections import Counter

from datalake.errors import UserError

# Blink's limit (kMaximumHTMLParserDOMTreeDepth): deeper elements become siblings. The extractor's time is quadratic
# in depth, so without it a page of 500 kB of `<div>` takes ten minutes.
MAX_DEPTH = 512
# Unclosed formatting elements are opened anew in each paragraph that follows: nodes multiply without a bound.
MAX_FORMATTING = 64


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


def resiliparse(html: str, main_content: bool) -> str:
    """The text of a page by Resiliparse. Its main content leaves out navigation, headers, footers and the like."""
    from resiliparse.extract.html2text import extract_plain_text
    from resiliparse.parse.html import HTMLTree

    # NUL ends strings inside the parser.
    tree = HTMLTree.parse(_bound_depth(html.replace("\x00", "\ufffd")))
    return str(extract_plain_text(tree, main_content=main_content))


def trafilatura(html: str, main_content: bool) -> str:
    """The text of a page by Trafilatura, as FineWeb sets it; all its text without `main_content`.

    FineWeb (datatrove's pipeline/extractors/trafilatura.py) favours precision, leaves comments out and drops what
    repeats. Trafilatura looks for repeats among the pages before, too; here within a page alone, so that its text
    doesn't depend on which pages came before it.

    Raises UserError where Trafilatura isn't installed.
    """
    try:
        from trafilatura import extract, html2txt
        from trafilatura.deduplication import LRU_TEST
    except ImportError as error:
        raise UserError(
            f"the extractor `trafilatura` isn't installed ({error}): pip install trafilatura lxml_html_clean"
        ) from None
    if not main_content:
        return html2txt(html) or ""
    LRU_TEST.clear()
    return extract(html, favor_precision=True, include_comments=False, deduplicate=True) or ""


def _bound_depth(html: str) -> str:
    """The page with tags left out that would open elements deeper than MAX_DEPTH or MAX_FORMATTING; their text stays.

    Follows the tree construction of the HTML standard (13.2.6) only as far as depth needs it: which end tags close
    which elements. A page within the bounds, as nearly all are, comes back as it is.
    """
    if html.count("<") <= MAX_FORMATTING:
        return html
    stack: list[str] = []
    opened: Counter[str] = Counter()  # what is on the stack
    formatting, foreign, last = 0, False, 0
    out: list[str] = []
    for match in _TAG.finditer(html):
        name = match[2].lower()
        if name in _FLAT:
            continue
        if match[1]:
            closed = _close(stack, name) if opened[name] > 0 else []
            opened.subtract(closed)
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
        opened[name] += 1
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
