"""Arithmetic: whether the number that an answer ends in is the right one.

Right is the number that the dialogue's own answer ends in; where it has none, the value of the expression that the
prompt asks for: "What is 12 × (3 + 4)?".
"""

from __future__ import annotations

import re
from typing import Any

from models.rl.rewards.numbers import Number, evaluate, final, same

_OPERATORS = str.maketrans(
    {**dict.fromkeys("×·⋅＊", "*"), "÷": "/", "−": "-", "–": "-", "^": "\0", "（": "(", "）": ")"}
)
_TIMES = re.compile(r"(?<=[\d)]) ?[xX] ?(?=[\d(])")
_COMMA = re.compile(r"(?<=\d),(?=\d{3}(?!\d))")
_RUN = re.compile(r"[\d\s+*/().%\0-]+")


def correct(prompt: str, answer: str, row: dict[str, Any], *, tolerance: float = 1e-6) -> float:
    """1 where the answer ends in the right number (up to `tolerance` of it), else 0.

    Raises:
        ValueError: where neither the row's answer nor the prompt has one.
    """
    gold = final(str(row.get("answer") or "")) or asked(prompt, row)
    if gold is None:
        raise ValueError("the row's answer has no number, and its prompt no expression")
    given = final(answer)
    return float(given is not None and same(given, gold, tolerance))


def asked(prompt: str, row: dict[str, Any]) -> Number | None:
    """The value of the longest expression in what the user said last, or in the prompt."""
    said = [message["content"] for message in row.get("messages") or () if message.get("role") == "user"]
    text = _COMMA.sub("", _TIMES.sub("*", (said[-1] if said else prompt).translate(_OPERATORS)))
    runs = (run.replace("\0", "**").strip() for run in _RUN.findall(text))
    for run in sorted((run for run in runs if any(letter in "+-*/%" for letter in run)), key=len, reverse=True):
        value = evaluate(run.strip("*/%.") if run.count("(") == run.count(")") else run.strip("()*/%. "))
        if value is not None:
            return Number(value)
    return None
