"""PPO for language models, as pure functions over (B, T) tensors of actions with a mask, and as an objective.

Schulman et al. 2017 (arXiv 1707.06347) for the clipped losses, Schulman et al. 2016 (arXiv 1506.02438) for generalised
advantages, Ziegler et al. 2019 (arXiv 1909.08593) for the penalty on KL to a frozen reference and its controller. The
details follow "The N Implementation Details of RLHF with PPO" (Huang et al. 2024).

An action is a sampled token; `mask` is 1 on actions, 0 on padding. Every sum runs over actions alone.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.objectives.base import Loss, Objective

LOG_RATIO_LIMIT = 20.0  # keeps exp finite (OpenRLHF's clamp)


@dataclass(slots=True)
class Rollouts:
    """Sampled answers with what was known when they were sampled; rows are padded on the right.

    `tokens` (B, S): prompt and answer. `starts` (B): where each answer starts. All others (B, A), over actions:
    `actions` the sampled tokens, `mask`, `log_probs` of the policy then, `values` of the critic then, `advantages`
    (whitened) and `returns`.
    """

    tokens: Tensor
    starts: Tensor
    actions: Tensor
    mask: Tensor
    log_probs: Tensor
    values: Tensor
    advantages: Tensor
    returns: Tensor


class ActorCritic(nn.Module):
    """The policy and the critic as one module, for one loop and one saved state; they share no weights."""

    def __init__(self, policy: nn.Module, critic: nn.Module) -> None:
        super().__init__()
        self.policy = policy
        self.critic = critic


def action_positions(starts_B: Tensor, width: int, length: int) -> Tensor:
    """Where in a row stands the token from whose output each action was drawn: (B, width), start - 1 and on."""
    positions = starts_B[:, None] - 1 + torch.arange(width, device=starts_B.device)
    return positions.clamp(max=length - 1)


def at_actions(sequence_BSX: Tensor, positions_BA: Tensor) -> Tensor:
    """Outputs (B, S) or (B, S, X) picked at action positions: (B, A) or (B, A, X)."""
    rows = torch.arange(sequence_BSX.shape[0], device=sequence_BSX.device)[:, None]
    return sequence_BSX[rows, positions_BA]


def action_log_probs(
    policy: nn.Module,
    tokens_BS: Tensor,
    starts_B: Tensor,
    actions_BA: Tensor,
    mask_BA: Tensor,
    temperature: float,
    vocabulary: int | None = None,
) -> tuple[Tensor, Tensor]:
    """Log-probability (B, A) of each action and entropy (B, A) of its distribution, in nats; 0 off the mask.

    Logits are divided by the sampling temperature, and ids from `vocabulary` on (the embedding's spare rows) can't be
    drawn: these are the probabilities the actions were sampled with.
    """
    positions = action_positions(starts_B, actions_BA.shape[1], tokens_BS.shape[1])
    chosen = mask_BA.bool()
    hidden_ND = at_actions(policy(tokens_BS), positions)[chosen]
    logits_NV = policy.logits(hidden_ND)[:, :vocabulary].float() / temperature  # type: ignore[operator]
    log_probs_NV = F.log_softmax(logits_NV, -1)
    taken = log_probs_NV.gather(1, actions_BA[chosen][:, None])[:, 0]
    entropies = -(log_probs_NV.exp() * log_probs_NV).sum(-1)
    blank = torch.zeros(mask_BA.shape, dtype=taken.dtype, device=taken.device)
    return blank.masked_scatter(chosen, taken), blank.masked_scatter(chosen, entropies)


def action_values(critic: nn.Module, tokens_BS: Tensor, starts_B: Tensor, mask_BA: Tensor) -> Tensor:
    """The critic's value (B, A) of the state each action was taken in; 0 off the mask."""
    positions = action_positions(starts_B, mask_BA.shape[1], tokens_BS.shape[1])
    return at_actions(critic(tokens_BS), positions) * mask_BA


def token_rewards(
    scores_B: Tensor, log_probs_BA: Tensor, reference_BA: Tensor, mask_BA: Tensor, kl_coefficient: float
) -> Tensor:
    """The reward (B, A) of each action: minus the coefficient times k1 = log p - log reference; at the last, the score.

    k1 is the plain estimator of KL(policy, reference): its mean over samples of the policy is the KL.
    """
    rewards = -kl_coefficient * (log_probs_BA - reference_BA) * mask_BA
    last = mask_BA.sum(1).long() - 1
    return rewards.scatter_add(1, last.clamp(min=0)[:, None], (scores_B * (last >= 0))[:, None])


def advantages_and_returns(
    rewards_BA: Tensor, values_BA: Tensor, mask_BA: Tensor, gamma: float, lam: float
) -> tuple[Tensor, Tensor]:
    """Generalised advantages (B, A), and their sum with the values, the critic's target. The last action ends all.

    delta_t = r_t + gamma V_{t+1} - V_t,  A_t = delta_t + gamma lam A_{t+1}.
    """
    advantages = torch.zeros_like(rewards_BA)
    following = torch.zeros_like(rewards_BA[:, 0])
    next_value = torch.zeros_like(following)
    for step in reversed(range(rewards_BA.shape[1])):
        here = mask_BA[:, step]
        delta = rewards_BA[:, step] + gamma * next_value - values_BA[:, step]
        following = (delta + gamma * lam * following) * here
        next_value = values_BA[:, step] * here
        advantages[:, step] = following
    return advantages, (advantages + values_BA) * mask_BA


def whiten(values_BA: Tensor, mask_BA: Tensor, epsilon: float = 1e-8) -> Tensor:
    """Shifted and scaled to mean 0 and deviation 1 over the mask, 0 off it. Values that are all equal become 0."""
    count = mask_BA.sum().clamp(min=1)
    centred = (values_BA - (values_BA * mask_BA).sum() / count) * mask_BA
    return centred * (centred.square().sum() / count + epsilon).rsqrt()


def policy_loss(
    log_probs_BA: Tensor, old_BA: Tensor, advantages_BA: Tensor, mask_BA: Tensor, clip: float
) -> tuple[Tensor, dict[str, Tensor]]:
    """The sum over actions of max(-A r, -A clamp(r, 1 - clip, 1 + clip)), r = p / p_old; and sums of health figures.

    `approx_kl` is k3 = r - 1 - log r (Schulman 2020), never negative; `clip_fraction` the share where the clip decides.
    """
    log_ratio = (log_probs_BA - old_BA).clamp(-LOG_RATIO_LIMIT, LOG_RATIO_LIMIT) * mask_BA
    ratio = log_ratio.exp()
    plain = -advantages_BA * ratio
    clipped = -advantages_BA * ratio.clamp(1 - clip, 1 + clip)
    with torch.no_grad():
        sums = {
            "ratio": (ratio * mask_BA).sum(),
            "approx_kl": ((ratio - 1 - log_ratio) * mask_BA).sum(),
            "clip_fraction": ((clipped > plain) * mask_BA).sum(),
        }
    return (torch.maximum(plain, clipped) * mask_BA).sum(), sums


def value_loss(values_BA: Tensor, old_BA: Tensor, returns_BA: Tensor, mask_BA: Tensor, clip: float) -> Tensor:
    """The sum over actions of 0.5 max((V - R)^2, (V_clipped - R)^2), V_clipped within `clip` of the old value."""
    clipped = old_BA + (values_BA - old_BA).clamp(-clip, clip)
    worst = torch.maximum((values_BA - returns_BA).square(), (clipped - returns_BA).square())
    return 0.5 * (worst * mask_BA).sum()


def explained_variance(values_BA: Tensor, returns_BA: Tensor, mask_BA: Tensor) -> float:
    """1 - Var(R - V) / Var(R) over actions: 1 is a perfect critic, 0 one that says nothing; 0 where R doesn't vary."""
    chosen = mask_BA.bool()
    returns = returns_BA[chosen].double()
    spread = returns.var(correction=0)
    if not len(returns) or float(spread) < 1e-12:
        return 0.0
    return float(1 - (returns - values_BA[chosen].double()).var(correction=0) / spread)


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


def ppo(
    temperature: float,
    policy_clip: float = 0.2,
    value_clip: float = 0.2,
    value_coefficient: float = 0.5,
    entropy_coefficient: float = 0.0,
    vocabulary: int | None = None,
) -> Objective:
    """The objective over `Rollouts` for an `ActorCritic`: policy loss + coefficient x value loss - bonus x entropy."""

    def objective(model: nn.Module, batch: Rollouts) -> Loss:
        assert isinstance(model, ActorCritic)
        log_probs, entropies = action_log_probs(
            model.policy, batch.tokens, batch.starts, batch.actions, batch.mask, temperature, vocabulary
        )
        values = action_values(model.critic, batch.tokens, batch.starts, batch.mask)
        for_policy, sums = policy_loss(log_probs, batch.log_probs, batch.advantages, batch.mask, policy_clip)
        for_value = value_loss(values, batch.values, batch.returns, batch.mask, value_clip)
        entropy = entropies.sum()
        total = for_policy + value_coefficient * for_value
        if entropy_coefficient:
            total = total - entropy_coefficient * entropy
        sums |= {
            "policy_loss": for_policy.detach(),
            "value_loss": for_value.detach(),
            "entropy": entropy.detach(),
        }
        return Loss(total, batch.mask.sum(), sums, (batch.tokens.shape,))

    return objective
