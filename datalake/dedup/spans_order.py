"""What spans are decided over: the documents that deduplication keeps, in the stated order of precedence.

Held for each document are its id, its place in the order and its size, and nothing for each line or word. What there
is for these lies in scratch files, sorted, of which a range at a time is read (`Runs`).
"""

from __future__ import annotations

import mmap
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from datalake.dedup.config import DedupConfig
from datalake.dedup.signed import as_bytes, halves, in_precedence, places_of, read_columns, times_of
from datalake.dedup.sorting import sort_halves
from datalake.dedup.spans_schema import MEMBERS
from datalake.parquet import read_table

Ints = npt.NDArray[np.int64]
Hashes = npt.NDArray[np.uint64]
Table: TypeAlias = str | Path | pa.Table

_MOST = np.iinfo(np.int64).max


class Kept(NamedTuple):
    """The kept documents. Rank: place in the order of precedence. Number: place by id."""

    ranks: list[Ints]  # of each shard: the rank of every row, -1 where the document is not kept
    ids: Hashes  # (documents, 2) by rank, big-endian halves: compares as the bytes do
    numbers: Ints  # by rank
    characters: Ints  # by rank
    words: Ints  # by rank


def as_ids(pairs: Hashes, none: npt.NDArray[np.bool_] | None = None) -> pa.Array:
    """The binary(16) column again, null where `none` is true."""
    ids = as_bytes(pairs)
    return ids if none is None else pc.if_else(pa.array(none), pa.scalar(None, pa.binary(16)), ids)


def kept_in_order(members: Sequence[Table], duplicates: Sequence[Table], config: DedupConfig) -> Kept:
    """The documents of shards (schema MEMBERS) that are no duplicates, in order; the same for any order of the shards.

    Raises ValueError where a document has no decision.
    """
    decided = pa.concat_tables(
        [read_columns(table, ["id", "duplicate_of"]) for table in duplicates]
        or [pa.table({"id": pa.array([], pa.binary(16)), "duplicate_of": pa.array([], pa.binary(16))})]
    )
    removed = decided["id"].filter(decided["duplicate_of"].is_valid())
    stays: list[np.ndarray] = []
    columns: dict[str, list[np.ndarray]] = {
        "ids": [np.empty((0, 2), np.uint64)],
        **{name: [np.empty(0, np.int64)] for name in ("source", "created", "characters", "words")},
    }
    for table in members:
        rows = read_columns(table, MEMBERS.names)
        if not pc.all(pc.is_in(rows["id"], decided["id"])).as_py() and len(rows):
            raise ValueError("some documents have no decision on duplicates: run deduplicate over all of them first")
        here = pc.invert(pc.is_in(rows["id"], removed))
        stays.append(here.to_numpy())
        rows = rows.filter(here)
        rows = rows.combine_chunks()
        columns["ids"].append(halves(rows["id"].combine_chunks().cast(pa.binary(16))))
        columns["source"].append(places_of(rows["source"].combine_chunks(), config))
        columns["created"].append(times_of(rows["created"].combine_chunks()))
        columns["characters"].append(rows["characters"].to_numpy())
        columns["words"].append(rows["words"].to_numpy())
    whole = {name: np.concatenate(parts) for name, parts in columns.items()}
    ids = whole["ids"].astype(np.uint64)
    criteria = {"source": whole["source"], "created": whole["created"], "length": -whole["characters"]}
    # Quality is a document's: which copy of a line stays goes by the rest.
    keys = [criteria[name] for name in config.precedence if name in criteria]
    by_id = sort_halves(ids)
    order = in_precedence(by_id.astype(np.int64), keys)
    ids = ids[order]
    rank, numbers = np.empty(len(order), np.int64), np.empty(len(order), np.int64)
    rank[order] = np.arange(len(order))
    numbers[rank[by_id]] = np.arange(len(order))
    ranks, done = [], 0
    for here in stays:
        of_shard = np.full(len(here), -1, np.int64)
        size = int(np.sum(here))
        of_shard[here] = rank[done : done + size]
        ranks.append(of_shard)
        done += size
    return Kept(ranks, ids, numbers, whole["characters"][order], whole["words"][order])


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
                default=_MOST,
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
        if not count:
            return []
        steps = max(1, min(count, -(-self.total // rows)))
        bounds = [count * k // steps for k in range(steps + 1)]
        return list(pairwise(bounds))


def _sorted(rows: Ints, by: int | None = None) -> Ints:
    return rows[np.lexsort(rows[:, :by].T[::-1])]


def hash_ranges(rows: int, at_once: int) -> list[tuple[int, int]]:
    """Inclusive ranges over all int64 hashes, so many that about `at_once` of `rows` hashes are in each."""
    parts = max(1, -(-rows // at_once))
    bounds = [-(2**63) + 2**64 * k // parts for k in range(parts + 1)]
    return [(low, high - 1) for low, high in pairwise(bounds)]


def read_range(table: Table, low: int, high: int) -> pa.Table:
    """Rows of a table sorted by `hash` whose hash is in [low, high]; of a file only the row groups that have some."""
    if not isinstance(table, pa.Table):
        return read_table(table, filters=[("hash", ">=", low), ("hash", "<=", high)])
    hashes = table["hash"].to_numpy()
    begin, end = int(np.searchsorted(hashes, low)), int(np.searchsorted(hashes, high, side="right"))
    return table.slice(begin, end - begin)
