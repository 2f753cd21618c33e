"""Rows of CSV files by their header: a cell may be quoted, and then hold delimiters, quotes and line ends.

As RFC 4180 has it, and as Spark, databases and spreadsheets write it.

A quote too many costs its own line, not the rest of the file: where a quoted cell runs on past the limit of a row or to
the end, or closes in a line that makes no row of it, the line it begins in is quarantined and the next is read anew.
Of lines whose cells end in one and the same line only the first `MOST_FAILURES` are tried as rows.

Memory: two rows of at most `longest` bytes, and a megabyte.
"""

from __future__ import annotations

import csv
import re
import sys
from collections import deque
from collections.abc import Callable, Iterator, Sequence

from datalake.document import Quarantined
from datalake.formats.rows.json import Chunks, Row, split_lines
from datalake.formats.streams import peek
from datalake.lake.parquet import distinct
from datalake.origin import Origin

MOST_FAILURES = 16  # lines in which a cell opens that ends in one and the same line, and none of them makes a row
_HEAD = 1 << 20  # bytes that tell how a file is written
_SEPARATOR = re.compile(rb"sep=([^\"\w\s]|\t)\r?\n", re.IGNORECASE)  # as Excel says it in a line of its own
_DELIMITERS = (",", ";", "\t", "|")
_NULL = "\\N"  # as databases write it
_QUOTED_END = re.compile(rb'[^"]*+(?:""[^"]*+)*+"(?!")')  # the rest of a quoted cell
_ESCAPED = re.compile(rb'(?<!\\)((?:\\\\)*+)\\"')  # a quote behind an odd number of backslashes
_DOUBLED = re.compile(r'(?<!\\)(?:\\\\)++(?="|\Z)')  # an even number of them before a quote or at the end


def csv_rows(
    chunks: Chunks,
    origin: Origin,
    longest: int,
    delimiter: str = ",",
    *,
    header: Sequence[str] = (),
    is_header: Callable[[list[str]], bool] | None = None,
) -> Iterator[Row | Quarantined]:
    """The rows below the header, or all where the names of the columns are given (`header`).

    An empty delimiter is told by the first line: the one with which `is_header` knows it, else a comma. A first line
    that `is_header` doesn't know names columns all the same, but is quarantined: it may be a row.

    Quotes in cells are doubled (RFC 4180), or escaped by backslashes, or in files parted by tabs mean nothing: as
    fewest rows of the first megabyte break. Offset and length are those of the row's lines in the decompressed stream.
    """
    csv.field_size_limit(min(sys.maxsize, 2**31 - 1))  # rows are bounded already
    head, chunks = peek(chunks, _HEAD)
    if b"\r" in head and b"\n" not in head:
        chunks = (chunk.replace(b"\r", b"\n") if isinstance(chunk, bytes) else chunk for chunk in chunks)
        head = head.replace(b"\r", b"\n")
    if said := _SEPARATOR.match(head):
        delimiter, chunks = said[1].decode("ascii"), _without(chunks, len(said[0]))
        head = head[len(said[0]) :]
    if not delimiter:
        line = next((line for line in head.split(b"\n") if line.strip(b"\r")), b"")
        known = (each for each in _DELIMITERS if is_header and is_header(_cells(line, each, "doubled")[0]))
        delimiter = next(known, ",")
    whole = head[: head.rfind(b"\n") + 1] or head
    quotes = min(_quotes(whole, delimiter), key=lambda each: _broken(whole, origin, longest, delimiter, each, header))
    yield from _rows(chunks, origin, longest, delimiter, quotes, header, is_header)


def _without(chunks: Chunks, size: int) -> Chunks:
    """The same chunks with their first bytes made empty lines, so that places stay."""
    for chunk in chunks:
        if isinstance(chunk, bytes) and size:
            blank = min(size, len(chunk))
            chunk, size = b"\n" * blank + chunk[blank:], size - blank
        yield chunk


def _quotes(head: bytes, delimiter: str) -> list[str]:
    """What quotes may mean in a file that begins so, the standard's way first."""
    found = ["doubled"]
    if _ESCAPED.search(head):
        found.append("escaped")
    if delimiter == "\t" and b'"' in head:
        found.append("plain")
    return found


def _broken(head: bytes, origin: Origin, longest: int, delimiter: str, quotes: str, header: Sequence[str]) -> int:
    if len(_quotes(head, delimiter)) == 1:
        return 0
    rows = _rows(iter([head]), origin, longest, delimiter, quotes, header, None)
    return sum(isinstance(row, Quarantined) for row in rows)


def _rows(
    chunks: Chunks,
    origin: Origin,
    longest: int,
    delimiter: str,
    quotes: str,
    given: Sequence[str],
    is_header: Callable[[list[str]], bool] | None,
) -> Iterator[Row | Quarantined]:
    lines = _Lines(_as_doubled(split_lines(chunks, origin, longest), quotes))
    header = distinct(given) if given else None
    number = 0
    while (line := lines.next()) is not None:
        if isinstance(line, Quarantined):
            number += header is not None and line.reason in ("too_large", "truncated")
            yield line
            continue
        if not line[1].strip(b"\r"):
            continue
        taken, problem = ([line], "") if quotes == "plain" else lines.record(line, delimiter.encode("utf-8"), longest)
        cells: list[str] = []
        if not problem:
            cells, problem = _cells(b"\n".join(content for _, content in taken), delimiter, quotes)
        offset = line[0]
        length = taken[-1][0] + len(taken[-1][1]) - offset
        if header is None and not problem:
            if is_header and not is_header(cells):
                names = ", ".join(cells)[:80]
                problem = f"no column that is looked for in {names!r}: if that is a row, name the columns in `header`"
                yield origin.lost("header", problem, offset, length)
            header = distinct([cell.strip() for cell in cells])
            continue
        if not problem and header is not None and len(cells) > len(header) and not any(cells[len(header) :]):
            cells = cells[: len(header)]  # a delimiter at the end of each line
        if not problem and header is not None and len(cells) != len(header):
            problem = f"row {number} has {len(cells)} cells, the header {len(header)}"
        if problem or header is None:
            lines.again(taken[1:])  # a quote too many is the first line's; the others may be rows
            reason = "encoding" if problem.startswith("'utf-8'") else "csv"
            yield origin.lost(reason, problem, offset, len(line[1]))
        else:
            yield Row(number, offset, length, dict(zip(header, cells, strict=True)))
        number += 1


def _as_doubled(
    lines: Iterator[tuple[int, bytes] | Quarantined], quotes: str
) -> Iterator[tuple[int, bytes] | Quarantined]:
    """Lines with escaped quotes doubled instead, in the same room."""
    if quotes != "escaped":
        yield from lines
        return
    for line in lines:
        yield line if isinstance(line, Quarantined) else (line[0], _ESCAPED.sub(rb'\1""', line[1]))


def _cells(content: bytes, delimiter: str, quotes: str) -> tuple[list[str], str]:
    """(cells, "") or ([], what is wrong)."""
    try:
        text = content.decode("utf-8").removesuffix("\r")
        if quotes == "plain":
            cells = text.split(delimiter)
        else:
            cells = next(csv.reader([text], delimiter=delimiter, strict=True))
    except (csv.Error, UnicodeDecodeError, StopIteration) as error:
        return [], str(error)[:200] or "no cell"
    if quotes == "escaped":
        cells = [_DOUBLED.sub(lambda found: found[0][: len(found[0]) // 2], cell) for cell in cells]
    return ["" if cell == _NULL else cell for cell in cells], ""


class _Lines:
    """Lines that can be read again."""

    def __init__(self, lines: Iterator[tuple[int, bytes] | Quarantined]):
        self._lines = lines
        self._waiting: deque[tuple[int, bytes] | Quarantined] = deque()
        # Of the lines that wait: how many are known to leave a quoted cell open, and their bytes with line ends.
        self._open = self._open_size = 0
        self._end, self._failures = -1, 0  # the offset of a row's last line, and how often what ends there was no row

    def next(self) -> tuple[int, bytes] | Quarantined | None:
        """The next line or span without one; None at the end."""
        if not self._waiting:
            return next(self._lines, None)
        line = self._waiting.popleft()
        if self._open and not isinstance(line, Quarantined):
            self._open -= 1
            self._open_size -= len(line[1]) + 1
        return line

    def again(self, lines: Sequence[tuple[int, bytes]]) -> None:
        """Read these next: all lines but the first of what was no row."""
        if not lines:
            return
        self._waiting.extendleft(reversed(lines))
        self._open += len(lines) - 1
        self._open_size += sum(len(content) + 1 for _, content in lines[:-1])
        self._failures = self._failures + 1 if lines[-1][0] == self._end else 1
        self._end = lines[-1][0]

    def record(self, line: tuple[int, bytes], delimiter: bytes, longest: int) -> tuple[list[tuple[int, bytes]], str]:
        """The lines of a row, which goes on while a quoted cell is open, and "" or what is wrong with it.

        Where it ends is looked for once for all lines that come before: what is open stays open for each of them.
        """
        if not _is_open(line[1], delimiter, False):
            return [line], ""
        while True:
            if self._open == len(self._waiting):
                if (more := next(self._lines, None)) is None:
                    break
                self._waiting.append(more)
            more = self._waiting[self._open]
            if isinstance(more, Quarantined) or len(line[1]) + self._open_size + len(more[1]) >= longest:
                break
            if not _is_open(more[1], delimiter, True):
                if more[0] == self._end and self._failures >= MOST_FAILURES:
                    return [line], f"a quoted cell, as in the {MOST_FAILURES} lines before that are no rows"
                taken = [line]
                for _ in range(self._open + 1):
                    taken.append(self._waiting.popleft())  # type: ignore[arg-type]  # spans end a row
                self._open = self._open_size = 0
                return taken, ""
            self._open += 1
            self._open_size += len(more[1]) + 1
        return [line], "a quoted cell that doesn't end"


def _is_open(line: bytes, delimiter: bytes, inside: bool) -> bool:
    """Whether a quoted cell is open at a line's end, if one is (`inside`) or isn't at its beginning."""
    if b'"' not in line:
        return inside
    place = 0
    while True:
        if inside:
            match = _QUOTED_END.match(line, place)
            if not match:
                return True
            place = match.end()
        found = line.find(delimiter, place) if inside or line[place : place + 1] != b'"' else -2
        if found == -2:  # a cell begins with a quote
            inside, place = True, place + 1
            continue
        if found < 0:
            return False
        inside, place = False, found + len(delimiter)
