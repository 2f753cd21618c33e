"""Rows of Parquet files in bounded memory, damaged or not.

Memory. Arrow decompresses a page whole and copies what is in it, and a batch is chosen to hold about `_BATCH` bytes of
average rows. So the bound is 64 MiB and six times the largest page, which is 1 MiB as writers make them unless one cell
is larger (measured: 1.5 GiB for a cell of 300 MB). Columns in dictionary encoding stay so until a row is taken: a long
value that many rows share is held once. Cells beyond the limit never become Python values.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from datalake.document import Quarantined
from datalake.formats.allowance import BOMB, Allowance, BombError, allowance_of
from datalake.formats.rows.json import LONGEST, Row
from datalake.lake.parquet import distinct
from datalake.origin import Origin

_BATCH = 16 << 20  # bytes
_ROWS = 1024
DAMAGE = (OSError, pa.ArrowException, UnicodeDecodeError, ValueError, OverflowError)
# What reading a value as Python's raises: bytes that are no text, times beyond Python's or of an unknown zone.
_NO_VALUE = (ValueError, OverflowError, pa.ArrowException, LookupError)
_CELL = 32  # bytes that a cell counts for, however little of the file it takes


def parquet_rows(
    path: str, origin: Origin, longest: int = LONGEST, allowance: Allowance | None = None
) -> Iterator[Row | Quarantined]:
    """Rows of a Parquet file. Offsets: row numbers.

    A cell that can't be read costs no more than itself, a damaged column its rows from there to the end of the row
    group (`Row.lost`); a row group in which no column can be read further is one span of the rows that are left.
    A row of more than `longest` bytes is quarantined as `too_large`; where the rows come to more than the allowance
    (empty: the file's own), those behind are one `bomb`. A file that can't be opened raises OSError.
    """
    with open(path, "rb"):  # noqa: PTH123 - what the disk refuses may pass; what Arrow refuses is the file's content
        pass
    try:
        with pq.ParquetFile(path) as file:
            encoded = _dictionaries(file)
        allowance = allowance or allowance_of(path)
        with pq.ParquetFile(path, read_dictionary=encoded, coerce_int96_timestamp_unit="us") as file:
            number = 0
            for group in range(file.num_row_groups):
                try:
                    _expect(file.metadata.row_group(group), allowance)
                    for row in _group(file, group, number, origin, longest, allowance):
                        yield row
                        number += row.length if isinstance(row, Quarantined) else 1
                except BombError as error:
                    yield origin.lost(BOMB, str(error), number, file.metadata.num_rows - number)
                    return
    except (OSError, pa.ArrowException) as error:
        yield origin.lost("parquet", first_line(error), 0, -1)


def _expect(about: pq.RowGroupMetaData, allowance: Allowance) -> None:
    """Raises BombError where a row group says itself that it is more than may come.

    Pages are decompressed whole, and so is a row whose cells hold lists: that must be known before they are read.
    """
    columns = [about.column(place) for place in range(about.num_columns)]
    listed = sum(column.num_values for column in columns if column.num_values > about.num_rows)
    if max(about.total_byte_size, sum(c.total_uncompressed_size for c in columns), _CELL * listed) > allowance.left:
        allowance.take(allowance.left + 1)


def _group(
    file: pq.ParquetFile, group: int, number: int, origin: Origin, longest: int, allowance: Allowance
) -> Iterator[Row | Quarantined]:
    """The rows of one row group, the first of which is row `number` of the file."""
    about = file.metadata.row_group(group)
    each = max(1, about.total_byte_size // max(1, about.num_rows))
    size = max(1, min(_ROWS, _BATCH // each))
    done = 0
    try:
        for batch in file.iter_batches(batch_size=size, row_groups=[group]):
            for row in rows_of(batch, number + done, origin, longest, allowance):
                yield row
                done += 1
    except BombError:
        raise
    except DAMAGE as error:
        for batch, lost in _readable(file, group, size, done):
            for row in rows_of(batch, number + done, origin, longest, allowance):
                if isinstance(row, Row):
                    row.lost = lost
                yield row
                done += 1
        if left := about.num_rows - done:
            problem = f"row group {group}, {left} rows: {first_line(error)}"
            yield origin.lost("parquet", problem, number + done, left)


def _readable(
    file: pq.ParquetFile, group: int, size: int, done: int
) -> Iterator[tuple[pa.RecordBatch, tuple[str, ...]]]:
    """The rows of a row group behind the first `done`, without the columns that can't be read, whose names come along.

    Every column is read by itself, up to where it breaks. Ends where none is left.
    """
    names = list(dict.fromkeys(file.schema_arrow.names))
    columns = {name: file.iter_batches(batch_size=size, row_groups=[group], columns=[name]) for name in names}
    waiting: dict[str, pa.Array] = {}
    start, end = 0, file.metadata.row_group(group).num_rows
    while start < end:
        for name in list(columns):
            if not len(waiting.get(name, ())):
                try:
                    waiting[name] = next(columns[name]).column(0)
                except (*DAMAGE, StopIteration, IndexError):
                    waiting.pop(name, None)
                    del columns[name]
        if not columns:
            return
        rows = min(map(len, waiting.values()))
        before = min(rows, max(0, done - start))
        parts = [waiting[name].slice(before, rows - before) for name in columns]
        if rows > before:
            lost = tuple(name for name in names if name not in columns)
            yield pa.RecordBatch.from_arrays(parts, names=list(columns)), lost
        waiting = {name: column.slice(rows) for name, column in waiting.items()}
        start += rows


def rows_of(
    batch: pa.RecordBatch, number: int, origin: Origin, longest: int, allowance: Allowance
) -> Iterator[Row | Quarantined]:
    """Each row of a batch, the first of which is row `number` of its file; one beyond the limit is `too_large`.

    Raises BombError where a row is more than may come.
    """
    batch = _known(batch)
    sizes = _sizes(batch)
    start = 0
    while start < batch.num_rows:
        if sizes[start] > longest:
            allowance.take(_CELL * batch.num_columns)
            place = number + start
            yield origin.lost("too_large", f"a row of {sizes[start]} bytes", place, 1)
            start += 1
            continue
        end, held = start + 1, sizes[start]
        while end < batch.num_rows and sizes[end] <= longest and held + sizes[end] <= _BATCH:
            held += sizes[end]
            end += 1
        allowance.take(held + _CELL * batch.num_columns * (end - start))
        for place, (value, replaced) in enumerate(_python(batch.slice(start, end - start)), number + start):
            yield Row(place, place, 1, value, replaced)
        start = end


def _python(batch: pa.RecordBatch) -> Iterator[tuple[dict[str, Any], str]]:
    """Each row as Python values, and what was wrong with the bytes of a text in it, which are U+FFFD now.

    Of nanoseconds the microseconds stay; a time that Python has none for, as one behind the year 9999, is a text.
    """
    replaced: dict[int, str] = {}
    columns = [_column(column, replaced) for column in batch.columns]
    names = batch.schema.names
    for number, cells in enumerate(zip(*columns, strict=True)):
        yield dict(zip(names, cells, strict=True)), replaced.get(number, "")


def _column(column: pa.Array, replaced: dict[int, str]) -> list[Any]:
    if "[ns" in str(column.type):  # of which Arrow makes values of pandas' own where that is installed
        column = _without_nanoseconds(column)
    try:
        return _values(column)
    except _NO_VALUE:
        column = _without_nanoseconds(column)
    return [_cell(column.slice(number, 1), number, replaced) for number in range(len(column))]


def _without_nanoseconds(column: pa.Array) -> pa.Array:
    with suppress(pa.ArrowException):
        return column.cast(retyped(column.type, _in_microseconds), safe=False)
    return column


def _values(column: pa.Array) -> list[Any]:
    with warnings.catch_warnings():  # of two equal keys of a map the last counts, as in JSON
        warnings.simplefilter("ignore")
        found: list[Any] = column.to_pylist(maps_as_pydicts="lossy")
        return found


def _cell(column: pa.Array, number: int, replaced: dict[int, str]) -> Any:
    """The one value of a column."""
    for leaf in (None, texts_as_bytes, _temporal_as_text, _without_zone):
        with suppress(*_NO_VALUE):
            (value,) = _values(column if leaf is None else column.cast(retyped(column.type, leaf), safe=False))
            if leaf is texts_as_bytes:
                value = _decoded(value, column.type, number, replaced)
            return value
    return None


def _decoded(value: Any, kind: pa.DataType, number: int, replaced: dict[int, str]) -> Any:
    """A value whose texts came as bytes, with the texts."""
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    if isinstance(value, bytes) and (pa.types.is_string(kind) or pa.types.is_large_string(kind)):
        try:
            return value.decode("utf-8")
        except UnicodeDecodeError as error:
            replaced.setdefault(number, str(error)[:200])
            return value.decode("utf-8", "replace")
    if isinstance(value, dict) and pa.types.is_struct(kind):
        return {field.name: _decoded(value[field.name], field.type, number, replaced) for field in kind}
    if isinstance(value, dict) and pa.types.is_map(kind):
        return {
            _decoded(key, kind.key_type, number, replaced): _decoded(item, kind.item_type, number, replaced)
            for key, item in value.items()
        }
    if isinstance(value, list):
        return [_decoded(item, kind.value_type, number, replaced) for item in value]
    return value


def retyped(kind: pa.DataType, leaf: Callable[[pa.DataType], pa.DataType]) -> pa.DataType:
    """A type with its innermost types as `leaf` has them."""
    if pa.types.is_dictionary(kind):
        return leaf(kind.value_type)
    if pa.types.is_struct(kind):
        return pa.struct([pa.field(inner.name, retyped(inner.type, leaf)) for inner in kind])
    if pa.types.is_map(kind):
        return pa.map_(retyped(kind.key_type, leaf), retyped(kind.item_type, leaf))
    if pa.types.is_fixed_size_list(kind):
        return pa.list_(retyped(kind.value_type, leaf), kind.list_size)
    if pa.types.is_large_list(kind) or _is_list_view(kind):
        return pa.large_list(retyped(kind.value_type, leaf))
    if pa.types.is_list(kind):
        return pa.list_(retyped(kind.value_type, leaf))
    return leaf(kind)


def _is_list_view(kind: pa.DataType) -> bool:
    return bool(pa.types.is_list_view(kind) or pa.types.is_large_list_view(kind))


def _in_microseconds(kind: pa.DataType) -> pa.DataType:
    if pa.types.is_timestamp(kind) and kind.unit == "ns":
        return pa.timestamp("us", kind.tz)
    if pa.types.is_time64(kind):
        return pa.time64("us")
    return pa.duration("us") if pa.types.is_duration(kind) and kind.unit == "ns" else kind


def texts_as_bytes(kind: pa.DataType) -> pa.DataType:
    """The type of the same bytes, where that is text; for `retyped`."""
    return pa.binary() if pa.types.is_string(kind) else pa.large_binary() if pa.types.is_large_string(kind) else kind


def _temporal_as_text(kind: pa.DataType) -> pa.DataType:
    return pa.string() if pa.types.is_temporal(kind) and not pa.types.is_interval(kind) else kind


def _without_zone(kind: pa.DataType) -> pa.DataType:
    return pa.timestamp(kind.unit) if pa.types.is_timestamp(kind) else kind


def _without_views(kind: pa.DataType) -> pa.DataType:
    if pa.types.is_string_view(kind):
        return pa.large_string()
    return pa.large_binary() if pa.types.is_binary_view(kind) else kind


def _known(batch: pa.RecordBatch) -> pa.RecordBatch:
    """A batch without the newer layouts of the same values, which few functions take: views and runs."""
    columns = []
    for column in batch.columns:
        if pa.types.is_run_end_encoded(column.type):
            column = pc.run_end_decode(column)
        if not pa.types.is_dictionary(column.type) and (kind := retyped(column.type, _without_views)) != column.type:
            column = column.cast(kind)
        columns.append(column)
    return pa.RecordBatch.from_arrays(columns, names=distinct(batch.schema.names))


def _sizes(batch: pa.RecordBatch) -> list[int]:
    """The bytes of each row's texts; columns that nest count by their Arrow size, and only in large batches."""
    total = [0] * batch.num_rows
    for column in batch.columns:
        kind = column.type
        if pa.types.is_dictionary(kind) and _is_text(kind.value_type):
            lengths = pc.binary_length(column.dictionary)
            found = pc.take(lengths, column.indices).to_pylist() if len(lengths) else []
        elif _is_text(kind):
            found = pc.binary_length(column).to_pylist()
        elif pa.types.is_nested(kind) and column.nbytes > _BATCH:
            found = [column.slice(row, 1).nbytes for row in range(len(column))]
        else:
            continue
        total = [size + (more or 0) for size, more in zip(total, found, strict=True)] if found else total
    return total


def _is_text(kind: pa.DataType) -> bool:
    return (
        pa.types.is_string(kind)
        or pa.types.is_large_string(kind)
        or pa.types.is_binary(kind)
        or pa.types.is_large_binary(kind)
    )


def _dictionaries(file: pq.ParquetFile) -> list[str]:
    """The flat text columns that are written with a dictionary anywhere in the file."""
    flat = {field.name for field in file.schema_arrow if _is_text(field.type)}
    found = set()
    for group in range(file.num_row_groups):
        about = file.metadata.row_group(group)
        for place in range(about.num_columns):
            column = about.column(place)
            if column.path_in_schema in flat and any("DICTIONARY" in name for name in column.encodings):
                found.add(column.path_in_schema)
    return sorted(found)


def first_line(error: Exception) -> str:
    """What an error says first."""
    return str(error).splitlines()[0][:200] if str(error) else type(error).__name__
