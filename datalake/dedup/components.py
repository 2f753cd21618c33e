"""Connected groups of joined pairs, over flat arrays.

Nothing is removed because of its group alone (see decide.py); groups tell how far similarity spread through links, and
large ones with many kept documents were held together by weak links.
"""

from __future__ import annotations

import numba
import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.int64]


@numba.njit(cache=True, nogil=True)
def components(count: int, first: Ints, second: Ints) -> Ints:
    """For each of `count` documents the smallest index in its connected group (union-find with path halving)."""
    parent = np.arange(count)
    for k in range(len(first)):
        a, b = first[k], second[k]
        while parent[a] != a:
            parent[a] = parent[parent[a]]
            a = parent[a]
        while parent[b] != b:
            parent[b] = parent[parent[b]]
            b = parent[b]
        if a < b:
            parent[b] = a
        else:
            parent[a] = b
    for k in range(count):  # a parent is never larger than its child, so one pass upwards settles all
        parent[k] = parent[parent[k]]
    return parent
