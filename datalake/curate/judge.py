"""Judging: the rules that documents are held to, and which of them each document fails, from metrics alone.

Whoever asks gets the same answer here: curation, what-if, explain, the histograms of report and UI, thresholds. A
document is held to the rule set of its source kind and language (the recipe's `extra_rules` are the last of every set),
then to what other sections of the recipe ask (overlap with evaluation sets, for instance). These come last, so that as
a first failed rule each names what it alone rejects.

Rules are applied a column at a time to all documents that share them: a million documents take seconds.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from datalake.curate.config import CurateConfig
from datalake.curate.rules import BLOCKED, EMPTY, LANGUAGE, Rule, RuleSet, fails
from datalake.curate.rules_file import choose, rule_sets, thresholds_for, with_thresholds
from datalake.curate.schema import column_of, value_of, values_of
from datalake.errors import UserError
from datalake.files import File

Ints = npt.NDArray[np.int64]
Flags = npt.NDArray[np.bool_]

COLUMNS = ("rule_set", "verdict", "rule", "rules")  # what judging adds to metrics
_BLOCK = 1 << 17  # documents judged at once


class NeedsRerunError(UserError):
    """A question that the stored metrics can't answer; the message says why, in one line."""


# The rules in use -----------------------------------------------------------------------------------------------


def rules_in_use(config: CurateConfig) -> list[tuple[str, Rule]]:
    """(rule set, rule) for every rule that a document may be held to, thresholds of the recipe put in."""
    chosen = (with_thresholds(rules, config.thresholds) for rules in config.rule_sets)
    return [(rules.name, rule) for rules in chosen for rule in (*rules.rules, *config.own_rules)]


def rules_for(config: CurateConfig, source: str, language: str) -> RuleSet:
    """What a document from this source in this language is held to; rules for other languages are left out.

    Numbers of `thresholds` go before those of the rules file, these before the preset's.

    Raises:
        UserError: where the rules file has gone or changed since the recipe was read.
    """
    thresholds, kind = tuple(sorted(config.thresholds.items())), config.kinds.get(source, source)
    asked = (config.preset, config.compat, config.rules, config.extra_rules)
    return _rules_for(asked, thresholds, config.own_rules, kind, language)


@lru_cache(maxsize=4096)
def _rules_for(
    asked: tuple[str, str, File, tuple[Rule, ...]],
    thresholds: tuple[tuple[str, float], ...],
    own: tuple[Rule, ...],
    kind: str,
    language: str,
) -> RuleSet:
    chosen = with_thresholds(choose(rule_sets(*asked), kind, language), thresholds_for(asked[2], language))
    rules = (*with_thresholds(chosen, dict(thresholds)).rules, *own)
    return chosen.model_copy(update={"rules": tuple(rule for rule in rules if rule.is_for(language))})


# Many documents -------------------------------------------------------------------------------------------------


class Judged(NamedTuple):
    """Verdicts over the rows of a table: `items` are indices into `names`, those of row k from offsets[k] on."""

    names: tuple[str, ...]  # rules, in no particular order
    rule_sets: tuple[str, ...]
    rule_set: npt.NDArray[np.int32]  # shape (rows,): index into rule_sets
    offsets: Ints  # shape (rows + 1,)
    items: npt.NDArray[np.int32]  # all failed rules, row by row, in the order of the rule set

    @property
    def kept(self) -> Flags:
        """Which rows fail no rule, shape (rows,)."""
        return self.offsets[1:] == self.offsets[:-1]

    @property
    def first(self) -> npt.NDArray[np.int32]:
        """The first failed rule of each row as an index into `names`, -1 where kept."""
        padded = np.append(self.items, np.int32(-1))
        return np.where(self.kept, np.int32(-1), padded[self.offsets[:-1]])

    def emptied(self, rows: Flags) -> Judged:
        """The same verdicts, but that of these rows, which fail no rule, edits leave nothing."""
        at = self.offsets[:-1][rows]
        items = np.insert(self.items, at, np.int32(len(self.names)))
        offsets = self.offsets + np.concatenate(([0], np.cumsum(rows)))
        return self._replace(names=(*self.names, EMPTY), offsets=offsets, items=items)

    def columns(self) -> pa.Table:
        """rule_set, verdict, rule and rules, as the curation table has them."""
        names = pa.array(self.names, pa.string())
        first = pa.array(self.first, mask=self.kept)
        columns = [
            pa.array(self.rule_sets, pa.string()).take(pa.array(self.rule_set)),
            pa.array(["rejected", "kept"]).take(pa.array(self.kept.astype(np.int8))),
            names.take(first),
            pa.ListArray.from_arrays(pa.array(self.offsets, pa.int32()), names.take(pa.array(self.items, pa.int32()))),
        ]
        return pa.table(columns, list(COLUMNS))


def pairs_of(table: pa.Table) -> tuple[list[tuple[str, str]], Ints]:
    """The (source, language) pairs of a table, and each row's as an index into them."""
    source, language = (pc.dictionary_encode(table[name].combine_chunks()) for name in ("source", "language"))
    width = max(len(language.dictionary), 1)
    code = source.indices.to_numpy().astype(np.int64) * width + language.indices.to_numpy()
    present, of_row = np.unique(code, return_inverse=True)
    sources, languages = source.dictionary.to_pylist(), language.dictionary.to_pylist()
    return [(sources[k // width], languages[k % width]) for k in present.tolist()], of_row.astype(np.int64)


def judge(table: pa.Table, config: CurateConfig) -> Judged:
    """Judge every row of a table by its metrics.

    Args:
        table: `source`, `language` and the metrics that the rules ask for, as the curation table has them.
        config: whose rules.

    A metric that is missing makes its rules not apply. What edits leave of a text isn't asked here (`emptied`).

    Raises:
        NeedsRerunError: where the table has no such metric.
        UserError: where the rules file has gone or changed since the recipe was read.
    """
    pairs, of_row = pairs_of(table)
    held = [rules_for(config, *pair) for pair in pairs]
    names = tuple(dict.fromkeys((LANGUAGE, *(rule.name for rules in held for rule in rules.rules))))
    code = {name: np.int32(k) for k, name in enumerate(names)}
    rule_sets = tuple(dict.fromkeys(rules.name for rules in held))
    failed: list[tuple[Ints, np.int32]] = []  # rows, and the rule that all of them fail
    for start in range(0, len(of_row), _BLOCK):
        block, pair_of = table.slice(start, _BLOCK), of_row[start : start + _BLOCK]
        columns: dict[str, npt.NDArray[np.float64]] = {}
        order = np.argsort(pair_of, kind="stable")
        bounds = np.searchsorted(pair_of[order], np.arange(len(pairs) + 1))
        for k in np.flatnonzero(np.diff(bounds)):
            rows, (source, language) = order[bounds[k] : bounds[k + 1]], pairs[k]
            kept = config.languages is None or language in config.languages
            if not kept and config.kinds.get(source, source) != "code":
                failed.append((rows + start, code[LANGUAGE]))
            for rule in held[k].rules:
                if rule.metric not in columns:
                    columns[rule.metric] = values(block, rule.metric)
                failed.append(
                    (rows[fails(rule.op, columns[rule.metric][rows], rule.threshold)] + start, code[rule.name])
                )
    rows = np.concatenate([np.empty(0, np.int64), *(rows for rows, _ in failed)])
    items = np.repeat(
        np.array([rule for _, rule in failed], np.int32), np.array([len(rows) for rows, _ in failed], np.int64)
    )
    offsets = np.concatenate(([0], np.cumsum(np.bincount(rows, minlength=len(of_row)))))
    set_of = np.array([rule_sets.index(rules.name) for rules in held], np.int32)
    # Rules came in their order for each row: a stable sort leaves them so.
    return Judged(names, rule_sets, set_of[of_row], offsets, items[np.argsort(rows, kind="stable")])


def stored(curation: pa.Table) -> Judged:
    """The verdicts that a curation table holds."""
    lists = curation["rules"].combine_chunks()
    flat = pc.dictionary_encode(lists.flatten())
    sets = pc.dictionary_encode(curation["rule_set"].combine_chunks())
    lengths = lists.value_lengths().to_numpy(zero_copy_only=False).astype(np.int64)
    return Judged(
        tuple(flat.dictionary.to_pylist()),
        tuple(sets.dictionary.to_pylist()),
        sets.indices.to_numpy().astype(np.int32),
        np.concatenate(([0], np.cumsum(lengths))),
        flat.indices.to_numpy().astype(np.int32),
    )


def rejudge(table: pa.Table, config: CurateConfig, before: Judged) -> tuple[Judged, Flags]:
    """As `judge`, of documents that were judged before with the same edits, so that what these leave is known of many.

    Returns the verdicts, and of which rows it isn't known: those that pass all rules now and didn't before.
    """
    judged = judge(table, config)
    nothing = np.array([name == EMPTY for name in (*before.names, "")])[before.first]
    return judged.emptied(judged.kept & nothing), judged.kept & ~nothing & ~before.kept


def values(table: pa.Table, metric: str) -> npt.NDArray[np.float64]:
    """A metric's values in a table, NaN where missing, shape (rows,). Raises NeedsRerunError where it has no such."""
    if column_of(metric) not in table.column_names:
        raise NeedsRerunError(f"the curation table has no metric {metric}: run the recipe again with this version")
    return values_of(table, metric).to_numpy().astype(np.float64)


# One document ---------------------------------------------------------------------------------------------------


def explain(row: Mapping[str, Any], config: CurateConfig) -> list[dict[str, Any]]:
    """Every rule that a document was held to: its metric's value, what was asked of it, by whom, and the outcome.

    `row` is the document's in the curation table. The outcome is what curation decided: `failed`, `passed`, or
    `no value` where the metric is missing. Nothing is known where the file of rules has gone or changed since.
    """
    try:
        chosen = rules_for(config, row["source"], row["language"] or "und")
    except UserError:
        return []
    failed = row["rules"] or ()
    told: list[dict[str, Any]] = []
    for rule in chosen.rules:
        value = value_of(row, rule.metric)
        told.append(
            {
                "rule": rule.name,
                "metric": rule.metric,
                "value": value,
                "operator": rule.op,
                "threshold": rule.threshold,
                "source": row.get(f"{BLOCKED}_by") or rule.source if rule.name == BLOCKED else rule.source,
                "outcome": "failed" if rule.name in failed else "no value" if value is None else "passed",
            }
        )
    without_number = {LANGUAGE: "languages kept", EMPTY: "text left by the edits"}
    return told + [
        dict.fromkeys(("metric", "value", "operator", "threshold"))
        | {"rule": name, "source": without_number[name], "outcome": "failed"}
        for name in failed
        if name in without_number
    ]
