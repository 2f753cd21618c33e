"""Block lists, toxic words and personal data in a run: ledger, report, explain, identity."""

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
from flows.commands.explain import rule_line


@pytest.fixture
def recipe(prefect_server: PrefectServer, tmp_path: Path) -> dict[str, Any]:
    """Three pages: one of a listed domain, one with an address to write to, one with a word that is listed."""
    pages = {
        "http://www.bad.example/x": world.page(1),
        "http://good.example/a": world.page(2).replace("</main>", "<p>Write to x@mail.org about the river.</p></main>"),
        "http://good.example/b": world.page(3).replace("</main>", "<p>The darn river and the darn bridge.</p></main>"),
    }
    world.warc(tmp_path / "pages.warc.gz", pages)
    for name, line in (("adult/domains", "bad.example"), ("words/en.txt", "darn")):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).write_text(f"{line}\n")
    return {
        "corpus": "small",
        "sources": [{"kind": "common_crawl", "paths": [str(tmp_path / "pages.warc.gz")]}],
        "curate": {
            "preset": "none",
            "block": {"paths": [str(tmp_path / "adult")]},
            "toxic": {"paths": [str(tmp_path / "words")], "maximum": 1},
            "pii": {},
        },
    }


def test_a_run_blocks_counts_and_replaces_and_says_so(recipe: dict[str, Any], tmp_path: Path) -> None:
    lake = tmp_path / "lake"
    report = world.run(recipe, lake, "curate")["curate"]
    sql = "SELECT verdict, rule, blocked_by, toxic_words, pii FROM small.ledger ORDER BY uri DESC"
    assert world.rows(lake, sql) == [
        ("rejected", "blocked", "adult/domains: bad.example", 0, 0),
        ("rejected", "toxic_words", None, 2, 0),
        ("kept", None, None, 0, 1),
    ]
    ((text,),) = world.rows(lake, "SELECT text FROM small.documents")
    assert "Write to <EMAIL> about the river." in text
    record = read_record(Lake(lake), report.fingerprint)
    assert record is not None
    assert {name: n for name, n in record.counts.items() if "rejected" in name or "data" in name} == {
        "rejected": 2,
        "rejected by blocked": 1,
        "rejected by toxic_words": 1,
        "with personal data": 1,
        "pieces of personal data": 1,
    }
    assert record.report["block_lists"] == [{"list": "adult/domains", "entries": 1, "ignored": 0, "documents": 1}]
    (story,) = explain(Lake(lake), "http://www.bad.example/x")
    text = world.report(lake)
    assert "Block lists Entries read, lines that are none, documents under one of them." in text
    assert "adult/domains 1 0 1" in text
    assert "Personal data 1 documents have some." in text
    lines = [rule_line(rule) for rule in story["judged"] if rule["outcome"] == "failed"]
    assert len(lines) == 1
    assert "adult/domains: bad.example" in lines[0]


def test_lists_that_moved_are_cached_and_lists_that_changed_run_again(recipe: dict[str, Any], tmp_path: Path) -> None:
    lake = tmp_path / "lake"
    world.run(recipe, lake, "curate")
    (tmp_path / "new").mkdir()
    shutil.move(tmp_path / "adult", tmp_path / "new" / "adult")
    recipe["curate"]["block"]["paths"] = [str(tmp_path / "new")]
    assert world.states(world.run(recipe, lake, "curate"))["curate"] == "cached"
    (tmp_path / "new" / "adult" / "domains").write_text("other.example\n")
    assert world.states(world.run(recipe, lake, "curate"))["curate"] == "ran"
    assert world.rows(lake, "SELECT count(*) FROM small.curation WHERE blocked > 0") == [(0,)]


def test_a_list_that_is_not_there_is_a_mistake_in_the_recipe(recipe: dict[str, Any], tmp_path: Path) -> None:
    recipe["curate"]["toxic"]["paths"] = [str(tmp_path / "gone")]
    with pytest.raises(UserError, match=r"curate.*there is no .*gone.*correct the path"):
        world.run(recipe, tmp_path / "lake", "curate")
