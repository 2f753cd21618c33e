"""Kahneman-Tversky optimisation: answers that are each good or bad, without another beside them (Ethayarajh et al.
2024, arXiv 2402.01306, section 4.1).

An answer's reward is r = log p(answer) - log p_ref(answer), and the reference point z0 an estimate of KL(p, p_ref), the
mean of r over prompts with answers that were given to other prompts of the batch, at least 0, which gets no gradient:

    desirable:    w_D (1 - sigmoid(beta (r - z0)))
    undesirable:  w_U (1 - sigmoid(beta (z0 - r)))

Where the policy is the reference, every answer costs half its weight.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

from models.objectives.answers import Said, answer_log_probs, as_rows
from models.objectives.base import Loss, Objective


class Judged(NamedTuple):
    """A prompt with its answer as token ids, where the answer begins, and whether it is a good one."""

    tokens: list[int]
    start: int
    desirable: bool


@dataclass(slots=True)
class Judgements:
    """Judged answers as rows, padded on the right: `tokens` (B, T), `targets` (B, T), the next token where it is the
    answer's, else -100; `desirable` (B); the reference's `log_probs` (B) and the batch's `baseline` z0 (B), in nats."""

    tokens: Tensor
    targets: Tensor
    desirable: Tensor
    log_probs: Tensor
    baseline: Tensor


def collate(judged: Sequence[Judged], log_probs: Tensor, baseline: Tensor) -> Judgements:
    """Rows from judged answers, what the reference says of them (B), and the one baseline of all."""
    tokens, targets = as_rows([one[:2] for one in judged])
    desirable = torch.tensor([one.desirable for one in judged])
    return Judgements(tokens, targets, desirable, log_probs, baseline.expand(len(judged)))


def mismatched(judged: Sequence[Judged], longest: int) -> list[Said]:
    """Each prompt of a batch with the answer that comes next in it and was given to another prompt, in at most
    `longest` tokens; none where all have one prompt."""
    prompts = [tuple(one.tokens[: one.start]) for one in judged]
    found = []
    for place, prompt in enumerate(prompts):
        later = (*range(place + 1, len(judged)), *range(place))
        other = next((judged[number] for number in later if prompts[number] != prompt), None)
        if other is not None:
            found.append(([*prompt, *other.tokens[other.start :]][:longest], len(prompt)))
    return found


def baseline(log_probs_N: Tensor, reference_N: Tensor) -> Tensor:
    """The reference point z0 of a batch from log-probabilities of its mismatched answers; 0 where there are none."""
    return (log_probs_N - reference_N).sum().div(max(len(log_probs_N), 1)).clamp(min=0)


def kto(beta: float = 0.1, desirable_weight: float = 1.0, undesirable_weight: float = 1.0) -> Objective:
    """The objective over `Judgements`; a target is a judged answer. Metrics: loss, accuracy (answers whose reward is on
    their side of the baseline, a tie half), margin (beta times how far on it), kl (the baseline)."""

    def objective(model: nn.Module, batch: Judgements) -> Loss:
        rewards_B = answer_log_probs(model, batch.tokens, batch.targets) - batch.log_probs
        above_B = beta * (rewards_B - batch.baseline)
        margins_B = torch.where(batch.desirable, above_B, -above_B)
        weights_B = torch.where(batch.desirable, desirable_weight, undesirable_weight)
        total = (weights_B * torch.sigmoid(-margins_B)).sum()
        margins_B = margins_B.detach()
        sums = {
            "loss": total.detach(),
            "accuracy": (margins_B > 0).sum() + 0.5 * (margins_B == 0).sum(),
            "margin": margins_B.sum(),
            "kl": batch.baseline.sum(),
        }
        return Loss(total, margins_B.numel(), sums, (batch.tokens.shape,))

    return objective
