"""Win rates by a judge: shown in both orders, so that one who prefers a place says nothing."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from models.evaluation.arena import win_rates
from models.evaluation.judged import Judged


class Told:
    """A judge that decides by a function of (first answer, second answer)."""

    def __init__(self, better: Any) -> None:
        self.better, self.asked = better, 0

    def choose(self, dialogues: Sequence[Sequence[dict[str, str]]], seeds: Sequence[int]) -> list[float | None]:
        self.asked += len(dialogues)
        texts = [talk[0]["content"] for talk in dialogues]
        pairs = [[part.split("\n\n")[0] for part in text.split("]\n")[2:]] for text in texts]
        return [self.better(*pair) for pair in pairs]


def rows(*answers: str, task: str = "t") -> list[Judged]:
    return [Judged(task, str(k), 0, 0, False, f"q{k}?", answer, "", {}) for k, answer in enumerate(answers)]


def test_a_win_is_one_in_both_orders() -> None:
    judge = Told(lambda a, b: float(len(a) > len(b)))
    (row,) = win_rates(judge, rows("a", "aaa", "aa", "same"), rows("bb", "b", "bbb", "same"))
    assert (row["task"], row["metric"], row["n"], row["swayed"]) == ("t", "win_rate", 4, 0.0)
    assert row["value"] == (1 + 0 + 1 + 0.5) / 4
    assert row["low"] <= row["value"] <= row["high"]
    assert judge.asked == 6  # equal answers aren't asked about


def test_a_judge_that_prefers_a_place_or_names_none_finds_ties() -> None:
    for better in (lambda a, b: 1.0, lambda a, b: 0.0, lambda a, b: None):
        (row,) = win_rates(Told(better), rows("a", "b"), rows("c", "d"))
        assert (row["value"], row["swayed"]) == (0.5, 1.0)


def test_items_that_one_did_not_answer_are_left_out_and_tasks_stand_apart() -> None:
    judge = Told(lambda a, b: float(a > b))
    found = win_rates(judge, rows("a", "") + rows("b", task="u"), rows("b", "x") + rows("a", task="u"))
    assert [(row["task"], row["value"], row["n"]) for row in found] == [("t", 1.0, 1), ("u", 0.0, 1)]
