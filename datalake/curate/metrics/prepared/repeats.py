"""Equal items are found by 64-bit hashes: two different ones collide with a probability of about 2^-64 per pair."""

from __future__ import annotations

import numpy as np

from datalake.compiled import kernel
from datalake.curate.metrics.prepared.document import Hashes, Places, Repeats
from datalake.text.characters import Points
from datalake.text.hashes import fmix64

K1 = np.uint64(0x9E3779B97F4A7C15)  # 2^64 / golden ratio
BASE = np.uint64(0xD6E8FEB86659FD93)


@kernel
def hash_span(codes: Points, start: int, end: int, lower: Points) -> np.uint64:
    """The 64-bit hash of a span's code points, each through the table `lower`, two of them a step."""
    h = np.uint64(end - start)
    k = start
    while k + 1 < end:
        h = (h ^ (np.uint64(lower[codes[k]]) | np.uint64(lower[codes[k + 1]]) << np.uint64(32))) * K1
        h ^= h >> np.uint64(29)
        k += 2
    if k < end:
        h = (h ^ np.uint64(lower[codes[k]])) * K1
        h ^= h >> np.uint64(29)
    return fmix64(h)


@kernel
def hash_exact(codes: Points, start: int, end: int) -> np.uint64:
    """The 64-bit hash of a span's code points as they stand, two of them a step."""
    h = np.uint64(end - start)
    k = start
    while k + 1 < end:
        h = (h ^ (np.uint64(codes[k]) | np.uint64(codes[k + 1]) << np.uint64(32))) * K1
        h ^= h >> np.uint64(29)
        k += 2
    if k < end:
        h = (h ^ np.uint64(codes[k])) * K1
        h ^= h >> np.uint64(29)
    return fmix64(h)


@kernel
def group(hashes: Hashes, count: int, first: Places, counts: Places) -> None:
    """For each item, the index of its first equal into `first`, and there how many are equal into `counts`."""
    bits = 3
    while 1 << bits < 2 * count:
        bits += 1
    mask = (1 << bits) - 1
    slots = np.full(1 << bits, -1, np.int64)
    for k in range(count):
        h = hashes[k]
        at = np.int64(h >> np.uint64(20)) & mask
        while slots[at] >= 0 and hashes[slots[at]] != h:
            at = (at + 1) & mask
        if slots[at] < 0:
            slots[at] = k
            counts[k] = 0
        first[k] = slots[at]
        counts[slots[at]] += 1


@kernel
def repeats(starts: Places, ends: Places, hashes: Hashes, count: int) -> Repeats:
    """How often items repeat, and how many characters that makes."""
    first, counts = np.empty(count, np.int64), np.empty(count, np.int64)
    group(hashes, count, first, counts)
    total, every, characters, later, later_characters = 0, 0, 0, 0, 0
    for k in range(count):
        length = ends[k] - starts[k]
        total += length
        if counts[first[k]] > 1:
            every += 1
            characters += length
            if first[k] != k:
                later += 1
                later_characters += length
    return Repeats(every, characters, later, later_characters, total)
