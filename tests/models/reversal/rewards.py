"""The reward of the reversal game."""

from __future__ import annotations

from typing import Any


def right(prompt: str, answer: str, row: dict[str, Any]) -> float:
    """The share of digits that stand where they should; what is too long or too short counts as wrong places."""
    wanted = prompt[::-1]
    return sum(one == other for one, other in zip(answer, wanted, strict=False)) / max(len(wanted), len(answer))
