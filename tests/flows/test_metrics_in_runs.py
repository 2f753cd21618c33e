"""A recipe's own metrics in a run: columns of the ledger, and no more work than is new."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import world
from harness import PrefectServer

from datalake.curate import curate
from datalake.errors import UserError
from flows.recipe import load

FILE = """
def letters(text, language):
    return sum(map(str.isalpha, text)) / len(text)

def breaks(text, language):
    return text.count("\\n")

def never(text, language):
    raise ZeroDivisionError("by design")
"""


def test_a_metric_more_is_all_that_a_second_run_computes(
    prefect_server: PrefectServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lake, mine = tmp_path / "lake", tmp_path / "mine.py"
    mine.write_text(FILE)
    files = [world.texts(tmp_path / f"{k}.jsonl", range(10 * k, 10 * k + 6)) for k in range(2)]

    def recipe(*names: str) -> dict[str, Any]:
        chosen = {"preset": "gopher", "metrics": [f"{mine}:{name}" for name in names]}
        return world.tables(tmp_path, files) | {"curate": chosen}

    first = world.run(recipe("letters"), lake, "curate")["curate"]
    assert first.state == "ran"
    assert "letters: " in first.note
    assert " µs a document" in first.note
    columns = world.rows(lake, "SELECT letters, alpha_ratio FROM ledger ORDER BY uri")
    assert len(columns) == 12
    assert all(own == pytest.approx(built_in, abs=0.02) for own, built_in in columns)

    measured: list[int] = []
    real = curate.measure_array
    monkeypatch.setattr(curate, "measure_array", lambda *arguments: measured.append(1) or real(*arguments))
    second = world.run(recipe("letters", "breaks", "never"), lake, "curate")["curate"]
    assert (second.state, measured) == ("ran", [])
    assert "never FAILED ON ALL 12 DOCUMENTS" in second.note
    assert "ZeroDivisionError: by design" in second.note
    assert world.rows(lake, "SELECT count(letters), count(breaks), count(never) FROM ledger") == [(12, 12, 0)]
    assert world.rows(lake, "SELECT letters, alpha_ratio FROM ledger ORDER BY uri") == columns

    monkeypatch.undo()
    anew = tmp_path / "another"
    world.run(recipe("letters", "breaks", "never"), anew, "curate")
    assert world.parquet(anew, ["curate"]).items() <= world.parquet(lake, ["curate"]).items()  # to the byte
    assert world.run(recipe("letters"), lake, "curate")["curate"].state == "cached"
    assert world.rows(lake, "SELECT letters FROM ledger ORDER BY uri") == [(own,) for own, _ in columns]


def test_what_cannot_be_imported_ends_a_run_before_its_first_stage(
    prefect_server: PrefectServer, tmp_path: Path
) -> None:
    (tmp_path / "mine.py").write_text("import no_such_package\n" + FILE)
    (tmp_path / "recipe.yaml").write_text(
        'corpus: small\nsources: [{kind: table, paths: ["${recipe}/*.jsonl"]}]\n'
        'curate: {metrics: ["${recipe}/mine.py:letters"]}\n'
    )
    world.texts(tmp_path / "a.jsonl", range(3))
    recipe = load(tmp_path / "recipe.yaml")
    assert [function.name for function in recipe.curate.metric_functions] == ["letters"]
    with pytest.raises(UserError, match="letters can't be loaded"):
        world.run(recipe.model_dump(mode="json"), tmp_path / "lake")
    assert not (tmp_path / "lake").exists()
