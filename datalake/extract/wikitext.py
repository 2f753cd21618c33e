"""Wikitext to readable text: paragraphs, headings, lists and tables stay; apparatus goes.

Markup as described by MediaWiki's help pages (Help:Formatting, Help:Links, Help:Tables, Help:Templates and, for
`-{...}-`, Writing systems/Syntax). Templates can't be expanded without their wiki, so most are dropped; those that
carry words or numbers of the sentence around them (convert, dates, units, languages, lists) are rendered by name.

The work is bounded by construction, never by a clock. `mwparserfromhell` needs time quadratic in the number of
brackets that are never closed (20,000 open `{{`: minutes), so one linear pass first takes out every bracket without
a partner and everything that isn't a template, link, table or list. A page nested deeper than `MAX_DEPTH` or longer
than `MAX_PARSED` characters, or one on which the parser fails, is stripped by that same linear scan instead.
"""

from __future__ import annotations

import html
import re
from collections.abc import Iterable
from typing import Any, NamedTuple

import mwparserfromhell
from mwparserfromhell.nodes import Argument, Comment, ExternalLink, Heading, HTMLEntity, Tag, Template, Text, Wikilink

from datalake.extract.wikitemplates import render_template

MAX_DEPTH = 20  # real articles stay below 12; the parser itself gives up at 40
MAX_PARSED = 1_000_000  # characters; the largest articles of English Wikipedia have about 600,000
MAX_ROWS = 2_000  # the parser's time is quadratic in the rows of one table; beyond them tables are left out

# Prefixes of links that are files or categories, in the languages of the largest wikis; the dump's own are added.
FILES_AND_CATEGORIES = frozenset(
    """
    file image media category fichier catégorie datei bild kategorie archivo imagen categoría ficheiro arquivo
    imagem categoria immagine plik grafika файл изображение категория зображення категорія bestand afbeelding
    categorie fil kategori tiedosto luokka soubor súbor 文件 档案 檔案 图像 圖像 分类 分類 ファイル 画像
    カテゴリ 파일 그림 분류 tập_tin hình thể_loại ไฟล์ ภาพ หมวดหมู่ पुल चित्र श्रेणी ملف صورة تصنيف پرونده تصویر
    رده קובץ תמונה קטגוריה berkas dosya картинка слика датотека категорија
    """.split()  # noqa: SIM905 - as many literals read worse
)

# Sections that hold apparatus, not prose.
APPARATUS = frozenset(
    " ".join(name.split())
    for name in """
    references | notes | footnotes | external links | see also | further reading | bibliography | sources |
    citations | notes and references | references and notes | works cited | gallery | notes and citations |
    参考文献 | 參考文獻 | 参考资料 | 參考資料 | 参考 | 參考 | 外部链接 | 外部連結 | 外部鏈接 | 参见 | 參見 |
    參看 | 参看 | 注释 | 註釋 | 注釋 | 註解 | 脚注 | 腳註 | 延伸阅读 | 延伸閱讀 | 扩展阅读 | 相关条目 | 相關條目
    | 参考书目 | 参考来源 | 引用 | 来源 | references et notes | notes et références | références | liens
    externes | voir aussi | bibliographie | annexes | einzelnachweise | weblinks | literatur | siehe auch |
    anmerkungen | referencias | enlaces externos | véase también | bibliografía | notas | referências | ligações
    externas | ver também | notas e referências | note | bibliografia | collegamenti esterni | voci correlate |
    altri progetti | примечания | ссылки | литература | см. также | примітки | посилання | література | джерела
    | див. також | бележки | външни препратки | вижте също | източници | 各注 | 関連項目 | 外部リンク | 각주 |
    같이 보기 | 외부 링크 | 참고 문헌 | مراجع | المراجع | وصلات خارجية | انظر أيضًا | انظر أيضا | منابع | پانویس
    | پیوند به بیرون | جستارهای وابسته | הערות שוליים | קישורים חיצוניים | ראו גם | सन्दर्भ | बाहरी कड़ियाँ |
    इन्हें भी देखें | tham khảo | liên kết ngoài | xem thêm | chú thích | อ้างอิง | แหล่งข้อมูลอื่น | ดูเพิ่ม
    """.split("|")  # noqa: SIM905 - as many literals read worse
)

# A variant's order of preference among the forms that a `-{...}-` offers.
VARIANTS = {
    "zh-hans": ("zh-hans", "zh-cn", "zh-sg", "zh-my", "zh", "zh-hant", "zh-tw", "zh-hk", "zh-mo"),
    "zh-cn": ("zh-cn", "zh-hans", "zh-sg", "zh-my", "zh", "zh-hant", "zh-tw", "zh-hk", "zh-mo"),
    "zh-sg": ("zh-sg", "zh-my", "zh-hans", "zh-cn", "zh", "zh-hant", "zh-tw", "zh-hk", "zh-mo"),
    "zh-hant": ("zh-hant", "zh-tw", "zh-hk", "zh-mo", "zh", "zh-hans", "zh-cn", "zh-sg", "zh-my"),
    "zh-tw": ("zh-tw", "zh-hant", "zh-hk", "zh-mo", "zh", "zh-hans", "zh-cn", "zh-sg", "zh-my"),
    "zh-hk": ("zh-hk", "zh-mo", "zh-hant", "zh-tw", "zh", "zh-hans", "zh-cn", "zh-sg", "zh-my"),
}

# Extension tags whose content isn't wikitext. Kept as it stands, or dropped with what is in it.
_VERBATIM = ("nowiki", "pre", "syntaxhighlight", "source", "math", "chem", "ce", "code")
_DROPPED = ("ref", "references", "gallery", "timeline", "imagemap", "score", "templatestyles", "indicator", "graph",
            "mapframe", "maplink", "includeonly", "inputbox", "hiero", "style", "script", "section")  # fmt: skip

_MARK = re.compile("[\ue000\ue001]")  # private use: they hold the place of verbatim text while the rest is parsed
_HELD = re.compile("\ue000([0-9]+)\ue001")
_COMMENT = re.compile(r"<!--.*?(?:-->|\Z)", re.DOTALL)
_TAG = re.compile(r"</?([A-Za-z][A-Za-z0-9]*)\b[^<>]*>")
_EXTENSION = re.compile(rf"<({'|'.join(_VERBATIM + _DROPPED)})\b([^<>]*)>", re.IGNORECASE)
_BLOCK_TAGS = frozenset(
    "p div br hr tr table blockquote center dl ul ol li dt dd h1 h2 h3 h4 h5 h6 caption".split()  # noqa: SIM905
)
_EXTERNAL = re.compile(r"\[(?:(?:https?|ftps?|irc|news|gopher)://|//|mailto:)[^\s\[\]<>|{}]*([^\[\]\n]{0,2000})\]")
_OPEN_EXTERNAL = re.compile(r"\[(?=(?:[A-Za-z]+:)?//|mailto:)")
_BRACKETS = re.compile(r"\{\{|\}\}|\[\[|\]\]|(?m:^)[ \t:*#]*\{\|(?!\})|(?m:^)[ \t]*\|\}(?!\})")
_MAGIC = re.compile(r"__[A-Z]{3,24}__|__(?:目录|目錄|无目录|無目錄|强显目录|強顯目錄|不转换标题|不轉換標題)__")
_INTERLANGUAGE = re.compile(r"[a-z]{2,3}(?:-[a-z]{2,8}){0,2}$")
_ITEM = re.compile(r"(?m)^[*#:;][*#:; ]*")
_VARIANT = re.compile(r"-\{(?!\{)((?:(?!-\{(?!\{)|\}-).)*)\}-", re.DOTALL)
_QUOTES = re.compile("'{2,}")
_EMPTY_PARENTHESES = re.compile(r" ?(?:\([ ,;:、，；/]{0,20}\)|（[ ,;:、，；/]{0,20}）)")
_PARENTHESIS_START = re.compile(r"([(（])[ ,;、，；]{1,20}")
_PARENTHESIS_END = re.compile(r"[ ,;、，；]{1,20}([)）])")
_SPACE_BEFORE_STOP = re.compile(r"(?<=[^\W_]) ([.,])(?=\s|$)")
_SPACES = re.compile(r"[ \t\u00a0\u2000-\u200a\u202f\u3000]+")
_INVISIBLE = re.compile("[\u200b\u200e\u200f\u2060\ufeff\u00ad]")
# What a damaged table leaves at the beginning of lines: its own markup, and the attributes of cells.
_LEFT_OVER = re.compile(
    r"(?m)^ ?(?:\{\||\|\}|\|-).*$|^ ?[|!](?![|!]) ?(?:[a-z]{1,20} ?= ?\"[^\"\n]{0,200}\"[^|\n]{0,200}\|)?"
)


class Cleaned(NamedTuple):
    """The text of a page and what made it: `mwparserfromhell`, or `strip` where the page was past its bounds."""

    text: str
    parser: str


def clean(wikitext: str, variant: str = "zh-cn", namespaces: Iterable[str] = ()) -> Cleaned:
    """Wikitext as readable text. Never raises; its time is bounded by the length of the page.

    - `variant`: the form taken from Chinese `-{zh-hans:...;zh-hant:...}-`, a key of `VARIANTS`.
    - `namespaces`: further prefixes of links to drop, as the dump's siteinfo names its files and categories.
    """
    drop = FILES_AND_CATEGORIES | {prefix.strip().lower().replace(" ", "_") for prefix in namespaces if prefix.strip()}
    text = _MARK.sub("", wikitext).replace("\r\n", "\n").replace("\r", "\n")
    held: list[str] = []
    text = _hold(_COMMENT.sub("", text), held)
    text = choose_variant(text, variant)
    text = _plain_tags(text)
    text = _ITEM.sub(lambda match: "\ue000-\ue001" if "*" in match[0] or "#" in match[0] else "", text)
    text = _EXTERNAL.sub(lambda match: match[1].strip(), text)
    text = _OPEN_EXTERNAL.sub("", text)
    text, depth = _balance(text)
    parser = "mwparserfromhell"
    if depth > MAX_DEPTH or len(text) > MAX_PARSED or text.count("\n|-") > MAX_ROWS:
        parser = "strip"
    else:
        try:
            out = _sections(mwparserfromhell.parse(text, skip_style_tags=True).nodes, drop)
        except Exception:  # the parser's own errors have several types, some undocumented
            parser = "strip"
    if parser == "strip":
        out = _sections_of_lines(_strip(text, drop))
    return Cleaned(_tidy(out, held), parser)


def choose_variant(text: str, variant: str) -> str:
    """The text with each `-{...}-` replaced by the form for one variant of Chinese (its rules for titles vanish)."""
    order = VARIANTS.get(variant, VARIANTS["zh-cn"])
    for _ in range(4):  # rules inside rules, innermost first
        text, found = _VARIANT.subn(lambda match: _variant_form(match[1], order), text)
        if not found:
            break
    return text


def _variant_form(content: str, order: tuple[str, ...]) -> str:
    """What one `-{flags|rules}-` shows."""
    flags, bar, rules = content.partition("|")
    if bar and re.fullmatch(r"[ ;A-Z+\-]*", flags):
        if any(flag in flags for flag in "HT-"):  # hidden rule, page title, rule taken back
            return ""
        if "R" in flags:  # raw: shown in every variant as it stands
            return rules
    elif bar and re.fullmatch(r"\s*zh(?:-[a-z]+)?(?:\s*;\s*zh(?:-[a-z]+)?)*\s*", flags):
        return rules
    else:
        rules = content
    forms: dict[str, str] = {}
    for rule in re.split(r";(?=\s*(?:zh(?:-[a-z]+)?\s*:|[^;:]*=>|$))", rules):
        match = re.match(r"\s*(?:[^;:]*=>)?\s*(zh(?:-[a-z]+)?)\s*:(.*)$", rule, re.DOTALL)
        if match:
            forms.setdefault(match[1].lower(), match[2].strip())
    if not forms:
        return rules.strip()
    return next((forms[name] for name in order if forms.get(name)), "")


def _hold(text: str, held: list[str]) -> str:
    """The text without extension tags: `held` takes the verbatim ones and gives each a placeholder.

    Closing tags are looked for by name from left to right; where a name is closed next is remembered, so
    the pass stays linear however many tags are left open.
    """
    out: list[str] = []
    place = 0
    closed_at: dict[str, int] = {}  # where each name is closed next, -1 nowhere
    lower = text.lower() if len(text.lower()) == len(text) else text
    while match := _EXTENSION.search(text, place):
        name = match[1].lower()
        out.append(text[place : match.start()])
        place = match.end()
        if match[2].rstrip().endswith("/"):
            continue
        end = closed_at.get(name, 0)
        if 0 <= end < place:
            end = closed_at[name] = lower.find(f"</{name}", place)
        if end < 0:
            continue
        if name == "ref" and (nested := lower.find("<ref", place, end)) >= 0 and lower[nested + 4 : nested + 5] in " >":
            # A reference that was never closed would swallow the text up to the end of the next one.
            blank = text.find("\n\n", place, nested)
            if blank >= 0:
                place = blank
                continue
        if name in _VERBATIM:
            out.append(_keep(name, text[place:end], held))
        close = text.find(">", end)
        place = len(text) if close < 0 else close + 1
    out.append(text[place:])
    return "".join(out)


def _keep(name: str, content: str, held: list[str]) -> str:
    """A placeholder for verbatim text. Formulas stand between dollar signs, blocks of code on lines of their own."""
    content = html.unescape(content) if name != "math" else content
    content = _MARK.sub("", content)
    if name in ("math", "chem", "ce"):
        formula = re.sub(r"^\{?\\displaystyle\s*|\s+", " ", content).strip()
        held.append(f"${formula}$" if formula else "")
    elif name == "code":
        held.append(_TAG.sub("", content))
    elif name in ("pre", "syntaxhighlight", "source") and "\n" in content:
        held.append("\n\n" + content.strip("\n") + "\n\n")
    else:
        held.append(content)
    return f"\ue000{len(held) - 1}\ue001"


def _plain_tags(text: str) -> str:
    """The text without HTML tags, their content kept; blocks and cells of HTML tables stay apart."""

    def replace(match: re.Match[str]) -> str:
        name = match[1].lower()
        if name in ("td", "th"):
            return "" if match[0].startswith("</") else " "
        if name == "li":
            return "" if match[0].startswith("</") else "\n* "
        if name == "br":
            return " "  # within table cells and template arguments a line break would change the markup
        return "\n" if name in _BLOCK_TAGS else ""

    return _TAG.sub(replace, text)


def _balance(text: str) -> tuple[str, int]:
    """The text without brackets that have no partner, and how deep the others nest. One linear pass."""
    partner = {"}}": "{{", "]]": "[[", "|}": "{|"}
    stack: list[tuple[str, int]] = []  # opener and its index in `tokens`
    tokens = [(match.start(), match.end(), match[0].strip(" \t:*#")) for match in _BRACKETS.finditer(text)]
    alone = [False] * len(tokens)
    open_now = dict.fromkeys(partner.values(), 0)
    depth = 0
    for index, (_, _, token) in enumerate(tokens):
        if token in open_now:
            stack.append((token, index))
            open_now[token] += 1
        elif not open_now[partner[token]]:
            alone[index] = True
        else:
            depth = max(depth, len(stack))
            while stack[-1][0] != partner[token]:  # opened within and never closed
                opener, lost = stack.pop()
                open_now[opener] -= 1
                alone[lost] = True
            open_now[stack.pop()[0]] -= 1
    for _, index in stack:
        alone[index] = True
    out: list[str] = []
    place = 0
    for (start, end, _), lost in zip(tokens, alone, strict=True):
        if lost:
            out.append(text[place:start])
            place = end
    out.append(text[place:])
    return "".join(out), depth


class _Section(NamedTuple):
    """A heading's level (2 for `==`; 7 for text) and its line or text."""

    level: int
    text: str


def _sections(nodes: Iterable[Any], drop: frozenset[str] | set[str]) -> list[_Section]:
    """Headings and the rendered text between them."""
    out: list[_Section] = []
    parts: list[str] = []
    for node in nodes:
        if isinstance(node, Heading):
            out.append(_Section(7, "".join(parts)))
            parts = []
            out.append(_Section(node.level, _render(node.title.nodes, drop)))
        else:
            parts.append(_node(node, drop))
    out.append(_Section(7, "".join(parts)))
    return out


def _sections_of_lines(text: str) -> list[_Section]:
    """Headings and the text between them, for text without a parse."""
    out: list[_Section] = []
    parts: list[str] = []
    for line in text.split("\n"):
        match = re.match(r"(={1,6})([^=\n].*?)={1,6}\s*$", line) if line.startswith("=") else None
        if match:
            out.append(_Section(7, "\n".join(parts)))
            parts = []
            out.append(_Section(len(match[1]), match[2]))
        else:
            parts.append(line)
    out.append(_Section(7, "\n".join(parts)))
    return out


def _render(nodes: Iterable[Any], drop: frozenset[str] | set[str]) -> str:
    return "".join(_node(node, drop) for node in nodes)


def _node(node: Any, drop: frozenset[str] | set[str]) -> str:
    """One node of the parse as text."""
    if isinstance(node, Text):
        return str(node.value)
    if isinstance(node, Wikilink):
        label = None if node.text is None else _render(node.text.nodes, drop)
        return link_text(str(node.title), label, drop)
    if isinstance(node, Template):
        return _template(node, drop)
    if isinstance(node, HTMLEntity):
        return html.unescape(str(node))
    if isinstance(node, Tag):
        return _tag(node, drop)
    if isinstance(node, Heading):  # inside a table cell or a template's argument
        return "\n" + _render(node.title.nodes, drop) + "\n"
    if isinstance(node, ExternalLink):
        if node.brackets:
            return _render(node.title.nodes, drop) if node.title else ""
        return str(node.url)
    if isinstance(node, Argument):
        return _render(node.default.nodes, drop) if node.default else ""
    if isinstance(node, Comment):
        return ""
    return ""


def link_text(title: str, label: str | None, drop: Iterable[str]) -> str:
    """What a link shows: its label, else its title; nothing for files, categories and links between languages."""
    title = title.strip()
    prefix, colon, rest = title.partition(":")
    if colon and prefix:
        name = prefix.strip().lower().replace(" ", "_")
        if name in drop or (label is None and _INTERLANGUAGE.match(name) and rest[:1] not in (" ", "")):
            return ""
    if label is None:
        return title.lstrip(":")
    if not label.strip():  # the pipe trick: no prefix, nothing in parentheses, nothing after a comma
        return re.sub(r"\s*[(（][^()（）]*[)）]\s*$|,.*$", "", rest if colon else title)
    return label


def _template(node: Template, drop: frozenset[str] | set[str]) -> str:
    positional: list[str] = []
    named: dict[str, str] = {}
    name = re.sub(r"[\s_]+", " ", str(node.name)).strip()
    for parameter in node.params:
        value = _render(parameter.value.nodes, drop).strip()
        if parameter.showkey:
            key = str(parameter.name).strip()
            if key.isdecimal() and len(key) < 3 and 0 < int(key) <= len(positional) + 1:
                positional[int(key) - 1 :] = [value, *positional[int(key) :]]
            else:
                named[key] = value
        else:
            positional.append(value)
    return render_template(name, positional, named)


def _tag(node: Tag, drop: frozenset[str] | set[str]) -> str:
    name = str(node.tag).strip().lower()
    if name == "table":
        return _table(node, drop)
    if name == "hr":
        return "\n"
    return _render(node.contents.nodes, drop) if node.contents is not None else ""


_LAYOUT = re.compile(r"navbox|infobox|metadata|ambox|sidebar|toc\b|vertical|noprint|display:\s*none", re.IGNORECASE)


def _table(node: Tag, drop: frozenset[str] | set[str]) -> str:
    """A table, one line a row with bars between its cells; tables for navigation or layout vanish."""
    if any(_LAYOUT.search(str(attribute.value)) for attribute in node.attributes if attribute.value is not None):
        return ""
    if node.contents is None:
        return ""
    rows: list[list[str]] = [[]]
    caption = ""
    for child in node.contents.nodes:
        kind = str(child.tag).strip().lower() if isinstance(child, Tag) else ""
        if isinstance(child, Tag) and kind == "tr":
            cells = child.contents.nodes if child.contents is not None else []
            rows.append([_cell(cell, drop) for cell in cells if isinstance(cell, Tag)])
        elif isinstance(child, Tag) and kind in ("td", "th"):
            cell = _cell(child, drop)
            if cell.startswith("+") and not rows[0] and len(rows) == 1:  # the parser takes `|+` for a cell
                caption = cell[1:].strip()
            else:
                rows[0].append(cell)
    lines = [" | ".join(cell for cell in row if cell) for row in rows if any(row)]
    if len(lines) < 2:  # a frame around text or picture, not a table
        return "\n" + "\n".join(lines) + "\n"
    return "\n\n" + "\n".join([caption, *lines] if caption else lines) + "\n\n"


def _cell(cell: Tag, drop: frozenset[str] | set[str]) -> str:
    if cell.contents is None:
        return ""
    return re.sub(r"\s+", " ", _render(cell.contents.nodes, drop)).strip()


def _strip(text: str, drop: frozenset[str] | set[str]) -> str:
    """Text without templates and tables and with links as they show, by brackets alone. Linear: no parse tree.

    `text` is balanced. Links deeper than `MAX_DEPTH` lose their brackets and stay as they are.
    """
    out: list[str] = []
    stack: list[tuple[str, int]] = []
    place = 0
    for match in _BRACKETS.finditer(text):
        out.append(text[place : match.start()])
        place = match.end()
        token = match[0].strip(" \t:*#")
        if token in ("{{", "[[", "{|"):
            stack.append((token, len(out)))
        elif stack:
            opener, start = stack.pop()
            if opener != "[[":
                del out[start:]
            elif len(stack) < MAX_DEPTH:
                title, bar, label = "".join(out[start:]).partition("|")
                del out[start:]
                out.append(link_text(title, label.rpartition("|")[2] if bar else None, drop))
    out.append(text[place:])
    return html.unescape("".join(out))


def _tidy(sections: list[_Section], held: list[str]) -> str:
    """Sections as text: no apparatus, no heading without text, spaces and blank lines made one."""
    blocks: list[_Section] = []
    skipping = 0
    for section in sections:
        if section.level < 7:
            title = _QUOTES.sub("", _HELD.sub(lambda match: _held(match, held), section.text))
            title = _SPACES.sub(" ", html.unescape(title)).strip()
            if skipping and section.level > skipping:
                continue
            skipping = section.level if title.casefold() in APPARATUS else 0
            if not skipping:
                blocks.append(_Section(section.level, title.replace("\n", " ")))
        elif not skipping:
            blocks.append(_Section(7, _tidy_block(section.text, held)))
    out: list[str] = []
    below = 0  # level of the last block that has text below the heading looked at, from the end
    for level, text in reversed(blocks):
        if level == 7:
            if text:
                out.append(text)
                below = 7
        else:
            if below > level and text:
                out.append(text)
            below = level if below > level else below
    return "\n\n".join(reversed(out))


def _held(match: re.Match[str], held: list[str]) -> str:
    index = int(match[1])
    return held[index] if index < len(held) else ""


def _tidy_block(text: str, held: list[str]) -> str:
    text = _MAGIC.sub("", _QUOTES.sub("", text))
    text = _SPACES.sub(" ", _INVISIBLE.sub("", text))  # before patterns that would look at long runs again and again
    text = _LEFT_OVER.sub("", text)
    text = re.sub("(?:\ue000-\ue001 ?)+", "- ", text)
    text = _EMPTY_PARENTHESES.sub("", text)
    text = _PARENTHESIS_END.sub(r"\1", _PARENTHESIS_START.sub(r"\1", text))
    text = _SPACE_BEFORE_STOP.sub(r"\1", text)
    lines = (_SPACES.sub(" ", line).strip() for line in text.split("\n"))
    text = "\n".join("" if line in ("-", "|") else line for line in lines)
    text = _HELD.sub(lambda match: _held(match, held), text)  # last: code keeps its spaces
    return re.sub(r"\n{3,}", "\n\n", _MARK.sub("", text)).strip("\n").rstrip()


__all__ = ["MAX_DEPTH", "VARIANTS", "Cleaned", "choose_variant", "clean", "link_text"]
