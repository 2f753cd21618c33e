"""Rows of CSV files (RFC 4180) by their header: a cell may be quoted, and then hold delimiters, quotes and line ends.

A quote too many costs its own line, not the rest of the file: where a quoted cell runs on past the limit of a row or to
the end, or closes in a line that makes no row of it, the line it begins in is quarantined and the next is read anew.

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

    def next(self) -> tuple[int, bytes] | Quarantined | None:
        """The next line or span without one; None at the end."""
        return self._waiting.popleft() if self._waiting else next(self._lines, None)

    def again(self, lines: Sequence[tuple[int, bytes] | Quarantined]) -> None:
        """Read these next."""
        self._waiting.extendleft(reversed(lines))

    def record(self, line: tuple[int, bytes], delimiter: bytes, longest: int) -> tuple[list[tuple[int, bytes]], str]:
        """The lines of a row, which goes on while a quoted cell is open, and "" or what is wrong with it."""
        taken, size = [line], len(line[1])
        opened = _is_open(line[1], delimiter, False)
        while opened:
            more = self.next()
            if more is None or isinstance(more, Quarantined) or size + len(more[1]) >= longest:
                if more is not None:
                    self.again([more])
                return taken, "a quoted cell that doesn't end"
            taken.append(more)
            size += len(more[1]) + 1
            opened = _is_open(more[1], delimiter, True)
        return taken, ""


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
