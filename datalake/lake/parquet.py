"""Reading the lake's Parquet files: what was written, and nothing else.

A file's bytes are compared with the digest in its `shard.json` before a process first reads it, since a checksum of
pages says nothing of the footer, of page headers and of statistics; pages are checked as well. Folder names are never
columns (`language=fr/`), and characters that mean something to DuckDB in a path (`*`, `?`, `[`) mean themselves.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq

from datalake.lake.contents import verify

if TYPE_CHECKING:
    import pyarrow.dataset as ds

_WILD = re.compile(r"[*?\[]")


def check(path: str | Path) -> None:
    """Make sure that a file of a shard is what was written; one outside any shard has nothing to compare with.

    Raises LostDataError where it isn't: see `datalake.lake.contents.verify`.
    """
    path = Path(path)
    written = (shard_entries(path.parent / "shard.json") or {}).get(path)
    if written is not None:
        verify(path, *written)


def shard_entries(mark: Path) -> dict[Path, tuple[int, str]] | None:
    """Size and digest of each file that a `shard.json` names; None where it can't be read."""
    try:
        files = json.loads(mark.read_bytes())["files"]
        return {mark.parent / Path(file["path"]).name: (int(file["bytes"]), str(file["digest"])) for file in files}
    except (OSError, ValueError, KeyError, TypeError):
        return None


def open_parquet(path: str | Path) -> pq.ParquetFile:
    """A Parquet file of the lake, checked; close it, or use it as a context manager."""
    check(path)
    return pq.ParquetFile(path, page_checksum_verification=True)


def read_table(path: str | Path, columns: list[str] | None = None, filters: Any = None) -> pa.Table:
    """Columns of a Parquet file of the lake, whole, or its rows for which `filters` hold."""
    check(path)
    return pq.read_table(path, columns=columns, filters=filters, partitioning=None, page_checksum_verification=True)


def read_schema(path: str | Path) -> pa.Schema:
    """The schema of a Parquet file of the lake, with its metadata."""
    check(path)
    return pq.read_schema(path)


def read_metadata(path: str | Path) -> pq.FileMetaData:
    """What the footer of a Parquet file of the lake says."""
    check(path)
    return pq.read_metadata(path)


def read_batches(path: str | Path, columns: list[str] | None = None, rows: int = 1024) -> Iterator[pa.RecordBatch]:
    """The rows of a Parquet file of the lake in bounded batches, in order."""
    with open_parquet(path) as file:
        yield from file.iter_batches(batch_size=rows, columns=columns)


def dataset(paths: Sequence[str]) -> ds.Dataset:
    """Parquet files of the lake as one table to be scanned; a column that some of them lack is null there.

    For a look at little of much: pages that are read are checked, whole files are not.
    """
    import pyarrow.dataset as ds  # which imports pandas, where that is installed

    schema = pa.unify_schemas([pq.read_schema(path).remove_metadata() for path in paths])
    options = ds.ParquetFragmentScanOptions(page_checksum_verification=True, pre_buffer=True)
    format = ds.ParquetFileFormat(default_fragment_scan_options=options)
    return ds.dataset(list(paths), schema=schema, format=format, partitioning=None)


def literal(path: str) -> str:
    """A path for DuckDB that means this one file, whatever characters it has."""
    return _WILD.sub(lambda match: f"[{match[0]}]", path)


def quoted(values: Sequence[str]) -> str:
    """Texts as a list in SQL."""
    return "[" + ", ".join("'" + value.replace("'", "''") + "'" for value in values) + "]"


def scan(paths: Sequence[str], by_name: bool = False) -> str:
    """SQL that reads these Parquet files, and no others, by DuckDB. It has no look at checksums: see `check`."""
    union = ", union_by_name = true" if by_name else ""
    return f"read_parquet({quoted([literal(path) for path in paths])}, hive_partitioning = false{union})"


def distinct(names: Sequence[str], mark: str = ".") -> list[str]:
    """The names of columns, the second of two that are called alike `name.1`, so that none takes another's place."""
    found: list[str] = []
    for name in names:
        number, own = 0, name
        while own in found:
            number += 1
            own = f"{name}{mark}{number}"
        found.append(own)
    return found
