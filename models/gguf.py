"""GGUF files (llama.cpp's format: one file of quantized weights, config and tokenizer), read through Transformers.

Weights are made whole again in float32: what is saved from them is an ordinary folder that can be trained. The file's
fields are read one by one in Python, which takes a while: half a minute for a vocabulary of 49,152.
"""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch

from datalake.errors import UserError


def is_gguf(path: Path | str) -> bool:
    """Whether a path is a GGUF file, told by its name."""
    return Path(path).suffix == ".gguf" and Path(path).is_file()


def read(auto: Any, path: Path | str, **more: Any) -> Any:
    """What one of Transformers' Auto classes makes of a GGUF file: its config, tokenizer or model.

    Raises:
        UserError: where a package that reads it is missing, or the file can't be read.
    """
    path = Path(path)
    for package in ("gguf", "accelerate"):
        if find_spec(package) is None:
            raise UserError(f"{path} is read with the package {package}: pip install {package}")
    try:
        return auto.from_pretrained(
            path.parent, gguf_file=path.name, local_files_only=True, trust_remote_code=False, **more
        )
    except Exception as error:  # a damaged file may trip the readers anywhere
        raise UserError(f"the GGUF file {path} can't be read: {' '.join(str(error).split())[:200]}") from None


def read_model(path: Path | str) -> Any:
    """Transformers' causal model of a GGUF file in float32, with nothing left of its quantization."""
    from transformers import AutoModelForCausalLM

    quantized = read(AutoModelForCausalLM, path, dtype=torch.float32)
    settings = quantized.config.to_dict()
    for name in ("quantization_config", "_name_or_path"):
        settings.pop(name, None)
    model = type(quantized)(type(quantized.config)(**settings)).to(torch.float32)
    model.load_state_dict({name: weight.float() for name, weight in quantized.state_dict().items()})
    model.generation_config = quantized.generation_config
    return model
