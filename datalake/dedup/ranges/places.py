"""Every document's place in the order of precedence, without all documents in one memory.

A sample of the documents' keys parts the order into ranges of about as many documents each; every range is then sorted
by itself. A place is a number of 64 bits: the range's in front, then the document's within it. So places compare as
documents do in the order of precedence, say in which range a document is, and where there.

    sample (a sheaf)    some documents' keys
    splitters (alone)   where ranges begin
    order (a sheaf)     each document to its range
    places (a range)    its documents in order, where each of them is in the sheaves; their addresses to be compared
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from datalake.dedup.config import DedupConfig
from datalake.dedup.ranges.shuffle import INDEX_BITS, Ints, Task
from datalake.dedup.tables import range_of
from datalake.dedup.texts.signed import Shard, batches_of, halves, in_precedence, places_of, times_of
from datalake.dedup.texts.sorting import sort_halves

Hashes = npt.NDArray[np.uint64]

SAMPLE = 1000  # documents of each range that are asked for their keys, about
_SIGN = np.uint64(1 << 63)
_BATCH = 1 << 16


class Documents(NamedTuple):
    """Documents of one range in order of precedence, as `places` writes them."""

    ids: Ints  # (documents, 2), big-endian halves
    texts: Ints  # (documents, 2)
    sets: Ints  # (documents, 2)
    shingles: Ints
    urls: Ints  # 0 without an address
    origin: Ints  # the sheaf, and the row in its files

    @classmethod
    def of(cls, rows: Ints) -> Documents:
        """From rows of WIDTH."""
        return cls(rows[:, 0:2], rows[:, 2:4], rows[:, 4:6], rows[:, 6], rows[:, 7], rows[:, 8])


WIDTH = 9


def as_unsigned(values: npt.NDArray[Any]) -> Hashes:
    """Unsigned numbers that compare as these whole or floating ones; what is no number comes last."""
    if values.dtype.kind == "f":
        bits = (np.where(np.isnan(values), np.nan, values) + 0.0).view(np.int64)
        return np.where(bits < 0, ~bits, bits ^ np.int64(-(2**63))).view(np.uint64)
    return values.astype(np.int64).view(np.uint64) ^ _SIGN


def as_text(keys: Hashes) -> npt.NDArray[np.bytes_]:
    """Rows of unsigned numbers, shape (rows, columns), as texts that compare as the rows do, from the first column."""
    return np.ascontiguousarray(keys.astype(">u8")).view(f"S{8 * keys.shape[1]}").reshape(-1)


def _quality(curation: Sequence[Shard], ids: pa.Array) -> npt.NDArray[np.float64]:
    """The quality of these documents, -1 where they have none; the table is read once, a part at a time."""
    found = np.full(len(ids), np.nan)
    for batch in batches_of(curation, ["id", "quality"], _BATCH):
        at = pc.index_in(batch.column("id"), value_set=ids).fill_null(-1).to_numpy(zero_copy_only=False)
        here = (at >= 0) & np.isnan(found[at])
        found[at[here]] = batch.column("quality").fill_null(-1.0).to_numpy(zero_copy_only=False)[here]
    return np.where(np.isnan(found), -1.0, found)


def keyed(task: Task, config: DedupConfig, names: list[str]) -> Iterator[tuple[pa.RecordBatch, Hashes]]:
    """Batches of a sheaf with these columns beside, and each document's key: its criteria and its id."""
    columns = ["id", "source", "created", "characters", *names]
    files = task.plan.sheaves[task.item]
    batches = batches_of(files, columns, _BATCH)
    if "quality" in config.precedence:  # asked for once in a sheaf
        batches = iter(pa.Table.from_batches(list(batches)).combine_chunks().to_batches())
    for batch in batches:
        criteria = {
            "source": places_of(batch.column("source"), config),
            "created": times_of(batch.column("created")),
            "length": -batch.column("characters").to_numpy(),
        }
        if "quality" in config.precedence:
            criteria["quality"] = -_quality(task.plan.curation, batch.column("id"))
        keys = [as_unsigned(criteria[name]) for name in config.precedence]
        yield batch, np.column_stack((*keys, halves(batch.column("id"))))


def sample(task: Task, config: DedupConfig) -> None:
    """Some of a sheaf's keys."""
    step = max(1, task.plan.documents // (SAMPLE * task.plan.ranges))
    out, seen = task.table("keys", len(config.precedence) + 2, 1), 0
    for _, keys in keyed(task, config, []):
        out.add(0, keys[-seen % step :: step])
        seen += len(keys)


def splitters(task: Task, config: DedupConfig) -> None:
    """The keys of the first documents of all ranges but the first, about."""
    keys = task.rows("sample", "keys", len(config.precedence) + 2).view(np.uint64)
    order = np.lexsort(keys.T[::-1])
    chosen = np.arange(1, task.plan.ranges) * len(order) // task.plan.ranges
    out = task.table("keys", keys.shape[1], 1)
    if len(order):
        out.add(0, keys[order[chosen]])


def splitters_of(task: Task, wide: int) -> npt.NDArray[np.bytes_]:
    """Where the ranges but the first begin."""
    return as_text(task.rows("splitters", "keys", wide, 0, 1).view(np.uint64))


def order(task: Task, config: DedupConfig) -> None:
    """A sheaf's documents, each to its range of the order."""
    wide = len(config.precedence) + 2
    bounds = splitters_of(task, wide)
    names = ["text_hash", "set_hash", "shingle_count", *(["url_hash"] if config.url else [])]
    out, at = task.table("documents", wide + WIDTH - 2, task.plan.ranges), task.item << INDEX_BITS
    for batch, keys in keyed(task, config, names):
        urls = batch.column("url_hash").fill_null(0).to_numpy(zero_copy_only=False) if config.url else 0
        rest = (halves(batch.column("text_hash")), halves(batch.column("set_hash")))
        shingles, rows = batch.column("shingle_count").to_numpy(), at + np.arange(len(keys))
        out.add(np.searchsorted(bounds, as_text(keys), side="right"), keys, *rest, shingles, urls, rows)
        at += len(keys)


def in_order(task: Task, config: DedupConfig, width: int) -> Ints:
    """A range's documents in order, as `width` columns from the id on that `order` wrote after the other criteria."""
    first = len(config.precedence)
    rows = task.rows("order", "documents", first + width)
    keys = [rows[:, k].view(np.uint64) for k in range(first)]
    by_id = sort_halves(rows[:, first : first + 2].view(np.uint64)).astype(np.int64)
    rows = rows[in_precedence(by_id, keys), first:]
    task.table("documents", width, 1).add(0, rows)
    task.counts["documents"] = len(rows)
    return rows


def places(task: Task, config: DedupConfig) -> None:
    """A range's documents in order."""
    rows = in_order(task, config, WIDTH)
    if config.url:
        some = np.flatnonzero(rows[:, 7])
        hashes = rows[some, 7]
        urls = task.table("urls", 2, task.plan.ranges)
        urls.add(range_of(hashes, task.plan.ranges), hashes, (task.item << INDEX_BITS) + some)


def documents_of(task: Task) -> Documents:
    """The documents of the range that an item is about."""
    return Documents.of(task.own("places", "documents", WIDTH))
