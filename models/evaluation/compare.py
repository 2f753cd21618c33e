"""Which differences between two checkpoints are real: paired by item, since both were asked the same."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from models.evaluation.judged import Judged, figure

Floats = npt.NDArray[np.float64]
_FLIPS = 10_000


def compare(
    first: Sequence[Judged],
    second: Sequence[Judged],
    confidence: float = 0.95,
    resamples: int = 1000,
    seed: int = 0,
) -> list[dict[str, Any]]:
    """One row for each task, way of asking and metric that both have: `first`, `second` and their `difference` (second
    less first) over the `n` items that both answered, `low` and `high` of the difference, `p`, `real`, and `higher`,
    the share of items on which the second's figure is the higher one, ties counted half; of scores the win rate.

    The interval is the percentile bootstrap's over items. p is that of the test by swaps (Fisher 1935, chapter 3): how
    often a difference as large comes about when each item's two answers are swapped at random; of right and wrong
    answers it is McNemar's. `real`: p stays below 1 - confidence when all rows are judged together (Holm 1979, Scand.
    J. Statist. 6:65-70).
    """
    theirs = {_key(row): row for row in second}
    paired: dict[tuple[str, int, bool, str], list[tuple[float, float, float, float]]] = {}
    for row in first:
        other = theirs.get(_key(row))
        if other is None:
            continue
        for metric, parts in row.figures.items():
            if metric in other.figures:
                key = (row.task, row.shots, row.reasons, metric)
                paired.setdefault(key, []).append((*parts, *other.figures[metric]))
    rows: list[dict[str, Any]] = []
    for (task, shots, reasons, metric), values in paired.items():
        table = np.array(values, np.float64)
        before, after = (figure(metric, *table[:, part].sum(0)) for part in (slice(0, 2), slice(2, 4)))
        gaps = table[:, 2] / table[:, 3] - table[:, 0] / table[:, 1]
        low, high = _interval(metric, table, confidence, resamples, seed)
        rows.append(
            {
                "task": task,
                "shots": shots,
                "reasons": reasons,
                "metric": metric,
                "first": before,
                "second": after,
                "difference": after - before,
                "low": low,
                "high": high,
                "higher": float((gaps > 0).mean() + (gaps == 0).mean() / 2),
                "p": _p(metric, table, seed),
                "n": len(values),
            }
        )
    order = sorted(range(len(rows)), key=lambda number: rows[number]["p"])
    going = True
    for rank, number in enumerate(order):
        going = going and rows[number]["p"] <= (1 - confidence) / (len(rows) - rank)
        rows[number]["real"] = going
    return rows


def _key(row: Judged) -> tuple[str, int, bool, str]:
    return row.task, row.shots, row.reasons, row.item


def _interval(metric: str, table: Floats, confidence: float, resamples: int, seed: int) -> tuple[float, float]:
    draw = np.random.Generator(np.random.Philox(seed))
    drawn = []
    for _ in range(resamples):
        a, b, c, d = table[draw.integers(len(table), size=len(table))].sum(0)
        drawn.append(figure(metric, c, d) - figure(metric, a, b))
    tail = (1 - confidence) / 2
    low, high = np.nanquantile(drawn, [tail, 1 - tail])
    return float(low), float(high)


def _p(metric: str, table: Floats, seed: int) -> float:
    """Of the difference of the ratios, each item's two answers swapped or not; what was seen counts as one draw."""
    one, other = table[:, :2], table[:, 2:]
    if np.array_equal(one, other):
        return 1.0
    seen = abs(figure(metric, *other.sum(0)) - figure(metric, *one.sum(0)))
    draw = np.random.Generator(np.random.Philox([seed, 1]))
    total, gap = one.sum(0) + other.sum(0), other - one
    as_large = 1
    for start in range(0, _FLIPS, 1000):
        signs = draw.integers(0, 2, size=(min(1000, _FLIPS - start), len(table))) * 2.0 - 1
        for shift in signs @ gap:
            swapped = figure(metric, *(total + shift) / 2) - figure(metric, *(total - shift) / 2)
            as_large += abs(swapped) >= seen * (1 - 1e-12)
    return as_large / (_FLIPS + 1)
