"""Direct preference optimisation: preferences without a reward model (Rafailov et al. 2023, arXiv 2305.18290, eq. 7).

A pair's margin is beta times how much more the policy prefers the chosen answer than the reference does:

    margin = beta (log p(chosen) - log p_ref(chosen) - log p(rejected) + log p_ref(rejected))

`sigmoid`: -log sigmoid(margin), with label smoothing as in Mitchell 2023 (conservative DPO). `ipo`: the squared
distance of margin / beta from 1 / (2 beta), of log-probabilities per token (Azar et al. 2023, arXiv 2310.12036,
equation 17). Where the policy is the reference the margin is 0: sigmoid starts at ln 2, ipo at 1 / (4 beta^2).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.objectives.base import IGNORED, Loss, Objective
from models.objectives.bradley_terry import bradley_terry_loss

Kind = Literal["sigmoid", "ipo"]


@dataclass(slots=True)
class Compared:
    """Pairs as rows, the chosen and the rejected answer of each side by side, padded on the right: `tokens` (B, 2, T),
    `targets` (B, 2, T), the next token where it is the answer's, else -100, and the reference's `log_probs` (B, 2)."""

    tokens: Tensor
    targets: Tensor
    log_probs: Tensor


def collate(pairs: Sequence[Any], log_probs: Tensor) -> Compared:
    """Rows from pairs with `chosen` and `rejected` token lists, and `start`, where their answers begin."""
    width = max(max(len(pair.chosen), len(pair.rejected)) for pair in pairs) - 1
    tokens = torch.zeros(len(pairs), 2, width, dtype=torch.long)
    targets = torch.full((len(pairs), 2, width), IGNORED, dtype=torch.long)
    for row, pair in enumerate(pairs):
        for side, ids in enumerate((pair.chosen, pair.rejected)):
            sequence = torch.tensor(ids, dtype=torch.long)
            tokens[row, side, : len(ids) - 1] = sequence[:-1]
            targets[row, side, pair.start - 1 : len(ids) - 1] = sequence[pair.start :]
    return Compared(tokens, targets, log_probs)


def answer_log_probs(model: nn.Module, batch: Compared, per_token: bool = False) -> Tensor:
    """The log-probability (B, 2) of each answer given its prompt, in nats; per token where that is asked for."""
    B, _, T = batch.tokens.shape
    targets = batch.targets.reshape(2 * B, T)
    chosen = targets != IGNORED
    logits_NV = model.logits(model(batch.tokens.reshape(2 * B, T))[chosen])  # type: ignore[operator]
    taken = -F.cross_entropy(logits_NV.float(), targets[chosen], reduction="none")
    sums = torch.zeros(targets.shape, dtype=taken.dtype, device=taken.device).masked_scatter(chosen, taken).sum(1)
    if per_token:
        sums = sums / chosen.sum(1).clamp(min=1)
    return sums.view(B, 2)


def dpo(beta: float = 0.1, kind: Kind = "sigmoid", label_smoothing: float = 0.0, per_token: bool = False) -> Objective:
    """The objective over `Compared`; a target is a pair. `per_token` takes log-probabilities per token, as ipo always
    does (the reference's must be taken alike). Metrics: loss, accuracy (a tie counts half), margin, and the implicit
    rewards beta (log p - log p_ref) of both answers."""

    def objective(model: nn.Module, batch: Compared) -> Loss:
        gains_B2 = answer_log_probs(model, batch, per_token or kind == "ipo") - batch.log_probs
        margins_B = beta * (gains_B2[:, 0] - gains_B2[:, 1])
        if kind == "ipo":
            total = (margins_B / beta - 1 / (2 * beta)).square().sum()
        else:
            total = bradley_terry_loss(margins_B, label_smoothing).sum()
        margins_B, rewards_B2 = margins_B.detach(), beta * gains_B2.detach()
        sums = {
            "loss": total.detach(),
            "accuracy": (margins_B > 0).sum() + 0.5 * (margins_B == 0).sum(),
            "margin": margins_B.sum(),
            "reward_chosen": rewards_B2[:, 0].sum(),
            "reward_rejected": rewards_B2[:, 1].sum(),
        }
        return Loss(total, margins_B.numel(), sums, (batch.tokens.flatten(0, 1).shape,))

    return objective
