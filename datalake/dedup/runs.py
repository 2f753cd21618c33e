"""Rows of integers that memory needn't hold: sorted runs in a scratch file, read by ranges or merged."""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

Ints: TypeAlias = npt.NDArray[np.int64]


class Runs:
    """Rows of `width` integers in a scratch file, in sorted runs: a range of the first column is read at a time."""

    def __init__(self, folder: Path, name: str, width: int, by: int | None = None):
        """`by`: how many columns, from the first, rows are sorted by; all if not given."""
        self.width, self.by = width, by
        self.total = 0
        self._path = folder / f"{name}.bin"
        self._bounds = [0]
        self._rows: np.memmap[Any, np.dtype[np.int64]] | None = None

    def add(self, rows: Ints) -> None:
        """Keep rows, shape (n, width), in any order."""
        if not len(rows):
            return
        with self._path.open("ab") as out:
            _sorted(rows, self.by).tofile(out)
        self.total += len(rows)
        self._bounds.append(self.total)
        self._rows = np.memmap(self._path, np.int64, "r", shape=(self.total, self.width))

    def between(self, low: int, high: int) -> Ints:
        """All rows whose first column is in [low, high), sorted by their columns from first to last."""
        parts = [np.empty((0, self.width), np.int64)]
        if self._rows is not None:
            for start, stop in pairwise(self._bounds):
                rows = self._rows[start:stop]
                begin, end = np.searchsorted(rows[:, 0], (low, high))
                parts.append(np.array(rows[begin:end]))
            self._release()
        return _sorted(np.concatenate(parts), self.by)

    def in_order(self, rows: int) -> Iterator[Ints]:
        """All rows by their first column, however its values lie, at most so many at a time (a merge of the runs)."""
        at, size = self._bounds[:-1], max(1, rows // max(1, len(self._bounds) - 1))
        while self._rows is not None and at != self._bounds[1:]:
            stops = [min(start + size, end) for start, end in zip(at, self._bounds[1:], strict=True)]
            # What comes after these blocks is no less than the last row of the block that ends first.
            last = min(
                (int(self._rows[stop - 1, 0]) for stop, end in zip(stops, self._bounds[1:], strict=True) if stop < end),
                default=np.iinfo(np.int64).max,
            )
            parts = []
            for k, (start, stop) in enumerate(zip(at, stops, strict=True)):
                block = self._rows[start:stop]
                parts.append(np.array(block[: np.searchsorted(block[:, 0], last, side="right")]))
                at[k] += len(parts[-1])
            self._release()
            yield _sorted(np.concatenate(parts), self.by)

    def _release(self) -> None:
        """Let go of the pages in memory, else all that was ever read stays there."""
        if self._rows is not None:
            pages: mmap.mmap = self._rows._mmap  # type: ignore[attr-defined]
            pages.madvise(mmap.MADV_DONTNEED)

    def blocks(self, count: int, rows: int) -> list[tuple[int, int]]:
        """Ranges over 0..count of about `rows` rows each, at least one value wide."""
        return even_blocks(count, self.total, rows)


def even_blocks(count: int, total: int, rows: int) -> list[tuple[int, int]]:
    """Ranges over 0..count that have about `rows` of `total` rows each, at least one value wide."""
    if not count:
        return []
    steps = max(1, min(count, -(-total // rows)))
    bounds = [count * k // steps for k in range(steps + 1)]
    return list(pairwise(bounds))


def _sorted(rows: Ints, by: int | None = None) -> Ints:
    return rows[np.lexsort(rows[:, :by].T[::-1])]
