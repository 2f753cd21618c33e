"""Whole runs on a lake in a store: equal to those in a folder, byte for byte, through kills and company, and every
command that looks at them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import world
from begun import Start, ended, kill_when, many_archives, state
from harness import Command, PrefectServer, answering, free_port
from rest_catalog import Server
from servers import S3Server
from stores import BUCKET, Postgres, settings
from world import Whole

from datalake.lake.lake import FolderRef, Lake, TableRef
from datalake.lake.records import StageReport
from datalake.places import place

STAGES = ("ingest", "curate", "deduplicate", "mixture")


@pytest.fixture
def shared(s3_server: S3Server, database: Postgres, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A prefix of its own with an empty database, as this process and what it starts reach them."""
    name = f"lake_{abs(hash(tmp_path.name))}"
    monkeypatch.setenv("HEADWATER_CATALOG", database.empty(name))
    for variable, value in settings(s3_server.url, tmp_path / "cache").items():
        monkeypatch.setenv(variable, value)
    return place(f"s3://{BUCKET}/{name}")


def outputs(reports: Mapping[str, StageReport]) -> dict[str, tuple[str, str]]:
    """Fingerprint and data version of everything that a run gave."""
    refs: dict[str, TableRef | FolderRef] = {n: ref for one in reports.values() for n, ref in one.outputs.items()}
    return {name: (ref.fingerprint, ref.data_version) for name, ref in refs.items()}


def test_documents_in_a_store_are_those_in_a_folder_byte_for_byte(
    prefect_server: PrefectServer, whole: Whole, shared: Path
) -> None:
    reports = world.run(whole.recipe, shared, "mixture")
    assert [reports[name].state for name in STAGES] == ["ran"] * 4
    assert world.parquet(shared, STAGES) == world.parquet(whole.lake, STAGES)
    given = outputs(reports)
    assert given == {name: version for name, version in outputs(whole.reports).items() if name in given}
    assert set(world.states(world.run(whole.recipe, shared, "mixture")).values()) == {"cached"}


def test_a_catalog_of_icebergs_rest_shows_the_same_tables(
    prefect_server: PrefectServer, whole: Whole, s3_server: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HEADWATER_CACHE", str(tmp_path / "cache"))
    lake, server = place(f"s3://{BUCKET}/rest"), Server(tmp_path)
    with answering(server.app) as url:
        monkeypatch.setenv("HEADWATER_CATALOG", url)
        reports = world.run(whole.recipe, lake, "mixture")
        assert world.parquet(lake, STAGES) == world.parquet(whole.lake, STAGES)
        given = outputs(reports)
        assert given == {name: version for name, version in outputs(whole.reports).items() if name in given}
        for table in ("raw", "refused", "curation", "documents", "pairs", "duplicates", "mixture"):
            [(count,)] = world.rows(lake, f"SELECT count(*) FROM tiny.{table}")
            assert server.catalog.load_table(f"tiny.{table}").scan().to_arrow().num_rows == count, table
        assert set(world.states(world.run(whole.recipe, lake, "mixture")).values()) == {"cached"}


@pytest.mark.slow
def test_every_stage_and_every_command_works_on_a_store(
    prefect_server: PrefectServer, whole: Whole, shared: Path, headwater: Command, tmp_path: Path
) -> None:
    reports = world.run(whole.recipe, shared)
    assert world.parquet(shared) == world.parquet(whole.lake)
    assert outputs(reports) == outputs(whole.reports)

    def ask(*arguments: str) -> Any:
        done = headwater(*arguments, "--lake", str(shared), "--json")
        assert done.status == 0, done
        return done.json

    def ask_folder(*arguments: str) -> Any:
        return headwater(*arguments, "--lake", str(whole.lake), "--json").json

    for sql in ("SELECT verdict, rule, count(*) AS n FROM tiny.ledger GROUP BY ALL ORDER BY ALL",
                "SELECT * FROM tiny.tokens", 'SELECT * FROM tiny."order"'):  # fmt: skip
        assert ask("query", sql) == ask_folder("query", sql)
    [story] = ask("explain", "http://host100.example/page")
    assert story["verdict"] == "kept"
    assert [row["stage"] for row in ask("trace", "ppo")] == [row["stage"] for row in ask_folder("trace", "ppo")]
    assert ask("trace", "pretrain", "--step", "2") == ask_folder("trace", "pretrain", "--step", "2")
    report = place(ask("report")["report"])
    assert b"</html>" in report.read_bytes()
    assert ask("tag", "sft", "current")["stage"] == "sft"
    assert ask("chat", "current", "--message", "Where?", "--max-tokens", "4")["messages"][-1]["role"] == "assistant"
    assert Path(ask("export", "sft", "--out", str(tmp_path / "out"))["export"], "model.safetensors").is_file()
    checks = {check["name"]: check["state"] for check in ask("doctor", "--deep")["checks"]}
    for name in ("store", "store, writing", "conditional writes", "catalog", "lease", "lake", "files"):
        assert checks[name] == "ok", name
    assert set(world.states(world.run(whole.recipe, shared)).values()) == {"cached"}


def trained(folder: Path, steps: int) -> dict[str, Any]:
    recipe = many_archives(folder, 3, 10)
    recipe["pretrain"] |= {"steps": steps, "checkpoint_every": 5}
    return recipe | {"runtime": world.inline()}


@pytest.mark.slow
def test_a_killed_training_goes_on_from_its_state_in_the_store_on_another_machine(
    start: Start, tmp_path: Path, prefect_server: PrefectServer, shared: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = trained(tmp_path / "in", 400)
    killed = start(recipe, shared, "pretrain", prefect_server.url)
    kill_when(killed, lambda: len(list(shared.glob("states/*/step-*/.files.json"))) >= 2)
    assert not list(shared.glob("records/*pretrain*"))
    elsewhere = str(tmp_path / "elsewhere")
    body = ended(start(recipe, shared, "pretrain", prefect_server.url, HEADWATER_CACHE=elsewhere))
    assert state(body, "pretrain") == "ran"
    monkeypatch.setenv("HEADWATER_CACHE", elsewhere)
    [[report]] = world.rows(shared, "SELECT counts FROM runs.stages WHERE stage = 'pretrain'")
    assert json.loads(report)["steps"] == 400
    monkeypatch.delenv("HEADWATER_CATALOG")  # which is the other lake's
    reports = world.run(recipe, tmp_path / "undisturbed", "pretrain")
    [resumed] = [one for one in body["stages"] if one["stage"] == "pretrain"]
    assert resumed["outputs"]["pretrain"]["data_version"] == reports["pretrain"].outputs["pretrain"].data_version


@pytest.mark.slow
def test_two_machines_at_once_do_the_work_once(
    start: Start, tmp_path: Path, prefect_server: PrefectServer, shared: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = many_archives(tmp_path / "in", 6, 10) | {"runtime": world.inline()}
    both = [
        start(recipe, shared, "mixture", prefect_server.url, HEADWATER_CACHE=str(tmp_path / f"machine{number}"))
        for number in range(2)
    ]
    bodies = [ended(process) for process in both]
    for stage in ("ingest", "curate", "deduplicate", "mixture"):
        assert sorted(state(body, stage) for body in bodies) == ["cached", "ran"], stage
    assert Lake(shared).catalog.load_table("small.raw").current_snapshot() is not None
    monkeypatch.delenv("HEADWATER_CATALOG")  # which is this lake's
    undisturbed = tmp_path / "undisturbed"
    world.run(recipe, undisturbed, "mixture")
    assert world.parquet(shared) == world.parquet(undisturbed)


def test_a_mistake_about_the_lake_is_one_line(
    headwater: Command, s3_server: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text("corpus: small\nsources: [{kind: table, paths: [recipe.yaml]}]\n")
    assert "there is no bucket nowhere" in headwater("run", recipe, "--lake", "s3://nowhere/x").mistake()
    assert "no lake at s3://lake/none" in headwater("query", "SELECT 1", "--lake", f"s3://{BUCKET}/none").mistake()
    for url in (f"http://127.0.0.1:{free_port()}", f"postgresql://lake@127.0.0.1:{free_port()}/lake"):
        monkeypatch.setenv("HEADWATER_CATALOG", url)
        for lake in (f"s3://{BUCKET}/down", str(tmp_path / "lake")):
            said = headwater("run", recipe, "--lake", lake).mistake()
            assert "the catalog's " in said
            assert "doesn't answer" in said
            assert "start it, or correct HEADWATER_CATALOG" in said
