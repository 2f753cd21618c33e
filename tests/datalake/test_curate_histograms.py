"""Histograms count every document once, in the bin a plain reading of its value puts it, with thresholds in sight."""

from __future__ import annotations

import bisect
import random

import duckdb
import pyarrow as pa
import pytest

from datalake.curate.config import CurateConfig
from datalake.curate.histograms import BINS, Histogram, bars, histograms
from datalake.curate.judge import rules_for
from datalake.curate.schema import CURATION


@pytest.fixture(scope="module")
def rows() -> list[dict[str, object]]:
    rng = random.Random(4)
    made = []
    for n in range(600):
        source, language = rng.choice(
            (("web", "en"), ("web", "en"), ("web", "zh"), ("web", "fr"), ("web", "th"), ("mine", "und"))
        )
        chosen = rules_for(CONFIG, source, language)
        row: dict[str, object] = dict.fromkeys(CURATION.names)
        row |= {"id": n.to_bytes(16, "big"), "source": source, "language": language, "rule_set": chosen.name}
        for field in CURATION:
            if pa.types.is_integer(field.type):
                row[field.name] = int(rng.lognormvariate(5, 2))
            elif pa.types.is_floating(field.type):
                row[field.name] = None if rng.random() < 0.1 else 0.5 * ("alpha" in field.name) + rng.random() ** 2
        row["verdict"], row["rules"] = rng.choice(("kept", "rejected")), []
        made.append(row)
    return made


CONFIG = CurateConfig(kinds={"mine": "code"}, thresholds={"min_words": 55})


@pytest.fixture(scope="module")
def spread(rows: list[dict[str, object]]) -> list[Histogram]:
    connection = duckdb.connect()
    connection.register("curation", pa.Table.from_pylist(rows, schema=CURATION))
    return histograms(connection, "curation", CONFIG)


def test_counts_are_those_of_a_plain_reading(rows: list[dict[str, object]], spread: list[Histogram]) -> None:
    seen = set()
    for one in spread:
        mine = [row for row in rows if row["rule_set"] == one.rule_set and row["language"] in one.languages]
        kept, rejected, missing = [0] * BINS, [0] * BINS, 0
        for row in mine:
            value = row[one.metric]
            if value is None:
                missing += 1
                continue
            place = min(max(bisect.bisect_right(one.edges, value) - 1, 0), BINS - 1)  # type: ignore[type-var]
            (kept if row["verdict"] == "kept" else rejected)[place] += 1
        assert one.missing == missing
        assert sum(one.kept) + sum(one.rejected) + missing == len(mine)
        assert sum(one.kept) == sum(kept)
        # A value on an edge may fall to either side of it, by the last digit of a logarithm.
        on_edge = sum(any(abs(row[one.metric] - e) < 1e-9 for e in one.edges) for row in mine if row[one.metric])  # type: ignore[operator]
        assert sum(abs(a - b) for a, b in zip(one.kept, kept, strict=True)) <= 2 * on_edge
        assert sum(abs(a - b) for a, b in zip(one.rejected, rejected, strict=True)) <= 2 * on_edge
        seen.add((one.rule_set, one.metric))
    asked = {
        (row["rule_set"], rule.metric)
        for row in rows
        for rule in rules_for(CONFIG, row["source"], row["language"]).rules  # type: ignore[arg-type]
    }
    assert seen == asked, "each metric that a rule asks for, and no other"


def test_thresholds_lie_where_the_values_around_them_do(spread: list[Histogram]) -> None:
    words = next(one for one in spread if one.metric == "words" and one.rule_set == "english")
    assert [rule.threshold for rule in words.rules] == [55, 100_000]
    assert words.logarithmic
    assert words.edges[0] <= 55 < words.edges[-1]
    assert 0 < words.place(55) < 1
    assert words.place(-5) == 0.0
    assert words.place(1e12) == 1.0
    for one in spread:
        assert list(one.edges) == sorted(one.edges)
        assert one.place(one.edges[0]) == 0.0
        assert one.place(one.edges[-1]) == 1.0


def test_one_value_alone_has_a_histogram_too() -> None:
    row = dict.fromkeys(CURATION.names) | {"id": b"x" * 16, "source": "s", "language": "en", "rule_set": "english"}
    row |= {"verdict": "kept", "rules": [], "words": 55, "char_dup": 0.01, "fw_char_dup": 0.0}
    connection = duckdb.connect()
    connection.register("curation", pa.Table.from_pylist([row], schema=CURATION))
    found = {one.metric: one for one in histograms(connection, "curation", CONFIG)}
    assert set(found) == {"words", "char_dup"}
    assert all(sum(one.kept) == 1 and sum(one.rejected) == 0 for one in found.values())


def test_a_table_made_by_other_rules_has_none() -> None:
    row = dict.fromkeys(CURATION.names) | {"id": b"x" * 16, "source": "s", "language": "en", "rule_set": "gopher"}
    row |= {"verdict": "kept", "rules": [], "words": 55}
    connection = duckdb.connect()
    connection.register("curation", pa.Table.from_pylist([row], schema=CURATION))
    assert histograms(connection, "curation", CONFIG) == []


def test_bars_show_what_is_there() -> None:
    assert bars([0, 1, 100, 50]) == " ▁█▄"
    assert bars([0, 0], "·") == "··"
    assert bars([]) == ""
