"""How much of a device's arithmetic training uses (MFU), by the definition of Chowdhery et al. 2022 (PaLM, appendix B).

A token costs 6 FLOPs for each weight that it is multiplied with and 12 x layers x heads x head width x row length for
attention, whatever the mask leaves out and whatever is computed twice. The embedding is looked up, not multiplied, but
where it is the head too; of experts those count that a token is sent to; a frozen weight has no gradient of its own and
counts 4. Peaks are those of dense bfloat16 products summed in float32, from the makers' data sheets: the figures with
sparsity are twice as large, and no training reaches into them.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

import torch
from torch import nn

from models.network.config import NetworkConfig

# FLOPs a second by words of the device's name; the entry with most words that are all in it counts.
PEAKS = {
    "B200": 2250e12,
    "GB200": 2500e12,
    "GH200": 989e12,
    "H200": 989e12,
    "H200 NVL": 836e12,
    "H100": 989e12,
    "H100 PCIe": 756e12,
    "H100 NVL": 835e12,
    "H800": 989e12,
    "H20": 148e12,
    "A100": 312e12,
    "A800": 312e12,
    "A40": 150e12,
    "A30": 165e12,
    "A10": 125e12,
    "A10G": 70e12,
    "L40S": 362e12,
    "L40": 181e12,
    "L4": 121e12,
    "A6000": 155e12,
    "5090": 209e12,
    "4090": 165e12,
    "3090": 71e12,
    "MI300X": 1307e12,
}
PARTIAL = {"Laptop", "MIG", "D"}  # a smaller chip, or a part of one, under the same name


def peak(name: str) -> float | None:
    """FLOPs a second of a device by its name (as `torch.cuda.get_device_name` tells it); None where it isn't known."""
    words = set(re.split(r"[\s-]+", name))
    known = [key for key in PEAKS if set(key.split()) <= words]
    return PEAKS[max(known, key=lambda key: len(key.split()))] if known and not words & PARTIAL else None


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
