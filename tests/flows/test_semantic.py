"""Duplicates in meaning in a run: ledger, explain, clean documents, and what a change of settings embeds again."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import world
import yaml
from harness import Command, Ended, PrefectServer

from datalake.explain import explain
from datalake.lake.lake import Lake
from datalake.lake.records import read_record


@pytest.fixture
def recipe(prefect_server: PrefectServer, tmp_path: Path) -> dict[str, Any]:
    """Six texts in two files, three of which begin with more words alike than the model reads."""
    beginning = world.prose(1, sentences=5)
    rows = [{"id": f"t{k}", "text": world.prose(k)} for k in range(4)]
    rows[1]["text"] = f"{beginning} {world.prose(100, sentences=30)}"
    rows += [{"id": f"t{k}", "text": f"{beginning} {world.prose(k + 100)}"} for k in (4, 5)]
    files = [world.jsonl(tmp_path / f"{k}.jsonl", rows[k::2]) for k in range(2)]
    model = world.transformer(tmp_path / "model")
    semantic = {"model": str(model), "max_tokens": 32, "threshold": 0.99999}
    return world.tables(tmp_path, files, curate={"preset": "none"}, deduplicate={"semantic": semantic})


def test_a_run_removes_what_is_close_in_meaning_and_says_so(recipe: dict[str, Any], tmp_path: Path) -> None:
    lake = tmp_path / "lake"
    report = world.run(recipe, lake, "mixture")["deduplicate"]
    assert report.records_out == 4
    told = world.rows(
        lake,
        """SELECT a.uri, d.level, b.uri, round(l.similarity, 3), l.verdict FROM small.duplicates d
           JOIN small.raw a USING (id) JOIN small.raw b ON b.id = d.duplicate_of JOIN small.ledger l ON l.id = d.id
           ORDER BY a.uri""",
    )
    names = [(uri.rpartition("#")[2], level, of.rpartition("#")[2], *more) for uri, level, of, *more in told]
    assert names == [(f"t{k}", "semantic", "t1", 1.0, "duplicate") for k in (4, 5)]
    assert world.rows(lake, "SELECT count(*) FROM small.clean") == [(4,)]
    assert world.rows(lake, "SELECT count(*) FROM small.mixture") == [(4,)]
    assert world.rows(lake, "SELECT count(*), min(octet_length(embedding)) FROM small.embeddings") == [(6, 32)]
    record = read_record(Lake(lake), report.fingerprint)
    assert record is not None
    assert (record.counts["semantic"], record.counts["not_embedded"], record.counts["clusters"]) == (2, 0, 1)
    (story,) = explain(Lake(lake), told[0][0])
    assert story["duplicates"]["level"] == "semantic"
    assert story["kept instead"]["uri"] == told[0][2]
    assert "nearest" not in story, "the texts have too little in common"


def test_another_threshold_embeds_nothing_again_and_a_moved_model_runs_nothing(
    recipe: dict[str, Any], tmp_path: Path
) -> None:
    lake = tmp_path / "lake"
    world.run(recipe, lake, "deduplicate")
    semantic = recipe["deduplicate"]["semantic"]
    semantic["model"] = str(shutil.move(semantic["model"], tmp_path / "moved"))
    assert world.states(world.run(recipe, lake, "deduplicate"))["deduplicate"] == "cached"
    before = world.shard_marks(lake, "deduplicate")
    assert len(before) == 5, "two shards signed, two embedded, one decision"
    semantic["threshold"] = 1.0
    assert world.states(world.run(recipe, lake, "deduplicate"))["deduplicate"] == "ran"
    after = world.shard_marks(lake, "deduplicate")
    assert len(after) == 6
    assert before.items() <= after.items()
    recipe["deduplicate"] = {}
    assert world.states(world.run(recipe, lake, "deduplicate"))["deduplicate"] == "ran"
    assert len(world.shard_marks(lake, "deduplicate")) == 7
    assert world.rows(lake, "SELECT count(*) FROM small.clean") == [(6,)]


def test_a_file_that_cannot_be_embedded_makes_the_stage_partial_and_is_done_by_the_next_run(
    recipe: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from datalake.dedup.meaning import embed

    real, calls = embed.embed_batches, []

    def once(*arguments: Any) -> Any:
        calls.append(1)
        if len(calls) == 1:
            raise OSError("the disk is gone")
        return real(*arguments)

    lake = tmp_path / "lake"
    with monkeypatch.context() as patched:
        patched.setattr(embed, "embed_batches", once)
        assert world.states(world.run(recipe, lake, "deduplicate"))["deduplicate"] == "partial"
    assert set(world.unfinished(lake).values()) == {"OSError: the disk is gone"}
    report = world.run(recipe, lake, "deduplicate")["deduplicate"]
    assert (report.state, report.records_out) == ("ran", 4), "decided anew, with the embeddings that were missing"


def test_what_if_tells_of_a_higher_threshold_what_a_run_does(
    recipe: dict[str, Any], tmp_path: Path, headwater: Command
) -> None:
    lake, path = tmp_path / "lake", tmp_path / "recipe.yaml"
    more = [{"id": f"m{k}", "text": world.prose(k + 200, sentences=2)} for k in range(40)]
    recipe["sources"][0]["paths"].append(str(world.jsonl(tmp_path / "more.jsonl", more)))
    semantic = recipe["deduplicate"]["semantic"]
    semantic["threshold"] = 0.9
    path.write_text(yaml.safe_dump(recipe))
    world.run(recipe, lake, "deduplicate")
    [(before,)] = world.rows(lake, "SELECT count(*) FROM small.clean")

    def ask(*settings: str) -> Ended:
        return headwater("what-if", path, *(a for s in settings for a in ("--set", s)), "--lake", lake)

    kept = {before}
    for threshold in (0.97, 0.99):
        status, out, err = ask(f"deduplicate.semantic.threshold={threshold}")
        assert status == 0, err
        semantic["threshold"] = threshold
        world.run(recipe | {"corpus": "again"}, lake, "deduplicate")
        [(after,)] = world.rows(lake, "SELECT count(*) FROM again.clean")
        assert f"semantic.threshold 0.9 -> {threshold:g}\nkept {before} -> {after} of 46 " in out
        kept.add(after)
    assert len(kept) > 2
    for settings, why in (
        (["deduplicate.semantic.threshold=0.8"], "0.8 lies below the run's 0.9, and only a run tells"),
        (["deduplicate.semantic.pooling=cls"], "deduplicate.semantic changes which documents are compared"),
        (["deduplicate.lines.copies=3"], "deduplicate.lines cuts parts out of documents, which only a run tells"),
        (["deduplicate.lines={unit: paragraph}"], "deduplicate.lines cuts parts out of documents"),
        (["deduplicate.substrings.minimum=40"], "deduplicate.substrings cuts parts out of documents"),
        (["deduplicate.semantic.threshold=0.99", "deduplicate.threshold=0.9"], "one of them at a time"),
    ):
        assert why in ask(*settings).mistake()
