"""How a metric is spread over kept and rejected documents, beside the thresholds that rules put on it.

Only metrics that a rule asks for, each among the documents that are held to that rule. Counting is DuckDB's.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

from datalake.curate.config import CurateConfig
from datalake.curate.judge import rules_for
from datalake.curate.metrics.catalog import METRICS
from datalake.curate.rules import Rule, RuleSet
from datalake.curate.schema import sql_of

if TYPE_CHECKING:
    import duckdb

BINS = 24
_TAIL = 0.005  # of the documents, at each end, are put into the outermost bins
_LOGARITHMIC_FROM = 1000.0  # where a scale that begins at 0 or above reaches this far, bins grow
_BARS = "▁▂▃▄▅▆▇█"


class Histogram(NamedTuple):
    """Documents of one group by one metric; what lies beyond `edges` is in the outermost bins."""

    rule_set: str
    languages: tuple[str, ...]  # of the documents in the group, most frequent first
    metric: str
    rules: tuple[Rule, ...]  # those on this metric
    logarithmic: bool
    edges: tuple[float, ...]  # BINS + 1
    kept: tuple[int, ...]  # BINS
    rejected: tuple[int, ...]
    missing: int  # documents without a value

    def place(self, value: float) -> float:
        """Where a value lies between the first edge (0) and the last (1)."""
        low, high, at = (_scaled(x, self.logarithmic) for x in (self.edges[0], self.edges[-1], value))
        return min(max((at - low) / (high - low), 0.0), 1.0)


def histograms(connection: duckdb.DuckDBPyConnection, table: str, config: CurateConfig) -> list[Histogram]:
    """A histogram for each metric in use and each group of documents held to the same rules.

    `table` is SQL for a relation with the columns of CURATION; the groups with most documents come first.
    """
    pairs = connection.execute(
        f"SELECT source, language, rule_set, count(*) AS n FROM {table} GROUP BY ALL ORDER BY n DESC, source, language"
    ).fetchall()
    groups: dict[RuleSet, list[tuple[str, str]]] = {}
    for source, language, rule_set, _ in pairs:
        chosen = rules_for(config, source, language)
        if chosen.name == rule_set:  # else the table was made by other rules
            groups.setdefault(chosen, []).append((source, language))
    return [one for group, members in groups.items() for one in _of_group(connection, table, group, members)]


def _of_group(
    connection: duckdb.DuckDBPyConnection, table: str, group: RuleSet, members: Sequence[tuple[str, str]]
) -> Iterator[Histogram]:
    metrics = list(dict.fromkeys(rule.metric for rule in group.rules))
    if not metrics:
        return
    chosen = ", ".join(f'{sql_of(name)}::DOUBLE AS "{name}"' for name in metrics)
    connection.execute(
        f"CREATE OR REPLACE TEMP TABLE histogram_group AS SELECT verdict = 'kept' AS kept, {chosen} FROM {table}"
        " WHERE rule_set = ? AND list_contains(?, source || chr(0) || language)",
        [group.name, [f"{source}\x00{language}" for source, language in members]],
    )
    languages = tuple(dict.fromkeys(language for _, language in members))
    for name in metrics:
        rules = tuple(rule for rule in group.rules if rule.metric == name)
        found = connection.execute(
            f'SELECT count(*) - count("{name}"), quantile_disc("{name}", [0, {_TAIL}, {1 - _TAIL}, 1])'
            " FROM histogram_group"
        ).fetchone()
        assert found is not None
        missing, quantiles = found
        if not quantiles or quantiles[0] is None:
            continue
        edges, logarithmic = _edges(quantiles, [rule.threshold for rule in rules], name)
        low, high = _scaled(edges[0], logarithmic), _scaled(edges[-1], logarithmic)
        # Not below 0: the logarithm is taken on such scales alone.
        scaled = f'log10(1 + greatest("{name}", 0))' if logarithmic else f'"{name}"'
        counts = {True: [0] * BINS, False: [0] * BINS}
        rows = connection.execute(
            f"SELECT kept, least(greatest(floor(({scaled} - ?) / ? * {BINS}), 0), {BINS - 1})::INTEGER AS bin, count(*)"
            f' FROM histogram_group WHERE "{name}" IS NOT NULL GROUP BY ALL',
            [low, high - low],
        ).fetchall()
        for kept, place, amount in rows:
            counts[kept][place] += amount
        yield Histogram(
            group.name,
            languages,
            name,
            rules,
            logarithmic,
            edges,
            tuple(counts[True]),
            tuple(counts[False]),
            missing,
        )


_WHOLE = {metric.name for metric in METRICS if metric.whole}


def _edges(quantiles: Sequence[float], thresholds: Sequence[float], metric: str) -> tuple[tuple[float, ...], bool]:
    """Edges from nearly the least value to nearly the greatest, thresholds among them unless far beyond all values."""
    least, low, high, most = quantiles
    reach = max(most - least, abs(most), 1.0)
    near = [t for t in thresholds if least - reach <= t <= most + reach]
    low, high = min([low, *near]), max([high, *near])
    if metric in _WHOLE and low > 0 and low <= 0.2 * high:
        low = 0.0
    if high <= low:
        high = low + 1.0
    logarithmic = low >= 0 and high >= _LOGARITHMIC_FROM
    first, last = _scaled(low, logarithmic), _scaled(high, logarithmic)
    steps = (first + (last - first) * k / BINS for k in range(1, BINS))
    inner = (10**x - 1 if logarithmic else x for x in steps)
    return (float(low), *inner, float(high)), logarithmic


def _scaled(value: float, logarithmic: bool) -> float:
    return math.log10(1 + max(value, 0.0)) if logarithmic else value


def bars(counts: Sequence[int], nothing: str = " ") -> str:
    """Counts as a row of bars, `nothing` for 0."""
    most = max(counts, default=0)
    return "".join(_BARS[min(7, 8 * count // (most + 1))] if count else nothing for count in counts)
