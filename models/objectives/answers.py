"""What a model says of answers: prompts with their answers as rows, and the log-probability of each, in nats."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.objectives.base import IGNORED, in_parts

Said = tuple[list[int], int]  # a prompt with its answer as token ids, and where the answer begins


def as_rows(answers: Sequence[Said]) -> tuple[Tensor, Tensor]:
    """Rows padded on the right: tokens (N, T); targets (N, T), the next token where it is the answer's, else -100."""
    width = max(len(ids) for ids, _ in answers) - 1
    tokens = torch.zeros(len(answers), width, dtype=torch.long)
    targets = torch.full((len(answers), width), IGNORED, dtype=torch.long)
    for row, (ids, start) in enumerate(answers):
        sequence = torch.tensor(ids, dtype=torch.long)
        tokens[row, : len(ids) - 1] = sequence[:-1]
        targets[row, start - 1 : len(ids) - 1] = sequence[start:]
    return tokens, targets


def answer_log_probs(model: nn.Module, tokens_NT: Tensor, targets_NT: Tensor, per_token: bool = False) -> Tensor:
    """The log-probability (N) of each answer given its prompt; the mean over its tokens where that is asked for."""
    chosen_NT = targets_NT != IGNORED

    def part(hidden_MD: Tensor, targets_M: Tensor) -> tuple[Tensor, ...]:
        logits_MV: Tensor = model.logits(hidden_MD)  # type: ignore[operator]
        return (-F.cross_entropy(logits_MV.float(), targets_M, reduction="none"),)

    pieces = in_parts(model, part, model(tokens_NT)[chosen_NT], targets_NT[chosen_NT])
    taken_M = torch.cat([piece for (piece,) in pieces])
    sums_N = torch.zeros(targets_NT.shape, dtype=taken_M.dtype, device=taken_M.device)
    sums_N = sums_N.masked_scatter(chosen_NT, taken_M).sum(1)
    return sums_N / chosen_NT.sum(1).clamp(min=1) if per_token else sums_N
