"""Learning from rollouts: what PPO and GRPO share, as pure functions over (B, A) actions with a mask, and an objective.

Schulman et al. 2017 (arXiv 1707.06347) for the clipped losses; Ye et al. 2020 (arXiv 1912.09729) for the dual clip; Yu
et al. 2025 (DAPO, arXiv 2503.14476) for a clip that is higher than low and sums over tokens; Liu et al. 2025 (Dr.GRPO,
arXiv 2503.20783) for sums over a constant; Ziegler et al. 2019 (arXiv 1909.08593) for the KL to a frozen reference. The
details follow "The N Implementation Details of RLHF with PPO" (Huang et al. 2024).

An action is a token that follows a prompt; `mask` is 1 on those that the policy wrote, 0 on what a tool gave back and
on padding. Every sum runs over the policy's actions alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from models.network.bitwise import log_softmax
from models.objectives.base import Loss, Objective
from models.rl import exact
from models.rl.kl import ESTIMATORS, LOG_RATIO_LIMIT

Aggregate = Literal["token", "sequence", "constant"]


@dataclass(slots=True)
class Rollouts:
    """Sampled answers with what was known when they were sampled; rows are padded on the right.

    `tokens` (B, S): prompt and answer. `starts` (B): where each answer starts. All others (B, A), over actions:
    `actions` the tokens, `mask`, `weights` in the loss (`weights_of`), `log_probs` of the policy then, `advantages`;
    the `reference`'s log-probabilities where the loss has a KL, `kl_coefficients` (B) its weight; `values` and
    `returns` where there is a critic; `importance`, by which tokens count that another policy or program sampled.
    """

    tokens: Tensor
    starts: Tensor
    actions: Tensor
    mask: Tensor
    weights: Tensor
    log_probs: Tensor
    advantages: Tensor
    reference: Tensor | None = None
    kl_coefficients: Tensor | None = None
    values: Tensor | None = None
    returns: Tensor | None = None
    importance: Tensor | None = None


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
    hidden_ND = at_actions(exact.hidden(policy, tokens_BS), positions)[chosen]
    log_probs_NV = log_softmax(policy, hidden_ND, temperature, vocabulary)
    taken = log_probs_NV.gather(1, actions_BA[chosen][:, None])[:, 0]
    entropies = -(log_probs_NV.exp() * log_probs_NV).sum(-1)
    blank = torch.zeros(mask_BA.shape, dtype=taken.dtype, device=taken.device)
    return blank.masked_scatter(chosen, taken), blank.masked_scatter(chosen, entropies)


def action_values(critic: nn.Module, tokens_BS: Tensor, starts_B: Tensor, mask_BA: Tensor) -> Tensor:
    """The critic's value (B, A) of the state each action was taken in; 0 off the mask."""
    positions = action_positions(starts_B, mask_BA.shape[1], tokens_BS.shape[1])
    return at_actions(critic(tokens_BS), positions) * mask_BA


def token_rewards(scores_B: Tensor, penalties_BA: Tensor, mask_BA: Tensor) -> Tensor:
    """The reward (B, A) of each action: minus its penalty; at the policy's last one also the answer's score."""
    rewards = -penalties_BA * mask_BA
    places = torch.arange(1, mask_BA.shape[1] + 1, device=mask_BA.device)
    last = (places * mask_BA).argmax(1, keepdim=True)
    return rewards.scatter_add(1, last, (scores_B * mask_BA.any(1))[:, None].to(rewards.dtype))


def weights_of(mask_BA: Tensor, aggregate: Aggregate, longest: int) -> Tensor:
    """What each action counts in the loss, of which the mean is then taken over tokens or over answers.

    token: all alike (DAPO). sequence: each answer alike, its tokens sharing its weight (GRPO). constant: one over the
    `longest` answer, so that a token counts the same in a long and in a short one (Dr.GRPO).
    """
    if aggregate == "token":
        return mask_BA
    return mask_BA / (mask_BA.sum(1, keepdim=True).clamp(min=1) if aggregate == "sequence" else longest)


def policy_loss(
    log_probs_BA: Tensor,
    old_BA: Tensor,
    advantages_BA: Tensor,
    mask_BA: Tensor,
    clip: float,
    clip_high: float | None = None,
    dual_clip: float | None = None,
) -> tuple[Tensor, dict[str, Tensor]]:
    """The loss (B, A) max(-A r, -A clamp(r, 1 - clip, 1 + clip_high)), r = p / p_old; and sums of health figures.

    `clip_high` is `clip` unless given. With `dual_clip` c the loss of a negative advantage is at most -c A. `approx_kl`
    is k3 = r - 1 - log r (Schulman 2020), never negative; `clip_fraction` the share where a clip decides.
    """
    log_ratio = (log_probs_BA - old_BA).clamp(-LOG_RATIO_LIMIT, LOG_RATIO_LIMIT) * mask_BA
    ratio = log_ratio.exp()
    plain = -advantages_BA * ratio
    clipped = -advantages_BA * ratio.clamp(1 - clip, 1 + (clip if clip_high is None else clip_high))
    loss = torch.maximum(plain, clipped)
    if dual_clip is not None:
        loss = torch.where(advantages_BA < 0, torch.minimum(loss, -dual_clip * advantages_BA), loss)
    with torch.no_grad():
        sums = {
            "ratio": (ratio * mask_BA).sum(),
            "approx_kl": ((ratio - 1 - log_ratio) * mask_BA).sum(),
            "clip_fraction": ((loss != plain) * mask_BA).sum(),
        }
    return loss, sums


def value_loss(values_BA: Tensor, old_BA: Tensor, returns_BA: Tensor, clip: float) -> Tensor:
    """The loss (B, A) 0.5 max((V - R)^2, (V_clipped - R)^2), V_clipped within `clip` of the old value."""
    clipped = old_BA + (values_BA - old_BA).clamp(-clip, clip)
    return 0.5 * torch.maximum((values_BA - returns_BA).square(), (clipped - returns_BA).square())


@dataclass(frozen=True, slots=True)
class PolicyLoss:
    """How the objective weighs what it adds up; names as in `RolloutConfig`."""

    temperature: float = 1.0
    vocabulary: int | None = None
    aggregate: Aggregate = "token"
    policy_clip: float = 0.2
    policy_clip_high: float | None = None
    dual_clip: float | None = None
    kl_estimator: str = "k3"
    entropy_coefficient: float = 0.0
    value_clip: float = 0.2
    value_coefficient: float = 0.5


def policy(settings: PolicyLoss) -> Objective:
    """The objective over `Rollouts`, for a policy or an `ActorCritic`: policy loss + KL + value loss - entropy.

    A target is a token or an answer, as `aggregate` has it. Metrics are means over tokens of a micro-batch.
    """

    def objective(model: nn.Module, batch: Rollouts) -> Loss:
        actor = model.policy if isinstance(model, ActorCritic) else model
        log_probs, entropies = action_log_probs(
            actor,
            batch.tokens,
            batch.starts,
            batch.actions,
            batch.mask,
            settings.temperature,
            settings.vocabulary,
        )
        loss, sums = policy_loss(
            log_probs,
            batch.log_probs,
            batch.advantages,
            batch.mask,
            settings.policy_clip,
            settings.policy_clip_high,
            settings.dual_clip,
        )
        if batch.importance is not None:
            loss = loss * batch.importance
        sums |= {"policy_loss": (loss.detach() * batch.mask).sum(), "entropy": (entropies.detach() * batch.mask).sum()}
        if batch.reference is not None and batch.kl_coefficients is not None:
            distance = ESTIMATORS[settings.kl_estimator](log_probs - batch.reference)
            loss = loss + batch.kl_coefficients[:, None] * distance
            sums["kl_loss"] = (distance.detach() * batch.mask).sum()
        if settings.entropy_coefficient:
            loss = loss - settings.entropy_coefficient * entropies
        if batch.values is not None and batch.returns is not None:
            assert isinstance(model, ActorCritic)
            values = action_values(model.critic, batch.tokens, batch.starts, batch.mask)
            for_value = value_loss(values, batch.values, batch.returns, settings.value_clip)
            loss = loss + settings.value_coefficient * for_value
            sums["value_loss"] = (for_value.detach() * batch.mask).sum()
        tokens = batch.mask.sum()
        targets = tokens if settings.aggregate == "token" else torch.tensor(float(len(batch.mask)))
        if settings.aggregate != "token":  # the loop divides by targets: figures stay means over tokens
            sums = {name: value * targets / tokens.clamp(min=1) for name, value in sums.items()}
        return Loss((loss * batch.weights).sum(), targets, sums, (batch.tokens.shape,))

    return objective
