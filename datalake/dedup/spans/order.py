"""What spans are decided over: the documents that deduplication keeps, in the stated order of precedence.

Held for each document are its id, its place in the order and its size, and nothing for each line or word. What there
is for these lies in scratch files, sorted, of which a range at a time is read (`datalake.dedup.runs`).
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from datalake.dedup.config import DedupConfig
from datalake.dedup.spans.schema import MEMBERS
from datalake.dedup.texts.signed import as_bytes, halves, in_precedence, places_of, read_columns, times_of
from datalake.dedup.texts.sorting import sort_halves
from datalake.lake.parquet import read_table

Ints = npt.NDArray[np.int64]
Hashes = npt.NDArray[np.uint64]
Table: TypeAlias = str | Path | pa.Table


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
