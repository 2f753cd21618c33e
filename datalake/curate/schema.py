"""The curation table: one row for every raw document, in the order of raw, whatever became of it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from datalake.curate.metrics.catalog import METRICS
from datalake.curate.rules import CLASSIFIER
from datalake.tables import ID

SPAN = pa.struct([("start", pa.int64()), ("end", pa.int64()), ("set", pa.string())])
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
        ("contaminated_spans", pa.list_(SPAN)),  # all that is cut of raw's text where it is kept, null where nothing is
        ("contaminated_cut", pa.int64()),  # characters cut of the text that is kept; 0 where none is kept
        (
            "contaminated_left",
            pa.int64(),
        ),  # characters that edits and cuts leave, kept or not; null: no cut
        ("classifiers", pa.map_(pa.string(), pa.float64())),  # scores by the recipe's classifiers, by name; null: none
    ]
)


def schema_with(names: Iterable[str]) -> pa.Schema:
    """The schema with the columns of a recipe's own metrics after all others."""
    return pa.schema([*CURATION, *((name, pa.float64()) for name in names)])


def column_of(metric: str) -> str:
    """The column that holds a metric: of its name, but for classifiers', which share one."""
    return "classifiers" if metric.startswith(CLASSIFIER) else metric


def value_of(row: Mapping[str, Any], metric: str) -> Any:
    """A metric's value in a row of the table, as Arrow or DuckDB gives it; None where it is missing."""
    if not metric.startswith(CLASSIFIER):
        return row.get(metric)
    return dict(row.get("classifiers") or ()).get(metric.removeprefix(CLASSIFIER))


def values_of(table: pa.Table, metric: str) -> pa.ChunkedArray:
    """A metric's values in a table, null where missing."""
    column = table[column_of(metric)]
    return pc.map_lookup(column, metric.removeprefix(CLASSIFIER), "first") if metric.startswith(CLASSIFIER) else column


def sql_of(metric: str) -> str:
    """A metric as an expression of DuckDB."""
    if not metric.startswith(CLASSIFIER):
        return f'"{metric}"'
    return f"classifiers['{metric.removeprefix(CLASSIFIER)}']"  # names are identifiers
