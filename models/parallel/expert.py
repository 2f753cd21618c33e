"""Expert parallelism: ranks share out the experts of every mixture, and send each other's tokens to where they are.

As in GShard (Lepikhin et al. 2020, arXiv 2006.16668): a rank has its own micro-batches, as in `DataParallel`, all of a
model but its experts, and of those an equal share. A layer sends tokens to their experts and back, forward and
backward. An expert's gradient is a sum over all ranks' tokens where it is made; all others are added up.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from typing import Any

import torch
import torch.distributed as distributed
from torch import Tensor, nn

from datalake.errors import UserError
from models.network.experts import Mixture, uses
from models.parallel.parts import Parts


class ExpertParallel(Parts):
    """Ranks that hold experts of their own."""

    def __init__(self) -> None:
        super().__init__()
        self._owners: dict[nn.Parameter, tuple[int, torch.Size]] = {}

    def spread(self, model: nn.Module, compute: torch.dtype = torch.float32) -> nn.Module:
        """Each rank keeps its experts, of others' nothing but their place. Raises UserError where there are none."""
        super().spread(model)
        mixtures = [module for module in model.modules() if isinstance(module, Mixture)]
        if not mixtures:
            raise UserError("the model has no experts to spread over ranks: set runtime.parallel to data or fsdp")
        for mixture in mixtures:
            count = len(mixture.experts)
            if count % self.size:
                raise UserError(f"{self.size} ranks don't divide {count} experts: set runtime.ranks to a divisor")
            self.remember(mixture)
            way: Any = partial(self._sent, mixture)
            mixture._one_by_one, mixture._grouped = way, way  # type: ignore[method-assign]
            for number, expert in enumerate(mixture.experts):
                owner = number * self.size // count
                for module in expert.modules():
                    for name, parameter in list(module.named_parameters(recurse=False)):
                        here = parameter if owner == self.rank else nn.Parameter(parameter.new_empty(0, 0))
                        setattr(module, name, here)
                        self._owners[here] = owner, parameter.shape
        return model

    def add_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """Those of all but experts."""
        super().add_gradients(parameter for parameter in parameters if parameter not in self._owners)

    def parted(self, parameter: Any) -> bool:
        """Experts are."""
        return parameter in self._owners

    def part(self, whole: Tensor, parameter: Any) -> Tensor:
        """All, or nothing."""
        return whole if self._owners[parameter][0] == self.rank else whole.new_empty(0, 0)

    def joined(self, part: Any, parameter: Any) -> Tensor:
        """What the owner has."""
        owner, shape = self._owners[parameter]
        whole = part.clone() if owner == self.rank else part.new_empty(shape)
        distributed.broadcast(whole, owner)
        return whole

    def states(self, optimizer: Any) -> dict[str, Any]:
        """Of experts elsewhere the same entries as of those here, without numbers."""
        parts = []
        for part, saved in zip(optimizer.parts, optimizer.state_dict()["parts"], strict=True):
            of = [parameter for group in part.param_groups for parameter in group["params"]]
            known = saved["state"]
            like: dict[str, Any] = next((known[number] for number in known if of[number] in self._owners), {})
            state = {
                number: known.get(number)
                or {name: parameter.detach() if value.dim() else value for name, value in like.items()}
                for number, parameter in enumerate(of)
                if number in known or (like and parameter in self._owners)
            }
            parts.append(saved | {"state": state})
        return {"parts": parts}

    def put_back(self, model: nn.Module, optimizer: Any, weights: dict[str, Any], state: dict[str, Any]) -> None:
        """Every rank takes its experts."""
        super().put_back(model, optimizer, weights, state)
        for part in optimizer.parts:
            for parameter in [parameter for parameter in part.state if not parameter.numel()]:
                del part.state[parameter]

    def _sent(self, mixture: Mixture, sorted_XD: Tensor, chosen_NK: Tensor) -> Tensor:
        """What experts say to tokens that are sorted by expert, in the same order: those elsewhere are asked there."""
        count = len(mixture.experts) // self.size
        mine_RE = uses(chosen_NK, len(mixture.experts)).view(self.size, count)
        theirs_RE = torch.empty_like(mine_RE)
        distributed.all_to_all_single(theirs_RE, mine_RE.contiguous())
        there, here = mine_RE.sum(1).tolist(), theirs_RE.sum(1).tolist()
        pieces = exchanged(sorted_XD, there, here).split(theirs_RE.flatten().tolist())
        said: list[Tensor] = [sorted_XD] * len(pieces)
        for number in range(count):
            expert = mixture.experts[self.rank * count + number]
            answer = expert(torch.cat(pieces[number::count]))
            said[number::count] = answer.split(theirs_RE[:, number].tolist())
        return exchanged(torch.cat(said), here, there)


class _Exchanged(torch.autograd.Function):
    """Rows to other ranks and from them; gradients go the way back."""

    @staticmethod
    def forward(context: Any, rows: Tensor, given: list[int], taken: list[int]) -> Tensor:
        context.given, context.taken = given, taken
        got = rows.new_empty(sum(taken), *rows.shape[1:])
        distributed.all_to_all_single(got, rows.contiguous(), taken, given)
        return got

    @staticmethod
    def backward(context: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        back = gradient.new_empty(sum(context.given), *gradient.shape[1:])
        distributed.all_to_all_single(back, gradient.contiguous(), context.given, context.taken)
        return back, None, None


def exchanged(rows: Tensor, given: list[int], taken: list[int]) -> Tensor:
    """Rows sorted by rank, so many for each, for those of other ranks, so many from each."""
    got: Tensor = _Exchanged.apply(rows, given, taken)
    return got
