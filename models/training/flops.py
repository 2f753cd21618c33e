"""How much of a device's arithmetic training uses (MFU), by the definition of Chowdhery et al. 2022 (PaLM, appendix B).

A token costs 6 FLOPs for each weight that it is multiplied with and 12 x layers x heads x head width x row length for
attention, whatever the mask leaves out and whatever is computed twice. The embedding is looked up, not multiplied, but
where it is the head too; of experts those count that a token is sent to; a frozen weight has no gradient of its own and
counts 4.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn

from models.network.config import NetworkConfig
from models.training.gpus import peak


def device_peak(device: torch.device) -> float | None:
    """The same of a device; a CPU's isn't known."""
    return peak(torch.cuda.get_device_name(device)) if device.type == "cuda" else None


@dataclass(frozen=True)
class Work:
    """FLOPs of training on one token: `weights`, and `attention` for each token of its row."""

    weights: float
    attention: float

    @classmethod
    def of(cls, model: nn.Module) -> Work | None:
        """What a network of our own shape takes, with a scalar head or without; None for any other."""
        shape = getattr(model, "config", None)
        if not isinstance(shape, NetworkConfig):
            return None
        weights = 0.0
        for name, parameter in model.named_parameters():
            if name.endswith("embed_tokens.weight") and not shape.tie:
                continue
            share = shape.experts_per_token / shape.experts if ".experts." in name else 1.0
            weights += share * parameter.numel() * (6 if parameter.requires_grad else 4)
        return cls(weights, 12.0 * shape.layers * shape.heads * shape.head_width)

    def flops(self, rows: int, length: int) -> float:
        """Of rows of so many tokens."""
        return rows * length * (self.weights + self.attention * length)
