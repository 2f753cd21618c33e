"""`headwater runs`: the runs of a lake, and what two of them differ in."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

from datalake.errors import UserError
from flows.commands.common import COMMON, Common
from flows.output import Console

Row = dict[str, Any]


def runs(*names: str, common: Common = COMMON) -> None:
    """The runs of the lake: when, how long, how far; two named ones compared.

    Parameters
    ----------
    names
        Two runs, each by its id or the beginning of it: what differs in recipe, counts and figures.
    """
    lake = common.open()
    if len(names) not in (0, 2):
        raise UserError("name two runs to compare them, such as headwater runs A B, or none to list all")
    if names:
        common.output.answer(lake.compare(*names), _print_differences)
    else:
        common.output.answer(lake.runs(), _print_runs)


def _print_runs(console: Console, rows: Sequence[Row]) -> None:
    console.table(
        ["run", "corpus", "started", "took", "state", "stages", "figures"],
        [
            [
                row["run"],
                row["corpus"],
                _minute(row["started"]),
                took(row["seconds"]),
                row["state"],
                " ".join(f"{state}:{number}" for state, number in row["stages"].items()),
                ", ".join(f"{name} {figure(value)}" for name, value in row["figures"].items()),
            ]
            for row in rows
        ],
    )


def _print_differences(console: Console, answer: Row) -> None:
    for row in answer["runs"]:
        parts = (row["run"], row["corpus"], _minute(row["started"]), took(row["seconds"]), row["state"])
        console.line("  ".join(parts))
    for title in ("recipe", "counts", "figures", "evaluations"):
        rows = answer[title]
        console.line(f"\n{title}: {'' if rows else 'no difference'}".rstrip())
        if rows:
            columns = [title, *(row["run"] for row in answer["runs"])]
            console.table(columns, [[name, *map(figure, values)] for name, values in rows.items()])
    changed = ", ".join(row["stage"] for row in answer["stages"])
    console.line(f"\nstages with another output: {changed or 'none'}")


def took(seconds: float) -> str:
    """A span of time for people."""
    return str(timedelta(seconds=round(seconds))) if seconds >= 60 else f"{seconds:.1f} s"


def figure(value: Any) -> str:
    """A count or a measured figure for people; nothing for one that isn't there."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return "" if value is None else value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return f"{value:,}" if isinstance(value, int) else f"{value:.4g}"


def _minute(time: str) -> str:
    return f"{datetime.fromisoformat(time):%Y-%m-%d %H:%M}"
