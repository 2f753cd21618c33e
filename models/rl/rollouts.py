"""Rollouts: the policy answers prompts, and what PPO needs to learn from the answers is worked out.

Sampling, the reward model's scores, log-probabilities under the policy and the frozen reference, the critic's values,
rewards with the KL penalty, advantages. Prompts are padded on the left while sampling; for every later pass rows are
moved together and padded on the right, where a causal model needs no mask, and positions are the same in both.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import nn

from models.network.generate import generate
from models.objectives.bradley_terry import final_scores, right_padded
from models.objectives.ppo import (
    ActorCritic,
    Rollouts,
    action_log_probs,
    action_values,
    advantages_and_returns,
    explained_variance,
    token_rewards,
    whiten,
)
from models.training.device import device_of

ROLLOUT_FIELDS = tuple(Rollouts.__dataclass_fields__)


@dataclass(frozen=True, slots=True)
class RolloutSettings:
    """How answers are sampled and scored. `rows`: rows in one pass, also those of one micro-batch of training, so that
    the first update sees bit for bit the log-probabilities it starts from.
    """

    new_tokens: int
    temperature: float
    rows: int
    stop_ids: tuple[int, ...]
    vocabulary: int
    missing_eos_penalty: float
    reward_clip: float
    gamma: float
    lam: float


@torch.no_grad()
def roll_out(
    model: ActorCritic,
    reference: nn.Module,
    reward_model: nn.Module,
    prompts: Sequence[list[int]],
    settings: RolloutSettings,
    kl_coefficient: float,
    generator: torch.Generator,
) -> tuple[Rollouts, dict[str, float]]:
    """One answer to each prompt (token ids), and figures over the batch.

    Figures: `score` (mean under the reward model, penalties left out) and `score_std`, `reward` (score less penalties,
    with the KL penalty), `kl_per_token` and `kl_per_answer` (k1, nats, to the reference), `eos_rate`, `answer_tokens`,
    `explained_variance` of the critic.
    """
    model.eval()
    device = device_of(model)
    answers = generate(
        model.policy,
        list(prompts),
        max_new_tokens=settings.new_tokens,
        temperature=settings.temperature,
        top_p=1.0,  # any other value would sample from another distribution than the log-probabilities describe
        eos_id=list(settings.stop_ids),
        generator=generator,
        vocabulary=settings.vocabulary,
    )
    tokens, lengths = right_padded([prompt + answer for prompt, answer in zip(prompts, answers, strict=True)])
    starts = torch.tensor([len(prompt) for prompt in prompts])
    actions, counts = right_padded(answers)
    mask = (torch.arange(actions.shape[1]) < counts[:, None]).float()
    ended = torch.tensor([bool(answer) and answer[-1] in settings.stop_ids for answer in answers])
    tokens, lengths, starts, actions, mask, ended = (
        part.to(device) for part in (tokens, lengths, starts, actions, mask, ended)
    )

    scores, log_probs, reference_log_probs, values = [], [], [], []
    for first in range(0, len(prompts), settings.rows):
        rows = slice(first, first + settings.rows)
        passed = tokens[rows], starts[rows], actions[rows], mask[rows], settings.temperature, settings.vocabulary
        scores.append(final_scores(reward_model, tokens[rows], lengths[rows]))
        log_probs.append(action_log_probs(model.policy, *passed)[0])
        reference_log_probs.append(action_log_probs(reference, *passed)[0])
        values.append(action_values(model.critic, tokens[rows], starts[rows], mask[rows]))
    old, ref, value = torch.cat(log_probs), torch.cat(reference_log_probs), torch.cat(values)
    score = torch.cat(scores).float()
    final = score.clamp(-settings.reward_clip, settings.reward_clip) - settings.missing_eos_penalty * ~ended
    rewards = token_rewards(final, old, ref, mask, kl_coefficient)
    advantages, returns = advantages_and_returns(rewards, value, mask, settings.gamma, settings.lam)
    kl = ((old - ref) * mask).sum()
    figures = {
        "score": float(score.mean()),
        "score_std": float(score.std(correction=0)),
        "reward": float(rewards.sum() / len(prompts)),
        "kl_per_token": float(kl / mask.sum().clamp(min=1)),
        "kl_per_answer": float(kl / len(prompts)),
        "eos_rate": float(ended.float().mean()),
        "answer_tokens": float(counts.float().mean()),
        "explained_variance": explained_variance(value, returns, mask),
    }
    return Rollouts(tokens, starts, actions, mask, old, value, whiten(advantages, mask), returns), figures


def rows_of(rollouts: Rollouts, places: Sequence[int]) -> Rollouts:
    """Some rows of a batch of rollouts, as wide as all of it: equal widths give equal numbers."""
    chosen = torch.tensor(list(places), device=rollouts.tokens.device)
    return Rollouts(*(getattr(rollouts, name)[chosen] for name in ROLLOUT_FIELDS))
