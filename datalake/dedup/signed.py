"""Signed shards read back, as flat arrays over all documents in order of precedence.

Only what a step needs is read: hashes and sizes of every document first, then the bands of the distinct ones, then the
shingles of those that share a bucket with another.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from datalake.dedup.config import DedupConfig, SigningConfig
from datalake.dedup.sign import SIGNED_WITH
from datalake.dedup.verify import Sets
from datalake.identity import canonical

Ints = npt.NDArray[np.int64]
Hashes = npt.NDArray[np.uint64]
Flags = npt.NDArray[np.bool_]
Shard: TypeAlias = str | Path | pa.Table

LATEST = np.iinfo(np.int64).max


class Corpus(NamedTuple):
    """All documents in order of precedence: index = rank."""

    ids: Hashes  # (documents, 2), big-endian halves: compares as the bytes do
    texts: Hashes  # (documents, 2): hash of the normalised text
    sets: Hashes  # (documents, 2): hash of the shingle set
    worded: Flags
    rows: Ints  # where the document stands in the shards, read one after the other


def check_signing(file: Shard, signing: SigningConfig) -> None:
    """Raises ValueError where a shard says that it was signed with other settings."""
    schema = file.schema if isinstance(file, pa.Table) else pq.read_schema(file)
    found = (schema.metadata or {}).get(SIGNED_WITH)
    if found is not None and found != canonical(signing):
        asked = canonical(signing).decode()
        raise ValueError(f"a shard was signed with {found.decode()}, this recipe asks for {asked}: sign it again")


def _columns(files: Sequence[Shard], names: list[str]) -> Iterable[pa.Table]:
    for file in files:
        yield (
            file.select(names) if isinstance(file, pa.Table) else pq.read_table(file, columns=names, partitioning=None)
        )


def _halves(column: pa.ChunkedArray) -> Hashes:
    """A binary(16) column as (rows, 2) numbers that compare as the bytes do."""
    parts = [np.empty((0, 2), np.uint64)]
    for chunk in column.chunks:
        if len(chunk):
            raw = np.frombuffer(chunk.buffers()[1], ">u8").reshape(-1, 2)
            parts.append(raw[chunk.offset : chunk.offset + len(chunk)].astype(np.uint64))
    return np.concatenate(parts)


def as_bytes(halves: Hashes) -> pa.Array:
    """The binary(16) column again."""
    return pa.FixedSizeBinaryArray.from_buffers(
        pa.binary(16), len(halves), [None, pa.py_buffer(halves.astype(">u8").tobytes())]
    )


def same(a: Hashes, b: Hashes) -> Flags:
    """Row by row, whether two such columns are equal."""
    return np.all(a == b, axis=1)


def read(files: Sequence[Shard], config: DedupConfig) -> Corpus:
    """Everything but bands and shingles, in order of precedence."""
    names = ["id", "source", "created", "characters", "words", "text_hash", "set_hash"]
    place = {source: k for k, source in enumerate(config.sources)}
    gathered: dict[str, list[np.ndarray]] = {name: [] for name in names}
    for table in _columns(files, names):
        for name in ("id", "text_hash", "set_hash"):
            gathered[name].append(_halves(table[name]))
        sources = table["source"].combine_chunks().dictionary_encode()
        if isinstance(sources, pa.ChunkedArray):
            sources = sources.combine_chunks()
        places = np.array([place.get(s, len(place)) for s in sources.dictionary.to_pylist()] + [len(place)], np.int64)
        gathered["source"].append(places[sources.indices.fill_null(len(places) - 1).to_numpy(zero_copy_only=False)])
        gathered["created"].append(table["created"].cast(pa.int64()).fill_null(LATEST).to_numpy())
        gathered["characters"].append(table["characters"].to_numpy())
        gathered["words"].append(table["words"].to_numpy())
    empty = {"id": (0, 2), "text_hash": (0, 2), "set_hash": (0, 2)}
    column = {
        name: np.concatenate(parts) if parts else np.empty(empty.get(name, 0), np.int64)
        for name, parts in gathered.items()
    }
    ids = column["id"].astype(np.uint64)
    criteria = {"source": column["source"], "created": column["created"], "length": -column["characters"]}
    keys = [criteria[name] for name in config.precedence]
    order = np.lexsort((ids[:, 1], ids[:, 0], *reversed(keys)))
    by_id = np.lexsort((ids[:, 1], ids[:, 0]))
    twice = np.flatnonzero(same(ids[by_id[1:]], ids[by_id[:-1]]))
    if len(twice):
        name = as_bytes(ids[by_id[twice[:1]]])[0].as_py().hex()
        raise ValueError(f"document {name} appears twice: give every shard once, and every archive to one source")
    return Corpus(
        ids[order],
        column["text_hash"].astype(np.uint64)[order],
        column["set_hash"].astype(np.uint64)[order],
        column["words"][order] > 0,
        order,
    )


def collapse(corpus: Corpus) -> tuple[Ints, Ints]:
    """For each document the first with the same shingle set, and the first with the same normalised text."""
    texts = _first_alike(corpus.texts)
    sets = _first_alike(corpus.sets)
    return np.where(corpus.worded, sets, texts), texts


def _first_alike(keys: Hashes) -> Ints:
    """For each row the first row equal to it."""
    if not len(keys):
        return np.empty(0, np.int64)
    order = np.lexsort((keys[:, 1], keys[:, 0]))  # stable: equal rows stay in order
    fresh = np.concatenate(([True], ~same(keys[order[1:]], keys[order[:-1]])))
    first = np.empty(len(keys), np.int64)
    first[order] = order[np.flatnonzero(fresh)][np.cumsum(fresh) - 1]
    return first


def gather(files: Sequence[Shard], name: str, rows: Ints) -> Sets:
    """A list column's values for the rows asked for (counted through all shards), in the order asked for."""
    order = np.argsort(rows)
    wanted = rows[order]
    values, sizes, done = [np.empty(0, np.int64)], [np.empty(0, np.int64)], 0
    for table in _columns(files, [name]):
        for chunk in table[name].chunks:
            low, high = np.searchsorted(wanted, (done, done + len(chunk)))
            picked = chunk.take(pa.array(wanted[low:high] - done))
            done += len(chunk)
            values.append(picked.flatten().to_numpy(zero_copy_only=False))
            sizes.append(picked.value_lengths().to_numpy(zero_copy_only=False).astype(np.int64))
    ends_in_file_order = np.cumsum(np.concatenate(sizes))
    ends, begins = np.empty(len(rows), np.int64), np.empty(len(rows), np.int64)
    ends[order] = ends_in_file_order
    begins[order] = ends_in_file_order - np.concatenate(sizes)
    return Sets(np.concatenate(values).view(np.uint64), begins, ends)
