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
    ]
)
