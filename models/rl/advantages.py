"""How much better than expected each action was: a table of estimators, from the rewards of answers.

`gae` asks a critic (Schulman et al. 2016, arXiv 1506.02438); `group` and `leave_one_out` compare an answer with the
others to its prompt (GRPO: Shao et al. 2024, arXiv 2402.03300; RLOO: Ahmadian et al. 2024, arXiv 2402.14740). One more
is one more function in `ADVANTAGES`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

EPSILON = 1e-4  # beside a group's deviation


@dataclass(frozen=True, slots=True)
class Graded:
    """Answers with their rewards, rows by actions (B, A): `rewards` of each action, `mask` of what the policy wrote.

    groups (B): a number for each prompt. values: the critic's, where there is one. scale: whether a group's advantages
    are divided by its deviation.
    """

    rewards: Tensor
    mask: Tensor
    groups: Tensor
    values: Tensor | None = None
    gamma: float = 1.0
    lam: float = 0.95
    scale: bool = True

    @property
    def totals(self) -> Tensor:
        """The reward (B) of each answer in all."""
        return (self.rewards * self.mask).sum(1)


def gae(graded: Graded) -> Tensor:
    """delta_t = r_t + gamma V_{t+1} - V_t,  A_t = delta_t + gamma lam A_{t+1}; the last action ends all.

    t runs over the policy's own actions: what a tool gave back stands between two of them and is passed over.
    """
    rewards, mask = graded.rewards, graded.mask
    values = torch.zeros_like(rewards) if graded.values is None else graded.values
    advantages = torch.zeros_like(rewards)
    following, next_value = torch.zeros_like(rewards[:, 0]), torch.zeros_like(rewards[:, 0])
    for step in reversed(range(rewards.shape[1])):
        here = mask[:, step].bool()
        delta = rewards[:, step] + graded.gamma * next_value - values[:, step]
        found = delta + graded.gamma * graded.lam * following
        advantages[:, step] = torch.where(here, found, 0.0)
        following, next_value = torch.where(here, found, following), torch.where(here, values[:, step], next_value)
    return advantages


def group(graded: Graded) -> Tensor:
    """R - mean of the group, over its deviation (of a sample, n - 1) where `scale` says so; 0 in a group of one."""
    counts, means = _means(graded.totals, graded.groups)
    centred = graded.totals - means
    if graded.scale:
        variances = _means(centred.square(), graded.groups)[1] * counts / (counts - 1).clamp(min=1)
        centred = centred / (variances.sqrt() + EPSILON)
    return centred[:, None] * graded.mask


def leave_one_out(graded: Graded) -> Tensor:
    """R - mean of the others' to the same prompt; 0 in a group of one."""
    counts, means = _means(graded.totals, graded.groups)
    # R - (n mean - R) / (n - 1) = (R - mean) n / (n - 1)
    return ((graded.totals - means) * counts / (counts - 1).clamp(min=1))[:, None] * graded.mask


ADVANTAGES: dict[str, Callable[[Graded], Tensor]] = {"gae": gae, "group": group, "leave_one_out": leave_one_out}


def without_variance(scores_B: Tensor, groups_B: Tensor) -> Tensor:
    """Which rows (B) are of a group whose answers all scored the same: nothing is learned from comparing them."""
    first = torch.zeros_like(groups_B).scatter_reduce(
        0, groups_B, torch.arange(len(groups_B), device=groups_B.device), "amin", include_self=False
    )
    differs = (scores_B != scores_B[first[groups_B]]).long()
    return torch.zeros_like(groups_B).scatter_add(0, groups_B, differs)[groups_B] == 0


def whiten(values_BA: Tensor, mask_BA: Tensor, epsilon: float = 1e-8) -> Tensor:
    """Shifted and scaled to mean 0 and deviation 1 over the mask, 0 off it. Values that are all equal become 0."""
    count = mask_BA.sum().clamp(min=1)
    centred = (values_BA - (values_BA * mask_BA).sum() / count) * mask_BA
    return centred * (centred.square().sum() / count + epsilon).rsqrt()


def explained_variance(values_BA: Tensor, returns_BA: Tensor, mask_BA: Tensor) -> float:
    """1 - Var(R - V) / Var(R) over actions: 1 is a perfect critic, 0 one that says nothing; 0 where R doesn't vary."""
    chosen = mask_BA.bool()
    returns = returns_BA[chosen].double()
    spread = returns.var(correction=0)
    if not len(returns) or float(spread) < 1e-12:
        return 0.0
    return float(1 - (returns - values_BA[chosen].double()).var(correction=0) / spread)


def _means(totals_B: Tensor, groups_B: Tensor) -> tuple[Tensor, Tensor]:
    """The size (B) of each row's group, and the mean (B) over it. Groups are numbered from 0, less than rows."""
    zeros = torch.zeros_like(totals_B)
    counts = zeros.scatter_add(0, groups_B, torch.ones_like(totals_B))
    sums = zeros.scatter_add(0, groups_B, totals_B)
    return counts[groups_B], (sums / counts.clamp(min=1))[groups_B]
