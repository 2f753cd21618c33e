"""Whether a model trained on one mixture is better than the same model trained on another: bits per byte of the same
held-out documents, over pairs of trainings that share a seed.

A difference comes about by what was drawn twice: the seeds, whose trainings are few, and the documents, of which a
corpus could have held out others. The interval counts both (crossed random effects: Clark 1973, J. Verbal Learning
12:335-359), with Student's t for as many degrees of freedom as there are seeds, less one: it errs to the wide side.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import stats

Floats = npt.NDArray[np.float64]
CONFIDENCE = 0.99  # at 0.95 one of twenty comparisons of a mixture with itself would find a difference


def ablation(first: Floats, second: Floats, sizes: Floats, confidence: float = CONFIDENCE) -> dict[str, Any]:
    """Compare mixtures by the nats (S, n) that models of S seeds lose on n documents of `sizes` bytes.

    Gives `first` and `second` in bits per byte, their `difference` (second less first) with `low` and `high`, `seeds`,
    `documents`, and the `verdict` on the second: `better`, `worse`, or `no difference` where the interval has 0 in it.
    Raises ValueError for fewer than two seeds.
    """
    seeds, documents = first.shape
    if seeds < 2 or first.shape != second.shape or sizes.shape != (documents,):
        raise ValueError(f"nats {first.shape} and {second.shape} of documents {sizes.shape}: pairs of 2 seeds at least")
    weights = sizes.sum() * math.log(2)
    gaps = (second - first) / weights  # of each seed and document the part of the difference in bits per byte
    by_seed = gaps.sum(1)
    difference = float(by_seed.mean())
    # A ratio's error over documents: what each adds beyond its share of the bytes
    added = gaps.mean(0) - difference * sizes / sizes.sum()
    of_seeds = by_seed.var(ddof=1) / seeds
    of_documents = documents / max(documents - 1, 1) * float((added**2).sum())
    half = float(stats.t.ppf(0.5 + confidence / 2, seeds - 1) * math.sqrt(of_seeds + of_documents))
    low, high = difference - half, difference + half
    verdict = "better" if high < 0 else "worse" if low > 0 else "no difference"
    return {
        "first": float(first.sum(1).mean() / weights),
        "second": float(second.sum(1).mean() / weights),
        "difference": difference,
        "low": low,
        "high": high,
        "seeds": seeds,
        "documents": documents,
        "verdict": verdict,
    }
