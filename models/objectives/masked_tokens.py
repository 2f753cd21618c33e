"""Masked-token prediction (Devlin et al. 2019, arXiv 1810.04805, section 3.1): some tokens are hidden, and told from
what stands on both sides of them.

Of each document's tokens 15% are chosen; of these 80% become the mask token, 10% any token, 10% stay. Special tokens
are never chosen. Chance comes as a generator: one made from (seed, step) makes what is chosen a pure function of them,
as the batch is.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import numpy as np
import torch
from torch import nn

from models.objectives.base import IGNORED, Loss, token_loss
from models.text.sampler import Batch

MASKED, REPLACED = 0.8, 0.1  # of the chosen; the rest stay as they are


def mask_tokens(
    batch: Batch,
    chance: np.random.Generator,
    mask_id: int,
    vocabulary: int,
    specials: Collection[int],
    share: float = 0.15,
) -> Batch:
    """A batch with tokens hidden: `tokens` as the model sees them, `targets` what was chosen, -100 elsewhere.

    `mask_id` is one of the `specials`; ids from `vocabulary` on are never put in.
    """
    shape = tuple(batch.tokens.shape)
    ordinary = torch.tensor(sorted(set(range(vocabulary)) - set(specials)), device=batch.tokens.device)
    plain = torch.isin(batch.tokens, ordinary) & (batch.segments >= 0)
    select, kind, other = (torch.from_numpy(chance.random(shape)).to(batch.tokens.device) for _ in range(3))
    chosen = plain & (select < share)
    replacement = ordinary[(other * len(ordinary)).long()]
    seen = torch.where(kind < MASKED, mask_id, torch.where(kind < MASKED + REPLACED, replacement, batch.tokens))
    return Batch(
        torch.where(chosen, seen, batch.tokens),
        torch.where(chosen, batch.tokens, IGNORED),
        batch.positions,
        batch.segments,
    )


def masked_tokens(model: nn.Module, batch: Any) -> Loss:
    """The sum over hidden tokens of -log p, in nats, and the count of those that were the likeliest token.

    A token is told from its own document alone, on both sides; `batch` as `mask_tokens` gives it.
    """
    alike = (batch.segments[:, :, None] == batch.segments[:, None, :])[:, None]
    hidden_BTD = model(batch.tokens, batch.positions, alike)
    loss = token_loss(model, hidden_BTD, batch.targets, accuracy=True)
    loss.read = (batch.tokens.shape,)
    return loss
