"""A reward model in use: how it is loaded, and the scale its scores are put on after training.

The head is moved and scaled so that the answers of training pairs, chosen and rejected, score 0 on average with
deviation 1, in the spirit of Ziegler et al. 2019 (section 2.1); this changes no preference and puts every reward model
on one scale for PPO. (On chosen answers alone the scale would be off wherever the model tells pairs apart well: they
then differ little from each other and much from all else.)
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from datalake.errors import UserError
from models.network import checkpoint
from models.network.build import ScalarHead
from models.objectives.bradley_terry import scores_of


@torch.no_grad()
def normalise(model: ScalarHead, dialogues: Sequence[list[int]], batch: int) -> dict[str, float]:
    """Moves and scales the head so that these dialogues score 0 on average with deviation 1.

    Scores that are all equal keep their scale. Returns the mean and deviation from before.
    """
    scores = scores_of(model, dialogues, batch).double()
    mean, deviation = float(scores.mean()), float(scores.std(correction=0))
    gain = 1 / deviation if deviation > 1e-6 else 1.0
    model.head.weight.mul_(gain)
    model.head.bias.copy_((model.head.bias - mean) * gain)
    return {"score_mean_before": mean, "score_std_before": deviation}


def load_reward_model(folder: Path) -> tuple[ScalarHead, Any]:
    """The reward model in a folder that `reward` wrote, and its tokenizer. Raises UserError where there is none."""
    model, words = checkpoint.load(folder)
    if not isinstance(model, ScalarHead):
        raise UserError(f"{folder} is not a reward model: give the checkpoint that the reward stage wrote")
    return model, words
