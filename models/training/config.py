"""What a training run may be told: the config models of pretraining, supervised tuning, reward model and PPO.

What shapes the weights belongs to a run's identity; how often to save and to look, and at how much, is marked `Place`
and doesn't. Defaults suit a model of a few million parameters
on a small CPU. Nothing heavier than pydantic is imported, so that a recipe validates and a form draws in no time.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from datalake.identity import Place
from models.network.config import NetworkConfig


class TrainingConfig(BaseModel):
    """What every training stage shares: the batch, the optimizer, the schedule, how often to save and to evaluate."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    seed: int = Field(0, ge=0, lt=2**31, title="Seed", description="Of initial weights, data order and sampling.")
    batch: int = Field(16, ge=1, le=65536, title="Batch", description="Rows (sequences, dialogues or pairs) per step.")
    accumulation: int = Field(
        1, ge=1, le=4096, title="Accumulation", description="Parts a batch is computed in, to save memory; same result."
    )
    optimizer: Literal["adamw", "muon"] = Field(
        "adamw", title="Optimizer", description="muon takes the inner matrices, AdamW embeddings, head and scalars."
    )
    learning_rate: float = Field(1e-3, gt=0, le=1, title="Learning rate", description="The peak, for AdamW's share.")
    muon_learning_rate: float = Field(
        0.02, gt=0, le=1, title="Muon learning rate", description="The peak for the inner matrices under muon."
    )
    schedule: Literal["constant", "cosine", "wsd"] = Field(
        "cosine",
        title="Schedule",
        description="After the warm-up: hold, half a cosine, or hold and then fall in a line.",
    )
    warmup: float = Field(
        0.03, ge=0, le=1, title="Warm-up", description="Share of the steps; the rate rises in a line."
    )
    decay: float = Field(
        0.4, ge=0, le=1, title="Decay", description="Share of the steps in which a wsd schedule falls."
    )
    floor: float = Field(0.1, ge=0, le=1, title="Floor", description="Where a schedule ends, as a share of the peak.")
    weight_decay: float = Field(0.1, ge=0, le=10, title="Weight decay", description="On matrices only.")
    beta1: float = Field(0.9, ge=0, lt=1, title="Beta 1", description="AdamW's decay of the gradient's mean.")
    beta2: float = Field(0.95, ge=0, lt=1, title="Beta 2", description="AdamW's decay of the gradient's square.")
    epsilon: float = Field(
        1e-8, gt=0, le=1, title="Epsilon", description="AdamW's term beside the root, as torch has it."
    )
    clip: float = Field(1.0, ge=0, le=1e6, title="Gradient clip", description="Largest global norm; 0 for none.")
    spike_sigma: float = Field(
        6.0,
        ge=0,
        le=100,
        title="Spike guard",
        description="Deviations above the recent mean that skip a step; 0 is off.",
    )
    checkpoint_every: Annotated[int, Place()] = Field(
        50, ge=1, le=1_000_000, title="Checkpoint every", description="Steps between two states to resume from."
    )


class EvaluatedConfig(TrainingConfig):
    """What the stages with a held-out loss add."""

    eval_every: Annotated[int, Place()] = Field(
        100, ge=0, le=1_000_000, title="Evaluate every", description="Steps between two held-out losses; 0: at the end."
    )
    eval_rows: Annotated[int, Place()] = Field(
        64, ge=1, le=1_000_000, title="Held-out rows", description="Rows that each held-out figure is measured on."
    )


class PretrainConfig(EvaluatedConfig):
    """Next-token pretraining of a decoder from nothing. The vocabulary's size is the tokenizer's."""

    layers: int = Field(6, ge=1, le=256, title="Layers", description="Decoder blocks.")
    width: int = Field(192, ge=8, le=65536, title="Width", description="Of the residual stream; a multiple of heads.")
    heads: int = Field(6, ge=1, le=1024, title="Heads", description="Query heads of attention.")
    kv_heads: int = Field(3, ge=1, le=1024, title="KV heads", description="Key and value heads; they divide the heads.")
    hidden: int | None = Field(
        None,
        ge=8,
        le=262144,
        title="Hidden width",
        description="Of the feed-forward; empty: 8/3 of the width, rounded.",
    )
    context: int = Field(256, ge=8, le=1_048_576, title="Context", description="Tokens in a row.")
    tied: bool = Field(True, title="Tied head", description="The output head is the embedding.")
    qk_norm: bool = Field(False, title="QK-norm", description="Normalise queries and keys (then a Qwen3 folder).")
    steps: int = Field(
        300, ge=1, le=100_000_000, title="Steps", description="Optimizer steps, unless tokens are given."
    )
    tokens: int | None = Field(
        None, ge=1, title="Token budget", description="Tokens to train on; steps are then tokens / (batch x context)."
    )
    mask_documents: bool = Field(
        True, title="Mask documents", description="A token attends to its own document only, however rows are packed."
    )
    z_loss: float = Field(
        0.0, ge=0, le=1, title="z-loss", description="Weight of the squared log partition (1e-4 is usual)."
    )

    @model_validator(mode="after")
    def _shapes(self) -> PretrainConfig:
        self.network(64)
        return self

    def network(self, vocabulary: int) -> NetworkConfig:
        """The decoder's shape for a tokenizer of `vocabulary` tokens. Raises ValueError on sizes that don't fit."""
        return NetworkConfig(
            layers=self.layers,
            width=self.width,
            heads=self.heads,
            kv_heads=self.kv_heads,
            hidden=self.hidden or 0,
            context=self.context,
            tie=self.tied,
            qk_norm=self.qk_norm,
        ).sized(vocabulary)

    @property
    def total_steps(self) -> int:
        """The optimizer steps that the budget comes to."""
        return self.steps if self.tokens is None else max(1, -(-self.tokens // (self.batch * self.context)))


class SftConfig(EvaluatedConfig):
    """Supervised tuning on dialogues: the loss counts the assistant's tokens only."""

    learning_rate: float = Field(5e-4, gt=0, le=1, title="Learning rate", description="The peak, for AdamW's share.")
    weight_decay: float = Field(0.0, ge=0, le=10, title="Weight decay", description="On matrices only.")
    epochs: float = Field(2.0, gt=0, le=1000, title="Epochs", description="Times every dialogue is seen.")
    steps: int | None = Field(None, ge=1, title="Steps", description="Optimizer steps; empty: what the epochs come to.")
    context: int | None = Field(
        None, ge=8, title="Context", description="Longest dialogue in tokens, cut at its end; empty: the model's."
    )


class RewardConfig(EvaluatedConfig):
    """A reward model from pairs: Bradley-Terry on the difference of two scalar scores."""

    learning_rate: float = Field(3e-4, gt=0, le=1, title="Learning rate", description="The peak, for AdamW's share.")
    weight_decay: float = Field(0.01, ge=0, le=10, title="Weight decay", description="On matrices only.")
    epochs: float = Field(1.0, gt=0, le=1000, title="Epochs", description="Times every pair is seen.")
    steps: int | None = Field(None, ge=1, title="Steps", description="Optimizer steps; empty: what the epochs come to.")
    context: int | None = Field(
        None,
        ge=8,
        title="Context",
        description="Longest dialogue in tokens: old turns go first, then ends of answers; empty: the model's.",
    )
    label_smoothing: float = Field(
        0.0, ge=0, lt=0.5, title="Label smoothing", description="The share of pairs thought to be labelled wrongly."
    )


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
