"""The distance to a reference: estimators of KL(policy, reference) from samples of the policy, and their control.

With d = log p - log p_ref of a sampled token: k1 = d, k2 = d^2 / 2, k3 = e^-d - 1 + d (Schulman 2020, "Approximating KL
divergence"). k1 and k3 have the KL as their mean; k2 and k3 are never negative. As a loss, k2's gradient is that of the
KL and k3's that of KL(reference, policy) at its samples, while k1's is 0 on average: k1 belongs into the reward.
"""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

LOG_RATIO_LIMIT = 20.0  # keeps exp finite: at bfloat16's rounding a single token may differ by hundreds (verl#891)


def k1(difference: Tensor) -> Tensor:
    """d: no bias, much variance."""
    return difference


def k2(difference: Tensor) -> Tensor:
    """d^2 / 2: little variance, biased away from the reference."""
    return 0.5 * difference.square()


def k3(difference: Tensor) -> Tensor:
    """e^-d - 1 + d: no bias, little variance near the reference. d is held within 20 nats."""
    difference = difference.clamp(-LOG_RATIO_LIMIT, LOG_RATIO_LIMIT)
    return (-difference).exp() - 1 + difference


ESTIMATORS: dict[str, Callable[[Tensor], Tensor]] = {"k1": k1, "k2": k2, "k3": k3}


class KLController:
    """The coefficient of the KL penalty: fixed, or steered to a target (Ziegler et al. 2019, section 2.2).

    error = clip(kl / target - 1, -0.2, 0.2); coefficient *= 1 + error * rollouts / horizon.
    """

    def __init__(self, coefficient: float, target: float | None = None, horizon: int = 10_000) -> None:
        self.coefficient, self.target, self.horizon = coefficient, target, horizon

    def update(self, kl_per_answer: float, rollouts: int) -> None:
        """Moves the coefficient after so many rollouts whose mean KL an answer, in nats, was this."""
        if self.target is None:
            return
        error = min(max(kl_per_answer / self.target - 1, -0.2), 0.2)
        self.coefficient *= 1 + error * min(rollouts / self.horizon, 1.0)
