"""Win rates: a judge is shown what two checkpoints answered to the same question, and says whose answer is better.

Each pair is shown in both orders, since judges prefer one place (Zheng et al. 2023, arXiv 2306.05685, section 3.3): a
win is one in both, and what changes with the order is a tie.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from models.evaluation.intervals import bootstrap
from models.evaluation.judged import Judged

_ASK = """Which of two answers is better? Look at whether each is right, helps, and does what was asked; not at its \
length nor at which comes first.

[Question]
{prompt}

[Answer A]
{first}

[Answer B]
{second}

Say "A" or "B", one letter alone, for the better answer."""


class Judge(Protocol):
    """Whoever judges, such as `models.synthesis.writer.Remote`."""

    def choose(self, dialogues: Sequence[Sequence[dict[str, str]]], seeds: Sequence[int]) -> list[float | None]:
        """To each dialogue the probability of "A" over "B"; None where it names neither."""


def win_rates(
    judge: Judge, first: Sequence[Judged], second: Sequence[Judged], confidence: float = 0.95
) -> list[dict[str, Any]]:
    """For each task the share of items whose second answer wins, ties counted half: `task`, `metric` (`win_rate`),
    `value` with the bootstrap's `low` and `high` over the `n` items that both answered in words; `swayed`, the share
    on which the judge's word depends on the order, or is none. Equal answers are a tie, and not asked about."""
    theirs = {(row.task, row.shots, row.reasons, row.item): row for row in second if row.answer}
    pairs = [
        (row, other)
        for row in first
        if row.answer and (other := theirs.get((row.task, row.shots, row.reasons, row.item))) is not None
    ]
    asked = [(one, other) for one, other in pairs if one.answer != other.answer]
    orders = [(one.prompt, one.answer, other.answer) for one, other in asked]
    orders += [(one.prompt, other.answer, one.answer) for one, other in asked]
    dialogues = [
        [{"role": "user", "content": _ASK.format(prompt=prompt, first=a, second=b)}] for prompt, a, b in orders
    ]
    said = judge.choose(dialogues, [0] * len(dialogues))
    tasks: dict[str, list[tuple[float, bool]]] = {row.task: [] for row, _ in pairs}
    for one, other in pairs:
        if one.answer == other.answer:
            tasks[one.task].append((0.5, False))
    for number, (one, _) in enumerate(asked):
        ahead, behind = said[number], said[number + len(asked)]
        for_second = None if ahead is None or behind is None else ((ahead < 0.5) + (behind > 0.5)) / 2
        tasks[one.task].append((0.5 if for_second is None else for_second, for_second in (None, 0.5)))
    rows = []
    for task, found in tasks.items():
        wins = [value for value, _ in found]
        low, high = bootstrap(wins, None, confidence)
        share = sum(swayed for _, swayed in found) / len(found)
        rates = {"task": task, "metric": "win_rate", "value": sum(wins) / len(wins), "low": low, "high": high}
        rows.append(rates | {"n": len(found), "swayed": share})
    return rows
