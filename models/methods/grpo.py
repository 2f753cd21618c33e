"""Group-relative policy optimisation: several answers to each prompt, each learned from as it beats the others.

No critic. `advantage`, `scale`, `aggregate` and the clips make it GRPO, RLOO, DAPO or Dr.GRPO. Groups whose answers all
scored alike teach nothing: they are left out and counted.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from models.methods.prompted import learned
from models.rl.config import Estimation, RolloutConfig


class GrpoConfig(RolloutConfig):
    """GRPO (Shao et al. 2024) as DAPO (Yu et al. 2025) has it: sums over tokens, a clip that is higher above."""

    batch: int = Field(64, ge=1, le=65536, title="Rollouts", description="Answers sampled in each step.")
    group: int = Field(8, ge=2, le=4096, title="Group", description="Answers to each prompt.")
    advantage: Literal["group", "leave_one_out"] = Field(
        "group", title="Advantage", description="Against the group's mean, or that of the others in it."
    )
    scale: bool = Field(
        True,
        title="Scale",
        description="Divide by the group's deviation, which Dr.GRPO doesn't.",
    )
    policy_clip_high: float | None = Field(
        0.28, gt=0, le=100, title="Policy clip above", description="The same above 1; empty: the same as below."
    )
    truncated: Literal["penalise", "mask", "keep"] = Field(
        "keep",
        title="Truncated answers",
        description="Those that never end: lose `missing_eos_penalty`, train nothing, or count as they are.",
    )
    kl_in: Literal["reward", "loss"] = Field(
        "loss", title="KL in", description="Whether the distance to the start is taken from rewards or is a loss."
    )
    kl_estimator: Literal["k1", "k2", "k3"] = Field(
        "k3", title="KL estimator", description="From a token's log-probabilities; a loss takes k2 or k3."
    )
    kl_coefficient: float = Field(0.0, ge=0, le=100, title="KL coefficient", description="The first, per token.")

    @property
    def estimation(self) -> Estimation:
        """By the group."""
        return Estimation(scale=self.scale)


grpo = learned("grpo", GrpoConfig, title="Group-relative policy optimisation", after="ppo", version="3")
