"""What packed rows attend to: each token its own document, dense or as blocks that attention leaves out whole.

On a CPU a mask is a tensor (B, 1, T, T). On a GPU it is FlexAttention's block mask (Dong et al. 2024, arXiv
2412.05496): blocks of 128 tokens between documents cost nothing, and no mask of T x T is read for every layer.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any, TypeAlias

import torch
from torch import Tensor
from torch.nn import functional as F

if TYPE_CHECKING:
    from torch.nn.attention.flex_attention import BlockMask

Mask: TypeAlias = "Tensor | BlockMask"
_LEAST_WIDTH = 16  # of a head, that FlexAttention's kernels take


def within_documents(segments_BT: Tensor) -> Mask:
    """The mask of packed rows: a token attends to itself and to what came before in its own document.

    Padding (segment -1) attends to itself too, as an empty row would turn the softmax into NaN.
    """
    return in_blocks(segments_BT) if segments_BT.is_cuda else _dense(segments_BT)


def in_blocks(segments_BT: Tensor) -> BlockMask:
    """The same as `within_documents`, by blocks on any device."""
    from torch.nn.attention.flex_attention import create_block_mask

    def own(row: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        return (segments_BT[row, query] == segments_BT[row, key]) & (query >= key)

    B, T = segments_BT.shape
    return create_block_mask(own, B, None, T, T, device=str(segments_BT.device))


def as_tensor(attend: Mask) -> Tensor:
    """A mask as a boolean tensor (B or 1, 1, T, S), for attention that takes no blocks."""
    if isinstance(attend, Tensor):
        return attend
    from torch.nn.attention.flex_attention import create_mask

    B, T, S = attend.kv_num_blocks.shape[0], *attend.seq_lengths
    return create_mask(attend.mask_mod, B, None, T, S, device=str(attend.kv_num_blocks.device))


def attention(q: Tensor, k: Tensor, v: Tensor, attend: Mask | None, causal: bool) -> Tensor:
    """Scaled dot-product attention of heads that share keys, (B, H, T, K) over (B, kv heads, S, K)."""
    shared = q.shape[1] != k.shape[1]
    if attend is None or isinstance(attend, Tensor) or q.shape[-1] < _LEAST_WIDTH:
        mask = None if attend is None else as_tensor(attend)
        return F.scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=causal, enable_gqa=shared)
    mixed: Tensor = _flexible(q.is_cuda)(q, k, v, block_mask=attend, enable_gqa=shared)
    return mixed


@cache
def _flexible(compiled: bool) -> Any:
    """FlexAttention, which is fast only compiled."""
    from torch.nn.attention.flex_attention import flex_attention

    return torch.compile(flex_attention) if compiled else flex_attention


def _dense(segments_BT: Tensor) -> Tensor:
    T = segments_BT.shape[1]
    causal = torch.ones(T, T, dtype=torch.bool, device=segments_BT.device).tril()
    return ((segments_BT[:, :, None] == segments_BT[:, None, :]) & causal)[:, None]
