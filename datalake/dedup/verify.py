"""Candidates of the bands, each verified by the exact Jaccard similarity of the two shingle sets.

A pair is visited once, at the first band in which it shares a small bucket, and measured on the spot: candidates are
never stored, only what passes the floor. `settle` then takes the documents in order, compares those of large buckets
with what was kept there so far, and removes the ones that have a kept partner.

Everything compiled that measures stands in this one file: numba's cache notices a changed file, not a changed callee in
another one.
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


class Numbered(NamedTuple):
    """Large buckets, numbered through all bands: document k is in `numbers[starts[k]:starts[k + 1]]`; how many."""

    starts: Ints
    numbers: Ints
    total: int


class Settled(NamedTuple):
    """For each node the kept node that replaces it (-1: kept itself) and their similarity; pairs found on the way."""

    partner: Ints
    similarity: npt.NDArray[np.float64]
    first: Ints
    second: Ints
    alike: npt.NDArray[np.float64]
    candidates: int
    crowded: int  # nodes that stay and of which a large bucket took no more


@numba.njit(cache=True, nogil=True)
def _settle(
    count: int,
    starts: Ints,
    first: Ints,
    alike: npt.NDArray[np.float64],
    threshold: float,
    floor: float,
    bucket_starts: Ints,
    bucket_numbers: Ints,
    bucket_count: int,
    limit: int,
    values: Hashes,
    begins: Ints,
    ends: Ints,
) -> tuple[Ints, npt.NDArray[np.float64], Ints, Ints, npt.NDArray[np.float64], int, int]:
    partner, similarity = np.full(count, -1, np.int64), np.ones(count, np.float64)
    kept = np.empty((bucket_count, limit), np.int64)  # the first documents kept in each large bucket
    filled = np.zeros(bucket_count, np.int64)
    compared = np.full(count, -1, np.int64)  # the last document that each was compared with
    room, found, candidates, crowded = 1024, 0, 0, 0
    out_first, out_second, out_alike = np.empty(room, np.int64), np.empty(room, np.int64), np.empty(room, np.float64)
    for d in range(count):
        best, best_alike = np.int64(-1), 0.0
        for k in range(starts[d], starts[d + 1]):
            i = first[k]
            compared[i] = d
            if alike[k] >= threshold and partner[i] < 0 and alike[k] > best_alike:
                best, best_alike = i, alike[k]
        for b in range(bucket_starts[d], bucket_starts[d + 1]):
            bucket = bucket_numbers[b]
            for k in range(filled[bucket]):
                i = kept[bucket, k]
                if compared[i] == d:
                    continue
                compared[i] = d
                candidates += 1
                s = jaccard(values, begins, ends, i, d, floor)
                if s < floor:
                    continue
                if found == room:
                    out_first = np.concatenate((out_first, np.empty(room, np.int64)))
                    out_second = np.concatenate((out_second, np.empty(room, np.int64)))
                    out_alike = np.concatenate((out_alike, np.empty(room, np.float64)))
                    room *= 2
                out_first[found], out_second[found], out_alike[found] = i, d, s
                found += 1
                if s >= threshold and (s > best_alike or (s == best_alike and i < best)):
                    best, best_alike = i, s
        if best >= 0:
            partner[d], similarity[d] = best, best_alike
            continue
        met = False
        for b in range(bucket_starts[d], bucket_starts[d + 1]):
            bucket = bucket_numbers[b]
            if filled[bucket] < limit:
                kept[bucket, filled[bucket]] = d
                filled[bucket] += 1
            else:
                met = True
        crowded += met
    return partner, similarity, out_first[:found], out_second[:found], out_alike[:found], candidates, crowded


def settle(
    count: int, links: Links, threshold: float, floor: float, buckets: Numbered, limit: int, sets: Sets
) -> Settled:
    """Takes `count` documents in order of precedence and settles which stay; `links` are sorted by second, then first.

    A document goes when one that stays is at or above the threshold: its most similar one, the first among equals.
    Besides its links, it is measured against the first `limit` documents that stayed in each of its large buckets.
    """
    starts = np.searchsorted(links.second, np.arange(count + 1))
    where, numbers, total = buckets
    values, begins, ends = sets
    return Settled(
        *_settle(
            count,
            starts,
            links.first,
            links.similarity,
            threshold,
            floor,
            where,
            numbers,
            total,
            limit,
            values,
            begins,
            ends,
        )
    )
