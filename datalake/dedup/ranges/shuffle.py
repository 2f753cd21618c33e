"""What the steps of deduplication over ranges hand to each other: rows of 64-bit integers, parted for those who read.

A step is a map over items: over runs of shards ("sheaves"), over ranges of a hash or of the order of precedence, over
batches. Each item writes tables of its own, and in each table rows stand in sections, one for each item of the step
that will read them; an item reads its section of all tables of an earlier step. A table is an Arrow IPC file with a
record batch for each section, so a section is read without the others; where a writer's memory is full it begins its
sections anew, and a section lies in several batches.

    ROOT/STEP/ITEM/TABLE.arrow      and there `shard.json`, which comes last (`datalake.lake.shards`)

Hashes are 64-bit patterns kept as int64, as in the lake's tables; unsigned where their order matters.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeAlias

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from datalake.atomic import remove_leftovers, settle, temporary
from datalake.lake.shards import ShardFile, ShardResult, find_shard, finish_shard
from datalake.places import is_local, make_folder

Ints: TypeAlias = npt.NDArray[np.int64]

ROOM, LEAST = (
    64 << 20,
    64 << 10,
)  # bytes of rows that a table holds in memory before it writes them, at most and at least
INDEX_BITS = 40  # of a place: the number of a document within its range
INDEX = (1 << INDEX_BITS) - 1


@dataclass(frozen=True)
class Plan:
    """How wide the steps are. None of it shapes what is decided."""

    root: Path
    sheaves: tuple[tuple[str, ...], ...]  # the files of each run of shards
    documents: int
    ranges: int
    memory: int  # bytes that one item may take, but for what the process itself holds
    parts: int = 1  # files of each table that is written in the end
    curation: tuple[str, ...] = ()

    @property
    def sections(self) -> int:
        """Of what is decided, by id: some to each part, about as many as there are ranges."""
        return self.parts * max(1, -(-self.ranges // self.parts))

    def folder(self, step: str, item: int) -> Path:
        """Where an item of a step keeps its tables."""
        return self.root / step / f"{item:06d}"


class Parted:
    """A table that is being written: rows come in any order, and in a section they stay in the order they came."""

    def __init__(self, path: Path, width: int, sections: int, room: int):
        self.path, self.width, self.sections, self.rows = path, width, sections, 0
        self._schema = pa.schema([("row", pa.binary(8 * width))])
        self._writer = pa.ipc.new_file(str(temporary(path)), self._schema)
        self._room, self._taken = max(room, LEAST), 0
        self._held: list[tuple[Ints, Ints]] = []

    def add(self, sections: Ints | int, *columns: npt.NDArray[Any] | int) -> None:
        """Rows of these columns, each a number or an array of 64-bit numbers, to the section of each or of all."""
        rows = len(next(column for column in (*columns, sections) if isinstance(column, np.ndarray)))
        if not rows:
            return
        out = np.empty((rows, self.width), np.int64)
        at = 0
        for column in columns:
            whole = column if isinstance(column, np.ndarray) else np.full(rows, column, np.int64)
            wide = 1 if whole.ndim == 1 else whole.shape[1]
            out[:, at : at + wide] = whole.view(np.int64).reshape(rows, wide)
            at += wide
        assert at == self.width, "the columns of a table are as many as it was made for"
        of = sections if isinstance(sections, np.ndarray) else np.full(rows, sections, np.int64)
        self._held.append((of.astype(np.int32), out))
        self.rows += rows
        self._taken += out.nbytes
        if self._taken >= self._room:
            self._flush()

    def _flush(self) -> None:
        of = np.concatenate([np.empty(0, np.int32), *(some for some, _ in self._held)])
        rows = np.concatenate([np.empty((0, self.width), np.int64), *(some for _, some in self._held)])
        self._held, self._taken = [], 0
        bounds = np.concatenate(([0], np.cumsum(np.bincount(of, minlength=self.sections))))
        if self.sections > 1:
            short = of.astype(np.int16) if self.sections < 1 << 15 else of  # NumPy sorts these by their digits
            rows = rows[np.argsort(short, kind="stable")]
        for begin, end in zip(bounds[:-1].tolist(), bounds[1:].tolist(), strict=True):
            data = [None, pa.py_buffer(np.ascontiguousarray(rows[begin:end]))]
            column = pa.FixedSizeBinaryArray.from_buffers(self._schema.field(0).type, end - begin, data)
            self._writer.write_batch(pa.RecordBatch.from_arrays([column], schema=self._schema))

    def close(self) -> ShardFile:
        """Write what is held, and give the file its name."""
        if self._taken:
            self._flush()
        self._writer.close()
        size = temporary(self.path).stat().st_size
        settle(self.path)
        return ShardFile(self.path.stem, str(self.path), self.rows, "", size)

    def give_up(self) -> None:
        """Leave nothing."""
        self._writer.close()
        temporary(self.path).unlink(missing_ok=True)


def read_section(path: Path, section: int, sections: int) -> Iterator[Ints]:
    """The rows of one section of a table, shape (n, width), as they were written together."""
    # Of a store's file the parts that are wanted are asked for, not all of it.
    source = pa.OSFile(str(path)) if is_local(path) else pa.PythonFile(path.open("rb"))
    with source as file, pa.ipc.open_file(file) as table:
        width = table.schema.field(0).type.byte_width
        for k in range(section, table.num_record_batches, sections):
            column = table.get_batch(k).column(0)
            if len(column):
                yield np.frombuffer(column.buffers()[1], np.int64).reshape(-1, width // 8)[: len(column)]


@dataclass
class Task:
    """One item of a step at work: it reads sections of earlier steps and writes tables; an exception leaves none.

    `widths` says of how many items each step is.
    """

    plan: Plan
    step: str
    item: int
    widths: Mapping[str, int]
    counts: defaultdict[str, int] = field(default_factory=lambda: defaultdict(int))
    _tables: list[Parted] = field(default_factory=list)

    def blocks(self, step: str, table: str, section: int | None = None, sections: int | None = None) -> Iterator[Ints]:
        """This item's section of a table of an earlier step, from the step's first item to its last.

        `section`, of so many `sections`: another than that.
        """
        mine, of = (self.item, self.widths[self.step]) if section is None else (section, sections or 1)
        for k in range(self.widths[step]):
            yield from read_section(self.plan.folder(step, k) / f"{table}.arrow", mine, of)

    def rows(self, step: str, table: str, width: int, section: int | None = None, sections: int | None = None) -> Ints:
        """The same in one array, shape (n, width)."""
        return np.concatenate([np.empty((0, width), np.int64), *self.blocks(step, table, section, sections)])

    def own(self, step: str, table: str, width: int) -> Ints:
        """What the item of the same number of an earlier step wrote to a table of one section."""
        path = self.plan.folder(step, self.item) / f"{table}.arrow"
        return np.concatenate([np.empty((0, width), np.int64), *read_section(path, 0, 1)])

    def table(self, name: str, width: int, sections: int) -> Parted:
        """A table to write."""
        room = min(ROOM, self.plan.memory // 8)
        self._tables.append(Parted(self.plan.folder(self.step, self.item) / f"{name}.arrow", width, sections, room))
        return self._tables[-1]

    def made(self, step: str, item: int) -> Mapping[str, int]:
        """The counts of an item of an earlier step."""
        found = find_shard(self.plan.folder(step, item))
        assert found is not None, f"{step} {item} was finished before"
        return found.counts

    def finish(self, name: str, key: str) -> ShardResult:
        """Close all tables and mark the item as done."""
        files = [table.close() for table in self._tables]
        result = ShardResult(name, key, files=files, counts=dict(self.counts))
        finish_shard(self.plan.folder(self.step, self.item), result)
        return result

    def __enter__(self) -> Self:
        folder = self.plan.folder(self.step, self.item)
        make_folder(folder)
        remove_leftovers(folder)
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if kind is not None:
            for table in self._tables:
                table.give_up()


def within(blocks: Iterable[Ints], room: int) -> Ints | None:
    """Blocks in one array, where they are at most `room` rows; without any, one that has none."""
    held: list[Ints] = []
    for rows in blocks:
        room -= len(rows)
        if room < 0:
            return None
        held.append(rows)
    return np.concatenate(held) if held else np.empty((0, 0), np.int64)
