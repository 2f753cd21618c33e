"""Rows of CSV files (RFC 4180) by their header: a cell may be quoted, and then hold delimiters, quotes and line ends.

A quote too many costs its own line, not the rest of the file: where a quoted cell runs on past the limit of a row or to
the end, or closes in a line that makes no row of it, the line it begins in is quarantined and the next is read anew.
Of lines whose cells end in one and the same line only the first `MOST_FAILURES` are tried as rows.

Memory: two rows of at most `longest` bytes.
"""

from __future__ import annotations

import csv
import re
import sys
from collections import deque
from collections.abc import Iterator, Sequence

from datalake.document import Quarantined
from datalake.sources.rows import Chunks, Row, split_lines

MOST_FAILURES = 16  # lines in which a cell opens that ends in one and the same line, and none of them makes a row
_QUOTED_END = re.compile(rb'[^"]*+(?:""[^"]*+)*+"(?!")')  # the rest of a quoted cell


def csv_rows(
    chunks: Chunks, archive: str, source: str, longest: int, delimiter: str = ","
) -> Iterator[Row | Quarantined]:
    """The rows below the header. Offset and length are those of the row's lines in the decompressed stream."""
    csv.field_size_limit(min(sys.maxsize, 2**31 - 1))  # rows are bounded already
    lines = _Lines(split_lines(chunks, archive, source, longest))
    header: list[str] | None = None
    number = 0
    while (line := lines.next()) is not None:
        if isinstance(line, Quarantined):
            number += header is not None and line.reason in ("too_large", "truncated")
            yield line
            continue
        if not line[1].strip(b"\r"):
            continue
        taken, problem = lines.record(line, delimiter.encode("utf-8"), longest)
        cells: list[str] = []
        if not problem:
            cells, problem = _cells(b"\n".join(content for _, content in taken), delimiter)
        if header is None and not problem:
            header = cells
            continue
        if not problem and header is not None and len(cells) != len(header):
            problem = f"row {number} has {len(cells)} cells, the header {len(header)}"
        offset = line[0]
        if problem or header is None:
            lines.again(taken[1:])  # a quote too many is the first line's; the others may be rows
            reason = "encoding" if problem.startswith("'utf-8'") else "csv"
            yield Quarantined(source, archive, reason, problem, offset, len(line[1]))
        else:
            length = taken[-1][0] + len(taken[-1][1]) - offset
            yield Row(number, offset, length, dict(zip(header, cells, strict=True)))
        number += 1


def _cells(content: bytes, delimiter: str) -> tuple[list[str], str]:
    """(cells, "") or ([], what is wrong)."""
    try:
        text = content.decode("utf-8")
        return next(csv.reader([text.removesuffix("\r")], delimiter=delimiter, strict=True)), ""
    except (csv.Error, UnicodeDecodeError, StopIteration) as error:
        return [], str(error)[:200] or "no cell"


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
