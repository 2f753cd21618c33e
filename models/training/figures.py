"""What a method has to show of itself beyond curves: pictures and tables as plain values, drawn where they are shown.

    figures = [bars("accuracy by source", names, values, low, high), table("longest dialogues", columns, rows)]

Those that are known before the first step go into `Prepared.figures` and are shown while training goes on; those known
at the end into the report of `finish`, as `figures`. Terminal, report and the UI's pages draw every kind
(`tasks.shown.figures`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

Figure = dict[str, Any]
FIGURES = "figures.json"  # beside `metrics.jsonl`: those known before the first step
BEGINNING = "beginning.txt"  # there too: how far the work before the first step is


def lines(title: str, series: Mapping[str, Sequence[Sequence[float]]], x: str, y: str, note: str = "") -> Figure:
    """Lines by name, each (xs, ys), or (xs, ys, low, high) with the ends of each y's interval; what the axes are; one
    line of text that says how to read it."""
    plain = {name: [list(map(float, part)) for part in parts] for name, parts in series.items()}
    return {"kind": "lines", "title": title, "series": plain, "x": x, "y": y, "note": note}


def bars(
    title: str,
    labels: Sequence[str],
    values: Sequence[float],
    low: Sequence[float] | None = None,
    high: Sequence[float] | None = None,
    note: str = "",
    chance: float | None = None,
) -> Figure:
    """A value for each label, with the ends of its interval where there is one; `chance` is what luck alone gives."""
    figure: Figure = {
        "kind": "bars",
        "title": title,
        "labels": list(labels),
        "values": list(map(float, values)),
        "note": note,
    }
    figure |= {} if chance is None else {"chance": float(chance)}
    if low is not None and high is not None:
        figure |= {"low": list(map(float, low)), "high": list(map(float, high))}
    return figure


def table(title: str, columns: Sequence[str], rows: Sequence[Sequence[Any]], note: str = "") -> Figure:
    """Rows of texts and numbers under the names of their columns."""
    plain = [list(row) for row in rows]
    return {"kind": "table", "title": title, "columns": list(columns), "rows": plain, "note": note}


def marked(title: str, texts: Sequence[Sequence[tuple[str, bool]]], note: str = "") -> Figure:
    """Texts in pieces, each with whether it is marked: the tokens that train, say."""
    pieces = [[[piece, bool(mark)] for piece, mark in text] for text in texts]
    return {"kind": "marked", "title": title, "texts": pieces, "note": note}
