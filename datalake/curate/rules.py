"""Rules are data: `metric op threshold` is what a kept document satisfies, with a name and where the number comes from.

A rule on a missing metric does not apply, nor does one to a document in a language it wasn't made for.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any, NamedTuple

CLASSIFIER = "classifier:"  # begins the name of a metric that a classifier of the recipe gives

# What fails `value op threshold`, so that a missing value (NaN, NULL) fails nothing; and the same in SQL.
_FAILS: dict[str, tuple[Callable[[Any, float], Any], str]] = {
    "<": (operator.ge, ">="),
    "<=": (operator.gt, ">"),
    ">": (operator.le, "<="),
    ">=": (operator.lt, "<"),
    "==": (lambda value, threshold: (value < threshold) | (value > threshold), "<>"),
}


class Rule(NamedTuple):
    """One condition that a kept document satisfies. `languages` None: any language."""

    name: str
    metric: str
    op: str
    threshold: float
    source: str
    languages: tuple[str, ...] | None = None

    def __str__(self) -> str:
        return f"{self.name}: {self.metric} {self.op} {self.threshold:g}"


def fails(op: str, value: Any, threshold: float) -> Any:
    """Whether `value op threshold` is not so: a truth value for a number, an array of them for an array."""
    return _FAILS[op][0](value, threshold)


def fails_sql(op: str, value: str, threshold: str) -> str:
    """The same of two expressions of DuckDB."""
    return f"{value} {_FAILS[op][1]} {threshold}"
