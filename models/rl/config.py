"""What every method that learns from its own answers may be told; a method's own settings lie beside it."""

from __future__ import annotations

from typing import Annotated, Literal, NamedTuple, Self

from pydantic import Field, model_validator

from datalake.identity import Place
from models.network.config import OpenModel
from models.rl.rewards.config import RewardFunction
from models.rl.tools.config import ToolUse
from models.training.config import EvaluatedConfig


class Estimation(NamedTuple):
    """How advantages are told from rewards: the discount, the lambda of GAE, and whether a group's are divided by its
    deviation."""

    gamma: float = 1.0
    lam: float = 1.0
    scale: bool = True


class RolloutConfig(EvaluatedConfig):
    """Learning from rollouts. One step is one iteration: `batch` answers, then `epochs` passes of `minibatches` updates
    over them.
    """

    batch: int = Field(32, ge=1, le=65536, title="Rollouts", description="Answers sampled in each step.")
    group: int = Field(1, ge=1, le=4096, title="Group", description="Answers to each prompt.")
    learning_rate: float = Field(1e-4, gt=0, le=1, title="Learning rate", description="Of the policy.")
    schedule: Literal["constant", "cosine", "wsd"] = Field(
        "constant",
        title="Schedule",
        description="After the warm-up: hold, half a cosine, or hold and then fall in a line.",
    )
    weight_decay: float = Field(0.0, ge=0, le=10, title="Weight decay", description="On matrices only.")
    beta2: float = Field(0.999, ge=0, lt=1, title="Beta 2", description="AdamW's decay of the gradient's square.")
    epsilon: float = Field(1e-5, gt=0, le=1, title="Epsilon", description="AdamW's; 1e-5 tames the first updates.")
    spike_sigma: float = Field(0.0, ge=0, le=100, title="Spike guard", description="Off: this loss has no trend.")
    checkpoint_every: Annotated[int, Place()] = Field(
        5, ge=1, le=1_000_000, title="Checkpoint every", description="Steps between two states to resume from."
    )
    steps: int = Field(30, ge=1, le=1_000_000, title="Steps", description="Iterations of rollouts and updates.")
    epochs: int = Field(1, ge=1, le=100, title="Epochs", description="Passes over each batch of rollouts.")
    minibatches: int = Field(1, ge=1, le=1024, title="Minibatches", description="Updates in each pass.")

    new_tokens: int = Field(48, ge=1, le=65536, title="New tokens", description="Longest answer.")
    temperature: float = Field(1.0, gt=0, le=10, title="Temperature", description="Of sampling, and in each log-prob.")

    rewards: tuple[RewardFunction, ...] = Field(
        (),
        title="Rewards",
        description="Functions (prompt, answer, row) -> number, such as `rewards.py:correct` or `gsm8k`; none: the"
        " reward model judges alone.",
    )
    reward_model_weight: float | None = Field(
        None,
        ge=-1e6,
        le=1e6,
        title="Reward model's weight",
        description="Beside functions, whose weights are 1 unless given; empty: it isn't asked where there are any.",
    )
    exact: Literal["auto", "on", "off"] = Field(
        "auto",
        title="Exactly on policy",
        description="Sampling's log-probabilities are training's, to the bit. auto: where a self-test finds that this"
        " machine allows it, and some answers of every step are looked at; else the gap is a metric. on: all answers of"
        " every step are looked at, and the run ends where they differ.",
    )
    other_reward_model: Annotated[OpenModel | None, Place()] = Field(
        None,
        title="Another reward model",
        description="A folder whose model judges held-out answers and is never learned from: `heldout_other_NAME` falls"
        " where the reward is hacked.",
    )
    truncated: Literal["penalise", "mask", "keep"] = Field(
        "penalise",
        title="Truncated answers",
        description="Those that never end: lose `missing_eos_penalty`, train nothing, or count as they are.",
    )
    missing_eos_penalty: float = Field(
        1.0, ge=0, le=100, title="Missing-EOS penalty", description="Taken from the score of an answer that never ends."
    )
    reward_clip: float = Field(10.0, gt=0, le=1e6, title="Reward clip", description="Largest absolute score.")

    advantage: Literal["gae", "group", "leave_one_out"] = Field(
        "group", title="Advantage", description="From a critic, or from the other answers to a prompt."
    )
    aggregate: Literal["token", "sequence", "constant"] = Field(
        "token",
        title="Aggregate",
        description="A mean over tokens (DAPO), over answers (GRPO), or over answers by a constant length (Dr.GRPO).",
    )
    policy_clip: float = Field(0.2, gt=0, lt=1, title="Policy clip", description="How far the ratio may leave 1.")
    policy_clip_high: float | None = Field(
        None, gt=0, le=100, title="Policy clip above", description="The same above 1; empty: the same as below."
    )
    dual_clip: float | None = Field(
        None,
        gt=1,
        le=1e6,
        title="Dual clip",
        description="Largest weight of a bad answer that got likelier; 3 is usual.",
    )
    importance_cap: float | None = Field(
        None,
        gt=0,
        le=1e6,
        title="Importance cap",
        description="Where sampling isn't exact, tokens count by p / p_sampled, at most this; empty: all alike.",
    )
    entropy_coefficient: float = Field(0.0, ge=0, le=10, title="Entropy bonus", description="Weight of the entropy.")

    engine: Annotated[Literal["process", "ray", "vllm"], Place("process", "ray")] = Field(
        "process",
        title="Engine",
        description="Where answers are written: in the process that trains; by Ray actors, which gives the same ones;"
        " or by vLLM on a GPU, whose log-probabilities differ (see `importance_cap`).",
    )
    workers: Annotated[int, Place()] = Field(
        2, ge=1, le=10_000, title="Workers", description="Actors that write answers, with engine ray."
    )
    tools: tuple[ToolUse, ...] = Field(
        (), title="Tools", description="That the policy may call while it answers: `calculator`, `python`, `search`."
    )
    turns: int = Field(4, ge=1, le=1000, title="Turns", description="Results of tools that one answer may ask for.")
    samples_every: Annotated[int, Place()] = Field(
        10, ge=1, le=1_000_000, title="Samples every", description="Steps between two looks at some answers."
    )
    samples: Annotated[int, Place()] = Field(
        4, ge=0, le=1000, title="Samples", description="Answers kept at each look, drawn by the seed."
    )

    kl_in: Literal["reward", "loss"] = Field(
        "reward", title="KL in", description="Whether the distance to the start is taken from rewards or is a loss."
    )
    kl_estimator: Literal["k1", "k2", "k3"] = Field(
        "k1", title="KL estimator", description="From a token's log-probabilities; a loss takes k2 or k3."
    )
    kl_control: Literal["fixed", "adaptive"] = Field(
        "fixed", title="KL control", description="Hold the coefficient, or steer it to the target."
    )
    kl_coefficient: float = Field(0.05, ge=0, le=100, title="KL coefficient", description="The first, per token.")
    kl_target: float = Field(
        6.0, gt=0, le=1e6, title="KL target", description="Nats per answer that adaptive control seeks."
    )
    kl_horizon: int = Field(1000, ge=1, title="KL horizon", description="Rollouts over which adaptive control acts.")

    @model_validator(mode="after")
    def _parts(self) -> Self:
        if self.batch % (self.minibatches * self.accumulation):
            raise ValueError(
                f"batch {self.batch} must be a multiple of minibatches x accumulation "
                f"({self.minibatches} x {self.accumulation})"
            )
        if self.batch % self.group:
            raise ValueError(f"batch {self.batch} must be a multiple of group ({self.group}): answers to each prompt")
        if self.advantage != "gae" and self.group == 1:
            raise ValueError(f"advantage {self.advantage} compares the answers to a prompt: set group to 2 at least")
        weights = [reward.weight for reward in self.rewards] + [self.reward_model_weight or 0.0]
        if not any(weights) and (self.rewards or self.reward_model_weight is not None):
            raise ValueError("every reward weighs 0, which teaches nothing: give one of them a weight")
        if self.engine == "vllm" and self.exact == "on":
            raise ValueError("vLLM's log-probabilities aren't training's to the bit: set exact to auto")
        if self.kl_in == "loss" and self.kl_estimator == "k1":
            raise ValueError("k1 has no gradient on average: set kl_estimator to k2 or k3, or kl_in to reward")
        return self

    @property
    def judged(self) -> bool:
        """Whether a reward model is asked."""
        return not self.rewards or bool(self.reward_model_weight)

    @property
    def searches(self) -> bool:
        """Whether answers may look through the recipe's documents."""
        return any(use.tool == "search" for use in self.tools)

    @property
    def estimation(self) -> Estimation:
        """Of advantages; a method that can be told otherwise says so."""
        return Estimation()

    @property
    def rows(self) -> int:
        """Answers in one micro-batch."""
        return self.batch // (self.minibatches * self.accumulation)
