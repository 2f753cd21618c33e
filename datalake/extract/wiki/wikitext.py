"""Wikitext to readable text: paragraphs, headings, lists and tables stay; apparatus goes.

Markup as described by MediaWiki's help pages (Help:Formatting, Help:Links, Help:Tables, Help:Templates). Templates
can't be expanded without their wiki: those that carry words or numbers of the sentence around them (convert, dates,
units, languages, lists) are rendered by name, any other in the middle of a sentence leaves its readable arguments
(`wikiwords`), and the rest is dropped.

One pass over the brackets, bounded by construction, never by a clock: brackets without a partner are found first, then
each pair is rendered when it closes, its content being text already. The work is linear in the length of the page
times the depth of its brackets, of which levels beyond `MAX_DEPTH` lose their content's structure.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from datetime import datetime
from typing import NamedTuple

from datalake.extract.html.references import unescape
from datalake.extract.wiki.chinese import END, KEEP, VARIANTS, choose_variant, convert, resolve
from datalake.extract.wiki.formatting import (
    EMPTY,
    LINE,
    SPACE,
    SUB,
    SUB_END,
    SUP,
    SUP_END,
    TAB,
    hold_indents,
    release_indents,
    show_indents,
    with_scripts,
    without_quotes,
)
from datalake.extract.wiki.templates import Context, render_template
from datalake.extract.wiki.words import LANGUAGES, Place, words_of

MAX_DEPTH = 40  # as the parsers of MediaWiki's own family; real articles stay below 12

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

# Extension tags whose content isn't wikitext. Kept as it stands, or dropped with what is in it.
_VERBATIM = ("nowiki", "pre", "syntaxhighlight", "source", "math", "chem", "ce", "code")
_FORMULAS = ("math", "chem", "ce")
_DROPPED = ("ref", "references", "gallery", "timeline", "imagemap", "score", "templatestyles", "indicator", "graph",
            "mapframe", "maplink", "includeonly", "inputbox", "hiero", "style", "script", "section")  # fmt: skip

# Private use: they hold the place of verbatim text while the rest is parsed, and of what `wikiformat` keeps.
_MARK = re.compile("[\ue000-\ue00f]")
_REFERENCE_TO_MARK = re.compile(r"&#(?:0*573(?:4[4-9]|5[0-9])|[xX]0*[eE]00[0-9a-fA-F]);?")
_HELD = re.compile("\ue000([0-9]+)\ue001")
_TAG = re.compile(r"</?([A-Za-z][A-Za-z0-9]*)\b[^<>]*>")
# Of HTML and of MediaWiki's extensions. What else looks like a tag a wiki shows as it stands: `List<String>`.
_TAGS = frozenset(
    """
    a abbr acronym address applet area article aside audio b base bdi bdo big blink blockquote body br button canvas
    caption center cite code col colgroup data datalist dd del details dfn div dl dt em embed fieldset figcaption figure
    font footer form frame h1 h2 h3 h4 h5 h6 head header hr html i iframe img input ins kbd label legend li link main
    map mark marquee menu meta meter nav nobr noscript object ol optgroup option p param picture pre progress q rb rp
    rt rtc ruby s samp script section select small source span strike strong style sub summary sup svg table tbody td
    textarea tfoot th thead time title tr track tt u ul var video wbr
    categorytree ce charinsert chem choose code gallery graph hiero imagemap includeonly indicator inputbox
    langconvert languages listing lst mapframe maplink math nnoinclude noinclude nowiki onlyinclude pages poem
    quiz ref references rss score sm syntaxhighlight tab tabber templatedata templatestyles timeline translate tvar
    """.split()  # noqa: SIM905
)
_UNSEEN = re.compile(
    r"<(rp|rt)\b[^<>]*>[^<]*|<span\b[^<>]*\bdisplay\s*:\s*none\b[^<>]*>[^<]*(?:</span\s*>)?", re.IGNORECASE
)
_AS_THEY_STAND = {"sup": (SUP, SUP_END), "sub": (SUB, SUB_END), "code": (KEEP, END), "q": ("“", "”")}
_FORMULA_REFERENCE = re.compile(r"&(lt|gt|amp|quot|nbsp);")
_EXTENSION = re.compile(rf"<({'|'.join(_VERBATIM + _DROPPED)})\b([^<>]*)>|<!--", re.IGNORECASE)
_BLOCK_TAGS = frozenset(
    "p div br hr tr table blockquote center dl ul ol li dt dd h1 h2 h3 h4 h5 h6 caption".split()  # noqa: SIM905
)
_ARGUMENT = re.compile(r"\{\{\{[^{}|]*(?:\|([^{}]*))?\}\}\}")
_EXTERNAL = re.compile(r"\[(?:(?:https?|ftps?|irc|news|gopher)://|//|mailto:)[^\s\[\]<>|{}]*+([^\[\]\n]{0,2000}+)\]")
_OPEN_EXTERNAL = re.compile(r"\[(?=(?:[A-Za-z]+:)?//|mailto:)")
_BRACKETS = re.compile(r"\{\{|\}\}|\[\[|\]\]|(?m:^)[ \t:*#]*\{\|(?!\})|(?m:^)[ \t]*\|\}(?!\})")
_MAGIC = re.compile(r"__[A-Z]{3,24}__|__(?:目录|目錄|无目录|無目錄|强显目录|強顯目錄|不转换标题|不轉換標題)__")
# A file's name behind whatever a wiki calls its files; colons lead to other wikis.
_FILE = re.compile(
    r"[^:|\[\]{}\n]+\.(?:jpe?g|png|gif|svg|tiff?|webp|xcf|webm|og[agvx]|opus|mp3|mp4|wav|flac|midi?|stl|pdf|djvu?)\s*$",
    re.I,
)
_ITEM = re.compile(r"(?m)^[*#:;][*#:; ]*")
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


class Options(NamedTuple):
    """How a page is rendered.

    - `variant`: the form taken from Chinese `-{zh-hans:...;zh-hant:...}-`, a key of `wikichinese.VARIANTS`.
    - `conversion`: of all its text to that variant: `none`, `script`, `vocabulary`; for Chinese wikis only.
    - `language`: the wiki's, as its export names it: words of templates and the spelling of units go by it.
    - `namespaces`: further prefixes of links to drop, as the dump's siteinfo names its files and categories.
    - `infoboxes`: whether they stay as lines of `key: value`.
    """

    variant: str = "zh-cn"
    conversion: str = "none"
    language: str = "en"
    namespaces: frozenset[str] = frozenset()
    infoboxes: bool = False


def clean(wikitext: str, options: Options = Options(), title: str = "", when: datetime | None = None) -> str:  # noqa: B008
    """Wikitext as readable text. Never raises; its time is bounded by the length of the page.

    - `title`: what `{{PAGENAME}}` shows; `when`: the revision's time, by which ages are counted.
    """
    drop = FILES_AND_CATEGORIES | options.namespaces
    text = _MARK.sub("", wikitext).replace("\r\n", "\n").replace("\r", "\n").replace("()", f"({EMPTY})")
    held: list[str] = []
    text = _hold(text, held)
    text, rules = resolve(text, options.variant)
    text = _plain_tags(hold_indents(without_quotes(text)))
    text = _ITEM.sub(_item, text)
    text = _EXTERNAL.sub(lambda match: match[1].strip(), text)
    text = _OPEN_EXTERNAL.sub("", text)
    text = _ARGUMENT.sub(lambda match: match[1] or "", text)
    context = Context(title, options.language, when, options.infoboxes)
    text = with_scripts(unescape(_REFERENCE_TO_MARK.sub("", _render(text, drop, context))))
    text = convert(text, options.variant, options.conversion, rules)
    return _tidy(_sections_of_lines(text), held)


def prefixes(names: Iterable[str]) -> frozenset[str]:
    """Names of namespaces as links are compared with them."""
    return frozenset(name.strip().lower().replace(" ", "_") for name in names if name.strip())


def _item(match: re.Match[str]) -> str:
    """A list item's markers as the placeholder of a dash; indents and terms of definitions lose theirs."""
    if "*" in match[0] or "#" in match[0]:
        return "\ue000-\ue001"
    return ""


def _hold(text: str, held: list[str]) -> str:
    """The text without comments and extension tags: `held` takes the verbatim ones and gives each a placeholder.

    Closing tags are looked for by name from left to right; where a name is closed next is remembered, so
    the pass stays linear however many tags are left open.
    """
    out: list[str] = []
    place = 0
    closed_at: dict[str, int] = {}  # where each name is closed next, -1 nowhere
    lower = text.lower() if len(text.lower()) == len(text) else text
    while match := _EXTENSION.search(text, place):
        out.append(text[place : match.start()])
        place = match.end()
        if match[1] is None:
            place = _after_comment(text, match.start(), out)
            continue
        name = match[1].lower()
        if match[2].rstrip().endswith("/"):
            if name == "nowiki":  # keeps apart what stands beside it
                out.append(_keep(name, "", held))
            continue
        end = closed_at.get(name, 0)
        if 0 <= end < place:
            end = closed_at[name] = lower.find(f"</{name}", place)
        if end < 0:
            continue
        if name == "code" and "\n" not in text[place:end]:  # wikitext, of which tags are looked at again
            out.append("<code>")
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


def _after_comment(text: str, start: int, out: list[str]) -> int:
    """Where the comment that begins at `start` ends, with its line where it is all of one."""
    end = text.find("-->", start + 4)
    if end < 0:
        return len(text)
    end += 3
    before = out[-1].rstrip(" ")
    if (not before or before.endswith("\n")) and text.startswith("\n", end) and (before or not start):
        out[-1] = before
        end += 1
    return end


def _keep(name: str, content: str, held: list[str]) -> str:
    """A placeholder for verbatim text. Formulas stand between dollar signs, blocks of code on lines of their own."""
    if name in _FORMULAS:
        content = _FORMULA_REFERENCE.sub(lambda match: unescape(match[0]), content)
        formula = re.sub(r"^\{?\\displaystyle\s*|\s+", " ", content).strip()
        content = f"${formula}$" if formula else ""
    elif name in ("pre", "code"):
        content = unescape(_TAG.sub(_known_tag, content))
    elif name == "nowiki":
        content = unescape(content)
    content = _MARK.sub("", content.replace(EMPTY, ""))
    block = name in ("pre", "syntaxhighlight", "source", "code") and "\n" in content
    held.append("\n\n" + content.strip("\n") + "\n\n" if block else content)
    return f"\ue000{len(held) - 1}\ue001"


def _plain_tags(text: str) -> str:
    """The text without HTML tags, their content kept; blocks and cells of HTML tables stay apart."""

    def replace(match: re.Match[str]) -> str:
        name = match[1].lower()
        if name not in _TAGS:
            return match[0]
        if name in _AS_THEY_STAND:
            return _AS_THEY_STAND[name][match[0].startswith("</")]
        if name in ("td", "th"):
            return "" if match[0].startswith("</") else " "
        if name == "li":
            return "" if match[0].startswith("</") else "\n* "
        if name == "br":
            return " "  # within table cells and template arguments a line break would change the markup
        return "\n" if name in _BLOCK_TAGS else ""

    return _TAG.sub(replace, _UNSEEN.sub("", text))


def _known_tag(match: re.Match[str]) -> str:
    return "" if match[1].lower() in _TAGS else match[0]


def _pairs(text: str) -> list[tuple[int, int, str]]:
    """The brackets that have a partner: start, end and token. One linear pass."""
    partner = {"}}": "{{", "]]": "[[", "|}": "{|"}
    stack: list[tuple[str, int]] = []  # opener and its index in `tokens`
    tokens = [(match.start(), match.end(), match[0].strip(" \t:*#")) for match in _BRACKETS.finditer(text)]
    alone = [False] * len(tokens)
    open_now = dict.fromkeys(partner.values(), 0)
    for index, (_, _, token) in enumerate(tokens):
        if token in open_now:
            stack.append((token, index))
            open_now[token] += 1
        elif not open_now[partner[token]]:
            alone[index] = True
        else:
            while stack[-1][0] != partner[token]:  # opened within and never closed
                opener, lost = stack.pop()
                open_now[opener] -= 1
                alone[lost] = True
            open_now[stack.pop()[0]] -= 1
    for _, index in stack:
        alone[index] = True
    return [(start, end, "" if lost else token) for (start, end, token), lost in zip(tokens, alone, strict=True)]


def _render(text: str, drop: frozenset[str], context: Context) -> str:
    """The text with every pair of brackets replaced by what it shows, innermost first. "" tokens are taken out.

    A template's or link's arguments are lists of pieces; raw text is split at its bars, rendered pieces aren't.
    """
    frames = [_Frame("", 0)]
    place = 0
    for start, end, token in _pairs(text):
        frames[-1].add(text[place:start])
        place = end
        if not token:
            continue
        if token in ("{{", "[[", "{|"):
            frames.append(_Frame(token, start))
            continue
        frame = frames.pop()
        shown = ""
        if len(frames) <= MAX_DEPTH:
            values = ["".join(pieces) for pieces in frame.arguments]
            if frame.kind == "[[":
                shown = link_text(values[0], values[-1] if len(values) > 1 else None, drop)
            elif frame.kind == "{|":
                shown = _table(values[0], nested=any(outer.kind == "{|" for outer in frames))
            else:
                outer = frames[-1]
                block = text.find("\n", frame.start, min(end, frame.start + 2_000)) >= 0
                stands = Place(outer.kind, outer.words, outer.before, text[end : end + 120], block, outer.aside)
                shown = _template(values, frame.arguments, context, stands)
        frames[-1].add_shown(shown)
    frames[-1].add(text[place:])
    return "".join(frames[0].arguments[0])


_WORD = re.compile(r"\w")


class _Frame:
    """A pair of brackets under way: its arguments, and what stands before the place reached, on the same line."""

    __slots__ = ("arguments", "aside", "before", "kind", "start", "words")

    def __init__(self, kind: str, start: int) -> None:
        self.kind = kind
        self.start = start
        self.arguments: list[list[str]] = [[]]
        self.words = self.aside = False
        self.before = ""

    def add(self, text: str) -> None:
        """Raw text, cut at its bars."""
        if self.kind:
            text = release_indents(text)
        if self.kind in ("{{", "[[") and "|" in text:
            first, *others = text.split("|")
            self.arguments[-1].append(first)
            self.arguments.extend([other] for other in others)
            self.words, self.aside, self.before = False, False, ""
            self._stands_behind(others[-1])
        else:
            self.arguments[-1].append(text)
            self._stands_behind(text)

    def add_shown(self, text: str) -> None:
        """What brackets within it show."""
        self.arguments[-1].append(text)
        self._stands_behind(text)

    def _stands_behind(self, text: str) -> None:
        if not text:
            return
        line = max(text.rfind("\n"), text.rfind("|"), text.rfind("!!")) if self.kind == "{|" else text.rfind("\n")
        if line >= 0:
            text, self.words, self.aside, self.before = text[line + 1 :], False, False, ""
        self.words = self.words or _WORD.search(text) is not None
        opened, closed = (max(text.rfind(mark), text.rfind(wide)) for mark, wide in ("(（", ")）"))
        if opened != closed:
            self.aside = opened > closed
        self.before = (self.before + text)[-3:] if len(text) < 3 else text[-3:]


class _Section(NamedTuple):
    """A heading's level (2 for `==`; 7 for text) and its line or text."""

    level: int
    text: str


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


def link_text(title: str, label: str | None, drop: frozenset[str]) -> str:
    """What a link shows: its label, else its title; nothing for files, categories and links between languages."""
    title = title.strip()
    prefix, colon, rest = title.partition(":")
    if colon and prefix:
        name = prefix.strip().lower().replace(" ", "_")
        if name in drop or (label is None and rest and name in LANGUAGES) or _FILE.match(rest):
            return ""
    if label is None:
        return title.lstrip(":")
    if not label.strip():  # the pipe trick: no prefix, nothing in parentheses, nothing after a comma
        return _pipe_trick(rest if colon else title)
    return label


def _pipe_trick(title: str) -> str:
    """A title (no space at its end) up to the parenthesis it ends with, or the first comma of its last line."""
    end = len(title)
    if title.endswith((")", "）")):
        opened = max(title.rfind("("), title.rfind("（"))
        if opened > max(title.rfind(")", 0, -1), title.rfind("）", 0, -1)):
            end = len(title[:opened].rstrip())
    comma = title.find(",", title.rfind("\n") + 1)
    return title[: min(end, comma) if comma >= 0 else end]


_SPACE_RUN = re.compile(r"[\s_]+")


def _template(values: list[str], arguments: list[list[str]], context: Context, place: Place) -> str:
    """A template by its name and arguments. An argument has a name where its raw beginning has a `=`."""
    positional: list[str] = []
    named: dict[str, str] = {}
    for value, pieces in zip(values[1:], arguments[1:], strict=True):
        key, equals, rest = value.partition("=")
        if not equals or len(key) >= len(pieces[0]):
            positional.append(value.strip())
            continue
        key = key.strip()
        if key.isdecimal() and len(key) < 3 and 0 < int(key) <= len(positional) + 1:
            positional[int(key) - 1 : int(key)] = [rest.strip()]
        else:
            named[key] = rest.strip()
    name = _SPACE_RUN.sub(" ", values[0]).strip()
    shown = render_template(name, positional, named, context)
    return words_of(name, positional, named, place) if shown is None else shown


_LAYOUT = re.compile(r"navbox|infobox|metadata|ambox|sidebar|toc\b|vertical|noprint|display:\s*none", re.IGNORECASE)
# Attributes whose bar a template would have written: `|colspan="5" {{n/a}}`.
_ATTRIBUTES = re.compile(
    r"(?<!\s)\s*+(?:(?:style|colspan|rowspan|align|valign|width|height|bgcolor|class|scope|nowrap|id|data-sort-[a-z]+)"
    r"\s*+=\s*+(?:\"[^\"]*\"|'[^']*'|[^\s|]+)\s*+)+"
)
_BAR = "\ue002"  # the bar of a table within a cell, until the outer table is cut up


def _table(content: str, nested: bool) -> str:
    """A table, one line a row with bars between its cells; tables for navigation or layout vanish.

    `content`: what stands between `{|` and `|}`, all brackets in it rendered; one inside another becomes one line.
    """
    attributes, _, body = content.partition("\n")
    if _LAYOUT.search(attributes):
        return ""
    lines: list[str] = []
    caption: list[str] = []  # the parts of its text, one a line
    cells: list[list[str]] = []  # and those of each cell of a row

    def end_row() -> None:
        if shown := [text for cell in cells if (text := _joined(cell))]:
            lines.append(" | ".join(shown))
        cells.clear()

    for line in body.split("\n"):
        line = line.strip()
        if line.startswith("|-"):
            end_row()
        elif line.startswith("|+"):
            caption = [_cell(line[2:])]
        elif line.startswith("!"):
            cells.extend([_cell(cell)] for cell in re.split(r"!!|\|\|", line[1:]))
        elif line.startswith("|"):
            cells.extend([_cell(cell)] for cell in line[1:].split("||"))
        elif line:
            if cells:
                cells[-1].append(_cell_text(line))
            elif not lines and any(caption):
                caption.append(_cell_text(line))
            else:
                cells.append([_cell_text(line)])
    end_row()
    if any(caption):
        lines.insert(0, _joined(caption))
    if nested:
        return "; ".join(lines).replace("|", _BAR)
    if len(lines) < 2:  # a frame around text or picture, not a table
        return "\n" + "\n".join(lines) + "\n"
    return "\n\n" + "\n".join(lines) + "\n\n"


def _cell(cell: str) -> str:
    """A cell without its attributes, which stand before a bar."""
    before, bar, after = cell.partition("|")
    text = _ATTRIBUTES.sub("", after if bar and "\ue000-" not in before else cell)
    return _cell_text(text.strip("|"))


def _joined(parts: list[str]) -> str:
    return " ".join(part for part in parts if part)


def _cell_text(text: str) -> str:
    return " ".join(text.replace("\ue000-\ue001", " ").split())


def _tidy(sections: list[_Section], held: list[str]) -> str:
    """Sections as text: no apparatus, no heading without text, spaces and blank lines made one."""
    blocks: list[_Section] = []
    skipping = 0
    for section in sections:
        if section.level < 7:
            title = _HELD.sub(lambda match: _held(match, held), section.text)
            title = _SPACES.sub(" ", show_indents(title)).strip()
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
    index = int(match[1][:9])
    return held[index] if index < len(held) else ""


_ENDS_OF_LINES = f" {LINE}{SPACE}{TAB}"


def _tidy_block(text: str, held: list[str]) -> str:
    text = _SPACES.sub(" ", _INVISIBLE.sub("", _MAGIC.sub("", text)))  # before patterns that would look at long runs
    text = _LEFT_OVER.sub("", text)
    text = re.sub("(?:\ue000-\ue001 ?)+", "- ", text).replace(_BAR, "|")
    text = _EMPTY_PARENTHESES.sub("", text)
    text = _PARENTHESIS_END.sub(r"\1", _PARENTHESIS_START.sub(r"\1", text))
    text = _SPACE_BEFORE_STOP.sub(r"\1", text)
    lines = (_SPACES.sub(" ", line).strip().rstrip(_ENDS_OF_LINES) for line in text.split("\n"))
    text = show_indents("\n".join("" if line in ("-", "|") else line for line in lines))
    text = _HELD.sub(lambda match: _held(match, held), text)  # last: code keeps its spaces
    return re.sub(r"\n{3,}", "\n\n", _MARK.sub("", text)).strip("\n").rstrip()


__all__ = ["MAX_DEPTH", "VARIANTS", "Options", "choose_variant", "clean", "link_text", "prefixes"]
