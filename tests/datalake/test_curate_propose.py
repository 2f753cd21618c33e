"""Thresholds from the corpus: every proposal against a slow plain calculation, and the published one where none is."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from plain_rules import failed_rules

from datalake.curate.config import CurateConfig
from datalake.curate.curate import curate_batch
from datalake.curate.metrics.catalog import METRICS
from datalake.curate.propose import Proposal, Proposals, from_scale, propose, rules_yaml, scale_of, table, tidy
from datalake.curate.rules import Rule
from datalake.curate.rules_file import PRESETS, RulesFile, choose, parse_rules, read_rules, rule_sets, thresholds_for
from datalake.curate.schema import CURATION
from datalake.curate.thresholds import ThresholdsConfig
from datalake.document import Document, document_id
from datalake.errors import UserError
from datalake.files import file_digest
from datalake.identity import fingerprint
from datalake.tables import RAW, to_table

Rows = Sequence[dict[str, Any]]


def row(n: int, language: str = "en", rule_set: str = "gopher", **metrics: float | None) -> dict[str, Any]:
    return {"id": n.to_bytes(16, "big"), "language": language, "rule_set": rule_set, **metrics}


def curation(path: Path, rows: Rows, files: int = 1) -> list[str]:
    """Files of schema CURATION; what a row doesn't say is missing."""
    paths = []
    for k in range(files):
        full = [dict.fromkeys(CURATION.names) | one for one in rows[k::files]]
        paths.append(str(path / f"{k}.parquet"))
        pq.write_table(pa.Table.from_pylist(full, CURATION), paths[-1])
    return paths


def asked(**values: Any) -> ThresholdsConfig:
    return ThresholdsConfig(**{"preset": "gopher", "min_documents": 5, **values})


def by_name(proposals: Proposals, language: str = "en") -> dict[str, Proposal]:
    return {one.name.split("/")[1]: one for one in proposals.rules[language]}


def words(tmp_path: Path, values: Sequence[int | None], **config: Any) -> dict[str, Proposal]:
    """Proposals for English documents with these numbers of words."""
    files = curation(tmp_path, [row(n, words=value) for n, value in enumerate(values)])
    return by_name(propose(files, asked(**config)))


def share(tmp_path: Path, values: Sequence[float | None], **config: Any) -> Proposal:
    """The proposal for `bullet_lines <=`, whose values these are."""
    files = curation(tmp_path, [row(n, bullet_lines=value) for n, value in enumerate(values)])
    return by_name(propose(files, asked(**config)))["max_bullet_lines"]


# By hand -------------------------------------------------------------------------------------------------------------


def test_sigma_on_counts_is_of_their_logarithms(tmp_path: Path) -> None:
    # log(1 + x) of 9, 99, 999 is 1, 2, 3 times log(10): mean 2, deviation sqrt(2/3).
    found = words(tmp_path, [9, 99, 999], sigmas=1, min_documents=2)
    deviation = math.sqrt(2 / 3)
    assert found["max_words"].threshold == math.floor(10 ** (2 + deviation) - 1) == 654
    assert found["min_words"].threshold == math.ceil(10 ** (2 - deviation) - 1) == 15
    assert found["max_words"].method == found["min_words"].method == "sigma"
    assert (found["max_words"].cut_share, found["min_words"].cut_share) == (0.333333, 0.333333)
    assert found["min_words"].published == 50
    assert found["min_words"].published_cut_share == 0.333333
    assert found["min_words"].documents == 3
    assert "mean 4.60517 - 1 x 1.88005 on the log scale" in found["min_words"].source


def test_scales_are_by_what_a_metric_is() -> None:
    logarithmic = ("words", "chars", "mean_word_length", "mean_line", "alpha_per_token")
    assert {scale_of(metric, 0, 1) for metric in logarithmic} == {"log"}
    rates = ("hash_ratio", "ellipsis_ratio", "newline_ratio", "fw_newline_ratio")
    assert {scale_of(metric, 0, high) for metric in rates for high in (0.4, 3)} == {"root"}
    assert [scale_of("perplexity", low, high) for low, high in ((0, 1), (0, 1.5), (-1, 1))] == [
        "arcsine",
        "log",
        "linear",
    ]


def test_sigma_of_a_strict_bound_from_above_lies_above_the_mean(tmp_path: Path) -> None:
    files = curation(tmp_path, [row(n, "en", "ccnet", perplexity=value) for n, value in enumerate([9, 99, 999])])
    found = by_name(propose(files, asked(preset="ccnet", sigmas=1, min_documents=2)))["max_perplexity_en"]
    assert (found.op, found.method) == ("<", "sigma")
    assert found.threshold == pytest.approx(10 ** (2 + math.sqrt(2 / 3)) - 1, abs=1e-4)
    assert found.cut_share == 0.333333


def test_sigma_on_shares_is_of_the_arcsine_of_their_roots(tmp_path: Path) -> None:
    # asin(sqrt(x)) of 0, 1/4, 1/2 is 0, pi/6, pi/4: mean 5 pi/36, deviation pi sqrt(14)/36.
    found = share(tmp_path, [0, 0.25, 0.5], sigmas=1, min_documents=2)
    by_hand = math.sin(5 * math.pi / 36 + math.pi * math.sqrt(14) / 36) ** 2
    assert found.threshold == pytest.approx(by_hand, abs=1e-6)
    assert found.threshold >= by_hand
    assert found.cut_share == 0.333333


def test_a_deviation_too_many_leads_beyond_the_scale_and_what_is_published_stays(tmp_path: Path) -> None:
    above = share(tmp_path, [0, 0.25, 0.5], sigmas=3.5, min_documents=2)  # 0.436 + 3.5 x 0.327 is above pi / 2
    assert (above.method, above.threshold) == ("published", 0.9)
    assert above.source == "Gopher A.1.1; mean 0.436332 + 3.5 x 0.326521 is beyond the end of the arcsine scale"
    found = words(tmp_path, [9, 99, 999], sigmas=2.5, min_documents=2)  # 2 - 2.5 sqrt(2/3) is below 0
    assert (found["min_words"].method, found["min_words"].threshold) == ("published", 50)
    assert found["max_words"].method == "sigma"


def test_a_quantile_cuts_at_most_the_share_and_half_of_it_on_each_side(tmp_path: Path) -> None:
    found = words(tmp_path, range(100, 200), cut=0.1, method="quantile")
    assert (found["min_words"].threshold, found["max_words"].threshold) == (105, 194)
    assert (found["min_words"].cut_share, found["max_words"].cut_share) == (0.05, 0.05)
    one_sided = share(tmp_path, [n / 100 for n in range(100)], cut=0.1, method="quantile")
    assert (one_sided.threshold, one_sided.cut_share) == (0.89, 0.1)


def test_where_many_share_a_value_a_quantile_cuts_fewer(tmp_path: Path) -> None:
    found = share(tmp_path, [0.1] * 7 + [0.5] * 2 + [0.6], cut=0.2, method="quantile")
    assert (found.threshold, found.cut_share) == (0.5, 0.1)
    found = share(tmp_path, [0.1] * 7 + [0.5] * 2 + [0.6], cut=0.3, method="quantile")
    assert (found.threshold, found.cut_share) == (0.1, 0.3)


def test_where_the_outermost_value_is_too_much_what_is_published_stays(tmp_path: Path) -> None:
    found = share(tmp_path, [0.1] * 8 + [0.5] * 2, cut=0.1, method="quantile")
    assert (found.method, found.threshold) == ("published", 0.9)
    assert "outermost value alone is held by more than 0.1 of the documents" in found.source
    low = words(tmp_path, [0] * 4 + list(range(20, 36)), cut=0.2, method="quantile")
    assert (low["min_words"].method, low["min_words"].threshold) == ("published", 50)
    assert low["max_words"].threshold == 33


def test_a_reference_carries_the_share_over_and_not_the_number(tmp_path: Path) -> None:
    # Of 20 English documents Gopher's 50 words cut 5, a quarter; of 8 in Icelandic then at most 2.
    english = [row(n, words=46 + n - 1) for n in range(20)]
    icelandic = [row(100 + n, "is", words=10 * (n + 1)) for n in range(8)]
    files = curation(tmp_path, [*english, *icelandic])
    proposals = propose(files, asked(method="reference"))
    found = by_name(proposals, "is")["min_words"]
    assert (found.threshold, found.cut_share, found.method) == (30, 0.25, "reference")
    assert found.published_cut_share == 0.5
    assert "0.25 of the documents, as gopher/min_words: words >= 50 cuts of 20 in en" in found.source
    own = by_name(proposals)["min_words"]
    assert (own.threshold, own.method) == (50, "published")
    assert "en is the reference" in own.source
    above = by_name(proposals, "is")["max_words"]
    assert above.method == "published"
    assert "cuts none of 20 in en" in above.source
    assert proposals.thresholds == {}


def test_a_set_of_its_own_is_compared_with_that_of_the_reference_language(tmp_path: Path) -> None:
    # In English 0.7 is asked of alpha_words, in Chinese 0.45: the share cut is what they share.
    english = [row(n, "en", "english", alpha_words=0.52 + n / 10) for n in range(10)]
    chinese = [row(50 + n, "zh", "chinese", alpha_words=0.5 + n / 100) for n in range(10)]
    wiki = [row(90 + n, "zh", "wiki", words=n) for n in range(10)]
    files = curation(tmp_path, [*english, *chinese, *wiki])
    proposals = propose(files, asked(method="reference", preset="auto"))
    found = {one.name: one for one in proposals.rules["zh"]}
    assert found["chinese/min_alpha_words"].threshold == 0.52
    assert found["chinese/min_alpha_words"].cut_share == 0.2
    assert "english/min_alpha_words" in found["chinese/min_alpha_words"].source
    assert "0 documents in en" in found["wiki/min_words"].source  # English articles have the same set: none here
    assert proposals.thresholds == {"chinese/min_alpha_words": 0.52}


# Degenerate ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["sigma", "quantile", "reference"])
@pytest.mark.parametrize(
    ("values", "why"),
    [
        ([0.0] * 20, "all 20 documents have the value 0"),
        ([0.25] * 20, "all 20 documents have the value 0.25"),
        ([0.0] * 18 + [0.2, 0.95], "18 of 20 documents have the value 0"),
        ([None] * 20, "no document has the metric"),
        ([None] * 16 + [0.1, 0.2, 0.3, 0.95], "4 documents have the metric, fewer than 5"),
    ],
)
def test_a_degenerate_metric_keeps_its_published_threshold(
    tmp_path: Path, values: list[float | None], why: str, method: str
) -> None:
    found = share(tmp_path, values, method=method)
    assert (found.threshold, found.published, found.method) == (0.9, 0.9, "published")
    assert found.source == f"Gopher A.1.1; {why}"
    assert found.documents == sum(value is not None for value in values)


def test_a_flag_is_no_bound(tmp_path: Path) -> None:
    rows = [row(n, "en", "english", fw_lorem_ipsum=n % 2) for n in range(20)]
    found = by_name(propose(curation(tmp_path, rows), asked(preset="auto")))["lorem_ipsum"]
    assert (found.method, found.threshold, found.cut_share) == ("published", 0, 0.5)
    assert "flag" in found.source


def test_few_documents_in_a_language_are_pooled_and_that_is_said(tmp_path: Path) -> None:
    rows = [row(n, "en", words=100 + n) for n in range(10)]
    rows += [row(100 + n, "fr", words=10 + n) for n in range(4)] + [row(200 + n, "de", words=20 + n) for n in range(3)]
    proposals = propose(curation(tmp_path, rows), asked(method="quantile", cut=0.3))
    assert set(proposals.rules) == {"en", "other"}
    assert proposals.pooled == {"gopher": {"de": 3, "fr": 4}}
    pooled = by_name(proposals, "other")["min_words"]
    assert (pooled.documents, pooled.threshold) == (7, 11)
    # What Gopher asks of English alone has no other language to be asked of.
    assert "min_alpha_words" not in by_name(proposals, "other")
    assert "min_alpha_words" in by_name(proposals)
    # All 17 together: at most 2 below.
    assert proposals.thresholds["gopher/min_words"] == 12


def test_a_pool_that_is_too_small_keeps_what_is_published(tmp_path: Path) -> None:
    proposals = propose(curation(tmp_path, [row(n, "fr", words=n) for n in range(4)]), asked())
    assert by_name(proposals, "other")["min_words"].method == "published"
    assert proposals.thresholds == {}


def test_no_documents_give_no_rules(tmp_path: Path) -> None:
    assert propose([], asked()) == (0, {}, {}, {})
    assert propose(curation(tmp_path, []), asked()) == (0, {}, {}, {})
    assert parse_rules(rules_yaml(propose([], asked()), asked()), "r") == RulesFile((), {})


def test_a_preset_without_rules_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="has no rules: choose another"):
        propose(curation(tmp_path, [row(1)]), asked(preset="none"))


# Against a plain implementation --------------------------------------------------------------------------------------

OPERATORS = {"<=": lambda v, t: v <= t, "<": lambda v, t: v < t, ">=": lambda v, t: v >= t, ">": lambda v, t: v > t}


def plain_quantile(values: list[float], op: str, budget: int) -> float | None:
    """The tightest of the values that fails at most `budget` of them, by trying each."""
    fitting = [t for t in values if sum(not OPERATORS[op](v, t) for v in values) <= budget]
    return (min(fitting) if op in ("<=", "<") else max(fitting)) if fitting else None


def plain_sigma(values: list[float], op: str, sigmas: float, metric: str, low: float, high: float) -> float | None:
    """Mean and deviations on the scale and back; None beyond its end."""
    scale = scale_of(metric, low, high)
    to = {
        "log": math.log1p,
        "root": math.sqrt,
        "arcsine": lambda v: math.asin(math.sqrt(min(v, 1))),
        "linear": lambda v: v,
    }[scale]
    x = [to(v) for v in values]
    mean = math.fsum(x) / len(x)
    deviation = math.sqrt(math.fsum((a - mean) ** 2 for a in x) / len(x))
    place = mean + (sigmas if op in ("<=", "<") else -sigmas) * deviation
    if (scale != "linear" and place <= 0) or (scale == "arcsine" and place >= math.pi / 2):
        return None
    return from_scale(place, scale)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[str], list[dict[str, Any]]]:
    """Made-up documents in three languages with every metric, some missing, ties and zeros among them."""
    rng = random.Random(11)
    rows = []
    for n in range(900):
        language = rng.choice(["en", "en", "zh", "fr", "th", "xx"] if n % 50 else ["sw"])
        source = rng.choice(["common_crawl", "common_crawl", "wikipedia", "code"])
        one = row(n, language, choose(rule_sets("auto"), source, language).name, source=source)
        for metric in METRICS:
            if rng.random() < 0.05:
                continue
            if metric.whole:
                one[metric.name] = int(rng.lognormvariate(4, 1))
            else:
                one[metric.name] = 0.0 if rng.random() < 0.3 else round(rng.betavariate(1, 5), rng.choice([1, 4, 9]))
        rows.append(one)
    return curation(tmp_path_factory.mktemp("corpus"), rows, files=3), rows


@pytest.mark.parametrize("method", ["sigma", "quantile"])
def test_every_proposal_is_that_of_a_plain_calculation(
    corpus: tuple[list[str], list[dict[str, Any]]], method: str
) -> None:
    files, rows = corpus
    config = asked(method=method, preset="auto", min_documents=40, sigmas=1.5, cut=0.07)
    proposals = propose(files, config)
    sets = {rules.name: rules for rules in rule_sets("auto")}
    checked = 0
    for language, found in proposals.rules.items():
        for one in found:
            set_name, rule_name = one.name.split("/")
            rules = sets[set_name].rules
            rule = next(rule for rule in rules if rule.name == rule_name)
            held = [
                r for r in rows if r["rule_set"] == set_name and (not rule.languages or r["language"] in rule.languages)
            ]
            sizes = {
                name: sum(r["rule_set"] == set_name and r["language"] == name for r in rows)
                for name in {r["language"] for r in rows}
            }
            small = {name for name, n in sizes.items() if n < 40}
            mine = [r for r in held if (r["language"] in small if language == "other" else r["language"] == language)]
            values = [float(r[rule.metric]) for r in mine if r.get(rule.metric) is not None]
            assert one.documents == len(values)
            assert one.published == rule.threshold
            everything = [float(r[rule.metric]) for r in held if r.get(rule.metric) is not None]
            spike = max((values.count(v) for v in set(values)), default=0)
            if rule.op == "==" or len(values) < 40 or spike >= 0.9 * len(values):
                exact = None
            elif method == "sigma":
                exact = plain_sigma(values, rule.op, 1.5, rule.metric, min(everything), max(everything))
            else:
                sides = len({o.op in ("<=", "<") for o in rules if o.metric == rule.metric and o.op != "=="})
                budget = int(len(values) * (7 if sides == 1 else 3.5) / 100 + 1e-9)
                exact = plain_quantile(values, rule.op, budget)
                if exact is not None and all(OPERATORS[rule.op](v, exact) for v in values):
                    exact = None
            assert (one.method == "published") == (exact is None)
            if exact is None:
                assert one.threshold == rule.threshold
                continue
            whole = next(m.whole for m in METRICS if m.name == rule.metric)
            assert abs(one.threshold - exact) <= (1 if whole else 2e-6)
            failed = sum(not OPERATORS[rule.op](v, one.threshold) for v in values)
            assert failed <= sum(not OPERATORS[rule.op](v, exact) for v in values) or whole
            assert one.cut_share == round(failed / len(values), 6)
            checked += 1
    assert checked > 60


@given(
    st.lists(st.integers(-3, 40).map(lambda n: n / 8), min_size=2, max_size=30),
    st.sampled_from(["<=", "<", ">=", ">"]),
    st.integers(1, 12),
)
@settings(max_examples=60)
def test_a_quantile_is_the_tightest_threshold_for_every_operator(values: list[float], op: str, tenths: int) -> None:
    import duckdb

    from datalake.curate.propose import _AT_MOST

    budget = len(values) * tenths // 25
    with duckdb.connect() as connection:
        connection.execute(
            """CREATE TABLE t AS SELECT v, n, sum(n) OVER (ORDER BY v) AS upto, sum(n) OVER () AS total,
               sum(n) OVER () - ? AS need FROM (SELECT v, count(*) AS n FROM (SELECT unnest(?) AS v) GROUP BY v)""",
            [budget, values],
        )
        [(found,)] = connection.execute(f"SELECT {_AT_MOST[op]} FROM t").fetchall()
    assert found == plain_quantile(values, op, budget)


@pytest.mark.parametrize("method", ["sigma", "quantile", "reference"])
def test_the_same_documents_give_the_same_bytes_however_they_lie(
    corpus: tuple[list[str], list[dict[str, Any]]], tmp_path: Path, method: str
) -> None:
    files, rows = corpus
    config = asked(method=method, preset="auto", min_documents=40)
    text = rules_yaml(propose(files, config), config)
    shuffled = random.Random(5).sample(rows, len(rows))
    again = rules_yaml(propose(curation(tmp_path, shuffled, files=5)[::-1], config, threads=3), config)
    assert again == text


def test_threads_and_a_memory_limit_change_nothing(
    corpus: tuple[list[str], list[dict[str, Any]]], tmp_path: Path
) -> None:
    config = asked(preset="auto", min_documents=40)
    limited = propose(corpus[0], config, threads=2, memory_gb=0.01, spill=tmp_path)
    assert limited == propose(corpus[0], config)


# Numbers -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "op", "whole", "tidied"),
    [
        (0.1234561, "<=", False, 0.123457),
        (0.1234561, "<", False, 0.123457),
        (0.1234569, ">=", False, 0.123456),
        (0.1234569, ">", False, 0.123456),
        (0.3, "<=", False, 0.3),
        (0.29, ">=", False, 0.29),
        (3.00000000001, ">=", True, 3),
        (2.99999999999, "<=", True, 3),
        (36.3, ">=", True, 37),
        (36.3, ">", True, 36),
        (36.3, "<=", True, 36),
        (36.3, "<", True, 37),
    ],
)
def test_thresholds_are_rounded_towards_keeping_more(value: float, op: str, whole: bool, tidied: float) -> None:
    assert tidy(value, op, whole) == tidied


@pytest.mark.parametrize("op", ["<", "<=", ">", ">="])
@pytest.mark.parametrize("threshold", [0.4, 3.0, 7.7])
def test_of_whole_numbers_a_whole_threshold_decides_the_same(op: str, threshold: float) -> None:
    whole = tidy(threshold, op, True)
    for v in range(12):
        assert OPERATORS[op](v, whole) == OPERATORS[op](v, threshold)


# The rules file ------------------------------------------------------------------------------------------------------


def rules_file(path: Path, rules: dict[str, Any]) -> str:
    path.write_text(yaml.safe_dump({"rules": rules}))
    return str(path)


def documents(*languages: str) -> pa.Table:
    texts = [" ".join(f"word{k}" for k in range(20)) + "." for _ in languages]
    return to_table(
        [
            Document(
                id=document_id("table", str(n), text),
                text=text,
                source="table",
                uri=f"test:{n}",
                language=language,
                language_score=0.9,
                attributes={},
            )
            for n, (text, language) in enumerate(zip(texts, languages, strict=True))
        ],
        RAW,
    )


def failing(config: CurateConfig, *languages: str) -> list[bool]:
    return ["min_words" in rules for rules in curate_batch(documents(*languages), config)[0]["rules"].to_pylist()]


def test_a_rules_file_replaces_thresholds_language_by_language(tmp_path: Path) -> None:
    path = rules_file(
        tmp_path / "rules.yaml",
        {
            "en": [{"name": "gopher/min_words", "threshold": 5}],
            "fr": [{"name": "min_words", "threshold": 21}],
            "other": [{"name": "gopher/min_words", "threshold": 20}],
        },
    )
    assert failing(CurateConfig(preset="gopher"), "en", "fr", "de") == [True, True, True]
    config = CurateConfig(preset="gopher", rules=path)
    assert failing(config, "en", "de") == [False, False]
    assert thresholds_for(config.rules, "de") == {"gopher/min_words": 20}
    assert thresholds_for(config.rules, "en") == {"gopher/min_words": 5}
    # What the recipe itself says goes before the file.
    assert failing(CurateConfig(preset="gopher", rules=path, thresholds={"min_words": 30}), "en") == [True]


def test_a_file_counts_by_its_content_and_not_by_its_place(tmp_path: Path) -> None:
    entries = {"en": [{"name": "min_words", "threshold": 5}]}
    one, two = rules_file(tmp_path / "one.yaml", entries), rules_file(tmp_path / "two.yaml", entries)
    other = rules_file(tmp_path / "other.yaml", {"en": [{"name": "min_words", "threshold": 6}]})
    prints = [fingerprint(CurateConfig(rules=path)) for path in (one, two, other)]
    assert prints[0] == prints[1]
    assert len({*prints, fingerprint(CurateConfig())}) == 3
    assert CurateConfig(rules=one).rules.version == file_digest(one)


def test_a_file_that_changed_after_the_recipe_was_read_is_refused(tmp_path: Path) -> None:
    path = rules_file(tmp_path / "rules.yaml", {"en": [{"name": "min_words", "threshold": 5}]})
    config = CurateConfig(preset="gopher", rules=path)
    rules_file(tmp_path / "rules.yaml", {"en": [{"name": "min_words", "threshold": 500}]})
    from datalake.curate.judge import _rules_for

    _rules_for.cache_clear()
    read_rules.cache_clear()
    with pytest.raises(UserError, match="has changed since the recipe was read"):
        failing(config, "en")
    # It is still a recipe to be read, as a manifest keeps it.
    assert CurateConfig.model_validate(config.model_dump()) == config


def test_rules_for_norwegian_need_no_quotes() -> None:
    assert parse_rules("rules: {no: [{name: min_words, threshold: 5e1}]}", "r").thresholds == {
        "no": {"min_words": 50.0}
    }


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (None, "there is no file"),
        ("- 1", "is no rules file: it must have `sets`"),
        ("rules: {en: [", "is not YAML"),
        ("rules: {en: [{name: min_words}]}", "needs a `name` and a finite `threshold`"),
        ("rules: {en: [{threshold: 3}]}", "needs a `name` and a finite `threshold`"),
        ("rules: {en: [{name: min_words, threshold: .nan}]}", "finite"),
        ("rules: {en: 3}", "needs a `name`"),
        ("rules: {en: [], en: []}", "'en' is given twice"),
        (
            "rules: {en: [{name: min_wrods, threshold: 3}]}",
            r"curate.rules \(.*\): preset 'auto' has no rule 'min_wrods'",
        ),
    ],
)
def test_a_file_that_means_nothing_is_answered_in_one_line(tmp_path: Path, text: str | None, said: str) -> None:
    path = tmp_path / "rules.yaml"
    if text is not None:
        path.write_text(text)
    with pytest.raises(ValueError, match=said):
        CurateConfig(rules=str(path))


@pytest.mark.parametrize("method", ["sigma", "quantile", "reference"])
def test_what_is_proposed_can_be_used_and_cuts_what_it_says(
    corpus: tuple[list[str], list[dict[str, Any]]], tmp_path: Path, method: str
) -> None:
    files, rows = corpus
    config = asked(method=method, preset="auto", min_documents=40)
    proposals = propose(files, config)
    path = tmp_path / "rules.yaml"
    path.write_text(rules_yaml(proposals, config))
    used = CurateConfig(rules=str(path))
    flat = yaml.safe_load(path.read_text())["thresholds"]
    assert flat == proposals.thresholds
    assert CurateConfig(thresholds=flat).thresholds == flat
    from datalake.curate.judge import rules_for

    small = proposals.pooled
    for language in ("en", "zh", "other"):
        cut = {one.name: one for one in proposals.rules[language]}
        counts = dict.fromkeys(cut, 0)
        for one in rows:
            if language != ("other" if one["language"] in small.get(one["rule_set"], {}) else one["language"]):
                continue
            rules = rules_for(used, one["source"], one["language"])
            assert rules.name == one["rule_set"]
            for name in failed_rules({m.name: one.get(m.name) for m in METRICS}, rules.rules, one["language"]):
                counts[f"{rules.name}/{name}"] += 1
        for name, n in counts.items():
            assert cut[name].cut_share == round(n / max(cut[name].documents, 1), 6)


def test_a_row_of_the_table_says_all_of_a_proposal(corpus: tuple[list[str], list[dict[str, Any]]]) -> None:
    proposals = propose(corpus[0], asked(preset="auto", min_documents=40))
    rows = list(table(proposals))
    assert len(rows) == sum(map(len, proposals.rules.values()))
    assert {"rule", "language", "published", "proposed", "share cut"} <= rows[0].keys()


@pytest.mark.parametrize("preset", PRESETS)
def test_every_rule_of_every_preset_can_be_asked_about(preset: str) -> None:
    for rules in rule_sets(preset):
        for rule in rules.rules:
            assert isinstance(rule, Rule)
            assert rule.op in (*OPERATORS, "==")
            assert "/" not in rule.name
