"""Formulas of a page as LaTeX between dollar signs, each once, in place of the markup that draws them.

What pages have of a formula, in the order of trust: the TeX annotation of its MathML (KaTeX, Wikipedia, arXiv), the
`alttext` of `<math>`, MathML itself, which is written as LaTeX; MathJax 2's `<script type="math/tex">`; the alternative
text of an image of a formula (MediaWiki, WordPress, CodeCogs, Zhihu). What shows the same formula again is hidden:
MathJax 2's rendering beside its script, KaTeX's beside its MathML.
"""

from __future__ import annotations

import html as entities
import re
from collections.abc import Callable

# No tag reaches over another `<`: the time is linear in the page, whatever it holds.
_MARKS = (
    "<math", "math/tex", "math/latex", "math/mml", "math/asciimath", "katex", "mwe-math", "latex", "class=tex",
    'class="tex', "class='tex", "?tex=", "&tex=", "ee_img",
)  # fmt: skip
_TAG = re.compile(r"<(/?)(math|annotation|script|img|span)(?=[\s/>])([^<>]*)>", re.I)
_ATTRIBUTE = re.compile(r"""(?<![a-z-])([a-z-]++)\s{0,8}=\s{0,8}(?:"([^"]*)"|'([^']*)'|([^\s"'<>]+))""", re.I)
_IMAGE_CLASSES = frozenset(
    [
        "tex",
        "latex",
        "math",
        "mwe-math-fallback-image-inline",
        "mwe-math-fallback-image-display",
        "mwe-math-fallback-png-inline",
        "mwe-math-fallback-png-display",
        "ee_img",
        "texrender",
        "mathtex",
    ]
)
_IMAGE_PLACES = ("latex.codecogs.com", "/latex.php?", "equation?tex=", "/mathtex.cgi", "/mimetex.cgi", "cgi-bin/tex")
_RENDERED = frozenset(("mathjax", "mathjax_preview", "mathjax_svg", "mathjax_chtml", "mjx-chtml"))
_MAX_FORMULA = 20_000  # characters of markup: what is longer is a `<math>` in a script, say, whose end tag is another's


def with_formulas(html: str) -> str:
    """The page with LaTeX in place of its formulas; as it is where it has none. Never raises."""
    small = html.lower()
    if not any(mark in small for mark in _MARKS):
        return html
    out: list[str] = []
    copied = 0  # the page is in `out` up to here
    opened = tex_from = script_from = -1  # where a `<math>` and what is inside an annotation or a script begin
    attributes: dict[str, str] = {}
    tex = ""
    drawn = -1  # the end of the last formula
    scripted = "math/tex" in html

    def put(begin: int, end: int, text: str) -> None:
        nonlocal copied
        out.extend((html[copied:begin], text))
        copied = end

    for match in _TAG.finditer(html):
        closing, name = bool(match[1]), match[2].lower()
        if name == "script":
            if closing and script_from >= 0:
                source = html[script_from : match.start()]
                kind = attributes["type"].lower()
                found = latex_of(source) if "mml" in kind else source
                put(opened, match.end(), _written(found, "mode=display" in kind.replace(" ", "")))
                drawn = match.end()
            opened, script_from, tex_from = -1, -1, -1
            if not closing and "math/" in match[3].lower():
                attributes = _attributes(match[3])
                if attributes.get("type", "").lower().startswith("math/"):
                    opened, script_from = match.start(), match.end()
        elif script_from >= 0:
            continue
        elif name == "math":
            if not closing:
                opened, attributes, tex, tex_from = match.start(), _attributes(match[3]), "", -1
            elif opened >= 0:
                if match.end() - opened <= _MAX_FORMULA:
                    found = tex or attributes.get("alttext", "") or latex_of(html[opened : match.end()])
                    put(opened, match.end(), _written(entities.unescape(found), attributes.get("display") == "block"))
                    drawn = match.end()
                opened = -1
        elif name == "annotation":
            if not closing:
                tex_from = match.end() if opened >= 0 and "tex" in match[3].lower() else -1
            elif tex_from >= 0:
                tex, tex_from = html[tex_from : match.start()], -1
        elif opened >= 0 or closing:
            continue
        elif name == "img":
            alt = _image(match[3])
            if alt:
                put(match.start(), match.end(), _written(alt, False))
        elif "katex-html" in match[3]:
            near = drawn >= 0 and match.start() - drawn < 100
            if not near or html[drawn : match.start()].replace("</span>", "").strip():
                put(match.start(), match.end(), "<span>")  # KaTeX without MathML: all that there is
        elif scripted and "mathjax" in match[3].lower():
            words = _attributes(match[3]).get("class", "").lower().split()
            if not _RENDERED.isdisjoint(words):
                put(match.start(), match.start() + len("<span"), "<span hidden")
    return "".join([*out, html[copied:]]) if out else html


def _attributes(text: str) -> dict[str, str]:
    return {one[1].lower(): one[2] or one[3] or one[4] or "" for one in _ATTRIBUTE.finditer(text)}


def _image(text: str) -> str:
    """The TeX of an image of a formula, empty for any other image."""
    lower = text.lower()
    if "alt" not in lower or not ("tex" in lower or "math" in lower or "ee_img" in lower):
        return ""
    attributes = _attributes(text)
    place = attributes.get("src", "").lower()
    if _IMAGE_CLASSES.isdisjoint(attributes.get("class", "").lower().split()) and not any(
        part in place for part in _IMAGE_PLACES
    ):
        return ""
    return entities.unescape(attributes.get("alt", ""))


def _written(tex: str, display: bool) -> str:
    """TeX as text of a page, between dollar signs."""
    tex = " ".join(tex.replace("<![CDATA[", "").replace("]]>", "").split()).removeprefix("% ")
    for begin, end in (("$$", "$$"), ("$", "$"), ("\\(", "\\)"), ("\\[", "\\]")):
        if len(tex) > len(begin + end) and tex.startswith(begin) and tex.endswith(end):
            tex = tex[len(begin) : -len(end)].strip()
            break
    for style in ("{\\displaystyle", "{\\textstyle"):
        if tex.startswith(style) and tex.endswith("}"):
            tex = tex[len(style) : -1].strip()
    if not tex:
        return ""
    mark = "$$" if display else "$"
    return mark + entities.escape(tex, quote=False) + mark


_NODE = re.compile(r"<(/?)([a-z][a-z0-9:-]*)(?:\s[^<>]*)?>|([^<]+)", re.I)
_NAMES = frozenset("sin cos tan cot sec csc sinh cosh tanh log ln exp lim max min sup inf det dim ker gcd arg".split())  # noqa: SIM905
_UNSEEN = dict.fromkeys(map(ord, "\u2061\u2062\u2063\u2064\u200b"))
_LEAVES = frozenset(("mi", "mn", "mo", "mtext", "ms"))
_SKIPPED = frozenset(("annotation", "annotation-xml", "mspace", "mphantom", "none", "mprescripts"))


def _group(text: str) -> str:
    return text if len(text) == 1 else f"{{{text}}}"


_SHAPES: dict[str, tuple[int, Callable[..., str]]] = {
    "msup": (2, lambda a, b: f"{_group(a)}^{_group(b)}"),
    "msub": (2, lambda a, b: f"{_group(a)}_{_group(b)}"),
    "msubsup": (3, lambda a, b, c: f"{_group(a)}_{_group(b)}^{_group(c)}"),
    "mfrac": (2, lambda a, b: f"\\frac{{{a}}}{{{b}}}"),
    "mroot": (2, lambda a, b: f"\\sqrt[{b}]{{{a}}}"),
    "munder": (2, lambda a, b: f"{_base(a)}_{_group(b)}"),
    "mover": (2, lambda a, b: f"{_base(a)}^{_group(b)}"),
    "munderover": (3, lambda a, b, c: f"{_base(a)}_{_group(b)}^{_group(c)}"),
}


def _base(text: str) -> str:
    return text if text.startswith("\\") else _group(text)


def latex_of(mathml: str) -> str:
    """Presentation MathML as LaTeX: scripts, fractions, roots, matrices; symbols stay the characters they are."""
    stack: list[tuple[str, list[str]]] = [("", [])]
    for match in _NODE.finditer(mathml):
        if match[3] is not None:
            if stack[-1][0] in _LEAVES:
                stack[-1][1].append(entities.unescape(match[3]).translate(_UNSEEN))
            continue
        name = match[2].lower().rpartition(":")[2]
        if not match[1]:
            if match[0].endswith("/>"):
                if name not in _SKIPPED:
                    stack[-1][1].append("")
            elif len(stack) < 200:
                stack.append((name, []))
        elif len(stack) > 1 and stack[-1][0] == name:
            _, parts = stack.pop()
            if name not in _SKIPPED:
                stack[-1][1].append(_shape(name, parts))
    while len(stack) > 1:
        name, parts = stack.pop()
        stack[-1][1].append(_shape(name, parts))
    return "".join(stack[0][1])


def _shape(name: str, parts: list[str]) -> str:
    if name in _SHAPES and len(parts) == _SHAPES[name][0]:
        return _SHAPES[name][1](*parts)
    text = "".join(parts)
    if name in _LEAVES:
        text = text if name == "mtext" else text.strip()
        return f"\\{text} " if text in _NAMES and name != "mtext" else text
    if name == "msqrt":
        return f"\\sqrt{{{text}}}"
    if name == "mtr":
        return " & ".join(parts)
    if name == "mtable":
        return "\\begin{matrix}" + " \\\\ ".join(parts) + "\\end{matrix}"
    return text
