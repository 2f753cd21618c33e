"""The pass over rollouts that training learns from, and what makes its log-probabilities those of sampling."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F


def hidden(model: nn.Module, tokens_BS: Tensor) -> Tensor:
    """Hidden states (B, S, D) of rows that are padded on the right."""
    states: Tensor = model(tokens_BS)
    return states


def log_probs(model: nn.Module, hidden_ND: Tensor, temperature: float, vocabulary: int | None = None) -> Tensor:
    """Log-probabilities (N, V) of the next token, in nats, at a sampling temperature; ids from `vocabulary` on, the
    embedding's spare rows, are ruled out."""
    logits_NV = model.logits(hidden_ND)[:, :vocabulary].float() / temperature  # type: ignore[operator]
    return F.log_softmax(logits_NV, -1)
