"""Supervised tuning: next-token prediction where only the assistant's tokens count (Ouyang et al. 2022, InstructGPT).

Rows are dialogues, padded on the right: a causal model never looks at what follows, so no mask is needed, and padding
has no targets. The head, the widest product of a small model, runs on target positions alone.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from models.objectives.base import IGNORED, Loss, pay_for_balance, token_loss


@dataclass(slots=True)
class Dialogues:
    """Dialogues as rows: tokens (B, T), right-padded, and the next token where it is the assistant's, else -100."""

    tokens: Tensor
    targets: Tensor


def collate(dialogues: list[tuple[list[int], list[bool]]], padding: int = 0) -> Dialogues:
    """Rows from (token ids, whether each is the assistant's); the last token of a dialogue is only ever a target."""
    width = max(max(len(ids) for ids, _ in dialogues) - 1, 1)
    tokens = torch.full((len(dialogues), width), padding, dtype=torch.long)
    targets = torch.full((len(dialogues), width), IGNORED, dtype=torch.long)
    for row, (ids, assistant) in enumerate(dialogues):
        sequence = torch.tensor(ids, dtype=torch.long)
        counted = torch.tensor(assistant, dtype=torch.bool)
        tokens[row, : len(ids) - 1] = sequence[:-1]
        targets[row, : len(ids) - 1] = torch.where(counted, sequence, IGNORED)[1:]
    return Dialogues(tokens, targets)


def assistant_tokens(model: nn.Module, batch: Dialogues, balance: float = 0.0) -> Loss:
    """The sum over the assistant's tokens of -log p, in nats, and the count of those that were the likeliest token.

    A model with experts pays `balance` times its load-balancing loss, over all tokens up to each row's last target.
    """
    loss = token_loss(model, model(batch.tokens), batch.targets, accuracy=True)
    pay_for_balance(loss, model, (batch.targets != IGNORED).flip(1).cumsum(1).flip(1) > 0, balance)
    loss.read = (batch.tokens.shape,)
    return loss
