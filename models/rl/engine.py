"""Answers in process."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from models.network.generate import generate
from models.rl.answers import Answer, Observe, Sampling


class Engine:
    """Answers of a model to prompts."""

    exact = False

    def __init__(self, model: nn.Module, sampling: Sampling, rows: int = 64) -> None:
        self.model, self.sampling, self.rows = model, sampling, rows

    def __call__(
        self, prompts: Sequence[list[int]], seeds: Sequence[int], observe: Observe | None = None
    ) -> list[Answer]:
        """One answer to each prompt."""
        sampling = self.sampling
        found = generate(
            self.model,
            list(prompts),
            max_new_tokens=sampling.new_tokens,
            temperature=sampling.temperature,
            eos_id=list(sampling.stop_ids),
            generator=torch.Generator().manual_seed(seeds[0]),
            vocabulary=sampling.vocabulary,
        )
        return [
            Answer(
                prompt,
                tokens,
                [True] * len(tokens),
                [0.0] * len(tokens),
                bool(tokens) and tokens[-1] in sampling.stop_ids,
            )
            for prompt, tokens in zip(prompts, found, strict=True)
        ]
