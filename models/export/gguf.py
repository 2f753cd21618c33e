"""GGUF, llama.cpp's format: one file of config, tokenizer and weights, written of our decoder and its tokenizer.

The decoder is `llama` (Mixtral too, which llama.cpp reads as a Llama with experts), `qwen3` or `qwen3moe` there. Names
of tensors are the `gguf` package's. llama.cpp's Llama turns neighbouring features of a head by a position's angle,
where ours and Transformers' pair the first half with the second: rows of queries and keys are put in that order.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase

from datalake.errors import UserError
from models.network.config import NetworkConfig
from models.network.decoder import Decoder
from models.network.rope import scaled_frequencies
from models.pre_tokenizers import pre_tokenizer
from models.text import tokenizer as text

TYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}
_NORMAL, _CONTROL, _USER_DEFINED, _UNUSED = 1, 3, 4, 5  # llama.cpp's kinds of tokens
_BLOCK = re.compile(r"\{%(-?)\s*(?:end)?generation\s*(-?)%\}")


def check(model: nn.Module, tokenizer: PreTrainedTokenizerBase) -> Decoder:
    """The model as our decoder, where llama.cpp computes what it computes from the ids that its tokenizer gives.

    Raises:
        UserError: where it doesn't, or the package `gguf` is missing.
    """
    if find_spec("gguf") is None:
        raise UserError("--gguf needs the package gguf: pip install gguf")
    if not isinstance(model, Decoder):
        raise UserError(
            "GGUF is written of Llama, Qwen3, Mixtral and Qwen3-MoE without biases: leave out --gguf, and let"
            " llama.cpp's own converter read the folder"
        )
    pre_tokenizer(tokenizer)
    if text.vocabulary_size(tokenizer) > model.config.vocabulary:
        raise UserError("the tokenizer has tokens that the model has no rows for, which llama.cpp doesn't load")
    scaling = model.config.rope_scaling
    if scaling is not None and (
        (scaling.rope_type == "llama3" and model.config.qk_norm)
        or (scaling.rope_type == "yarn" and not scaling.truncate)
    ):
        raise UserError(f"llama.cpp scales no positions as this model's {scaling.rope_type} does: leave out --gguf")
    return model


def write(model: nn.Module, tokenizer: PreTrainedTokenizerBase, path: Path, dtype: str = "float32") -> None:
    """Write a GGUF file; matrices in one of `TYPES`, norms and routers in float32.

    Raises:
        UserError: for a model or tokenizer that `check` refuses.
    """
    decoder = check(model, tokenizer)
    import gguf

    config = decoder.config
    writer = gguf.GGUFWriter(path, architecture(config))
    kinds = {"float32": "ALL_F32", "float16": "MOSTLY_F16", "bfloat16": "MOSTLY_BF16"}
    writer.add_name(path.stem)
    writer.add_file_type(gguf.LlamaFileType[kinds[dtype]])
    _add_shape(writer, config)
    _add_tokenizer(writer, tokenizer, config.vocabulary)
    for name, weight in _tensors(decoder):
        plain = weight.ndim == 1 or ".ffn_gate_inp." in name
        values = weight.detach().to("cpu", torch.float32 if plain else TYPES[dtype]).contiguous()
        if values.dtype == torch.bfloat16:
            bits = values.view(torch.uint8).numpy()
            writer.add_tensor(name, bits, raw_dtype=gguf.GGMLQuantizationType.BF16)
        else:
            writer.add_tensor(name, values.numpy())
    try:
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
    finally:
        writer.close()


def architecture(config: NetworkConfig) -> str:
    """llama.cpp's name of a shape."""
    return ("qwen3moe" if config.experts else "qwen3") if config.qk_norm else "llama"


def chat_template(tokenizer: PreTrainedTokenizerBase) -> str:
    """The chat template for readers that know Jinja alone: Transformers' marks of what the assistant says become
    comments, which trim as they did."""
    template = tokenizer.chat_template
    return _BLOCK.sub(r"{#\1 \2#}", template) if isinstance(template, str) else ""


def _add_shape(writer: Any, config: NetworkConfig) -> None:
    writer.add_context_length(config.context)
    writer.add_embedding_length(config.width)
    writer.add_block_count(config.layers)
    writer.add_feed_forward_length(config.hidden)
    writer.add_head_count(config.heads)
    writer.add_head_count_kv(config.kv_heads)
    writer.add_key_length(config.head_width)
    writer.add_value_length(config.head_width)
    writer.add_layer_norm_rms_eps(config.norm_eps)
    writer.add_rope_freq_base(config.rope_base)
    writer.add_rope_dimension_count(config.head_width)
    writer.add_vocab_size(config.vocabulary)
    if config.experts:
        writer.add_expert_count(config.experts)
        writer.add_expert_used_count(config.experts_per_token)
        writer.add_expert_feed_forward_length(config.hidden)
    _add_scaling(writer, config)


def _add_scaling(writer: Any, config: NetworkConfig) -> None:
    """How positions are scaled; `llama3` is a tensor of its own, see `_tensors`."""
    import gguf

    scaling = config.rope_scaling
    if scaling is None or scaling.rope_type == "llama3":
        return
    writer.add_rope_scaling_type(gguf.RopeScalingType(scaling.rope_type))
    writer.add_rope_scaling_factor(scaling.factor)
    if scaling.rope_type == "yarn":
        writer.add_rope_scaling_orig_ctx_len(scaling.original_max_position_embeddings)
        # llama.cpp multiplies this by YaRN's own length.
        usual = 0.1 * math.log(scaling.factor) + 1.0
        if not math.isclose(scaling.length, usual):
            writer.add_rope_scaling_attn_factors(scaling.length / usual)
        if (scaling.beta_fast, scaling.beta_slow) != (32.0, 1.0):
            writer.add_rope_scaling_yarn_beta_fast(scaling.beta_fast)
            writer.add_rope_scaling_yarn_beta_slow(scaling.beta_slow)


def _add_tokenizer(writer: Any, tokenizer: PreTrainedTokenizerBase, rows: int) -> None:
    """Tokens by id with their kinds, merges, and the ids that begin, end and fill; rows without a token are unused."""
    backend = tokenizer.backend_tokenizer
    added = tokenizer.added_tokens_decoder
    tokens, kinds = [], []
    for id in range(rows):
        name = backend.id_to_token(id)
        tokens.append(f"[PAD{id}]" if name is None else name)
        kind = _NORMAL if name is not None else _UNUSED
        kinds.append((_CONTROL if added[id].special else _USER_DEFINED) if id in added else kind)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(pre_tokenizer(tokenizer))
    writer.add_token_list(tokens)
    writer.add_token_types(kinds)
    merges = json.loads(backend.to_str())["model"]["merges"]
    writer.add_token_merges([merge if isinstance(merge, str) else " ".join(merge) for merge in merges])
    bare, whole = (tokenizer("a", add_special_tokens=flag).input_ids for flag in (False, True))
    writer.add_add_bos_token(whole[0] != bare[0])
    writer.add_add_eos_token(whole[-1] != bare[-1])
    ids = {
        writer.add_bos_token_id: tokenizer.bos_token_id,
        writer.add_eos_token_id: tokenizer.eos_token_id,
        writer.add_eot_token_id: text.end_of_turn(tokenizer),
        writer.add_pad_token_id: tokenizer.pad_token_id,
        writer.add_mask_token_id: tokenizer.mask_token_id,
    }
    for add, number in ids.items():
        if number is not None:
            add(number)
    if template := chat_template(tokenizer):
        writer.add_chat_template(template)


def _tensors(model: Decoder) -> Iterator[tuple[str, Tensor]]:
    """The weights by llama.cpp's names, experts of a layer as one tensor (experts, out, in)."""
    import gguf

    config = model.config
    arch = next(key for key, name in gguf.MODEL_ARCH_NAMES.items() if name == architecture(config))
    names = gguf.get_tensor_name_map(arch, config.layers)
    experts: dict[str, list[Tensor]] = {}
    for name, weight in model.state_dict().items():
        one = re.fullmatch(r"(.*\.experts)\.\d+(\.\w+)\.weight", name)
        if one:
            experts.setdefault(one[1] + one[2], []).append(weight)  # in the order of their numbers
            continue
        if config.tie and name.startswith("lm_head."):
            continue
        if not config.qk_norm and re.search(r"\.[qk]_proj\.", name):
            heads = config.heads if ".q_proj." in name else config.kv_heads
            weight = weight.view(heads, 2, -1, weight.shape[1]).transpose(1, 2).reshape(weight.shape)
        yield _named(names, name.removesuffix(".weight")), weight
    for name, weights in experts.items():
        yield _named(names, name), torch.stack(weights)
    scaling = config.rope_scaling
    if scaling is not None and scaling.rope_type == "llama3":
        plain = scaled_frequencies(config.model_copy(update={"rope_scaling": None}))
        yield "rope_freqs.weight", plain / scaled_frequencies(config)


def _named(names: Any, name: str) -> str:
    found = names.get_name(name) or names.get_name(f"model.{name}")
    if found is None:
        raise KeyError(name)  # a part of the decoder that has no name here yet
    return f"{found}.weight"
