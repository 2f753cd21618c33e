"""Texts and tokens of the documents that a mixture names."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.compute as pc

from datalake.holdout import repetitions
from datalake.lake.lake import FolderRef, Lake, TableRef
from datalake.lake.parquet import read_batches, read_table
from datalake.lake.tokens import token_indices

if TYPE_CHECKING:
    from datalake.dedup.spans.cut import Cuts


def mixture_ids(files: list[str], split: str | None = None) -> pa.ChunkedArray:
    """Ids of the documents in the mixture, or in one split of it."""
    filters = None if split is None else [("split", "=", split)]
    tables = [read_table(file, ["id"], filters) for file in files]
    return pa.concat_tables(tables)["id"] if tables else pa.chunked_array([], pa.binary(16))


def selected_texts(documents: str, wanted: pa.ChunkedArray, cuts: Cuts) -> Iterator[tuple[pa.Array, pa.Array]]:
    """Columns (ids, texts) of the documents of one file whose id is wanted, in its order, without what is cut."""
    from datalake.dedup.spans.cut import cut_texts

    for batch in read_batches(documents, ["id", "text"]):
        kept = batch.filter(pc.is_in(batch["id"], wanted))
        yield kept["id"], cut_texts(kept["id"], kept["text"], cuts)


def _pairs(columns: Iterable[tuple[pa.Array, pa.Array]]) -> Iterator[tuple[bytes, str]]:
    """Rows (id, text) of such columns."""
    for ids, texts in columns:
        yield from zip(ids.to_pylist(), texts.to_pylist(), strict=True)


def split_documents(lake: Lake, mixture: TableRef, seed: int) -> tuple[list[tuple[bytes, int]], list[bytes]]:
    """(id, repetitions) of what may train, and the ids that are held out, both in the mixture's order."""
    train: list[tuple[bytes, int]] = []
    heldout: list[bytes] = []
    for file in lake.files(mixture):
        for row in read_table(file, ["id", "split", "epochs"]).to_pylist():
            if row["split"] == "heldout":
                heldout.append(row["id"])
            else:
                train.append((row["id"], repetitions(row["epochs"], row["id"], seed)))
    return train, heldout


def origins(lake: Lake, mixture: TableRef) -> dict[bytes, tuple[str, str]]:
    """Source and language of each document that may train."""
    found: dict[bytes, tuple[str, str]] = {}
    for file in lake.files(mixture):
        rows = read_table(file, ["id", "source", "language"], [("split", "=", "train")])
        sources, languages = rows["source"].to_pylist(), rows["language"].to_pylist()
        found |= zip(rows["id"].to_pylist(), zip(sources, languages, strict=True), strict=True)
    return found


def training_documents(
    lake: Lake, mixture: TableRef, tokens: FolderRef, seed: int
) -> tuple[list[tuple[bytes, int]], list[bytes]]:
    """(id, repetitions) of what trains, and the ids that are held out: those that have tokens.

    Where tokenize was partial, documents of its unfinished shards are missing here, and its data version says so.
    """
    have = {id for index in token_indices(lake, tokens) for id in read_table(index, ["id"])["id"].to_pylist()}
    train, heldout = split_documents(lake, mixture, seed)
    return [(id, times) for id, times in train if times and id in have], [id for id in heldout if id in have]
