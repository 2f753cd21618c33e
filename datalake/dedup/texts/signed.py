"""Signed shards read back, as flat arrays over all documents in order of precedence.

Only what a step needs is read: hashes and sizes of every document first, then the bands of the distinct ones, then the
shingles of those that share a bucket with another; each of them once, a few thousand rows at a time.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from datalake.compiled import kernel
from datalake.dedup.config import DedupConfig, SigningConfig
from datalake.dedup.texts.sign import SIGNED_WITH
from datalake.dedup.texts.sorting import sort_halves
from datalake.dedup.texts.spill import Spill
from datalake.identity import canonical
from datalake.lake.parquet import read_batches, read_metadata, read_schema, read_table

Ints = npt.NDArray[np.int64]
Hashes = npt.NDArray[np.uint64]
Flags = npt.NDArray[np.bool_]
Halves: TypeAlias = Hashes | Ints  # 128-bit numbers, shape (rows, 2), high half first; of signed halves the bits count
Shard: TypeAlias = str | Path | pa.Table

LATEST = np.iinfo(np.int64).max
ROWS = 4096  # rows read at once
_BYTES = 32 << 20  # of shingles read at once, about: those of long texts are megabytes a row


class Corpus(NamedTuple):
    """All documents in order of precedence: index = rank."""

    ids: Hashes  # (documents, 2), big-endian halves: compares as the bytes do
    texts: Hashes  # (documents, 2): hash of the normalised text
    sets: Hashes  # (documents, 2): hash of the shingle set
    shingles: Ints  # distinct shingles; 0 without words
    urls: Ints | None  # hash of the address, 0 without one; None where nobody asks
    rows: Ints  # where the document stands in the shards, read one after the other
    by_id: npt.NDArray[np.int32]  # ranks in the order of ids


def check_signing(file: Shard, signing: SigningConfig) -> None:
    """Raises ValueError where a shard says that it was signed with other settings."""
    schema = file.schema if isinstance(file, pa.Table) else read_schema(file)
    found = (schema.metadata or {}).get(SIGNED_WITH)
    if found is not None and found != canonical(signing):
        asked = canonical(signing).decode()
        raise ValueError(f"a shard was signed with {found.decode()}, this recipe asks for {asked}: sign it again")


def batches_of(files: Sequence[Shard], names: list[str], rows: int = ROWS) -> Iterator[pa.RecordBatch]:
    """These columns of all shards, one after the other, so many rows at a time."""
    for file in files:
        if isinstance(file, pa.Table):
            yield from file.select(names).to_batches(max_chunksize=rows)
        else:
            yield from read_batches(file, names, rows)


def read_columns(file: Shard, names: list[str]) -> pa.Table:
    """Columns of a Parquet file or a table, whole."""
    return file.select(names) if isinstance(file, pa.Table) else read_table(file, names)


def halves(column: pa.Array) -> Hashes:
    """A binary(16) column as (rows, 2) numbers that compare as the bytes do."""
    if not len(column):
        return np.empty((0, 2), np.uint64)
    raw = np.frombuffer(column.buffers()[1], ">u8").reshape(-1, 2)
    return raw[column.offset : column.offset + len(column)].astype(np.uint64)


def as_bytes(pairs: Halves) -> pa.Array:
    """The binary(16) column again."""
    return pa.FixedSizeBinaryArray.from_buffers(
        pa.binary(16), len(pairs), [None, pa.py_buffer(pairs.astype(">u8").tobytes())]
    )


def same(a: Halves, b: Halves) -> Flags:
    """Row by row, whether two such columns are equal."""
    return np.all(a == b, axis=1)


def count(files: Sequence[Shard]) -> int:
    """How many documents the shards hold."""
    return sum(file.num_rows if isinstance(file, pa.Table) else read_metadata(file).num_rows for file in files)


def places_of(sources: pa.Array, config: DedupConfig) -> npt.NDArray[np.int32]:
    """The place of each document's source in the order of the sources; those not named come last."""
    place = {source: k for k, source in enumerate(config.sources)}
    coded = sources.dictionary_encode()
    places = np.array([place.get(s, len(place)) for s in coded.dictionary.to_pylist()] + [len(place)], np.int32)
    return places[coded.indices.fill_null(len(places) - 1).to_numpy(zero_copy_only=False)]


def times_of(created: pa.Array) -> Ints:
    """When documents were created, as numbers; those that don't say come last."""
    return created.cast(pa.int64()).fill_null(LATEST).to_numpy(zero_copy_only=False)


def in_precedence(by_id: Ints, keys: Sequence[npt.NDArray[Any]]) -> Ints:
    """Rows in the order of these keys, the first one foremost, ties by id; `by_id` are the rows in the order of ids."""
    order = by_id
    for key in reversed(keys):  # from the last to the first, each leaving ties as they are
        if len(key) and key.min() != key.max():
            order = order[np.argsort(key[order], kind="stable")]
    return order


def read(files: Sequence[Shard], config: DedupConfig, curation: Sequence[Shard] = ()) -> Corpus:
    """Everything but bands and shingles, in order of precedence; `curation` holds the quality, where that decides.

    Raises:
        ValueError: where a document appears twice.
    """
    names = ["id", "source", "created", "characters", "text_hash", "set_hash", "shingle_count"]
    names += ["url_hash"] if config.url else []
    total, at = count(files), 0
    ids, texts, sets = (np.empty((total, 2), np.uint64) for _ in range(3))
    created, characters, shingles = (np.empty(total, np.int64) for _ in range(3))
    sources = np.empty(total, np.int32)
    urls = np.zeros(total, np.int64) if config.url else None
    for batch in batches_of(files, names):
        here = slice(at, at + batch.num_rows)
        at += batch.num_rows
        for name, column in (("id", ids), ("text_hash", texts), ("set_hash", sets)):
            column[here] = halves(batch.column(name))
        sources[here] = places_of(batch.column("source"), config)
        created[here] = times_of(batch.column("created"))
        characters[here] = batch.column("characters").to_numpy()
        shingles[here] = batch.column("shingle_count").to_numpy()
        if urls is not None:
            urls[here] = batch.column("url_hash").fill_null(0).to_numpy(zero_copy_only=False)
    np.negative(characters, out=characters)
    criteria: dict[str, npt.NDArray[Any]] = {"source": sources, "created": created, "length": characters}
    if "quality" in config.precedence:
        criteria["quality"] = -_quality(curation, ids)
    by_id: Ints = sort_halves(ids).astype(np.int64)
    twice = np.flatnonzero(same(ids[by_id[1:]], ids[by_id[:-1]]))
    if len(twice):
        name = as_bytes(ids[by_id[twice[:1]]])[0].as_py().hex()
        raise ValueError(f"document {name} appears twice: give every shard once, and every archive to one source")
    order = in_precedence(by_id, [criteria[name] for name in config.precedence])
    del created, characters, sources, criteria
    rank = np.empty(total, np.int32)
    rank[order] = np.arange(total)
    ranks_by_id = rank[by_id]
    del rank, by_id
    urls = None if urls is None else urls[order]
    return Corpus(ids[order], texts[order], sets[order], shingles[order], urls, order, ranks_by_id)


def _quality(curation: Sequence[Shard], ids: Hashes) -> npt.NDArray[np.float64]:
    """The quality of each document by the table of curation; -1 where it has none."""
    rows = pa.Table.from_batches(
        batches_of(curation, ["id", "quality"]), pa.schema([("id", pa.binary(16)), ("quality", pa.float64())])
    )
    found = rows["quality"].take(pc.index_in(as_bytes(ids), value_set=rows["id"].combine_chunks()))
    return found.fill_null(-1.0).to_numpy()


def first_alike(keys: Hashes, among: Flags) -> Ints:
    """For each row the first row with an equal key, among those given; a row that isn't is its own."""
    first = np.arange(len(keys))
    rows = np.flatnonzero(among)
    if len(rows):
        chosen = keys[rows]
        order = sort_halves(chosen)  # stable: equal rows stay in order
        chosen = chosen[order]
        fresh = np.concatenate(([True], ~same(chosen[1:], chosen[:-1])))
        first[rows[order]] = rows[order[np.flatnonzero(fresh)]][np.cumsum(fresh) - 1]
    return first


def fill_bands(files: Sequence[Shard], out: Ints, spill: Spill) -> None:
    """The buckets of all documents into `out`, shape (bands, documents), as the shards have them; 0 without shingles.

    Raises:
        ValueError: where a document has another number of bands.
    """
    at = 0
    for batch in batches_of(files, ["bands"]):
        values, begins, ends = flat(batch.column("bands"))
        some = np.flatnonzero(ends > begins)
        if np.any(ends[some] - begins[some] != len(out)):
            raise ValueError(f"a shard holds another number of bands than {len(out)}: sign it again with this recipe")
        here = np.zeros((batch.num_rows, len(out)), np.int64)
        here[some] = values.view(np.int64).reshape(len(some), len(out))
        out[:, at : at + batch.num_rows] = here.T
        at += batch.num_rows
        spill.touched(here.nbytes)


def fill_shingles(files: Sequence[Shard], part: npt.NDArray[np.int32], starts: Ints, out: Hashes, spill: Spill) -> Ints:
    """The shingles of documents into `out`, part by part, in each in the order of the shards.

    Row r of the shards goes to part[r], or nowhere if that is -1; part k begins at starts[k]. Returns where each row's
    begin. Every part is written from its beginning to its end, so few pages are at work at once.
    """
    at, cursor, begins = 0, starts.copy(), np.zeros(len(part), np.int64)
    for file in files:
        for batch in batches_of([file], ["shingles"], rows_within(file, "shingles")):
            values, first, last = flat(batch.column("shingles"))
            here = slice(at, at + batch.num_rows)
            at += batch.num_rows
            _append(values, first, last, part[here], cursor, out, begins[here])
            spill.touched(values.nbytes)
    return begins


def rows_within(file: Shard, name: str) -> int:
    """How many rows of a column to read at once so that they take about `_BYTES`."""
    if isinstance(file, pa.Table):
        return ROWS
    metadata, size = read_metadata(file), 0
    place = metadata.schema.to_arrow_schema().get_field_index(name)  # no column is nested
    for group in range(metadata.num_row_groups):
        size += metadata.row_group(group).column(place).total_uncompressed_size
    return max(1, min(ROWS, metadata.num_rows * _BYTES // max(size, 1)))


def flat(column: pa.Array) -> tuple[Hashes, Ints, Ints]:
    """A binary column's 64-bit numbers, and where each row's begin and end among them."""
    _, offsets, data = column.buffers()
    bounds = np.frombuffer(offsets, np.int32)[column.offset : column.offset + len(column) + 1].astype(np.int64)
    if data is None or not len(column):
        return np.empty(0, np.uint64), bounds[:-1], bounds[:-1]
    first = int(bounds[0])
    raw = np.frombuffer(data, np.uint8, int(bounds[-1]) - first, first)
    begins = (bounds - first) // 8
    return raw.view("<u8").astype(np.uint64, copy=False), begins[:-1], begins[1:]


@kernel
def _append(
    values: Hashes, first: Ints, last: Ints, part: npt.NDArray[np.int32], cursor: Ints, out: Hashes, begins: Ints
) -> None:
    for d in range(len(first)):
        k = part[d]
        if k >= 0:
            begins[d] = cursor[k]
            cursor[k] += last[d] - first[d]
            out[begins[d] : cursor[k]] = values[first[d] : last[d]]
