"""Signed shards read back, as flat arrays over all documents in order of precedence.

Only what a step needs is read: hashes and sizes of every document first, then the bands of the distinct ones, then the
shingles of those that share a bucket with another; each of them once, a few thousand rows at a time.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple, TypeAlias

import numba
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from datalake.dedup.config import DedupConfig, SigningConfig
from datalake.dedup.sign import SIGNED_WITH
from datalake.dedup.spill import Spill
from datalake.identity import canonical

Ints = npt.NDArray[np.int64]
Hashes = npt.NDArray[np.uint64]
Flags = npt.NDArray[np.bool_]
Shard: TypeAlias = str | Path | pa.Table

LATEST = np.iinfo(np.int64).max
_ROWS = 4096  # rows read at once


class Corpus(NamedTuple):
    """All documents in order of precedence: index = rank."""

    ids: Hashes  # (documents, 2), big-endian halves: compares as the bytes do
    texts: Hashes  # (documents, 2): hash of the normalised text
    sets: Hashes  # (documents, 2): hash of the shingle set
    shingles: Ints  # distinct shingles; 0 without words
    urls: Ints | None  # hash of the address, 0 without one; None where nobody asks
    rows: Ints  # where the document stands in the shards, read one after the other


def check_signing(file: Shard, signing: SigningConfig) -> None:
    """Raises ValueError where a shard says that it was signed with other settings."""
    schema = file.schema if isinstance(file, pa.Table) else pq.read_schema(file)
    found = (schema.metadata or {}).get(SIGNED_WITH)
    if found is not None and found != canonical(signing):
        asked = canonical(signing).decode()
        raise ValueError(f"a shard was signed with {found.decode()}, this recipe asks for {asked}: sign it again")


def batches_of(files: Sequence[Shard], names: list[str]) -> Iterator[pa.RecordBatch]:
    """These columns of all shards, one after the other, a few rows at a time."""
    for file in files:
        if isinstance(file, pa.Table):
            yield from file.select(names).to_batches(max_chunksize=_ROWS)
        else:
            with pq.ParquetFile(file) as parquet:
                yield from parquet.iter_batches(batch_size=_ROWS, columns=names)


def _halves(column: pa.Array) -> Hashes:
    """A binary(16) column as (rows, 2) numbers that compare as the bytes do."""
    if not len(column):
        return np.empty((0, 2), np.uint64)
    raw = np.frombuffer(column.buffers()[1], ">u8").reshape(-1, 2)
    return raw[column.offset : column.offset + len(column)].astype(np.uint64)


def as_bytes(halves: Hashes) -> pa.Array:
    """The binary(16) column again."""
    return pa.FixedSizeBinaryArray.from_buffers(
        pa.binary(16), len(halves), [None, pa.py_buffer(halves.astype(">u8").tobytes())]
    )


def same(a: Hashes, b: Hashes) -> Flags:
    """Row by row, whether two such columns are equal."""
    return np.all(a == b, axis=1)


def count(files: Sequence[Shard]) -> int:
    """How many documents the shards hold."""
    return sum(file.num_rows if isinstance(file, pa.Table) else pq.read_metadata(file).num_rows for file in files)


def read(files: Sequence[Shard], config: DedupConfig) -> Corpus:
    """Everything but bands and shingles, in order of precedence.

    Raises:
        ValueError: where a document appears twice.
    """
    names = ["id", "source", "created", "characters", "text_hash", "set_hash", "shingle_count"]
    names += ["url_hash"] if config.url else []
    place = {source: k for k, source in enumerate(config.sources)}
    total, at = count(files), 0
    ids, texts, sets = (np.empty((total, 2), np.uint64) for _ in range(3))
    created, characters, shingles = (np.empty(total, np.int64) for _ in range(3))
    sources = np.empty(total, np.int32)
    urls = np.zeros(total, np.int64) if config.url else None
    for batch in batches_of(files, names):
        here = slice(at, at + batch.num_rows)
        at += batch.num_rows
        for name, column in (("id", ids), ("text_hash", texts), ("set_hash", sets)):
            column[here] = _halves(batch.column(name))
        coded = batch.column("source").dictionary_encode()
        places = np.array([place.get(s, len(place)) for s in coded.dictionary.to_pylist()] + [len(place)], np.int32)
        sources[here] = places[coded.indices.fill_null(len(places) - 1).to_numpy(zero_copy_only=False)]
        created[here] = batch.column("created").cast(pa.int64()).fill_null(LATEST).to_numpy(zero_copy_only=False)
        characters[here] = batch.column("characters").to_numpy()
        shingles[here] = batch.column("shingle_count").to_numpy()
        if urls is not None:
            urls[here] = batch.column("url_hash").fill_null(0).to_numpy(zero_copy_only=False)
    np.negative(characters, out=characters)
    criteria: dict[str, npt.NDArray[np.integer]] = {"source": sources, "created": created, "length": characters}
    keys = [criteria[name] for name in config.precedence]
    order = np.lexsort((ids[:, 1], ids[:, 0], *reversed(keys)))
    del created, characters, sources, criteria, keys
    by_id = np.lexsort((ids[:, 1], ids[:, 0]))
    twice = np.flatnonzero(same(ids[by_id[1:]], ids[by_id[:-1]]))
    if len(twice):
        name = as_bytes(ids[by_id[twice[:1]]])[0].as_py().hex()
        raise ValueError(f"document {name} appears twice: give every shard once, and every archive to one source")
    urls = None if urls is None else urls[order]
    return Corpus(ids[order], texts[order], sets[order], shingles[order], urls, order)


def first_alike(keys: Hashes, among: Flags) -> Ints:
    """For each row the first row with an equal key, among those given; a row that isn't is its own."""
    first = np.arange(len(keys))
    rows = np.flatnonzero(among)
    if len(rows):
        chosen = keys[rows]
        order = np.lexsort((chosen[:, 1], chosen[:, 0]))  # stable: equal rows stay in order
        chosen = chosen[order]
        fresh = np.concatenate(([True], ~same(chosen[1:], chosen[:-1])))
        first[rows[order]] = rows[order[np.flatnonzero(fresh)]][np.cumsum(fresh) - 1]
    return first


def fill_bands(files: Sequence[Shard], place: Ints, out: Ints, spill: Spill) -> None:
    """The buckets of documents into `out`, shape (bands, nodes): row r of the shards into column place[r], if not -1.

    Raises:
        ValueError: where a document has another number of bands.
    """
    at = 0
    for batch in batches_of(files, ["bands"]):
        column = batch.column("bands")
        values, begins, ends = _flat(column)
        here = place[at : at + len(column)]
        at += len(column)
        asked = np.flatnonzero(here >= 0)
        if np.any(ends[asked] - begins[asked] != len(out)):
            raise ValueError(f"a shard holds another number of bands than {len(out)}: sign it again with this recipe")
        if len(asked):
            rows = begins[asked][:, None] + np.arange(len(out))
            out[:, here[asked]] = values.view(np.int64)[rows].T
        spill.release()


def fill_shingles(files: Sequence[Shard], place: Ints, out: Hashes, spill: Spill) -> None:
    """The shingles of documents into `out`: those of row r of the shards from place[r] on, if not -1."""
    at = 0
    for batch in batches_of(files, ["shingles"]):
        column = batch.column("shingles")
        values, begins, ends = _flat(column)
        _scatter(values, begins, ends, place[at : at + len(column)], out)
        at += len(column)
        spill.release()


def _flat(column: pa.Array) -> tuple[Hashes, Ints, Ints]:
    """A binary column's 64-bit numbers, and where each row's begin and end among them."""
    _, offsets, data = column.buffers()
    bounds = np.frombuffer(offsets, np.int32)[column.offset : column.offset + len(column) + 1].astype(np.int64)
    if data is None or not len(column):
        return np.empty(0, np.uint64), bounds[:-1], bounds[:-1]
    first = int(bounds[0])
    raw = np.frombuffer(data, np.uint8, int(bounds[-1]) - first, first)
    begins = (bounds - first) // 8
    return raw.view("<u8").astype(np.uint64, copy=False), begins[:-1], begins[1:]


@numba.njit(cache=True, nogil=True)
def _scatter(values: Hashes, begins: Ints, ends: Ints, place: Ints, out: Hashes) -> None:
    for d in range(len(begins)):
        if place[d] >= 0:
            out[place[d] : place[d] + ends[d] - begins[d]] = values[begins[d] : ends[d]]
