"""MinHash signatures from 32-bit shingle hashes, bit for bit those of datasketch 2.0's scheme `affine32`.

Row k of a signature is the least of fmix32(h) * a_k + b_k mod 2^32 over the set's hashes h, where a_k is odd and fmix32
is the 32-bit finaliser of MurmurHash3 (datasketch/minhash.py, `_fmix` and `_init_permutations`; Broder 1997 for the
estimator).
"""

from __future__ import annotations

from functools import cache

import numpy as np
import numpy.typing as npt

from datalake.compiled import kernel

Rows = npt.NDArray[np.uint32]
Hashes = npt.NDArray[np.uint64]
Ints = npt.NDArray[np.int64]

EMPTY = np.uint32(0xFFFFFFFF)  # every row of an empty set's signature


@cache
def permutations(count: int, seed: int) -> tuple[Rows, Rows]:
    """The factors a (odd) and offsets b of `count` permutations of the 32-bit numbers, each of shape (count,)."""
    generator = np.random.RandomState(seed)
    a = generator.randint(0, 1 << 31, count, dtype=np.uint32) * np.uint32(2) + np.uint32(1)
    b = generator.randint(0, 1 << 32, count, dtype=np.uint32)
    return a, b


@kernel(nogil=False)
def _fmix32(h: np.uint32) -> np.uint32:
    h = np.uint32(h ^ (h >> np.uint32(16)))
    h = np.uint32(h * np.uint32(0x85EBCA6B))
    h = np.uint32(h ^ (h >> np.uint32(13)))
    h = np.uint32(h * np.uint32(0xC2B2AE35))
    return np.uint32(h ^ (h >> np.uint32(16)))


@kernel
def _sign(hashes: Hashes, ends: Ints, a: Rows, b: Rows, signatures: npt.NDArray[np.uint32]) -> None:
    row = np.empty(len(a), np.uint32)
    begin = 0
    for d in range(len(ends)):
        row[:] = EMPTY
        for s in range(begin, ends[d]):
            h = _fmix32(np.uint32(hashes[s] & np.uint64(0xFFFFFFFF)))
            for k in range(len(a)):
                row[k] = min(row[k], np.uint32(h * a[k] + b[k]))
        signatures[d, :] = row
        begin = ends[d]


def sign(hashes: Hashes, ends: Ints, count: int, seed: int) -> npt.NDArray[np.uint32]:
    """Signatures of shape (sets, count). Set k's hashes are `hashes[ends[k - 1]:ends[k]]`; their low 32 bits count."""
    signatures = np.empty((len(ends), count), np.uint32)
    _sign(hashes, ends, *permutations(count, seed), signatures)
    return signatures
