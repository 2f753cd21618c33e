"""What a tokenizer may be told, and its special tokens. Nothing heavier than pydantic is imported here.

Text never yields a special token: they are put in by code alone. Their ids are their places in `SPECIALS`, from 0, and
these never move, since every checkpoint and token shard holds them: a new use takes the first spare, under its name or
another. In order: text and dialogues (0 to 6: bos, eos, pad, system, user, assistant, end), the masked token (7), a
tool's call and its result (8 to 11, opened and closed), thinking (12, 13), filling in the middle (14 to 16: prefix,
middle, suffix; Bavarian et al. 2022, arXiv 2207.14255), spares (17 to 32).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, GetJsonSchemaHandler
from pydantic_core import CoreSchema

from datalake.files import File, Files

BOS, EOS, PAD = "<|bos|>", "<|eos|>", "<|pad|>"
SYSTEM, USER, ASSISTANT, END = "<|system|>", "<|user|>", "<|assistant|>", "<|end|>"
DIALOGUE = (BOS, EOS, PAD, SYSTEM, USER, ASSISTANT, END)  # those that dialogues in words are made of
MASK = "<|mask|>"
TOOLS = ("<|tool_call|>", "<|/tool_call|>", "<|tool_result|>", "<|/tool_result|>")
THINK = ("<|think|>", "<|/think|>")
INFILLING = ("<|fim_prefix|>", "<|fim_middle|>", "<|fim_suffix|>")
SPARES = tuple(f"<|spare_{number}|>" for number in range(16))
SPECIALS = (*DIALOGUE, MASK, *TOOLS, *THINK, *INFILLING, *SPARES)
TEMPLATES = Path(__file__).parent / "templates"


class TemplateFile(File):
    """A chat template: one at hand by its name (`chatml`), or a file with one; empty: the tokenizer's own."""

    @classmethod
    def _place(cls, path: str) -> str:
        ready = TEMPLATES / f"{path}.jinja"
        if path == Path(path).name and ready.is_file():
            return str(ready)
        place = super()._place(path)
        if not Path(place).is_file():
            names = ", ".join(sorted(file.stem for file in TEMPLATES.glob("*.jinja")))
            raise ValueError(f"there is no chat template {path!r}: name one of {names}, or a file")
        return place


class TokenizerFolder(Files):
    """A tokenizer that exists: the folder of one or of a model, or a GGUF file; empty where none is named."""

    @classmethod
    def _written(cls, value: Any) -> list[str]:
        if not isinstance(value, str):
            raise ValueError("the path of a folder with a tokenizer is wanted")
        return [value] if value else []

    @classmethod
    def __get_pydantic_json_schema__(cls, schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        handler(schema)
        return {"type": "string"}


class TokenizerConfig(BaseModel):
    """A byte-level BPE tokenizer, trained on the documents of the mixture, or one that exists."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    path: TokenizerFolder = Field(
        TokenizerFolder(),
        title="Tokenizer",
        description="A folder with a tokenizer of another model, which is taken as it is; empty: one is trained.",
    )
    vocabulary: int = Field(
        8192,
        ge=256 + len(SPECIALS),
        le=1_000_000,
        title="Vocabulary",
        description="Tokens at most: 256 bytes, the special tokens, and as many merges as fit and occur often enough.",
    )
    min_frequency: int = Field(
        2, ge=1, le=1_000_000, title="Least frequency", description="Pairs seen fewer times than this aren't merged."
    )
    sample_bytes: int = Field(
        100_000_000,
        ge=1,
        le=100_000_000_000,
        title="Sample",
        description="Bytes of UTF-8 text to train on at most; where there is more, an even sample of the documents.",
    )
