"""Next-token prediction over packed rows: the mean over target tokens of -log p(target), in nats."""

from __future__ import annotations

from typing import Any

from torch import nn

from models.network.decoder import within_documents
from models.network.experts import auxiliary
from models.objectives.base import IGNORED, Loss, Objective, cross_entropy_sum


def next_token(mask_documents: bool = True, z_loss: float = 0.0, balance: float = 0.01) -> Objective:
    """The objective over batches with `tokens`, `targets` (-100: none), `positions` and `segments`, (B, T) each.

    With `mask_documents` a token attends to its own document only and positions count from each document's start;
    without it rows are one running text, which is faster. The metric `loss` leaves the z-loss out.

    A model with experts pays `balance` times its load-balancing loss (0.01 in Fedus et al. 2021), a mean over the
    micro-batch's tokens, once for each target: what an update adds is the mean of its micro-batches' balance losses,
    weighted by their targets. Balance is asked of a micro-batch, so 2 of them aren't quite 1 of twice the size.
    The metric `balance` is that loss before its weight: experts_per_token where experts are evenly used.
    """

    def objective(model: nn.Module, batch: Any) -> Loss:
        crowded = mask_documents and bool((batch.segments[:, 1:] != batch.segments[:, :-1]).any())
        positions = batch.positions if mask_documents else None
        hidden_BTD = model(batch.tokens, positions, within_documents(batch.segments) if crowded else None)
        chosen = batch.targets != IGNORED
        logits_NV = model.logits(hidden_BTD[chosen])  # type: ignore[operator]
        plain, total = cross_entropy_sum(logits_NV, batch.targets[chosen], z_loss)
        targets, sums = logits_NV.shape[0], {"loss": plain.detach()}
        unbalanced = auxiliary(model, batch.segments >= 0)
        if unbalanced is not None:
            total = total + balance * targets * unbalanced
            sums["balance"] = targets * unbalanced.detach()
        return Loss(total, targets, sums)

    return objective
