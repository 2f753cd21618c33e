"""Area under the curve and average precision against their definitions, and intervals that hold the value."""

from __future__ import annotations

import math
import random

import pytest

from models.evaluation.ranking import average_precision, ranking, roc_auc


def area_by_pairs(truth: list[bool], scores: list[float]) -> float:
    """Every pair of a good one and another, ties counted half."""
    good = [s for t, s in zip(truth, scores, strict=True) if t]
    other = [s for t, s in zip(truth, scores, strict=True) if not t]
    return sum((g > o) + (g == o) / 2 for g in good for o in other) / (len(good) * len(other))


def precision_by_thresholds(truth: list[bool], scores: list[float]) -> float:
    """Down the distinct scores: precision times the gain of recall."""
    total, before, hits = 0.0, 0, sum(truth)
    for threshold in sorted(set(scores), reverse=True):
        taken = [t for t, s in zip(truth, scores, strict=True) if s >= threshold]
        total += sum(taken) / len(taken) * (sum(taken) - before) / hits
        before = sum(taken)
    return total


@pytest.mark.parametrize("seed", range(20))
def test_figures_are_those_of_the_definitions_with_and_without_ties(seed: int) -> None:
    draw = random.Random(seed)
    size = draw.randrange(2, 60)
    truth = [True, False, *(draw.random() < 0.4 for _ in range(size))]
    scores = [round(draw.random(), 1 if seed % 2 else 9) for _ in truth]
    assert roc_auc(truth, scores) == pytest.approx(area_by_pairs(truth, scores), abs=1e-12)
    assert average_precision(truth, scores) == pytest.approx(precision_by_thresholds(truth, scores), abs=1e-12)


def test_a_perfect_ranking_is_1_a_reversed_one_0_and_one_score_for_all_a_half() -> None:
    assert roc_auc([True, False], [0.9, 0.1]) == average_precision([True, False], [0.9, 0.1]) == 1
    assert roc_auc([True, False], [0.1, 0.9]) == 0
    assert roc_auc([True, False, False], [0.5, 0.5, 0.5]) == 0.5
    assert average_precision([True, False, False], [0.5, 0.5, 0.5]) == pytest.approx(1 / 3)
    assert math.isnan(roc_auc([True], [0.5]))
    assert math.isnan(average_precision([False], [0.5]))


def test_intervals_hold_the_value_are_seeded_and_narrow_with_more_items() -> None:
    draw = random.Random(5)
    truth = [draw.random() < 0.5 for _ in range(800)]
    scores = [draw.gauss(1.0 if good else 0.0, 1.0) for good in truth]
    few, many = ranking(truth[:80], scores[:80], resamples=300), ranking(truth, scores, resamples=300)
    for name in ("roc_auc", "average_precision"):
        assert few[name].low < few[name].value < few[name].high
        assert many[name].high - many[name].low < few[name].high - few[name].low
    assert ranking(truth, scores, resamples=300) == many
    # Two normal distributions one standard deviation apart: the area is the normal distribution at 1 / sqrt(2).
    assert many["roc_auc"].low < 0.5 * (1 + math.erf(0.5)) < many["roc_auc"].high
    with pytest.raises(ValueError, match="both kinds"):
        ranking([True, True], [0.1, 0.2])
