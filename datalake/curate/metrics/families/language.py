"""How sure ingest was of the language."""

from __future__ import annotations

from datalake.compiled import kernel
from datalake.curate.metrics.family import Family, Metric
from datalake.curate.metrics.prepared.document import Document, Numbers

METRICS = (
    Metric("language_score", False, "confidence of the language as ingest found it; missing where none was computed"),
)


@kernel
def measure(document: Document, row: Numbers) -> None:
    """The confidence, as it was given."""
    row[0] = document.language_score


FAMILY = Family(METRICS, measure)
