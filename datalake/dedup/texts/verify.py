"""Candidates of the bands, each verified by the exact Jaccard similarity of the two shingle sets.

Documents are taken in order of precedence, some at a time. `link` compares each with those before it in its small
buckets, a pair once, and measures on the spot: candidates are never stored, only what passes the floor. `settle` then
compares documents of large buckets with what was kept there so far, and removes the ones that have a kept partner.
What is held of pairs is those of the documents at hand.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from datalake.compiled import kernel
from datalake.dedup.texts.bands import Shared

Ints = npt.NDArray[np.int64]
Hashes = npt.NDArray[np.uint64]
Places = npt.NDArray[np.int32]
Floats = npt.NDArray[np.float64]


class Sets(NamedTuple):
    """Shingle sets, flat: set k is `values[begins[k]:ends[k]]`, sorted as unsigned, each value once."""

    values: Hashes
    begins: Ints
    ends: Ints


class Links(NamedTuple):
    """Verified pairs first < second with their similarity, and how many candidates were measured to find them."""

    first: Places
    second: Places
    similarity: Floats
    candidates: int


@kernel
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


@kernel
def _meet(members: Places, starts: Ints, limit: int, before: Places, most: Ints, large: int) -> int:
    for bucket in range(len(starts) - 1):
        begin, end = starts[bucket], starts[bucket + 1]
        if end - begin > limit:
            for p in range(begin, end):
                before[members[p]] = -2 - large
                most[members[p]] += limit
            large += 1
        else:
            for p in range(begin + 1, end):
                before[members[p]] = members[p - 1]
                most[members[p]] += p - begin
    return large


class Meetings:
    """Where `count` documents meet those before them, band by band."""

    def __init__(self, count: int, bands: int, limit: int):
        """Buckets of more than `limit` documents are large."""
        self.limit = limit
        # Of a document in a band: the one before it in its small bucket, -1 without one, -2 - n in large bucket n.
        self.before = np.full((count, bands), -1, np.int32)
        self.most = np.zeros(count, np.int64)  # so many pairs with documents before it are found at most
        self.large = 0  # large buckets, numbered through all bands

    def enter(self, band: int, shared: Shared) -> None:
        """Take up the buckets of one band."""
        self.large = _meet(*shared, self.limit, self.before[:, band], self.most, self.large)


@kernel
def _link(
    before: Places, start: int, stop: int, room: int, measured: Places, sets: Sets, floor: float
) -> tuple[Places, Places, Floats, int]:
    values, begins, ends = sets
    first, second, similarity = np.empty(room, np.int32), np.empty(room, np.int32), np.empty(room, np.float64)
    found, candidates = 0, 0
    for d in range(start, stop):
        for band in range(before.shape[1]):
            i = before[d, band]
            while i >= 0:
                if measured[i] != d:
                    measured[i] = d
                    candidates += 1
                    alike = jaccard(values, begins, ends, i, d, floor)
                    if alike >= floor:
                        first[found], second[found], similarity[found] = i, d, alike
                        found += 1
                i = before[i, band]
    return first[:found], second[:found], similarity[:found], candidates


def link(meetings: Meetings, start: int, stop: int, measured: Places, sets: Sets, floor: float) -> Links:
    """The verified pairs of documents from `start` to `stop` with those before them in small buckets, by `second`.

    `measured`, shape (documents,), is scratch: -1 at first, then handed on to the calls for later documents.
    """
    room = int(meetings.most[start:stop].sum())
    return Links(*_link(meetings.before, start, stop, room, measured, sets, floor))


@kernel
def _settle(
    before: Places,
    start: int,
    stop: int,
    room: int,
    starts: Ints,
    first: Places,
    alike: Floats,
    threshold: float,
    floor: float,
    partner: Ints,
    similarity: Floats,
    kept: Places,
    filled: Ints,
    compared: Places,
    sets: Sets,
) -> tuple[Places, Places, Floats, int, int]:
    values, begins, ends = sets
    bands, limit = before.shape[1], kept.shape[1]
    out_first, out_second, out_alike = np.empty(room, np.int32), np.empty(room, np.int32), np.empty(room, np.float64)
    found, candidates, crowded = 0, 0, 0
    for d in range(start, stop):
        best, best_alike = np.int64(-1), 0.0
        for k in range(starts[d - start], starts[d - start + 1]):
            i, s = np.int64(first[k]), alike[k]
            compared[i] = d
            if s >= threshold and partner[i] < 0 and (s > best_alike or (s == best_alike and i < best)):
                best, best_alike = i, s
        for band in range(bands):
            bucket = -2 - before[d, band]
            if bucket < 0:
                continue
            for k in range(filled[bucket]):
                i = np.int64(kept[bucket, k])
                if compared[i] == d:
                    continue
                compared[i] = d
                candidates += 1
                s = jaccard(values, begins, ends, i, d, floor)
                if s < floor:
                    continue
                out_first[found], out_second[found], out_alike[found] = i, d, s
                found += 1
                if s >= threshold and (s > best_alike or (s == best_alike and i < best)):
                    best, best_alike = i, s
        if best >= 0:
            partner[d], similarity[d] = best, best_alike
            continue
        met = False
        for band in range(bands):
            bucket = -2 - before[d, band]
            if bucket < 0:
                continue
            if filled[bucket] < limit:
                kept[bucket, filled[bucket]] = d
                filled[bucket] += 1
            else:
                met = True
        crowded += met
    return out_first[:found], out_second[:found], out_alike[:found], candidates, crowded


class Settling:
    """Settles which documents stay, in order of precedence.

    A document goes when one that stays is at or above the threshold: its most similar one, the first among equals.
    Besides its links, it is measured against the first `limit` documents that stayed in each of its large buckets.
    """

    def __init__(self, meetings: Meetings, threshold: float, floor: float, sets: Sets):
        count = len(meetings.before)
        self.partner = np.full(count, -1, np.int64)  # the kept document that replaces each one; -1: it stays
        self.similarity = np.ones(count)  # to that one
        self.crowded = 0  # documents that stay and of which a large bucket took no more
        self._meetings, self._threshold, self._floor, self._sets = meetings, threshold, floor, sets
        self._kept = np.empty((meetings.large, meetings.limit), np.int32)  # the first ones kept in each large bucket
        self._filled = np.zeros(meetings.large, np.int64)
        self._compared = np.full(count, -1, np.int32)  # the last document that each was compared with

    def settle(self, start: int, stop: int, links: Links) -> Links:
        """Settle documents from `start` to `stop`, the next ones, and return the pairs found in large buckets.

        `links` are theirs, by `second`.
        """
        room = int(self._meetings.most[start:stop].sum()) if self._meetings.large else 0
        first, second, similarity, candidates, crowded = _settle(
            self._meetings.before,
            start,
            stop,
            room,
            np.searchsorted(links.second, np.arange(start, stop + 1)),
            links.first,
            links.similarity,
            self._threshold,
            self._floor,
            self.partner,
            self.similarity,
            self._kept,
            self._filled,
            self._compared,
            self._sets,
        )
        self.crowded += crowded
        return Links(first, second, similarity, candidates)
