r"""GSM8K (Cobbe et al. 2021, arXiv 2110.14168) and problems like it: the answer is one number, behind `####` or boxed.

The dialogue's own answer is the solution, which ends in `#### 18`; or that number alone.
"""

from __future__ import annotations

from typing import Any

from models.rl.rewards.numbers import final, same


def correct(
    prompt: str,
    answer: str,
    row: dict[str, Any],
    *,
    strict: bool = False,
    gold: str = "answer",
    tolerance: float = 1e-6,
) -> float:
    r"""1 where the answer's number is the solution's, else 0.

    strict: the number must stand behind `####` or in \boxed{}; else the last number does where neither is there. gold:
    which of the row's values holds the solution.

    Raises:
        ValueError: where the row has no solution.
    """
    right = final(str(row.get(gold) or ""))
    if right is None:
        raise ValueError(f"the row's {gold!r} has no number to compare with")
    given = final(answer, strict)
    return float(given is not None and same(given, right, tolerance))


def marked(prompt: str, answer: str, row: dict[str, Any]) -> float:
    r"""1 where the answer says which number it ends in, behind `####` or in \boxed{}, else 0."""
    return float(final(answer, strict=True) is not None)
