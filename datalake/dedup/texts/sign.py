"""One shard's documents to one shard of signatures: all that deduplication ever needs to know of their texts.

A shard's signatures depend on its documents and the SigningConfig alone. They are written once and joined by the shards
of later crawls without reading a text again.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import xxhash

from datalake.dedup.config import DedupConfig, SigningConfig
from datalake.dedup.schema import SIGNATURES
from datalake.dedup.texts.bands import buckets
from datalake.dedup.texts.minhash import sign as minhash
from datalake.dedup.texts.shingles import shingle
from datalake.dedup.urls import url_hashes
from datalake.identity import canonical
from datalake.lake.parquet import read_batches

COLUMNS = ["id", "text", "source", "uri", "created"]
BATCH_ROWS = 1024
BATCH_BYTES = 64 << 20
SIGNED_WITH = b"headwater.signing"  # metadata key: the SigningConfig in canonical JSON


def signature_schema(config: SigningConfig) -> pa.Schema:
    """SIGNATURES, marked with what it was signed with."""
    return SIGNATURES.with_metadata({SIGNED_WITH: canonical(config)})


def sign_batches(batches: Iterable[pa.RecordBatch], config: SigningConfig) -> Iterator[pa.RecordBatch]:
    """Signs record batches with the columns of `COLUMNS`, in their order."""
    schema = signature_schema(config)
    for batch in _portions(batches):
        sets = shingle(batch.column("text"), config.ngram)
        signatures = minhash(sets.shingles, sets.ends, config.bands * config.rows, config.seed)
        banded = buckets(signatures, config.bands, config.rows)
        begins = np.concatenate(([0], sets.ends[:-1])) if len(sets.ends) else sets.ends
        some = sets.ends > begins
        view = sets.shingles.view(np.uint8).data
        set_hashes = [
            xxhash.xxh3_128_digest(view[8 * a : 8 * b])
            for a, b in zip(begins.tolist(), sets.ends.tolist(), strict=True)
        ]
        columns = [
            batch.column("id").cast(pa.binary(16)),
            batch.column("source").cast(pa.string()),
            batch.column("created").cast(SIGNATURES.field("created").type),
            pa.array(sets.characters),
            pa.array(sets.words),
            url_hashes(batch.column("uri")),
            pa.array(sets.text_hashes, pa.binary(16)),
            pa.array(set_hashes, pa.binary(16)),
            pa.array(sets.ends - begins),
            as_binary(banded[some].ravel(), np.cumsum(some * config.bands)),
            as_binary(sets.shingles, sets.ends),
        ]
        yield pa.RecordBatch.from_arrays(columns, schema=schema)


def sign_file(documents: str | Path | pa.Table, config: DedupConfig | SigningConfig) -> dict[str, pa.Table]:
    """{"signatures": table} of one shard of documents (a Parquet file or a table), a row per document, in its order."""
    signing = config.signing if isinstance(config, DedupConfig) else config
    if isinstance(documents, pa.Table):
        batches = documents.select(COLUMNS).to_batches(max_chunksize=BATCH_ROWS)
        return {"signatures": pa.Table.from_batches(sign_batches(batches, signing), signature_schema(signing))}
    batches = read_batches(documents, COLUMNS, BATCH_ROWS)
    return {"signatures": pa.Table.from_batches(sign_batches(batches, signing), signature_schema(signing))}


def _portions(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """The batches, long texts a few at a time: memory follows the longest text, and offsets fit 32 bits."""
    for batch in batches:
        rows = max(1, batch.num_rows * BATCH_BYTES // max(1, batch.nbytes))
        for start in range(0, batch.num_rows, rows):
            yield batch.slice(start, rows)


def as_binary(values: np.ndarray, ends: np.ndarray) -> pa.Array:
    """Flat 64-bit numbers as a binary column: row k holds `values[ends[k - 1]:ends[k]]`, little-endian."""
    offsets = np.concatenate(([0], ends * 8)).astype(np.int32)
    data = pa.py_buffer(np.ascontiguousarray(values).astype(values.dtype.newbyteorder("<"), copy=False))
    return pa.Array.from_buffers(pa.binary(), len(ends), [None, pa.py_buffer(offsets), data])
