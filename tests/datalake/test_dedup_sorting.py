"""Hashes are sorted as NumPy sorts them, however they lie."""

from __future__ import annotations

import numpy as np
import pytest

from datalake.dedup.texts.sorting import sort_halves, sort_hashes

SHAPES = ("even", "few", "low", "high", "one", "descending", "two crowds")


def values(shape: str, count: int) -> np.ndarray:
    draw = np.random.default_rng(count)
    even = draw.integers(0, 2**64, count, dtype=np.uint64, endpoint=False)
    return {
        "even": even,
        "few": even % np.uint64(17) * np.uint64(0x0F0F0F0F0F0F0F0F),
        "low": even >> np.uint64(50),
        "high": even | np.uint64(0xFFFF << 48),
        "one": np.full(count, 2**64 - 1, np.uint64),
        "descending": np.sort(even)[::-1].copy(),
        "two crowds": np.where(even % np.uint64(2) == 0, np.uint64(5), np.uint64(6)),
    }[shape]


@pytest.mark.parametrize("count", [0, 1, 2, 3, 33, 1000, 32_769, 100_000])
@pytest.mark.parametrize("shape", SHAPES)
def test_hashes_are_sorted_and_ties_stay_in_order(shape: str, count: int) -> None:
    given = values(shape, count)
    keys, order = sort_hashes(given)
    assert np.array_equal(order, np.argsort(given, kind="stable"))
    assert np.array_equal(keys, given[order])


@pytest.mark.parametrize("count", [0, 1, 2, 500, 40_000])
@pytest.mark.parametrize("low", SHAPES)
@pytest.mark.parametrize("high", ["even", "few", "one"])
def test_pairs_of_halves_are_sorted_as_one_number(high: str, low: str, count: int) -> None:
    halves = np.stack((values(high, count), values(low, count)[::-1]), axis=1)
    assert np.array_equal(sort_halves(halves), np.lexsort((halves[:, 1], halves[:, 0])))
