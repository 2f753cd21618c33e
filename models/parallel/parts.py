"""Ranks that hold a model in parts: what all ways of parting it share.

A way says which parameters it parts, how a part is cut out of a whole tensor, and how parts are joined; then norms,
states and the finished model are those of one process. Every rank writes the parts that it holds to a state; they are
joined when it is read, so that any number of ranks, in any way of parting, goes on from it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from models.parallel.ranks import DataParallel

_HELD = ("_parameters", "_buffers", "_modules")  # of a module: what is in it


class Parts(DataParallel):
    """Ranks some of whose parameters are parts, known by `parted`."""

    whole_model = False

    def __init__(self) -> None:
        super().__init__()
        self._writers = self.distributed.new_group(backend="gloo")  # for the threads that write states
        self._before: list[tuple[nn.Module, type, dict[str, Any]]] = []

    def parted(self, parameter: Any) -> bool:
        """Whether a rank holds a part of it, or nothing, instead of all."""
        raise NotImplementedError

    def part(self, whole: Tensor, parameter: Any) -> Tensor:
        """What this rank holds of a tensor that belongs to a parted parameter: itself, a moment of it."""
        raise NotImplementedError

    def joined(self, part: Any, parameter: Any) -> Tensor:
        """The whole tensor of which every rank gives what it holds."""
        raise NotImplementedError

    def norm(self, parameters: Sequence[nn.Parameter]) -> Tensor:
        """The norm of whole gradients: squares of parts are added up over ranks."""

        def squares(some: list[Any]) -> Tensor:
            if not some:
                return torch.zeros((), dtype=torch.float64, device=self.device)
            gradients = [p.grad.to_local() if isinstance(p.grad, DTensor) else p.grad for p in some]
            return torch.stack(torch._foreach_norm(gradients)).double().square().sum()

        parts = self.added(squares([parameter for parameter in parameters if self.parted(parameter)]))
        return (parts + squares([parameter for parameter in parameters if not self.parted(parameter)])).sqrt()

    def held(self, model: nn.Module, optimizer: Any) -> tuple[dict[str, Any], dict[str, Any]]:
        """As this rank has them: nothing is sent."""

        def mark(value: Any, parameter: Any) -> Any:
            if not self.parted(parameter):
                return value
            part = value.detach()
            return {"part": part.to_local() if isinstance(part, DTensor) else part, "dim": self.dimension(parameter)}

        weights = {name: mark(value, value) for name, value in model.state_dict(keep_vars=True).items()}
        return weights, _moments(optimizer, self.states(optimizer), mark)

    def written(self) -> None:
        """Until every rank has written what it holds."""
        self.distributed.barrier(self._writers)

    def dimension(self, parameter: Any) -> int:
        """Where parts of it are joined; a rank may have none."""
        return 0

    def states(self, optimizer: Any) -> dict[str, Any]:
        """The optimizer's state, with the same entries on each rank."""
        states: dict[str, Any] = optimizer.state_dict()
        return states

    def put_back(self, model: nn.Module, optimizer: Any, weights: dict[str, Any], state: dict[str, Any]) -> None:
        """Every rank takes its part of what is whole."""

        def cut(value: Tensor, parameter: Any) -> Tensor:
            return self.part(value.to(self.device), parameter) if self.parted(parameter) else value

        mine = model.state_dict(keep_vars=True)
        model.load_state_dict({name: cut(value, mine[name]) for name, value in weights.items()})
        optimizer.load_state_dict(_moments(optimizer, state, cut))

    def remember(self, module: nn.Module) -> None:
        """Note how a module is before it is changed for ranks, but for what is in it."""
        there = {name: value for name, value in vars(module).items() if name not in _HELD}
        hooks = {name: value.copy() for name, value in there.items() if isinstance(value, dict)}
        self._before.append((module, type(module), there | hooks))

    def gathered(self, model: nn.Module) -> nn.Module:
        """The same modules as before they were changed, with what was learned: every rank holds all of it."""
        model.state_dict()  # has FSDP let go of what it gathered to compute
        whole: dict[Any, nn.Parameter] = {
            parameter: nn.Parameter(self.joined(parameter.detach(), parameter).detach(), parameter.requires_grad)
            for parameter in model.parameters()
            if self.parted(parameter)
        }
        for module, kind, there in self._before:
            held = {name: vars(module)[name] for name in _HELD}
            module.__class__ = kind
            vars(module).clear()
            vars(module).update(there | held)
        self._before = []
        for module in model.modules():
            for name, parameter in module._parameters.items():
                if parameter in whole:
                    module._parameters[name] = whole[parameter]
        return model


def _moments(optimizer: Any, states: dict[str, Any], change: Callable[[Tensor, Any], Any]) -> dict[str, Any]:
    """An optimizer's state with every tensor shaped like a parameter changed, told which parameter."""
    parts = []
    for part, saved in zip(optimizer.parts, states["parts"], strict=True):
        of = [parameter for group in part.param_groups for parameter in group["params"]]
        moments = {
            number: {
                name: change(value, of[number]) if isinstance(value, Tensor) and value.dim() else value
                for name, value in values.items()
            }
            for number, values in saved["state"].items()
        }
        parts.append(saved | {"state": moments})
    return {"parts": parts}
