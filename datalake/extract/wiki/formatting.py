"""Formatting of wikitext that a text must not lose: apostrophes beside bold and italics, scripts, indented lines.

Rules as MediaWiki's Help:Formatting states them. Scripts are written as those of web pages are (`extract.blocks`): an
exponent is `^`, an index `_`, and ordinals, marks and the numbers of formulas of chemistry lose nothing but their
height. What has to wait until brackets are rendered is held by characters of the private use area.
"""

from __future__ import annotations

import re

# What stands for the tags <sup>, </sup>, <sub>, </sub> until their content is rendered.
SUP, SUP_END, SUB, SUB_END = "\ue006", "\ue007", "\ue008", "\ue009"
# In a line that began with a space: its beginning, a space and a tab that are to stay.
LINE, SPACE, TAB = "\ue00c", "\ue00a", "\ue00b"
EMPTY = "\ue00d"  # between parentheses that have nothing between them in the source, such as `f()`

_RUN = re.compile("'{2,}")
_CELLS = re.compile(r"(\|\|)")


def without_quotes(text: str) -> str:
    """The text without the quotes that make it bold or italic; apostrophes that stand beside them stay.

    `L''''armonium'''` has four, of which one is an apostrophe. Three are an apostrophe and two wherever that makes
    pairs and three do not: `l'''Odyssée''`, `''Eagle'''s`. (MediaWiki mends one such run a line, and loses the others.)
    """
    if "''" not in text:
        return text
    return "\n".join(
        "".join(_cell_without_quotes(cell) for cell in _CELLS.split(line)) if "''" in line else line
        for line in text.split("\n")
    )


def _cell_without_quotes(text: str) -> str:
    runs = [(match.start(), match.end()) for match in _RUN.finditer(text)]
    bold_pairs = [False] * len(runs)  # whether what is bold from here on can end, all italics within it in pairs
    seen, twos = False, 0
    for index in range(len(runs) - 1, -1, -1):
        bold_pairs[index] = seen and twos % 2 == 0
        if runs[index][1] - runs[index][0] == 2:
            twos += 1
        else:
            seen, twos = True, 0
    out: list[str] = []
    place, bold, italic = 0, False, False
    for index, (start, end) in enumerate(runs):
        length = end - start
        literal = length - 5 if length > 5 else 0
        if length == 2:
            italic = not italic
        elif length == 3 and bold:
            bold = False
        elif length == 3:
            closes = index + 1 < len(runs) and runs[index + 1][1] - runs[index + 1][0] == 3
            within = start > 0 and not text[start - 1].isspace()
            if not within or (closes if italic else bold_pairs[index]):
                bold = True
            else:
                literal, italic = 1, not italic
        elif length == 4:
            literal, bold = 1, not bold
        else:
            bold, italic = not bold, not italic
        out += [text[place:start], "'" * literal]
        place = end
    out.append(text[place:])
    return "".join(out)


_INDENTED = re.compile(r"(?m)^ ([^\n]+)$")
_BLOCK = re.compile(
    r"\{\||\|\}|</?(?:table|caption|t[rdh]|thead|tbody|div|p|ul|ol|li|dl|d[dt]|center|blockquote|h[1-6]|hr)\b", re.I
)
_WIDE = re.compile("  +|\t+")
_LEADING = re.compile("[ \t]+")


def hold_indents(text: str) -> str:
    """Lines that begin with a space are preformatted: the space goes, all others of the line are held."""

    def hold(match: re.Match[str]) -> str:
        line = match[1]
        if not line.strip() or _BLOCK.match(line.lstrip()) or ("<" in line and _BLOCK.search(line)):
            return match[0]
        line = _LEADING.sub(_spaces, line, count=1) if line[0] in " \t" else line
        return LINE + _WIDE.sub(_spaces, line)

    return _INDENTED.sub(hold, text)


def _spaces(match: re.Match[str]) -> str:
    return match[0].replace(" ", SPACE).replace("\t", TAB)


_RELEASED = str.maketrans({LINE: " ", SPACE: " ", TAB: "\t"})
_SHOWN = str.maketrans({LINE: "", SPACE: " ", TAB: "\t"})


def release_indents(text: str) -> str:
    """The text as it stood: within brackets there are no preformatted lines."""
    return text.translate(_RELEASED) if LINE in text else text


def show_indents(text: str) -> str:
    """The text with its preformatted lines as they are shown."""
    return text.translate(_SHOWN)


_SCRIPT = re.compile(f"([{SUP}{SUB}])([^{SUP}{SUP_END}{SUB}{SUB_END}]*)[{SUP_END}{SUB_END}]")
SCRIPTS = re.compile(f"[{SUP}{SUP_END}{SUB}{SUB_END}]")
_SIGNS = "+-−–"
_LONGEST = 300  # characters; what is longer is a sentence in small type


def with_scripts(text: str) -> str:
    """The text with its scripts written out: 10^6, x_i, 2^(n-1), H2O, 1st."""
    if SUP not in text and SUB not in text:
        return text
    for _ in range(4):  # scripts of scripts, innermost first
        text, found = _SCRIPT.subn(_script, text)
        if not found:
            break
    return SCRIPTS.sub("", text)


def _script(match: re.Match[str]) -> str:
    content, whole = match[2], match.string
    start = match.start()
    while start and start > match.start() - 3 and whole[start - 1] in (SUP_END, SUB_END):
        start -= 1
    before = whole[start - 1] if start else ""
    shown = "".join(content.split())
    if not shown or len(content) > _LONGEST:
        return content
    begin = start - 1
    while begin > start - 5 and begin > 0 and whole[begin - 1].isalpha():
        begin -= 1
    lead, end = _around(shown, match[1] == SUB, before, whole[match.end() : match.end() + 1], start - 1 - begin)
    return lead + (content.strip() if lead else content) + end


def _around(shown: str, below: bool, before: str, after: str, letters: int) -> tuple[str, str]:
    """What a script is written between. `letters`: how long the word is that it follows, less one."""
    digits = sum(character in "0123456789" for character in shown)
    alphabetic = sum(character.isalnum() for character in shown) - digits
    signs = sum(character in _SIGNS for character in shown)
    length = len(shown)
    if shown[0] in "[(":
        return "", ""
    a_digit, a_letter = before in "0123456789" and before != "", before.isalnum()
    a_letter = a_letter and not a_digit
    base = before.isalnum() or before in tuple(")]}")
    if before in ("/", "⁄") or after in ("/", "⁄"):
        return (" ", "") if a_digit and not below else ("", "")
    if below:
        if not base or (digits == length and not a_digit):
            return "", ""
        return ("_", "") if digits + alphabetic == length else ("_(", ")")
    if not before or before.isspace():
        return ("^", "") if digits == length and after.isalnum() else ("", "")
    if digits + alphabetic + signs == 0:
        return "", ""
    signed = shown[0] in _SIGNS or shown[-1] in _SIGNS
    if digits and not alphabetic and not (signs and signed):
        ideograph = "\u3400" <= before <= "\u9fff"
        if before in tuple("([{/") and after.isalnum():
            return "^", ""  # an isotope's mass
        if ideograph or not (base or before in ("%", "°")):
            return "[", "]"  # of a sentence there are no powers: the mark of a note
    elif signs == length:
        return "", ""
    elif alphabetic == length:
        if length == 1:
            if (a_digit and (shown in "eoar" or shown > "\x7f")) or (a_letter and shown in "eo"):
                return "", ""
            return ("^", "") if base else ("", "")
        small = length <= 2 and (shown[0] in "eoar" or shown[0].lower() == "t")
        return ("^(", ")") if a_letter and not letters and before.islower() and not small else ("", "")
    simple = length == 1 or digits == length or (digits + 1 == length and signs == 1 and signed)
    return ("^", "") if simple else ("^(", ")")


__all__ = [
    "SUB",
    "SUB_END",
    "SUP",
    "SUP_END",
    "hold_indents",
    "release_indents",
    "show_indents",
    "with_scripts",
    "without_quotes",
]
