"""Thresholds from the corpus itself: for each rule and language, the number that suits the distribution at hand.

Input is the curation table, one row for every raw document with all metrics, kept or not. A rule's distribution is that
of the documents held to it: those of its rule set and language, where the metric isn't missing. Three methods:

- `sigma`: mean plus (rules that bound from above) or minus k standard deviations, the way of Data-Juicer's refined
  recipes. On a scale on which that makes sense: counts and mean lengths vary by factors, so log(1 + x); shares pile up
  at 0 or 1, where a logarithm or logit is infinite, so the arcsine of the square root, which is finite there and makes
  the variance of a proportion about the same everywhere; rates per token can exceed 1, so the square root, which is
  the same near 0. Beyond the end of its scale a threshold would cut nothing: the published one is kept.
- `quantile`: the tightest observed value that cuts at most a given share of the documents; half of it on each side of
  a metric that a set bounds on both. Where the outermost value alone is more than that, as where many documents have 0
  of what a rule wants some of, the published threshold is kept.
- `reference`: the way of FineWeb-2. The published threshold for a reference language cuts some share of its documents;
  the rule of the same name cuts the same share, at most, of another language's.

Quantiles and shares are exact: values are counted, and the counts added up in order, by DuckDB, which spills to disk.
Means and deviations are sums of integers (billionths of the scale's unit), so they are the same for any number of
threads and order of files. Thresholds are rounded to 6 digits towards keeping more; of whole metrics, to whole numbers
that decide the same.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from decimal import ROUND_CEILING, ROUND_FLOOR, Decimal
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import yaml

from datalake.curate.metrics.catalog import METRICS
from datalake.curate.rules import Rule, RuleSet, fails_sql
from datalake.curate.rules_file import OTHER, choose
from datalake.curate.schema import sql_of
from datalake.curate.thresholds import ThresholdsConfig
from datalake.errors import UserError
from datalake.lake.parquet import check, scan
from datalake.sources import KINDS

if TYPE_CHECKING:
    import duckdb

Scale = Literal["log", "root", "arcsine", "linear"]

_WHOLE = {metric.name for metric in METRICS if metric.whole}
_LENGTHS = {"mean_word_length", "mean_line", "alpha_per_token"}
_RATES = {"hash_ratio", "ellipsis_ratio", "newline_ratio", "fw_newline_ratio"}
_EVERYTHING = "*"  # all languages of a rule set together
_UNIT = 10**9  # sums are of billionths

_TO_SCALE: dict[Scale, str] = {
    "log": "ln(1 + greatest(v, 0))",
    "root": "sqrt(greatest(v, 0))",
    "arcsine": "asin(sqrt(least(greatest(v, 0), 1)))",
    "linear": "v",
}
# A threshold here or beyond would cut nothing, whatever the documents.
_START: dict[Scale, float] = {"log": 0.0, "root": 0.0, "arcsine": 0.0, "linear": -math.inf}
_END: dict[Scale, float] = {"log": math.inf, "root": math.inf, "arcsine": math.pi / 2, "linear": math.inf}
_UPPER = ("<", "<=")

# The tightest threshold that fails at most total - need documents; no row is tight enough where even the outermost
# value of a strict rule is too much. `upto` counts the documents with a value of at most v.
_AT_MOST = {
    "<=": "min(v) FILTER (upto >= need)",
    "<": "min(v) FILTER (upto - n >= need)",
    ">=": "max(v) FILTER (total - upto + n >= need)",
    ">": "max(v) FILTER (total - upto >= need)",
}


class Proposal(NamedTuple):
    """One rule for one language. `method` is `published` where the published threshold is kept; `source` says why.

    `documents` are those with the metric; the cut shares are theirs, by the threshold and by the published one.
    """

    name: str
    metric: str
    op: str
    threshold: float
    published: float
    method: str
    documents: int
    cut_share: float
    published_cut_share: float
    source: str


class Proposals(NamedTuple):
    """What was found: a list of proposals by language, languages pooled as `other` by rule set, and one flat mapping.

    `thresholds` maps `set/rule` to the number that all documents of the set together suggest, whatever their language;
    rules whose published number stands aren't in it.
    """

    documents: int
    rules: dict[str, list[Proposal]]
    pooled: dict[str, dict[str, int]]
    thresholds: dict[str, float]


class _Shape(NamedTuple):
    """The distribution of a metric over one group of documents."""

    total: int
    low: float
    high: float
    most: int  # documents with the most frequent value
    mode: float
    mean: float  # on the scale, as is the deviation
    deviation: float


class _Reference(NamedTuple):
    """What a published rule cuts of the reference language's documents."""

    rule: Rule
    rule_set: str
    total: int
    cut: int


def scale_of(metric: str, low: float, high: float) -> Scale:
    """The scale on which a metric with values from `low` to `high` is measured in standard deviations."""
    if metric in _WHOLE or metric in _LENGTHS:
        return "log"
    if metric in _RATES:
        return "root"
    if low < 0:
        return "linear"
    return "arcsine" if high <= 1 else "log"


def from_scale(x: float, scale: Scale) -> float:
    """The value at place `x` of a scale, which must be on it."""
    if scale == "log":
        return math.expm1(x)
    if scale == "root":
        return x**2
    return math.sin(x) ** 2 if scale == "arcsine" else x


def tidy(threshold: float, op: str, whole: bool) -> float:
    """The threshold with 6 digits, rounded towards keeping more; for whole numbers the one that decides the same."""
    if whole:
        near = round(threshold, 6)
        return float(math.ceil(near) if op in (">=", "<") else math.floor(near))
    direction = ROUND_CEILING if op in _UPPER else ROUND_FLOOR
    return float(Decimal(repr(threshold)).quantize(Decimal("1e-6"), direction))


def propose(
    files: Sequence[str], config: ThresholdsConfig, threads: int = 1, memory_gb: float = 1.0, spill: Path | None = None
) -> Proposals:
    """Propose thresholds for the rules that `config` asks about from the files of a curation table.

    Args:
        files: Parquet files of schema CURATION.
        config: the method and its numbers; `preset` must be filled in.
        threads: how many DuckDB works with; the result doesn't depend on it.
        memory_gb: what DuckDB may hold; the rest goes to `spill`.
        spill: folder for what exceeds the memory.

    Raises:
        UserError: where the preset has no rules.
    """
    import duckdb

    if not any(rules.rules for rules in config.rule_sets):
        raise UserError(f"thresholds: preset {config.preset!r} has no rules: choose another `curate.preset`")
    if not files:
        return Proposals(0, {}, {}, {})
    settings: dict[str, Any] = {"threads": threads, "memory_limit": f"{max(memory_gb, 0.25):g}GB"}
    if spill is not None:
        settings["temp_directory"] = str(spill)
    with duckdb.connect(config=settings) as connection:
        connection.execute("SET preserve_insertion_order = false")
        return _Proposer(connection, list(files), config).propose()


class _Proposer:
    """One pass over the metrics of the rules in use."""

    def __init__(self, connection: duckdb.DuckDBPyConnection, files: list[str], config: ThresholdsConfig):
        here = [str(check(path)) for path in files]
        self.connection, self.rows_of, self.config = connection, scan(here), config
        self.sets = [rules for rules in config.rule_sets if rules.rules]
        counts = self._rows(f"SELECT rule_set, language, count(*) FROM {self.rows_of} GROUP BY ALL")
        self.documents = sum(n for _, _, n in counts)
        self.languages: dict[str, dict[str, int]] = {rules.name: {} for rules in self.sets}
        for name, language, n in counts:
            if name in self.languages:
                self.languages[name][language] = n

    def _rows(self, sql: str, *values: Any) -> list[tuple[Any, ...]]:
        return self.connection.execute(sql, list(values)).fetchall()

    def propose(self) -> Proposals:
        """All proposals, in the order of rule sets and their rules."""
        references = self._references() if self.config.method == "reference" else {}
        found: dict[tuple[str, str], dict[str, Proposal]] = {}
        for metric in sorted({rule.metric for rules in self.sets for rule in rules.rules}):
            self.connection.execute(
                f"""CREATE OR REPLACE TEMP TABLE counted AS
                    SELECT rule_set, language, CAST({sql_of(metric)} AS DOUBLE) AS v, count(*) AS n
                    FROM {self.rows_of} WHERE v IS NOT NULL AND NOT isnan(v)
                    GROUP BY ALL"""
            )
            for rules in self.sets:
                for rule in rules.rules:
                    if rule.metric == metric:
                        found[rules.name, rule.name] = self._rule(rules, rule, references)
        by_language: dict[str, list[Proposal]] = {}
        flat: dict[str, float] = {}
        for rules in self.sets:
            for rule in rules.rules:
                for group, proposal in sorted(found[rules.name, rule.name].items()):
                    if group != _EVERYTHING:
                        by_language.setdefault(group, []).append(proposal)
                    elif proposal.method != "published":
                        flat[proposal.name] = proposal.threshold
        pooled = {
            name: few
            for name, counts in self.languages.items()
            if (few := {language: n for language, n in sorted(counts.items()) if n < self.config.min_documents})
        }
        return Proposals(self.documents, dict(sorted(by_language.items())), pooled, dict(sorted(flat.items())))

    # Groups of documents --------------------------------------------------------------------------------------

    def _groups(self, rules: RuleSet, rule: Rule) -> dict[str, list[str]]:
        """Languages of each group that the rule is asked about; everything together is a group of its own."""
        groups: dict[str, list[str]] = {}
        for language, n in sorted(self.languages[rules.name].items()):
            if rule.is_for(language):
                own = n >= self.config.min_documents
                groups.setdefault(language if own else OTHER, []).append(language)
                groups.setdefault(_EVERYTHING, []).append(language)
        return groups

    def _rank(self, rules: RuleSet, groups: dict[str, list[str]]) -> None:
        """Table `ranked`: for each group and value, how many documents have it (n) and how many at most it (upto)."""
        members = [(language, group) for group, languages in groups.items() for language in languages]
        self.connection.execute(
            """CREATE OR REPLACE TEMP TABLE ranked AS
               WITH member AS (SELECT unnest(?::VARCHAR[]) AS language, unnest(?::VARCHAR[]) AS grp),
                    merged AS (SELECT grp, v, CAST(sum(n) AS BIGINT) AS n FROM counted JOIN member USING (language)
                               WHERE rule_set = ? GROUP BY ALL)
               SELECT grp, v, n, CAST(sum(n) OVER (PARTITION BY grp ORDER BY v) AS BIGINT) AS upto,
                      CAST(sum(n) OVER (PARTITION BY grp) AS BIGINT) AS total FROM merged""",
            [[language for language, _ in members], [group for _, group in members], rules.name],
        )

    def _shapes(self, metric: str) -> tuple[dict[str, _Shape], Scale]:
        """The distribution in each group, and the scale of its mean and deviation."""
        [(low, high)] = self._rows("SELECT min(v), max(v) FROM ranked")
        scale: Scale = "linear" if low is None else scale_of(metric, low, high)
        rows = self._rows(
            f"""WITH scaled AS (SELECT *, CAST(round({_TO_SCALE[scale]} * {_UNIT}) AS HUGEINT) AS x FROM ranked)
                SELECT grp, any_value(total), min(v), max(v), max(n), first(v ORDER BY n DESC, v),
                       CAST(sum(x * n) AS VARCHAR), CAST(sum(x * x * n) AS VARCHAR) FROM scaled GROUP BY grp"""
        )
        shapes = {}
        for group, total, low, high, most, mode, first, second in rows:
            one, two = int(first), int(second)
            mean, variance = Fraction(one, total * _UNIT), Fraction(total * two - one * one, (total * _UNIT) ** 2)
            shapes[group] = _Shape(total, low, high, most, mode, float(mean), math.sqrt(variance))
        return shapes, scale

    # One rule -------------------------------------------------------------------------------------------------

    def _rule(
        self, rules: RuleSet, rule: Rule, references: dict[tuple[str, str], _Reference | str]
    ) -> dict[str, Proposal]:
        """The proposal for each group of documents that the rule is asked about."""
        groups = self._groups(rules, rule)
        if not groups:
            return {}
        self._rank(rules, groups)
        shapes, scale = self._shapes(rule.metric)
        kept = {group: self._why_kept(rule, shapes.get(group)) for group in groups}
        chosen: dict[str, tuple[float, str]] = {}
        open_groups = {group: shapes[group] for group, why in kept.items() if not why}
        if self.config.method == "sigma":
            for group, shape in open_groups.items():
                place, told = self._sigma(rule, shape)
                if place <= _START[scale] or place >= _END[scale]:
                    kept[group] = f"{told} is beyond the end of the {scale} scale"
                else:
                    chosen[group] = from_scale(place, scale), f"{told} on the {scale} scale"
        else:
            wanted: dict[str, tuple[Fraction, str]] = {}
            for group in open_groups:
                share = self._share(rules, rule, group, references)
                if isinstance(share, str):
                    kept[group] = share
                else:
                    wanted[group] = share
            chosen = self._at_most(rule, {group: shapes[group] for group in wanted}, wanted)
            for group in wanted.keys() - chosen.keys():
                kept[group] = f"the outermost value alone is held by more than {wanted[group][1]}"
        whole = rule.metric in _WHOLE
        thresholds = {
            group: tidy(chosen[group][0], rule.op, whole) if group in chosen else float(rule.threshold)
            for group in groups
        }
        cut = self._cut(rule.op, thresholds)
        before = self._cut(rule.op, dict.fromkeys(groups, float(rule.threshold)))
        result = {}
        for group in groups:
            total = shapes[group].total if group in shapes else 0
            result[group] = Proposal(
                name=f"{rules.name}/{rule.name}",
                metric=rule.metric,
                op=rule.op,
                threshold=thresholds[group],
                published=float(rule.threshold),
                method=self.config.method if group in chosen else "published",
                documents=total,
                cut_share=round(cut.get(group, 0) / max(total, 1), 6),
                published_cut_share=round(before.get(group, 0) / max(total, 1), 6),
                source=chosen[group][1] if group in chosen else f"{rule.source}; {kept[group]}",
            )
        return result

    def _why_kept(self, rule: Rule, shape: _Shape | None) -> str:
        """Why the published threshold stays, whatever the method; empty where it may go."""
        if shape is None:
            return "no document has the metric"
        if rule.op not in _AT_MOST:
            return f"{rule.op} is a flag, not a bound"
        if shape.total < self.config.min_documents:
            return f"{shape.total} documents have the metric, fewer than {self.config.min_documents}"
        if shape.low == shape.high:
            return f"all {shape.total} documents have the value {shape.low:g}"
        if Fraction(shape.most, shape.total) >= Fraction(repr(self.config.spike)):
            return f"{shape.most} of {shape.total} documents have the value {shape.mode:g}"
        return ""

    def _sigma(self, rule: Rule, shape: _Shape) -> tuple[float, str]:
        """The place on the scale, k deviations from the mean on the side that the rule bounds, and how it came."""
        k = self.config.sigmas if rule.op in _UPPER else -self.config.sigmas
        told = f"mean {shape.mean:.6g} {'+' if k > 0 else '-'} {abs(k):g} x {shape.deviation:.6g}"
        return shape.mean + k * shape.deviation, told

    def _share(
        self, rules: RuleSet, rule: Rule, group: str, references: dict[tuple[str, str], _Reference | str]
    ) -> tuple[Fraction, str] | str:
        """The share that the rule may cut and what to say of it, or why the published threshold stays."""
        config = self.config
        if config.method == "quantile":
            sides = {other.op in _UPPER for other in rules.rules if other.metric == rule.metric and other.op != "=="}
            share = Fraction(repr(config.cut)) / len(sides)
            return share, f"{float(share):g} of the documents"
        reference = references[rules.name, rule.name]
        if isinstance(reference, str):
            return reference
        if reference.rule_set == rules.name and config.reference in self._groups(rules, rule)[group]:
            return f"{config.reference} is the reference"
        share = Fraction(reference.cut, reference.total)
        return share, (
            f"{float(share):.6g} of the documents, as {reference.rule_set}/{reference.rule} cuts of"
            f" {reference.total} in {config.reference}"
        )

    def _at_most(
        self, rule: Rule, shapes: dict[str, _Shape], wanted: dict[str, tuple[Fraction, str]]
    ) -> dict[str, tuple[float, str]]:
        """The tightest threshold in each group that cuts at most the wanted share; none where it would cut nothing."""
        if not wanted:
            return {}
        need = {group: shape.total - math.floor(wanted[group][0] * shape.total) for group, shape in shapes.items()}
        rows = self._rows(
            f"""WITH limits AS (SELECT unnest(?::VARCHAR[]) AS grp, unnest(?::BIGINT[]) AS need)
                SELECT grp, {_AT_MOST[rule.op]} FROM ranked JOIN limits USING (grp) GROUP BY grp""",
            list(need),
            list(need.values()),
        )
        nothing = {"<=": "high", ">=": "low"}.get(rule.op, "")
        return {
            group: (v, f"cuts at most {wanted[group][1]}")
            for group, v in rows
            if v is not None and v != getattr(shapes[group], nothing, None)
        }

    def _cut(self, op: str, thresholds: dict[str, float]) -> dict[str, int]:
        """How many documents of each group fail at its threshold."""
        sql = f"""WITH limits AS (SELECT unnest(?::VARCHAR[]) AS grp, unnest(?::DOUBLE[]) AS t)
                  SELECT grp, CAST(coalesce(sum(n) FILTER ({fails_sql(op, "v", "t")}), 0) AS BIGINT)
                  FROM ranked JOIN limits USING (grp) GROUP BY grp"""
        return dict(self._rows(sql, list(thresholds), list(thresholds.values())))

    # The reference language -----------------------------------------------------------------------------------

    def _references(self) -> dict[tuple[str, str], _Reference | str]:
        """For each rule, what the rule of its name cuts of the reference language, or why that says nothing."""
        language = self.config.reference
        chosen = [choose(self.config.rule_sets, kind, language) for kind in KINDS]
        held = {rules.name: rules for rules in chosen}
        usual = choose(self.config.rule_sets, "", language)
        shares = {name: self._shares_cut(rules, language) for name, rules in held.items()}
        found: dict[tuple[str, str], _Reference | str] = {}
        for rules in self.sets:
            there = held.get(rules.name, usual)
            by_name = {rule.name: rule for rule in there.rules if rule.is_for(language)}
            for rule in rules.rules:
                twin = by_name.get(rule.name)
                if twin is None or twin.op != rule.op:
                    found[rules.name, rule.name] = f"{there.name} has no such rule for {language}"
                    continue
                total, cut = shares[there.name][twin.name]
                if total < self.config.min_documents:
                    why = f"{total} documents in {language}, fewer than {self.config.min_documents}"
                    found[rules.name, rule.name] = why
                elif cut in (0, total):
                    share = "none" if cut == 0 else "all"
                    found[rules.name, rule.name] = f"{there.name}/{twin} cuts {share} of {total} in {language}"
                else:
                    found[rules.name, rule.name] = _Reference(twin, there.name, total, cut)
        return found

    def _shares_cut(self, rules: RuleSet, language: str) -> dict[str, tuple[int, int]]:
        """(documents with the metric, documents that fail) in a language, by rule, in one pass."""
        if not rules.rules:
            return {}
        columns = ", ".join(
            f"count({metric}), count(*) FILTER ({fails_sql(rule.op, metric, repr(float(rule.threshold)))})"
            for rule, metric in ((rule, sql_of(rule.metric)) for rule in rules.rules)
        )
        sql = f"SELECT {columns} FROM {self.rows_of} WHERE rule_set = ? AND language = ?"
        [row] = self._rows(sql, rules.name, language)
        return {rule.name: (row[2 * k], row[2 * k + 1]) for k, rule in enumerate(rules.rules)}


# For people and for curation --------------------------------------------------------------------------------------


def table(proposals: Proposals) -> Iterator[dict[str, Any]]:
    """A row for each rule and language, for reports."""
    for language, rules in proposals.rules.items():
        for rule in rules:
            yield {
                "rule": rule.name,
                "language": language,
                "keeps": f"{rule.metric} {rule.op}",
                "documents": rule.documents,
                "published": rule.published,
                "proposed": rule.threshold,
                "share cut": rule.cut_share,
                "share cut by published": rule.published_cut_share,
                "method": rule.method,
                "why": rule.source,
            }


def rules_yaml(proposals: Proposals, config: ThresholdsConfig) -> str:
    """The text of `rules.yaml`: what `curate.rules` reads, and under `thresholds` what `curate.thresholds` may hold."""

    def dump(data: Any, flow: bool | None) -> str:
        return yaml.safe_dump(data, sort_keys=False, allow_unicode=True, default_flow_style=flow, width=100_000)

    settings = config.model_dump(mode="json", exclude={"rules", "extra_rules"})
    entries = {language: [rule._asdict() for rule in rules] for language, rules in proposals.rules.items()}
    return (
        "# Thresholds from the corpus itself. Under `curate`, `rules: PATH` takes those by language (`rules` below),\n"
        "# and `thresholds` can hold those for all languages of a rule set together (`thresholds` below).\n"
        + dump({**settings, "documents": proposals.documents}, False)
        + dump({"pooled": proposals.pooled}, None)
        + dump({"rules": entries}, None)
        + dump({"thresholds": proposals.thresholds}, False)
    )
