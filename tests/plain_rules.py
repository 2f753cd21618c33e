"""Judging as it is defined, one document and one rule at a time: the oracle of `datalake.curate.judge`."""

from __future__ import annotations

import operator
from collections.abc import Mapping, Sequence

from datalake.curate.rules import Rule

_OPERATORS = {"<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge, "==": operator.eq}


def failed_rules(metrics: Mapping[str, float | None], rules: Sequence[Rule], language: str = "und") -> list[str]:
    """Names of the rules that a document with these metrics fails, in order.

    A metric that is absent or None, or a rule for other languages, makes a rule not apply.
    """
    failed = []
    for rule in rules:
        value = metrics.get(rule.metric)
        if value is None or (rule.languages is not None and language not in rule.languages):
            continue
        if not _OPERATORS[rule.op](value, rule.threshold):
            failed.append(rule.name)
    return failed
