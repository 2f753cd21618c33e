"""Locality-sensitive hashing: a signature's bands become buckets, and documents that share a bucket become candidates.

The S-curve that says how likely a pair is to share one is in `config.collision_probability`.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from datalake.compiled import kernel
from datalake.dedup.texts.sorting import sort_hashes
from datalake.text.hashes import fmix64

Ints = npt.NDArray[np.int64]
Members = npt.NDArray[np.int32]

_STEP = np.uint64(0x9E3779B97F4A7C15)  # 2^64 / golden ratio, odd


@kernel
def _buckets(signatures: npt.NDArray[np.uint32], bands: int, rows: int, out: npt.NDArray[np.uint64]) -> None:
    for d in range(signatures.shape[0]):
        for band in range(bands):
            h = fmix64(np.uint64(band) + _STEP)
            for row in range(band * rows, (band + 1) * rows):
                h = fmix64((h ^ np.uint64(signatures[d, row])) * _STEP)
            out[d, band] = h


def buckets(signatures: npt.NDArray[np.uint32], bands: int, rows: int) -> Ints:
    """The 64-bit bucket of every document in every band, shape (documents, bands). Unlike rows collide at 2^-64."""
    out = np.empty((signatures.shape[0], bands), np.uint64)
    _buckets(signatures, bands, rows, out)
    return out.view(np.int64)


class Shared(NamedTuple):
    """One band's buckets with at least two documents: bucket k holds `members[starts[k]:starts[k + 1]]`, ascending."""

    members: Members
    starts: Ints


@kernel
def _shared(keys: npt.NDArray[np.uint64], order: Members) -> tuple[Members, Ints]:
    members, starts = np.empty(len(keys), np.int32), np.empty(len(keys) // 2 + 1, np.int64)
    found, written, first = 0, 0, 0
    starts[0] = 0
    for k in range(1, len(keys) + 1):
        if k < len(keys) and keys[k] == keys[first]:
            continue
        if k - first > 1:
            members[written : written + k - first] = order[first:k]
            written += k - first
            found += 1
            starts[found] = written
        first = k
    return members[:written].copy(), starts[: found + 1].copy()


def shared_buckets(band: Ints) -> Shared:
    """Groups documents by their bucket in one band (shape (documents,)); documents alone in theirs are left out."""
    return Shared(*_shared(*sort_hashes(band.view(np.uint64))))
