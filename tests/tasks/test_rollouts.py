"""Answers that Ray actors write are those of one process, however many there are and whichever dies."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from toys import asked, base, reversals, words

from datalake.errors import UserError
from models.methods.grpo import GrpoConfig
from models.network import checkpoint
from models.rl.answers import Answer, Observe, Sampling
from models.rl.engine import Engine
from models.training.device import choose
from models.training.metrics import read_metrics
from tasks.cluster import Actors, run_alone
from tasks.cluster.connect import ClusterError
from tasks.learning import _train
from tasks.runtime import Runtime, RuntimeConfig

SAMPLING = Sampling(9, 1.0, tuple(range(0, 320, 5)), 320)
PROMPTS = [[5 + place % 60] * (1 + place % 7) for place in range(13)]
SEEDS = [100 + place for place in range(13)]


@pytest.fixture(scope="module")
def start(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("start")
    return base(folder / "base", words(folder / "tokenizer"))


@pytest.fixture
def pair(ray_runtime: RuntimeConfig, start: Path) -> Iterator[tuple[Engine, Any]]:
    """An engine in this process, and one of two actors, over one model."""
    model = checkpoint.load_model(start)
    with Actors(ray_runtime) as actors:
        yield Engine(model, SAMPLING, exact=True), actors(model, SAMPLING, 2, True, choose("float32"))


def tool(dies: Path | None = None) -> Observe:
    """Gives a row a token of its own for its first turn; the process that calls it so often dies of it, once."""
    calls = []

    def observe(row: int, answer: Answer) -> list[int] | None:
        calls.append(row)
        if dies is not None and len(calls) == 3 and not dies.exists():
            dies.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return [7 + row] if all(answer.written) else None

    return observe


def test_actors_answer_as_one_process_does_by_the_weights_of_their_version(pair: tuple[Engine, Any]) -> None:
    one, two = pair
    first = two(PROMPTS, SEEDS)
    assert first == one(PROMPTS, SEEDS)
    with torch.no_grad():
        for weight in one.model.parameters():
            weight.mul_(0.5)
    assert two(PROMPTS, SEEDS) == first  # the same version: the weights that were sent
    one.version = two.version = 3
    later = two(PROMPTS, SEEDS)
    assert later == one(PROMPTS, SEEDS)
    assert {answer.version for answer in later} == {3}
    assert later != first
    assert two([], []) == []
    assert two(PROMPTS[:1], SEEDS[:1]) == one(PROMPTS[:1], SEEDS[:1])


@pytest.mark.slow
def test_an_actor_that_dies_amid_its_answers_is_replaced(pair: tuple[Engine, Any], tmp_path: Path) -> None:
    one, two = pair
    answers = two(PROMPTS, SEEDS, tool(tmp_path / "died"))
    assert (tmp_path / "died").exists()
    assert answers == one(PROMPTS, SEEDS, tool())
    seen = [answer.tokens[answer.written.index(False)] for answer in answers if not all(answer.written)]
    assert len(set(seen)) == len(seen) > 3  # rows are called by their places among all


@pytest.mark.slow
def test_what_is_the_users_to_mend_and_deaths_without_end_are_told(pair: tuple[Engine, Any]) -> None:
    def refuses(row: int, answer: Answer) -> None:
        raise UserError("no sandbox here")

    def kills(row: int, answer: Answer) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    with pytest.raises(UserError, match="no sandbox here"):
        pair[1](PROMPTS, SEEDS, refuses)
    with pytest.raises(ClusterError, match="died again and again"):
        pair[1](PROMPTS, SEEDS, kills)


def test_what_a_signal_raises_is_no_fault_of_an_actor(pair: tuple[Engine, Any], told: type[BaseException]) -> None:
    waiting = os.getpid()

    def tells(row: int, answer: Answer) -> None:
        if row == 0:
            os.kill(waiting, signal.SIGUSR2)
            time.sleep(60)  # until its actor is ended: an answer would come before what was raised

    with pytest.raises(told):
        pair[1](PROMPTS, SEEDS, tells)


def test_a_method_learns_the_same_where_actors_answer(ray_runtime: RuntimeConfig, start: Path, tmp_path: Path) -> None:
    """Training holds all CPUs of the cluster; its actors find room all the same."""
    (tmp_path / "rewards.py").write_text("def sevens(prompt, answer, row):\n    return float(answer.count('7'))\n")
    config = GrpoConfig(
        batch=16, group=4, steps=5, new_tokens=6, learning_rate=3e-3, exact="on",
        rewards=(f"{tmp_path / 'rewards.py'}:sevens",), eval_every=2,
    )  # fmt: skip
    prompts = asked(reversals(20, seed=2, digits=2))
    inputs = {"policy": start, "prompts": prompts, "heldout": prompts[:4]}
    rows, weights = [], []
    for engine in ("process", "ray"):
        out, runtime = tmp_path / engine, Runtime(ray_runtime, tmp_path / "lake", "tests")
        work = partial(_train, "grpo", actors=Actors(ray_runtime))
        run_alone(work, config.model_copy(update={"engine": engine}), inputs, out / "states", out, runtime=runtime)
        apart = ("tokens_per_s", "data_s", "memory_mb")
        rows.append([{k: v for k, v in row.items() if k not in apart} for row in read_metrics(out / "metrics.jsonl")])
        weights.append((out / "checkpoint" / "model.safetensors").read_bytes())
    assert len(rows[0]) == 5
    assert rows[0] == rows[1]
    assert {row["logprob_gap"] for row in rows[1]} == {0.0}
    assert weights[0] == weights[1]


def test_actors_need_a_cluster(start: Path) -> None:
    inline = Actors(RuntimeConfig(workers=1, cluster="inline"))
    with pytest.raises(UserError, match=r"set runtime\.cluster to local, or engine to process"):
        inline(checkpoint.load_model(start), SAMPLING, 2, True, choose("float32"))
