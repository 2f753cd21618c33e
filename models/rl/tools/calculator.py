"""A calculator: exact arithmetic, nothing evaluated but numbers and operators."""

from __future__ import annotations

from fractions import Fraction

from models.rl.rewards.numbers import evaluate
from models.rl.tools.tool import Tool, parameters

_DIGITS = 12  # behind the point


def tool() -> Tool:
    """It has no options."""
    schema = parameters(["expression"], expression=("string", "Numbers, + - * / // % ** and brackets: (3 + 4) * 2"))
    return Tool("calculator", "Works out an arithmetic expression exactly.", schema, calculate)


def calculate(expression: str) -> str:
    """The value, as a decimal of at most 12 digits behind the point. Raises ValueError for what is no arithmetic."""
    written = expression.replace("^", "**").replace("×", "*").replace("÷", "/").replace("−", "-").replace(",", "")
    value = evaluate(written)
    if value is None:
        raise ValueError("this is no arithmetic, divides by zero or grows too large")
    return shown(value)


def shown(value: Fraction) -> str:
    """A number as a person writes it."""
    if value.denominator == 1:
        return str(value.numerator)
    whole, part = divmod(round(abs(value) * 10**_DIGITS), 10**_DIGITS)
    return f"{'-' if value < 0 else ''}{whole}.{part:0{_DIGITS}d}".rstrip("0").rstrip(".")
