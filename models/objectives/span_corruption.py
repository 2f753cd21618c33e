"""Span corruption (Raffel et al. 2020, arXiv 1910.10683, section 3.1.4): spans are cut from a text, and written.

15% of a row's tokens in spans of 3 in the mean. Each span leaves a sentinel in what is read; what is written is every
sentinel with its span, and one more sentinel at the end:

    read     the <0> flows <1> the sea        written  <0> water <1> down to <2>

Rows are running text, as in the paper: documents stand one after the other. Chance comes as a generator: one made from
(seed, step) makes what is cut a pure function of them, as the batch is.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from models.objectives.base import IGNORED, Loss, token_loss
from models.text.sampler import Batch


@dataclass(slots=True)
class Spans:
    """Texts with spans cut out, as rows padded on the right: `tokens` (B, S) that are read, `attend` (B, S) False on
    padding, and `targets` (B, T) to be written, -100 on padding."""

    tokens: Tensor
    attend: Tensor
    targets: Tensor


def corrupt_spans(
    batch: Batch,
    chance: np.random.Generator,
    sentinels: Sequence[int],
    share: float = 0.15,
    mean: float = 3.0,
) -> Spans:
    """A batch with spans cut out. `sentinels`: ids in the order of their use, at least 2; where they are fewer than a
    row's spans and one more, spans are fewer and longer."""
    read, wanted = [], []
    for tokens, segments in zip(batch.tokens.tolist(), batch.segments.tolist(), strict=True):
        row = [token for token, segment in zip(tokens, segments, strict=True) if segment >= 0]
        lengths = span_lengths(len(row), chance, share, mean, len(sentinels) - 1)
        kept, cut, at = [], [], 0
        for number, (before, span) in enumerate(lengths):
            kept += [*row[at : at + before], sentinels[number]]
            cut += [sentinels[number], *row[at + before : at + before + span]]
            at += before + span
        read.append(kept + row[at:])
        wanted.append([*cut, sentinels[len(lengths)]] if lengths else [])
    tokens, attend = _padded(read, 0)
    targets, _ = _padded(wanted, IGNORED)
    return Spans(*(part.to(batch.tokens.device) for part in (tokens, attend, targets)))


def span_lengths(
    length: int, chance: np.random.Generator, share: float, mean: float, most: int
) -> list[tuple[int, int]]:
    """How a text of `length` tokens is cut: (tokens kept before a span, tokens in it) for each span, all at least 1.

    `share` of the tokens are in spans, and there are so many spans that the mean is `mean`, but `most` at most. Every
    way to divide the tokens is equally likely. None where the text has fewer than 2 tokens.
    """
    noise = min(max(round(length * share), 1), length - 1)
    if noise < 1:
        return []
    spans = min(max(round(noise / mean), 1), noise, length - noise, most)

    def divided(total: int) -> list[int]:
        borders = np.sort(chance.choice(total - 1, spans - 1, replace=False)) + 1 if spans > 1 else np.array([], int)
        return np.diff([0, *borders, total]).tolist()

    return list(zip(divided(length - noise), divided(noise), strict=True))


def span_corruption(model: nn.Module, batch: Spans) -> Loss:
    """The sum over what is to be written of -log p, in nats, and the count of those that were the likeliest token."""
    start: int = model.start  # type: ignore[assignment]
    written_BT = torch.where(batch.targets != IGNORED, batch.targets, start).roll(1, 1)
    written_BT[:, 0] = start
    hidden_BTD = model(batch.tokens, batch.attend, written_BT)
    loss = token_loss(model, hidden_BTD, batch.targets, accuracy=True)
    loss.read = (batch.tokens.shape, written_BT.shape)
    return loss


def _padded(rows: list[list[int]], padding: int) -> tuple[Tensor, Tensor]:
    """Rows (B, T) padded on the right, and where they are real."""
    lengths = torch.tensor([len(row) for row in rows])
    width = max(int(lengths.max()), 1)
    tokens = torch.tensor([row + [padding] * (width - len(row)) for row in rows])
    return tokens, torch.arange(width)[None] < lengths[:, None]
