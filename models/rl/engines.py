"""Who writes a policy's answers: a table by the name that a recipe gives. One more is a function here and its name in
`RolloutConfig.engine`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import nn

from datalake.errors import UserError
from models.rl import exact
from models.rl.answers import Actors, Engine, Sampling
from models.rl.config import RolloutConfig
from models.rl.engine import Engine as InProcess
from models.rl.vllm import Vllm
from models.training.device import Device


def engine_of(
    config: RolloutConfig,
    model: nn.Module,
    sampling: Sampling,
    words: Any,
    device: Device,
    actors: Actors | None = None,
) -> Engine:
    """The engine that a config names, for a model that is where it will be trained; device: how precisely it computes
    there; actors: makes one of other processes. Raises UserError where it can't be had."""
    return ENGINES[config.engine](config, model, sampling, words, device, actors)


def _exact(config: RolloutConfig, model: nn.Module, sampling: Sampling, device: Device) -> bool:
    with device.computing():
        return config.exact == "on" or (config.exact == "auto" and exact.holds(model, sampling))


def _in_process(
    config: RolloutConfig, model: nn.Module, sampling: Sampling, words: Any, device: Device, actors: Any
) -> Engine:
    return InProcess(model, sampling, exact=_exact(config, model, sampling, device))


def _by_actors(
    config: RolloutConfig, model: nn.Module, sampling: Sampling, words: Any, device: Device, actors: Actors | None
) -> Engine:
    if actors is None:
        raise UserError("engine: ray is for stages on a cluster: set engine to process")
    return actors(model, sampling, config.workers, _exact(config, model, sampling, device), device)


def _by_vllm(
    config: RolloutConfig, model: nn.Module, sampling: Sampling, words: Any, device: Device, actors: Any
) -> Engine:
    return Vllm(model, sampling, words)


ENGINES: dict[str, Callable[..., Engine]] = {"process": _in_process, "ray": _by_actors, "vllm": _by_vllm}
