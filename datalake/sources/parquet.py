"""Rows of Parquet files in bounded memory, damaged or not.

Memory. Arrow decompresses a page whole and copies what is in it, and a batch is chosen to hold about `_BATCH` bytes of
average rows. So the bound is 64 MiB and six times the largest page, which is 1 MiB as writers make them unless one cell
is larger (measured: 1.5 GiB for a cell of 300 MB). Columns in dictionary encoding stay so until a row is taken: a long
value that many rows share is held once. Cells beyond the limit never become Python values.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from datalake.document import Quarantined
from datalake.sources.allowance import BOMB, Allowance, BombError, allowance_of
from datalake.sources.rows import LONGEST, Row

_BATCH = 16 << 20  # bytes
_ROWS = 1024
_CELL = 32  # bytes that a cell counts for, however little of the file it takes


def parquet_rows(
    path: str, archive: str, source: str, longest: int = LONGEST, allowance: Allowance | None = None
) -> Iterator[Row | Quarantined]:
    """Rows of a Parquet file, row group by row group; an unreadable one is one span. Offsets: row numbers.

    A row of more than `longest` bytes is quarantined as `too_large`; where the rows come to more than the allowance
    (empty: the file's own), those behind are one `bomb`. A file that can't be opened raises OSError.
    """
    with open(path, "rb"):  # noqa: PTH123 - what the disk refuses may pass; what Arrow refuses is the file's content
        pass
    try:
        with pq.ParquetFile(path) as file:
            encoded = _dictionaries(file)
        allowance = allowance or allowance_of(path)
        with pq.ParquetFile(path, read_dictionary=encoded) as file:
            number = 0
            for group in range(file.num_row_groups):
                try:
                    _expect(file.metadata.row_group(group), allowance)
                    for row in _group(file, group, number, archive, source, longest, allowance):
                        yield row
                        number += row.length if isinstance(row, Quarantined) else 1
                except BombError as error:
                    yield Quarantined(source, archive, BOMB, str(error), number, file.metadata.num_rows - number)
                    return
    except (OSError, pa.ArrowException) as error:
        yield Quarantined(source, archive, "parquet", _first_line(error), 0, -1)


def _expect(about: pq.RowGroupMetaData, allowance: Allowance) -> None:
    """Raises BombError where a row group says itself that it is more than may come.

    Pages are decompressed whole, and so is a row whose cells hold lists: that must be known before they are read.
    """
    columns = [about.column(place) for place in range(about.num_columns)]
    listed = sum(column.num_values for column in columns if column.num_values > about.num_rows)
    if max(about.total_byte_size, sum(c.total_uncompressed_size for c in columns), _CELL * listed) > allowance.left:
        allowance.take(allowance.left + 1)


def _group(
    file: pq.ParquetFile, group: int, number: int, archive: str, source: str, longest: int, allowance: Allowance
) -> Iterator[Row | Quarantined]:
    """The rows of one row group, the first of which is row `number` of the file."""
    about = file.metadata.row_group(group)
    each = max(1, about.total_byte_size // max(1, about.num_rows))
    done = 0
    try:
        for batch in file.iter_batches(batch_size=max(1, min(_ROWS, _BATCH // each)), row_groups=[group]):
            for value in _values(batch, longest, allowance):
                place = number + done
                if isinstance(value, UnicodeDecodeError):
                    yield Quarantined(source, archive, "encoding", str(value)[:200], place, 1)
                elif isinstance(value, int):
                    problem = f"a row of {value} bytes"
                    yield Quarantined(source, archive, "too_large", problem, place, 1)
                else:
                    yield Row(place, place, 1, value)
                done += 1
    except BombError:
        raise
    except (OSError, pa.ArrowException, UnicodeDecodeError, ValueError, OverflowError) as error:
        left = about.num_rows - done
        problem = f"row group {group}, {left} rows: {_first_line(error)}"
        yield Quarantined(source, archive, "parquet", problem, number + done, left)


def _values(
    batch: pa.RecordBatch, longest: int, allowance: Allowance
) -> Iterator[dict[str, Any] | int | UnicodeDecodeError]:
    """Each row of a batch as a dict, or its size in bytes where that is beyond the limit, or why it is no text.

    Raises BombError where a row is more than may come.
    """
    sizes = _sizes(batch)
    start = 0
    while start < batch.num_rows:
        if sizes[start] > longest:
            allowance.take(_CELL * batch.num_columns)
            yield sizes[start]
            start += 1
            continue
        end, held = start + 1, sizes[start]
        while end < batch.num_rows and sizes[end] <= longest and held + sizes[end] <= _BATCH:
            held += sizes[end]
            end += 1
        allowance.take(held + _CELL * batch.num_columns * (end - start))
        yield from _python(batch.slice(start, end - start))
        start = end


def _python(batch: pa.RecordBatch) -> Iterator[dict[str, Any] | UnicodeDecodeError]:
    """Each row as Python values. What Python has none for, such as a time beyond its years, is None."""
    try:
        rows = batch.to_pylist()
    except (ValueError, OverflowError, pa.ArrowException):
        for number in range(batch.num_rows):
            try:
                yield {name: _cell(batch.column(at)[number]) for at, name in enumerate(batch.schema.names)}
            except UnicodeDecodeError as error:
                yield error
    else:
        yield from rows


def _cell(scalar: Any) -> Any:
    try:
        return scalar.as_py()
    except UnicodeDecodeError:
        raise
    except (ValueError, OverflowError, pa.ArrowException):
        return None


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


def _first_line(error: Exception) -> str:
    return str(error).splitlines()[0][:200] if str(error) else type(error).__name__
