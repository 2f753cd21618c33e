"""The Llama of about 9M parameters that the benchmarks of training share, ours and Transformers'."""

from __future__ import annotations

from typing import Any

SHAPE = {"vocabulary": 8192, "width": 256, "hidden": 688, "layers": 6, "heads": 4}


def ours(context: int) -> Any:
    """Headwater's, with fresh weights."""
    from models.network.build import build_model
    from models.network.config import NetworkConfig

    return build_model(NetworkConfig(**SHAPE, context=context, tie=False), 0)


def theirs(context: int) -> Any:
    """Transformers', with fresh weights of its own."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    shape = LlamaConfig(
        vocab_size=SHAPE["vocabulary"],
        hidden_size=SHAPE["width"],
        intermediate_size=SHAPE["hidden"],
        num_hidden_layers=SHAPE["layers"],
        num_attention_heads=SHAPE["heads"],
        num_key_value_heads=SHAPE["heads"],
        max_position_embeddings=context,
        use_cache=False,
        attn_implementation="sdpa",
    )
    return LlamaForCausalLM(shape).float()
