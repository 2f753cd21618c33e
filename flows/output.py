"""What the command line prints: lines and tables for people, JSON for programs. Nothing else writes to stdout.

People's output never holds what a terminal would act on (`datalake.printable`), piped or not: a pipe may end
at one. JSON says the same characters by its own escapes.
"""

from __future__ import annotations

import json
import shlex
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from datalake.lake.ledger import plain_value
from datalake.printable import json_safe, one_line, printable, write

_NARROWEST = 8  # columns of a terminal that a value is worth showing in
_GAP = "  "


def line(text: str = "", end: str = "\n") -> None:
    """Print text on stdout."""
    write(printable(text), sys.stdout, end)


def note(text: str) -> None:
    """Say something about the answer on stderr, in one line."""
    write(f"headwater: {one_line(text)}", sys.stderr)


def command(*words: str | Path, lake: Path) -> str:
    """A command of ours as it can be copied into a shell."""
    return shlex.join(["headwater", *map(str, words), "--lake", str(lake)])


def as_json(value: Any) -> None:
    """Print one JSON value on stdout."""
    value = plain_value(value)
    told = json_safe(json.dumps(value, ensure_ascii=False))
    try:
        told.encode(getattr(sys.stdout, "encoding", None) or "utf-8")
    except UnicodeEncodeError:
        told = json.dumps(value)
    write(told, sys.stdout)


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


def as_table(columns: Sequence[str], rows: Sequence[Sequence[Any]], full: bool = True) -> None:
    """Print rows as a table on stdout; a pipe gets tab-separated values, always whole.

    Without `full`, a value in a terminal is cut to fit its line. Where the columns don't fit beside each other, each
    row is written as lines of name and value.
    """
    if sys.stdout is None:
        return
    cells = [[text(value) for value in row] for row in rows]
    if not sys.stdout.isatty():
        line("\t".join(map(one_line, columns)))
        for row in cells:
            line("\t".join(cell.replace("\t", " ").replace("\n", " ") for cell in row))
        return
    width = shutil.get_terminal_size().columns
    if full:
        _folded(columns, cells, width)
        return
    names = [one_line(column) for column in columns]
    shown = [[one_line(cell[: 8 * width]) for cell in row] for row in cells]
    show = _as_records if len(columns) * (_NARROWEST + len(_GAP)) > width else _as_columns
    if show(names, shown, width):
        note("values are cut to the width of the terminal: --full shows them whole, as do --json and a pipe")


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


def _as_columns(columns: Sequence[str], rows: Sequence[Sequence[str]], width: int) -> bool:
    """A line for each row, the widest columns cut to what the others leave; whether something was cut."""
    from rich.cells import cell_len

    wide = [max(map(cell_len, column)) for column in zip(columns, *rows, strict=True)]
    room = width - len(_GAP) * (len(columns) - 1)
    most = max(wide, default=0)
    while sum(min(one, most) for one in wide) > room:
        most -= 1
    for row in (columns, *rows):
        line(_GAP.join(_fit(cell, min(one, most)) for cell, one in zip(row, wide, strict=True)).rstrip())
    return max(wide, default=0) > most


def _as_records(columns: Sequence[str], rows: Sequence[Sequence[str]], width: int) -> bool:
    """A line for each value, an empty one between rows; whether something was cut."""
    names = min(max(map(len, columns)), width // 2)
    room = max(width - names - len(_GAP), _NARROWEST)
    cut = False
    for number, row in enumerate(rows):
        if number:
            line()
        for column, cell in zip(columns, row, strict=True):
            value = _fit(cell, room)
            cut = cut or value.rstrip() != cell.rstrip()
            line(f"{_fit(column, names)}{_GAP}{value}".rstrip())
    return cut


def _fit(text: str, size: int) -> str:
    """Text in so many columns of a terminal: filled up with spaces, or cut and so marked."""
    from rich.cells import cell_len, set_cell_size

    return set_cell_size(text, size) if cell_len(text) <= size else set_cell_size(text, size - 1) + "…"
