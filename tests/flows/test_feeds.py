"""Forms that keep a lake up to date: few fields, each of which means what it says in the recipe behind it."""

from __future__ import annotations

import bz2
from pathlib import Path
from typing import Any

import pytest
import world
from harness import PrefectServer

from flows import feeds
from flows.parameters import resolve


def test_a_wikis_latest_export_is_read_from_a_mirror(prefect_server: PrefectServer, tmp_path: Path) -> None:
    dump = world.wiki(tmp_path / "export.xml", range(4)).read_bytes()
    latest = tmp_path / "dumps" / "testwiki" / "latest"
    latest.mkdir(parents=True)
    (latest / "testwiki-latest-pages-articles-multistream.xml.bz2").write_bytes(bz2.compress(dump))
    run: dict[str, Any] = {"set": ["runtime.cluster=inline"], "lake": str(tmp_path / "lake")}
    feeds.wikipedia(wiki="testwiki", dumps=str(tmp_path / "dumps"), **run)
    assert world.rows(tmp_path / "lake", "SELECT count(*), min(source) FROM wikipedia.raw") == [(4, "wikipedia")]
    state = feeds.wikipedia(wiki="otherwiki", dumps=str(tmp_path / "dumps"), return_state=True, **run)
    assert "otherwiki" in str(state.message)
    assert state.is_failed()


def test_code_is_read_as_it_stands(prefect_server: PrefectServer, tmp_path: Path) -> None:
    (tmp_path / "package").mkdir()
    (tmp_path / "package" / "one.py").write_text("def double(n):\n    return 2 * n\n")
    run: dict[str, Any] = {"set": ["runtime.cluster=inline"], "lake": str(tmp_path / "lake")}
    feeds.code(paths=[str(tmp_path / "package")], **run)
    (tmp_path / "package" / "two.py").write_text("def halve(n):\n    return n / 2\n")
    feeds.code(paths=[str(tmp_path / "package")], **run)
    assert world.rows(tmp_path / "lake", "SELECT count(*) FROM code.raw") == [(2,)]


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({}, {"snapshots": ["CC-MAIN-2024-22.."], "sample": 1, "where": None}),
        ({"snapshots": "newest", "archives": 0}, {"snapshots": ["newest"], "sample": None, "where": None}),
        ({"archives": 500, "languages": ["isl"]}, {"sample": 500}),
    ],
)
def test_the_form_of_the_crawl_fills_in_its_recipe(
    given: dict[str, Any], expected: dict[str, Any], prefect_server: PrefectServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Any] = []
    monkeypatch.setattr(feeds, "run_recipe", lambda *given: asked.append(given) or [])
    feeds.crawl(**given)
    ((path, overrides, until, _),) = asked
    assert until == "ingest"
    (source,) = resolve(path, overrides).sources
    assert {name: getattr(source, name) for name in expected} == expected
    if "languages" in given:
        assert source.where.languages == given["languages"]  # type: ignore[union-attr]


def test_a_training_is_asked_for_by_its_stage_and_steps(
    prefect_server: PrefectServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    from flows import flows

    asked: list[Any] = []
    monkeypatch.setattr(flows, "run_recipe", lambda *given: asked.append(given) or [])
    flows.train(stage="sft", steps=7)
    flows.train()
    (path, overrides, until, _), (_, usual, last, _) = asked
    assert until == "sft"
    assert resolve(path, overrides).sft.steps == 7  # type: ignore[attr-defined]
    assert (usual, last) == ([], "pretrain")
