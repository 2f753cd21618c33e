"""The tables of spans: what is cut from documents that stay, and what a shard is marked with to find it.

Hashes are 64-bit patterns kept as int64, since Iceberg knows no unsigned integers.
"""

from __future__ import annotations

import pyarrow as pa

from datalake.tables import ID, TIMESTAMP

# One stretch that is cut from a kept document's text. Sorted by id, start, end, level; a document's may overlap.
SPANS = pa.schema(
    [
        ("id", ID),
        ("level", pa.string()),  # line, paragraph or substring
        ("start", pa.int64()),  # in characters of documents.text
        ("end", pa.int64()),  # the character after the last one
        ("first", ID),  # the kept document whose occurrence stays (it may be this one); null where none stays
        ("copies", pa.int64()),  # kept documents that hold it, this one included; of a substring: its rarest gram
    ]
)

# One document of a shard, in the order of its documents: what precedence is decided by.
MEMBERS = pa.schema(
    [
        ("id", ID),
        ("source", pa.string()),
        ("created", TIMESTAMP),
        ("characters", pa.int64()),
        ("words", pa.int64()),
    ]
)

# One line or paragraph of at least the minimum, sorted by hash: a range of hashes is a run of row groups.
UNITS = pa.schema(
    [
        ("hash", pa.int64()),
        ("document", pa.int32()),  # row in MEMBERS
        ("start", pa.int32()),  # in characters
        ("end", pa.int32()),  # line breaks and blank lines after it included
    ]
)

# One fingerprint, sorted by hash.
FINGERPRINTS = pa.schema(
    [
        ("hash", pa.int64()),
        ("document", pa.int32()),  # row in MEMBERS
        ("position", pa.int32()),  # number of the first of its words
    ]
)
