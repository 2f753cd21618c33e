"""Trainings beside each other: a sweep leaves a law and what it foretold, an ablation a verdict, each training once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import world
import yaml
from harness import Command

from models.methods.pretrain import PretrainConfig
from models.scaling.config import SweepConfig
from models.scaling.published import batch_tokens, learning_rate
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


def test_a_sweep_leaves_its_points_a_law_and_what_it_foretold(
    recipe: dict[str, Any], prefect_server: Any, tmp_path: Path
) -> None:
    from datalake.lake.lake import Lake
    from flows.trials import sweep

    sizes = SweepConfig(aspect=8, ratios=(0.25, 0.5, 1.0), held_out=4)
    found = sweep(recipe=recipe, lake=str(tmp_path / "lake"), sizes=sizes)
    assert len(found["points"]) == 9
    large = found["held_out"]
    assert large["parameters"] > max(size for size, _, _ in found["points"])
    assert large["error"] == pytest.approx(large["expected"] / large["loss"] - 1)
    assert large["low"] <= large["expected"] <= large["high"]
    marks = world.shard_marks(Lake(tmp_path / "lake"), "trials")
    assert len(marks) == 10
    [points] = (tmp_path / "lake").rglob("points.csv")
    from models.scaling.points import read_points

    assert read_points(points).loss.tolist() == [loss for _, _, loss in found["points"]]
    assert not list((tmp_path / "lake").rglob("*.safetensors"))  # models of trials go

    more = sizes.model_copy(update={"ratios": (0.25, 0.5, 1.5)})
    sweep(recipe=recipe, lake=str(tmp_path / "lake"), sizes=more)
    again = world.shard_marks(Lake(tmp_path / "lake"), "trials")
    assert marks.items() < again.items()  # those that both have were trained once
    assert len(again) == 13


def test_an_ablation_compares_two_mixtures_and_one_with_itself(
    recipe: dict[str, Any], prefect_server: Any, tmp_path: Path
) -> None:
    from datalake.lake.lake import Lake
    from datalake.lake.records import find_manifest
    from flows.trials import ablate

    lake = str(tmp_path / "lake")
    other = ablate(recipe=recipe, lake=lake, against=["mixture.weights.plain=4"], seeds=2)["bits_per_byte"]
    assert [row["documents of"] for row in other] == ["all", "other", "plain"]
    assert other[0]["difference"] != 0
    assert other[0]["low"] < other[0]["difference"] < other[0]["high"]
    assert other[0]["documents"] == other[1]["documents"] + other[2]["documents"]
    assert other[0]["verdict"] in ("better", "worse", "no difference")
    manifest = find_manifest(Lake(lake))
    assert manifest.recipe["mixture"]["weights"] == {}  # the lake shows the recipe's own mixture
    same = ablate(recipe=recipe, lake=lake, seeds=2)["bits_per_byte"][0]
    assert same["difference"] == 0
    assert same["verdict"] == "no difference"
    assert same["first"] == other[0]["first"]


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
