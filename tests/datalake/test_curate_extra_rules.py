"""Rules of the recipe's own: over any metric, behind the preset's, and known to all who ask about rules."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import world
from pydantic import ValidationError

from datalake.curate.config import CurateConfig
from datalake.curate.curate import curate_batch
from datalake.curate.histograms import histograms
from datalake.curate.judge import explain, rules_in_use
from datalake.curate.propose import propose, rules_yaml
from datalake.curate.thresholds import ThresholdsConfig
from datalake.curate.what_if import NeedsRerunError, ask, columns_needed
from datalake.document import RAW, Document, document_id, to_table
from datalake.identity import fingerprint

LONG = {"name": "long_enough", "metric": "words", "op": ">=", "threshold": 150, "source": "read by hand"}
FEW_LINES = {"name": "few_lines", "metric": "lines", "op": "<", "threshold": 4, "languages": ["en"]}


def config(*rules: dict[str, Any], **more: Any) -> CurateConfig:
    return CurateConfig.model_validate({"preset": "gopher", "extra_rules": rules, **more})


@pytest.fixture(scope="module")
def raw() -> pa.Table:
    """Prose of 1 to 30 sentences, in English and said to be French."""
    made = []
    for n in range(60):
        text, language = world.prose(n, 1 + n // 2), ("en", "fr")[n % 2]
        made.append(Document(document_id("s", "web", text), text, "web", f"u{n}", language, 0.9, attributes={}))
    return to_table(made, RAW)


def test_a_document_that_fails_one_is_rejected_by_its_name_behind_the_presets(raw: pa.Table) -> None:
    before, _ = curate_batch(raw, config())
    after, kept = curate_batch(raw, config(LONG, FEW_LINES))
    alone = 0
    for old, new in zip(before.to_pylist(), after.to_pylist(), strict=True):
        own = ["long_enough"] * (new["words"] < 150)
        own += ["few_lines"] * (new["lines"] >= 4 and new["language"] == "en")
        assert new["rules"] == old["rules"] + own
        assert new["rule"] == (old["rule"] or (own[0] if own else None))
        alone += bool(own and not old["rules"])
    assert 0 < alone < raw.num_rows
    assert kept.num_rows == after["verdict"].to_pylist().count("kept") > 0


@pytest.mark.parametrize("op", ["<", "<=", ">", ">=", "=="])
def test_every_operator_says_what_is_kept(raw: pa.Table, op: str) -> None:
    measured, _ = curate_batch(raw, config(preset="none"))
    middle = sorted(measured["words"].to_pylist())[30]
    rule = {"name": "asked", "metric": "words", "op": op, "threshold": middle}
    curation, _ = curate_batch(raw, config(rule, preset="none"))
    compare = {"<": int.__lt__, "<=": int.__le__, ">": int.__gt__, ">=": int.__ge__, "==": int.__eq__}[op]
    words, verdicts = curation["words"].to_pylist(), curation["verdict"].to_pylist()
    assert verdicts == ["kept" if compare(n, middle) else "rejected" for n in words]


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ((), (LONG,)),
        ((LONG,), ()),
        ((LONG,), (LONG | {"threshold": 20},)),
        ((LONG, FEW_LINES), (LONG, FEW_LINES | {"op": ">=", "languages": ["fr"]})),
        ((LONG,), (FEW_LINES, LONG)),
        ((FEW_LINES,), (FEW_LINES | {"metric": "words"},)),
    ],
)
def test_what_if_answers_as_a_rerun_from_the_columns_it_asks_for(
    raw: pa.Table, before: tuple[dict[str, Any], ...], after: tuple[dict[str, Any], ...]
) -> None:
    base, changed = config(*before), config(*after)
    curation, _ = curate_batch(raw, base)
    few = curation.select(columns_needed(base, changed, groups=[("web", "en"), ("web", "fr")]))
    _, answer = ask(few, base, changed)
    again, _ = curate_batch(raw, changed)
    assert answer.columns().to_pylist() == again.select(answer.columns().column_names).to_pylist()
    assert again["rules"].to_pylist() != curation["rules"].to_pylist()


def test_a_metric_that_was_not_stored_needs_a_rerun(raw: pa.Table) -> None:
    curation, _ = curate_batch(raw, config(preset="none"))
    with pytest.raises(NeedsRerunError, match="no metric words: run the recipe again"):
        ask(curation.drop(["words"]), config(preset="none"), config(LONG, preset="none"))


def test_one_of_a_models_scores_is_asked_where_there_is_one(raw: pa.Table) -> None:
    rule = {"name": "good", "metric": "quality", "op": ">=", "threshold": 0.5}
    curation, _ = curate_batch(raw, config(rule, preset="none"))
    assert set(curation["verdict"].to_pylist()) == {"kept"}, "missing: it does not apply"


def test_it_is_explained_and_drawn_with_its_source(raw: pa.Table) -> None:
    used = config(LONG)
    curation, _ = curate_batch(raw, used)
    [told] = [rule for rule in explain(curation.slice(0, 1).to_pylist()[0], used) if rule["rule"] == "long_enough"]
    assert told["source"] == "read by hand"
    assert (told["value"] < told["threshold"]) == (told["outcome"] == "failed")
    connection = duckdb.connect()
    connection.register("curation", curation)
    words = [one for one in histograms(connection, "curation", used) if one.metric == "words"]
    assert all("long_enough" in [rule.name for rule in one.rules] for one in words)
    assert words


def test_thresholds_are_proposed_for_it_and_can_be_used(raw: pa.Table, tmp_path: Path) -> None:
    used = config(LONG)
    curation, _ = curate_batch(raw, used)
    pq.write_table(curation, tmp_path / "0.parquet")
    asked = ThresholdsConfig(
        preset="gopher", extra_rules=used.extra_rules, method="quantile", cut=0.2, min_documents=10
    )
    found = propose([str(tmp_path / "0.parquet")], asked)
    [english] = [one for one in found.rules["en"] if one.name == "gopher/long_enough"]
    assert (english.method, english.published, english.cut_share) == ("quantile", 150, 0.1), (
        "half of the share on each side: words are bounded from above, too"
    )
    path = tmp_path / "rules.yaml"
    path.write_text(rules_yaml(found, asked))
    again, _ = curate_batch(raw, config(LONG, rules=str(path)))
    failed = ["long_enough" in row["rules"] for row in again.to_pylist() if row["language"] == "en"]
    assert sum(failed) == 0.1 * len(failed)
    number = config(LONG, thresholds={"long_enough": 7})
    assert [rule.threshold for _, rule in rules_in_use(number) if rule.name == "long_enough"] == [7]


def test_a_rule_is_part_of_identity_and_where_its_number_is_from_is_not() -> None:
    one, other = config(LONG), config(LONG | {"threshold": 151})
    assert len({fingerprint(c) for c in (one, other, config())}) == 3
    assert fingerprint(config(LONG | {"source": "elsewhere"})) == fingerprint(one)


@pytest.mark.parametrize(
    ("rules", "said"),
    [
        ([LONG | {"metric": "wrods"}], r"asks for 'wrods', which is no metric: is words"),
        ([LONG | {"metric": "shouting"}], r"asks for 'shouting', which is no metric"),
        ([LONG | {"metric": "classifier:edu"}], r"'classifier:edu', which is no metric"),
        ([LONG | {"op": "=>"}], r"should be '<', '<=', '>', '>=' or '=='"),
        ([LONG | {"threshold": float("nan")}], "finite"),
        ([LONG | {"threshold": float("inf")}], "finite"),
        ([LONG, FEW_LINES | {"name": "long_enough"}], r"two rules are called 'long_enough': give them different names"),
        ([LONG | {"name": "min_words"}], r"there is a rule 'min_words' already: give this one another name"),
        ([LONG | {"name": "language"}], r"there is a rule 'language' already"),
        ([LONG | {"name": "too short"}], r"without spaces"),
        ([LONG | {"languages": ["english"]}], r"is no code of a language"),
        ([LONG | {"kind": "web"}], r"[Ee]xtra"),
        ([{"name": "a", "metric": "words"}], r"extra_rules.0.op"),
    ],
)
def test_a_rule_that_means_nothing_is_refused_with_what_to_do(rules: list[dict[str, Any]], said: str) -> None:
    with pytest.raises(ValidationError, match=said) as caught:
        config(*rules)
    assert "\n" not in str(caught.value.errors()[0]["msg"])
