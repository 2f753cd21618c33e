"""The text of a document without what is cut from it: the one way in which everything that trains reads documents.

Text is stored once, whole, in `documents`; `spans` says what is cut. The view `clean` does the same in SQL (ledger.py).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TypeAlias

import pyarrow as pa
import pyarrow.compute as pc

from datalake.dedup.texts.signed import batches_of

Table: TypeAlias = str | Path | pa.Table
Cuts: TypeAlias = Mapping[bytes, Sequence[tuple[int, int]]]

BATCH_ROWS = 65_536


def read_cuts(spans: Sequence[Table], ids: pa.Array | pa.ChunkedArray) -> Cuts:
    """What is cut from these documents: (start, end) in characters by id. Spans are Parquet files or tables."""
    cuts: dict[bytes, list[tuple[int, int]]] = {}
    wanted = ids.cast(pa.binary(16))
    for batch in batches_of(spans, ["id", "start", "end"], BATCH_ROWS):
        found = batch.filter(pc.is_in(batch.column("id"), wanted))
        columns = (found.column(name).to_pylist() for name in ("id", "start", "end"))
        for id, start, end in zip(*columns, strict=True):
            cuts.setdefault(id, []).append((start, end))
    return cuts


def cut(text: str, spans: Sequence[tuple[int, int]]) -> str:
    """The text without the characters in any of the spans, which may overlap and come in any order."""
    kept, upto = [], 0
    for start, end in sorted(spans):
        if start > upto:
            kept.append(text[upto:start])
        upto = max(upto, end)
    kept.append(text[upto:])
    return "".join(kept)


def cut_texts(ids: pa.Array, texts: pa.Array, cuts: Cuts) -> pa.Array:
    """A column of texts, each without what is cut from it; empty where nothing is left."""
    if not cuts:
        return texts
    pairs = zip(ids.to_pylist(), texts.to_pylist(), strict=True)
    return pa.array([cut(text, cuts[id]) if id in cuts else text for id, text in pairs], texts.type)
