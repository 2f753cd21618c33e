"""Next-token prediction over packed rows: the mean over target tokens of -log p(target), in nats."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.network.masks import within_documents
from models.objectives.base import IGNORED, Loss, Objective, pay_for_balance, token_loss, without_looking


def next_token(mask_documents: bool = True, z_loss: float = 0.0, balance: float = 0.01) -> Objective:
    """The objective over batches with `tokens`, `targets` (-100: none), `positions` and `segments`, (B, T) each.

    With `mask_documents` a token attends to its own document only and positions count from each document's start;
    without it rows are one running text, which is faster. The metric `loss` leaves the z-loss out.

    A model with experts pays `balance` times its load-balancing loss (0.01 in Fedus et al. 2021).
    """

    def objective(model: nn.Module, batch: Any) -> Loss:
        segments = batch.segments
        # rows of one document each need no mask, and attention without one is faster
        crowded = mask_documents and (without_looking(segments) or bool((segments[:, 1:] != segments[:, :-1]).any()))
        positions = batch.positions if mask_documents else None
        hidden_BTD = model(batch.tokens, positions, within_documents(segments) if crowded else None)
        loss = token_loss(model, hidden_BTD, batch.targets, z_loss)
        pay_for_balance(loss, model, segments >= 0, balance)
        loss.read = (batch.tokens.shape,)
        return loss

    return objective


def losses_of_tokens(model: nn.Module, batch: Any, mask_documents: bool = True) -> Tensor:
    """-log p of each target of a batch in nats, (B, T), 0 where there is none; a row at a time, for little memory."""
    losses_BT = torch.zeros(batch.targets.shape, device=batch.targets.device)
    for row, targets_T in enumerate(batch.targets):
        one = slice(row, row + 1)
        mask = within_documents(batch.segments[one]) if mask_documents else None
        hidden_1TD = model(batch.tokens[one], batch.positions[one] if mask_documents else None, mask)
        chosen_T = targets_T != IGNORED
        for places in chosen_T.nonzero().flatten().split(512):
            logits = model.logits(hidden_1TD[0, places])  # type: ignore[operator]
            losses_BT[row, places] = F.cross_entropy(logits.float(), targets_T[places], reduction="none")
    return losses_BT
