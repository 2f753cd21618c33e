"""Repeated n-grams by three definitions, in one pass: a gram can only repeat where both shorter ones in it do.

So longer n-grams are looked up at few places.
"""

from __future__ import annotations

import numpy as np

from datalake.compiled import kernel
from datalake.curate.metrics.prepared.document import Hashes, Numbers, Places
from datalake.curate.metrics.prepared.repeats import BASE
from datalake.text.hashes import fmix64


@kernel
def grams(hashes: Hashes, starts: Places, ends: Places, count: int, size: int) -> tuple[Numbers, Numbers, Numbers]:
    """What repeats of the n-grams of `count` words in a text of `size` characters: `covered`, `later`, `repeated`."""
    covered_shares, later_shares, repeated_shares = np.full(9, np.nan), np.full(9, np.nan), np.full(6, np.nan)
    if not count:
        return covered_shares, later_shares, repeated_shares
    covered_shares[:] = 0.0
    later_shares[:] = 0.0
    repeated_shares[:] = 0.0
    sums = np.empty(count + 1, np.int64)  # characters of words before each
    sums[0] = 0
    for k in range(count):
        sums[k + 1] = sums[k] + ends[k] - starts[k]
    total = sums[count]
    rolled = hashes[:count].copy()
    repeats = np.ones(count, np.bool_)  # whether the gram of the length before repeats
    ids = np.empty(count, np.int64)
    counts = np.zeros(count, np.int64)
    bits = 3
    while 1 << bits < 2 * count:
        bits += 1
    slots = np.empty(1 << bits, np.int64)
    for n in range(2, 11):
        last = count - n + 1
        if last < 1:
            break
        asked = 0
        for k in range(last):
            rolled[k] = rolled[k] * BASE + hashes[k + n - 1]
            if repeats[k] and repeats[k + 1]:
                asked += 1
        if asked < 2:
            break
        bits = 3
        while 1 << bits < 2 * asked:
            bits += 1
        mask = (1 << bits) - 1
        slots[: mask + 1] = -1
        for k in range(last):
            ids[k] = -1
            if not (repeats[k] and repeats[k + 1]):
                continue
            gram = rolled[k]
            at = np.int64(fmix64(gram) >> np.uint64(20)) & mask
            while slots[at] >= 0 and rolled[slots[at]] != gram:
                at = (at + 1) & mask
            if slots[at] < 0:
                slots[at] = k
                counts[k] = 0
            ids[k] = slots[at]
            counts[slots[at]] += 1
        most, longest, first = 1, 0, 0  # first: where the most frequent gram that comes first begins
        for k in range(last):
            repeats[k] = ids[k] >= 0 and counts[ids[k]] > 1
            if repeats[k]:
                times = counts[ids[k]]
                length = sums[k + n] - sums[k]
                if times > most:
                    most, longest, first = times, length, k
                elif times == most:
                    longest = max(longest, length)
        for k in range(last, count):
            repeats[k] = False
        if most == 1:
            break
        if n < 5:
            covered_shares[n - 2] = most * longest / total
            later_shares[n - 2] = most * (sums[first + n] - sums[first] + n - 1) / size
            continue
        covered, until, repeating, every = 0, 0, 0, 0
        for k in range(last):
            every += sums[k + n] - sums[k]
            if repeats[k]:
                covered += sums[k + n] - sums[max(k, until)]
                until = k + n
                repeating += sums[k + n] - sums[k]
        covered_shares[n - 2] = covered / total
        repeated_shares[n - 5] = repeating / every
        seen_characters, k = 0, 0
        while k < last:
            if repeats[k] and counts[ids[k]] < 0:
                seen_characters += sums[k + n] - sums[k]
                k += n
            else:
                if repeats[k]:
                    counts[ids[k]] = -counts[ids[k]]  # seen
                k += 1
        later_shares[n - 2] = seen_characters / size
    return covered_shares, later_shares, repeated_shares
