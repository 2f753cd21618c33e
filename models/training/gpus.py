"""GPUs by their makers' data sheets: how fast they multiply, and how much they hold.

Peaks are those of dense bfloat16 products summed in float32: the figures with sparsity are twice as large, and no
training reaches into them.
"""

from __future__ import annotations

import re
from typing import NamedTuple


class Gpu(NamedTuple):
    """FLOPs a second, and memory in GB of 10^9 bytes."""

    flops: float
    memory_gb: int


# By words of the device's name; the entry with most words that are all in it counts.
GPUS = {
    "B200": Gpu(2250e12, 180),
    "GB200": Gpu(2500e12, 186),
    "GH200": Gpu(989e12, 96),
    "H200": Gpu(989e12, 141),
    "H200 NVL": Gpu(836e12, 141),
    "H100": Gpu(989e12, 80),
    "H100 PCIe": Gpu(756e12, 80),
    "H100 NVL": Gpu(835e12, 94),
    "H800": Gpu(989e12, 80),
    "H20": Gpu(148e12, 96),
    "A100": Gpu(312e12, 80),
    "A800": Gpu(312e12, 80),
    "A40": Gpu(150e12, 48),
    "A30": Gpu(165e12, 24),
    "A10": Gpu(125e12, 24),
    "A10G": Gpu(70e12, 24),
    "L40S": Gpu(362e12, 48),
    "L40": Gpu(181e12, 48),
    "L4": Gpu(121e12, 24),
    "A6000": Gpu(155e12, 48),
    "5090": Gpu(209e12, 32),
    "4090": Gpu(165e12, 24),
    "3090": Gpu(71e12, 24),
    "MI300X": Gpu(1307e12, 192),
}
PARTIAL = {"LAPTOP", "MIG", "D"}  # a smaller chip, or a part of one, under the same name


def gpu(name: str) -> Gpu | None:
    """A device by its name, as `torch.cuda.get_device_name` tells it or as people write it (rtx4090, a100-40gb); None
    where it isn't known. A memory in the name that is smaller than the table's is the one that counts."""
    words = set(re.split(r"[\s_-]+", name.upper().replace("RTX", "RTX ")))
    known = [key for key in GPUS if set(key.upper().split()) <= words]
    if not known or words & PARTIAL:
        return None
    found = GPUS[max(known, key=lambda key: len(key.split()))]
    sizes = [int(size[1]) for word in words if (size := re.fullmatch(r"(\d+)GB", word))]
    return found._replace(memory_gb=min([found.memory_gb, *sizes]))


def peak(name: str) -> float | None:
    """FLOPs a second of a device by its name; None where it isn't known."""
    found = gpu(name)
    return None if found is None else found.flops
