"""PPO against a learned reward model: the tuned model learns to give answers that score well, and stays near itself.

A step is one iteration: rollouts for `batch` prompts with the weights as they are, then `epochs` passes of
`minibatches` updates. Policy and critic are two networks in one loop; the reference is the policy as it was; the
coefficient of the KL penalty is fixed or steered. Prompts and random numbers of a step are a function of (seed, step),
so a killed run resumes bit-equal at the last saved iteration.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from datalake.errors import UserError
from datalake.files import folder_version
from datalake.identity import fingerprint
from models.methods.reward import load_reward_model
from models.methods.sft import load_language_model
from models.network import checkpoint
from models.network.build import ScalarHead
from models.objectives.ppo import ActorCritic, KLController, Rollouts
from models.objectives.ppo import ppo as ppo_objective
from models.rl.rollouts import RolloutSettings, roll_out, rows_of
from models.text.packing import Fitted, Messages, fit_all, fit_prompt
from models.text.tokenizer import stop_ids
from models.training.callbacks import Checkpoints, Metrics, Progress, Row, SpikeGuard, read_metrics
from models.training.config import PpoConfig
from models.training.epochs import Epochs, draw
from models.training.loop import Callback, Run, context_of, fit, load_state
from models.training.optimizer import build_optimizer
from models.training.schedule import schedule_of


class Order:
    """Which prompts each step answers: all of them once before any comes again."""

    def __init__(self, config: PpoConfig, prompts: int) -> None:
        self.batch, self.epochs = config.batch, Epochs([1] * prompts, config.seed, 1)

    def items(self, step: int) -> list[int]:
        """The prompts of a step, counted from 0, row by row."""
        return [self.epochs.items(place)[0] for place in range(step * self.batch, (step + 1) * self.batch)]


class Iterations(Callback):
    """Gives each step its rollouts and updates, adds their figures to its row, and steers the KL coefficient."""

    name = "ppo"

    def __init__(
        self,
        config: PpoConfig,
        model: ActorCritic,
        reference: nn.Module,
        judge: nn.Module,
        prompts: Sequence[list[int]],
        settings: RolloutSettings,
    ) -> None:
        self.config, self.model, self.reference, self.judge = config, model, reference, judge
        self.prompts, self.settings = prompts, settings
        self.order = Order(config, len(prompts))
        target = config.kl_target if config.kl_control == "adaptive" else None
        self.controller = KLController(config.kl_coefficient, target, config.kl_horizon)
        self.figures: Row = {}

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

    def on_step(self, run: Run, row: Row) -> None:
        """Adds the rollouts' figures and moves the coefficient by their KL."""
        row |= {**self.figures, "kl_coefficient": self.controller.coefficient}
        self.controller.update(self.figures["kl_per_answer"], self.config.batch)

    def saved(self) -> dict[str, Any]:
        """The controller's coefficient."""
        return {"coefficient": self.controller.coefficient}

    def load(self, saved: dict[str, Any]) -> None:
        """Puts it back."""
        self.controller.coefficient = saved["coefficient"]


def ppo(
    config: PpoConfig,
    policy: Path,
    reward_model: Path,
    prompts: Sequence[Messages],
    out: Path,
    on_step: Callable[[dict[str, Any]], None] | None = None,
) -> dict[str, Any]:
    """Trains the model in `policy` on prompts (messages ending with the user's) and writes it to `out/checkpoint`.

    `reward_model` is a folder that `reward` wrote, with the policy's tokenizer. A prompt is made to
    leave room for an answer as `models.text.packing` has it; `left_out` of the report has [number in `prompts`, reason,
    tokens, room] of each that can't be. Each step's metrics hold the score, KL to the reference, entropy, clip
    fraction, approximate KL, explained variance and the share of answers that end.
    Returns a report of plain values. Raises UserError when no prompt is left or the tokenizers differ.
    """
    torch.manual_seed(config.seed)
    actor, words = load_language_model(policy)
    reference, _ = load_language_model(policy)
    judge, judges_words = load_reward_model(reward_model)
    if words.get_vocab() != judges_words.get_vocab():
        raise UserError(
            f"{policy} and {reward_model} have different tokenizers: train the reward model from this policy"
        )
    body = load_reward_model(reward_model)[0].trunk if config.critic == "reward" else checkpoint.load(policy)[0]
    critic = ScalarHead(body, "zero")
    for frozen in (reference, judge):
        frozen.eval().requires_grad_(False)
    room = min(context_of(actor), context_of(judge)) - config.new_tokens
    fitted = fitting(prompts, words, room)
    rendered = fitted.items
    if not rendered:
        raise UserError(
            f"none of {len(prompts)} prompts leaves room for {config.new_tokens} new tokens: lower ppo.new_tokens"
        )
    model = ActorCritic(actor, critic)
    identity = fingerprint(
        {
            "stage": "ppo",
            "config": config,
            "policy": folder_version(policy),
            "reward_model": folder_version(reward_model),
            "prompts": rendered,
        }
    )
    iterations = Iterations(config, model, reference, judge, rendered, settings_of(config, words, actor))
    metrics = Metrics(out / "metrics.jsonl")
    guard = SpikeGuard(config.spike_sigma)
    state = fit(
        model,
        ppo_objective(
            config.temperature,
            config.policy_clip,
            config.value_clip,
            config.value_coefficient,
            config.entropy_coefficient,
            len(words),
        ),
        iterations,
        build_optimizer(config, {"policy": actor, "critic": critic}, {"critic": config.critic_learning_rate}),
        schedule_of(config, config.steps),
        [
            iterations,
            guard,
            metrics,
            Progress(on_step),
            Checkpoints(out / "state", config.checkpoint_every, identity),
        ],
        load_state(out / "state", identity),
        steps=config.steps,
        clip=config.clip,
    )
    checkpoint.save(actor, words, out / "checkpoint")
    rows = read_metrics(metrics.path)
    few = max(1, len(rows) // 5)
    return {
        "steps": state.step,
        "rollouts": state.step * config.batch,
        "prompts": len(rendered),
        **fitted.figures(room),
        "score_first": sum(row["score"] for row in rows[:few]) / few,
        "score_last": sum(row["score"] for row in rows[-few:]) / few,
        "kl_per_answer": metrics.last["kl_per_answer"],
        "kl_per_token": metrics.last["kl_per_token"],
        "kl_per_answer_largest": max(row["kl_per_answer"] for row in rows),
        "entropy": metrics.last["entropy"],
        "eos_rate": metrics.last["eos_rate"],
        "explained_variance": metrics.last["explained_variance"],
        "skipped": len(guard.events),
    }


def settings_of(config: PpoConfig, words: Any, model: Any = None) -> RolloutSettings:
    """How a config samples and scores; passes have the rows of a micro-batch, see `RolloutSettings`."""
    return RolloutSettings(
        new_tokens=config.new_tokens,
        temperature=config.temperature,
        rows=config.batch // (config.minibatches * config.accumulation),
        stop_ids=tuple(stop_ids(words, model)),
        vocabulary=len(words),
        missing_eos_penalty=config.missing_eos_penalty,
        reward_clip=config.reward_clip,
        gamma=config.gamma,
        lam=config.lam,
    )


def fitting(prompts: Sequence[Messages], words: Any, room: int) -> Fitted[list[int]]:
    """Prompts as tokens, at most `room` long."""
    return fit_all(prompts, lambda prompt: fit_prompt(prompt, words, room))
