"""Reward modelling: Bradley and Terry 1952 on pairs of answers, -log sigmoid(score(chosen) - score(rejected)).

With equal scores, as a head that starts at zero gives, the loss is ln 2. Label smoothing e (Mitchell 2023, conservative
DPO; the same formula) takes a share e of the pairs to be labelled wrongly: (1 - e) nll(margin) + e nll(-margin).
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
    """Chosen and rejected dialogues as rows, right-padded: tokens (B, T) and each row's length (B)."""

    chosen: Tensor
    chosen_lengths: Tensor
    rejected: Tensor
    rejected_lengths: Tensor


def right_padded(sequences: list[list[int]], padding: int = 0) -> tuple[Tensor, Tensor]:
    """Token lists as one tensor (B, T) padded on the right, and their lengths (B)."""
    lengths = torch.tensor([len(sequence) for sequence in sequences])
    tokens = torch.full((len(sequences), int(lengths.max())), padding, dtype=torch.long)
    for row, sequence in enumerate(sequences):
        tokens[row, : len(sequence)] = torch.tensor(sequence, dtype=torch.long)
    return tokens, lengths


def collate(pairs: Sequence[Sequence[Any]]) -> Pairs:
    """Pairs of token lists, the chosen one first and the rejected one second, as a batch."""
    return Pairs(*right_padded([pair[0] for pair in pairs]), *right_padded([pair[1] for pair in pairs]))


def final_scores(model: nn.Module, tokens_BT: Tensor, lengths_B: Tensor) -> Tensor:
    """The score (B) of each dialogue: the scalar head's value at its last token."""
    values_BT = model(tokens_BT)
    return values_BT.gather(1, (lengths_B - 1)[:, None])[:, 0]


def bradley_terry_loss(margins_B: Tensor, label_smoothing: float = 0.0) -> Tensor:
    """The loss (B) of each margin score(chosen) - score(rejected), in nats."""
    right = -F.logsigmoid(margins_B)
    if not label_smoothing:
        return right
    return (1 - label_smoothing) * right - label_smoothing * F.logsigmoid(-margins_B)


def bradley_terry(label_smoothing: float = 0.0) -> Objective:
    """The objective over `Pairs`. Metrics: loss, accuracy (a tie counts half), margin."""

    def objective(model: nn.Module, batch: Pairs) -> Loss:
        chosen_B = final_scores(model, batch.chosen, batch.chosen_lengths)
        rejected_B = final_scores(model, batch.rejected, batch.rejected_lengths)
        margins_B = chosen_B - rejected_B
        total = bradley_terry_loss(margins_B, label_smoothing).sum()
        margins_B = margins_B.detach()
        sums = {
            "loss": total.detach(),
            "accuracy": (margins_B > 0).sum() + 0.5 * (margins_B == 0).sum(),
            "margin": margins_B.sum(),
        }
        return Loss(total, margins_B.numel(), sums, (batch.chosen.shape, batch.rejected.shape))

    return objective
