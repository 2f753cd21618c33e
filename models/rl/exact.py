"""The pass over rollouts that training learns from, and what makes its log-probabilities those of sampling."""

from __future__ import annotations

from torch import Tensor, nn


def hidden(model: nn.Module, tokens_BS: Tensor) -> Tensor:
    """Hidden states (B, S, D) of rows that are padded on the right."""
    states: Tensor = model(tokens_BS)
    return states
