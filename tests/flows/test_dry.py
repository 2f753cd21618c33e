"""A dry run says what the run would find done, do and skip, and leaves no trace."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import world
import yaml
from world import Whole

from datalake.lake.lake import Lake
from datalake.lake.records import StageReport
from flows.dry import DryRun
from flows.parameters import resolve
from flows.pipeline import pipeline
from flows.stages import STAGES

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def whole(prefect_server: Any, tmp_path_factory: pytest.TempPathFactory) -> Whole:
    return world.whole(tmp_path_factory)


def dry(recipe: dict[str, Any], lake: Path, until: Any = None) -> dict[str, StageReport]:
    run = DryRun(resolve(recipe, []), Lake(lake), until)
    pipeline(run)
    return {report.stage: report for report in run.reports}


def everything(lake: Path) -> dict[str, int]:
    return {str(path): path.stat().st_mtime_ns for path in lake.rglob("*")}


def test_of_a_finished_recipe_all_is_cached_as_the_run_left_it(whole: Whole) -> None:
    before = everything(whole.lake)
    reports = dry(whole.recipe, whole.lake)
    left_out = {stage for stage, report in whole.reports.items() if report.state == "skipped"}
    assert left_out == {"instruct", "feedback", "grpo"}
    assert world.states(reports) == dict.fromkeys((stage for stage in STAGES if stage not in left_out), "cached")
    for stage, report in reports.items():
        ran = whole.reports[stage]
        assert (report.fingerprint, report.outputs) == (ran.fingerprint, ran.outputs)
        assert (report.records_in, report.records_out, report.note) == (ran.records_in, ran.records_out, ran.note)
    assert everything(whole.lake) == before


def test_what_a_changed_setting_reaches_would_run(whole: Whole) -> None:
    before = everything(whole.lake)
    reports = dry(whole.recipe | {"deduplicate": {"threshold": 0.5}, "ppo": None}, whole.lake, "sft")
    assert world.states(reports, skipped=True) == {
        "ingest": "cached",
        "quality": "cached",
        "curate": "cached",
        "thresholds": "cached",
        **dict.fromkeys(("deduplicate", "mixture", "tokenizer", "tokenize", "pretrain", "sft"), "would run"),
        **dict.fromkeys(("instruct", "feedback", "dpo", "kto", "reward", "ppo", "grpo", "evaluate"), "skipped"),
    }
    assert reports["deduplicate"].fingerprint
    assert reports["mixture"].fingerprint is None
    assert reports["mixture"].note == "what deduplicate gives isn't known yet"
    assert reports["ppo"].note == "after --until sft"
    assert everything(whole.lake) == before


def test_shards_that_are_done_already_are_counted(prefect_server: Any, tmp_path: Path) -> None:
    files = [world.texts(tmp_path / f"{n}.jsonl", range(10 * n, 10 * n + 3)) for n in range(3)]
    lake = tmp_path / "lake"
    world.run(world.tables(lake, files[:2]), lake, "curate")
    reports = dry(world.tables(lake, files), lake)
    assert (reports["ingest"].state, reports["ingest"].note) == ("would run", "2 of 3 shards are done")
    world.run(world.tables(lake, files), lake, "ingest")
    reports = dry(world.tables(lake, files), lake)
    assert (reports["ingest"].state, reports["curate"].note) == ("cached", "2 of 3 shards are done")


def test_what_a_cached_stage_warns_of_is_told_as_a_run_tells_it(prefect_server: Any, tmp_path: Path) -> None:
    good = world.texts(tmp_path / "good.jsonl", range(3))
    empty = world.jsonl(tmp_path / "empty.jsonl", [{"id": "1", "text": ""}])
    recipe, lake = world.tables(tmp_path, [good]), tmp_path / "lake"
    recipe["sources"].append({"kind": "table", "name": "nothing", "paths": [str(empty)]})
    ran = world.run(recipe, lake, "ingest")["ingest"]
    assert ran.note == "nothing gives nothing: all its records are refused (1 empty)"
    assert dry(recipe, lake, "ingest")["ingest"].note == ran.note


def test_what_is_lost_would_be_made_again(prefect_server: Any, tmp_path: Path) -> None:
    file, lake = world.texts(tmp_path / "a.jsonl", range(3)), tmp_path / "lake"
    ran = world.run(world.tables(lake, [file]), lake, "curate")
    Path(Lake(lake).files(world.table_of(ran["curate"], "documents"))[0]).unlink()
    reports = dry(world.tables(lake, [file]), lake, "curate")
    assert world.states(reports) == {"ingest": "cached", "curate": "would run"}


def test_the_command_needs_no_lake_and_neither_prefect_nor_ray(tmp_path: Path) -> None:
    recipe = world.tables(tmp_path, [world.texts(tmp_path / "a.jsonl", range(3))], sft=None)
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    code = (
        "import sys\nfrom flows.cli import main\n"
        "try:\n    main(sys.argv[1:])\n"
        "finally:\n    print(sorted({'prefect', 'ray', 'torch'} & sys.modules.keys()), file=sys.stderr)"
    )
    command = [sys.executable, "-c", code, "run", str(tmp_path / "recipe.yaml"), "--dry"]
    for words in (["--json"], []):
        lake = tmp_path / "lake"
        done = subprocess.run(
            [*command, "--lake", str(lake), *words], capture_output=True, text=True, cwd=ROOT, timeout=120
        )
        assert (done.returncode, done.stderr.strip()) == (0, "[]")
        assert not lake.exists()
        if words:
            told = json.loads(done.stdout)
            assert told.keys() == {"run", "corpus", "lake", "seconds", "stages"}
            assert [row["stage"] for row in told["stages"]] == list(STAGES)
            assert told["stages"][0] | {"fingerprint": ""} == {
                "stage": "ingest", "state": "would run", "seconds": 0.0, "records_in": None, "records_out": None,
                "fingerprint": "", "outputs": {}, "note": "0 of 1 shards are done",
            }  # fmt: skip
        else:
            assert "  reward       skipped" in done.stdout
            assert "`sft` is null in the recipe" in done.stdout
