"""The shape of a decoder: one frozen config, and one dial (depth) from which a whole shape follows.

Fields left at 0 are worked out from the others when the config is made, so two ways of writing one shape are one shape.
"""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, Field, GetJsonSchemaHandler, model_validator
from pydantic_core import CoreSchema

from datalake.files import Files

VOCABULARY_MULTIPLE = 64  # rows of the embedding: matrix products like round sizes (nanochat: +1% to +25% by hardware)
HIDDEN_MULTIPLE = 32


def round_up(number: int, multiple: int) -> int:
    """The smallest multiple of `multiple` that is not below `number`."""
    return -(-number // multiple) * multiple


class NetworkConfig(BaseModel):
    """A Llama-like decoder; with `qk_norm` Qwen3's, with `experts` Mixtral's, with both Qwen3-MoE's."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    vocabulary: int = Field(8192, ge=2, title="Rows of the embedding: the tokenizer's size, rounded up")
    layers: int = Field(6, ge=1, le=256, title="Layers")
    width: int = Field(192, ge=2, le=65536, title="Width of the residual stream")
    heads: int = Field(6, ge=1, le=512, title="Query heads")
    kv_heads: int = Field(0, ge=0, le=512, title="Key and value heads; 0: as many as query heads")
    head_width: int = Field(0, ge=0, le=1024, title="Width of one head, even; 0: width / heads")
    hidden: int = Field(0, ge=0, title="Hidden width of the SwiGLU block (of each expert); 0: 8/3 of the width")
    context: int = Field(256, ge=2, le=1_048_576, title="Longest sequence in tokens")
    rope_base: float = Field(10000.0, gt=1, title="Base of the rotary position embedding")
    norm_eps: float = Field(1e-5, gt=0, le=1e-2, title="Epsilon of the RMS norms")
    tie: bool = Field(True, title="Share the embedding with the output head")
    qk_norm: bool = Field(False, title="RMS norm on each query and key head (Qwen3)")
    experts: int = Field(0, ge=0, le=512, title="Experts in each layer; 0: one dense block")
    experts_per_token: int = Field(2, ge=1, le=64, title="Experts that each token is sent to")

    @model_validator(mode="before")
    @classmethod
    def _derive(cls, data: Any) -> Any:
        """Fill what was left at 0 or None from the other fields."""
        if not isinstance(data, dict):
            return data
        data = {name: value for name, value in data.items() if not (value is None and name in cls.model_fields)}
        width = data.get("width", cls.model_fields["width"].default)
        heads = data.get("heads", cls.model_fields["heads"].default)
        if isinstance(width, int) and isinstance(heads, int) and heads > 0:
            if not data.get("kv_heads"):
                data["kv_heads"] = heads
            if not data.get("head_width"):
                if width % heads:
                    raise ValueError(f"width {width} is no multiple of {heads} heads: change one of them")
                data["head_width"] = width // heads
            if not data.get("hidden"):
                data["hidden"] = round_up(-(-8 * width // 3), HIDDEN_MULTIPLE)
        return data

    @model_validator(mode="after")
    def _fits(self) -> NetworkConfig:
        if self.heads % self.kv_heads:
            raise ValueError(f"{self.heads} heads can't share {self.kv_heads} kv_heads: take a divisor of heads")
        if self.head_width % 2:
            raise ValueError(
                f"a head takes {self.head_width} of the width, an odd number: rotary positions turn pairs, take another"
            )
        if self.experts and self.experts_per_token > self.experts:
            raise ValueError(f"experts_per_token {self.experts_per_token} is more than the {self.experts} experts")
        return self

    @classmethod
    def of_depth(cls, depth: int, vocabulary: int, context: int, **other: Any) -> NetworkConfig:
        """A shape from one dial: width 64 x depth (nanochat's aspect ratio), heads of 64, vocabulary rounded up."""
        shape = {"layers": depth, "width": 64 * depth, "heads": depth, "context": context, **other}
        return cls(vocabulary=round_up(vocabulary, VOCABULARY_MULTIPLE), **shape)

    def sized(self, tokens: int) -> NetworkConfig:
        """The same shape for a tokenizer of `tokens` tokens: the vocabulary is rounded up to a multiple of 64."""
        return self.model_copy(update={"vocabulary": round_up(tokens, VOCABULARY_MULTIPLE)})

    @property
    def parameters(self) -> int:
        """Trainable parameters of the decoder, every expert and the head (once, when tied) counted."""
        embedding = self.vocabulary * self.width * (1 if self.tie else 2)
        attention = 2 * self.width * self.head_width * (self.heads + self.kv_heads)
        block = 3 * self.width * self.hidden
        if self.experts:
            block = block * self.experts + self.width * self.experts
        norms = 2 * self.width + (2 * self.head_width if self.qk_norm else 0)
        return embedding + self.layers * (attention + block + norms) + self.width


class OpenModel(Files):
    """A model that exists: a Hugging Face folder or a GGUF file, named by its place and known by its content."""

    @classmethod
    def _written(cls, value: Any) -> list[str]:
        if not isinstance(value, str) or not value.strip():
            raise ValueError("the path of a Hugging Face folder or of a GGUF file is wanted")
        return [value]

    @classmethod
    def __get_pydantic_json_schema__(cls, schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        handler(schema)
        return {"type": "string"}
