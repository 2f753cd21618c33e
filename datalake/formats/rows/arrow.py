"""Rows of Arrow files: streams (as `datasets` saves), files with a footer (Feather, `ipc`), of any producer.

Nothing in such a file vouches for itself, so every column is validated before it is read: one that is damaged is lost
for the rows of its batch (`Row.lost`).

Memory. What isn't compressed stays in the file; a compressed batch is unpacked whole, after what it says of its size is
known to be within the allowance.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa

from datalake.document import Quarantined
from datalake.formats.allowance import BOMB, Allowance, BombError, allowance_of
from datalake.formats.rows.json import LONGEST, Row
from datalake.formats.rows.parquet import DAMAGE, first_line, retyped, rows_of, texts_as_bytes
from datalake.origin import Origin

MAGIC = b"ARROW1"
_OLD = b"FEA1"
_DICTIONARY, _BATCH = 2, 3  # kinds of messages (Message.fbs)


class _Announced(NamedTuple):
    """What a batch says of itself: its rows, and its bytes once unpacked, with the dictionaries before it."""

    rows: int
    size: int


def arrow_rows(
    path: str, origin: Origin, longest: int = LONGEST, allowance: Allowance | None = None
) -> Iterator[Row | Quarantined]:
    """Rows of an Arrow stream or file. Offsets: row numbers. A batch that can't be read is one span of its rows.

    A row of more than `longest` bytes is `too_large`; beyond the allowance what is behind is one `bomb`. A file that
    can't be opened raises OSError.
    """
    with open(path, "rb") as file:  # noqa: PTH123 - what the disk refuses may pass
        head = file.read(8)
    if head[:4] == _OLD:
        problem = "version 1 of Feather: write it anew (pyarrow 20 and older: `feather.write_feather`)"
        yield origin.lost("arrow", problem, 0, -1)
        return
    allowance = allowance or allowance_of(path)
    number = 0
    announced: list[_Announced] = []
    most = 8 * Path(path).stat().st_size  # rows, each a bit
    try:
        with pa.memory_map(path) as mapped:
            announced = list(_announced(mapped, len(MAGIC) + 2 if head[:6] == MAGIC else 0))
            mapped.seek(0)
            for place, batch in enumerate(_batches(mapped, head[:6] == MAGIC, announced, allowance)):
                if isinstance(batch, Exception):
                    rows = announced[place].rows if place < len(announced) else -1
                    rows = rows if rows <= most else -1
                    yield origin.lost("arrow", first_line(batch), number, rows)
                    number += max(0, rows)
                    continue
                sound = [name for name in range(batch.num_columns) if _is_sound(batch.column(name))]
                lost = tuple(name for at, name in enumerate(batch.schema.names) if at not in sound)
                if not sound:
                    yield origin.lost("arrow", "no column is whole", number, batch.num_rows)
                else:
                    for row in rows_of(batch.select(sound), number, origin, longest, allowance):
                        if isinstance(row, Row):
                            row.lost = lost
                        yield row
                number += batch.num_rows
    except BombError as error:
        yield origin.lost(BOMB, str(error), number, -1)
    except DAMAGE as error:
        left = sum(each.rows for each in announced) - number
        yield origin.lost("arrow", first_line(error), number, left if left > 0 else -1)


def _batches(
    file: Any, footer: bool, announced: list[_Announced], allowance: Allowance
) -> Iterator[pa.RecordBatch | Exception]:
    """The batches, or why one can't be read. Raises BombError before one that is too large is unpacked."""

    def expect(place: int) -> None:
        if place < len(announced) and announced[place].size > allowance.left:
            allowance.take(allowance.left + 1)

    def streamed() -> Iterator[pa.RecordBatch]:
        with pa.ipc.open_stream(file) as stream:
            expect(0)
            for place, batch in enumerate(stream, 1):
                yield batch
                expect(place)

    if not footer:
        yield from streamed()
        return
    try:
        reader = pa.ipc.open_file(file)
    except DAMAGE:  # cut off before its footer: a stream still
        file.seek(len(MAGIC) + 2)
        yield from streamed()
        raise
    with reader:
        for place in range(reader.num_record_batches):
            expect(place)
            try:
                yield reader.get_batch(place)
            except DAMAGE as error:
                yield error


def _is_sound(column: pa.Array) -> bool:
    """Whether a column's values can be looked at. Whether its texts are texts is told cell by cell."""
    try:
        column.validate()
        if not _has_dictionary(column.type):
            column = column.cast(retyped(column.type, texts_as_bytes))
        column.validate(full=True)
    except DAMAGE:
        return False
    return True


def _has_dictionary(kind: pa.DataType) -> bool:
    return pa.types.is_dictionary(kind) or any(
        _has_dictionary(kind.field(number).type) for number in range(kind.num_fields)
    )


def _announced(file: Any, start: int) -> Iterator[_Announced]:
    """What each batch says of itself, up to damage."""
    file.seek(start)
    size = 0
    try:
        messages = pa.ipc.MessageReader.open_stream(file)
        while True:
            about, body = (message := messages.read_next_message()).metadata.to_pybytes(), message.body
            root = struct.unpack_from("<I", about)[0]
            kind = _scalar(about, root, 1, "<B")
            table = _table(about, root, 2)
            if kind == _DICTIONARY:
                table = _table(about, table, 1)
            if kind not in (_DICTIONARY, _BATCH):
                continue
            size += _unpacked(about, table, body)
            if kind == _BATCH:
                yield _Announced(_scalar(about, table, 0, "<q"), size)
                size = 0
    except (*DAMAGE, StopIteration, struct.error, EOFError):
        return


def _unpacked(about: bytes, table: int, body: pa.Buffer | None) -> int:
    """Bytes of a batch's buffers: their own length, or the one that stands before a compressed one."""
    vector = _table(about, table, 2)
    if not vector or body is None:
        return 0
    compressed = _field(about, table, 3)
    size = 0
    for number in range(struct.unpack_from("<I", about, vector)[0]):
        offset, length = struct.unpack_from("<qq", about, vector + 4 + 16 * number)
        if compressed and length >= 8 and 0 <= offset <= body.size - 8:
            length = max(length, struct.unpack("<q", body.slice(offset, 8).to_pybytes())[0])
        size += length
    return size


def _field(about: bytes, table: int, number: int) -> int:
    """Where a field of a FlatBuffers table lies, 0 where it isn't there."""
    layout = table - int(struct.unpack_from("<i", about, table)[0])
    if 4 + 2 * number >= struct.unpack_from("<H", about, layout)[0]:
        return 0
    offset = struct.unpack_from("<H", about, layout + 4 + 2 * number)[0]
    return table + int(offset) if offset else 0


def _scalar(about: bytes, table: int, number: int, form: str) -> int:
    place = _field(about, table, number)
    return int(struct.unpack_from(form, about, place)[0]) if place else 0


def _table(about: bytes, table: int, number: int) -> int:
    place = _field(about, table, number)
    return place + int(struct.unpack_from("<I", about, place)[0]) if place else 0
