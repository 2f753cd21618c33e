"""Agreement of people beside what its authors published, and what can be worked out by hand."""

from __future__ import annotations

import math
from itertools import combinations

import pytest

from models.evaluation.agreement import cohen_kappa, krippendorff_alpha

# Krippendorff 2011, example C: four observers, twelve units, missing values.
OBSERVERS = (
    (1, 2, 3, 3, 2, 1, 4, 1, 2, None, None, None),
    (1, 2, 3, 3, 2, 2, 4, 1, 2, 5, None, 3),
    (None, 3, 3, 3, 2, 3, 4, 2, 2, 5, 1, None),
    (1, 2, 3, 3, 2, 4, 4, 1, 2, 5, 1, None),
)
UNITS = [[value for value in unit if value is not None] for unit in zip(*OBSERVERS, strict=True)]


def test_alpha_of_four_observers_with_gaps_is_as_published() -> None:
    assert krippendorff_alpha(UNITS) == pytest.approx(0.743, abs=5e-4)
    assert krippendorff_alpha(UNITS, ordinal=True) == pytest.approx(0.815, abs=5e-4)


def test_alpha_of_two_observers_is_as_published() -> None:
    # Ibid., examples A (two values) and B (five)
    binary = zip((0, 1, 0, 0, 0, 0, 0, 0, 1, 0), (1, 1, 1, 0, 0, 1, 0, 0, 0, 0), strict=True)
    assert krippendorff_alpha(binary) == pytest.approx(0.095, abs=5e-4)
    assert krippendorff_alpha(zip("aabbdcccedda", "babbbccceddd", strict=True)) == pytest.approx(0.692, abs=5e-4)


def by_definition(units: list[list[int]]) -> float:
    """Ordinal alpha from every pair of values within units, and of all."""
    paired = [unit for unit in units if len(unit) > 1]
    every = [value for unit in paired for value in unit]

    def difference(one: int, other: int) -> float:
        low, high = sorted((one, other))
        between = sum(low <= value <= high for value in every)
        return (between - (every.count(low) + every.count(high)) / 2) ** 2

    observed = sum(difference(*two) * 2 / (len(unit) - 1) for unit in paired for two in combinations(unit, 2))
    expected = sum(difference(*two) * 2 for two in combinations(every, 2)) / (len(every) - 1)
    return 1 - observed / expected


def test_ordinal_alpha_is_what_its_definition_gives() -> None:
    units = [[-4, -3, 0], [4, 4], [1], [0, 2, 2, -1], [3, -3], [2, 1]]
    assert krippendorff_alpha(units, ordinal=True) == pytest.approx(by_definition(units), abs=1e-12)
    assert krippendorff_alpha(UNITS, ordinal=True) == pytest.approx(by_definition(UNITS), abs=1e-12)


def test_kappa_by_hand() -> None:
    pairs = [("yes", "yes")] * 20 + [("yes", "no")] * 5 + [("no", "yes")] * 10 + [("no", "no")] * 15
    # observed 35 / 50; by chance 0.5 * 0.6 + 0.5 * 0.4 = 0.5
    assert cohen_kappa(pairs) == pytest.approx((0.7 - 0.5) / (1 - 0.5))
    three = [(1, 1), (1, 2), (2, 2), (3, 3), (3, 1), (3, 3)]
    chance = (2 * 2 + 1 * 2 + 3 * 2) / 36
    assert cohen_kappa(three) == pytest.approx((4 / 6 - chance) / (1 - chance))


@pytest.mark.parametrize("ordinal", [False, True])
def test_ends_of_the_scale(ordinal: bool) -> None:
    assert krippendorff_alpha([[1, 1], [2, 2], [3, 3]], ordinal) == 1
    assert cohen_kappa([(1, 1), (2, 2)]) == 1
    opposed = krippendorff_alpha([[1, 2], [2, 1]], ordinal)
    assert opposed is not None
    assert opposed < 0
    assert cohen_kappa([(1, 2), (2, 1)]) == -1


@pytest.mark.parametrize("units", [[], [[1]], [[1], [2]], [[1, 1], [1, 1]]])
def test_where_nothing_can_be_said_nothing_is(units: list[list[int]]) -> None:
    assert krippendorff_alpha(units) is None
    assert krippendorff_alpha(units, ordinal=True) is None
    assert cohen_kappa([(one[0], one[1]) for one in units if len(one) > 1]) is None


def test_one_who_draws_lots_agrees_with_nobody() -> None:
    pairs = [(a, b) for a in range(3) for b in range(3)] * 40
    kappa, alpha = cohen_kappa(pairs), krippendorff_alpha(pairs)
    assert kappa is not None
    assert alpha is not None
    assert math.isclose(kappa, 0, abs_tol=1e-12)
    assert abs(alpha) < 0.01
