"""A metric family: what a module of `families/` says of itself."""

from __future__ import annotations

from typing import Any, NamedTuple


class Metric(NamedTuple):
    """A metric's name, whether it is a whole number, its definition with the paper or file it is from.

    `of_tokens`: it counts tokens, and is missing in languages where there is no telling them apart.
    """

    name: str
    whole: bool
    definition: str
    of_tokens: bool = False


class Family(NamedTuple):
    """Metrics in the order of their columns, and the kernel `(Document, row)` that computes them, if one does.

    The kernel writes to `row`, shape (metrics,), which begins as NaN: what it doesn't write is missing.
    """

    metrics: tuple[Metric, ...]
    measure: Any = None
