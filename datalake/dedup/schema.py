"""The tables of deduplication.

Hashes are 64-bit patterns kept as int64, since Iceberg knows no unsigned integers; `shingles` are sorted as unsigned.
"""

from __future__ import annotations

import pyarrow as pa

from datalake.document import ID, TIMESTAMP

# One document as a shard signs it, by the document and the SigningConfig alone: a shard's file never changes.
SIGNATURES = pa.schema(
    [
        ("id", ID),
        ("source", pa.string()),
        ("created", TIMESTAMP),
        ("characters", pa.int64()),  # code points of the text
        ("words", pa.int64()),
        ("text_hash", pa.binary(16)),  # xxh3_128 of the normalised text
        ("set_hash", pa.binary(16)),  # xxh3_128 of the sorted shingle hashes
        ("bands", pa.list_(pa.int64())),  # the bucket in each band, in band order; empty where there is no shingle
        ("shingles", pa.list_(pa.int64())),  # sorted, each once
    ]
)

# One verified pair; `a` precedes `b` in the order of precedence. Pairs of similarity 1.0 are a star around the first.
PAIRS = pa.schema(
    [
        ("a", ID),
        ("b", ID),
        ("level", pa.string()),  # exact: equal normalised text; near: by Jaccard
        ("similarity", pa.float64()),
    ]
)

# One document's decision. `duplicate_of` is a kept document and the similarity is to that very document.
DUPLICATES = pa.schema(
    [
        ("id", ID),
        ("duplicate_of", ID),
        ("level", pa.string()),
        ("similarity", pa.float64()),
    ]
)
