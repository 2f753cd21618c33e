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


def engine_of(
    config: RolloutConfig, model: nn.Module, sampling: Sampling, words: Any, actors: Actors | None = None
) -> Engine:
    """The engine that a config names, for a model that is where it will be trained; actors: makes one of other
    processes. Raises UserError where it can't be had."""
    return ENGINES[config.engine](config, model, sampling, words, actors)


def _exact(config: RolloutConfig, model: nn.Module, sampling: Sampling) -> bool:
    return config.exact == "on" or (config.exact == "auto" and exact.holds(model, sampling))


def _in_process(config: RolloutConfig, model: nn.Module, sampling: Sampling, words: Any, actors: Any) -> Engine:
    return InProcess(model, sampling, exact=_exact(config, model, sampling))


def _by_actors(
    config: RolloutConfig, model: nn.Module, sampling: Sampling, words: Any, actors: Actors | None
) -> Engine:
    if actors is None:
        raise UserError("engine: ray is for stages on a cluster: set engine to process")
    return actors(model, sampling, config.workers, _exact(config, model, sampling))


def _by_vllm(config: RolloutConfig, model: nn.Module, sampling: Sampling, words: Any, actors: Any) -> Engine:
    return Vllm(model, sampling, words)


ENGINES: dict[str, Callable[..., Engine]] = {"process": _in_process, "ray": _by_actors, "vllm": _by_vllm}
