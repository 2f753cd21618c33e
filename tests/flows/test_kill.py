"""A run that is killed or has company: what was finished is never done again, and nobody is left behind.

Runs here are processes of their own, since they die. A kill is SIGKILL of the driver alone, at a moment told by what
lies in the lake; Ray and the Prefect server it had started are left to the next run.
"""

from __future__ import annotations

import contextlib
import random
import shutil
import time
from pathlib import Path
from typing import Any

import psutil
import pytest
import world
from begun import Start, ended, kill_when, many_archives, processes_of, state, steps_done

from datalake.lake.lake import Lake
from datalake.lake.records import find_manifest


def test_a_killed_ingest_goes_on_and_leaves_no_process_and_equal_bytes(
    start: Start, tmp_path: Path, prefect_server: Any
) -> None:
    recipe, lake = many_archives(tmp_path / "in", 24, 25), tmp_path / "lake"
    killed = start(recipe, lake, "ingest")  # with a Prefect server and a Ray of its own
    kill_when(killed, lambda: len(world.shard_marks(lake, "ingest")) >= 2)
    left = processes_of(lake)
    assert left, "a killed run leaves its server at least"  # Ray's processes notice the death, in their own time
    assert list((lake / "records").glob("*")) == []
    before = world.shard_marks(lake, "ingest")

    body = ended(start(recipe, lake, "ingest", prefect_server.url))
    assert state(body, "ingest") == "ran"
    marks = world.shard_marks(lake, "ingest")
    assert before.items() <= marks.items()
    assert 2 <= len(before) < len(marks) == 24
    assert not [process for process in left if process.is_running() and process.status() != psutil.STATUS_ZOMBIE]
    assert processes_of(lake) == []  # nor of the second run's own
    assert list(lake.rglob("*.tmp")) == []

    undisturbed = tmp_path / "undisturbed"
    world.run(recipe | {"runtime": world.inline()}, undisturbed, "ingest")
    assert world.parquet(lake, ["ingest"]) == world.parquet(undisturbed, ["ingest"])
    assert world.rows(lake, "SELECT count(*) FROM small.raw") == [(24 * 25,)]


def test_two_runs_at_once_do_the_work_once_and_both_end_well(start: Start, tmp_path: Path, prefect_server: Any) -> None:
    recipe = many_archives(tmp_path / "in", 8, 25) | {"runtime": world.inline()}
    lake = tmp_path / "lake"
    both = [start(recipe, lake, "mixture", prefect_server.url) for _ in range(2)]
    bodies = [ended(process) for process in both]
    for stage in ("ingest", "curate", "deduplicate", "mixture"):
        assert sorted(state(body, stage) for body in bodies) == ["cached", "ran"], stage
    prints = [[(report["stage"], report["outputs"]) for report in body["stages"]] for body in bodies]
    assert prints[0] == prints[1]
    assert world.rows(lake, "SELECT stage, count(*) FROM runs.stages GROUP BY ALL HAVING count(*) > 1") == []
    assert {find_manifest(Lake(lake), body["run"]).run for body in bodies} == {body["run"] for body in bodies}
    assert world.rows(lake, "SELECT count(*) FROM small.raw") == [(200,)]
    undisturbed = tmp_path / "undisturbed"
    world.run(recipe, undisturbed, "mixture")
    assert world.parquet(lake) == world.parquet(undisturbed)


@pytest.mark.slow
def test_two_recipes_at_once_on_one_lake_leave_each_its_own_tables(
    start: Start, tmp_path: Path, prefect_server: Any
) -> None:
    one = many_archives(tmp_path / "in", 4, 10) | {"runtime": world.inline()}
    other = one | {"corpus": "other", "curate": {"preset": "gopher"}, "deduplicate": {"threshold": 0.9}}
    lake = tmp_path / "lake"
    both = [start(recipe, lake, "mixture", prefect_server.url) for recipe in (one, other)]
    bodies = [ended(process) for process in both]
    assert sorted(state(body, "ingest") for body in bodies) == ["cached", "ran"]
    assert [state(body, "curate") for body in bodies] == ["ran", "ran"]
    assert world.rows(lake, "SELECT (SELECT count(*) FROM small.ledger), (SELECT count(*) FROM other.ledger)") == [
        (40, 40)
    ]


@pytest.fixture(scope="module")
def undisturbed(prefect_server: Any, tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], Path]:
    """A recipe large enough to be killed in any stage, and a lake where nobody was."""
    folder = tmp_path_factory.mktemp("undisturbed")
    recipe = many_archives(folder / "in", 24, 60)
    recipe["pretrain"] |= {"steps": 60, "checkpoint_every": 5}
    world.run(recipe | {"runtime": world.inline()}, folder / "lake", "pretrain")
    return recipe, folder / "lake"


@pytest.mark.slow
@pytest.mark.parametrize("stage", ["ingest", "curate", "deduplicate", "tokenize"])
def test_a_kill_in_any_data_stage_costs_the_shards_in_flight(
    start: Start, tmp_path: Path, prefect_server: Any, undisturbed: tuple[dict[str, Any], Path], stage: str
) -> None:
    recipe, whole = undisturbed
    lake = tmp_path / "lake"
    kill_when(start(recipe, lake, "tokenize", prefect_server.url), lambda: bool(world.shard_marks(lake, stage)))
    # What its workers still finish before the next run ends them is finished too.
    before = {stage: world.shard_marks(lake, stage) for stage in ("ingest", "curate", "deduplicate", "tokenize")}
    body = ended(start(recipe, lake, "tokenize", prefect_server.url))
    for name, marks in before.items():
        assert marks.items() <= world.shard_marks(lake, name).items(), name
    earlier = {"curate": ["ingest"], "deduplicate": ["ingest", "curate"], "tokenize": ["ingest", "curate", "mixture"]}
    for name in earlier.get(stage, []):
        assert state(body, name) == "cached"
    assert world.parquet(lake) == world.parquet(whole, [*before, "mixture"])
    assert processes_of(lake) == []


@pytest.fixture(scope="module")
def curated(
    prefect_server: Any, tmp_path_factory: pytest.TempPathFactory
) -> tuple[dict[str, Any], Path, dict[str, str], float]:
    """A recipe, a lake finished up to curation, what deduplication gives where nobody is killed, and its seconds."""
    folder = tmp_path_factory.mktemp("curated")
    recipe = many_archives(folder / "in", 12, 40) | {"runtime": world.inline()}
    recipe["deduplicate"] = {"threshold": 0.6}
    world.run(recipe, folder / "lake", "curate")
    shutil.copytree(folder / "lake", folder / "whole")
    began = time.monotonic()
    world.run(recipe, folder / "whole", "deduplicate")
    return recipe, folder / "lake", world.parquet(folder / "whole", ["deduplicate"]), time.monotonic() - began


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(20))
def test_deduplication_killed_at_any_moment_gives_the_same_tables(
    start: Start,
    tmp_path: Path,
    prefect_server: Any,
    curated: tuple[dict[str, Any], Path, dict[str, str], float],
    seed: int,
) -> None:
    recipe, source, whole, seconds = curated
    lake = tmp_path / "lake"
    shutil.copytree(source, lake)
    run = start(recipe, lake, "deduplicate", prefect_server.url)
    began: list[float] = []

    def now() -> bool:
        if (lake / "shards" / "deduplicate").exists() and not began:
            began.append(time.monotonic())
        return bool(began) and time.monotonic() > began[0] + random.Random(seed).uniform(0, seconds)

    with contextlib.suppress(AssertionError):  # the moment came after the end: it is the same run, undisturbed
        kill_when(run, now)
    ended(start(recipe, lake, "deduplicate", prefect_server.url))
    assert world.parquet(lake, ["deduplicate"]) == whole
    assert list(lake.rglob("*.tmp")) == []
    assert processes_of(lake) == []


@pytest.mark.slow
@pytest.mark.parametrize("step", [1, 12, 33])
def test_a_kill_in_pretraining_changes_no_weight(
    start: Start, tmp_path: Path, prefect_server: Any, undisturbed: tuple[dict[str, Any], Path], step: int
) -> None:
    from datalake.files import folder_version

    recipe, whole = undisturbed
    lake = tmp_path / "lake"
    kill_when(start(recipe, lake, "pretrain", prefect_server.url), lambda: steps_done(lake) >= step)
    body = ended(start(recipe, lake, "pretrain", prefect_server.url))
    assert state(body, "tokenize") == "cached"
    assert state(body, "pretrain") == "ran"
    [ours], [theirs] = ([*folder.glob("folders/pretrain/*/checkpoint")] for folder in (lake, whole))
    assert folder_version(ours) == folder_version(theirs)
    told = "SELECT count(*), count(DISTINCT (step, name)) FROM runs.metrics"
    assert world.rows(lake, told) == world.rows(whole, told)
