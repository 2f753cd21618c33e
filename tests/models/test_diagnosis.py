"""Rules that read a run's metrics: each finds what it is for, and none speaks of a run that learns."""

from __future__ import annotations

import json
import math
import random
from pathlib import Path
from typing import Any

import pytest

from models.training.diagnosis import RULES, Curve, Curves, findings, named

Column = Any  # a function of the step from 1, or None where the metric isn't reported


def rows_of(columns: dict[str, Column], steps: int) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    for step in range(1, steps + 1):
        values = {name: column(step) for name, column in columns.items() if column is not None}
        rows.append({"step": step} | {name: value for name, value in values.items() if value != "none"})
    return rows


def towards(first: float, last: float, over: float, wobble: float = 0.0, seed: int = 0) -> Column:
    """From one value to another, nine tenths of the way after `over` steps, with noise."""
    draw = random.Random(seed)
    noise = [draw.gauss(0, wobble) for _ in range(2000)]
    return lambda step: last + (first - last) * 10 ** (-(step - 1) / over) + noise[step]


def line(first: float, slope: float, wobble: float = 0.0, seed: int = 0) -> Column:
    draw = random.Random(seed)
    noise = [draw.gauss(0, wobble) for _ in range(2000)]
    return lambda step: first + slope * (step - 1) + noise[step]


def every(steps: int, column: Column) -> Column:
    return lambda step: column(step) if step % steps == 0 else "none"


def learning(seed: int = 0) -> dict[str, Column]:
    """A run of the reversal game as the reference has it: 0.27 to 0.997, explained variance to 0.94."""
    return {
        "loss": line(0.1, 0, 0.05, seed + 1),
        "score": towards(0.27, 0.99, 60, 0.01, seed + 2),
        "score_std": towards(0.2, 0.03, 60, 0.003, seed + 3),
        "reward": towards(0.27, 0.95, 60, 0.01, seed + 4),
        "reward_digits": towards(0.27, 0.99, 60, 0.01, seed + 2),
        "kl_per_token": towards(0.0, 0.33, 40, 0.005, seed + 5),
        "kl_per_answer": towards(0.0, 1.9, 40, 0.03, seed + 6),
        "kl_coefficient": line(0.02, 0),
        "entropy": towards(1.2, 0.03, 60, 0.002, seed + 7),
        "ratio": line(1.0, 0, 0.01, seed + 8),
        "clip_fraction": towards(0.15, 0.08, 60, 0.02, seed + 9),
        "approx_kl": towards(0.03, 0.01, 60, 0.002, seed + 10),
        "explained_variance": towards(0.0, 0.94, 40, 0.03, seed + 11),
        "eos_rate": towards(0.7, 1.0, 20, 0.005, seed + 12),
        "answer_tokens": towards(6.5, 6.0, 20, 0.05, seed + 13),
        "answer_tokens_std": towards(1.0, 0.1, 20, 0.01, seed + 14),
        "zero_variance": towards(0.05, 0.45, 60, 0.01, seed + 15),
        "logprob_gap": line(0.0, 0),
        "length_correlation": line(0.1, 0, 0.1, seed + 16),
        "grad_norm": line(1.0, 0, 0.1, seed + 17),
        "skipped": line(0, 0),
        "heldout_score": every(10, towards(0.27, 0.98, 60, 0.01, seed + 18)),
        "heldout_other_model": every(10, towards(-1.0, 1.0, 60, 0.05, seed + 19)),
    }


def half_way() -> dict[str, Column]:
    """A run that learns and is far from done."""
    return learning() | {"entropy": towards(1.2, 0.3, 60, 0.01)}


def told(rows: list[dict[str, Any]], level: str = "warning") -> list[str]:
    return [finding.rule for finding in findings(rows) if finding.level == level]


class TestRunsThatLearn:
    @pytest.mark.parametrize("seed", range(5))
    @pytest.mark.parametrize("steps", [1, 2, 9, 10, 19, 20, 29, 30, 40, 100, 200, 1000])
    def test_nothing_is_said_at_any_length(self, seed: int, steps: int) -> None:
        rows = rows_of(learning(100 * seed), steps)
        assert told(rows) == []

    def test_nor_while_it_runs(self) -> None:
        rows = rows_of(learning(), 200)
        curves = Curves()
        for row in rows:
            curves.add(row)
            assert [finding for finding in findings(curves) if finding.level == "warning"] == []

    def test_nor_of_one_that_learns_slowly_from_a_learned_reward(self) -> None:
        columns = learning() | {
            "score": line(-0.5, 0.004, 0.1, 1),
            "score_std": line(0.9, 0, 0.05, 2),
            "entropy": line(2.5, -0.004, 0.05, 3),
            "kl_per_token": line(0.0, 0.002, 0.002, 4),
            "explained_variance": towards(0, 0.4, 80, 0.05, 5),
            "heldout_score": every(10, line(-0.5, 0.0035, 0.05, 6)),
            "zero_variance": None,
        }
        for steps in (30, 60, 120, 300):
            assert told(rows_of(columns, steps)) == []

    def test_nor_of_real_runs(self) -> None:
        """The toys of the tests of sft, reward, dpo and ppo, as they ran."""
        runs = json.loads((Path(__file__).parent / "healthy.json").read_text())
        for name, columns in runs.items():
            steps = max(len(values) for values in columns.values() if isinstance(values, list))
            rows = [
                {"step": step}
                | {key: values[step - 1] for key, values in columns.items() if isinstance(values, list)}
                | {
                    key: values[str(step)]
                    for key, values in columns.items()
                    if isinstance(values, dict) and str(step) in values
                }
                for step in range(1, steps + 1)
            ]
            # DPO's chosen answers do become less likely for a while, and come back
            for length in range(1 if name != "dpo" else steps, steps + 1):
                assert told(rows[:length]) == [], (name, length)

    @pytest.mark.parametrize("name", learning())
    def test_a_metric_that_is_missing_is_no_matter(self, name: str) -> None:
        rows = rows_of(learning() | {name: None}, 100)
        assert told(rows) == []

    def test_nothing_is_said_of_nothing(self) -> None:
        assert findings([]) == []
        assert findings([{"step": 1}]) == []

    def test_a_solved_task_is_a_note(self) -> None:
        columns = learning() | {"zero_variance": towards(0.05, 0.95, 60)}
        rows = rows_of(columns, 200)
        assert (told(rows), told(rows, "note")) == ([], ["zero_variance"])
        assert "the task is solved" in str(findings(rows)[0])


def after(start: int, before: Column, then: Column) -> Column:
    return lambda step: before(step) if step <= start else then(step - start)


ILL: dict[str, tuple[dict[str, Column], str]] = {
    "not_finite": ({"loss": lambda step: None if step in (40, 41) else 0.1}, "loss is no number at 2 steps"),
    "critic": ({"explained_variance": line(0.02, 0, 0.01), "score_std": line(0.2, 0)}, "explained variance 0.02"),
    "kl": (
        {
            "kl_per_token": lambda step: 0.01 * 1.05**step,
            "score": towards(0.27, 0.6, 20, 0.002),
            "score_std": line(0.2, 0),
        },
        "KL runs away (0.4 nats a token over steps 71-80, 0.65 over steps 81-90)",
    ),
    "negative_kl": ({"kl_per_token": line(-0.05, 0, 0.01)}, "KL is negative"),
    "entropy": (
        {"entropy": towards(1.2, 0.01, 20), "score": towards(0.27, 0.35, 20, 0.005), "score_std": line(0.2, 0)},
        "entropy collapses (0.7",
    ),
    "noise": ({"entropy": line(1.0, 0.05), "score": line(0.5, -0.002), "score_std": line(0.2, 0)}, "answers become"),
    "mismatch": ({"logprob_gap": line(0.4, 0, 0.05)}, "up to 0.39 nats apart over steps 1-"),
    "ratio": ({"ratio": line(1.3, 0, 0.02)}, "the ratio leaves 1 (1.3"),
    "falling_score": (
        {"score": after(50, towards(0.27, 0.9, 20, 0.01), line(0.9, -0.012)), "score_std": line(0.2, 0)},
        "the score falls",
    ),
    "flat_score": ({"score": line(0.3, 0, 0.01), "score_std": line(0.2, 0)}, "the score doesn't rise"),
    "no_gradient": ({"grad_norm": line(0, 0)}, "nothing is learned (gradient norm 0"),
    "zero_variance": (
        {"zero_variance": line(0.9, 0), "score": line(0.02, 0, 0.002), "score_std": line(0.02, 0)},
        "too hard",
    ),
    "constant": ({"reward_digits": line(0.5, 0)}, "the reward digits is always 0.5"),
    "clipped": ({"clip_fraction": line(0.45, 0, 0.05)}, "the clip share is high (0.4"),
    "endless": ({"eos_rate": line(0.0, 0)}, "answers never end (0% do over steps 1-100)"),
    "length": (
        {
            "score": line(0.0, 0.01, 0.01),
            "score_std": line(0.5, 0),
            "answer_tokens": line(50, 1, 0.5),
            "answer_tokens_std": line(45, 0),
            "length_correlation": line(0.9, 0, 0.01),
        },
        "score-length correlation 0.90",
    ),
    "hacked": (
        {"heldout_other_gold": every(10, lambda step: 0.5 - 0.0002 * (step - 40) ** 2)},
        "since step 40 the score rises",
    ),
    "memorised": ({"heldout_score": every(10, line(0.3, 0, 0.01))}, "on prompts that train only"),
    "overfitting": (
        {
            "score": None,
            "loss": towards(5.0, 0.2, 40, 0.01),
            "heldout_loss": every(10, lambda step: 2 + 0.0005 * (step - 50) ** 2),
        },
        "rises since step 50 (2 then, 3.25 at step 100)",
    ),
    "both_fall": (
        {
            "score": None,
            "loss": towards(0.69, 0.3, 40),
            "margin": line(0, 0.02),
            "reward_chosen": line(0, -0.04),
            "reward_rejected": line(0, -0.06),
            "heldout_accuracy": every(10, line(0.7, 0)),
        },
        "both answers become less likely",
    ),
    "chance": (
        {
            "score": None,
            "loss": towards(0.69, 0.5, 40),
            "margin": line(0, 0.01),
            "accuracy": line(0.8, 0),
            "heldout_accuracy": every(10, line(0.51, 0, 0.01)),
        },
        "held-out accuracy is chance (0.5",
    ),
    "rising_loss": ({"score": None, "loss": line(2, 0.02)}, "the loss rises (2.09 over steps 1-10, 3.89 over"),
    "flat_loss": ({"score": None, "loss": line(2, 0)}, "nothing changes (loss 2 over"),
    "refused": ({"skipped": lambda step: float(step % 2)}, "updates are refused (0.5 a step"),
}


def test_every_rule_has_its_ill_run() -> None:
    assert ILL.keys() == RULES.keys()


@pytest.mark.parametrize("rule", ILL)
def test_an_ill_run_is_told_with_the_figure_that_says_so(rule: str) -> None:
    columns, words = ILL[rule]
    steps = 90 if rule == "kl" else 100
    rows = rows_of(half_way() | columns, steps)
    found = {finding.rule: finding for finding in findings(rows)}
    assert rule in found
    assert words in str(found[rule])
    assert 1 <= found[rule].first <= found[rule].last <= steps
    assert found[rule].metric in columns
    # what follows from the same figures may be said as well; all else may not
    related = {
        "kl": {"flat_score"},
        "entropy": {"flat_score"},
        "noise": {"falling_score"},
        "zero_variance": {"flat_score"},
    }
    warned = {name for name, finding in found.items() if finding.level == "warning"}
    assert warned - {rule} <= related.get(rule, set())


class TestWhatIsToldApart:
    def test_a_critic_with_nothing_to_explain_is_none_that_fails(self) -> None:
        solved = half_way() | {"explained_variance": towards(0.9, 0.0, 20), "score_std": towards(0.2, 0.0, 20)}
        assert told(rows_of(solved, 200)) == []

    def test_kl_that_pays_may_grow(self) -> None:
        rows = rows_of(half_way() | {"kl_per_token": lambda step: 0.01 * 1.04**step, "score": line(0, 0.02)}, 100)
        assert "kl" not in told(rows)

    def test_longer_answers_that_are_better_at_equal_length_are_fine(self) -> None:
        columns = half_way() | {
            "score": line(0.0, 0.02, 0.01),
            "score_std": line(0.5, 0),
            "answer_tokens": line(50, 1, 0.5),
            "answer_tokens_std": line(45, 0),
            "length_correlation": line(0.5, 0, 0.01),
        }
        assert told(rows_of(columns, 100)) == []

    def test_a_hard_task_and_an_easy_one(self) -> None:
        for score, words in ((0.03, "too hard"), (0.97, "too easy")):
            columns = half_way() | {"score": line(score, 0, 0.005), "zero_variance": line(0.8, 0)}
            (finding,) = [one for one in findings(rows_of(columns, 60)) if one.rule == "zero_variance"]
            assert words in str(finding)

    def test_a_part_that_is_constant_beside_others_is_a_note(self) -> None:
        rows = rows_of(half_way() | {"reward_format": line(1.0, 0)}, 60)
        assert (told(rows), told(rows, "note")) == ([], ["constant"])

    def test_dpo_that_lowers_the_rejected_alone_is_fine(self) -> None:
        columns = half_way() | {
            "score": None,
            "loss": towards(0.69, 0.1, 40),
            "margin": line(0, 0.04),
            "reward_chosen": line(0, -0.005),
            "reward_rejected": line(0, -0.045),
            "accuracy": towards(0.5, 0.9, 20),
        }
        assert told(rows_of(columns, 100)) == []

    def test_one_dip_of_the_held_out_loss_is_no_overfitting(self) -> None:
        columns = {
            "loss": towards(5.0, 0.5, 40, 0.01),
            "heldout_loss": every(10, lambda step: 2.0 if step != 90 else 2.5),
        }
        assert told(rows_of(columns, 100)) == []

    def test_a_spike_of_kl_is_past_when_it_is_past(self) -> None:
        columns = half_way() | {"kl_per_token": after(40, towards(0, 0.3, 20), towards(3.0, 0.3, 5))}
        assert told(rows_of(columns, 100)) == []


def test_a_stretch_goes_back_to_where_it_began() -> None:
    curve = Curve(list(range(1, 101)), [1.0] * 50 + [0.0] * 50)
    assert str(curve.since(lambda mean: mean < 0.5)) == "steps 51-100"
    assert str(Curve([7], [1.0]).stretch(0, 1)) == "step 7"


def test_the_same_rows_give_the_same_findings_however_they_come() -> None:
    rows = rows_of(half_way() | ILL["kl"][0], 90)
    curves = Curves()
    for row in rows:
        curves.add(row)
    assert findings(curves) == findings(rows) == findings(json.loads(json.dumps(rows)))


def test_what_is_no_number_is_left_out_of_the_curves() -> None:
    rows = rows_of(half_way() | {"length_correlation": lambda step: None if step % 2 else 0.1}, 100)
    assert told(rows) == []
    assert not any(math.isnan(value) for curve in Curves(rows).named.values() for value in curve.values)


def test_a_rule_that_is_none_is_refused_by_name() -> None:
    assert named(["kl", "entropy"]) == ["kl", "entropy"]
    with pytest.raises(ValueError, match="no rule 'KL': choose among not_finite, hacked, length"):
        named(["KL"])
