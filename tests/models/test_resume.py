"""SIGKILL at any moment, again and again: every method ends with the weights, optimizer, random state, order and
metrics of a run that nobody disturbed."""

from __future__ import annotations

import itertools
import multiprocessing
import os
import pkgutil
import random
import signal
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from toys import asked, base, conversations, dialogue, reversals, shard, stories, words

from models.methods import METHODS
from models.text.shards import TokenShards
from models.training.metrics import read_metrics

LOOP: dict[str, Any] = {"warmup": 0.0, "schedule": "constant", "checkpoint_every": 3}
SMALL = {"layers": 1, "width": 32, "heads": 2, "kv_heads": 1, "context": 32, "batch": 4, "eval_every": 7, **LOOP}
PPO = {"batch": 4, "minibatches": 2, "epochs": 2, "new_tokens": 5, "steps": 14, "kl_target": 0.5, **LOOP}
GRPO = {"batch": 8, "group": 2, "epochs": 2, "minibatches": 2, "new_tokens": 5, "steps": 14, "eval_every": 5, **LOOP}
# Steps go over several epochs of what there is, and states fall before, on and after where an epoch ends.
CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "pretrain": ("pretrain", SMALL | {"steps": 40}),
    "masked tokens": ("pretrain", SMALL | {"steps": 40, "objective": "masked_tokens"}),
    "sft": ("sft", {"batch": 6, "steps": 40, "eval_every": 7, **LOOP}),
    "reward": ("reward", {"batch": 6, "steps": 40, "eval_every": 7, **LOOP}),
    "dpo": ("dpo", {"batch": 6, "steps": 40, "eval_every": 7, **LOOP}),
    "kto": ("kto", {"batch": 6, "steps": 40, "eval_every": 7, **LOOP}),
    "ppo": ("ppo", PPO),
    "grpo": ("grpo", GRPO),
}


# A function that is called inside the work; there the process ends at once.
INSIDE = {
    "rollout": ("models.rl.engine.draw_from", 33),  # in the midst of the answers of a step
    "update": ("torch.optim.adam.adam", 43),  # gradients are there, some weights changed
    "judgement": ("models.rl.rewards.Rewards.total", 4),  # answers are written, nothing is learned
}


def work(name: str, settings: dict[str, Any], inputs: dict[str, Any], out: Path, inside: str | None = None) -> None:
    """What a process does: train from where the last one left off; `inside` names where it dies."""
    torch.set_num_threads(1)
    if inside is not None:
        die_at(*INSIDE[inside])
    method = METHODS[name]
    method(method.config(**settings), **inputs, out=out)


def die_at(place: str, calls: int) -> None:
    """This process kills itself when a function has been called so often."""
    left, plain = itertools.count(calls, -1), pkgutil.resolve_name(place)

    def counted(*args: Any, **kwargs: Any) -> Any:
        if not next(left):
            os.kill(os.getpid(), signal.SIGKILL)
        return plain(*args, **kwargs)

    owner, _, name = place.rpartition(".")
    setattr(pkgutil.resolve_name(owner), name, counted)


@pytest.fixture(scope="module")
def processes() -> Any:
    """Processes that have torch already, so that most of their life is training."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["torch", "transformers", "models.methods", "models.network.checkpoint"])
    return context


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    folder = tmp_path_factory.mktemp("resume")
    tokenizer = words(folder / "tokenizer")
    tokens = shard(folder / "tokens", stories(24), tokenizer)
    ids = list(TokenShards(tokens).ids)
    tuned = base(folder / "base", tokenizer)
    talks = [dialogue(*pair) for pair in reversals(25, seed=1)]
    prompts = asked(reversals(7, seed=2))
    pairs = [{"prompt": talk[:1], "chosen": talk[1]["content"], "rejected": "0"} for talk in talks]
    reward = METHODS["reward"]
    reward(reward.config(batch=8, steps=2), tuned, pairs, [], folder / "judge")
    judge = folder / "judge" / "checkpoint"
    return {
        "pretrain": {"shards": [tokens], "train": [(id, 1) for id in ids[4:]], "heldout": ids[:4]}
        | {"tokenizer": folder / "tokenizer"},
        "sft": {"base": tuned, "conversations": conversations(talks), "heldout": conversations(talks[:3])},
        "reward": {"base": tuned, "pairs": pairs, "heldout": pairs[:3]},
        "dpo": {"base": tuned, "pairs": pairs, "heldout": pairs[:3]},
        "kto": {"base": tuned, "judgements": pairs, "heldout": pairs[:3]},
        "grpo": {"policy": tuned, "reward_model": judge, "prompts": prompts, "heldout": prompts[:2]},
        "ppo": {"policy": tuned, "reward_model": judge, "prompts": prompts, "heldout": prompts[:2]},
    }


def final(out: Path, steps: int) -> tuple[dict[str, Any], list[dict[str, Any]], bytes]:
    """The last state, the metrics without what a clock says, and the checkpoint's weights."""
    state = torch.load(out / "state" / f"step-{steps:09d}" / "state.pt", weights_only=True)
    state["callbacks"].pop("metrics")
    rows = [
        {k: v for k, v in row.items() if k not in ("tokens_per_s", "data_s", "memory_mb", "mfu")}
        for row in read_metrics(out / "metrics.jsonl")
    ]
    return state, rows, (out / "checkpoint" / "model.safetensors").read_bytes()


def alike(one: Any, other: Any) -> bool:
    """Equal to the last bit, however deep."""
    if isinstance(one, torch.Tensor):
        return torch.equal(one, other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(alike(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(alike, one, other))
    return bool(one == other)


@pytest.mark.parametrize(
    ("case", "kills"),
    [
        ("pretrain", 3),
        *(pytest.param(case, 20, marks=pytest.mark.slow) for case in CASES),
    ],
)
def test_killed_runs_end_as_if_nobody_had_disturbed_them(
    case: str, kills: int, processes: Any, inputs: dict[str, dict[str, Any]], tmp_path: Path
) -> None:
    name, settings = CASES[case]

    def run(out: Path) -> Any:
        process = processes.Process(target=work, args=(name, settings, inputs[name], out))
        process.start()
        return process

    whole = run(tmp_path / "whole")
    whole.join()
    assert whole.exitcode == 0
    draw, out = random.Random(f"{case} {kills}"), tmp_path / "killed"
    killed = 0
    for number in range(kills):
        process = run(out)
        # in the middle of a step, of a state being written, of the checkpoint: as far as it comes by then
        target = draw.randint(number * settings["steps"] // kills, settings["steps"])
        while process.is_alive() and len(read_metrics(out / "metrics.jsonl")) < target:
            time.sleep(0.002)
        time.sleep(draw.random() * 0.05)
        killed += process.is_alive()
        process.kill()
        process.join()
        if (out / "checkpoint").exists():
            break
    last = run(out)
    last.join()
    assert last.exitcode == 0
    assert killed
    for mine, theirs in zip(final(out, settings["steps"]), final(tmp_path / "whole", settings["steps"]), strict=True):
        assert alike(mine, theirs)


@pytest.mark.parametrize(
    ("case", "inside"),
    [
        *(("ppo", "update"), ("grpo", "rollout"), ("grpo", "judgement")),
        *(pytest.param("ppo", inside, marks=pytest.mark.slow) for inside in INSIDE if inside != "update"),
        *(pytest.param(case, "update", marks=pytest.mark.slow) for case in CASES if case != "ppo"),
    ],
)
def test_a_run_killed_inside_a_rollout_or_an_update_ends_as_if_nothing_had_been(
    case: str, inside: str, processes: Any, inputs: dict[str, dict[str, Any]], tmp_path: Path
) -> None:
    name, settings = CASES[case]
    ended = []
    for out, *where in ((tmp_path / "whole",), (tmp_path / "killed", inside), (tmp_path / "killed",)):
        process = processes.Process(target=work, args=(name, settings, inputs[name], out, *where))
        process.start()
        process.join()
        ended.append(process.exitcode)
    assert ended == [0, -signal.SIGKILL, 0]
    for mine, theirs in zip(*(final(tmp_path / run, settings["steps"]) for run in ("killed", "whole")), strict=True):
        assert alike(mine, theirs)
