"""Rules are data: `metric op threshold` is what a kept document satisfies, with a name and where the number comes from.

A rule on a missing metric does not apply, nor does one to a document in a language it wasn't made for.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

CLASSIFIER = "classifier:"  # begins the name of a metric that a classifier of the recipe gives

_OPERATORS: dict[str, Callable[[Any, float], Any]] = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
    "==": operator.eq,
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


class Verdict(NamedTuple):
    """`kept` or `rejected`, the first failed rule's name (or None), and all failed rules' names in order."""

    verdict: str
    rule: str | None
    rules: list[str]


def applies(rule: Rule, language: str) -> bool:
    """Whether the rule is meant for documents of this language."""
    return rule.languages is None or language in rule.languages


def compare(op: str, value: Any, threshold: float) -> Any:
    """`value op threshold`: a truth value for a number, an array of them for an array."""
    return _OPERATORS[op](value, threshold)


def verdict(metrics: Mapping[str, float | None], rules: Sequence[Rule], language: str = "und") -> Verdict:
    """Judge a document by its metrics. A metric that is absent or None makes its rules not apply."""
    failed = []
    for rule in rules:
        value = metrics.get(rule.metric)
        if value is not None and applies(rule, language) and not _OPERATORS[rule.op](value, rule.threshold):
            failed.append(rule.name)
    return Verdict("rejected" if failed else "kept", failed[0] if failed else None, failed)
