"""A page cut into text blocks: one compiled pass over its code points, in time linear in their number.

A *block* is the text between two boundaries, where a boundary is a tag of a block-level element, open or closed, or a
line break. The pass is the tokenizer of the HTML standard (13.2.5) as far as it matters here: comments, attributes
quoted or not, raw text (script, style), the end tags that may be left out (13.1.2.4). Of the tree only the stack of
open block-level elements is kept, which is what a block's features ask for; inline elements are looked at for links,
bold type and images, and for what they mean in the text:

- what a reader doesn't see is no piece of a block: `display: none`, `visibility: hidden`, `hidden`, `aria-hidden`, text
  for screen readers, permalinks (¶), line numbers, readings of ruby. A block counts it all the same.
- `<sup>` is `^` where it is an exponent (10^6, 2^(n-1)), brackets where it is the mark of a note ([1]), and nothing
  where it is an ordinal or a mark (1st, Mlle, ™). `<sub>` is `_`, and nothing where digits follow a letter (H2O, x_i).
- `<q>` has its quotation marks, an image of an emoji its alternative text.

Bounds: `MAX_DEPTH` open elements and `MAX_BLOCKS` elements and blocks; what a page has beyond them joins the text of
those before, so no text is lost. A page of n characters takes at most some 30 n bytes, and 25 MB for elements.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from datalake.compiled import kernel
from datalake.text.characters import ALNUM, IDEOGRAPH, LINE_END, SPACE, Classes, Points, points, tables

Ints = npt.NDArray[np.int64]

MAX_DEPTH = 300
MAX_BLOCKS = 100_000

_BLOCK_LEVEL = """
    p div li td h1 h2 h3 h4 h5 h6 dt dd pre blockquote article section form body th option center ul ol dl table tr
    tbody thead tfoot nav footer header aside main figure figcaption caption fieldset legend details summary address
    button select optgroup map menu dir html head frameset object video audio canvas noscript iframe hr br label dialog
    hgroup search template
""".split()  # noqa: SIM905 - as many literals read worse
_RAW_TEXT = "script style textarea title xmp noembed noframes".split()  # noqa: SIM905
_VOID = "img input wbr embed source track link meta area col param base".split()  # noqa: SIM905
_INLINE = ("a", "b", "strong", *_VOID, "sup", "sub", "q", "code", "rt", "rp", "rb", "ruby", "rtc", "desc", "metadata")
# A tag's number is its place here; 0 is every other tag, and the page itself as an element.
TAGS = ("", *_BLOCK_LEVEL, *_RAW_TEXT, *_INLINE)
TAG = {name: number for number, name in enumerate(TAGS)}
_LAST_BLOCK = len(_BLOCK_LEVEL)
_FIRST_RAW, _LAST_RAW = _LAST_BLOCK + 1, _LAST_BLOCK + len(_RAW_TEXT)

P, H1, LI, TD, TH, TR, TABLE, DT, DD, DL, UL, OL, DIV = (
    TAG[name] for name in ["p", "h1", "li", "td", "th", "tr", "table", "dt", "dd", "dl", "ul", "ol", "div"]
)
TBODY, THEAD, TFOOT = (TAG[name] for name in ["tbody", "thead", "tfoot"])
PRE, BODY, HTML, HEAD, OPTION, SELECT, HR, BR, NOSCRIPT, TEMPLATE = (
    TAG[name] for name in ["pre", "body", "html", "head", "option", "select", "hr", "br", "noscript", "template"]
)
A, B, STRONG, IMG, TITLE = (TAG[name] for name in ["a", "b", "strong", "img", "title"])
_LAST_VOID = TAG["base"]
SUP, SUB, Q, CODE, RT, RP, RB, RUBY, RTC, DESC, METADATA = (
    TAG[name] for name in ["sup", "sub", "q", "code", "rt", "rp", "rb", "ruby", "rtc", "desc", "metadata"]
)

# Start tags that close an open paragraph.
_CLOSERS_OF_P = """
    address article aside blockquote center details dialog dir div dl fieldset figcaption figure footer form h1 h2 h3 h4
    h5 h6 header hgroup hr main menu nav ol p pre search section summary table ul
""".split()  # noqa: SIM905
_CLOSES_P = np.array([name in _CLOSERS_OF_P for name in TAGS])

# Values of styles that hide, and how the names of their properties end: `display`, `visibility`.
_NONE, _DISPLAY_ENDS, _HIDDEN, _VISIBILITY_ENDS = (points(word) for word in ("none", "y", "hidden", "ty"))

# What class names and ids say of an element's role: any of the words of a group, anywhere in the attribute.
KEYWORDS = tuple(
    """
    comment foot head nav menu side shar|social relat|recommend content articl|artical post entry main title
    meta|info|byline|author|date caption|photo|image|img list tag adv|ads|banner|sponsor|promo search|login|form
    copyright body text crumb|path pager|paging|pagin reply quote sign|profile|user hid|none story|detail|news|blog
    rank|hot|widget|cookie bottom top left|right link
    """.split()  # noqa: SIM905
)

# Columns of a block.
(
    ELEMENT,  # the innermost open block-level element
    ENDED_BY,  # tag whose boundary ends it
    WORDS,  # ideographs, and runs of letters and digits
    CHARS,  # with white space collapsed
    LINK_CHARS,  # of these in links
    BOLD_CHARS,
    PUNCTUATION,
    DIGITS,
    UPPER,
    ENDS_SENTENCE,
    INLINE_TAGS,
    LINKS,
    IMAGES,  # since the block before
    HASH,  # of its words, lower-cased
    FIRST_PIECE,
    LAST_PIECE,  # exclusive
    BREAKS,  # `<br>` between the block before and this one
) = range(17)
# Columns of an element.
(
    E_TAG,
    E_PARENT,
    E_DEPTH,
    E_KEYWORDS,
    E_KEY,
    E_HIDDEN,
    E_NUMBERS,  # it, or one around it, is named after the line numbers of code
    E_CODE,  # the same of code; of a `<pre>`, whether it holds code
    E_START,  # the number that a list begins with, or that an item has; NO_NUMBER
) = range(9)
NO_NUMBER = -(1 << 40)
# What a tag says, as `_tag` reads it.
(
    _T_TAG,
    _T_CLOSING,
    _T_KEYWORDS,
    _T_KEY,  # hash of the class
    _T_HIDDEN,
    _T_HREF,
    _T_NAME,  # hash of the name, known or not
    _T_CLASSES,  # bits of what the words of the class mean
    _T_CLOSED,  # `<i/>`
    _T_ALT,
    _T_ALT_END,
    _T_SHADOW,  # a template whose content is shown
    _T_NUMBER,
    _T_FRAGMENT,  # an address within the page
    _T_UNSEEN,  # 1: `aria-hidden`, 2: `visibility: hidden`
) = range(15)
# State of the text under way: within a word, behind white space, the last visible character, in a link, in bold type,
# the letters of the word so far.
_IN_WORD, _BEHIND_SPACE, _LAST, _LINKED, _BOLD, _LETTERS = range(6)

_K = np.int64(-0x61C8864680B583EB)  # 2^64 / golden ratio, as a signed number


class Page(NamedTuple):
    """A page's blocks and what they stand in.

    - `codes`: its code points. `pieces`, shape (pieces, 2): stretches of them, begin and end, that make up blocks; an
      empty one stands for a space, one that begins at -c for the character c.
    - `blocks`, shape (blocks, 17), and `elements`, shape (elements, 9): columns as named above; the first element is
      the page, and an element's parent comes before it.
    - `title`: begin and end of the title's text, -1 where there is none.
    """

    codes: Points
    pieces: Ints
    blocks: Ints
    elements: Ints
    title: tuple[int, int]


def cut(html: str) -> Page:
    """The blocks of a page. Never raises on what a page may hold."""
    codes, known = points(html), tables()
    pieces, blocks, elements, begin, end = _cut(codes, known.classes, known.lower)
    return Page(codes, pieces, blocks, elements, (begin, end))


def _name_hash(name: str) -> int:
    value = 0
    for character in name:
        value = (value * 31 + ord(character)) & 0xFFFF
    return value


def _by_hash() -> npt.NDArray[np.int16]:
    """Tag by the 16-bit hash of its name; no two known names share one."""
    table = np.zeros(1 << 16, np.int16)
    for number, name in enumerate(TAGS[1:], 1):
        assert not table[_name_hash(name)], name
        table[_name_hash(name)] = number
    return table


def _spelled(names: list[str]) -> npt.NDArray[np.uint32]:
    """Names as rows of code points."""
    out = np.zeros((len(names), max(map(len, names))), np.uint32)
    for row, name in enumerate(names):
        out[row, : len(name)] = [ord(character) for character in name]
    return out


_TAG_OF = _by_hash()
_TAG_NAMES = _spelled(list(TAGS))
_TAG_LENGTHS = np.array([len(name) for name in TAGS])

# Keywords sorted by their first two letters; `_WORDS_FROM[pair]` is where those of a pair begin.
_WORD_LIST = sorted((word, group) for group, words in enumerate(KEYWORDS) for word in words.split("|"))
_WORD_NAMES = _spelled([word for word, _ in _WORD_LIST])
_WORD_LENGTHS = np.array([len(word) for word, _ in _WORD_LIST])
_WORD_GROUPS = np.array([group for _, group in _WORD_LIST])
_WORD_PAIRS = [(ord(word[0]) - 97) * 26 + ord(word[1]) - 97 for word, _ in _WORD_LIST]
_WORDS_FROM = np.searchsorted(_WORD_PAIRS, np.arange(26 * 26 + 1))

# Character references (13.5) that are no letters, by the hash of their names: what counts is the kind of character.
_REFERENCES = np.zeros(1 << 16, np.uint32)
for _names, _characters in (
    ("nbsp ensp emsp thinsp", "    "),
    ("quot amp lt gt apos laquo raquo ldquo rdquo lsquo rsquo sbquo bdquo", "\"&<>'«»“”‘’‚„"),
    ("mdash ndash hellip copy bull middot reg trade times rarr larr", "—–…©•·®™×→←"),
):
    for _name, _character in zip(_names.split(), _characters, strict=True):
        _REFERENCES[_name_hash(_name)] = ord(_character)
# What single words of a class mean, whole or up to their first hyphen or colon.
_C_UNSEEN, _C_NUMBERS, _C_EMOJI, _C_CODE = 1, 2, 4, 8
_CLASS_WORDS = {
    _C_UNSEEN: "sr-only visually-hidden visuallyhidden screen-reader-text screenreader-only mw-editsection "
    "mw-cite-backlink mwe-math-mathml-a11y",
    _C_NUMBERS: "lineno linenos line-number line-numbers linenumber linenumbers line_number line_numbers linenr gutter "
    "rouge-gutter ln lnt lntd lnum hljs-ln-numbers hljs-ln-n blob-num linenodiv line-numbers-rows line-num "
    "line-numbers-wrapper crayon-nums crayon-num ln-num code-line-number react-syntax-highlighter-line-number",
    _C_EMOJI: "emoji emojione twemoji joypixels wp-smiley smiley smilies smilie emoticon",
    _C_CODE: "language- lang- highlight- highlight highlighter-rouge brush: brush code codehilite sourcecode "
    "source-code prettyprint prettyprint- hljs programlisting literal-block doctest_block src src- console terminal "
    "shell crayon-pre chroma enlighterjsraw syntaxhighlighter rouge-code wp-block-code codeblock code-block de1 "
    "geshi pygments",
}


def _class_hash(name: str) -> int:
    value = 0
    for character in name:
        value = (value * 31 + ord(character)) & 0xFFFFFFFF
    return value


_CLASS_HASHES = np.array(sorted(_class_hash(word) for words in _CLASS_WORDS.values() for word in words.split()))
_CLASS_BITS = np.zeros(len(_CLASS_HASHES), np.int64)
for _bit, _words in _CLASS_WORDS.items():
    for _word in _words.split():
        _CLASS_BITS[np.searchsorted(_CLASS_HASHES, _class_hash(_word))] |= _bit
_PERMALINKS = np.array(sorted(ord(character) for character in "¶§#↑↩⤴↵^🔗⚓∞\ufe0e\ufe0f"), np.uint32)
_QUOTES = np.array(sorted(ord(character) for character in "\"'«»“”„‟‘’‚‹›「」『』"), np.uint32)
_PUNCTUATION = np.array(sorted(ord(character) for character in ".,;:!?。，、；：！？"), np.uint32)
_ENDINGS = np.array(sorted(ord(character) for character in ".!?。！？…"), np.uint32)


@kernel(inline="always")
def _lower(code: Any) -> Any:
    """An ASCII letter in lower case, everything else as it is, as a signed number."""
    return np.int64(code) + 32 if 65 <= code <= 90 else np.int64(code)


@kernel(inline="always")
def _is_space(code: np.uint32) -> bool:
    """White space of the HTML standard."""
    return code == 32 or code == 10 or code == 9 or code == 13 or code == 12


@kernel
def _begins_markup(codes: Points, at: int) -> bool:
    """Whether the `<` here begins a tag, a comment or a declaration."""
    if at + 1 >= len(codes):
        return False
    after = _lower(codes[at + 1])
    return after in (33, 47, 63) or 97 <= after <= 122  # ! / ?


@kernel
def _grown(array: Ints) -> Ints:
    """The array with twice as many rows."""
    out = np.zeros((2 * len(array), array.shape[1]), np.int64)
    out[: len(array)] = array
    return out


@kernel
def _hashed(value: np.int64, code: np.int64) -> np.int64:
    value = (value ^ code) * _K
    return value ^ (value >> np.int64(29))


@kernel
def _is_word(codes: Points, begin: int, end: int, tag: int) -> bool:
    """Whether these characters spell a tag's name."""
    if end - begin != _TAG_LENGTHS[tag]:
        return False
    for k in range(begin, end):  # noqa: SIM110 - a loop is what is compiled
        if _lower(codes[k]) != _TAG_NAMES[tag, k - begin]:
            return False
    return True


@kernel
def _tag_number(codes: Points, begin: int, end: int) -> int:
    """The number of the tag with this name, 0 for one that isn't known."""
    if end - begin > _TAG_NAMES.shape[1]:
        return 0
    value = 0
    for k in range(begin, end):
        value = (value * 31 + _lower(codes[k])) & 0xFFFF
    tag = int(_TAG_OF[value])
    return tag if _is_word(codes, begin, end, tag) else 0


@kernel
def _keywords(codes: Points, begin: int, end: int) -> np.int64:
    """The groups of KEYWORDS that have a word in an attribute's value, a bit each."""
    found = np.int64(0)
    for at in range(begin, end - 1):
        first, second = _lower(codes[at]) - 97, _lower(codes[at + 1]) - 97
        if not (0 <= first < 26 and 0 <= second < 26):
            continue
        pair = first * 26 + second
        for word in range(_WORDS_FROM[pair], _WORDS_FROM[pair + 1]):
            length = _WORD_LENGTHS[word]
            k = 2
            while k < length and at + k < end and _lower(codes[at + k]) == _WORD_NAMES[word, k]:
                k += 1
            if k == length:
                found |= np.int64(1) << _WORD_GROUPS[word]
    return found


@kernel
def _class_bits(codes: Points, begin: int, end: int) -> np.int64:
    """What the words of a class mean, a bit each."""
    found = np.int64(0)
    value, headed = np.int64(0), False
    for at in range(begin, end + 1):
        code = _lower(codes[at]) if at < end else np.int64(32)
        if not (code == 32 or 9 <= code <= 13):
            value = (value * 31 + code) & 0xFFFFFFFF
            if headed or (code != 45 and code != 58):
                continue
            headed = True
        elif at == begin:
            continue
        k = np.searchsorted(_CLASS_HASHES, value)
        if k < len(_CLASS_HASHES) and _CLASS_HASHES[k] == value:
            found |= _CLASS_BITS[k]
        if code == 32 or 9 <= code <= 13:
            value, headed = np.int64(0), False
    return found


@kernel
def _is_invisible(codes: Points, begin: int, end: int) -> bool:
    """Whether a style has `visibility: hidden`."""
    return _sets(codes, begin, end, _HIDDEN, _VISIBILITY_ENDS)


@kernel
def _whole_number(codes: Points, begin: int, end: int) -> np.int64:
    """The number that an attribute says, NO_NUMBER if it says none."""
    value, negative = np.int64(0), begin < end and codes[begin] == 45
    if negative:
        begin += 1
    if begin == end or end - begin > 9:
        return np.int64(NO_NUMBER)
    for at in range(begin, end):
        if not 48 <= codes[at] <= 57:
            return np.int64(NO_NUMBER)
        value = value * 10 + np.int64(codes[at]) - 48
    return -value if negative else value


@kernel
def _hides(codes: Points, begin: int, end: int) -> bool:
    """Whether a style has `display: none`."""
    return _sets(codes, begin, end, _NONE, _DISPLAY_ENDS)


@kernel
def _sets(codes: Points, begin: int, end: int, value: Points, name: Points) -> bool:
    """Whether a style gives a value, in small letters, to a property whose name ends so."""
    for at in range(begin, end - len(value) + 1):
        if not _spells(codes, at, value):
            continue
        k = at - 1
        while k > begin and _is_space(codes[k]):
            k -= 1
        if codes[k] != 58:
            continue
        k -= 1
        while k > begin and _is_space(codes[k]):
            k -= 1
        if k > begin and _spells(codes, k - len(name) + 1, name):
            return True
    return False


@kernel
def _spells(codes: Points, at: int, word: Points) -> bool:
    for k in range(len(word)):  # noqa: SIM110 - compiled
        if _lower(codes[at + k]) != word[k]:
            return False
    return True


@kernel
def _after_raw_text(codes: Points, at: int, tag: int) -> int:
    """Where the end tag of a raw text element begins; the page's end if there is none."""
    length = _TAG_LENGTHS[tag]
    while at < len(codes):
        if codes[at] == 60 and at + 2 + length <= len(codes) and codes[at + 1] == 47:
            end = at + 2 + length
            if _is_word(codes, at + 2, end, tag) and (
                end == len(codes) or _is_space(codes[end]) or codes[end] == 62 or codes[end] == 47
            ):
                return at
        at += 1
    return at


@kernel
def _after_comment(codes: Points, at: int) -> int:
    """Where a comment ends that begins here (`<!--`)."""
    at += 4
    if at < len(codes) and codes[at] == 62:  # <!-->
        return at + 1
    dashes = 2  # <!---> ends, too
    while at < len(codes):
        if codes[at] == 62 and dashes >= 2:
            return at + 1
        dashes = dashes + 1 if codes[at] == 45 else 0
        at += 1
    return at


@kernel
def _after(codes: Points, at: int, wanted: int) -> int:
    """The place behind the next character of this kind; the page's end if there is none."""
    while at < len(codes) and codes[at] != wanted:
        at += 1
    return min(at + 1, len(codes))


@kernel
def _tag(codes: Points, at: int, out: Ints) -> int:
    """Reads the tag that begins here into `out`; returns where it ends."""
    size = len(codes)
    at += 1
    out[:] = 0
    if codes[at] == 47:
        out[_T_CLOSING] = 1
        at += 1
    begin = at
    while at < size and not _is_space(codes[at]) and codes[at] != 62 and codes[at] != 47:
        at += 1
    tag = _tag_number(codes, begin, at)
    out[_T_TAG], out[_T_NUMBER] = tag, NO_NUMBER
    for k in range(begin, at):
        out[_T_NAME] = _hashed(out[_T_NAME], _lower(codes[k]))
    key = np.int64(tag)
    while at < size and codes[at] != 62:
        if _is_space(codes[at]) or codes[at] == 47:
            out[_T_CLOSED] = codes[at] == 47
            at += 1
            continue
        out[_T_CLOSED] = 0
        begin = at
        at += 1
        while at < size and not _is_space(codes[at]) and codes[at] != 61 and codes[at] != 62 and codes[at] != 47:
            at += 1
        end = at
        while at < size and _is_space(codes[at]):
            at += 1
        first = last = at
        if at < size and codes[at] == 61:
            at += 1
            while at < size and _is_space(codes[at]):
                at += 1
            first = at
            if at < size and (codes[at] == 34 or codes[at] == 39):
                first = at + 1
                at = _after(codes, first, codes[at])
                last = at - 1
            else:
                while at < size and not _is_space(codes[at]) and codes[at] != 62:
                    at += 1
                last = at
        letter = _lower(codes[begin])
        second = _lower(codes[begin + 1]) if end - begin > 1 else np.int64(0)
        if out[_T_CLOSING]:
            continue
        size_of_name, block = end - begin, 0 < tag <= _LAST_BLOCK
        if size_of_name == 5 and letter == 99 and second == 108:  # class
            out[_T_CLASSES] |= _class_bits(codes, first, last)
            if block:
                out[_T_KEYWORDS] |= _keywords(codes, first, last)
                for k in range(first, last):
                    key = _hashed(key, np.int64(codes[k]))
        elif size_of_name == 5 and letter == 115 and second == 116 and _lower(codes[begin + 2]) == 121:  # style
            out[_T_HIDDEN] |= _hides(codes, first, last)
            out[_T_UNSEEN] |= 2 * _is_invisible(codes, first, last)
        elif size_of_name == 6 and letter == 104 and second == 105:  # hidden, but not until it is found
            out[_T_HIDDEN] |= first == last or _lower(codes[first]) != 117
        elif size_of_name == 11 and letter == 97 and second == 114 and _lower(codes[begin + 5]) == 104:  # aria-hidden
            out[_T_UNSEEN] |= first < last and _lower(codes[first]) == 116
        elif size_of_name == 2 and letter == 105 and second == 100:  # id
            if block:
                out[_T_KEYWORDS] |= _keywords(codes, first, last)
        elif tag == A and size_of_name == 4 and letter == 104 and second == 114:  # href
            out[_T_HREF] = 1
            for k in range(first, last):
                if codes[k] == 35:
                    out[_T_FRAGMENT] = 1
        elif tag == IMG and size_of_name == 3 and letter == 97 and second == 108:  # alt
            out[_T_ALT], out[_T_ALT_END] = first, last
        elif tag == TEMPLATE and size_of_name == 14 and letter == 115 and second == 104:  # shadowrootmode
            out[_T_SHADOW] = 1
        elif tag in (OL, LI) and size_of_name == 5 and (letter == 115 or letter == 118):  # start, value
            out[_T_NUMBER] = _whole_number(codes, first, last)
    out[_T_KEY] = key
    return min(at + 1, size)


@kernel
def _reference(codes: Points, at: int) -> tuple[np.uint32, int]:
    """The kind of character that the `&` here stands for (`e` for any letter), and where its reference ends."""
    size, k = len(codes), at + 1
    if k < size and codes[k] == 35:  # #
        k += 1
        base = 10
        if k < size and _lower(codes[k]) == 120:
            base = 16
            k += 1
        begin, value = k, 0
        while k < size and k - begin < 8:
            digit = _lower(codes[k])
            if 48 <= digit <= 57:
                value = value * base + digit - 48
            elif base == 16 and 97 <= digit <= 102:
                value = value * base + digit - 87
            else:
                break
            k += 1
        if k == begin:
            return codes[at], at + 1
        code = np.uint32(value) if 0 < value < 0x110000 else np.uint32(0xFFFD)
        return code, k + 1 if k < size and codes[k] == 59 else k
    name = 0
    while k < size and k - at < 10 and 97 <= _lower(codes[k]) <= 122:
        name = (name * 31 + _lower(codes[k])) & 0xFFFF
        k += 1
    if k == at + 1 or k == size or codes[k] != 59:
        return codes[at], at + 1
    code = _REFERENCES[name]
    return code if code else np.uint32(101), k + 1


@kernel
def _text(codes: Points, at: int, classes: Classes, lower: Points, block: Ints, state: Ints) -> int:
    """Counts the text that begins here into the block under way; returns where markup begins again."""
    size, begin = len(codes), at
    linked, bold = state[_LINKED], state[_BOLD]
    while at < size:
        code = codes[at]
        if code == 60 and at > begin and _begins_markup(codes, at):
            break
        if code == 38:
            code, at = _reference(codes, at)
        else:
            at += 1
        kind = classes[code] if code < 0x110000 else np.uint16(0)
        if kind & SPACE or code < 32:
            state[_BEHIND_SPACE], state[_IN_WORD] = 1, 0
            continue
        if state[_BEHIND_SPACE]:
            if block[CHARS]:
                block[CHARS] += 1
                block[LINK_CHARS] += linked
                block[BOLD_CHARS] += bold
            state[_BEHIND_SPACE] = 0
        block[CHARS] += 1
        block[LINK_CHARS] += linked
        block[BOLD_CHARS] += bold
        state[_LAST] = code
        state[_LETTERS] = state[_LETTERS] + 1 if state[_IN_WORD] and not 48 <= code <= 57 else 0
        if kind & IDEOGRAPH:
            block[WORDS] += 1
            block[HASH] = _hashed(block[HASH], np.int64(code))
            state[_IN_WORD] = 0
        elif kind & ALNUM:
            if not state[_IN_WORD]:
                block[WORDS] += 1
                block[HASH] = _hashed(block[HASH], np.int64(-1))
                state[_IN_WORD] = 1
            low = lower[code]
            block[HASH] = _hashed(block[HASH], np.int64(low))
            if 48 <= code <= 57:
                block[DIGITS] += 1
            elif low != code:
                block[UPPER] += 1
        else:
            state[_IN_WORD] = 0
            for mark in _PUNCTUATION:
                if code == mark:
                    block[PUNCTUATION] += 1
                    break
    return at


@kernel
def hash_of_words(codes: Points, classes: Classes, lower: Points) -> tuple[int, int]:
    """How many words plain text has, and their HASH were it a block."""
    block, state, at = np.zeros(17, np.int64), np.zeros(6, np.int64), 0
    while at < len(codes):
        at = _text(codes, at, classes, lower, block, state)
    return block[WORDS], block[HASH]


@kernel
def _ends_sentence(code: int, classes: Classes) -> bool:
    for mark in _ENDINGS:
        if code == mark:
            return True
    return classes[code] & LINE_END != 0 and code != 39


@kernel
def _closed(elements: Ints, stack: Ints, top: int, tag: int) -> int:
    """The top of the stack behind an end tag; unchanged where the tag closes nothing.

    Only tags of tables and of the page itself reach over the cell or table they stand in.
    """
    bound = tag not in (TABLE, BODY, HTML, TD, TH, TR, TBODY, THEAD, TFOOT)
    for k in range(top, 0, -1):
        other = elements[stack[k], E_TAG]
        if other == tag:
            return k - 1
        if (bound and other in (TD, TH, TABLE)) or (tag in (TBODY, THEAD, TFOOT) and other == TABLE):
            break
    return top


@kernel
def _implied(elements: Ints, stack: Ints, top: int, tag: int) -> int:
    """The top of the stack behind the end tags that a start tag implies."""
    if top and _CLOSES_P[tag] and elements[stack[top], E_TAG] == P:
        top -= 1
    if tag == OPTION:
        return top - 1 if top and elements[stack[top], E_TAG] == OPTION else top
    if tag not in (LI, TD, TH, TR, DT, DD, TBODY, THEAD, TFOOT):
        return top
    for k in range(top, 0, -1):
        other = elements[stack[k], E_TAG]
        if tag == LI:
            same, bars = other == LI, other in (UL, OL, DIV, TABLE, TD)
        elif tag == TR:
            same, bars = other == TR, other == TABLE
        elif tag in (TBODY, THEAD, TFOOT):
            same, bars = other in (TBODY, THEAD, TFOOT), other == TABLE
        elif tag in (DT, DD):
            same, bars = other in (DT, DD), other == DL
        else:
            same, bars = other in (TD, TH), other in (TR, TABLE)
        if same:
            return k - 1
        if bars:
            break
    return top


@kernel
def _holds(marks: Points, code: np.uint32) -> bool:
    k = np.searchsorted(marks, code)
    return bool(k < len(marks) and marks[k] == code)


@kernel
def _is_permalink(codes: Points, at: int) -> bool:
    """Whether the link whose text begins here has nothing but a mark: ¶, #, an arrow back from a note."""
    marks, end = 0, min(len(codes), at + 80)
    while at < end and codes[at] != 60:
        code, at = _reference(codes, at) if codes[at] == 38 else (codes[at], at + 1)
        if _is_space(code) or code == 0xA0 or code == 0x200B:
            continue
        if not (_holds(_PERMALINKS, code) or 0xE000 <= code < 0xF900):
            return False
        marks += 1
    return marks > 0 and at + 2 < end and codes[at + 1] == 47 and _lower(codes[at + 2]) == 97  # </a


@kernel
def _is_line_number(codes: Points, at: int) -> bool:
    """Whether the inline element whose content begins here has nothing but a number."""
    digits, end = 0, min(len(codes), at + 200)
    while at < end and codes[at] == 60 and at + 1 < end and codes[at + 1] != 47:  # a link around it
        at = _after(codes, at, 62)
    while at < end and codes[at] != 60:
        code, at = _reference(codes, at) if codes[at] == 38 else (codes[at], at + 1)
        if 48 <= code <= 57:
            digits += 1
        elif not (_is_space(code) or code == 0xA0 or code == 46 or code == 58 or code == 124):
            return False
    return digits > 0 and at < end


@kernel
def _begins_with_quote(codes: Points, at: int) -> bool:
    while at < len(codes) and _is_space(codes[at]):
        at += 1
    if at == len(codes):
        return False
    code = _reference(codes, at)[0] if codes[at] == 38 else codes[at]
    return _holds(_QUOTES, code)


@kernel
def _script(
    codes: Points, at: int, below: bool, linked: bool, before: int, letters: int, classes: Classes
) -> tuple[int, int]:
    """The characters before and after a script whose text begins here, 0 for none.

    `before` is the character that it is set to, 0 if there is none, and `letters` how long the word is that this one
    ends, less one; `linked` says whether the script is in a link within the page.
    """
    shown, digits, alphabetic, signs = 0, 0, 0, 0
    first, last = np.uint32(0), np.uint32(0)
    end = min(len(codes), at + 300)
    while at < end:
        code = codes[at]
        if code == 60 and _begins_markup(codes, at):
            if at + 3 < end and codes[at + 1] == 47 and _lower(codes[at + 2]) == 115 and _lower(codes[at + 3]) == 117:
                break
            opens = at + 2 < end and _lower(codes[at + 1]) == 97 and _is_space(codes[at + 2])
            while at < end and codes[at] != 62:
                linked |= opens and codes[at] == 35
                at += 1
            at += 1
            continue
        if code == 38:
            named = at + 2 < end and codes[at + 1] == 109 and codes[at + 2] == 105  # &minus;
            code, at = _reference(codes, at)
            if named and code == 101:
                code = np.uint32(0x2212)
        else:
            at += 1
        if _is_space(code) or code == 0xA0:
            continue
        first = code if shown == 0 else first
        last = code
        shown += 1
        if 48 <= code <= 57:
            digits += 1
        elif code < 0x110000 and classes[code] & ALNUM:
            alphabetic += 1
        elif code in (43, 45, 0x2212, 0x2013):  # + - and its like
            signs += 1
    if shown == 0 or at >= end or first == 91 or first == 40:  # nothing, no end tag; its own brackets
        return 0, 0
    after = codes[min(len(codes) - 1, _after(codes, at, 62))]
    plain = digits + alphabetic == shown
    kind = classes[before] if 0 < before < 0x110000 else np.uint16(0)
    a_digit, a_letter = 48 <= before <= 57, kind & ALNUM != 0 and not 48 <= before <= 57
    if linked:
        return (91, 93) if plain and shown <= 4 and not below else (0, 0)
    if before == 47 or before == 0x2044 or after == 47 or after == 0x2044:  # 1/2
        return (32, 0) if a_digit and not below else (0, 0)
    if below:
        if before == 0 or not (kind & ALNUM or before in (41, 93, 125)) or (digits == shown and not a_digit):
            return 0, 0
        return (95, 0) if plain else (9540, 41)
    if before == 0:
        return (94, 0) if digits == shown and after < 0x110000 and classes[after] & ALNUM else (0, 0)
    if digits + alphabetic + signs == 0:  # asterisks, daggers, trade marks
        return 0, 0
    if digits and alphabetic == 0 and not (signs and (first in (43, 45, 0x2212) or last in (43, 45, 0x2212))):
        # A word, a sentence or an ideograph has no powers: this is the mark of a note.
        if kind & IDEOGRAPH or (a_letter and letters >= 3) or not (kind & ALNUM or before in (41, 93, 125, 37, 176)):
            return 91, 93
    elif signs == shown:
        return 0, 0  # Na+
    elif alphabetic == shown:
        small = shown <= 2 and (first in (101, 111, 97, 114) or _lower(first) == 116)  # e er re o os a t
        if shown == 1:
            # 2e, 1a, 1η; no, Me
            if (a_digit and (first in (101, 111, 97, 114) or first > 127)) or (a_letter and first in (101, 111)):
                return 0, 0
            return (94, 0) if kind & ALNUM or before in (41, 93, 125) else (0, 0)
        return (9440, 41) if a_letter and letters == 0 and 97 <= before <= 122 and not small else (0, 0)
    simple = (
        shown == 1
        or digits == shown
        or (digits + 1 == shown and signs == 1 and (first in (43, 45, 0x2212) or last in (43, 45, 0x2212)))
    )
    return (94, 0) if simple else (9440, 41)


@kernel
def _with(pieces: Ints, count: int, begin: int, end: int) -> Ints:
    """The pieces with one more in place `count`."""
    if count == len(pieces):
        pieces = _grown(pieces)
    pieces[count, 0], pieces[count, 1] = begin, end
    return pieces


@kernel
def _cut(codes: Points, classes: Classes, lower: Points) -> tuple[Ints, Ints, Ints, int, int]:
    """Pieces, blocks, elements, and the title's begin and end."""
    size = len(codes)
    elements, element_count = np.zeros((256, 9), np.int64), 1
    elements[0, E_PARENT], elements[0, E_START] = -1, NO_NUMBER
    blocks, block_count = np.zeros((256, 17), np.int64), 0
    pieces, piece_count = np.zeros((512, 2), np.int64), 0
    stack, top = np.zeros(MAX_DEPTH + 1, np.int64), 0  # stack[0]: the page
    block, state, found = np.zeros(17, np.int64), np.zeros(6, np.int64), np.zeros(15, np.int64)
    state[_BEHIND_SPACE] = 1
    title_begin, title_end = -1, -1
    unseen, unseen_name, unseen_tag, unseen_top = 0, np.int64(0), 0, 0  # open elements of the name that hides
    in_page = False  # in a link within the page
    script_end = 0  # what is behind the script under way
    quotes, quoted = 0, np.int64(0)  # open quotations, and which of them have marks, a bit each
    at = 0
    while True:
        if at < size and (codes[at] != 60 or not _begins_markup(codes, at)):
            begin = at
            at = _text(codes, at, classes, lower, block, state)
            if not unseen:
                pieces = _with(pieces, piece_count, begin, at)
                piece_count += 1
            continue
        tag, closing = 0, False
        if at < size:
            after = codes[at + 1]
            if after == 33 and at + 3 < size and codes[at + 2] == 45 and codes[at + 3] == 45:
                at = _after_comment(codes, at)
                continue
            if (
                after == 33
                or after == 63
                or (after == 47 and not (at + 2 < size and 97 <= _lower(codes[at + 2]) <= 122))
            ):
                at = _after(codes, at + 2, 62)
                continue
            at = _tag(codes, at, found)
            tag, closing = found[_T_TAG], found[_T_CLOSING] != 0
            if not closing and _FIRST_RAW <= tag <= _LAST_RAW:
                end = _after_raw_text(codes, at, tag)
                if tag == TITLE and title_begin < 0:
                    title_begin, title_end = at, end
                at = _after(codes, end, 62)
                continue
            if tag == 0 or tag > _LAST_BLOCK:
                block[INLINE_TAGS] += 1
                if tag == A:
                    if closing:
                        state[_LINKED] = 0
                    elif found[_T_HREF]:
                        state[_LINKED] = 1
                        block[LINKS] += 1
                elif tag in (B, STRONG):
                    state[_BOLD] = 0 if closing else 1
                elif tag == IMG:
                    block[IMAGES] += 1
                if tag == A:
                    in_page = not closing and found[_T_FRAGMENT] != 0
                if unseen:
                    same = found[_T_NAME] == unseen_name and not found[_T_CLOSED]
                    ruby = unseen_tag in (RT, RP, RTC)
                    if ruby and ((not closing and tag in (RT, RP, RTC, RB)) or (closing and tag == RUBY)):
                        unseen = 0  # end tags that may be left out
                    elif same:
                        unseen += -1 if closing else 1
                if unseen:
                    continue
                if not closing and STRONG < tag <= _LAST_VOID:
                    if tag == IMG and found[_T_CLASSES] & _C_EMOJI and found[_T_ALT_END] - found[_T_ALT] <= 32:
                        pieces = _with(pieces, piece_count, found[_T_ALT], found[_T_ALT_END])
                        piece_count += found[_T_ALT_END] > found[_T_ALT]
                elif not closing:
                    if (
                        found[_T_HIDDEN]
                        or found[_T_UNSEEN]
                        or found[_T_CLASSES] & _C_UNSEEN
                        or tag in (RT, RP, RTC, DESC, METADATA)
                        or (found[_T_CLASSES] & _C_NUMBERS and _is_line_number(codes, at))
                        or (tag == A and in_page and _is_permalink(codes, at))
                    ) and not found[_T_CLOSED]:
                        unseen, unseen_name, unseen_tag, unseen_top = 1, found[_T_NAME], tag, top
                    elif tag in (SUP, SUB):
                        near = block[CHARS] > 0 and not state[_BEHIND_SPACE]
                        before = state[_LAST] if near else 0
                        how, script_end = _script(codes, at, tag == SUB, in_page, before, state[_LETTERS], classes)
                        if how:
                            mark = how // 100 if how > 255 else how
                            pieces = _with(pieces, piece_count, -mark, -mark)
                            piece_count += 1
                        if how > 255:
                            pieces = _with(pieces, piece_count, -40, -40)
                            piece_count += 1
                    elif tag == Q and quotes < 60:
                        quotes += 1
                        quoted &= ~(np.int64(1) << quotes)
                        if not _begins_with_quote(codes, at):
                            quoted |= np.int64(1) << quotes
                            mark = 0x201C if quotes & 1 else 0x2018
                            pieces = _with(pieces, piece_count, -mark, -mark)
                            piece_count += 1
                    elif tag == CODE:
                        for k in range(top, 0, -1):
                            if elements[stack[k], E_TAG] == PRE:
                                elements[stack[k], E_CODE] = 1
                                break
                elif tag in (SUP, SUB):
                    if script_end:
                        pieces = _with(pieces, piece_count, -script_end, -script_end)
                        piece_count += 1
                    script_end = 0
                elif tag == Q and quotes:
                    if quoted >> quotes & 1:
                        mark = 0x201D if quotes & 1 else 0x2019
                        pieces = _with(pieces, piece_count, -mark, -mark)
                        piece_count += 1
                    quotes -= 1
                continue
        # A boundary: a tag of a block-level element, or the page's end. One block too many goes on to the page's end.
        if tag == 0 or block_count < MAX_BLOCKS - 1:
            if block[CHARS]:
                if block_count == len(blocks):
                    blocks = _grown(blocks)
                block[ELEMENT], block[ENDED_BY], block[LAST_PIECE] = stack[top], tag, piece_count
                block[ENDS_SENTENCE] = _ends_sentence(state[_LAST], classes)
                blocks[block_count] = block
                block_count += 1
            else:
                piece_count = block[FIRST_PIECE]  # white space
            images, breaks = (0, 0) if block[CHARS] else (block[IMAGES], block[BREAKS])
            block[:] = 0
            block[IMAGES], block[BREAKS], block[FIRST_PIECE] = images, breaks + (tag == BR), piece_count
        else:
            pieces = _with(pieces, piece_count, 0, 0)
            piece_count += 1
        script_end = 0
        state[_IN_WORD], state[_BEHIND_SPACE] = 0, 1
        if tag == 0:
            break
        if closing:
            left = _closed(elements, stack, top, tag)
            if left < top:
                top = left
                if unseen and top < unseen_top:
                    unseen = 0
                state[_LINKED], state[_BOLD] = 0, 0
                in_page = False
        elif tag != BR and tag != HR:
            top = _implied(elements, stack, top, tag)
            if unseen and top < unseen_top:
                unseen = 0
            if top < MAX_DEPTH and element_count < MAX_BLOCKS:
                if element_count == len(elements):
                    elements = _grown(elements)
                parent = stack[top]
                one = elements[element_count]
                one[E_TAG], one[E_PARENT], one[E_DEPTH] = tag, parent, elements[parent, E_DEPTH] + 1
                one[E_KEYWORDS], one[E_KEY] = found[_T_KEYWORDS], found[_T_KEY]
                one[E_HIDDEN] = (
                    elements[parent, E_HIDDEN] != 0
                    or ((found[_T_HIDDEN] != 0 or found[_T_UNSEEN] & 2 != 0) and tag != BODY and tag != HTML)
                    or tag in (NOSCRIPT, SELECT, OPTION, HEAD)
                    or (tag == TEMPLATE and not found[_T_SHADOW])
                )
                one[E_NUMBERS] = elements[parent, E_NUMBERS] or (found[_T_CLASSES] & _C_NUMBERS) != 0
                one[E_CODE], one[E_START] = (found[_T_CLASSES] & _C_CODE) != 0, found[_T_NUMBER]
                if tag == PRE:
                    around = parent
                    for _ in range(3):
                        if around > 0:
                            one[E_CODE] |= elements[around, E_CODE]
                            around = elements[around, E_PARENT]
                top += 1
                stack[top] = element_count
                element_count += 1
    return pieces[:piece_count], blocks[:block_count], elements[:element_count], title_begin, title_end
