"""The curation table: one row for every raw document, in the order of raw, whatever became of it."""

from __future__ import annotations

import pyarrow as pa

from datalake.curate.catalog import METRICS
from datalake.document import ID

CURATION = pa.schema(
    [
        ("id", ID),
        ("source", pa.string()),
        ("language", pa.string()),
        ("rule_set", pa.string()),  # which rules the document was held to
        ("verdict", pa.string()),  # kept or rejected
        ("rule", pa.string()),  # the first failed rule, null where kept
        ("rules", pa.list_(pa.string())),  # all failed rules, in the order of the rule set
        *((metric.name, pa.int64() if metric.whole else pa.float64()) for metric in METRICS),
        # What of the user's block lists its address is on (`lists.py`); null where none are given.
        ("blocked", pa.int64()),  # entries
        ("blocked_by", pa.string()),  # the closest one, `list: entry`; null where there is none
        # What it holds of evaluation sets (`decontaminate.py`); all null where none are given.
        ("contaminated", pa.int64()),  # distinct n-grams
        ("contaminated_share", pa.float64()),  # of its words
        ("contaminated_level", pa.string()),  # exact or normalised; this and the rest null where there is none
        ("contaminated_set", pa.string()),  # set#row of the evaluation row of the longest overlap
        ("contaminated_start", pa.int64()),  # its place in raw's text, in characters
        ("contaminated_end", pa.int64()),
    ]
)
