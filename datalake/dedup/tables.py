"""The tables of decisions from flat arrays, and into how many files they are parted.

A part is an even range of ids. How many there are depends on the number of documents alone, so the files are the same
however the decisions were made.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from datalake.dedup.schema import DUPLICATES, PAIRS
from datalake.dedup.texts.signed import Halves, as_bytes

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]

KEPT, URL, EXACT, NEAR, SEMANTIC = -1, 0, 1, 2, 3  # levels as numbers
ROWS = 1 << 20  # rows of a table made at once; where row groups end follows from it
_LEVELS = pa.array(["url", "exact", "near", "semantic"])
_DOCUMENTS = 1 << 24  # of a part, at most


def parts_of(documents: int) -> int:
    """How many files the decisions on so many documents take."""
    return max(1, -(-documents // _DOCUMENTS))


def range_of(hashes: npt.NDArray[Any], ranges: int) -> Ints:
    """In which of so many even ranges over all 64-bit hashes each one is; their order is that of unsigned numbers."""
    leading = hashes.view(np.uint64) >> np.uint64(32)
    return (leading * np.uint64(ranges) >> np.uint64(32)).astype(np.int64)


def duplicates_table(ids: Halves, targets: Halves, level: Ints, similarity: Floats) -> pa.Table:
    """DUPLICATES: documents, what stands for each, at which level and how similar; ids are (rows, 2) halves."""
    kept = level == KEPT
    columns = [
        as_bytes(ids),
        _where_not(kept, as_bytes(targets)),
        _where_not(kept, _levels(level)),
        pa.array(similarity, mask=kept | (level == URL)),
    ]
    return pa.Table.from_arrays(columns, schema=DUPLICATES)


def pairs_table(first: Halves, second: Halves, level: Ints, similarity: Floats) -> pa.Table:
    """PAIRS: documents a and b, as (rows, 2) halves of ids."""
    columns = [as_bytes(first), as_bytes(second), _levels(level), pa.array(similarity)]
    return pa.Table.from_arrays(columns, schema=PAIRS)


def _levels(codes: Ints) -> pa.Array:
    return pa.DictionaryArray.from_arrays(pa.array(np.maximum(codes, 0)), _LEVELS).cast(pa.string())


def _where_not(empty: npt.NDArray[np.bool_], values: pa.Array) -> pa.Array:
    """The values, null where `empty` is true."""
    return values.take(pa.array(np.arange(len(values)), mask=empty))
