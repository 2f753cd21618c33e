"""A method's own figures (`models.training.figures`) as people see them: markdown for the UI, lines for a terminal.

A kind of figure is a function there and a line in each table here; a report's page asks `picture` and draws texts and
tables in HTML. Imports no Prefect.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from html import escape
from typing import TYPE_CHECKING, Any

from datalake.printable import printable
from tasks.shown.curves import bar_svg, curve_svg, svg_image

if TYPE_CHECKING:
    from rich.text import Text

Figure = Mapping[str, Any]
Pieces = Sequence[tuple[str, bool]]  # of a text, and whether each is marked

SHOWN = 12  # rows of a table, texts with marks
_LONG = 400  # characters of a text in a table
_LINE, _CELLS = 19, 90  # of a picture of marked texts: the height of a line, characters in it at least
_NO_XML = re.compile("[\ufffe\uffff]")
_MARKED = (
    '<svg xmlns="http://www.w3.org/2000/svg" width="760" height="{height}"><style>'
    "div{{background:#fff;color:#616a75;font:13px/{line}px monospace;white-space:pre-wrap;overflow-wrap:anywhere}}"
    "p{{margin:0 0 {line}px}}b{{background:#bfe3ca;color:#1d2530;font-weight:400}}</style>"
    '<foreignObject width="760" height="{height}"><div xmlns="http://www.w3.org/1999/xhtml">{body}</div>'
    "</foreignObject></svg>"
)
_MARKUP = {ord(mark): f"&#{ord(mark)};" for mark in "\\`*_{}[]<>#|~&"}


def picture(figure: Figure) -> str | None:
    """The figure as an SVG text, where it is a picture."""
    draw = _PICTURES.get(figure["kind"])
    return draw(figure) if draw else None


def markdown(figure: Figure) -> str:
    """The figure with its title and note."""
    parts = [f"### {figure['title']}", cell(figure["note"])] if figure["note"] else [f"### {figure['title']}"]
    svg = picture(figure)
    body = svg_image(svg, figure["title"]) if svg else _TEXTS[figure["kind"]](figure)
    return "\n\n".join([*parts, body])


def text(figure: Figure) -> list[str]:
    """The figure as lines for a terminal: values instead of pictures."""
    head = f"{figure['title']}: {figure['note']}" if figure["note"] else figure["title"]
    return [head, *(f"  {line}" for line in _LINES[figure["kind"]](figure))]


def bracketed(pieces: Pieces) -> str:
    """A text with its marked pieces between brackets."""
    return "".join(f"⟦{piece}⟧" if mark else piece for piece, mark in pieces)


def coloured(pieces: Pieces) -> Text:
    """A text with its marked pieces in colour, whatever they hold."""
    from rich.text import Text

    return Text.assemble(*((printable(piece), "black on green" if mark else "dim") for piece, mark in pieces))


def cell(value: Any) -> str:
    """A value as a cell of a table in markdown, in which nothing is markup whatever it holds."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.4g}"
    said = str(value)
    said = said if len(said) <= _LONG else f"{said[:_LONG]} …"
    return "<br>".join(said.translate(_MARKUP).splitlines())


def table(columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """A table in markdown."""
    head = [f"| {' | '.join(map(cell, columns))} |", f"|{' --- |' * len(columns)}"]
    return "\n".join(head + [f"| {' | '.join(map(cell, row))} |" for row in rows])


def _lines_svg(figure: Figure) -> str:
    points = [(name, *parts) for name, parts in figure["series"].items()]
    return curve_svg(points, figure["y"], figure["x"])


def _bars_svg(figure: Figure) -> str:
    return bar_svg(figure["labels"], figure["values"], figure.get("low"), figure.get("high"), figure.get("chance"))


def _of_table(figure: Figure) -> str:
    more = len(figure["rows"]) - SHOWN
    return table(figure["columns"], figure["rows"][:SHOWN]) + (f"\n\nand {more:,} more" if more > 0 else "")


def _of_marked(figure: Figure) -> str:
    """A picture, for colour: of markdown the UI draws pictures, and no markup of a text's own."""
    from rich.cells import cell_len

    said = [[(_NO_XML.sub("\ufffd", printable(t)), mark) for t, mark in pieces] for pieces in figure["texts"][:SHOWN]]
    lines = ("".join(piece for piece, _ in pieces).split("\n") for pieces in said)
    height = sum(_LINE * (1 + sum(1 + cell_len(line) // _CELLS for line in text)) for text in lines)
    body = "".join(
        f"<p>{''.join(f'<b>{escape(piece)}</b>' if mark else escape(piece) for piece, mark in pieces)}</p>"
        for pieces in said
    )
    return svg_image(_MARKED.format(height=height, line=_LINE, body=body), figure["title"])


def _values(figure: Figure) -> list[str]:
    ends = zip(figure["low"], figure["high"], strict=True) if "low" in figure else [None] * len(figure["values"])
    wide = max(map(len, figure["labels"]), default=0)
    return [
        f"{label:<{wide}} {value:>9.4g}" + (f"  ({end[0]:.4g} to {end[1]:.4g})" if end else "")
        for label, value, end in zip(figure["labels"], figure["values"], ends, strict=True)
    ]


def _points(figure: Figure) -> list[str]:
    """Of a line of few points each, of others the first and the last."""
    told = []
    for name, (xs, ys, *_) in figure["series"].items():
        points = [f"{x:.3g} → {y:.3g}" for x, y in zip(xs, ys, strict=True)]
        if points:
            told.append(f"{name}: " + (", ".join(points) if len(points) <= SHOWN else f"{points[0]} ... {points[-1]}"))
    return told


def _cells(figure: Figure) -> list[str]:
    rows = [[_plain(value) for value in row] for row in (figure["columns"], *figure["rows"][:SHOWN])]
    wide = [max(len(row[k]) for row in rows) for k in range(len(figure["columns"]))]
    return ["  ".join(value.ljust(width) for value, width in zip(row, wide, strict=True)).rstrip() for row in rows]


def _brackets(figure: Figure) -> list[str]:
    return [line for pieces in figure["texts"][:SHOWN] for line in bracketed(pieces).split("\n")]


def _plain(value: Any) -> str:
    said = f"{value:.4g}" if isinstance(value, float) else "" if value is None else str(value).replace("\n", " ")
    return said if len(said) <= 60 else f"{said[:59]}…"


_PICTURES: dict[str, Callable[[Figure], str]] = {"lines": _lines_svg, "bars": _bars_svg}
_TEXTS: dict[str, Callable[[Figure], str]] = {"table": _of_table, "marked": _of_marked}
_LINES: dict[str, Callable[[Figure], list[str]]] = {
    "lines": _points,
    "bars": _values,
    "table": _cells,
    "marked": _brackets,
}
