"""A candidate beside the current model as a page in markdown: what a person reads before they agree."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

Row = Mapping[str, Any]
_DIFFERENCES = ("task", "metric", "current", "candidate", "difference", "real", "interval", "p", "items")
_SCORES = ("model", "task", "metric", "value", "interval", "items", "seen in training", "without these")


def differences(
    candidate: str, current: str | None, tag: str, figures: Mapping[str, Sequence[Row]], against: Sequence[str]
) -> str:
    """In short, for the form: what speaks against the candidate, what it has seen in training, how it differs.

    `figures`: as `tasks.benchmarks.Grid.figures` gives them; `current`: None where nothing has the tag yet.
    """
    beside = f"beside **{_cell(current)}**, which is `{tag}`" if current else f"; nothing is `{tag}` yet"
    lines = [f"**{_cell(candidate)}** {beside}.", ""]
    lines += [f"- against it: {_cell(one)}" for one in against] or ["Nothing that was asked for speaks against it."]
    own = [row for row in figures["contamination"] if row["checkpoint"] == "candidate"]
    seen = ", ".join(f"{_cell(row['task'])} {row['share']:.1%}" for row in own)
    lines += ["", f"Of its items the candidate has seen in training: {seen or 'unknown'}."]
    if compared := figures["compared"]:
        lines += ["", "### Differences", "", f"| {' | '.join(_DIFFERENCES)} |"]
        lines += ["| --- | --- | ---: | ---: | ---: | --- | ---: | ---: | ---: |"]
        for row in compared:
            real = ("higher" if row["difference"] > 0 else "lower") if row["real"] else "no"
            cells = [row["task"] + _way(row, compared), row["metric"], f"{row['first']:.4g}", f"{row['second']:.4g}"]
            cells += [f"{row['difference']:+.4g}", real, f"{row['low']:+.4g} to {row['high']:+.4g}", f"{row['p']:.2g}"]
            lines.append(f"| {' | '.join(map(_cell, cells))} | {row['n']:,} |")
        lines += ["", "Paired by item; intervals of 95%; real: when all rows are judged together (Holm)."]
    return "\n".join(lines)


def comparison(short: str, figures: Mapping[str, Sequence[Row]]) -> str:
    """The page: the differences, every score, and which items were seen in training."""
    lines = [short, "", "### Scores", "", f"| {' | '.join(_SCORES)} |"]
    lines += ["| --- | --- | --- | ---: | ---: | ---: | ---: | ---: |"]
    for row in figures["results"]:
        seen = f"{row['seen']:.1%}" if "seen" in row else "unknown"
        without = f"{row['without']:.4g}" if row.get("seen") and row["without"] is not None else ""
        cells = [row["checkpoint"], row["task"] + _way(row), row["metric"], f"{row['value']:.4g}"]
        cells += [f"{row['low']:.4g} to {row['high']:.4g}", f"{row['n']:,}", seen, without]
        lines.append(f"| {' | '.join(map(_cell, cells))} |")
    held = [row for row in figures["contamination"] if row["items"]]
    if held:
        lines += ["", "### Items that training documents hold", ""]
    for row in held:
        first = ", ".join(f"{one['item']} in {one['documents'][0][:16]}" for one in row["items"][:5])
        more = f", and {len(row['items']) - 5:,} more" if len(row["items"]) > 5 else ""
        lines.append(f"- {_cell(row['checkpoint'])}, {_cell(row['task'])}: {_cell(first)}{more}")
    return "\n".join(lines)


def _way(row: Row, among: Sequence[Row] = ()) -> str:
    """How a task was asked, where that is told or differs among rows."""
    if "shots" not in row or (among and len({(one["shots"], one["reasons"]) for one in among}) == 1):
        return ""
    return f" ({row['shots']} shots{', reasons' if row['reasons'] else ''})"


def _cell(value: Any) -> str:
    """A value as text that is no markup, in one line."""
    text = " ".join(str(value).split())
    return "".join(f"\\{letter}" if letter in "\\`*_[]<>|#!" else letter for letter in text)
