"""GGUF files (llama.cpp's format: one file of quantized weights, config and tokenizer), read through Transformers.

Weights are made whole again in float32: what is saved from them is an ordinary folder that can be trained. The file's
fields are read one by one in Python, which takes a while: half a minute for a vocabulary of 49,152.
"""

from __future__ import annotations

import json
from importlib.util import find_spec
from pathlib import Path
from typing import Any, BinaryIO

import torch

from datalake.errors import UserError
from models.pre_tokenizers import named


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


def read_tokenizer(path: Path | str) -> Any:
    """The tokenizer of a GGUF file, which splits text as the file says.

    Transformers reads every tokenizer of bytes in a Llama as GPT-2's, whatever `tokenizer.ggml.pre` says: SmolLM2's
    would take a space before a digit to it, which its model has never seen.
    """
    from transformers import AutoTokenizer

    tokenizer = read(AutoTokenizer, path)
    name = text_field(path, "tokenizer.ggml.pre")
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if name is not None and backend is not None:
        split = named(name, json.loads(backend.to_str()).get("pre_tokenizer"))
        if split is not None:
            backend.pre_tokenizer = split
    return tokenizer


def text_field(path: Path | str, key: str) -> str | None:
    """A field of a GGUF file that is a text; None where it has none. Unlike the package's reader, which makes an array
    of every token, this one steps over what isn't asked for.

    The format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
    """
    sizes = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}  # of numbers, by their type
    text, array = 8, 9

    def whole(file: BinaryIO, size: int) -> int:
        return int.from_bytes(file.read(size), "little")

    def step_over(file: BinaryIO, kind: int) -> None:
        if kind == text:
            file.seek(whole(file, 8), 1)
        elif kind == array:
            inner, count = whole(file, 4), whole(file, 8)
            if inner in sizes:
                file.seek(count * sizes[inner], 1)
            else:
                for _ in range(count):
                    step_over(file, inner)
        else:
            file.seek(sizes[kind], 1)

    with Path(path).open("rb") as file:
        file.seek(16)  # the magic number, the version, how many tensors
        for _ in range(whole(file, 8)):
            name = file.read(whole(file, 8)).decode("utf-8", "replace")
            kind = whole(file, 4)
            if name == key and kind == text:
                return file.read(whole(file, 8)).decode("utf-8", "replace")
            step_over(file, kind)
    return None


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
