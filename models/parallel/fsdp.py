"""Fully sharded data parallelism: every rank holds a part of each weight, gradient and optimizer state.

As in ZeRO's third stage (Rajbhandari et al. 2020, arXiv 1910.02054), by torch's FSDP2 (`fully_shard`): a block's
weights are gathered when it is computed, forward and backward, and its gradients are added up and scattered at once.
Ranks take micro-batches of their own, as in `DataParallel`; the model is as large as all ranks' memory together.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor

from models.parallel.parts import Parts


class FullyShard(Parts):
    """Ranks that hold a model together, a part of every weight each."""

    def __init__(self) -> None:
        super().__init__()
        self.mesh = init_device_mesh(self.device.type, (self.size,))

    def spread(self, model: nn.Module, compute: torch.dtype = torch.float32) -> nn.Module:
        """Blocks are sharded one by one, what stands around them together. Blocks are gathered in the compute type,
        which halves what is sent; embedding and head, as the residual stream, stay in float32, and so do all sums."""
        super().spread(model)
        narrow = MixedPrecisionPolicy(param_dtype=compute, reduce_dtype=torch.float32, cast_forward_inputs=False)
        plain = MixedPrecisionPolicy(cast_forward_inputs=False)
        for root in _called(model):
            for module, policy in [*((block, narrow) for block in _blocks(root)), (root, plain)]:
                self.remember(module)
                sharded: Any = fully_shard(module, mesh=self.mesh, mp_policy=policy)
                sharded.set_gradient_divide_factor(1.0)
                sharded.set_force_sum_reduction_for_comms(True)  # gloo knows no other
        return model

    def settle(self, model: nn.Module) -> None:
        """What stands around the blocks stays whole until a backward pass: an optimizer would be given that."""
        for module in model.modules():
            if isinstance(module, FSDPModule):
                module.reshard()

    def add_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """They are sums over ranks already."""

    def parted(self, parameter: Any) -> bool:
        """All are."""
        return isinstance(parameter, DTensor)

    def part(self, whole: Tensor, parameter: Any) -> Tensor:
        """This rank's rows."""
        return distribute_tensor(whole, parameter.device_mesh, parameter.placements, src_data_rank=None)

    def joined(self, part: Any, parameter: Any) -> Tensor:
        """All rows."""
        tensor: Tensor = part.full_tensor()
        return tensor


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
