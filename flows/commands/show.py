"""Printing for people: tables, ids in hex, one line a value."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from datalake.ledger import plain_value


def as_table(columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    """Print rows as a table on stdout; a pipe gets tab-separated values."""
    import sys

    cells = [[text(value) for value in row] for row in rows]
    if not sys.stdout.isatty():
        print("\t".join(columns))
        for row in cells:
            print("\t".join(cell.replace("\t", " ").replace("\n", " ") for cell in row))
        return
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, header_style="bold", pad_edge=False)
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in cells:
        table.add_row(*(cell.replace("[", "\\[") for cell in row))
    Console().print(table)


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


def as_json(value: Any) -> None:
    """Print one JSON value on stdout."""
    print(json.dumps(plain_value(value), ensure_ascii=False))
