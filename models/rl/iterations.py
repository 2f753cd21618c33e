"""The iterations of learning from rollouts: a step answers prompts with the weights as they are, and learns from that.

Prompts and random numbers of a step are a function of (seed, step), so a killed run resumes bit-equal at the last saved
iteration, and no prompt is skipped or seen twice.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from datalake.errors import UserError
from models.objectives.bradley_terry import scores_of
from models.rl.answers import Answer, Engine, Observe
from models.rl.config import RolloutConfig
from models.rl.kl import KLController
from models.rl.policy import ActorCritic, Rollouts
from models.rl.recorder import Recorder
from models.rl.rewards import MODEL, Asked, Rewards
from models.rl.rollouts import Laid, graded, lay_out, log_probs_of, rows_of, values_of
from models.text.tokenizer import vocabulary_size
from models.training.device import device_of
from models.training.epochs import Epochs, draw
from models.training.loop import Callback, Run

_LARGEST = 1e15  # score, long clipped where it is learned from: figures of larger ones overflow float32


class Prompts:
    """Which prompts each step answers, `group` times each: all of them once before any comes again."""

    def __init__(self, prompts: int, seed: int, batch: int, group: int = 1) -> None:
        self.batch, self.group, self.epochs = batch, group, Epochs([1] * prompts, seed, 1)

    def items(self, step: int) -> list[int]:
        """The prompts of a step, counted from 0, row by row."""
        each = self.batch // self.group
        chosen = [self.epochs.items(place)[0] for place in range(step * each, (step + 1) * each)]
        return [item for item in chosen for _ in range(self.group)]


class Iterations(Callback):
    """Gives each step its rollouts and updates, adds their figures to its row, and steers the KL coefficient.

    rows: of each prompt what reward functions are given beside its text. judge: the reward model, where one is asked.
    """

    name = "rollouts"

    def __init__(
        self,
        config: RolloutConfig,
        model: nn.Module,
        reference: nn.Module,
        engine: Engine,
        prompts: Sequence[list[int]],
        rows: Sequence[Mapping[str, Any]],
        words: Any,
        rewards: Rewards,
        judge: nn.Module | None = None,
        observe: Observe | None = None,
        recorder: Recorder | None = None,
    ) -> None:
        self.config, self.model, self.reference, self.engine = config, model, reference, engine
        self.prompts, self.rows, self.words = prompts, rows, words
        self.rewards, self.judge, self.observe, self.recorder = rewards, judge, observe, recorder
        self.order = Prompts(len(prompts), config.seed, config.batch, config.group)
        target = config.kl_target if config.kl_control == "adaptive" else None
        self.controller = KLController(config.kl_coefficient, target, config.kl_horizon)
        self.figures: dict[str, float] = {}
        self.computing: Callable[[], AbstractContextManager[Any]] = nullcontext  # as precisely as it is trained

    @property
    def policy(self) -> nn.Module:
        """The network that answers."""
        return self.model.policy if isinstance(self.model, ActorCritic) else self.model

    @cached_property
    def vocabulary(self) -> int:
        """Ids that can be written."""
        return vocabulary_size(self.words)

    def __call__(self, step: int) -> Iterator[list[Rollouts]]:
        """The updates of a step. The first pass keeps the order in which the old log-probabilities were taken."""
        config = self.config
        rollouts, teaching = self.roll_out(step)
        self.model.train()
        for epoch in range(config.epochs):
            order = teaching
            if epoch:
                order = [teaching[place] for place in draw(config.seed, 2, step, epoch).permutation(len(teaching))]
            parts = [
                rows_of(rollouts, order[first : first + config.rows]) for first in range(0, len(order), config.rows)
            ]
            for first in range(0, len(parts), config.accumulation):
                yield parts[first : first + config.accumulation]

    @torch.no_grad()
    def roll_out(self, step: int) -> tuple[Rollouts, list[int]]:
        """The rollouts of a step, and the rows of them that teach anything; leaves the step's figures behind."""
        config, items = self.config, self.order.items(step)
        self.model.eval()
        device = device_of(self.policy)
        seeds = draw(config.seed, 1, step).integers(2**62, size=len(items)).tolist()
        self.engine.version = step
        answers = self.answers([self.prompts[item] for item in items], seeds)
        laid = lay_out(answers, device)
        columns = self.scores(answers, [self.rows[item] for item in items])
        total = self.rewards.total(columns)
        scores = torch.tensor(total, dtype=torch.float64).clamp(-_LARGEST, _LARGEST).float().to(device)
        with self.computing():
            old = self.old_log_probs(laid, step)
            reference = log_probs_of(self.reference, laid, config, self.vocabulary)
            values = values_of(self.model.critic, laid, config) if isinstance(self.model, ActorCritic) else None
        rollouts, teaching, self.figures = graded(
            config, laid, scores, old, reference, values, self.controller.coefficient
        )
        named = {f"reward_{name}": column for name, column in columns.items()}
        self.figures |= {name: sum(column) / len(column) for name, column in named.items()}
        if self.recorder is not None:
            kl = ((old - reference) * laid.mask).sum(1).tolist()
            self.recorder.step(step, answers, {"score": total, **named, "kl": kl})
        if config.exact == "on" and self.figures["logprob_gap"]:
            raise UserError(
                f"sampling and training differ by {self.figures['logprob_gap']:.3g} nats at step {step + 1}: this "
                "machine can't be exact with this model at this precision; set exact to auto, or precision to float32, "
                "or use one thread (OMP_NUM_THREADS=1)"
            )
        return rollouts, teaching.nonzero()[:, 0].tolist()

    def old_log_probs(self, laid: Laid, step: int) -> Tensor:
        """Log-probabilities (B, A) by the weights that answered, as training's pass computes them.

        Where sampling is exact these are sampling's own: one micro-batch is computed to see that it still is so, and
        everything where it isn't, or where the run is to end at the first difference.
        """
        config = self.config
        if self.engine.exact and config.exact == "auto":
            first = int(draw(config.seed, 3, step).integers(len(laid.tokens))) // config.rows * config.rows
            some = laid.rows(slice(first, first + config.rows))
            if torch.equal(log_probs_of(self.policy, some, config, self.vocabulary), some.sampled):
                return laid.sampled
        return log_probs_of(self.policy, laid, config, self.vocabulary)

    def answers(self, prompts: Sequence[list[int]], seeds: Sequence[int]) -> list[Answer]:
        """An answer to each prompt, with what tools give back."""
        with self.computing():
            return self.engine(prompts, seeds, self.observe)

    def scores(self, answers: Sequence[Answer], rows: Sequence[Mapping[str, Any]]) -> dict[str, list[float]]:
        """Each reward of each answer."""
        scored: dict[str, list[float]] = {}
        if self.judge is not None:
            dialogues = [answer.prompt + answer.tokens for answer in answers]
            scored[MODEL] = scores_of(self.judge, dialogues, self.config.rows).tolist()
        return self.rewards([self.asked(*both) for both in zip(answers, rows, strict=True)], scored)

    def asked(self, answer: Answer, row: Mapping[str, Any]) -> Asked:
        """An answer as reward functions see it: its last turn, control tokens and all, but for the one that ends it."""
        turns = [message["content"] for message in row["messages"] if message["role"] == "user"]
        ids = answer.tokens[: -1 if answer.ended else None]
        last = max((place + 1 for place, on in enumerate(answer.written[: len(ids)]) if not on), default=0)
        text = str(self.words.decode(ids[last:], clean_up_tokenization_spaces=False))
        return Asked(turns[-1] if turns else "", text, dict(row))

    def on_step(self, run: Run, row: dict[str, float]) -> None:
        """Adds the rollouts' figures and moves the coefficient by their KL."""
        self.engine.version = run.state.step
        row |= {**self.figures, "kl_coefficient": self.controller.coefficient}
        self.controller.update(self.figures["kl_per_answer"], self.config.batch)

    def saved(self) -> dict[str, Any]:
        """The controller's coefficient."""
        return {"coefficient": self.controller.coefficient}

    def load(self, saved: dict[str, Any]) -> None:
        """Puts it back."""
        self.controller.coefficient = saved["coefficient"]
