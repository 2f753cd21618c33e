"""Where training computes and how precisely: float32 on a CPU, bfloat16 beside float32 weights on a GPU that has it.

Weights, gradients and the optimizer stay in float32; products run in the compute type (`torch.autocast`), which a GPU
with bfloat16 multiplies several times faster. A CPU without AMX has no such gain (see `network.build.choose_dtype`).
"""

from __future__ import annotations

import resource
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, fields, is_dataclass
from typing import Any, Literal, TypeVar

import torch
from torch import nn

from datalake.errors import UserError

T = TypeVar("T")
Precision = Literal["auto", "float32", "bfloat16"]


@dataclass(frozen=True)
class Device:
    """A device and the type its products are computed in."""

    device: torch.device
    compute: torch.dtype

    def computing(self) -> AbstractContextManager[Any]:
        """Products inside are computed in the compute type."""
        if self.compute == torch.float32:
            return nullcontext()
        return torch.autocast(self.device.type, dtype=self.compute)

    def __str__(self) -> str:
        return f"{self.device}, {str(self.compute).removeprefix('torch.')}"


def choose(precision: Precision = "auto", device: str | None = None) -> Device:
    """The GPU where there is one, else the CPU (or `device`), and the precision asked for.

    Raises UserError for bfloat16 on a GPU without it.
    """
    place = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    has = place.type == "cpu" or torch.cuda.is_bf16_supported(including_emulation=False)
    if precision == "bfloat16" and not has:
        raise UserError(f"{torch.cuda.get_device_name(place)} has no bfloat16: set precision to float32")
    bfloat16 = precision == "bfloat16" or (precision == "auto" and place.type == "cuda" and has)
    return Device(place, torch.bfloat16 if bfloat16 else torch.float32)


def peak_memory_mb(device: torch.device) -> float:
    """The most memory that was in use on a GPU, or else by this process, in MB of 2^20 bytes."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / (1 << 20)
    used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return used / ((1 << 20) if sys.platform == "darwin" else 1024)  # bytes there, else KB


def device_of(model: nn.Module) -> torch.device:
    """Where a model's weights lie."""
    return next(model.parameters()).device


def moved(batch: T, device: torch.device) -> T:
    """A dataclass of tensors on a device; what isn't a tensor stays."""
    return batch if device.type == "cpu" else each_tensor(batch, lambda tensor: tensor.to(device, non_blocking=True))


def pinned(batch: T) -> T:
    """A dataclass of tensors with those in memory that the device reads by itself."""
    return each_tensor(batch, torch.Tensor.pin_memory)


def each_tensor(batch: T, change: Callable[[torch.Tensor], torch.Tensor]) -> T:
    """A dataclass with its tensors changed; anything else stays as it is."""
    if not is_dataclass(batch):
        return batch
    values = {field.name: getattr(batch, field.name) for field in fields(batch)}
    kind: Any = type(batch)
    made: T = kind(**{name: change(one) if isinstance(one, torch.Tensor) else one for name, one in values.items()})
    return made
