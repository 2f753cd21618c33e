"""PPO against a learned reward model: the tuned model learns to give answers that score well, and stays near itself.

A step is one iteration: rollouts for `batch` prompts with the weights as they are, then `epochs` passes of
`minibatches` updates. Policy and critic are two networks in one loop; the reference is the policy as it was; the
coefficient of the KL penalty is fixed or steered.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field, model_validator

from datalake.identity import Place
from models.training.config import TrainingConfig
from models.training.method import Ended, Method, Prepared, Seen

if TYPE_CHECKING:
    from models.rl.iterations import Prompts
    from models.rl.rollouts import RolloutSettings
    from models.text.packing import Fitted, Messages


class PpoConfig(TrainingConfig):
    """PPO against a learned reward model, with a critic, a frozen reference and KL control. One step is one iteration:
    `batch` rollouts, then `epochs` passes of `minibatches` updates over them.
    """

    batch: int = Field(32, ge=1, le=65536, title="Rollouts", description="Answers sampled in each step.")
    learning_rate: float = Field(1e-4, gt=0, le=1, title="Learning rate", description="Of the policy.")
    critic_learning_rate: float = Field(3e-4, gt=0, le=1, title="Critic learning rate", description="Of the critic.")
    schedule: Literal["constant", "cosine", "wsd"] = Field(
        "constant",
        title="Schedule",
        description="After the warm-up: hold, half a cosine, or hold and then fall in a line.",
    )
    weight_decay: float = Field(0.0, ge=0, le=10, title="Weight decay", description="On matrices only.")
    beta2: float = Field(0.999, ge=0, lt=1, title="Beta 2", description="AdamW's decay of the gradient's square.")
    epsilon: float = Field(1e-5, gt=0, le=1, title="Epsilon", description="AdamW's; 1e-5 tames the first updates.")
    spike_sigma: float = Field(
        0.0, ge=0, le=100, title="Spike guard", description="Off for PPO: its loss has no trend."
    )
    checkpoint_every: Annotated[int, Place()] = Field(
        5, ge=1, le=1_000_000, title="Checkpoint every", description="Steps between two states to resume from."
    )
    steps: int = Field(30, ge=1, le=1_000_000, title="Steps", description="Iterations of rollouts and updates.")
    epochs: int = Field(2, ge=1, le=100, title="Epochs", description="Passes over each batch of rollouts.")
    minibatches: int = Field(2, ge=1, le=1024, title="Minibatches", description="Updates in each pass.")
    new_tokens: int = Field(48, ge=1, le=65536, title="New tokens", description="Longest answer.")
    temperature: float = Field(1.0, gt=0, le=10, title="Temperature", description="Of sampling, and in each log-prob.")
    missing_eos_penalty: float = Field(
        1.0, ge=0, le=100, title="Missing-EOS penalty", description="Taken from the score of an answer that never ends."
    )
    reward_clip: float = Field(10.0, gt=0, le=1e6, title="Reward clip", description="Largest absolute score.")
    kl_control: Literal["fixed", "adaptive"] = Field(
        "adaptive", title="KL control", description="Hold the coefficient, or steer it to the target."
    )
    kl_coefficient: float = Field(0.05, ge=0, le=100, title="KL coefficient", description="The first, per token (k1).")
    kl_target: float = Field(
        6.0, gt=0, le=1e6, title="KL target", description="Nats per answer that adaptive control seeks."
    )
    kl_horizon: int = Field(1000, ge=1, title="KL horizon", description="Rollouts over which adaptive control acts.")
    gamma: float = Field(1.0, gt=0, le=1, title="Gamma", description="Discount of rewards.")
    lam: float = Field(0.95, ge=0, le=1, title="Lambda", description="Of generalised advantage estimation.")
    policy_clip: float = Field(0.2, gt=0, lt=1, title="Policy clip", description="How far the ratio may leave 1.")
    value_clip: float = Field(0.2, gt=0, le=1e6, title="Value clip", description="How far a value may move per step.")
    value_coefficient: float = Field(0.5, ge=0, le=100, title="Value coefficient", description="Weight of its loss.")
    entropy_coefficient: float = Field(0.0, ge=0, le=10, title="Entropy bonus", description="Weight of the entropy.")
    critic: Literal["reward", "policy"] = Field(
        "reward", title="Critic from", description="Whose body the critic starts with; its head starts at zero."
    )

    @model_validator(mode="after")
    def _parts(self) -> PpoConfig:
        if self.batch % (self.minibatches * self.accumulation):
            raise ValueError(
                f"batch {self.batch} must be a multiple of minibatches x accumulation "
                f"({self.minibatches} x {self.accumulation})"
            )
        return self


@dataclass
class Asked:
    """The prompts that leave room for an answer, as tokens, at most `room` of them."""

    config: PpoConfig
    fitted: Fitted[list[int]]
    room: int
    words: Any

    @property
    def steps(self) -> int:
        """Iterations."""
        return self.config.steps

    @cached_property
    def order(self) -> Prompts:
        """Which prompts each step answers."""
        from models.rl.iterations import Prompts

        return Prompts(len(self.fitted.items), self.config.seed, self.config.batch)

    def seen(self, step: int) -> list[Seen]:
        """The prompts of a step: (number in the list given, tokens of the prompt)."""
        fitted = self.fitted
        return [(fitted.numbers[item], len(fitted.items[item])) for item in self.order.items(step)]


def data(config: PpoConfig, policy: Path, reward_model: Path, prompts: Sequence[Messages]) -> Asked:
    """Prompts are messages ending with the user's, cut to leave room for an answer as `models.text.packing` has it.
    Raises UserError when none is left."""
    from datalake.errors import UserError
    from models.network.checkpoint import context_of
    from models.text import tokenizer as tokenizers
    from models.text.packing import fit_all, fit_prompt

    words = tokenizers.load(policy)
    room = min(context_of(policy), context_of(reward_model)) - config.new_tokens
    fitted = fit_all(prompts, lambda prompt: fit_prompt(prompt, words, room))
    if not fitted.items:
        raise UserError(
            f"none of {len(prompts)} prompts leaves room for {config.new_tokens} new tokens: lower ppo.new_tokens"
        )
    return Asked(config, fitted, room, words)


def prepare(config: PpoConfig, data: Asked, policy: Path, reward_model: Path, prompts: Sequence[Messages]) -> Prepared:
    """The model in `policy` learns; `reward_model` is a folder that `reward` wrote, with the policy's tokenizer.

    Each step's metrics hold the score, KL to the reference, entropy, clip fraction, approximate KL, explained variance
    and the share of answers that end. Raises UserError when the tokenizers differ.
    """
    from datalake.errors import UserError
    from datalake.files import folder_version
    from models.network.build import ScalarHead
    from models.network.checkpoint import load_language_model
    from models.objectives.ppo import ActorCritic
    from models.objectives.ppo import ppo as objective
    from models.rl.iterations import Iterations
    from models.rl.reward_model import load_reward_model
    from models.training.metrics import read_metrics

    actor, reference = load_language_model(policy), load_language_model(policy)
    judge, judges_words = load_reward_model(reward_model)
    if data.words.get_vocab() != judges_words.get_vocab():
        raise UserError(
            f"{policy} and {reward_model} have different tokenizers: train the reward model from this policy"
        )
    body = load_reward_model(reward_model)[0].trunk if config.critic == "reward" else load_language_model(policy)
    critic = ScalarHead(body, "zero")
    for network in (reference, judge):
        network.eval().requires_grad_(False)
    model, rendered = ActorCritic(actor, critic), data.fitted.items
    iterations = Iterations(config, model, reference, judge, rendered, settings_of(config, data.words, actor))

    def finish(ended: Ended) -> dict[str, Any]:
        rows = read_metrics(ended.metrics)
        few = max(1, len(rows) // 5)
        last = ("kl_per_answer", "kl_per_token", "entropy", "eos_rate", "explained_variance")
        return {
            "rollouts": ended.step * config.batch,
            "prompts": len(rendered),
            **data.fitted.figures(data.room),
            "score_first": sum(row["score"] for row in rows[:few]) / few,
            "score_last": sum(row["score"] for row in rows[-few:]) / few,
            "kl_per_answer_largest": max(row["kl_per_answer"] for row in rows),
            **{name: ended.last[name] for name in last},
        }

    return Prepared(
        model=model,
        objective=objective(
            config.temperature,
            config.policy_clip,
            config.value_clip,
            config.value_coefficient,
            config.entropy_coefficient,
            len(data.words),
        ),
        batches=iterations,
        words=data.words,
        inputs={
            "policy": folder_version(policy),
            "reward_model": folder_version(reward_model),
            "prompts": rendered,
        },
        written=actor,
        units={"policy": actor, "critic": critic},
        rates={"critic": config.critic_learning_rate},
        callbacks=[iterations],
        frozen=[reference, judge],
        finish=finish,
    )


def settings_of(config: PpoConfig, words: Any, model: Any = None) -> RolloutSettings:
    """How a config samples and scores; passes have the rows of a micro-batch, see `RolloutSettings`."""
    from models.rl.rollouts import RolloutSettings
    from models.text.tokenizer import stop_ids

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


ppo = Method("ppo", PpoConfig, data, prepare, title="PPO", after="reward", default=True, version="4")
