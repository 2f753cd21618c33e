"""Forward pass and loss as one compiled graph (`torch.compile`), where batches have one shape and a compiler is there.

The graph has no break, so nothing in an objective that is compiled may depend on values: no selection by a mask, no
question to a tensor. Compiled sums are added in another order, so the choice shapes the last bits of the weights.
Evaluation keeps to the plain module, whose rows may have any shape.
"""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import nn

from datalake.errors import UserError
from models.objectives.base import Loss, Objective

Choice = Literal["auto", "on", "off"]


def compiled(
    objective: Objective, choice: Choice, device: torch.device, compiles: bool, backend: str = "inductor"
) -> Objective:
    """The objective as it is computed: compiled where that is asked for, or (auto) on a GPU where it surely `compiles`:
    as one graph, for batches of one shape.

    Asked for elsewhere, the graph is for any shape after the second. The objective raises UserError in its first call
    where it can't be compiled, or there is no compiler.
    """
    if choice == "off" or (choice == "auto" and not (compiles and device.type == "cuda")):
        return objective
    function = torch.compile(objective, fullgraph=True, dynamic=False if compiles else None, backend=backend)

    def whole(model: nn.Module, batch: Any) -> Loss:
        from torch._dynamo.exc import TorchDynamoException
        from torch.fx.experimental.symbolic_shapes import GuardOnDataDependentSymNode

        try:
            return function(model, batch)
        except (TorchDynamoException, GuardOnDataDependentSymNode) as error:
            reason = next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
            raise UserError(f"the training step can't be compiled ({reason[:200]}): set compile to off") from error

    return whole
