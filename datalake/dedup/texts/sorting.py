"""Sorting by hashes: linear, since hashes are even over their range, and in the processor's caches.

Values are parted by their leading bits into stretches that fit a cache, and there by further bits into slots of a few.
However they lie, the result is right: where many share a slot, a comparison sort takes over.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from datalake.compiled import kernel

Hashes = npt.NDArray[np.uint64]
Places = npt.NDArray[np.int32]
Ints = npt.NDArray[np.int64]

_PART_BITS = 9
_WHOLE = 1 << 15  # so many are one stretch
_FEW = 32  # values of a slot that are sorted by insertion


@kernel
def sort_hashes(values: Hashes) -> tuple[Hashes, Places]:
    """The values in ascending order, and where each was; equal ones in the order they came."""
    count = len(values)
    part_bits = _PART_BITS if count > _WHOLE else 1
    shift = np.uint64(64 - part_bits)
    ends = np.zeros((1 << part_bits) + 1, np.int64)
    for k in range(count):
        ends[np.int64(values[k] >> shift) + 1] += 1
    longest = 0
    for part in range(1 << part_bits):
        longest = max(longest, ends[part + 1])
        ends[part + 1] += ends[part]
    parted, origin = np.empty(count, np.uint64), np.empty(count, np.int32)
    for k in range(count):
        leading = np.int64(values[k] >> shift)
        parted[ends[leading]], origin[ends[leading]] = values[k], k
        ends[leading] += 1

    keys, order = np.empty(count, np.uint64), np.empty(count, np.int32)
    bits = 1
    while 1 << bits < longest:
        bits += 1
    slots = np.empty((1 << bits) + 1, np.int64)
    begin = 0
    for part in range(1 << part_bits):
        end = ends[part]
        bits = 1
        while 1 << bits < end - begin:
            bits += 1
        below, mask = np.uint64(64 - part_bits - bits), np.uint64((1 << bits) - 1)
        slots[: (1 << bits) + 1] = 0
        for k in range(begin, end):
            slots[np.int64(parted[k] >> below & mask) + 1] += 1
        for slot in range(1 << bits):
            slots[slot + 1] += slots[slot]
        for k in range(begin, end):
            further = np.int64(parted[k] >> below & mask)
            keys[begin + slots[further]], order[begin + slots[further]] = parted[k], origin[k]
            slots[further] += 1
        low = begin
        for slot in range(1 << bits):
            high = begin + slots[slot]
            if high - low > _FEW:
                chosen = np.argsort(keys[low:high], kind="mergesort")
                keys[low:high], order[low:high] = keys[low:high][chosen], order[low:high][chosen]
            else:
                for k in range(low + 1, high):
                    value, place = keys[k], order[k]
                    gap = k
                    while gap > low and keys[gap - 1] > value:
                        keys[gap], order[gap] = keys[gap - 1], order[gap - 1]
                        gap -= 1
                    keys[gap], order[gap] = value, place
            low = high
        begin = end
    return keys, order


@kernel
def _order_ties(keys: Hashes, order: Places, lower: Hashes) -> None:
    """Where keys are equal, order by the lower halves instead, ties as they are."""
    first = 0
    for k in range(1, len(keys) + 1):
        if k < len(keys) and keys[k] == keys[first]:
            continue
        if k - first > 1:
            here = order[first:k]
            apart = False
            for m in range(1, len(here)):
                apart |= lower[here[m]] < lower[here[m - 1]]
            if apart:
                order[first:k] = here[np.argsort(lower[here], kind="mergesort")]
        first = k


def sort_halves(halves: Hashes) -> Places:
    """The order of 128-bit hashes, shape (rows, 2), high half first; equal ones in the order they came."""
    keys, order = sort_hashes(np.ascontiguousarray(halves[:, 0]))
    _order_ties(keys, order, np.ascontiguousarray(halves[:, 1]))
    return order
