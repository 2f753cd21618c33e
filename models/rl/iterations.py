"""The iterations of learning from rollouts: a step answers prompts with the weights as they are, and learns from that.

Prompts and random numbers of a step are a function of (seed, step), so a killed run resumes bit-equal at the last saved
iteration.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import nn

from models.objectives.ppo import ActorCritic, KLController, Rollouts
from models.rl.rollouts import RolloutSettings, roll_out, rows_of
from models.training.epochs import Epochs, draw
from models.training.loop import Callback, Run


class Prompts:
    """Which prompts each step answers: all of them once before any comes again."""

    def __init__(self, prompts: int, seed: int, batch: int) -> None:
        self.batch, self.epochs = batch, Epochs([1] * prompts, seed, 1)

    def items(self, step: int) -> list[int]:
        """The prompts of a step, counted from 0, row by row."""
        return [self.epochs.items(place)[0] for place in range(step * self.batch, (step + 1) * self.batch)]


class Iterations(Callback):
    """Gives each step its rollouts and updates, adds their figures to its row, and steers the KL coefficient."""

    name = "ppo"

    def __init__(
        self,
        config: Any,
        model: ActorCritic,
        reference: nn.Module,
        judge: nn.Module,
        prompts: Sequence[list[int]],
        settings: RolloutSettings,
    ) -> None:
        self.config, self.model, self.reference, self.judge = config, model, reference, judge
        self.prompts, self.settings = prompts, settings
        self.order = Prompts(len(prompts), config.seed, config.batch)
        target = config.kl_target if config.kl_control == "adaptive" else None
        self.controller = KLController(config.kl_coefficient, target, config.kl_horizon)
        self.figures: dict[str, float] = {}

    def __call__(self, step: int) -> Iterator[list[Rollouts]]:
        """The updates of a step. The first pass keeps the order in which the old log-probabilities were taken."""
        config = self.config
        rollouts, self.figures = roll_out(
            self.model,
            self.reference,
            self.judge,
            [self.prompts[item] for item in self.order.items(step)],
            self.settings,
            self.controller.coefficient,
            torch.Generator().manual_seed(int(draw(config.seed, 1, step).integers(2**62))),
        )
        self.model.train()
        rows = config.batch // (config.minibatches * config.accumulation)
        for epoch in range(config.epochs):
            order = list(range(config.batch))
            if epoch:
                order = draw(config.seed, 2, step, epoch).permutation(config.batch).tolist()
            parts = [rows_of(rollouts, order[first : first + rows]) for first in range(0, config.batch, rows)]
            for first in range(0, len(parts), config.accumulation):
                yield parts[first : first + config.accumulation]

    def on_step(self, run: Run, row: dict[str, float]) -> None:
        """Adds the rollouts' figures and moves the coefficient by their KL."""
        row |= {**self.figures, "kl_coefficient": self.controller.coefficient}
        self.controller.update(self.figures["kl_per_answer"], self.config.batch)

    def saved(self) -> dict[str, Any]:
        """The controller's coefficient."""
        return {"coefficient": self.controller.coefficient}

    def load(self, saved: dict[str, Any]) -> None:
        """Puts it back."""
        self.controller.coefficient = saved["coefficient"]
