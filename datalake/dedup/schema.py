"""The tables of deduplication.

`bands` and `shingles` are arrays of little-endian 64-bit numbers, kept as bytes: a reader takes them as they lie, where
a list column would have to be assembled value by value.
"""

from __future__ import annotations

import pyarrow as pa

from datalake.tables import ID, TIMESTAMP

# One document as a shard signs it, by the document and the SigningConfig alone: a shard's file never changes.
SIGNATURES = pa.schema(
    [
        ("id", ID),
        ("source", pa.string()),
        ("created", TIMESTAMP),
        ("characters", pa.int64()),  # code points of the text
        ("words", pa.int64()),
        ("url_hash", pa.int64()),  # of the normalised web address, null where the document has none
        ("text_hash", pa.binary(16)),  # xxh3_128 of the normalised text
        ("set_hash", pa.binary(16)),  # xxh3_128 of the shingles
        ("shingle_count", pa.int64()),
        ("bands", pa.binary()),  # the bucket in each band, in band order; empty where there is no shingle
        ("shingles", pa.binary()),  # hashes, ascending as unsigned numbers, each once
    ]
)

# One document's embedding, by the document, the model and how it pools alone: a shard's file never changes.
EMBEDDINGS = pa.schema(
    [
        ("id", ID),
        ("embedding", pa.binary()),  # little-endian float16, of length 1 before rounding; null for a blank text
    ]
)

# One verified pair; `a` precedes `b` in the order of precedence. Pairs of similarity 1.0 are a star around the first.
# Level semantic has only the pairs that decided; such a pair may also stand there for what its texts have in common.
PAIRS = pa.schema(
    [
        ("a", ID),
        ("b", ID),
        ("level", pa.string()),  # exact: equal normalised text; near: by Jaccard; semantic: by embeddings
        ("similarity", pa.float64()),  # of shingle sets; at level semantic the cosine of the embeddings
    ]
)

# One document's decision. `duplicate_of` is a kept document and the similarity is to that very document.
DUPLICATES = pa.schema(
    [
        ("id", ID),
        ("duplicate_of", ID),
        # url: another version at the same address, whose text may differ; exact, near and semantic as above
        ("level", pa.string()),
        ("similarity", pa.float64()),  # null at level url
    ]
)
