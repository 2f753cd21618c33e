"""Parser functions of MediaWiki (Help:Extension:ParserFunctions, Help:Magic words), as far as they need no wiki.

Their names end in a colon; the first argument stands behind it, and none is named.
"""

from __future__ import annotations

import ast
import math
import operator
import re
from collections.abc import Callable

_MOST = 200  # characters of an expression
_OPERATORS: dict[type[ast.operator], Callable[[float, float], float]] = {
    ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul, ast.Div: operator.truediv,
    ast.Mod: math.fmod, ast.Pow: math.pow,
}  # fmt: skip
_PLAIN = re.compile(r"[0-9.+\-*/%() ]*")
_PLACES = re.compile(r"-?\d{1,2}")


def function(name: str, arguments: list[str]) -> str | None:
    """What a function shows, "" for what it can't know without its wiki, None where the name is none of them."""
    first, second, third = [*arguments, "", "", ""][:3]
    if name == "#if":
        return second if first else third
    if name == "#ifeq":
        return third if _same(first, second) else "".join(arguments[3:4])
    if name == "#switch":
        return _switch(first, arguments[1:])
    if name in ("#expr", "#ifexpr"):
        value = evaluate(first)
        if name == "#expr":
            return "" if value is None else f"{value:.12g}".replace("-", "−")
        return second if value else third
    if name in ("#iferror", "#ifexist"):
        return third if name == "#iferror" else second
    if name in ("lc", "uc"):
        return first.lower() if name == "lc" else first.upper()
    if name in ("lcfirst", "ucfirst"):
        return (first[:1].lower() if name == "lcfirst" else first[:1].upper()) + first[1:]
    if name in ("padleft", "padright") and second.isdecimal() and len(second) < 3:
        filling = third or "0"
        pad = (filling * int(second))[: max(0, int(second) - len(first))]
        return pad + first if name == "padleft" else first + pad
    if name == "plural":
        return second if first == "1" or not third else third
    if name == "grammar":
        return second
    return "" if name.startswith("#") else None


def _same(one: str, other: str) -> bool:
    try:
        return float(one) == float(other)
    except ValueError:
        return one == other


def _switch(value: str, cases: list[str]) -> str:
    """The result of the first case that is the value; a case without a result has the next one's."""
    found, default = False, ""
    for number, case in enumerate(cases):
        key, equals, result = case.partition("=")
        if not equals:
            if number == len(cases) - 1:
                return case
            found = found or _same(case.strip(), value)
        elif found or _same(key.strip(), value):
            return result.strip()
        elif key.strip() == "#default":
            default = result.strip()
    return default


def evaluate(expression: str) -> float | None:
    """The value of an expression of numbers, or None where it has none."""
    if len(expression) > _MOST:
        return None
    text, _, places = expression.partition(" round ")
    places = places.strip()
    text = text.replace("−", "-").replace("^", "**").replace(" div ", "/").replace(" mod ", "%").strip()
    if not _PLAIN.fullmatch(text) or "//" in text or (places and not _PLACES.fullmatch(places)):
        return None
    try:
        value = _value(ast.parse(text, mode="eval").body)
        value = round(value, int(places)) if places else value
    except (ValueError, SyntaxError, ArithmeticError, RecursionError, MemoryError):
        return None
    return value if math.isfinite(value) else None


def _value(node: ast.expr) -> float:
    if isinstance(node, ast.Constant) and isinstance(node.value, int | float):
        return float(node.value)
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub | ast.UAdd):
        return -_value(node.operand) if isinstance(node.op, ast.USub) else _value(node.operand)
    if isinstance(node, ast.BinOp) and type(node.op) in _OPERATORS:
        return _OPERATORS[type(node.op)](_value(node.left), _value(node.right))
    raise ValueError


__all__ = ["evaluate", "function"]
