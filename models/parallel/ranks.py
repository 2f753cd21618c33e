"""Ranks: processes that train one model together. The loop asks one object; alone, it does nothing.

An update is a sequence of micro-batches, the fixed unit of arithmetic: rank r takes each `size`-th of them from the
r-th on. What they add up to (gradients of loss sums, the sums themselves, targets) is added over ranks before anything
is divided, so a loss is the same mean over all targets however many ranks there are, and however unequal their shares.
Everything else of a step (learning rate, clipping, the judgement of a spike, the optimizer) is then the same on each.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from datalake.errors import UserError

T = TypeVar("T")


class Ranks:
    """One process alone, and what more than one answer otherwise."""

    rank = 0
    size = 1
    whole_model = True  # whether each holds all of it
    wanted = 0  # how many there were to be, where that isn't how many there are
    ending: Path | None = None  # a file that says so to processes that get no signals

    @property
    def leads(self) -> bool:
        """Whether this rank writes what is written once: metrics, states, the checkpoint."""
        return self.rank == 0

    def fits(self, section: str, accumulation: int, optimizer: str) -> None:
        """Raises UserError where a config can't be trained so: a batch needs a micro-batch for every rank."""
        size = self.wanted or self.size
        if accumulation % size:
            raise UserError(
                f"{section}.accumulation is {accumulation}, and {size} ranks each take an equal share of a"
                f" batch's parts: make it a multiple of {size}"
            )

    def spread(self, model: nn.Module, compute: torch.dtype = torch.float32) -> nn.Module:
        """The same model as this rank holds it: whole, or its share. Called before the optimizer is built; `compute`
        is the type of products."""
        return model

    def settle(self, model: nn.Module) -> None:
        """Hold no more than this rank's share again, after passes that no backward pass followed."""

    def share(self, update: Sequence[T]) -> Sequence[tuple[T, bool]]:
        """This rank's micro-batches of an update, and whether each counts: every rank computes equally many, as what
        they tell each other has to match. Where too few are there, some compute one that is another's and adds nothing.
        """
        mine = [(batch, True) for batch in update[self.rank :: self.size]]
        return mine + [(update[0], False)] * (-(-len(update) // self.size) - len(mine))

    def end(self, told: bool) -> bool:
        """Whether any rank was told to end, by a signal or by the file `ending`."""
        return told

    def total(self, sums: Tensor) -> Tensor:
        """The sum of a small vector over ranks, in place."""
        return sums

    def add_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """Make every gradient the sum over ranks."""

    def norm(self, parameters: Sequence[nn.Parameter]) -> Tensor:
        """The norm of these parameters' gradients, those that other ranks hold included."""
        gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
        return torch.linalg.vector_norm(torch.stack(torch._foreach_norm(gradients)))

    def held(self, model: nn.Module, optimizer: Any) -> tuple[dict[str, Any], dict[str, Any]]:
        """Weights and optimizer state as this rank has them; of a tensor held in parts `{"part": tensor, "dim": where
        parts are joined}`."""
        return model.state_dict(), optimizer.state_dict()

    def written(self) -> None:
        """Until every rank has written what it holds; asked in the thread that writes."""

    def put_back(self, model: nn.Module, optimizer: Any, weights: dict[str, Any], state: dict[str, Any]) -> None:
        """Load what `held` gave with its parts joined, of this number of ranks or another."""
        model.load_state_dict(weights)
        optimizer.load_state_dict(state)

    def gathered(self, model: nn.Module) -> nn.Module:
        """The same model with whole weights again, when training is over: to be evaluated or written."""
        return model

    def barrier(self) -> None:
        """Until every rank is here."""


ALONE = Ranks()


class DataParallel(Ranks):
    """Every rank holds the whole model; gradients are added once an update, in a few large pieces.

    A process group must have been set up (`torch.distributed.init_process_group`).
    """

    PIECE = 25 << 20  # bytes of gradients in one call, as torch's own DistributedDataParallel has it

    def __init__(self) -> None:
        import torch.distributed as distributed

        self.distributed = distributed
        self.rank, self.size = distributed.get_rank(), distributed.get_world_size()
        self.device = torch.device("cuda" if "nccl" in distributed.get_backend() else "cpu")

    def spread(self, model: nn.Module, compute: torch.dtype = torch.float32) -> nn.Module:
        """Every rank begins with the first one's weights."""
        for tensor in (*model.parameters(), *model.buffers()):
            self.distributed.broadcast(tensor.data, 0)
        return model

    def total(self, sums: Tensor) -> Tensor:
        """The sum of a small vector over ranks, in place."""
        return self.added(sums)

    def end(self, told: bool) -> bool:
        """Whether any rank was told to end, by a signal or by the file `ending`."""
        told = told or (self.ending is not None and self.ending.exists())
        return bool(self.added(torch.tensor(float(told), device=self.device)))

    def added(self, tensor: Tensor) -> Tensor:
        """The sum of a tensor over ranks, in place."""
        self.distributed.all_reduce(tensor)
        return tensor

    def add_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """Make every gradient the sum over ranks."""
        piece: list[Tensor] = []
        size = 0
        for parameter in parameters:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)  # another rank may have one
            piece.append(parameter.grad)
            size += parameter.grad.numel() * parameter.grad.element_size()
            if size >= self.PIECE:
                self._add(piece)
                piece, size = [], 0
        self._add(piece)

    def _add(self, gradients: list[Tensor]) -> None:
        if not gradients:
            return
        flat = torch.cat([gradient.reshape(-1) for gradient in gradients])
        self.added(flat)
        for gradient, part in zip(gradients, flat.split([g.numel() for g in gradients]), strict=True):
            gradient.copy_(part.view_as(gradient))

    def barrier(self) -> None:
        """Until every rank is here."""
        self.distributed.barrier()
