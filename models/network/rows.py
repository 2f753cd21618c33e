"""Rows of an embedding and of a head, trained alone: those of tokens that a model never learned.

No text asks for them, so training moves all such rows the same way, until they are alike and none can be told from
another: a model that begins its answers from there can't learn to end them while its embedding and head are frozen.
They lie beside the weights as `lora_rows` (n, D), what is added to the rows of the tokens `lora_ids`, zero at first.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

ALIKE = 0.999  # the least cosine of two rows that are one; trained rows of small models come to 0.8
NOTHING = 1e-3  # of the median norm of rows


def untrained(weight_VD: Tensor, ids: Iterable[int]) -> list[int]:
    """Those of some tokens whose rows a model never learned: nothing, or what another token's row is as well."""
    chosen = sorted(ids)
    rows_VD = weight_VD.detach().float()
    norms_V = rows_VD.norm(dim=1)
    rows_VD = rows_VD / norms_V[:, None].clamp(min=1e-30)
    alike_NV = rows_VD[chosen] @ rows_VD.T > ALIKE
    alike_NV[torch.arange(len(chosen)), chosen] = False
    unlearned = alike_NV.any(1) | (norms_V[chosen] < NOTHING * norms_V.median())
    return [token for token, is_so in zip(chosen, unlearned.tolist(), strict=True) if is_so]


def train_rows(embedding: nn.Embedding, head: nn.Module | None, ids: Iterable[int]) -> None:
    """Put trainable rows beside an embedding's and a head's: the same where one weight serves as both."""
    chosen = sorted(ids)
    layers: list[Any] = [layer for layer in (embedding, head) if layer is not None]
    for layer in layers:
        shared = layer is not embedding and layer.weight is embedding.weight
        zeros = layer.weight.new_zeros(len(chosen), layer.weight.shape[1])
        layer.lora_rows = embedding.lora_rows if shared else nn.Parameter(zeros)
        layer.register_buffer("lora_ids", torch.tensor(chosen, device=layer.weight.device), persistent=False)
        layer.register_forward_hook(_embedded if layer is embedding else _scored)


def with_rows(layer: Any, hidden: Tensor, logits: Tensor) -> Tensor:
    """Logits (..., V) of hidden states (..., D), with what the rows beside a head's, if there are any, add to them."""
    if (rows := getattr(layer, "lora_rows", None)) is None:
        return logits
    return logits.index_add(-1, layer.lora_ids, F.linear(hidden, rows.to(hidden.dtype)).to(logits.dtype))


def merge_rows(model: nn.Module) -> None:
    """Add the rows to the weights that they lie beside, and take them away."""
    done: set[int] = set()
    layers: list[Any] = [layer for layer in model.modules() if hasattr(layer, "lora_rows")]
    for layer in layers:
        if id(layer.weight) not in done:
            layer.weight.index_add_(0, layer.lora_ids, layer.lora_rows)
            done.add(id(layer.weight))
        del layer.lora_rows, layer.lora_ids
        for key in [key for key, hook in layer._forward_hooks.items() if hook in (_embedded, _scored)]:
            del layer._forward_hooks[key]


def _embedded(layer: Any, arguments: tuple[Tensor, ...], output: Tensor) -> Tensor:
    """The forward hook of an embedding: a plain function, so that a copied model's hooks are its own."""
    is_one = arguments[0][..., None] == layer.lora_ids  # (..., n); one at most
    added = is_one.to(output.dtype) @ layer.lora_rows.to(output.dtype)
    return output + added * getattr(layer, "embed_scale", 1.0)  # Gemma's embeddings are scaled as they are read


def _scored(layer: Any, arguments: tuple[Tensor, ...], output: Tensor) -> Tensor:
    return with_rows(layer, arguments[0], output)
