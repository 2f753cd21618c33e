"""One judge: columns of metrics get the verdicts that a plain reading of each row by each rule gives."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from plain_rules import failed_rules

from datalake.curate.config import CurateConfig
from datalake.curate.judge import LANGUAGE, Judged, explain, judge, rules_for
from datalake.curate.rules import Rule, fails, fails_sql
from datalake.curate.rules_file import PRESETS, choose, compats
from datalake.curate.schema import CURATION

READINGS = [(preset, compat) for preset in PRESETS for compat in ("", *compats(preset))]
PAIRS = [(s, n) for s in ("web", "mine", "wikipedia", "pydoc") for n in ("en", "zh", "yue", "ja", "ko", "th", "und")]


def config(preset: str = "gopher", compat: str = "", **more: Any) -> CurateConfig:
    return CurateConfig.model_validate({"preset": preset, "compat": compat, "kinds": {"mine": "code"}, **more})


def rows_of(used: CurateConfig, draw: st.DrawFn) -> list[dict[str, Any]]:
    """Rows whose metrics lie at, beside or far from the thresholds on them, or are missing."""
    rows = []
    for source, language in draw(st.lists(st.sampled_from(PAIRS), max_size=30)):
        row: dict[str, Any] = dict.fromkeys(CURATION.names) | {"source": source, "language": language}
        for rule in choose(used.rule_sets, used.kinds.get(source, source), language).rules:
            near = st.sampled_from([rule.threshold, rule.threshold - 1, rule.threshold + 1, None])
            value = draw(near)
            whole = pa.types.is_integer(CURATION.field(rule.metric).type)
            row[rule.metric] = value if value is None or not whole else int(value)
        rows.append(row)
    return rows


@pytest.mark.parametrize(("preset", "compat"), READINGS)
@settings(max_examples=20)
@given(data=st.data())
def test_every_row_is_judged_as_by_hand(preset: str, compat: str, data: st.DataObject) -> None:
    kept = data.draw(st.sampled_from([None, ("en", "zh")]))
    used = config(preset, compat, languages=kept)
    rows = data.draw(st.composite(lambda draw: rows_of(used, draw))())
    found = judge(pa.Table.from_pylist(rows, CURATION), used).columns().to_pylist()
    for row, judged in zip(rows, found, strict=True):
        kind, language = used.kinds.get(row["source"], row["source"]), row["language"]
        rules = choose(used.rule_sets, kind, language)
        failed = failed_rules(row, rules.rules, language)
        if kept and language not in kept and kind != "code":
            failed = [LANGUAGE, *failed]
        verdict = "rejected" if failed else "kept"
        first = failed[0] if failed else None
        assert judged == {"rule_set": rules.name, "verdict": verdict, "rule": first, "rules": failed}


@given(
    st.sampled_from(["<", "<=", ">", ">=", "=="]),
    st.lists(st.one_of(st.none(), st.integers(-3, 3).map(float), st.floats(allow_nan=False)), max_size=8),
    st.integers(-2, 2),
)
def test_an_operator_means_the_same_of_numbers_arrays_and_in_sql(
    op: str, values: list[float | None], threshold: int
) -> None:
    import duckdb

    rule = Rule(name="r", metric="m", op=op, threshold=threshold)
    plain = [bool(failed_rules({"m": value}, [rule])) for value in values]
    assert fails(op, np.array(values, np.float64), threshold).tolist() == plain
    assert [value is not None and fails(op, value, threshold) for value in values] == plain
    sql = f"SELECT coalesce({fails_sql(op, 'v', '?')}, false) FROM (SELECT unnest(?::DOUBLE[]) AS v)"
    assert [row[0] for row in duckdb.execute(sql, [threshold, values]).fetchall()] == plain


def test_documents_beyond_a_block_are_judged_in_their_place(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("datalake.curate.judge._BLOCK", 7)
    lengths = [(n * 37) % 101 for n in range(60)]
    columns = {"source": ["web"] * 60, "language": ["en", "zh", "fr"] * 20, "words": pa.array(lengths, pa.int64())}
    rest = {name: pa.nulls(60, CURATION.field(name).type) for name in CURATION.names if name not in columns}
    found = judge(pa.table(columns | rest), config())
    assert [("min_words" in row["rules"]) for row in found.columns().to_pylist()] == [n < 50 for n in lengths]


def test_a_document_that_edits_empty_fails_that_alone() -> None:
    judged = Judged(("a", "b"), ("s",), np.zeros(4, np.int32), np.array([0, 0, 2, 2, 2]), np.array([0, 1], np.int32))
    empty = judged.emptied(np.array([True, False, False, True]))
    assert empty.columns()["rules"].to_pylist() == [["empty_after_edits"], ["a", "b"], [], ["empty_after_edits"]]
    assert empty.kept.tolist() == [False, False, True, False]
    assert [("-", *empty.names)[k + 1] for k in empty.first] == ["empty_after_edits", "a", "-", "empty_after_edits"]


def test_one_document_is_explained_rule_by_rule() -> None:
    used = config("auto", languages=("zh",), thresholds={"min_words": 7})
    row = dict.fromkeys(CURATION.names) | {"source": "web", "language": "en", "words": 3, "prose": 0.9}
    [told] = judge(pa.Table.from_pylist([row], CURATION), used).columns().to_pylist()
    rules = {rule["rule"]: rule for rule in explain(row | told, used)}
    assert list(rules) == [*(rule.name for rule in rules_for(used, "web", "en").rules), "language"]
    words = {"metric": "words", "value": 3, "operator": ">=", "threshold": 7}
    assert rules["min_words"] == {"rule": "min_words", **words, "source": "recipe", "outcome": "failed"}
    assert (rules["min_prose"]["value"], rules["min_prose"]["outcome"]) == (0.9, "passed")
    assert rules["min_stop_words"]["outcome"] == "no value"
    assert (rules["language"]["outcome"], rules["language"]["threshold"]) == ("failed", None)
