"""Reading the lake's Parquet files: what was written, and nothing else.

A file's bytes are compared with the digest in its `shard.json` before a process first reads it, since a checksum of
pages says nothing of the footer, of page headers and of statistics; pages are checked as well. Folder names are never
columns (`language=fr/`), and characters that mean something to DuckDB in a path (`*`, `?`, `[`) mean themselves.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq

from datalake.lake.copies import near
from datalake.places import copy_of, is_local, place, protocols_of, several, store_of

if TYPE_CHECKING:
    import duckdb
    import pyarrow.dataset as ds

_WILD = re.compile(r"[*?\[]")


def check(path: str | Path) -> Path:
    """Make sure that a file of a shard is what was written; one outside any shard has nothing to compare with.

    Returns where its bytes are: of a lake in a store that is this machine's copy. Raises LostDataError where it isn't
    what was written: see `datalake.lake.copies`.
    """
    return near(path)


def _opened(path: str | Path) -> tuple[str, Any]:
    """Where a look at a part of a file goes, for Arrow: (path, file system). A file in a store of which there is no
    copy here is asked for that part alone; only its pages are checked then."""
    where = place(path)
    if is_local(where) or copy_of(where).is_file():
        return str(check(where)), None
    store, key = store_of(where)
    return key, store


def open_parquet(path: str | Path) -> pq.ParquetFile:
    """A Parquet file of the lake, checked; close it, or use it as a context manager."""
    return pq.ParquetFile(check(path), page_checksum_verification=True)


def read_table(path: str | Path, columns: list[str] | None = None, filters: Any = None) -> pa.Table:
    """Columns of a Parquet file of the lake, whole, or its rows for which `filters` hold."""
    where, store = (str(check(path)), None) if columns is None else _opened(path)
    return pq.read_table(
        where, columns=columns, filters=filters, filesystem=store, partitioning=None, page_checksum_verification=True
    )


def read_schema(path: str | Path) -> pa.Schema:
    """The schema of a Parquet file of the lake, with its metadata."""
    where, store = _opened(path)
    return pq.read_schema(where, filesystem=store)


def read_metadata(path: str | Path) -> pq.FileMetaData:
    """What the footer of a Parquet file of the lake says."""
    where, store = _opened(path)
    return pq.read_metadata(where, filesystem=store)


def read_batches(path: str | Path, columns: list[str] | None = None, rows: int = 1024) -> Iterator[pa.RecordBatch]:
    """The rows of a Parquet file of the lake in bounded batches, in order."""
    with open_parquet(path) as file:
        yield from file.iter_batches(batch_size=rows, columns=columns)


def dataset(paths: Sequence[str]) -> ds.Dataset:
    """Parquet files of the lake as one table to be scanned; a column that some of them lack is null there.

    For a look at little of much: pages that are read are checked, whole files are not.
    """
    import pyarrow.dataset as ds  # which imports pandas, where that is installed

    options = ds.ParquetFragmentScanOptions(page_checksum_verification=True, pre_buffer=True)
    format = ds.ParquetFileFormat(default_fragment_scan_options=options)
    store, where = None, list(paths)
    if paths and not is_local(place(paths[0])):
        store, where = store_of(place(paths[0]))[0], [store_of(place(path))[1] for path in paths]
    schemas = several(lambda path: pq.read_schema(path, filesystem=store).remove_metadata(), where, place(paths[0]))
    return ds.dataset(where, schema=pa.unify_schemas(list(schemas)), format=format, filesystem=store, partitioning=None)


def literal(path: str) -> str:
    """A path for DuckDB that means this one file, whatever characters it has."""
    return _WILD.sub(lambda match: f"[{match[0]}]", path)


def quoted(values: Sequence[str]) -> str:
    """Texts as a list in SQL."""
    return "[" + ", ".join("'" + value.replace("'", "''") + "'" for value in values) + "]"


def attach(connection: duckdb.DuckDBPyConnection, where: str | Path) -> None:
    """Let DuckDB read what lies there: a store through fsspec, since its own extension for it has to be downloaded."""
    if not is_local(place(where)):
        connection.register_filesystem(store_of(place(where))[0])


def spellings(folder: Path) -> list[str]:
    """All that DuckDB may call a folder: a store's library writes addresses with whichever of its protocols it likes
    best, as adlfs does `abfs://` for `az://`."""
    names = [str(folder)]
    if not is_local(folder):
        key = store_of(folder)[1]
        names += [f"{protocol}://{key}" for protocol in protocols_of(folder)]
    return list(dict.fromkeys([*names, *map(literal, names)]))


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
