"""Connected groups, over flat arrays: of documents that share buckets, and of joined pairs.

Documents that share no bucket even through others have nothing to do with each other, so what shares some is decided
together and apart from the rest. Nothing is removed because of its group alone (see decide.py); groups of joined pairs
tell how far similarity spread through links, and large ones with many kept documents were held together by weak links.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from datalake.compiled import kernel

Ints = npt.NDArray[np.int64]


@kernel
def join_pairs(parent: Ints, first: Ints, second: Ints) -> None:
    """Unites two documents each in a forest of parents, none of which is larger than its child (path halving)."""
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


@kernel
def join(parent: Ints, members: npt.NDArray[np.int32], starts: Ints) -> None:
    """Unites the members of each bucket in a forest of parents, none of which is larger than its child."""
    for bucket in range(len(starts) - 1):
        a = np.int64(members[starts[bucket]])
        while parent[a] != a:
            parent[a] = parent[parent[a]]
            a = parent[a]
        for k in range(starts[bucket] + 1, starts[bucket + 1]):
            b = np.int64(members[k])
            while parent[b] != b:
                parent[b] = parent[parent[b]]
                b = parent[b]
            if a < b:
                parent[b] = a
            else:
                parent[a] = b
                a = b


@kernel
def settle_roots(parent: Ints) -> None:
    """Points every document to the smallest of its group; since no parent is larger than its child, one pass does."""
    for k in range(len(parent)):
        parent[k] = parent[parent[k]]
