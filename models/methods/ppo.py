"""PPO: the tuned model learns to give answers that score well, and stays near itself.

Policy and critic are two networks in one loop; the reference is the policy as it was; the coefficient of the KL penalty
is fixed or steered.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from models.methods.prompted import learned
from models.rl.config import Estimation, RolloutConfig


class PpoConfig(RolloutConfig):
    """PPO (Schulman et al. 2017) with a critic, a frozen reference and KL control."""

    critic_learning_rate: float = Field(3e-4, gt=0, le=1, title="Critic learning rate", description="Of the critic.")
    epochs: int = Field(2, ge=1, le=100, title="Epochs", description="Passes over each batch of rollouts.")
    minibatches: int = Field(2, ge=1, le=1024, title="Minibatches", description="Updates in each pass.")
    advantage: Literal["gae", "group", "leave_one_out"] = Field(
        "gae", title="Advantage", description="From the critic, or from the other answers to a prompt."
    )
    kl_control: Literal["fixed", "adaptive"] = Field(
        "adaptive", title="KL control", description="Hold the coefficient, or steer it to the target."
    )
    gamma: float = Field(1.0, gt=0, le=1, title="Gamma", description="Discount of rewards.")
    lam: float = Field(0.95, ge=0, le=1, title="Lambda", description="Of generalised advantage estimation.")
    value_clip: float = Field(0.2, gt=0, le=1e6, title="Value clip", description="How far a value may move per step.")
    value_coefficient: float = Field(0.5, ge=0, le=100, title="Value coefficient", description="Weight of its loss.")
    critic: Literal["reward", "policy"] = Field(
        "reward",
        title="Critic from",
        description="Whose body the critic starts with (the policy's without a reward model); its head starts at zero.",
    )

    @property
    def estimation(self) -> Estimation:
        """By the critic."""
        return Estimation(self.gamma, self.lam)


def critic(config: PpoConfig, policy: Path, judge: Any) -> Any:
    """A network of its own, which says 0 of everything at first."""
    from copy import deepcopy

    from models.network.build import ScalarHead
    from models.network.checkpoint import load_language_model

    by_judge = judge is not None and config.critic == "reward"
    return ScalarHead(deepcopy(judge.trunk) if by_judge else load_language_model(policy), "zero")


ppo = learned("ppo", PpoConfig, critic, title="PPO", after="reward", default=True, version="6")
