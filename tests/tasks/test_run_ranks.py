"""A stage that trains in several ranks gives the model of one, and goes on where one of them dies."""

from __future__ import annotations

import os
import signal
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError
from safetensors.torch import load_file

from datalake.errors import UserError
from models.methods import METHODS
from models.training.metrics import read_metrics
from tasks import learning
from tasks.cluster import run_ranks
from tasks.runtime import Runtime, RuntimeConfig, StageKey

CONFIG = {"batch": 8, "accumulation": 2, "steps": 12, "checkpoint_every": 4, "eval_every": 0}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What `sft` is given: a tiny model and dialogues of unequal lengths."""
    from toys import base, conversations, dialogue, reversals, words

    folder = tmp_path_factory.mktemp("ranks")
    talks = [dialogue(*pair) for n in range(1, 6) for pair in reversals(7, seed=n, digits=n)]
    model = base(folder / "base", words(folder / "tokenizer"))
    return {"base": model, "conversations": conversations(talks), "heldout": conversations(talks[:3])}


def stage_runtime(config: RuntimeConfig, folder: Path) -> Runtime:
    return Runtime(config, folder / "lake", "tests", "run", StageKey("sft", "1", {}), "f" * 64)


def learn(world: dict[str, Any], runtime: Runtime, work: Any = learning._train, **changes: Any) -> dict[str, Any]:
    config = METHODS["sft"].config(**(CONFIG | changes))
    states = runtime.lake.root / "states"
    return learning.train_alone("sft", partial(work, "sft"), 12, runtime, config, world, states)


def dying(mark: Path) -> Any:
    """Training whose leading rank is killed once, in the middle."""

    def train(name: str, config: Any, inputs: Any, states: Path, out: Path, ranks: Any = None) -> Any:
        def killed(step: dict[str, Any]) -> None:
            if step["step"] == 7 and not mark.exists():
                mark.touch()
                os.kill(os.getpid(), signal.SIGKILL)

        return METHODS[name](config, out=out, states=states, ranks=ranks, on_step=killed, **inputs)

    return train


@pytest.mark.usefixtures("prefect_server")
@pytest.mark.slow
def test_two_ranks_give_the_model_of_one_though_one_is_killed(
    world: dict[str, Any], ray_runtime: RuntimeConfig, tmp_path: Path
) -> None:
    one = stage_runtime(ray_runtime, tmp_path / "one")
    two = stage_runtime(ray_runtime.model_copy(update={"ranks": 2, "retries": 1}), tmp_path / "two")
    learn(world, one)
    report = learn(world, two, dying(tmp_path / "killed"))
    assert (tmp_path / "killed").exists()
    assert (report["computed"]["ranks"], report["computed"]["from_step"]) == (2, 4)
    assert [row["step"] for row in read_metrics(two.folder / "metrics.jsonl")] == list(range(1, 13))
    mine, theirs = (load_file(place.folder / "checkpoint" / "model.safetensors") for place in (one, two))
    assert max(float((mine[name] - theirs[name]).abs().max()) for name in mine) < 1e-5
    with pytest.raises(UserError, match=r"sft\.accumulation is 3, and 2 ranks"):
        learn(world, two, accumulation=3)


@pytest.mark.slow
def test_ranks_save_where_the_run_is_interrupted(
    world: dict[str, Any], ray_runtime: RuntimeConfig, tmp_path: Path
) -> None:
    changes = {"ranks": 2, "least_ranks": 1, "parallel": "fsdp"}
    runtime = stage_runtime(ray_runtime.model_copy(update=changes), tmp_path)
    config = METHODS["sft"].config(**(CONFIG | {"steps": 100_000, "checkpoint_every": 100_000}))

    def interrupt() -> None:
        if len(read_metrics(runtime.folder / "metrics.jsonl")) >= 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_ranks(
            learning._train, "sft", config, world, tmp_path / "states", runtime.folder, runtime=runtime, poll=interrupt
        )
    (saved,) = (path.name for path in (tmp_path / "states").glob("*/step-*"))
    steps = [row["step"] for row in read_metrics(runtime.folder / "metrics.jsonl")]
    assert steps == list(range(1, int(saved[5:]) + 1))
    assert not (runtime.folder / "ranks").exists()


def test_ranks_that_the_cluster_has_no_room_for(ray_runtime: RuntimeConfig, tmp_path: Path) -> None:
    runtime = stage_runtime(ray_runtime.model_copy(update={"ranks": 64}), tmp_path)
    with pytest.raises(UserError, match=r"the cluster has 2 CPUs for 64 ranks"):
        run_ranks(print, runtime=runtime)


def test_ranks_are_checked_with_the_recipe() -> None:
    with pytest.raises(ValidationError, match="least_ranks 3 is more than ranks 2"):
        RuntimeConfig(ranks=2, least_ranks=3)
    with pytest.raises(ValidationError, match="set cluster to local"):
        RuntimeConfig(ranks=2, cluster="inline")
