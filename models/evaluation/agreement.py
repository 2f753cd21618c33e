"""How far people agree who judge the same things, beyond what chance would give: 1 is always, 0 as by chance.

- Cohen's kappa (Cohen 1960, Educational and Psychological Measurement 20:37-46), of two people.
- Krippendorff's alpha (Krippendorff 2011, "Computing Krippendorff's Alpha-Reliability", by the coincidence matrix), of
  any number of people, each of whom may have judged only some.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Iterable, Sequence
from typing import Any

import numpy as np


def cohen_kappa(pairs: Iterable[tuple[Hashable, Hashable]]) -> float | None:
    """Kappa of two people's judgements, a pair for each thing that both have judged: (p_o - p_e) / (1 - p_e).

    p_o: the share of pairs that are equal; p_e: what it would be if each kept to his own frequencies and they were
    independent. None where nothing was judged by both, or both always said one same thing: chance explains it all.
    """
    seen = list(pairs)
    n = len(seen)
    if not n:
        return None
    first, second = (Counter(side) for side in zip(*seen, strict=True))
    chance = sum(count * second[value] for value, count in first.items())  # n squared times p_e
    equal = sum(one == other for one, other in seen)
    return None if chance == n * n else (n * equal - chance) / (n * n - chance)


def krippendorff_alpha(units: Iterable[Sequence[Any]], ordinal: bool = False) -> float | None:
    """Alpha of units, each with the values that people gave to it; whoever gave none is left out: 1 - D_o / D_e.

    A value paired with another of its unit adds 1 / (values of the unit - 1) to the coincidences o; n_c are their sums
    by value, n that of all. D_o sums o_ck times the difference of c and k, D_e so does with n_c n_k / (n - 1). It is
    0 or 1 (nominal), or that of the places of values in their order: (n_c / 2 + those between + n_k / 2) squared.

    None where no unit has two values, or all values are one: nothing can then be said.
    """
    judged = [values for values in units if len(values) > 1]
    scale = sorted({value for values in judged for value in values})
    place = {value: number for number, value in enumerate(scale)}
    o = np.zeros((len(scale), len(scale)))
    for values in judged:
        counts = np.bincount([place[value] for value in values], minlength=len(scale)).astype(float)
        o += (np.outer(counts, counts) - np.diag(counts)) / (len(values) - 1)
    if len(scale) < 2:
        return None
    n_c = o.sum(axis=0)
    if ordinal:
        middle = np.cumsum(n_c) - n_c / 2  # of each value's ranks
        difference = (middle[:, None] - middle[None, :]) ** 2
    else:
        difference = 1.0 - np.eye(len(scale))
    expected = float((np.outer(n_c, n_c) * difference).sum())
    return 1.0 - (float(n_c.sum()) - 1.0) * float((o * difference).sum()) / expected
