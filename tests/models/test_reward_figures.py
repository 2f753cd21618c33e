"""What scores tell of pairs, by hand: shares by source and length, correlations, calibration."""

from __future__ import annotations

import math

import numpy as np
import pytest

from models.evaluation.intervals import wilson
from models.evaluation.preferences import Scored, calibration, drawn, length_bias, measured, shares
from models.methods.pairs import contradictions, margin_of


def scored(chosen: list[float], rejected: list[float], lengths: list[tuple[float, float]], sources: str = "") -> Scored:
    sizes = np.array(lengths, float).T
    return Scored(np.array(chosen), np.array(rejected), *sizes, list(sources) or ["s"] * len(chosen))


def test_accuracy_stands_beside_the_rule_that_the_longer_one_wins() -> None:
    found = shares(
        scored([1, 0, 2, 1], [0, 1, 2, 0], [(20, 10), (10, 20), (100, 91), (9, 10)], "aabb"),
    )
    assert found["accuracy"] == (2.5 / 4, *wilson(2.5, 4), 4)
    assert found["longer_wins"] == (2 / 4, *wilson(2, 4), 4)
    assert found["equal_length"] == (1.5 / 2, *wilson(1.5, 2), 2)
    assert found["accuracy: a"].value == 0.5
    assert found["accuracy: b"].value == 0.75
    assert "accuracy: s" not in shares(scored([1], [0], [(1, 1)]))


def test_a_score_that_is_the_length_says_so_and_one_that_is_not_says_nothing() -> None:
    draw = np.random.default_rng(0)
    lengths = [(float(a), float(b)) for a, b in draw.integers(5, 50, (200, 2))]
    longer = scored([a for a, _ in lengths], [b for _, b in lengths], lengths)
    assert length_bias(longer) == {
        "score_length_correlation": pytest.approx(1),
        "margin_length_correlation": pytest.approx(1),
    }
    by_chance = scored(list(draw.normal(size=200)), list(draw.normal(size=200)), lengths)
    assert all(abs(value or 0) < 0.2 for value in length_bias(by_chance).values())
    always = scored([2.0, 3.0], [1.0, 1.0], [(9, 4), (8, 2)])  # every chosen answer is longer: that is length as well
    assert (length_bias(always)["margin_length_correlation"] or 0) > 0.9
    assert length_bias(scored([1.0], [1.0], [(3, 3)])) == dict.fromkeys(
        ("score_length_correlation", "margin_length_correlation")
    )


def test_probabilities_that_are_right_as_often_as_they_say_have_no_error() -> None:
    odds = math.log(3)  # three of four
    told = calibration(scored([odds] * 3 + [0.0], [0.0] * 3 + [odds], [(1, 1)] * 4))
    assert told["ece"] == pytest.approx(0, abs=1e-12)
    low, high = wilson(3, 4)
    (row,) = told["bins"]
    assert row.pop("predicted") == pytest.approx(0.75)
    assert row == {"from": 0.75, "observed": 0.75, "low": low, "high": high, "pairs": 4}
    sure = calibration(scored([20.0] * 3 + [0.0], [0.0] * 3 + [20.0], [(1, 1)] * 4))
    assert sure["ece"] == pytest.approx(0.25, abs=1e-6)


def test_pictures_show_calibration_accuracy_by_source_and_what_length_does() -> None:
    pairs = scored([20.0, 20, 20, 0], [0.0, 0, 0, 20], [(9, 5), (9, 5), (9, 6), (5, 9)], "aabb")
    calibrated, accuracies, by_length = drawn(pairs)
    assert calibrated["series"]["observed"] == [[pytest.approx(1)], [0.75], *([end] for end in wilson(3, 4))]
    assert "0.250" in calibrated["note"]
    assert dict(zip(accuracies["labels"], accuracies["values"], strict=True)) == {
        "all pairs (4)": 0.75, "rule: the longer one wins (4)": 0.75, "accuracy: a (2)": 1.0, "accuracy: b (2)": 0.5,
    }  # fmt: skip
    assert (accuracies["low"][0], accuracies["high"][0]) == wilson(3, 4)
    assert by_length["series"] == {"chosen": [[5, 9], [0, 20]], "rejected": [[5, 6, 9], [0, 0, 20]]}
    assert "0.99" in by_length["note"]


def test_groups_by_length_are_few_and_hold_all_answers() -> None:
    draw = np.random.default_rng(0)
    lengths = [(float(a), float(b)) for a, b in draw.integers(5, 50, (500, 2))]
    tokens, scores = drawn(scored([a for a, _ in lengths], [b for _, b in lengths], lengths))[2]["series"]["chosen"]
    assert tokens == scores == sorted(tokens)
    assert 6 <= len(tokens) <= 8


def test_a_report_holds_plain_values() -> None:
    report = measured(scored([1.0, 0.0], [0.0, 1.0], [(20, 10), (10, 20)], "ab"))
    assert report["heldout_accuracy"] == 0.5
    assert "heldout_equal_length_accuracy" not in report  # no pair is
    assert report["heldout_longer_wins_pairs"] == 2
    assert report["heldout_accuracy_by_source"]["a"]["value"] == 1.0


@pytest.mark.parametrize(
    ("row", "scores", "margin"),
    [
        ({}, True, 0.0),
        ({"margin": "2.5"}, False, 2.5),
        ({"margin": 1, "chosen_score": "9", "rejected_score": "1"}, True, 1.0),
        ({"chosen_score": "9.5", "rejected_score": "8"}, True, 1.5),
        ({"chosen_score": "1", "rejected_score": "4"}, True, 3.0),
        ({"chosen_score": "9.5", "rejected_score": "8"}, False, 0.0),
        ({"chosen_score": "9.5"}, True, 0.0),
        ({"margin": ""}, False, 0.0),
        ({"margin": "NaN"}, False, None),
        ({"margin": [1]}, False, None),
        ({"margin": -0.5}, False, None),
    ],
)
def test_a_margin_is_told_by_the_row(row: dict[str, object], scores: bool, margin: float | None) -> None:
    assert margin_of(row, scores) == margin


def test_equal_answers_contradict_nobody() -> None:
    same = {"prompt": [], "chosen": "a", "rejected": "a"}
    assert contradictions([same, same]) == {}
    assert contradictions([same | {"rejected": "b"}, same | {"prompt": [1], "chosen": "b"}]) == {}
    assert contradictions([same | {"rejected": "b"}, same | {"chosen": "b"}])["contradictions"] == 2
