"""A checkpoint as others load it: a Hugging Face folder with weights, tokenizer, chat template, generation settings.

What is read is checked first (whole, every weight a number, a model that writes) and written in the type of numbers
that it was read in. Adapters are added to the weights of their base.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedTokenizerBase

from datalake.errors import UserError
from models import gguf
from models.network import checkpoint
from models.network.build import ScalarHead
from models.network.lora import ADAPTER, load_adapter
from models.text import tokenizer as text


@dataclass(frozen=True)
class Loaded:
    """A checkpoint that can be exported: in float32, with the type that its weights had, and the base of adapters."""

    model: nn.Module
    tokenizer: PreTrainedTokenizerBase
    dtype: torch.dtype
    base: str = ""


def read(source: Path) -> Loaded:
    """A checkpoint's folder, a folder of adapters with its base, or a GGUF file.

    Raises:
        UserError: for what is half there, is a reward model, or stands on a base that isn't here.
    """
    base = ""
    if (source / ADAPTER).is_file() and not (source / "config.json").is_file():
        model, base = load_adapter(source)
        own = any((source / name).is_file() for name in ("tokenizer.json", "tokenizer_config.json"))
        words = text.load(source if own else base)
        settings = _settings(Path(base))
    else:
        model, words = checkpoint.load(source)
        settings = _settings(source)
    if isinstance(model, ScalarHead):
        raise UserError(f"{source} is a reward model, which scores answers and writes none: export the model it judges")
    return Loaded(model, words, _dtype(settings), base)


def write(loaded: Loaded, folder: Path) -> None:
    """Write the folder as `AutoModelForCausalLM` and `AutoTokenizer` read it, in place of what `folder` holds."""
    loaded.model.to(loaded.dtype)
    checkpoint.save(loaded.model, loaded.tokenizer, folder)
    loaded.model.to(torch.float32)


def _settings(source: Path) -> dict[str, Any]:
    if gguf.is_gguf(source):
        return {}
    settings: dict[str, Any] = json.loads((source / "config.json").read_text(encoding="utf-8"))
    return settings


def _dtype(settings: dict[str, Any]) -> torch.dtype:
    """The type of numbers that a config names; float32 where it is silent."""
    name = settings.get("dtype") or settings.get("torch_dtype") or "float32"
    found = getattr(torch, str(name).removeprefix("torch."), torch.float32)
    return found if found in (torch.float16, torch.bfloat16) else torch.float32
