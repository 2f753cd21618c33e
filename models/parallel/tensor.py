"""Tensor parallelism for our decoder: every rank computes the same tokens with its share of each matrix.

As in Megatron-LM (Shoeybi et al. 2019, arXiv 1909.08053): queries, keys, values, gate and up are cut by columns, so
that a rank has whole heads and hidden features of its own; the two projections back are cut by rows, and what ranks get
is added up. Embedding and head are cut by tokens of the vocabulary. A layer adds up twice, forward and backward.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeVar

import torch
import torch.distributed as distributed
from torch import Tensor, nn
from torch.nn import functional as F

from datalake.errors import UserError
from models.network.decoder import Decoder, KVCache
from models.network.experts import SwiGLU
from models.parallel.parts import Parts

T = TypeVar("T")
COLUMNS, ROWS = 0, 1  # of x W^T: the dimension of W that is cut


class TensorParallel(Parts):
    """Ranks that compute one micro-batch together."""

    def __init__(self) -> None:
        super().__init__()
        self._cut: dict[nn.Parameter, int] = {}
        self._halves: list[nn.Parameter] = []  # held whole, but each rank's gradient is of its own heads alone

    def fits(self, section: str, accumulation: int, optimizer: str) -> None:
        """Any batch does: all ranks compute all of it. Raises UserError for Muon, which needs whole matrices."""
        if optimizer == "muon":
            raise UserError(f"{section}.optimizer muon needs whole matrices: set runtime.parallel to data or fsdp")

    def share(self, update: Sequence[T]) -> Sequence[tuple[T, bool]]:
        """All micro-batches."""
        return [(batch, True) for batch in update]

    def total(self, sums: Tensor) -> Tensor:
        """Every rank has the sums of all."""
        return sums

    def add_gradients(self, parameters: Any) -> None:
        """Those of the norms on heads: all others are whole, or those of a part."""
        self._add([parameter.grad for parameter in self._halves if parameter.grad is not None])

    def parted(self, parameter: Any) -> bool:
        """Matrices are, but for a scalar head's."""
        return parameter in self._cut

    def dimension(self, parameter: Any) -> int:
        """That which is cut."""
        return self._cut[parameter]

    def part(self, whole: Tensor, parameter: Any) -> Tensor:
        """This rank's rows or columns."""
        return whole.chunk(self.size, self._cut[parameter])[self.rank].contiguous()

    def joined(self, part: Any, parameter: Any) -> Tensor:
        """All rows or columns."""
        parts = [torch.empty_like(part, memory_format=torch.contiguous_format) for _ in range(self.size)]
        distributed.all_gather(parts, part.contiguous())
        return torch.cat(parts, self._cut[parameter])

    def spread(self, model: nn.Module, compute: torch.dtype = torch.float32) -> nn.Module:
        """Cuts every decoder in a model. Raises UserError for other families, and shapes that ranks don't divide."""
        super().spread(model)
        decoders = [module for module in model.modules() if isinstance(module, Decoder)]
        inside = {parameter for decoder in decoders for parameter in decoder.parameters()}
        if any(parameter.ndim > 1 and parameter.shape[0] > 1 for parameter in set(model.parameters()) - inside):
            raise UserError("tensor parallelism knows our own decoder alone: set runtime.parallel to fsdp")
        for decoder in decoders:
            self._divide(decoder)
        return model

    def _divide(self, decoder: Any) -> None:
        config = decoder.config
        for name in ("kv_heads", "hidden", "vocabulary"):
            if getattr(config, name) % self.size:
                raise UserError(
                    f"{self.size} ranks don't divide {name} {getattr(config, name)}: set runtime.ranks to a divisor,"
                    " or runtime.parallel to fsdp"
                )
        for block in decoder.layers:
            attention, mlp = block.self_attn, block.mlp
            if not isinstance(mlp, SwiGLU):
                raise UserError("tensor parallelism doesn't cut experts: set runtime.parallel to expert or fsdp")
            self._between(attention, (attention.q_proj, attention.k_proj, attention.v_proj), attention.o_proj)
            self._between(mlp, (mlp.gate_proj, mlp.up_proj), mlp.down_proj)
            self._halves += [norm.weight for norm in (attention.q_norm, attention.k_norm) if norm is not None]
        self.remember(decoder)
        self.remember(decoder.embed_tokens)
        self._slice(decoder.embed_tokens, COLUMNS)
        if decoder.lm_head is not None:
            self._slice(decoder.lm_head, COLUMNS)
        rows = config.vocabulary // self.size
        first = self.rank * rows
        local = config.model_copy(update={"kv_heads": config.kv_heads // self.size})

        def embedded(tokens: Tensor) -> Tensor:
            mine = (tokens >= first) & (tokens < first + rows)
            found = F.embedding((tokens - first).clamp(0, rows - 1), decoder.embed_tokens.weight)
            return _added(found * mine[..., None])

        def logits(hidden: Tensor) -> Tensor:
            head = decoder.embed_tokens if decoder.lm_head is None else decoder.lm_head
            return _joined(F.linear(_copied(hidden), head.weight))

        def new_cache(batch: int, capacity: int) -> KVCache:
            weight = decoder.embed_tokens.weight
            return KVCache(local, batch, capacity, weight.device, weight.dtype)

        decoder.embed_tokens.forward, decoder.logits, decoder.new_cache = embedded, logits, new_cache

    def _between(self, module: Any, before: Sequence[nn.Linear], after: nn.Linear) -> None:
        """Cut the matrices of a module that each rank computes a share of: what goes in is all, what comes out too."""
        self.remember(module)
        self.remember(after)
        for linear in before:
            self._slice(linear, COLUMNS)
        self._slice(after, ROWS)
        module.register_forward_pre_hook(lambda _, given: (_copied(given[0]), *given[1:]))
        after.register_forward_hook(lambda _module, _given, output: _added(output))

    def _slice(self, module: Any, dimension: int) -> None:
        if hasattr(module, "lora_A"):
            raise UserError("tensor parallelism doesn't cut adapters: set runtime.parallel to data or fsdp")
        part = module.weight.detach().chunk(self.size, dimension)[self.rank].clone()
        module.weight = nn.Parameter(part, module.weight.requires_grad)
        self._cut[module.weight] = dimension


class _Added(torch.autograd.Function):
    """The sum over ranks; its gradient is each rank's own."""

    @staticmethod
    def forward(context: Any, tensor: Tensor) -> Tensor:
        tensor = tensor.contiguous().clone()
        distributed.all_reduce(tensor)
        return tensor

    @staticmethod
    def backward(context: Any, gradient: Tensor) -> Tensor:
        return gradient


class _Copied(torch.autograd.Function):
    """The same on each rank; its gradient is the sum of what ranks made of it."""

    @staticmethod
    def forward(context: Any, tensor: Tensor) -> Tensor:
        return tensor.view_as(tensor)

    @staticmethod
    def backward(context: Any, gradient: Tensor) -> Tensor:
        gradient = gradient.contiguous().clone()
        distributed.all_reduce(gradient)
        return gradient


class _Joined(torch.autograd.Function):
    """The last dimension of all ranks, side by side; each takes its own of the gradient."""

    @staticmethod
    def forward(context: Any, tensor: Tensor) -> Tensor:
        context.width = tensor.shape[-1]
        parts = [
            torch.empty_like(tensor, memory_format=torch.contiguous_format) for _ in range(distributed.get_world_size())
        ]
        distributed.all_gather(parts, tensor.contiguous())
        return torch.cat(parts, -1)

    @staticmethod
    def backward(context: Any, gradient: Tensor) -> Tensor:
        return gradient.split(context.width, -1)[distributed.get_rank()]


def _added(tensor: Tensor) -> Tensor:
    summed: Tensor = _Added.apply(tensor)
    return summed


def _copied(tensor: Tensor) -> Tensor:
    same: Tensor = _Copied.apply(tensor)
    return same


def _joined(tensor: Tensor) -> Tensor:
    whole: Tensor = _Joined.apply(tensor)
    return whole
