"""Fifty steps of loss and gradient norm against what they once were: what changes training without a word is seen here.

A change that is meant writes them anew: `python tests/models/test_trajectory.py`, and a method's version goes up.
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

import pytest
from toys import asked, base, conversations, dialogue, reversals, shard, stories, words

from models.methods import METHODS
from models.text.shards import TokenShards
from models.training.metrics import read_metrics

STORED = Path(__file__).parent / "trajectories.json"
SHORT: dict[str, Any] = {"batch": 8, "eval_every": 0, "checkpoint_every": 1000}
SETTINGS: dict[str, dict[str, Any]] = {
    "pretrain": SHORT
    | {"steps": 50, "layers": 2, "width": 32, "heads": 4, "kv_heads": 2, "context": 32, "z_loss": 1e-4},
    "sft": SHORT | {"steps": 50, "accumulation": 2},
    "reward": SHORT | {"steps": 50, "label_smoothing": 0.1},
    "ppo": {"steps": 12, "batch": 8, "new_tokens": 6, "entropy_coefficient": 0.01},
}


def trajectories(folder: Path) -> dict[str, list[list[float]]]:
    """Loss and gradient norm of every step, of each method in turn."""
    tokenizer = words(folder / "tokenizer")
    tokens = shard(folder / "tokens", stories(40), tokenizer)
    start = base(folder / "base", tokenizer)
    talks = [dialogue(*pair) for pair in reversals(60, seed=1)]
    pairs = [{"prompt": talk[:1], "chosen": talk[1]["content"], "rejected": "0"} for talk in talks]
    prompts = asked(reversals(60, seed=1))
    inputs: dict[str, dict[str, Any]] = {
        "pretrain": {"shards": [tokens], "train": [(id, 1) for id in TokenShards(tokens).ids], "heldout": []}
        | {"tokenizer": folder / "tokenizer"},
        "sft": {"base": start, "conversations": conversations(talks), "heldout": []},
        "reward": {"base": start, "pairs": pairs, "heldout": []},
        "ppo": {"policy": start, "reward_model": folder / "reward" / "checkpoint", "prompts": prompts, "heldout": []},
    }
    found = {}
    for name, settings in SETTINGS.items():
        METHODS[name](METHODS[name].config(**settings), **inputs[name], out=folder / name)
        rows = read_metrics(folder / name / "metrics.jsonl")
        found[name] = [[row["loss"], row["grad_norm"]] for row in rows]
    return found


def test_training_goes_the_way_it_went(tmp_path: Path) -> None:
    stored, found = json.loads(STORED.read_text()), trajectories(tmp_path)
    assert found.keys() == stored.keys()
    for name, steps in stored.items():
        # other processors add in another order; what is sampled may then differ, so PPO is held to its first steps
        steps, mine = (steps[:3], found[name][:3]) if name == "ppo" else (steps, found[name])
        assert len(mine) == len(steps)
        for step, (want, have) in enumerate(zip(steps, mine, strict=True), 1):
            assert have == pytest.approx(want, rel=2e-3, abs=2e-4), f"{name}, step {step}"


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        text = json.dumps(trajectories(Path(folder)), indent=None)
    STORED.write_text(text.replace("], [", "],\n[").replace('"', '"') + "\n")
