"""Rollouts in Ray actors: each holds the policy and an engine of its own, and answers its share of a step's prompts.

What a row becomes is a function of its prompt, its seed and the weights, so neither the number of actors nor the death
of one shows in an answer: one that dies is started again, given the weights, and asked the same prompts.

Answers are waited for while nothing else is done, so actors share the CPUs that the run has already: they ask for none
but those that the run has on other nodes, and so always find room.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from datalake.errors import UserError
from tasks.cluster.alone import cpus_of_one
from tasks.cluster.connect import ClusterError, aside, connect, require
from tasks.runtime import RuntimeConfig

if TYPE_CHECKING:
    from torch import nn

    from models.rl.answers import Answer, Engine, Observe, Sampling
    from models.training.device import Device


@dataclass
class Actors:
    """Makes an engine of some actors, as `models.rl.answers.Actors`; they end with the `with` that this stands in, or
    when another engine is made."""

    config: RuntimeConfig
    running: list[Any] = field(default_factory=list)

    def __call__(self, model: nn.Module, sampling: Sampling, workers: int, exact: bool, device: Device) -> Engine:
        """The engine; `workers`: how many actors. Raises UserError where there is no cluster."""
        import torch

        if self.config.cluster == "inline":
            raise UserError(
                "engine: ray has no cluster to answer on: set runtime.cluster to local, or engine to process"
            )
        self.close()
        ray, retries = connect(self.config), self.config.retries
        everywhere = min(self.config.workers, int(ray.cluster_resources().get("CPU", 0)))
        spare = everywhere - cpus_of_one(ray, self.config) if self.config.ranks == 1 else 0  # ranks hold all
        actor = ray.remote(
            num_cpus=max(0, spare) // workers,
            scheduling_strategy="SPREAD",
            max_restarts=retries,
            max_task_retries=retries,
        )(_Actor)
        held = ray.put(model if device.device.type == "cpu" else deepcopy(model).cpu())
        shape = sampling, exact, device, torch.get_num_threads()
        self.running = [actor.remote(number, held, *shape) for number in range(workers)]
        return _Engine(ray, model, self.running, held, exact)

    def close(self) -> None:
        """End the actors."""
        for actor in self.running:
            with contextlib.suppress(Exception):
                connect(self.config).kill(actor)
        self.running = []

    def __enter__(self) -> Actors:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class _Actor:
    """One of them, with as many threads as the process that trains: other numbers of threads give other last bits."""

    def __init__(
        self, number: int, model: nn.Module, sampling: Sampling, exact: bool, device: Device, threads: int
    ) -> None:
        os.environ["OMP_NUM_THREADS"] = str(threads)
        import torch

        from models.rl.engine import Engine

        torch.set_num_threads(threads)
        self.device, kind = device, device.device.type
        place = kind if kind == "cpu" else f"{kind}:{number % torch.cuda.device_count()}"
        self.engine = Engine(model.to(place), sampling, exact=exact)
        self.engine.version = -1  # none that was trained

    def answers(
        self,
        version: int,
        weights: Sequence[Any],
        places: Sequence[int],
        prompts: Sequence[list[int]],
        seeds: Sequence[int],
        observe: Observe | None,
    ) -> list[Answer]:
        """Those of the prompts that stand at these places of all, by the weights of a version, one reference."""
        if self.engine.version != version:
            import ray

            self.engine.model.load_state_dict(ray.get(weights[0]), strict=False)
            self.engine.version = version
        with self.device.computing():
            if observe is None:
                return self.engine(prompts, seeds)
            return self.engine(prompts, seeds, lambda row, answer: observe(places[row], answer))


class _Engine:
    """All of them as one engine. The weights are put where actors find them once for each version; what they were
    `made_of` is there as long as one may have to start again."""

    def __init__(self, ray: Any, model: nn.Module, actors: Sequence[Any], made_of: Any, exact: bool) -> None:
        self.ray, self.model, self.actors, self.made_of, self.exact = ray, model, actors, made_of, exact
        self.version = 0
        self._weights: tuple[int, Any] = (-1, None)
        self._observe: tuple[Any, Any] = (None, None)

    def __call__(
        self, prompts: Sequence[list[int]], seeds: Sequence[int], observe: Observe | None = None
    ) -> list[Answer]:
        """As `models.rl.answers.Engine`. Raises ClusterError where an actor dies again and again."""
        if self._weights[0] != self.version:
            self._weights = self.version, self.ray.put(_weights(self.model))
        if self._observe[0] is not observe:
            self._observe = observe, self.ray.put(observe)
        shares = [list(range(number, len(prompts), len(self.actors))) for number in range(len(self.actors))]
        asked = [
            (
                places,
                actor.answers.remote(
                    self.version,
                    [self._weights[1]],
                    places,
                    [prompts[place] for place in places],
                    [seeds[place] for place in places],
                    self._observe[1],
                ),
            )
            for actor, places in zip(self.actors, shares, strict=True)
            if places
        ]
        found: dict[int, Answer] = {}
        try:
            for places, reference in asked:
                while not aside(self.ray.wait, [reference], timeout=1.0)[0]:
                    require(self.ray)
                found |= zip(places, aside(self.ray.get, reference), strict=True)
        except self.ray.exceptions.RayTaskError as error:
            if isinstance(error.cause, Exception):
                raise error.cause from None
            raise
        except self.ray.exceptions.RayActorError as error:
            require(self.ray)
            why = str(error).splitlines()[0]
            raise ClusterError(f"an actor that writes answers died again and again ({why})") from error
        return [found[place] for place in range(len(prompts))]


def _weights(model: nn.Module) -> dict[str, Any]:
    """What training changes of a model's state: a frozen base is held already."""
    frozen = {name for name, weight in model.named_parameters() if not weight.requires_grad}
    return {name: value.detach().cpu() for name, value in model.state_dict().items() if name not in frozen}
