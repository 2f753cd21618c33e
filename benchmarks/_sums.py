"""Sums as a game for a policy: prompts, how they are worked out, and a reward that grows with each right digit."""

from __future__ import annotations

import random
import re
from typing import Any


def sums(number: int, seed: int) -> list[dict[str, Any]]:
    """Prompts of three digits to add, as a policy's rows; `working` is how to."""
    draw = random.Random(seed)
    rows = []
    for place in range(number):
        a, b, c = (draw.randint(1, 9) for _ in range(3))
        asked = [{"role": "user", "content": f"{a} + {b} + {c} = ?"}]
        working = f"{a} + {b} = {a + b}; {a + b} + {c} = {a + b + c}"
        row = {"id": f"{place:032x}", "source": "sums", "messages": asked, "answer": str(a + b + c)}
        rows.append(row | {"working": working})
    return rows


def right_digits(prompt: str, answer: str, row: dict[str, Any]) -> float:
    """The share of right digits, place by place from the last, in the number that an answer ends in."""
    found = re.findall(r"\d+", answer)
    gold, given = row["answer"][::-1], found[-1][::-1] if found else ""
    return sum(one == other for one, other in zip(gold, given, strict=False)) / max(len(gold), len(given))
