"""Where a command's answer goes: `Console`, lines and tables for people, or `Json`. Nothing else writes to stdout.

A command makes its answer once, as plain values, and hands it on with a function that draws it for people.

People's output never holds what a terminal would act on (`datalake.printable`), piped or not: a pipe may end
at one. JSON says the same characters by its own escapes.
"""

from __future__ import annotations

import json
import shlex
import shutil
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from datalake.lake.ledger import plain_value
from datalake.printable import json_safe, one_line, printable, write

_NARROWEST = 8  # columns of a terminal that a value is worth showing in
_GAP = "  "


def note(text: str) -> None:
    """Say something about the answer on stderr, in one line."""
    write(f"headwater: {one_line(text)}", sys.stderr)


def command(*words: str | Path, lake: Path) -> str:
    """A command of ours as it can be copied into a shell."""
    return shlex.join(["headwater", *map(str, words), "--lake", str(lake)])


def text(value: Any) -> str:
    """A value as a person reads it."""
    value = plain_value(value)
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, list | dict):
        return json.dumps(value, ensure_ascii=False)
    return str(value)


class Console:
    """For people: an answer is drawn with lines and tables."""

    def answer(self, value: Any, draw: Callable[[Console, Any], object] | None = None) -> None:
        """Give a command's answer; without `draw`, it was said already."""
        if draw is not None:
            draw(self, value)

    def say(self, text: str) -> None:
        """Say how the work goes on."""
        self.line(text)

    def stream(self, piece: str) -> None:
        """Show a part of an answer while it is being made."""
        self.line(piece, end="")

    def line(self, text: str = "", end: str = "\n") -> None:
        """Print text on stdout."""
        write(printable(text), sys.stdout, end)

    def marked(self, pieces: Sequence[tuple[str, bool]], color: bool = True) -> None:
        """Print a text in pieces, those that are marked in colour where stdout is a terminal that has some."""
        from rich.console import Console

        from tasks.shown.figures import bracketed, coloured

        terminal = Console(file=sys.stdout)
        if color and terminal.color_system and not terminal.no_color:
            terminal.print(coloured(pieces))
        else:
            self.line(bracketed(pieces))

    def table(self, columns: Sequence[str], rows: Sequence[Sequence[Any]], full: bool = True) -> None:
        """Print rows as a table on stdout; a pipe gets tab-separated values, always whole.

        Without `full`, a value in a terminal is cut to fit its line. Where the columns don't fit beside each other,
        each row is written as lines of name and value.
        """
        if sys.stdout is None:
            return
        cells = [[text(value) for value in row] for row in rows]
        if not sys.stdout.isatty():
            self.line("\t".join(map(one_line, columns)))
            for row in cells:
                self.line("\t".join(cell.replace("\t", " ").replace("\n", " ") for cell in row))
            return
        width = shutil.get_terminal_size().columns
        if full:
            _folded(columns, cells, width)
            return
        names = [one_line(column) for column in columns]
        shown = [[one_line(cell[: 8 * width]) for cell in row] for row in cells]
        lay_out = _as_records if len(columns) * (_NARROWEST + len(_GAP)) > width else _as_columns
        lines, cut = lay_out(names, shown, width)
        for line in lines:
            self.line(line)
        if cut:
            note("values are cut to the width of the terminal: --full shows them whole, as do --json and a pipe")


class Json:
    """For programs: an answer is one JSON value on stdout, and nothing else is there."""

    def answer(self, value: Any, draw: object = None) -> None:
        """Give a command's answer."""
        value = plain_value(value)
        told = json_safe(json.dumps(value, ensure_ascii=False))
        try:
            told.encode(getattr(sys.stdout, "encoding", None) or "utf-8")
        except UnicodeEncodeError:
            told = json.dumps(value)
        write(told, sys.stdout)

    def say(self, text: str) -> None:
        """Say how the work goes on."""
        write(printable(text), sys.stderr)

    def stream(self, piece: str) -> None:
        """A part of an answer is none: the whole one follows."""


Output = Console | Json


def _folded(columns: Sequence[str], rows: Sequence[Sequence[str]], width: int) -> None:
    """Columns side by side, whole: what is too long goes on in the next line."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, header_style="bold", pad_edge=False)
    for column in columns:
        table.add_column(Text(printable(column)), overflow="fold")
    for row in rows:
        table.add_row(*(Text(printable(cell)) for cell in row))
    Console(width=width).print(table)


def _as_columns(columns: Sequence[str], rows: Sequence[Sequence[str]], width: int) -> tuple[list[str], bool]:
    """A line for each row, the widest columns cut to what the others leave; and whether something was cut."""
    from rich.cells import cell_len

    wide = [max(map(cell_len, column)) for column in zip(columns, *rows, strict=True)]
    room = width - len(_GAP) * (len(columns) - 1)
    most = max(wide, default=0)
    while sum(min(one, most) for one in wide) > room:
        most -= 1
    lines = [
        _GAP.join(_fit(cell, min(one, most)) for cell, one in zip(row, wide, strict=True)).rstrip()
        for row in (columns, *rows)
    ]
    return lines, max(wide, default=0) > most


def _as_records(columns: Sequence[str], rows: Sequence[Sequence[str]], width: int) -> tuple[list[str], bool]:
    """A line for each value, an empty one between rows; and whether something was cut."""
    names = min(max(map(len, columns)), width // 2)
    room = max(width - names - len(_GAP), _NARROWEST)
    lines: list[str] = []
    cut = False
    for number, row in enumerate(rows):
        if number:
            lines.append("")
        for column, cell in zip(columns, row, strict=True):
            value = _fit(cell, room)
            cut = cut or value.rstrip() != cell.rstrip()
            lines.append(f"{_fit(column, names)}{_GAP}{value}".rstrip())
    return lines, cut


def _fit(text: str, size: int) -> str:
    """Text in so many columns of a terminal: filled up with spaces, or cut and so marked."""
    from rich.cells import cell_len, set_cell_size

    return set_cell_size(text, size) if cell_len(text) <= size else set_cell_size(text, size - 1) + "…"
