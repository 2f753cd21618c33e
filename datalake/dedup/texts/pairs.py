"""Verified pairs as they are found: in memory while they are few, beyond that in sorted scratch files."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from types import TracebackType
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from datalake.dedup.runs import Runs

Ints = npt.NDArray[np.int64]
Places = npt.NDArray[np.int32]
Floats = npt.NDArray[np.float64]

BYTES_PER_PAIR = 64  # of those in memory, while they are sorted
_FEWEST = 64  # pairs of a run in a file, whatever the budget


class Rows(NamedTuple):
    """Pairs of documents by their rank, first < second; of texts, or of meaning."""

    first: Ints
    second: Ints
    similarity: Floats
    meaning: npt.NDArray[np.bool_]


class Pairs:
    """Collects pairs, and gives them in the order of ids. As a context manager removes its files at the end.

    What was written can be read even then: a file without a name lives as long as it is mapped.
    """

    def __init__(self, by_id: Places, budget: int, folder: str | Path | None = None):
        """`by_id`: ranks in the order of ids; `budget`: bytes for pairs in memory; `folder`: where the files go."""
        self.total = 0
        self._by_id, self._parent = by_id, folder
        self._number = np.empty(len(by_id), np.int32)  # place in the order of ids, by rank
        self._number[by_id] = np.arange(len(by_id), dtype=np.int32)
        self._room = max(budget // BYTES_PER_PAIR, _FEWEST)
        # Rows: a number that sorts as first, second and meaning do, and the bits of the similarity.
        self._held: list[Ints] = []
        self._count = 0
        self._folder: TemporaryDirectory[str] | None = None
        self._runs: Runs | None = None

    def add(self, first: npt.NDArray[Any], second: npt.NDArray[Any], similarity: Floats, meaning: bool = False) -> None:
        """Take pairs of ranks, in any order; each pair comes once, for texts and for meaning."""
        rows = np.empty((len(first), 2), np.int64)
        rows[:, 0] = self._number[first]
        rows[:, 0] <<= 32
        rows[:, 0] |= self._number[second].astype(np.int64) << 1 | int(meaning)
        rows[:, 1] = similarity.view(np.int64)
        self.total += len(rows)
        self._held.append(rows)
        self._count += len(rows)
        if self._count >= self._room:
            self._write()

    @property
    def spilled(self) -> int:
        """Bytes that lie in files."""
        return 0 if self._runs is None else 16 * self._runs.total

    def in_order(self, rows: int, low: int = 0, high: int = 1 << 31) -> Iterator[Rows]:
        """Pairs by the ids of first and second, those of texts before those of meaning; so many rows at a time.

        Only those whose first has a place in the order of ids from `low` to `high`.
        """
        if self._runs is not None:
            rest = np.empty((0, 2), np.int64)
            for part in self._runs.in_order(rows):
                begin, end = np.searchsorted(part[:, 0] >> 32, (low, high))
                rest = np.concatenate((rest, part[begin:end]))
                if len(rest) >= rows:
                    yield self._read(rest[:rows])
                    rest = rest[rows:].copy()
            if len(rest):
                yield self._read(rest)
        elif self.total:
            held = np.concatenate(self._held)
            order = np.argsort(held[:, 0])
            begin, end = np.searchsorted(held[order, 0] >> 32, (low, high))
            order = order[begin:end]
            for start in range(0, len(order), rows):
                yield self._read(held[order[start : start + rows]])

    def _read(self, rows: Ints) -> Rows:
        key = rows[:, 0]
        first, second = self._by_id[key >> 32], self._by_id[(key & 0xFFFFFFFF) >> 1]
        return Rows(first, second, rows[:, 1].copy().view(np.float64), (key & 1).astype(np.bool_))

    def _write(self) -> None:
        if self._runs is None:
            self._folder = TemporaryDirectory(prefix=".spill-", dir=self._parent)
            self._runs = Runs(Path(self._folder.name), "pairs", 2, by=1)
        held = np.concatenate(self._held)
        self._held.clear()
        self._count = 0
        self._runs.add(held)

    def __enter__(self) -> Pairs:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._runs is not None and self._held and kind is None:
            self._write()
        if self._folder is not None:
            self._folder.cleanup()
        del self._number
