"""How well scores rank the good above the rest: area under the ROC curve and average precision, with intervals.

Ties are shared: the area counts a tied pair half (Hanley and McNeil 1982), and average precision goes down the ranking
a distinct score at a time (the sum of precision times the gain of recall, without interpolation).
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]


class Figure(NamedTuple):
    """A value and its interval."""

    value: float
    low: float
    high: float


def roc_auc(truth: npt.ArrayLike, scores: npt.ArrayLike) -> float:
    """The share of (good, other) pairs in which the good one has the higher score, ties counted half.

    `truth` says which are good, both of shape (N,). NaN where one of the two kinds is missing.
    """
    return _area(*_counts(*_ranked(truth, scores)))


def average_precision(truth: npt.ArrayLike, scores: npt.ArrayLike) -> float:
    """The mean, over good ones, of the precision among all that score at least as high. NaN where there is none."""
    return _precision(*_counts(*_ranked(truth, scores)))


def ranking(
    truth: npt.ArrayLike, scores: npt.ArrayLike, confidence: float = 0.95, resamples: int = 1000, seed: int = 0
) -> dict[str, Figure]:
    """`roc_auc` and `average_precision` with percentile intervals over items drawn anew (as `intervals.bootstrap`).

    Draws without both kinds are left out. Raises ValueError where the items themselves aren't of both kinds.
    """
    good, rank = _ranked(truth, scores)
    if not 0 < good.sum() < len(good):
        raise ValueError("ranking takes items of both kinds")
    draw = np.random.Generator(np.random.Philox(seed))
    drawn = []
    for _ in range(resamples):
        chosen = draw.integers(len(good), size=len(good))
        if 0 < good[chosen].sum() < len(good):
            drawn.append([f(*_counts(good[chosen], rank[chosen])) for f in (_area, _precision)])
    whole = [f(*_counts(good, rank)) for f in (_area, _precision)]
    tail = (1 - confidence) / 2
    low, high = np.quantile(np.array(drawn or [whole]), [tail, 1 - tail], axis=0)
    return {
        name: Figure(whole[k], float(low[k]), float(high[k])) for k, name in enumerate(("roc_auc", "average_precision"))
    }


def _ranked(truth: npt.ArrayLike, scores: npt.ArrayLike) -> tuple[Floats, npt.NDArray[Any]]:
    """Which are good (0 or 1), and the rank of each one's score among the distinct ones, 0 the highest."""
    _, rank = np.unique(-np.asarray(scores, np.float64), return_inverse=True)
    return np.asarray(truth, np.float64), rank


def _counts(good: Floats, rank: npt.NDArray[Any]) -> tuple[Floats, Floats]:
    """Good ones and others at each distinct score, highest first."""
    size = int(rank.max()) + 1 if len(rank) else 0
    counts = [np.bincount(rank, weights, size).astype(np.float64) for weights in (good, 1.0 - good)]
    return counts[0], counts[1]


def _area(good: Floats, other: Floats) -> float:
    pairs = good.sum() * other.sum()
    return float((good * (other.sum() - np.cumsum(other) + other / 2)).sum() / pairs) if pairs else float("nan")


def _precision(good: Floats, other: Floats) -> float:
    there = good > 0
    hits, seen = np.cumsum(good)[there], np.cumsum(good + other)[there]
    return float((good[there] * hits / seen).sum() / good.sum()) if good.sum() else float("nan")
