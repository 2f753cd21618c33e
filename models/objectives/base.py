"""What an objective is: a small function from (model, batch) to a `Loss`, a sum over targets and how many there were.

Objectives return sums and never means, so that the loop can divide by the number of targets in the whole update: a
loss is then the same whatever the accumulation, the packing or the padding. A target is what the loss is a mean over:
a token for language modelling, a pair for a reward model, an action for PPO.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F

IGNORED = -100  # the target that no loss counts, torch's own convention


@dataclass(slots=True)
class Loss:
    """A loss over one micro-batch: the scalar sum to differentiate, its targets, and metrics summed over them."""

    total: Tensor
    targets: int
    sums: dict[str, Tensor] = field(default_factory=dict)


Objective = Callable[[nn.Module, Any], Loss]


def cross_entropy_sum(logits_NV: Tensor, targets_N: Tensor, z_loss: float = 0.0) -> tuple[Tensor, Tensor]:
    """The sum over N targets of -log p(target), in nats, and the same with `z_loss` times each squared log partition.

    The z-loss (Chowdhery et al. 2022, PaLM, section 5) keeps log sum exp near zero; 1e-4 is its usual weight.
    """
    plain = F.cross_entropy(logits_NV.float(), targets_N, reduction="sum")
    if not z_loss:
        return plain, plain
    return plain, plain + z_loss * logits_NV.float().logsumexp(-1).square().sum()
