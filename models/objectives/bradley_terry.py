"""Reward modelling: Bradley and Terry 1952 on pairs of answers, -log sigmoid(score(chosen) - score(rejected) - m).

m is how much better a pair says that its chosen answer is (Touvron et al. 2023, Llama 2, arXiv 2307.09288, equation
2), 0 where it says nothing: with equal scores, as a head that starts at zero gives, the loss is then ln 2. Label
smoothing e (Mitchell 2023, conservative DPO; the same formula) takes a share e of the pairs to be labelled wrongly:
(1 - e) nll(d) + e nll(-d) of the difference d. Centring c adds c (score(chosen) + score(rejected))^2, which keeps
scores around 0 (Eisenstein et al. 2023, arXiv 2312.09244).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.objectives.base import Loss, Objective


@dataclass(slots=True)
class Pairs:
    """Chosen and rejected dialogues as rows, right-padded: tokens (B, T) and each row's length (B); and by how much the
    scores are to differ (B)."""

    chosen: Tensor
    chosen_lengths: Tensor
    rejected: Tensor
    rejected_lengths: Tensor
    margins: Tensor


def right_padded(sequences: list[list[int]], padding: int = 0) -> tuple[Tensor, Tensor]:
    """Token lists as one tensor (B, T) padded on the right, and their lengths (B)."""
    lengths = torch.tensor([len(sequence) for sequence in sequences])
    tokens = torch.full((len(sequences), int(lengths.max())), padding, dtype=torch.long)
    for row, sequence in enumerate(sequences):
        tokens[row, : len(sequence)] = torch.tensor(sequence, dtype=torch.long)
    return tokens, lengths


def collate(pairs: Sequence[Sequence[Any]], margins: Sequence[float] | None = None) -> Pairs:
    """Pairs of token lists, the chosen one first and the rejected one second, as a batch; no margins are all 0."""
    chosen, rejected = (right_padded([pair[side] for pair in pairs]) for side in (0, 1))
    demanded = torch.zeros(len(pairs)) if margins is None else torch.tensor(margins, dtype=torch.float32)
    return Pairs(*chosen, *rejected, demanded)


def final_scores(model: nn.Module, tokens_BT: Tensor, lengths_B: Tensor) -> Tensor:
    """The score (B) of each dialogue: the scalar head's value at its last token."""
    values_BT = model(tokens_BT)
    return values_BT.gather(1, (lengths_B - 1)[:, None])[:, 0]


@torch.no_grad()
def scores_of(model: nn.Module, dialogues: Sequence[list[int]], batch: int) -> Tensor:
    """The scores (N) of dialogues as token ids, in their order; they are run in batches of like length."""
    scores = torch.zeros(len(dialogues))
    device = next(model.parameters()).device
    order = sorted(range(len(dialogues)), key=lambda place: len(dialogues[place]))
    for first in range(0, len(order), batch):
        places = order[first : first + batch]
        tokens, lengths = right_padded([dialogues[place] for place in places])
        scores[places] = final_scores(model, tokens.to(device), lengths.to(device)).float().cpu()
    return scores


def bradley_terry_loss(margins_B: Tensor, label_smoothing: float = 0.0) -> Tensor:
    """The loss (B) of each margin score(chosen) - score(rejected), in nats."""
    right = -F.logsigmoid(margins_B)
    if not label_smoothing:
        return right
    return (1 - label_smoothing) * right - label_smoothing * F.logsigmoid(-margins_B)


def bradley_terry(label_smoothing: float = 0.0, centring: float = 0.0) -> Objective:
    """The objective over `Pairs`. Metrics: loss, accuracy (a tie counts half), margin (the scores' difference)."""

    def objective(model: nn.Module, batch: Pairs) -> Loss:
        chosen_B = final_scores(model, batch.chosen, batch.chosen_lengths)
        rejected_B = final_scores(model, batch.rejected, batch.rejected_lengths)
        margins_B = chosen_B - rejected_B
        total = bradley_terry_loss(margins_B - batch.margins, label_smoothing).sum()
        if centring:
            total = total + centring * (chosen_B + rejected_B).square().sum()
        margins_B = margins_B.detach()
        sums = {
            "loss": total.detach(),
            "accuracy": (margins_B > 0).sum() + 0.5 * (margins_B == 0).sum(),
            "margin": margins_B.sum(),
        }
        return Loss(total, margins_B.numel(), sums, (batch.chosen.shape, batch.rejected.shape))

    return objective
