"""Trainings beside each other: a sweep leaves a law and what it foretold, an ablation a verdict, each training once."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import world
import yaml
from harness import Command

from datalake.identity import fingerprint
from datalake.lake.lake import Lake
from datalake.lake.records import StageReport, find_manifest, now, read_record, write_record
from flows.parameters import resolve
from flows.pipeline import pipeline
from flows.run import Run
from flows.trials import ablate, ablated, swept
from models.methods.pretrain import PretrainConfig
from models.scaling.config import SweepConfig
from models.scaling.points import read_points
from models.scaling.published import batch_tokens, learning_rate
from tasks.log import RunLog
from tasks.record import commit
from tasks.runtime import Runtime
from tasks.stage import Stage
from tasks.trials import sized

MODEL = {"layers": 1, "width": 16, "heads": 2, "kv_heads": 1, "context": 16, "batch": 8, "steps": 4}


@pytest.fixture
def recipe(tmp_path: Path) -> dict[str, Any]:
    sources = [
        {"kind": "table", "name": name, "paths": [str(world.texts(tmp_path / f"{name}.jsonl", seeds))]}
        for name, seeds in (("plain", range(40)), ("other", range(40, 80)))
    ]
    return world.tables(tmp_path, [], tokenizer={"vocabulary": 320}, pretrain=MODEL) | {
        "sources": sources,
        "mixture": {"holdout": 0.2},
    }


class Untracked(Run):
    """A run whose stages are done here and now, without Prefect."""

    def __init__(self, recipe: dict[str, Any], lake: Path, until: str) -> None:
        super().__init__(resolve(recipe, []), Lake(lake).create(), until)
        self.log = RunLog("untracked")
        self.runtime = Runtime(self.recipe.runtime, self.lake.root, self.recipe.corpus, self.log.run)

    def do(self, stage: Stage[Any, Any, Any], config: Any, inputs: Mapping[str, Any]) -> Any:
        payload = stage.payload(config, inputs)
        mark = fingerprint(payload)
        record = stage.built(self.lake, mark)
        if record is None:
            runtime = replace(self.runtime, stage=stage.key, fingerprint=mark)
            produced = stage.fn(config, runtime, **inputs)
            record = commit(stage, payload, inputs, produced, runtime, now(), time.perf_counter())
            write_record(self.lake, record)
        self.report(record.reported("ran", 0.0))
        return stage.typed(config, record.outputs.__getitem__)

    def report(self, report: StageReport) -> None:
        self.log.add(report)

    @property
    def found(self) -> dict[str, Any]:
        """The last stage's report."""
        record = read_record(self.lake, str(self.log.reports[-1].fingerprint))
        assert record is not None
        return record.report


def begun(recipe: dict[str, Any], lake: Path) -> Any:
    """A run that has its tokens."""
    run = Untracked(recipe, lake, "tokenize")
    pipeline(run)
    return run


@pytest.mark.slow
def test_a_sweep_leaves_its_points_a_law_and_what_it_foretold(recipe: dict[str, Any], tmp_path: Path) -> None:
    run = begun(recipe, tmp_path / "lake")
    sizes = SweepConfig(aspect=8, ratios=(0.1, 0.2, 0.4), held_out=4)
    swept(run, sizes)
    found = run.found
    assert len(found["points"]) == 9
    large = found["held_out"]
    assert large["parameters"] > max(size for size, _, _ in found["points"])
    assert large["error"] == pytest.approx(large["expected"] / large["loss"] - 1)
    assert large["low"] <= large["expected"] <= large["high"]
    [points] = (tmp_path / "lake").rglob("points.csv")
    assert read_points(points).loss.tolist() == [loss for _, _, loss in found["points"]]
    assert not list((tmp_path / "lake").rglob("*.safetensors"))  # models of trials go

    marks = world.shard_marks(run.lake.root, "trials")
    assert len(marks) == 10
    swept(run, sizes.model_copy(update={"ratios": (0.1, 0.2, 0.5)}))
    again = world.shard_marks(run.lake.root, "trials")
    assert marks.items() < again.items()  # those that both have were trained once
    assert len(again) == 13


def test_an_ablation_compares_two_mixtures_and_one_with_itself(recipe: dict[str, Any], tmp_path: Path) -> None:
    run = begun(recipe, tmp_path / "lake")
    other = recipe | {"mixture": recipe["mixture"] | {"weights": {"plain": 4.0}}}
    ablated(run, Untracked(other, tmp_path / "lake", "mixture"), seeds=2)
    [whole, *by_source] = run.found["bits_per_byte"]
    assert whole["documents of"] == "all"
    assert sum(row["documents"] for row in by_source) == whole["documents"] > 0
    assert whole["low"] < whole["difference"] < whole["high"]
    assert whole["difference"] != 0
    assert whole["verdict"] in ("better", "worse", "no difference")
    assert [report.stage for report in run.log.reports].count("mixture") == 1  # the other's are none of this run's

    ablated(run, Untracked(recipe, tmp_path / "lake", "mixture"), seeds=2)
    [same, *_] = run.found["bits_per_byte"]
    assert (same["difference"], same["verdict"]) == (0, "no difference")
    assert same["first"] == whole["first"]

    def in_phases(plain: int) -> dict[str, Any]:
        phases = [{"share": 1, "mixture": {"weights": {"plain": plain, "other": 1}}}]
        return recipe | {"pretrain": MODEL | {"steps": 60, "phases": phases}}

    phased = begun(in_phases(1), tmp_path / "lake")
    ablated(phased, Untracked(in_phases(9), tmp_path / "lake", "mixture"), seeds=2)
    assert phased.found["bits_per_byte"][0]["difference"] != 0  # each has the phases of its own recipe


@pytest.mark.slow
def test_an_ablation_is_a_flow_after_which_the_lake_shows_the_recipes_own_mixture(
    recipe: dict[str, Any], prefect_server: Any, tmp_path: Path
) -> None:
    lake = tmp_path / "lake"
    rows = ablate(recipe=recipe, lake=str(lake), against=["mixture.holdout=0.3"], seeds=2)["bits_per_byte"]
    assert rows[0]["seeds"] == 2
    assert find_manifest(Lake(lake)).recipe["mixture"]["holdout"] == 0.2


def test_models_of_a_sweep_take_step_laws_batch_and_rate() -> None:
    config = SweepConfig(pretrain=PretrainConfig(context=64))
    model = sized(config, depth=6, ratio=5.0, vocabulary=512)
    parameters = model.network(512).parameters
    assert (model.layers, model.width, model.heads) == (6, 384, 6)
    assert model.tokens == 5 * parameters
    assert model.batch == round(batch_tokens(model.tokens) / 64)
    assert model.learning_rate == pytest.approx(learning_rate(parameters, model.tokens))


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["sweep", "none.yaml"], "none.yaml"),
        (["sweep", "recipe.yaml", "--depths", "1,2"], "three different numbers"),
        (["sweep", "recipe.yaml", "--ratios", "1,0,2"], "three different numbers"),
        (["sweep", "recipe.yaml", "--depths", "one"], "three different numbers"),
        (["sweep", "recipe.yaml", "--held-out", "0"], "--held-out 0"),
        (["ablate", "recipe.yaml"], "--against"),
        (["ablate", "recipe.yaml", "--against", "mixture.weights.code=-1"], "weight"),
        (["ablate", "recipe.yaml", "--against", "mixture.holdout=0.1", "--seeds", "1"], "--seeds 1"),
    ],
)
def test_mistakes_are_one_line_and_leave_no_lake(
    headwater: Command, recipe: dict[str, Any], tmp_path: Path, arguments: list[str], said: str
) -> None:
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    assert said in headwater(*arguments).mistake()
    assert not (tmp_path / "lake").exists()
