"""Rotary positions (Su et al. 2021, arXiv 2104.09864), and how their frequencies are scaled for a longer context.

A pair of a head's features turns by position times its frequency. Beyond the context of training the slowest pairs meet
angles they never saw: `linear` slows all pairs down (Chen et al. 2023, arXiv 2306.15595), `yarn` and `llama3` those
alone that turn less than about once within that context, with a ramp between (Peng et al. 2023, arXiv 2309.00071,
section 3; Llama 3.1, Dubey et al. 2024, arXiv 2407.21783).

Letters in names: B batch, T tokens, H heads, K width of a head.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from models.network.config import NetworkConfig, RopeScaling


def rotation(positions_BT: Tensor, config: NetworkConfig, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Cosines and sines of the rotary embedding, (B, 1, T, K / 2) each; angles are computed in float32."""
    frequencies = scaled_frequencies(config, positions_BT.device)
    angles = positions_BT[:, None, :, None].float() * frequencies
    length = config.rope_scaling.length if config.rope_scaling else 1.0
    return (angles.cos() * length).to(dtype), (angles.sin() * length).to(dtype)


def rotate(x_BHTK: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Turn each pair (i, i + K/2) of every head by its position's angle."""
    first, second = x_BHTK.chunk(2, dim=-1)
    return torch.cat((first * cos - second * sin, second * cos + first * sin), dim=-1)


def scaled_frequencies(config: NetworkConfig, device: torch.device | None = None) -> Tensor:
    """Radians a token of each pair (K / 2)."""
    exponents = torch.arange(0, config.head_width, 2, dtype=torch.float32, device=device) / config.head_width
    frequencies = 1.0 / config.rope_base**exponents
    scaling = config.rope_scaling
    if scaling is None:
        return frequencies
    if scaling.rope_type == "linear":
        return frequencies / scaling.factor
    kept = _llama3(frequencies, scaling) if scaling.rope_type == "llama3" else _yarn(config, scaling, device)
    return frequencies / scaling.factor * (1 - kept) + frequencies * kept


def _llama3(frequencies: Tensor, scaling: RopeScaling) -> Tensor:
    """How far each pair keeps its frequency, 0 to 1, by how often it turns within the context of training."""
    turns = scaling.original_max_position_embeddings * frequencies / (2 * math.pi)
    return ((turns - scaling.low_freq_factor) / (scaling.high_freq_factor - scaling.low_freq_factor)).clamp(0, 1)


def _yarn(config: NetworkConfig, scaling: RopeScaling, device: torch.device | None) -> Tensor:
    """The same with a ramp that is straight in the pair's number: from the pair that turns `beta_fast` times to the one
    that turns `beta_slow` times."""

    def pair(turns: float) -> float:
        base_turns = scaling.original_max_position_embeddings / (2 * math.pi * turns)
        return config.head_width * math.log(base_turns) / (2 * math.log(config.rope_base))

    fast, slow = pair(scaling.beta_fast), pair(scaling.beta_slow)
    if scaling.truncate:
        fast, slow = math.floor(fast), math.ceil(slow)
    fast, slow = max(fast, 0), min(slow, config.head_width - 1)
    numbers = torch.arange(config.head_width // 2, dtype=torch.float32, device=device)
    return 1 - ((numbers - fast) / (slow - fast if slow != fast else 0.001)).clamp(0, 1)
