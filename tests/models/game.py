"""The reversal game with its start, and how SFT, GRPO and PPO learn it: shared by tests and a benchmark."""

from __future__ import annotations

import statistics
from pathlib import Path
from typing import Any

from toys import asked, conversations, dialogue, reversals

from models.methods import METHODS
from models.training.metrics import read_metrics

GAME = Path(__file__).parent / "reversal"
START = GAME / "start"  # tuned for 55 steps: half of its digits are right
SHARED: dict[str, Any] = {
    "rewards": [f"{GAME / 'rewards.py'}:right"],
    "steps": 200,
    "minibatches": 4,
    "new_tokens": 8,
    "learning_rate": 1e-3,
    "warmup": 0.0,
    "truncated": "keep",
    "exact": "on",
    "checkpoint_every": 1000,
    "eval_every": 0,
}
SETTINGS: dict[str, dict[str, Any]] = {
    "grpo": SHARED | {"batch": 256, "group": 8},
    "ppo": SHARED
    | {"batch": 256, "epochs": 2, "critic_learning_rate": 1e-3, "schedule": "cosine", "floor": 0.1}
    | {"kl_control": "fixed", "kl_coefficient": 0.02},
}


def from_rewards(name: str, seed: int, out: Path, **more: Any) -> list[dict[str, float]]:
    """The metrics of every step of a method that learns from the reward alone."""
    method = METHODS[name]
    config = method.config(**SETTINGS[name] | {"seed": seed} | more)
    method(config, policy=START, prompts=asked(reversals(4000, seed=5)), heldout=[], out=out)
    return read_metrics(out / "metrics.jsonl")


def from_answers(out: Path, steps: int = 400) -> dict[str, Any]:
    """The report of SFT, which is shown the right answers."""
    sft = METHODS["sft"]
    rows = conversations([dialogue(*pair) for pair in reversals(4200, seed=1)])
    config = sft.config(batch=64, steps=steps, learning_rate=3e-3, eval_every=0, eval_rows=200)
    report: dict[str, Any] = sft(config, base=START, conversations=rows[200:], heldout=rows[:200], out=out)
    return report


def mean_of_five(rows: list[dict[str, float]], name: str = "score") -> list[float]:
    """The mean over each step and the four before it, as far as there are."""
    values = [row[name] for row in rows]
    return [statistics.fmean(values[max(0, place - 4) : place + 1]) for place in range(len(values))]
