"""A table of a lake, or the rows of a query, as Parquet files that other programs read.

Rows come in batches, so a table needn't fit in memory. Maps become lists of `key` and `value`, which more readers know.
"""

from __future__ import annotations

import re
import warnings
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from datalake.errors import UserError, first_line
from datalake.lake.lake import Lake
from datalake.lake.ledger import ask

if TYPE_CHECKING:
    import duckdb
    import pyarrow as pa

ROWS_A_GROUP = 10_000
BYTES_A_FILE = 500_000_000  # of rows in memory: the hub shows files of up to some hundred megabytes
_TABLE = re.compile(r"[A-Za-z0-9_]+\.[A-Za-z0-9_]+")
GROUPS = ("source", "licence", "language")


def is_table(name: str) -> bool:
    """Whether a name is one of a table, such as `demo.documents`."""
    return _TABLE.fullmatch(name) is not None


def is_query(text: str) -> bool:
    """Whether a text is a query rather than a name."""
    return re.match(r"(?is)\s*(select|with|from)\b.*\s", text) is not None


@dataclass
class Exported:
    """What was written: rows, files, columns with their types, and rows by source, licence and language."""

    rows: int = 0
    files: list[str] = field(default_factory=list)
    columns: list[tuple[str, str]] = field(default_factory=list)
    groups: Counter[tuple[str | None, ...]] = field(default_factory=Counter)
    notes: list[str] = field(default_factory=list)


def write_rows(lake: Lake, asked: str, folder: Path, run: str | None = None) -> Exported:
    """Write a table by its name, or a query's rows, into `folder` as `part-00000.parquet` and so on.

    Raises:
        UserError: where there is no such table, or the query is wrong or no SELECT.
    """
    if not is_table(asked) and not is_query(asked):
        raise UserError(f"{asked} is no table and no query: name one such as demo.documents, or give a SELECT")
    sql = 'SELECT * FROM "{}"."{}"'.format(*asked.split(".")) if is_table(asked) else asked
    exported = Exported()
    _, _, exported.notes = ask(lake, sql, run, fetch=lambda result: _write(result, folder, exported))
    return exported


def _write(result: duckdb.DuckDBPyConnection, folder: Path, exported: Exported) -> None:
    import pyarrow.parquet as pq

    with warnings.catch_warnings(action="ignore"):  # that a query's result is copied once more
        reader: Any = result.to_arrow_reader(ROWS_A_GROUP)
    schema = _plain_schema(reader.schema)
    if twice := [name for name, count in Counter(schema.names).items() if count > 1]:
        raise UserError(f"several columns are called {twice[0]!r}: name them apart (SELECT ... AS ...)")
    exported.columns = [(field.name, str(field.type)) for field in schema]
    keys = [name for name in GROUPS if name in schema.names]
    writer, size = None, 0
    folder.mkdir(parents=True, exist_ok=True)
    try:
        for batch in _and_one(reader, schema):
            if writer is None or size > BYTES_A_FILE:
                if writer is not None:
                    writer.close()
                name = f"part-{len(exported.files):05}.parquet"
                writer, size = pq.ParquetWriter(folder / name, schema, compression="zstd"), 0
                exported.files.append(name)
            writer.write_table(batch)
            size += batch.nbytes
            exported.rows += batch.num_rows
            if keys:
                counted = batch.group_by(keys).aggregate([([], "count_all")])
                for *values, count in zip(*(counted[name].to_pylist() for name in (*keys, "count_all")), strict=True):
                    named = dict(zip(keys, values, strict=True))
                    exported.groups[tuple(named.get(name) for name in GROUPS)] += count
    finally:
        if writer is not None:
            writer.close()


def _and_one(reader: Any, schema: pa.Schema) -> Any:
    """The batches as tables of a schema; one without rows where there is none, so that the columns are told."""
    import pyarrow as pa

    empty = True
    for batch in reader:
        if batch.num_rows:
            empty = False
            columns = [_plain(column, field.type) for column, field in zip(batch.columns, schema, strict=True)]
            yield pa.Table.from_arrays(columns, schema=schema)
    if empty:
        yield schema.empty_table()


def _plain_schema(schema: pa.Schema) -> pa.Schema:
    import pyarrow as pa

    return pa.schema([pa.field(field.name, _plain_type(field.type)) for field in schema])


def _plain_type(type: pa.DataType) -> pa.DataType:
    """The type that a column is written in: no maps, no decimals without fractions, as DuckDB has sums."""
    import pyarrow as pa

    if pa.types.is_map(type):
        return pa.list_(pa.struct([("key", _plain_type(type.key_type)), ("value", _plain_type(type.item_type))]))
    if pa.types.is_list(type):
        return pa.list_(_plain_type(type.value_type))
    if pa.types.is_struct(type):
        return pa.struct([pa.field(field.name, _plain_type(field.type)) for field in type.fields])
    if pa.types.is_interval(type) or pa.types.is_union(type):
        raise UserError(f"a column is of type {type}, which Parquet doesn't hold: cast it to another, such as VARCHAR")
    if pa.types.is_decimal(type) and type.scale == 0:
        return pa.int64()
    return type


def _plain(column: Any, type: pa.DataType) -> Any:
    import pyarrow as pa

    if column.type == type:
        return column
    mask = column.is_null() if column.null_count else None
    if pa.types.is_map(column.type):
        fields = list(type.value_type)
        parts = [_plain(part, field.type) for part, field in zip((column.keys, column.items), fields, strict=True)]
        entries = pa.StructArray.from_arrays(parts, fields=fields)
        return pa.ListArray.from_arrays(column.offsets, entries, type=type, mask=mask)
    if pa.types.is_list(type):
        return pa.ListArray.from_arrays(column.offsets, _plain(column.values, type.value_type), type=type, mask=mask)
    if pa.types.is_struct(type):
        parts = [_plain(column.field(place), field.type) for place, field in enumerate(type.fields)]
        return pa.StructArray.from_arrays(parts, fields=list(type.fields), mask=mask)
    try:
        return column.cast(type)
    except pa.ArrowInvalid as error:
        raise UserError(f"a column holds numbers that don't fit {type} ({first_line(error)}): cast it") from None
