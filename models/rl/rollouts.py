"""From answers to what is learned from them: tensors, log-probabilities, rewards, advantages, and figures of a step.

Rows are padded on the right, where a causal model needs no mask; ids are those that were sampled.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import Tensor, nn

from models.objectives.bradley_terry import right_padded
from models.rl.advantages import ADVANTAGES, Graded, explained_variance, whiten, without_variance
from models.rl.answers import Answer
from models.rl.config import RolloutConfig
from models.rl.kl import ESTIMATORS
from models.rl.policy import Rollouts, action_log_probs, action_values, token_rewards, weights_of


@dataclass(frozen=True, slots=True)
class Laid:
    """Answers as tensors, rows padded on the right; names as in `Rollouts`. sampled: log-probabilities of sampling."""

    tokens: Tensor
    starts: Tensor
    actions: Tensor
    mask: Tensor
    sampled: Tensor
    ended: Tensor

    def rows(self, some: slice) -> Laid:
        """Some of them, as wide as all."""
        return Laid(*(getattr(self, part.name)[some] for part in fields(self)))


def lay_out(answers: Sequence[Answer], device: torch.device) -> Laid:
    """Answers as tensors on a device."""
    tokens, _ = right_padded([answer.prompt + answer.tokens for answer in answers])
    actions, _ = right_padded([answer.tokens for answer in answers])
    mask, sampled = torch.zeros(actions.shape), torch.zeros(actions.shape)
    for row, answer in enumerate(answers):
        mask[row, : len(answer.tokens)] = torch.tensor(answer.written, dtype=torch.float32)
        sampled[row, : len(answer.tokens)] = torch.tensor(answer.log_probs, dtype=torch.float32)
    starts = torch.tensor([len(answer.prompt) for answer in answers])
    ended = torch.tensor([answer.ended for answer in answers])
    return Laid(*(part.to(device) for part in (tokens, starts, actions, mask, sampled, ended)))


@torch.no_grad()
def log_probs_of(network: nn.Module, laid: Laid, config: RolloutConfig, vocabulary: int) -> Tensor:
    """Log-probabilities (B, A) of what was written, in passes of the rows that a micro-batch of training has."""
    return torch.cat(
        [
            action_log_probs(
                network,
                laid.tokens[rows],
                laid.starts[rows],
                laid.actions[rows],
                laid.mask[rows],
                config.temperature,
                vocabulary,
            )[0]
            for rows in _passes(laid, config)
        ]
    )


@torch.no_grad()
def values_of(critic: nn.Module, laid: Laid, config: RolloutConfig) -> Tensor:
    """The critic's values (B, A), in the same passes."""
    return torch.cat(
        [action_values(critic, laid.tokens[r], laid.starts[r], laid.mask[r]) for r in _passes(laid, config)]
    )


def _passes(laid: Laid, config: RolloutConfig) -> list[slice]:
    return [slice(first, first + config.rows) for first in range(0, len(laid.tokens), config.rows)]


def graded(
    config: RolloutConfig,
    laid: Laid,
    scores_B: Tensor,
    old_BA: Tensor,
    reference_BA: Tensor,
    values_BA: Tensor | None,
    kl_coefficient: float,
) -> tuple[Rollouts, Tensor, dict[str, float]]:
    """Rollouts to learn from, which rows of them teach anything, and figures over all.

    scores: of each answer, penalties left out. Figures: `score` and `score_std`, `reward` (the score less penalties,
    with the KL where it is in the reward), `kl_per_token` and `kl_per_answer` (k1, nats, to the reference), `eos_rate`,
    `answer_tokens` and their deviation, `length_correlation` of score and tokens, `logprob_gap` (the largest difference
    between sampling and training), `zero_variance` (the share of groups whose answers scored alike) and
    `explained_variance` of the critic.
    """
    mask, count = laid.mask, laid.mask.sum().clamp(min=1)
    final = scores_B.clamp(-config.reward_clip, config.reward_clip)
    if config.truncated == "penalise":
        final = final - config.missing_eos_penalty * ~laid.ended
    difference = (old_BA - reference_BA) * mask
    in_reward = config.kl_in == "reward"
    penalties = ESTIMATORS[config.kl_estimator](difference) * (kl_coefficient if in_reward else 0.0)
    rewards = token_rewards(final, penalties, mask)
    groups = torch.arange(len(mask), device=mask.device) // config.group
    advantages = ADVANTAGES[config.advantage](Graded(rewards, mask, groups, values_BA, *config.estimation))
    teaching = torch.ones_like(laid.ended)
    alike = torch.zeros_like(laid.ended)
    returns = None
    if config.group > 1:
        alike = without_variance(final, groups)
    if config.advantage == "gae":
        returns = None if values_BA is None else (advantages + values_BA) * mask
        advantages = whiten(advantages, mask)
    else:
        teaching &= ~alike
    if config.truncated == "mask":
        teaching &= laid.ended
    gaps = (old_BA - laid.sampled).abs() * mask
    lengths = mask.sum(1)
    figures = {
        "score": float(scores_B.mean()),
        "score_std": float(scores_B.std(correction=0)),
        "reward": float(rewards.sum() / len(mask)),
        "kl_per_token": float(difference.sum() / count),
        "kl_per_answer": float(difference.sum() / len(mask)),
        "eos_rate": float(laid.ended.float().mean()),
        "answer_tokens": float(lengths.mean()),
        "answer_tokens_std": float(lengths.std(correction=0)),
        "length_correlation": correlation(scores_B, lengths),
        "logprob_gap": float(gaps.max()),
    }
    if config.group > 1:
        figures["zero_variance"] = float(alike.float().mean())
    if values_BA is not None and returns is not None:
        figures["explained_variance"] = explained_variance(values_BA, returns, mask)
    importance = None
    if config.importance_cap is not None:
        importance = (old_BA - laid.sampled).exp().clamp(max=config.importance_cap) * mask
    in_loss = not in_reward and kl_coefficient > 0
    rollouts = Rollouts(
        laid.tokens,
        laid.starts,
        laid.actions,
        mask,
        weights_of(mask, config.aggregate, config.new_tokens),
        old_BA,
        advantages,
        reference_BA if in_loss else None,
        torch.full_like(scores_B, kl_coefficient) if in_loss else None,
        values_BA,
        returns,
        importance,
    )
    return rollouts, teaching, figures


def correlation(one: Tensor, other: Tensor) -> float:
    """Pearson's correlation of two lists of numbers; 0 where one of them doesn't vary."""
    both = torch.stack((one, other)).double()
    centred = both - both.mean(1, keepdim=True)
    lengths = centred.norm(dim=1)
    if float(lengths.min()) < 1e-9:
        return 0.0
    return float((centred[0] * centred[1]).sum() / lengths.prod())


def rows_of(rollouts: Rollouts, places: Sequence[int]) -> Rollouts:
    """Some rows of a batch of rollouts, as wide as all of it: equal widths give equal numbers."""
    chosen = torch.tensor(list(places), device=rollouts.tokens.device)
    parts = {field.name: getattr(rollouts, field.name) for field in fields(rollouts)}
    some: dict[str, Any] = {name: None if part is None else part[chosen] for name, part in parts.items()}
    return Rollouts(**some)
