"""Intervals for figures from few items: Wilson's for shares, the bootstrap's for means and ratios."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np


@dataclass(frozen=True, slots=True)
class Result:
    """One figure: its interval and how many items it is over. A figure that is no estimate has low = high = value."""

    task: str
    metric: str
    value: float
    low: float
    high: float
    n: int


def wilson(successes: float, n: int, confidence: float = 0.95) -> tuple[float, float]:
    """The score interval of a share (Wilson 1927, JASA 22:209-212): never outside [0, 1], sound for small n.

    `successes` may hold halves (ties). With no items it is (0, 1).
    """
    if n == 0:
        return 0.0, 1.0
    z = NormalDist().inv_cdf(0.5 + confidence / 2)
    share = successes / n
    centre = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    return max(0.0, centre - half), min(1.0, centre + half)


def bootstrap(
    totals: Sequence[float] | np.ndarray,
    weights: Sequence[float] | np.ndarray | None = None,
    confidence: float = 0.95,
    resamples: int = 1000,
    seed: int = 0,
) -> tuple[float, float]:
    """The percentile interval (Efron and Tibshirani 1993, chapter 13) of sum(totals) / sum(weights) over items drawn
    anew with replacement; without weights, of the mean. An item is what was drawn independently: a document, not a
    token.
    """
    top = np.asarray(totals, np.float64)
    under = np.ones_like(top) if weights is None else np.asarray(weights, np.float64)
    if not len(top):
        return math.nan, math.nan
    draw = np.random.Generator(np.random.Philox(seed))
    ratios = np.empty(resamples)
    for number in range(resamples):
        chosen = draw.integers(len(top), size=len(top))
        below = under[chosen].sum()
        ratios[number] = top[chosen].sum() / below if below else math.nan
    tail = (1 - confidence) / 2
    low, high = np.nanquantile(ratios, [tail, 1 - tail])
    return float(low), float(high)
