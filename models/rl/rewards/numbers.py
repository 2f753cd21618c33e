"""Numbers as answers write them: found, read exactly, compared.

Read are signs, thousands' commas, decimals, exponents, fractions, mixed numbers, percent, currencies, LaTeX's ways of
writing these, full-width forms, and `million` and its like. Values are exact (`Fraction`); nothing is evaluated that
could be large.
"""

from __future__ import annotations

import ast
import re
import unicodedata
from dataclasses import dataclass
from fractions import Fraction

_LONGEST = 400  # digits, and the largest exponent: what is longer is no answer
_BITS = 4096  # of a power that is worked out

_PLAIN = str.maketrans(
    {
        **dict.fromkeys("−‐‑‒–—﹣－", "-"),
        **dict.fromkeys("⁄∕／", "/"),
        **dict.fromkeys("\u00a0\u2009\u202f\u3000", " "),
        **dict.fromkeys("$€£¥₹￥＄°", ""),
        **dict(zip("０１２３４５６７８９，．％＋＝：", "0123456789,.%+=:", strict=True)),
    }
)
_LATEX = (
    (re.compile(r"\\[dt]?frac\s?(?:\{([^{}]{1,400})\}\s?\{([^{}]{1,400})\}|(\d)(\d))"), r" \1\3/\2\4"),
    (re.compile(r"\{,\}"), ","),
    (re.compile(r"\\(?:text|mathrm|mathbf|textbf)\s?\{([^{}]{0,400})\}"), r" \1"),
    (re.compile(r"(?:\\times|×|(?<=\d) ?[xX]) ?10 ?\^ ?\{? ?([-+]?\d{1,3}) ?\}?"), r"e\1"),
    (re.compile(r"\\(?:left|right|displaystyle|circ|!|,|;|:|\$| )"), ""),
    (re.compile(r"\\%"), "%"),
)
_EMPHASIS = re.compile(r"(?<![\d)]) ?\*{1,3}(?=[^\s*])|\*{1,3}(?! ?[\d(*])")  # not the sign between two factors
_NUMBER = re.compile(
    r"((?<![\w)\]}%])[-+] ?)?((?:\d{1,3}(?:,\d{3})+(?!\d)|\d+)(?:\.\d+)?|\.\d+)(?: ?[eE]([-+]?\d{1,40})(?!\w))?"
)
_OVER = re.compile(r" ?/ ?(\d{1,400})(?![\d.,]*/)")
_SCALE = re.compile(r" ?(%|percent\b|thousand\b|million\b|billion\b|trillion\b|万|亿)", re.IGNORECASE)
_SCALES = {
    "%": Fraction(1, 100),
    "percent": Fraction(1, 100),
    "thousand": Fraction(10**3),
    "million": Fraction(10**6),
    "billion": Fraction(10**9),
    "trillion": Fraction(10**12),
    "万": Fraction(10**4),
    "亿": Fraction(10**8),
}


@dataclass(frozen=True, slots=True)
class Number:
    """A number as written, and what the word or sign behind it multiplies it by: 25% is 25 and 1/100."""

    value: Fraction
    scale: Fraction = Fraction(1)


def same(one: Number, other: Number, tolerance: float = 1e-6) -> bool:
    """Whether two numbers are equal up to a part of their size. Where one alone has a unit such as %, it may be meant
    or left out: 25% equals 25, and 0.25."""
    if one.scale == other.scale:
        return _near(one.value, other.value, tolerance)
    return _near(one.value, other.value, tolerance) or _near(
        one.value * one.scale, other.value * other.scale, tolerance
    )


def _near(one: Fraction, other: Fraction, tolerance: float) -> bool:
    return abs(one - other) <= Fraction(tolerance) * abs(other)


def plain(text: str) -> str:
    """A text with its numbers written in ASCII, without LaTeX, currencies and emphasis."""
    text = text.translate(_PLAIN)
    text = "".join(_vulgar(letter) if letter > "\x7f" else letter for letter in text)
    text = _EMPHASIS.sub("", text)
    for pattern, by in _LATEX:
        text = pattern.sub(by, text)
    return text.replace("\\$", "")


def _vulgar(letter: str) -> str:
    """½ as 1/2, behind a space."""
    if unicodedata.category(letter) != "No" or "⁄" not in (spelt := unicodedata.normalize("NFKC", letter)):
        return letter
    return " " + spelt.replace("⁄", "/")


def numbers(text: str) -> list[Number]:
    """All numbers of a text, in their order; those too long to be an answer are left out."""
    return [number for number, _, _ in _found(plain(text))]


def _found(text: str) -> list[tuple[Number, int, int]]:
    """(number, where it begins, where it ends) of a plain text."""
    found: list[tuple[Number, int, int]] = []
    at = 0
    while match := _NUMBER.search(text, at):
        sign, digits, exponent = match.groups()
        at = match.end()
        if len(digits) > _LONGEST or abs(int(exponent or 0)) > _LONGEST:
            continue
        value = Fraction(digits.replace(",", "")) * Fraction(10) ** int(exponent or 0)
        over = _OVER.match(text, at)
        start = match.start()
        if over and int(over[1]):
            value /= int(over[1])
            at = over.end()
            before = found[-1] if found else None
            if before and not sign and before[2] == start - 1 and text[start - 1] == " " and 0 < value < 1:
                whole = before[0].value
                if whole.denominator == 1 and before[0].scale == 1:  # 3 1/2
                    found.pop()
                    value, start = whole + (value if whole >= 0 else -value), before[1]
        scale = _SCALE.match(text, at)
        if scale:
            at = scale.end()
        if sign and sign[0] == "-":
            value = -value
        found.append((Number(value, _SCALES[scale[1].lower()] if scale else Fraction(1)), start, at))
    return found


_SAID = re.compile(r"(?:answer|result)(?: is|:| =)|答案(?:是|为|:)|答:", re.IGNORECASE)
_MARK = re.compile(r"####\s{0,8}([^\n]{1,500})")
_MARKS = 20  # of these the last ones are looked at
_THOUGHTS = (("<think>", "</think>"), ("<|think|>", "<|/think|>"))


def after_thinking(answer: str) -> str | None:
    """What is said once thinking has ended; None where it never ends."""
    for opened, closed in _THOUGHTS:
        before, end, said = answer.rpartition(closed)
        if end:
            answer = said
        elif opened in before + answer:
            return None
    return answer


def final(answer: str, strict: bool = False) -> Number | None:
    r"""The number that an answer ends in.

    That is what its last \boxed{...} or `#### ...` holds, whichever comes later, and it must be one number: `17 or 18`
    is none. Where neither is there, and it needn't be (`strict`), the number behind the last `answer is`, else the last
    number. What is thought before </think> counts for nothing.
    """
    said = after_thinking(answer)
    if said is None:
        return None
    place, held = boxed(said)
    for match in reversed(list(_MARK.finditer(said, place + 1))[-_MARKS:]):
        line = plain(match[1]).lstrip(" =:(")
        if _NUMBER.match(line):  # a heading, "#### Step 2", is no answer
            return _single(line)
    if place >= 0:
        return _single(plain(held))
    if strict:
        return None
    text = plain(said)
    found = _found(text)
    if not found:
        return None
    said_at = max((match.end() for match in _SAID.finditer(text) if match.end() <= found[-1][1]), default=None)
    if said_at is None:
        return found[-1][0]
    line = text[said_at:].partition("\n")[0]
    return _last_of(line) or next(number for number, start, _ in found if start >= said_at)


def boxed(text: str) -> tuple[int, str]:
    r"""Where the last \boxed{...} (or \fbox) that is closed begins, and what it holds; (-1, "") where there is none."""
    for name in ("\\boxed", "\\fbox"):
        start = text.rfind(name + "{")
        if start < 0:
            continue
        depth = 0
        for place in range(start + len(name), len(text)):
            depth += {"{": 1, "}": -1}.get(text[place], 0)
            if not depth:
                return start, text[start + len(name) + 1 : place]
    return -1, ""


def _single(line: str) -> Number | None:
    """The one number of a line, behind its last `=`; None where there are several that differ."""
    found = numbers_after_equals(line)
    return found[0] if found and all(number == found[0] for number in found) else None


def _last_of(line: str) -> Number | None:
    """The number that a line states: behind its `=` where it has one, else its first."""
    found = numbers_after_equals(line)
    return found[0] if found else None


def numbers_after_equals(line: str) -> list[Number]:
    """The numbers of a plain line behind the last `=` that has any."""
    for part in reversed(line.replace("≈", "=").split("=")):
        if found := [number for number, _, _ in _found(part)]:
            return found
    return []


def evaluate(expression: str) -> Fraction | None:
    """The value of an arithmetic expression of numbers, + - * / // % ** and brackets; None for anything else.

    It is worked out exactly, and never by Python's own evaluation; powers that would be large are none.
    """
    if len(expression) > 1000:
        return None
    try:
        return _value(ast.parse(expression.strip(), mode="eval").body)
    except (SyntaxError, ValueError, TypeError, ZeroDivisionError, RecursionError, MemoryError, OverflowError):
        return None


def _value(node: ast.expr) -> Fraction:
    if isinstance(node, ast.Constant) and type(node.value) in (int, float):
        return Fraction(str(node.value))
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub | ast.UAdd):
        value = _value(node.operand)
        return -value if isinstance(node.op, ast.USub) else value
    if not isinstance(node, ast.BinOp):
        raise ValueError("no arithmetic")
    left, right = _value(node.left), _value(node.right)
    match node.op:
        case ast.Add():
            value = left + right
        case ast.Sub():
            value = left - right
        case ast.Mult():
            value = left * right
        case ast.Div():
            value = left / right
        case ast.FloorDiv():
            value = Fraction(left // right)
        case ast.Mod():
            value = left % right
        case ast.Pow():
            if right.denominator != 1 or _bits(left) * abs(right) > _BITS:
                raise ValueError("a root, or too large a power")
            value = left ** int(right)
        case _:
            raise ValueError("no arithmetic")
    if _bits(value) > 2 * _BITS:
        raise ValueError("too large")
    return Fraction(value)


def _bits(value: Fraction) -> int:
    return max(value.numerator.bit_length(), value.denominator.bit_length())
