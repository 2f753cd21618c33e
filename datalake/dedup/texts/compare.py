"""Sets of shingles that share buckets, compared and settled in the order of precedence: some documents at a time.

The documents are those of one batch: whole groups, so that all that share a bucket are there (decide.py).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from datalake.dedup.texts.bands import shared_buckets
from datalake.dedup.texts.spill import Spill
from datalake.dedup.texts.verify import Links, Meetings, Sets, Settling, link

Ints = npt.NDArray[np.int64]
T = TypeVar("T")


def meetings_of(bands: Ints, rows: Ints, limit: int, threads: int, spill: Spill) -> Meetings:
    """Where some documents share buckets; `rows` are theirs in the shards, in order of precedence."""
    out = Meetings(len(rows), len(bands), limit)
    for start in range(0, len(bands), threads):  # a few at a time: each takes memory
        some = range(start, min(start + threads, len(bands)))
        for k, shared in zip(some, in_threads(lambda k: shared_buckets(bands[k][rows]), some, threads), strict=True):
            out.enter(k, shared)
        spill.touched(len(some) * bands[0].nbytes)
    return out


def compared(
    meetings: Meetings, settling: Settling, sets: Sets, floor: float, threads: int, room: int
) -> Iterator[Links]:
    """Compare and settle documents from the first to the last, as many at once as make about `room` pairs at most."""
    reached = np.cumsum(meetings.most)
    part = max(1, min(room, int(reached[-1])) // threads)
    bounds = [0, *(np.flatnonzero(np.diff(np.maximum(reached - 1, 0) // part)) + 1).tolist(), len(reached)]
    measured = [np.full(len(reached), -1, np.int32) for _ in range(threads)]
    for k in range(0, len(bounds) - 1, threads):
        some = bounds[k : k + threads + 1]

        def linked(k: int, some: Sequence[int] = some) -> Links:
            return link(meetings, some[k], some[k + 1], measured[k], sets, floor)

        parts = in_threads(linked, range(len(some) - 1), threads)
        first, second, similarity = (np.concatenate([links[k] for links in parts]) for k in range(3))
        links = Links(first, second, similarity, sum(links.candidates for links in parts))
        yield links
        yield settling.settle(some[0], some[-1], links)


def in_threads(work: Callable[[int], T], items: Sequence[int], threads: int) -> list[T]:
    """What a function gives for each of these numbers, by so many threads."""
    if threads <= 1:
        return [work(item) for item in items]
    with ThreadPoolExecutor(threads) as pool:
        return list(pool.map(work, items))
