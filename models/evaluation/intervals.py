"""Intervals around measured shares: Wilson 1927, which holds its level for few trials and shares near 0 or 1."""

from __future__ import annotations

from statistics import NormalDist


def wilson(successes: float, trials: int, confidence: float = 0.95) -> tuple[float, float]:
    """The score interval of a share: the shares that `successes` of `trials` don't speak against. (0, 1) for no trials.

    `successes` may hold halves, for ties.
    """
    if trials == 0:
        return 0.0, 1.0
    z = NormalDist().inv_cdf(0.5 + confidence / 2)
    share = successes / trials
    centre = share + z * z / (2 * trials)
    reach = z * (share * (1 - share) / trials + z * z / (4 * trials * trials)) ** 0.5
    whole = 1 + z * z / trials
    return max(0.0, (centre - reach) / whole), min(1.0, (centre + reach) / whole)
