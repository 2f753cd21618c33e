"""The one finaliser behind every compiled 64-bit hash: of words, n-grams, shingles and bands.

Nothing here changes: it is a published definition, and stored hashes rest on it.
"""

from __future__ import annotations

import numpy as np

from datalake.compiled import kernel

_M1 = np.uint64(0xFF51AFD7ED558CCD)
_M2 = np.uint64(0xC4CEB9FE1A85EC53)


@kernel(inline="always")
def fmix64(h: np.uint64) -> np.uint64:
    """The 64-bit finaliser of MurmurHash3 (Appleby): a bijection in which every input bit moves every output bit."""
    h ^= h >> np.uint64(33)
    h *= _M1
    h ^= h >> np.uint64(33)
    h *= _M2
    h ^= h >> np.uint64(33)
    return h
