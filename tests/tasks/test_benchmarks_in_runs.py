"""Checkpoints judged by benchmarks in a lake: a grid of cells, each judged once, beside what of it was trained on."""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import toys
import world

from datalake.document import Conversation
from datalake.identity import fingerprint
from datalake.lake.lake import FolderRef, Lake
from datalake.lake.records import StageRecord, write_record
from datalake.lake.shards import ShardWriter
from datalake.tables import CONVERSATIONS, to_table
from models.evaluation.benchmark import load
from models.evaluation.config import EvaluateConfig
from models.evaluation.exam import exams, exams_of, ways_of
from models.evaluation.judge import judge
from models.network.checkpoint import load as load_checkpoint
from tasks import benchmarks
from tasks.benchmarks import Judgeable, grid
from tasks.dialogues import HoldOut
from tasks.evaluate import evaluate
from tasks.runtime import Runtime

LONG = "the cat sees the bird and the dog eats the tree and the cow likes the"
ROWS = [
    *({"q": f"the {a} {b} the", "c": ["bird", "tree"], "g": 0} for a in ("cat", "dog") for b in ("sees", "eats")),
    {"q": LONG, "c": ["milk", "bird"], "g": 0},
]
TASK = {"kind": "choice", "source": "rows.jsonl", "prompt": "{{ q }}", "choices": "c", "gold": "g"}


@pytest.fixture
def task(tmp_path: Path) -> Path:
    """A task file; four short items and one that a training dialogue holds."""
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    path = tmp_path / "mine.yaml"
    path.write_text(json.dumps(TASK))
    return path


@pytest.fixture
def models(tmp_path: Path) -> list[FolderRef]:
    """Two checkpoints that a stage `sft` made from one dialogue."""
    lake = Lake(tmp_path).create()
    words = toys.words(tmp_path / "words")
    said = [{"role": "user", "content": LONG.upper() + "?"}, {"role": "assistant", "content": "Milk!"}]
    key = fingerprint("talks")
    with ShardWriter(lake.shard_folder("test", key), "talks", key, {"conversations": CONVERSATIONS}) as out:
        out.write("conversations", to_table([Conversation(b"1" * 16, "talk", "u", said)], CONVERSATIONS))
    talks = lake.commit("tests.conversations", CONVERSATIONS, out.result.files, key)
    refs = []
    for seed in (0, 1):
        made = fingerprint(f"sft {seed}")
        ref = lake.commit_folder("sft", toys.base(lake.folder("sft", made), words, context=64, seed=seed), made)
        told = {"stage": "sft", "version": "1", "corpus": "tests", "fingerprint": made, "state": "done", "counts": {}}
        told |= {"payload": {"config": {}, "inputs": {"holdout": {"seed": 0, "share": 0.0}}}, "seconds": 1.0}
        told |= {"inputs": {"conversations": [talks]}, "outputs": {"sft": ref}, "started": datetime.now(UTC)}
        write_record(lake, StageRecord.model_validate(told))
        refs.append(ref)
    return refs


def judgeable(runtime: Runtime, models: list[FolderRef]) -> list[Judgeable]:
    lake = runtime.lake
    return [Judgeable(str(k), lake.path(ref), ref.data_version, ref.fingerprint) for k, ref in enumerate(models)]


def test_a_grid_says_what_each_checkpoint_says_alone_and_judges_no_cell_twice(
    inline: Callable[..., Runtime], task: Path, models: list[FolderRef], monkeypatch: pytest.MonkeyPatch
) -> None:
    runtime, one = inline(), load(str(task))
    monkeypatch.setattr(benchmarks, "ITEMS", 2)
    found = grid(judgeable(runtime, models), exams([one], ways_of([0, 1], "yes", limit=4)), runtime)
    for name, ref in zip("01", models, strict=True):
        alone = [
            row
            for way in ways_of([0, 1], "yes", limit=4)
            for row in judge(*load_checkpoint(runtime.lake.path(ref)), one, way)
        ]
        assert [(row.item, row.shots, row.scores, row.figures) for row in found.judged[name]] == [
            (row.item, row.shots, row.scores, row.figures) for row in alone
        ]
    marks = world.shard_marks(runtime.lake.root, "benchmarks")
    assert len(marks) == 2 * 2 * 2  # checkpoints, shots, parts
    monkeypatch.setattr(benchmarks, "_judge", None)  # what is there is taken
    assert grid(judgeable(runtime, models[::-1]), exams([one], ways_of([0, 1], "yes", limit=4)), runtime).judged
    monkeypatch.undo()
    monkeypatch.setattr(benchmarks, "ITEMS", 2)
    more = grid(judgeable(runtime, models), exams([one], ways_of([0], "yes")), runtime)
    assert [row.item for row in more.judged["0"]] == list("01234")
    again = world.shard_marks(runtime.lake.root, "benchmarks")
    assert {key: again[key] for key in marks} == marks
    assert len(again) == len(marks) + 2  # the fifth item, of both


def test_a_cell_can_be_told_to_a_worker_elsewhere(
    inline: Callable[..., Runtime], task: Path, models: list[FolderRef], monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[Any] = []
    monkeypatch.setattr(benchmarks, "_done", lambda work, shards, *_, **__: told.extend(shards) or {})
    with pytest.raises(KeyError):
        grid(judgeable(inline(), models), exams([load(str(task))], ways_of([], "yes")), inline())
    (part,) = {pickle.dumps(shard.payload[1]) for shard in told}
    task.with_name("rows.jsonl").unlink()  # what is asked travels with it, the rest of its rows don't
    assert [one.item.row["q"] for one in pickle.loads(part).questions] == [row["q"] for row in ROWS]
    assert len(part) < 8_000


@pytest.mark.slow
def test_ray_works_through_a_grid(on_ray: Callable[..., Runtime], task: Path, models: list[FolderRef]) -> None:
    put = exams([load(str(task)), load("safety")], ways_of([], "yes", limit=3))
    config = on_ray().config
    here = Runtime(config.model_copy(update={"cluster": "inline"}), task.parent, "tests")
    asked = [one._replace(record=None) for one in judgeable(here, models)]
    away = grid(asked, put, on_ray())  # in another lake
    assert grid(asked, put, here).judged == away.judged


def test_scores_stand_beside_what_trained_the_checkpoint(
    inline: Callable[..., Runtime], task: Path, models: list[FolderRef], monkeypatch: pytest.MonkeyPatch
) -> None:
    runtime = inline()
    put = exams([load(str(task))], ways_of([], "yes"))
    (first, second) = judgeable(runtime, models)
    found = grid([first, second._replace(record=None)], put, runtime).figures()
    (dirty,) = found["contamination"]
    assert (dirty["checkpoint"], dirty["share"], dirty["clean"]) == ("0", 1 / 5, 4)
    assert dirty["items"] == [{"item": "4", "documents": [(b"1" * 16).hex()]}]
    assert [row.get("seen") for row in found["results"]] == [1 / 5, 1 / 5, None, None]
    assert found["results"][0]["without"] == dirty["without"][0]["value"]
    assert {(row["checkpoint"], row["with"], row["metric"]) for row in found["compared"]} == {
        ("1", "0", "accuracy"),
        ("1", "0", "accuracy_norm"),
    }
    monkeypatch.setattr(benchmarks, "contaminated", None)  # documents are looked through once
    assert grid([first], put, runtime).figures()["contamination"] == [dirty]


def test_a_cell_that_fails_takes_its_exam_along_and_is_said(
    inline: Callable[..., Runtime], task: Path, models: list[FolderRef], monkeypatch: pytest.MonkeyPatch
) -> None:
    runtime = inline(retries=0)
    broken = judgeable(runtime, models)[0]._replace(name="broken", folder=runtime.lake.root / "broken", version="x")
    load_ = benchmarks._loaded

    def loaded(folder: str, trust: bool) -> Any:
        if folder.endswith("broken"):
            raise RuntimeError("out of memory")
        return load_(folder, trust)

    loaded.cache_clear = load_.cache_clear  # type: ignore[attr-defined]
    monkeypatch.setattr(benchmarks, "_loaded", loaded)
    found = grid([broken, *judgeable(runtime, models)], exams([load(str(task))], ways_of([], "yes")), runtime)
    assert list(found.unfinished) == ["broken mine"]
    assert found.judged["broken"] == []
    assert len(found.judged["1"]) == len(ROWS)


def test_the_stage_judges_a_runs_models_by_the_recipes_benchmarks(
    inline: Callable[..., Runtime], task: Path, models: list[FolderRef]
) -> None:
    config = EvaluateConfig(benchmarks=(str(task),), shots=(0, 1), resamples=100)
    put = exams_of(config)
    inputs: Any = {"holdout": HoldOut(seed=0, share=0.0), "exams": put, "sft": models[0], "ppo": models[1]}
    key = fingerprint(evaluate.payload(config, inputs))
    runtime = Runtime(inline().config, inline().lake_root, "tests", "run", evaluate.key, key)
    produced = evaluate.fn(config, runtime, **inputs)
    rows = {(row["checkpoint"], row["task"]): row for row in produced.evaluations if row["metric"] == "accuracy"}
    assert set(rows) == {(name, f"mine ({shots} shots)") for name in ("sft", "ppo") for shots in (0, 1)}
    assert {row["seen"] for row in produced.report["results"]} == {1 / 5}
    assert {(row["checkpoint"], row["with"]) for row in produced.report["compared"]} == {("ppo", "sft")}
    assert len(produced.report["contamination"]) == 4
    told = world.rows(
        runtime.lake.root, "SELECT checkpoint, shots, count(*) FROM runs.answers GROUP BY ALL ORDER BY ALL"
    )
    assert told == [("ppo", 0, 5), ("ppo", 1, 5), ("sft", 0, 5), ("sft", 1, 5)]
    task.write_text(json.dumps(TASK | {"about": "Words of no weight.", "between": "  "}))
    other = EvaluateConfig(benchmarks=(str(task),), shots=(0, 1), resamples=100)
    assert fingerprint(evaluate.payload(other, inputs | {"exams": exams_of(other)})) != key
    task.write_text(json.dumps(TASK | {"about": "Words of no weight."}))
    assert fingerprint(evaluate.payload(other, inputs | {"exams": exams_of(other)})) == key


@pytest.mark.parametrize("name", ["arc_esay", "none.yaml"])
def test_a_recipe_names_benchmarks_that_there_are(name: str) -> None:
    with pytest.raises(ValueError, match=r"did you mean arc_easy|can't be read"):
        EvaluateConfig(benchmarks=(name,))
    assert EvaluateConfig.model_validate({"benchmarks": [name]}, context={"stored": True}).benchmarks == (name,)
