"""The decoder: a Llama-like language model with optional QK-norm (Qwen3) and mixture of experts (Mixtral).

RMSNorm (Zhang and Sennrich 2019, arXiv 1910.07467), rotary positions (`rope.py`) in the layout of Llama on the Hugging
Face hub, where a head's first half is paired with its second, grouped-query attention (Ainslie
et al. 2023, arXiv 2305.13245), then SwiGLU or experts (`experts.py`). Parameters carry the names of `LlamaForCausalLM`
without its `model.` prefix; `checkpoint.py` maps them one to one and a test compares logits. Parallelism, precision
and losses live elsewhere.

Letters in names: B batch, T tokens now, S tokens attended to (cached and now), D width, V vocabulary, H heads, K width
of a head.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from models.network.config import NetworkConfig
from models.network.experts import Mixture, SwiGLU
from models.network.masks import Mask, attention
from models.network.rope import rotate, rotation
from models.network.rows import with_rows


class KVCache:
    """Keys and values of the tokens seen so far, for each layer (B, kv heads, capacity, K), filled up to `length`.

    `put` is called once for each layer of a forward pass; `length` moves on when the pass ends.
    """

    def __init__(self, config: NetworkConfig, batch: int, capacity: int, device: torch.device, dtype: torch.dtype):
        shape = (config.layers, batch, config.kv_heads, capacity, config.head_width)
        self.keys = torch.empty(shape, device=device, dtype=dtype)
        self.values = torch.empty(shape, device=device, dtype=dtype)
        self.length = 0

    @property
    def capacity(self) -> int:
        """The most tokens a row can hold."""
        return self.keys.shape[3]

    def put(self, layer: int, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Store keys and values of the tokens now (B, heads, T, K); returns those of all tokens (B, heads, S, K)."""
        end = self.length + keys.shape[2]
        if end > self.capacity:
            raise ValueError(f"the cache holds {self.capacity} tokens, {end} are needed: make it larger")
        self.keys[layer, :, :, self.length : end] = keys
        self.values[layer, :, :, self.length : end] = values
        return self.keys[layer, :, :, :end], self.values[layer, :, :, :end]

    def advance(self, tokens: int) -> None:
        """Say that every layer has stored `tokens` more."""
        self.length += tokens

    def select(self, rows: Tensor) -> None:
        """Keep only these rows of the batch, in this order."""
        self.keys = self.keys[:, rows]
        self.values = self.values[:, rows]


class RMSNorm(nn.Module):
    """x / sqrt(mean(x^2) + eps), times a weight for each feature; the mean is taken in float32."""

    def __init__(self, width: int, eps: float):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        """Normalises the last dimension."""
        if x.dtype == torch.float32:
            return F.rms_norm(x, self.weight.shape, self.weight, self.eps)
        return self.weight * F.rms_norm(x.float(), self.weight.shape, None, self.eps).to(x.dtype)


class Attention(nn.Module):
    """Causal self-attention with grouped queries, rotary positions and optional norms on queries and keys."""

    def __init__(self, config: NetworkConfig, layer: int):
        super().__init__()
        self.layer, self.heads, self.kv_heads, self.head_width = (
            layer,
            config.heads,
            config.kv_heads,
            config.head_width,
        )
        self.q_proj = nn.Linear(config.width, config.heads * config.head_width, bias=False)
        self.k_proj = nn.Linear(config.width, config.kv_heads * config.head_width, bias=False)
        self.v_proj = nn.Linear(config.width, config.kv_heads * config.head_width, bias=False)
        self.o_proj = nn.Linear(config.heads * config.head_width, config.width, bias=False)
        self.q_norm = RMSNorm(config.head_width, config.norm_eps) if config.qk_norm else None
        self.k_norm = RMSNorm(config.head_width, config.norm_eps) if config.qk_norm else None

    def forward(
        self, x_BTD: Tensor, turn: tuple[Tensor, Tensor], attend: Mask | None, causal: bool, cache: KVCache | None
    ) -> Tensor:
        """Mixes tokens. `attend` (B or 1, 1, T, S), True = may attend, or by blocks; `causal` only with T = S and no
        `attend`."""
        B, T, _ = x_BTD.shape
        # -1 for the heads: under tensor parallelism a rank holds only its share of them
        q = self.q_proj(x_BTD).view(B, T, -1, self.head_width)
        k = self.k_proj(x_BTD).view(B, T, -1, self.head_width)
        v = self.v_proj(x_BTD).view(B, T, -1, self.head_width).transpose(1, 2)
        if self.q_norm is not None and self.k_norm is not None:
            q, k = self.q_norm(q), self.k_norm(k)
        q, k = rotate(q.transpose(1, 2), *turn), rotate(k.transpose(1, 2), *turn)
        if cache is not None:
            k, v = cache.put(self.layer, k, v)
        mixed = attention(q, k, v, attend, causal)
        return self.o_proj(mixed.transpose(1, 2).reshape(B, T, -1))


class Block(nn.Module):
    """One layer: attention, then SwiGLU or experts, each on a normalised copy and added to the residual stream."""

    def __init__(self, config: NetworkConfig, layer: int):
        super().__init__()
        self.input_layernorm = RMSNorm(config.width, config.norm_eps)
        self.self_attn = Attention(config, layer)
        self.post_attention_layernorm = RMSNorm(config.width, config.norm_eps)
        self.mlp: nn.Module = Mixture(config) if config.experts else SwiGLU(config.width, config.hidden)

    def forward(
        self, x_BTD: Tensor, turn: tuple[Tensor, Tensor], attend: Mask | None, causal: bool, cache: KVCache | None
    ) -> Tensor:
        """(B, T, D) -> (B, T, D); the other arguments as in `Attention`."""
        x_BTD = x_BTD + self.self_attn(self.input_layernorm(x_BTD), turn, attend, causal, cache)
        return x_BTD + self.mlp(self.post_attention_layernorm(x_BTD))


class Decoder(nn.Module):
    """Tokens to hidden states to logits. `forward` stops before the head, so that losses and values take it from there.

    Fresh weights: matrices from a normal of deviation 1/sqrt(inputs), but 0.002 where they write to the residual
    stream, so that the model starts near its embedding and every layer grows from almost nothing (Zhang et al. 2019,
    Fixup, arXiv 1901.09321; not zero, or a scalar head on a fresh body would never learn); embedding, head and router
    0.02, norms one. After 120 steps on Python source with 1.1M parameters the loss is 5.75, against 5.98 with GPT-2's
    0.02, divided by sqrt(2 layers) at the residual stream.

    With `checkpointing` a layer keeps its input alone and is computed again for its gradients (Chen et al. 2016, arXiv
    1604.06174): the same numbers for a third more time, and less memory.
    """

    def __init__(self, config: NetworkConfig, generator: torch.Generator | None = None):
        super().__init__()
        self.config = config
        self.embed_tokens = nn.Embedding(config.vocabulary, config.width)
        self.layers = nn.ModuleList(Block(config, layer) for layer in range(config.layers))
        self.norm = RMSNorm(config.width, config.norm_eps)
        self.lm_head = None if config.tie else nn.Linear(config.width, config.vocabulary, bias=False)
        self.checkpointing = False
        self.initialise(generator)

    @torch.no_grad()
    def initialise(self, generator: torch.Generator | None = None) -> None:
        """Draw all weights anew, in the order of their names' definition; equal generators give equal weights."""
        for name, parameter in self.named_parameters():
            if parameter.ndim == 1:
                parameter.fill_(1.0)
            elif name.endswith(("o_proj.weight", "down_proj.weight")):
                parameter.normal_(0.0, 0.002, generator=generator)
            else:
                narrow = name.endswith(("embed_tokens.weight", "lm_head.weight", "mlp.gate.weight"))
                parameter.normal_(0.0, 0.02 if narrow else parameter.shape[1] ** -0.5, generator=generator)

    def forward(
        self,
        tokens_BT: Tensor,
        positions_BT: Tensor | None = None,
        attend: Mask | None = None,
        cache: KVCache | None = None,
    ) -> Tensor:
        """Hidden states (B, T, D) after the last norm.

        `positions_BT`: counts on from the cache unless given. `attend`: boolean (B or 1, 1, T, S), True = may attend,
        or blocks (`masks.py`); without it a token attends to itself and all before it. `cache`: filled with keys and
        values of these tokens.
        """
        T = tokens_BT.shape[1]
        past = 0 if cache is None else cache.length
        if positions_BT is None:
            positions_BT = torch.arange(past, past + T, device=tokens_BT.device).expand(1, T)
        causal = attend is None and past == 0 and T > 1
        if attend is None and past > 0 and T > 1:
            reach = torch.arange(past + T, device=tokens_BT.device)
            attend = (reach[None, :] <= reach[past:, None])[None, None]
        x_BTD = self.embed_tokens(tokens_BT)
        turn = rotation(positions_BT, self.config, x_BTD.dtype)
        recompute = self.checkpointing and cache is None and torch.is_grad_enabled()
        for block in self.layers:
            if recompute:
                x_BTD = checkpoint(
                    block, x_BTD, turn, attend, causal, None, use_reentrant=False, preserve_rng_state=False
                )
            else:
                x_BTD = block(x_BTD, turn, attend, causal, cache)
        if cache is not None:
            cache.advance(T)
        return self.norm(x_BTD)

    def logits(self, hidden: Tensor) -> Tensor:
        """Scores of the next token, (..., D) -> (..., V)."""
        head = self.embed_tokens if self.lm_head is None else self.lm_head
        return with_rows(head, hidden, F.linear(hidden, head.weight))

    def new_cache(self, batch: int, capacity: int) -> KVCache:
        """An empty cache for `batch` rows of up to `capacity` tokens, on the model's device and in its dtype."""
        weight = self.embed_tokens.weight
        return KVCache(self.config, batch, capacity, weight.device, weight.dtype)
