"""Learning-rate schedules: the factor by which each step's rate differs from the peak.

All begin with a linear warm-up that reaches the peak on its last step and never starts at zero. Cosine: Loshchilov and
Hutter 2017, without restarts. WSD (warm-up, stable, decay): Hu et al. 2024 (MiniCPM), with a linear fall. Steps count
from 0; the floor is where step `steps`, the first that no longer runs, would stand.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal

from models.training.config import TrainingConfig

Schedule = Callable[[int], float]


def build_schedule(
    kind: Literal["constant", "cosine", "wsd"], steps: int, warmup: int = 0, decay: int = 0, floor: float = 0.0
) -> Schedule:
    """The factor of a step in [0, 1]. `warmup` and `decay` are numbers of steps, `floor` a factor.

    Raises ValueError where warm-up and decay don't fit in the steps or the kind is unknown.
    """
    fall = {"constant": 0, "cosine": steps - warmup, "wsd": decay}.get(kind)
    if fall is None:
        raise ValueError(f"unknown schedule {kind!r}: take constant, cosine or wsd")
    if warmup < 0 or fall < 0 or warmup + fall > steps:
        raise ValueError(f"a warm-up of {warmup} and a decay of {fall} steps don't fit in {steps}: shorten one of them")

    def factor(step: int) -> float:
        if step < warmup:
            return (step + 1) / warmup
        if fall == 0:
            return 1.0
        share = min(max(0, step - (steps - fall)) / fall, 1.0)
        remaining = 0.5 * (1 + math.cos(math.pi * share)) if kind == "cosine" else 1 - share
        return floor + (1 - floor) * remaining

    return factor


def schedule_of(config: TrainingConfig, steps: int) -> Schedule:
    """The schedule of a config over so many steps. Both parts round to whole steps; the warm-up has right of way."""
    warmup = min(round(config.warmup * steps), steps)
    decay = min(round(config.decay * steps), steps - warmup)
    return build_schedule(config.schedule, steps, warmup, decay, config.floor)


def branch_of(config: TrainingConfig, steps: int) -> int | None:
    """The last step up to which the rates of a longer run are the same, so that it can go on from there: all of a
    constant schedule, the stable part of wsd; None under a cosine, or where nothing is left before the fall.

    The warm-up must be as long in both: it is a share of the steps, so a longer run states it anew (or has none).
    """
    warmup = min(round(config.warmup * steps), steps)
    fall = {"constant": 0, "wsd": min(round(config.decay * steps), steps - warmup)}.get(config.schedule, steps)
    return steps - fall if steps - fall > 0 else None
