"""Candidates of the bands, each verified by the exact Jaccard similarity of the two shingle sets.

A pair is visited once, at the first band in which it shares a small bucket, and measured on the spot: candidates are
never stored, only what passes the floor.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numba
import numpy as np
import numpy.typing as npt

from datalake.dedup.bands import Shared

Ints = npt.NDArray[np.int64]
Hashes = npt.NDArray[np.uint64]


class Sets(NamedTuple):
    """Shingle sets, flat: set k is `values[begins[k]:ends[k]]`, sorted as unsigned, each value once."""

    values: Hashes
    begins: Ints
    ends: Ints


class Links(NamedTuple):
    """Verified pairs first < second with their similarity, and how many candidates were measured to find them."""

    first: Ints
    second: Ints
    similarity: npt.NDArray[np.float64]
    candidates: int


@numba.njit(cache=True, nogil=True)
def jaccard(values: Hashes, begins: Ints, ends: Ints, i: Any, j: Any, floor: float) -> float:
    """|A n B| / |A u B| of two non-empty sets; 0.0 as soon as it is certain to be below the floor."""
    x, y, stop_x, stop_y = begins[i], begins[j], ends[i], ends[j]
    size_x, size_y = stop_x - x, stop_y - y
    if min(size_x, size_y) / max(size_x, size_y) < floor:  # the most that the sizes allow, rounded as the result is
        return 0.0
    both = 0
    while x < stop_x and y < stop_y:
        u, v = values[x], values[y]
        both += u == v
        x += u <= v
        y += v <= u
    return both / (size_x + size_y - both)


@numba.njit(cache=True, nogil=True)
def _link(
    bands: npt.NDArray[np.int64],
    large: npt.NDArray[np.bool_],
    band: int,
    members: npt.NDArray[np.int32],
    starts: Ints,
    limit: int,
    values: Hashes,
    begins: Ints,
    ends: Ints,
    floor: float,
) -> tuple[Ints, Ints, npt.NDArray[np.float64], int]:
    room, found, candidates = 1024, 0, 0
    first, second, similarity = np.empty(room, np.int64), np.empty(room, np.int64), np.empty(room, np.float64)
    for bucket in range(len(starts) - 1):
        if starts[bucket + 1] - starts[bucket] > limit:
            continue
        for p in range(starts[bucket], starts[bucket + 1]):
            i = np.int64(members[p])
            for q in range(p + 1, starts[bucket + 1]):
                j = np.int64(members[q])
                seen = False
                for earlier in range(band):
                    if bands[i, earlier] == bands[j, earlier] and not large[i, earlier]:
                        seen = True
                        break
                if seen:
                    continue
                candidates += 1
                alike = jaccard(values, begins, ends, i, j, floor)
                if alike < floor:
                    continue
                if found == room:
                    first = np.concatenate((first, np.empty(room, np.int64)))
                    second = np.concatenate((second, np.empty(room, np.int64)))
                    similarity = np.concatenate((similarity, np.empty(room, np.float64)))
                    room *= 2
                first[found], second[found], similarity[found] = i, j, alike
                found += 1
    return first[:found], second[:found], similarity[:found], candidates


def link_band(
    bands: Ints, large: npt.NDArray[np.bool_], band: int, shared: Shared, limit: int, sets: Sets, floor: float
) -> Links:
    """The verified pairs that one band is the first to propose, from its buckets of at most `limit` documents.

    `bands` (documents, bands) are all buckets and `large` says which of them have more than `limit` documents. The
    bands are independent of each other: together they give every pair once.
    """
    members, starts = shared
    values, begins, ends = sets
    return Links(*_link(bands, large, band, members, starts, limit, values, begins, ends, floor))
