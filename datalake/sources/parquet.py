"""Rows of Parquet files."""

from __future__ import annotations

from collections.abc import Iterator

from datalake.document import Quarantined
from datalake.sources import table
from datalake.sources.config import Table
from datalake.sources.protocol import InputShard
from datalake.sources.rows import Row


def parquet_rows(path: str, archive: str, source: str) -> Iterator[Row | Quarantined]:
    """Rows of a Parquet file, row group by row group; an unreadable one is one span. Offsets: row numbers."""
    return table._parquet(InputShard(table.KIND, archive, path), Table(paths=[path], name=source))
