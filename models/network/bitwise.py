"""Two passes over the same tokens with the same numbers, to the bit: on a CPU in float32, where the machine allows it.

Reading a token at a time with a cache, and reading whole rows, gives the same sums; they are equal to the bit where
they are summed in the same order. Four things stand against that, and are kept the same in both:

- the rows of a matrix product: below a number of rows that depends on its width, a library takes another kernel. At
  least `ROWS` are given to each, 16 being enough for every width tried with MKL 2024.2 on AVX-512;
- the queries of an attention: at least `QUERIES`, or `ROWS` where heads are wide;
- its keys: as many as there are, rounded up to `KEYS`, under a mask, in both (`slots.py`);
- functions of single numbers: what is left over after the last two vectors of a thread's share is computed otherwise.
  They are given whole vectors.

With several threads MKL also splits the sums of a long product where there are few rows: `MKL_CBWR=AVX512,STRICT` in
the environment (AVX2,STRICT on older processors), set before anything is computed, makes its products independent of
rows and threads. It is a property of processor, library and shapes: `models.rl.exact.holds` asks a model itself.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

ROWS = 16
QUERIES, NARROW = 4, 64  # for heads up to this width; wider ones take ROWS
VECTORS = 32  # float32 numbers in two of AVX-512
SHARE = 32_768  # numbers from which on torch gives another thread a share (ATen's grain size)
FUNCTIONS = {F.silu, F.gelu, torch.tanh, torch.sigmoid, torch.exp, torch.cos, torch.sin} | {
    torch.Tensor.tanh, torch.Tensor.sigmoid, torch.Tensor.exp, torch.Tensor.cos, torch.Tensor.sin
}  # fmt: skip


class Passes(TorchFunctionMode):
    """While it lasts, linear layers have at least `ROWS` rows, attention `QUERIES` queries, functions whole vectors."""

    def __torch_function__(
        self, function: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Pads what is too small, and cuts the result."""
        if function is F.linear and 0 < args[0].numel() < ROWS * args[0].shape[-1]:
            x = args[0].reshape(-1, args[0].shape[-1])
            padded = F.linear(F.pad(x, (0, 0, 0, ROWS - len(x))), *args[1:], **kwargs or {})
            return padded[: len(x)].view(*args[0].shape[:-1], -1)
        if function is F.scaled_dot_product_attention:
            (queries, width), more = args[0].shape[-2:], dict(kwargs or {})
            least = QUERIES if width <= NARROW else ROWS
            if queries >= least:
                return function(*args, **more)
            if more.get("attn_mask") is not None:
                more["attn_mask"] = _repeated(more["attn_mask"], least)
            return function(_repeated(args[0], least), *args[1:], **more)[..., :queries, :]
        if function is torch.matmul and args[0].ndim == 4 and args[0].shape[-2] < ROWS:  # attention in so many words
            queries = args[0].shape[-2]
            return torch.matmul(_repeated(args[0], ROWS), *args[1:], **kwargs or {})[..., :queries, :]
        if function in FUNCTIONS:
            x = args[0]
            shares = max(1, min(torch.get_num_threads(), -(-x.numel() // SHARE)))
            short = -x.numel() % (VECTORS * shares)
            if short:
                return function(F.pad(x.flatten(), (0, short)), *args[1:], **kwargs or {})[: x.numel()].view(x.shape)
        return function(*args, **kwargs or {})


def _repeated(rows_T: Tensor, number: int) -> Tensor:
    """The last row again, until there are so many."""
    return torch.cat((rows_T, rows_T[..., -1:, :].expand(*rows_T.shape[:-2], number - rows_T.shape[-2], -1)), -2)


def possible(model: nn.Module) -> bool:
    """Whether to try at all: on a CPU, in float32."""
    some = next(model.parameters())
    return some.device.type == "cpu" and some.dtype == torch.float32 and not torch.is_autocast_enabled("cpu")


def log_softmax(model: nn.Module, hidden_ND: Tensor, temperature: float, vocabulary: int | None = None) -> Tensor:
    """Log-probabilities (N, V), in nats, of the next token after each of these states: those of sampling.

    Logits are divided by the temperature, and ids from `vocabulary` on, the embedding's spare rows, can't be drawn.
    """
    network: Any = model
    number = len(hidden_ND)
    if number < ROWS and possible(model):
        hidden_ND = F.pad(hidden_ND, (0, 0, 0, ROWS - number))
    logits_NV = network.logits(hidden_ND)[:number, :vocabulary].float()
    return F.log_softmax(logits_NV / temperature if temperature else logits_NV, -1)
