"""Rewards of answers: plain functions named in a recipe, each a column of its own."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple


class Asked(NamedTuple):
    """One answer as a reward sees it: the question's text, the answer's, and what is known of the prompt."""

    prompt: str
    answer: str
    row: dict[str, Any]


class Rewards:
    """Several rewards by name, with their weights."""

    def __init__(self, functions: Mapping[str, Callable[[str, str, dict[str, Any]], float]]) -> None:
        self.functions, self.weights = dict(functions), dict.fromkeys(functions, 1.0)

    def __call__(self, asked: Sequence[Asked]) -> dict[str, list[float]]:
        """Each reward of each answer."""
        return {name: [float(function(*one)) for one in asked] for name, function in self.functions.items()}
