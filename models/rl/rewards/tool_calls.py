"""Tool calls: whether an answer calls the tools that it should, with the arguments that it should.

The row's `calls` are what is right: `[{name: weather, arguments: {city: Paris}}]`, in any order; none, where a tool
would help nothing. An argument may have several right values: `{any: [Paris, "Paris, France"]}`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from models.text.tool_calls import Call, calls_in


def correct(prompt: str, answer: str, row: dict[str, Any]) -> float:
    """1 where the answer makes exactly the row's calls, else 0."""
    made = _made(answer)
    left = _right(row)
    for call in made:
        match = next((one for one in left if call is not None and _same(call, one)), None)
        if match is None:
            return 0.0
        left.remove(match)
    return float(not left)


def named(prompt: str, answer: str, row: dict[str, Any]) -> float:
    """1 where the answer calls the tools of the row by their names, whatever the arguments, else 0."""
    return float(
        sorted(call.name if call else "" for call in _made(answer)) == sorted(one["name"] for one in _right(row))
    )


def _made(answer: str) -> list[Call | None]:
    """Its calls, in a template's frame or bare."""
    return calls_in(answer) or calls_in(answer, framed=False)


def _right(row: Mapping[str, Any]) -> list[dict[str, Any]]:
    calls = row.get("calls")
    if isinstance(calls, str):  # a dialogue's attributes are texts
        calls = json.loads(calls)
    if not isinstance(calls, list):
        raise ValueError("the row has no calls to compare with")
    return list(calls)


def _same(call: Call, right: Mapping[str, Any]) -> bool:
    arguments = right.get("arguments", {})
    return (
        call.name == right["name"]
        and call.arguments.keys() == arguments.keys()
        and all(_equal(call.arguments[name], value) for name, value in arguments.items())
    )


def _equal(given: Any, right: Any) -> bool:
    """Texts without their case and outer spaces; numbers by their value, also where they are written as texts."""
    if isinstance(right, dict) and right.keys() == {"any"}:
        return any(_equal(given, one) for one in right["any"])
    if isinstance(right, bool) or isinstance(given, bool) or right is None:
        return given is right
    if isinstance(right, int | float):
        try:
            return float(given) == float(right)
        except (TypeError, ValueError):
            return False
    if isinstance(right, str):
        return isinstance(given, str) and given.strip().casefold() == right.strip().casefold()
    if isinstance(right, list):
        return isinstance(given, list) and len(given) == len(right) and all(map(_equal, given, right))
    return isinstance(given, dict) and given.keys() == right.keys() and all(_equal(given[k], right[k]) for k in right)
