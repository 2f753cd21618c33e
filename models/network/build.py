"""One call for every network: our decoder from its config, any other family from a folder through Transformers.

Both kinds answer to the same four: `forward(tokens, positions, attend, cache) -> hidden`, `logits(hidden)`,
`new_cache(batch, capacity)` and `config.context`.
"""

from __future__ import annotations

import ctypes
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from datalake.errors import UserError
from models.network.config import NetworkConfig, RopeScaling
from models.network.decoder import Decoder
from models.network.encoder_decoder import EncoderDecoder
from models.network.foreign import Foreign
from models.network.masks import Mask


def build_model(config: NetworkConfig | Mapping[str, Any], seed: int = 0) -> nn.Module:
    """A network with fresh weights (a `NetworkConfig`, or its fields), or one that exists.

    With `"family": "bert"` or `"t5"` the fields make an encoder for masked tokens, or an encoder-decoder, of its class.
    `{"family": "auto", "path": folder}` loads a causal model of any family Transformers knows; with `"task": "masked"`
    an encoder for masked tokens, with `"task": "spans"` an encoder-decoder. Equal config and seed give equal weights.

    Raises:
        UserError: for a path that holds no model, or a family whose head can't be taken apart from its body.
    """
    if not isinstance(config, NetworkConfig):
        fields = dict(config)
        family = fields.pop("family", "decoder")
        if family == "auto":
            task = fields.get("task", "causal")
            return EncoderDecoder.load(fields["path"]) if task == "spans" else Foreign.load(fields["path"], task)
        if family not in ("decoder", *FRESH):
            raise UserError(f"unknown family {family!r}: use decoder, {', '.join(FRESH)}, or auto with a path")
        config = NetworkConfig(**fields)
        if family in FRESH:
            return fresh_model(family, config, seed)
    return Decoder(config, torch.Generator().manual_seed(seed))


def _bert(shape: NetworkConfig) -> nn.Module:
    from transformers import BertConfig, BertForMaskedLM

    config = BertConfig(
        vocab_size=shape.vocabulary,
        hidden_size=shape.width,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        intermediate_size=shape.hidden,
        max_position_embeddings=shape.context,
        pad_token_id=None,
    )
    return Foreign(BertForMaskedLM(config), causal=False)


def _t5(shape: NetworkConfig) -> nn.Module:
    from transformers import T5Config, T5ForConditionalGeneration

    config = T5Config(
        vocab_size=shape.vocabulary,
        d_model=shape.width,
        num_layers=shape.layers,
        num_heads=shape.heads,
        d_kv=shape.head_width,
        d_ff=shape.hidden,
    )
    config.decoder_start_token_id = 0  # what any tokenizer of ours begins a text with
    return EncoderDecoder(T5ForConditionalGeneration(config))


def lengthened(model: nn.Module, context: int, scaling: RopeScaling | None) -> nn.Module:
    """A model that takes rows of `context` tokens: our decoder with its rotary positions scaled, where it was shorter.

    What a base was scaled by already it keeps, or more of the same: factors count from the context first trained in.

    Raises:
        UserError: where the model is shorter and can't be made longer so.
    """
    longest = int(model.config.context)  # type: ignore[union-attr, arg-type]
    if context <= longest and scaling is None:
        return model
    if not isinstance(model, Decoder) or scaling is None:
        raise UserError(
            f"the context of {context} tokens is longer than the base's {longest}: lower pretrain.context"
            + (", or set pretrain.rope_scaling" if isinstance(model, Decoder) else "")
        )
    already = model.config.rope_scaling
    if already is not None and (scaling.rope_type != already.rope_type or scaling.factor < already.factor):
        raise UserError(
            f"the base's positions are scaled already ({already.rope_type}, factor {already.factor:g} of"
            f" {already.original_max_position_embeddings} tokens), and it learned so: set pretrain.rope_scaling to"
            f" {already.rope_type} with a factor of at least {already.factor:g}, or leave it out"
        )
    fields = model.config.model_dump() | {"context": context, "rope_scaling": scaling.model_dump()}
    if not scaling.original_max_position_embeddings:
        trained = longest if already is None else already.original_max_position_embeddings
        fields["rope_scaling"]["original_max_position_embeddings"] = trained
    longer = Decoder(NetworkConfig(**fields))
    longer.load_state_dict(model.state_dict())
    return longer


FRESH = {"bert": _bert, "t5": _t5}


def fresh_model(family: str, shape: NetworkConfig, seed: int = 0) -> nn.Module:
    """A model of another family with fresh weights, drawn as that family draws them; all layers of a T5 twice, once
    reading and once writing."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return FRESH[family](shape)


class ScalarHead(nn.Module):
    """A network's body with one number per token instead of logits: a reward model, or a critic.

    The head starts at zero (a critic, Huang et al. 2024, "The N+ implementation details of RLHF with PPO") or from a
    normal of deviation 1/sqrt(d + 1) (a reward model, Stiennon et al. 2020).
    """

    def __init__(
        self,
        trunk: nn.Module,
        initial: Literal["zero", "normal"] = "zero",
        generator: torch.Generator | None = None,
    ):
        super().__init__()
        self.trunk = trunk
        self.config = trunk.config
        width = int(trunk.config.width)  # type: ignore[union-attr, arg-type]
        some = next(trunk.parameters())
        self.head = nn.Linear(width, 1).to(device=some.device, dtype=some.dtype)
        with torch.no_grad():
            self.head.bias.zero_()
            if initial == "zero":
                self.head.weight.zero_()
            else:
                self.head.weight.normal_(0.0, 1 / math.sqrt(width + 1), generator=generator)

    def forward(self, tokens_BT: Tensor, positions_BT: Tensor | None = None, attend: Mask | None = None) -> Tensor:
        """Values (B, T): the number at each token, told what stands up to there."""
        return self.head(self.trunk(tokens_BT, positions_BT, attend))[..., 0]


def recompute_activations(model: nn.Module) -> None:
    """Every network in a model keeps its layers' inputs alone, and computes the layers again for their gradients.

    Raises UserError for a family that can't.
    """
    networks: list[Any] = [module for module in model.modules() if hasattr(type(module), "logits")]
    for network in networks:
        if not hasattr(network, "checkpointing"):
            raise UserError(f"{type(network).__name__} knows no activation checkpointing: leave it off")
        network.checkpointing = True


def choose_dtype(device: torch.device | str) -> torch.dtype:
    """bfloat16 where the device is faster with it, else float32.

    On a CPU that takes AMX: with AVX512-BF16 alone a training step of 3.4M parameters ran at 0.68 of float32's speed,
    and without either bfloat16 products are some 50 times slower. A choice by machine changes results between machines:
    training is in float32, and this is for inference.
    """
    device = torch.device(device)
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float32
    information = Path("/proc/cpuinfo")
    amx = information.is_file() and "amx_bf16" in information.read_text(encoding="utf-8", errors="replace")
    return torch.bfloat16 if amx else torch.float32


def keep_freed_memory() -> bool:
    """Tell glibc to reuse freed memory instead of giving it back; True where it agreed.

    A training step on a CPU frees and takes the same large blocks again and again; by default each of them is a new
    map, and most of the step goes into page faults (1,467 against 7,168 tokens/s for 3.4M parameters on 2 cores). Call
    it once, before training or generating, in the process that does. Linux with glibc only.
    """
    try:
        library = ctypes.CDLL(None)
        # M_MMAP_THRESHOLD (-3) and M_TRIM_THRESHOLD (-1), malloc.h
        return bool(library.mallopt(-3, 1 << 30)) and bool(library.mallopt(-1, (1 << 31) - 1))
    except (OSError, AttributeError):
        return False
