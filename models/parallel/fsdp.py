"""Fully sharded data parallelism: every rank holds a part of each weight, gradient and optimizer state.

As in ZeRO's third stage (Rajbhandari et al. 2020, arXiv 1910.02054), by torch's FSDP2 (`fully_shard`): a block's
weights are gathered when it is computed, forward and backward, and its gradients are added up and scattered at once.
Ranks take micro-batches of their own, as in `DataParallel`; the model is as large as all ranks' memory together.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor

from models.parallel.ranks import DataParallel

HELD = ("_parameters", "_buffers", "_modules")  # of a module: what is in it


class FullyShard(DataParallel):
    """Ranks that hold a model together, a part of every weight each."""

    def __init__(self) -> None:
        super().__init__()
        self.mesh = init_device_mesh(self.device.type, (self.size,))
        self._before: list[tuple[nn.Module, type, dict[str, Any]]] = []

    def spread(self, model: nn.Module, compute: torch.dtype = torch.float32) -> nn.Module:
        """Blocks are sharded one by one, what stands around them together. Blocks are gathered in the compute type,
        which halves what is sent; embedding and head, as the residual stream, stay in float32, and so do all sums."""
        super().spread(model)
        narrow = MixedPrecisionPolicy(param_dtype=compute, reduce_dtype=torch.float32, cast_forward_inputs=False)
        plain = MixedPrecisionPolicy(cast_forward_inputs=False)
        for root in _called(model):
            for module, policy in [*((block, narrow) for block in _blocks(root)), (root, plain)]:
                there = {
                    name: value.copy() if isinstance(value, dict) else value for name, value in vars(module).items()
                }
                self._before.append((module, type(module), {name: there[name] for name in there if name not in HELD}))
                sharded: Any = fully_shard(module, mesh=self.mesh, mp_policy=policy)
                sharded.set_gradient_divide_factor(1.0)
                sharded.set_force_sum_reduction_for_comms(True)  # gloo knows no other
        return model

    def add_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """They are sums over ranks already."""

    def norm(self, parameters: Sequence[nn.Parameter]) -> Tensor:
        """The norm of whole gradients: squares are added up over ranks."""
        parts: list[Any] = [parameter.grad for parameter in parameters]
        lengths = torch.stack(torch._foreach_norm([part.to_local() for part in parts]))
        return self.total(lengths.double().square().sum()).sqrt()

    def whole(self, model: nn.Module, optimizer: Any) -> tuple[dict[str, Any], dict[str, Any]]:
        """As one process would have them, on the leading rank; elsewhere nothing stands for each tensor."""
        return self._gathered(model.state_dict()), self._gathered(optimizer.state_dict())

    def put_back(self, model: nn.Module, optimizer: Any, weights: dict[str, Any], state: dict[str, Any]) -> None:
        """Every rank takes its part of what is whole."""
        mine = model.state_dict()
        model.load_state_dict({name: _part(value, mine[name]) for name, value in weights.items()})
        parts = []
        for part, saved in zip(optimizer.parts, state["parts"], strict=True):
            of = [parameter for group in part.param_groups for parameter in group["params"]]
            moments = {
                number: {name: _part(value, of[number]) for name, value in values.items()}
                for number, values in saved["state"].items()
            }
            parts.append(saved | {"state": moments})
        optimizer.load_state_dict({"parts": parts})

    def gathered(self, model: nn.Module) -> nn.Module:
        """The same modules as before they were sharded, with what was learned: every rank holds all of it."""
        model.state_dict()  # which lets go of what was gathered to compute
        whole: dict[Any, nn.Parameter] = {
            parameter: nn.Parameter(parameter.full_tensor().detach(), parameter.requires_grad)
            for parameter in model.parameters()
            if isinstance(parameter, DTensor)
        }
        for module, kind, there in self._before:
            held = {name: vars(module)[name] for name in HELD}
            module.__class__ = kind
            vars(module).clear()
            vars(module).update(there | held)
        self._before = []
        for module in model.modules():
            for name, parameter in module._parameters.items():
                if parameter in whole:
                    module._parameters[name] = whole[parameter]
        return model

    def _gathered(self, value: Any) -> Any:
        if isinstance(value, DTensor):
            tensor = value.full_tensor()
            return tensor if self.leads else None
        if isinstance(value, dict):
            return {name: self._gathered(item) for name, item in value.items()}
        return [self._gathered(item) for item in value] if isinstance(value, list) else value


def _part(whole: Any, like: Any) -> Any:
    """This rank's part of a tensor that is shaped like a sharded one; anything else as it is."""
    if not isinstance(like, DTensor) or not isinstance(whole, Tensor) or whole.shape != like.shape:
        return whole
    return distribute_tensor(whole.to(like.device), like.device_mesh, like.placements, src_data_rank=None)


def _called(model: nn.Module) -> Iterator[nn.Module]:
    """The networks of a model that are called themselves: it, or its parts where it is only a name for several."""
    if type(model).forward is not nn.Module.forward:
        yield model
    else:
        for child in model.children():
            yield from _called(child)


def _blocks(module: nn.Module) -> Iterator[nn.Module]:
    """The layers of a network: what stands in its outermost lists of modules."""
    for child in module.children():
        if isinstance(child, nn.ModuleList):
            yield from child
        else:
            yield from _blocks(child)
