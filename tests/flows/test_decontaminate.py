"""Decontamination in a run: the ledger names the row, the report counts per set, identity follows the sets' content."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import world
from harness import PrefectServer

from datalake.errors import UserError
from datalake.explain import explain
from datalake.lake.lake import Lake
from datalake.lake.records import read_record
from flows.report.page import write_report


@pytest.fixture
def recipe(prefect_server: PrefectServer, tmp_path: Path) -> dict[str, Any]:
    """Three documents, the second of which holds a sentence of the first evaluation set's second row."""
    leaked = world.prose(50)
    rows = [{"id": str(n), "text": world.prose(n) + (leaked.upper() if n == 1 else "")} for n in range(3)]
    world.jsonl(tmp_path / "eval" / "one.jsonl", [{"question": "A short one", "n": 1}, {"question": leaked}])
    world.jsonl(tmp_path / "eval" / "two.jsonl", [{"question": world.prose(51)}])
    curate = {"preset": "none", "decontaminate": {"paths": [str(tmp_path / "eval")]}}
    return world.tables(tmp_path, [world.jsonl(tmp_path / "documents.jsonl", rows)], curate=curate)


def test_a_run_rejects_names_and_counts_contaminated_documents(recipe: dict[str, Any], tmp_path: Path) -> None:
    lake = tmp_path / "lake"
    report = world.run(recipe, lake, "curate")["curate"]
    columns = "verdict, rule, contaminated_level, contaminated_set"
    found = world.rows(lake, f"SELECT {columns} FROM small.ledger ORDER BY contaminated DESC")
    assert found == [
        ("rejected", "contaminated", "normalised", "one#1"),
        ("kept", None, None, None),
        ("kept", None, None, None),
    ]
    sql = """SELECT substr(text, contaminated_start + 1, contaminated_end - contaminated_start)
             FROM small.raw r JOIN small.curation c USING (id) WHERE contaminated > 0"""
    assert world.rows(lake, sql) == [(world.prose(50).upper().rstrip("."),)]
    write_report(Lake(lake), "last", tmp_path / "page.html")
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert "share of its words in overlaps with evaluation sets" in page
    assert "Evaluation sets Rows; those looked for as a whole" in world.report(lake)
    record = read_record(Lake(lake), report.fingerprint)
    assert record is not None
    sets = record.report["evaluation_sets"]
    assert [(row["set"], row["rows"], row["ignored"], row["documents"]) for row in sets] == [
        ("one", 2, 1, 1),
        ("two", 1, 0, 0),
    ]


def test_a_long_document_is_kept_without_the_row_and_explained(recipe: dict[str, Any], tmp_path: Path) -> None:
    lake, row, article = tmp_path / "lake", world.prose(50), world.prose(3, 200)
    text = f"{article}\n\n{row.upper()}\n\n{world.prose(4)}"
    world.jsonl(tmp_path / "documents.jsonl", [{"id": "long", "text": text}, {"id": "other", "text": world.prose(5)}])
    report = world.run(recipe, lake, "curate")["curate"]
    found = world.rows(lake, "SELECT verdict, contaminated_cut, contaminated_set FROM small.ledger ORDER BY 2 DESC")
    kept = f"{article}\n\n{world.prose(4)}"
    assert found == [("kept", len(text) - len(kept), "one#1"), ("kept", 0, None)]
    assert kept in [text for (text,) in world.rows(lake, "SELECT text FROM small.documents")]
    record = read_record(Lake(lake), report.fingerprint)
    assert record is not None
    assert record.report["cut"] == {"documents": 1, "characters": len(text) - len(kept)}
    assert "Cut of 1 kept documents" in world.report(lake)
    ((id,),) = world.rows(lake, "SELECT hex(id) FROM small.raw WHERE length(text) > 5000")
    [story] = explain(Lake(lake), id)
    assert story["decontaminated"]["characters cut"] == len(text) - len(kept)
    assert story["decontaminated"]["spans"] == 1
    assert story["decontaminated"][f"one#1 at {text.index(row.upper())}"] == " ".join(row.upper().split())[:200]
    assert story["edits"]["characters_after"] == len(kept)
    assert {"rule": "contaminated", "outcome": "passed"}.items() <= story["judged"][-1].items()


def test_sets_that_moved_are_cached_and_sets_that_changed_run_again(recipe: dict[str, Any], tmp_path: Path) -> None:
    lake = tmp_path / "lake"
    first = world.run(recipe, lake, "curate")["curate"]
    shutil.move(tmp_path / "eval", tmp_path / "elsewhere")
    recipe["curate"]["decontaminate"]["paths"] = [str(tmp_path / "elsewhere")]
    assert world.states(world.run(recipe, lake, "curate")) == {"ingest": "cached", "curate": "cached"}
    world.jsonl(tmp_path / "elsewhere" / "one.jsonl", [{"question": world.prose(2)}])
    again = world.run(recipe, lake, "curate")
    assert world.states(again) == {"ingest": "cached", "curate": "ran"}
    assert again["curate"].fingerprint != first.fingerprint
    assert world.rows(
        lake, "SELECT contaminated_level, contaminated_set FROM small.curation WHERE contaminated > 0"
    ) == [("exact", "one#0")]


def test_a_set_that_is_not_there_is_a_mistake_in_the_recipe(recipe: dict[str, Any], tmp_path: Path) -> None:
    recipe["curate"]["decontaminate"]["paths"] = [str(tmp_path / "gone")]
    with pytest.raises(UserError, match=r"curate.*there is no .*gone.*correct the path"):
        world.run(recipe, tmp_path / "lake", "curate")
