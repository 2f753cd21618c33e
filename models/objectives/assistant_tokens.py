"""Supervised tuning: next-token prediction where only the assistant's tokens count (Ouyang et al. 2022, InstructGPT).

Rows hold one dialogue each, padded on the right: a causal model never looks at what follows, so no mask is needed, and
padding has no targets. Or they are packed: several dialogues a row, each with positions of its own and attending to
itself alone, so that little is padding: the same loss. The head, the widest product of a small model, runs on target
positions alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from models.network.masks import within_documents
from models.objectives.base import IGNORED, Loss, pay_for_balance, token_loss, without_looking

Dialogue = tuple[list[int], list[bool]]
# Rows are packed where that leaves at most this part of them: attention with a mask costs a sixth of a step (6 layers
# of width 256, rows of 512 tokens on a CPU).
PAYS = 0.8


@dataclass(slots=True)
class Dialogues:
    """Dialogues in rows, all (B, T): tokens, right-padded; the next token where it is the assistant's, else -100;
    positions from each dialogue's start; the dialogues of a row, 0, 1, 2..., -1 for padding behind several."""

    tokens: Tensor
    targets: Tensor
    positions: Tensor
    segments: Tensor


def collate(dialogues: Sequence[Dialogue], packed: bool = False) -> Dialogues:
    """Rows from (token ids, whether each is the assistant's); the last token of a dialogue is only ever a target.

    `packed`: as many in a row as fit beside each other in the width of the longest, by first fit, longest first
    (Johnson 1973: at most 11/9 of the fewest rows), where that saves enough rows (`PAYS`). Nothing is cut or left out.
    """
    lengths = [max(len(ids) - 1, 1) for ids, _ in dialogues]
    width = max(lengths)
    rows = _first_fit(lengths, width) if packed else []
    if not rows or len(rows) > PAYS * len(dialogues):
        rows = [[number] for number in range(len(dialogues))]
    shape = (len(rows), width)
    tokens, targets = torch.zeros(shape, dtype=torch.long), torch.full(shape, IGNORED, dtype=torch.long)
    positions = torch.arange(width).repeat(len(rows), 1)
    segments = torch.zeros(shape, dtype=torch.long)
    for row, members in enumerate(rows):
        start = 0
        for segment, number in enumerate(members):
            ids, assistant = dialogues[number]
            sequence = torch.tensor(ids, dtype=torch.long)
            stop = start + len(ids) - 1
            tokens[row, start:stop] = sequence[:-1]
            targets[row, start:stop] = torch.where(torch.tensor(assistant, dtype=torch.bool), sequence, IGNORED)[1:]
            positions[row, start:stop] = torch.arange(stop - start)
            segments[row, start:stop] = segment
            start = stop
        if len(members) > 1:
            segments[row, start:] = -1
    return Dialogues(tokens, targets, positions, segments)


def _first_fit(lengths: Sequence[int], width: int) -> list[list[int]]:
    """Numbers of the lengths in rows of at most `width`; rows in the order of their first member."""
    rows: list[tuple[int, list[int]]] = []
    for number in sorted(range(len(lengths)), key=lambda number: -lengths[number]):
        for place, (used, members) in enumerate(rows):
            if used + lengths[number] <= width:
                rows[place] = (used + lengths[number], [*members, number])
                break
        else:
            rows.append((lengths[number], [number]))
    return sorted(sorted(members) for _, members in rows)


def assistant_tokens(model: nn.Module, batch: Dialogues, balance: float = 0.0) -> Loss:
    """The sum over the assistant's tokens of -log p, in nats, and the count of those that were the likeliest token.

    A model with experts pays `balance` times its load-balancing loss, over all tokens up to each row's last target.
    """
    segments = batch.segments
    # rows of one dialogue each need no mask, and attention without one is faster
    if without_looking(segments) or bool((segments != 0).any()):
        hidden_BTD = model(batch.tokens, batch.positions, within_documents(segments))
    else:
        hidden_BTD = model(batch.tokens)
    loss = token_loss(model, hidden_BTD, batch.targets, accuracy=True)
    pay_for_balance(loss, model, (batch.targets != IGNORED).flip(1).cumsum(1).flip(1) > 0, balance)
    loss.read = (batch.tokens.shape,)
    return loss
