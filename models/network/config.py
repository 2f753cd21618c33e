"""The shape of a decoder: one frozen config, and one dial (depth) from which a whole shape follows.

Fields left at 0 are worked out from the others when the config is made, so two ways of writing one shape are one shape.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, GetJsonSchemaHandler, model_validator
from pydantic_core import CoreSchema

from datalake.files import Files

VOCABULARY_MULTIPLE = 64  # rows of the embedding: matrix products like round sizes (nanochat: +1% to +25% by hardware)
HIDDEN_MULTIPLE = 32


def round_up(number: int, multiple: int) -> int:
    """The smallest multiple of `multiple` that is not below `number`."""
    return -(-number // multiple) * multiple


class RopeScaling(BaseModel):
    """How rotary positions are scaled for a context longer than that trained in; fields as on the Hugging Face hub."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    rope_type: Literal["linear", "llama3", "yarn"] = Field("yarn", title="Kind of scaling")
    factor: float = Field(2.0, ge=1, le=1024, title="How many times longer the context becomes")
    original_max_position_embeddings: int = Field(0, ge=0, title="Context trained in; 0: context / factor")
    low_freq_factor: float = Field(1.0, gt=0, title="llama3: pairs that turn less often there are slowed down")
    high_freq_factor: float = Field(4.0, gt=0, title="llama3: pairs that turn more often are left alone")
    beta_fast: float = Field(32.0, gt=0, title="yarn: pairs that turn more often in that context are left alone")
    beta_slow: float = Field(1.0, gt=0, title="yarn: pairs that turn less often are slowed down")
    attention_factor: float | None = Field(None, gt=0, title="yarn: length of queries and keys; by default from factor")
    mscale: float | None = Field(None, title="yarn: weight of the factor's logarithm in that length, DeepSeek's")
    mscale_all_dim: float | None = Field(None, title="yarn: weight of what that length is divided by, DeepSeek's")
    truncate: bool = Field(True, title="yarn: the ramp begins and ends at whole pairs")

    @model_validator(mode="after")
    def _ordered(self) -> RopeScaling:
        if self.high_freq_factor <= self.low_freq_factor or self.beta_fast < self.beta_slow:
            raise ValueError("high_freq_factor must be above low_freq_factor, and beta_fast not below beta_slow")
        return self

    @property
    def length(self) -> float:
        """What cosines and sines are multiplied by: YaRN's temperature, section 3.4."""
        if self.rope_type != "yarn":
            return 1.0
        if self.attention_factor is not None:
            return self.attention_factor

        def grown(weight: float) -> float:
            return 0.1 * weight * math.log(self.factor) + 1.0

        if self.mscale and self.mscale_all_dim:
            return grown(self.mscale) / grown(self.mscale_all_dim)
        return grown(1.0)

    def hub(self) -> dict[str, Any]:
        """The fields that Transformers takes with this kind."""
        shared = {"rope_type", "factor"}
        by_kind = {
            "linear": shared,
            "llama3": shared | {"original_max_position_embeddings", "low_freq_factor", "high_freq_factor"},
            "yarn": set(type(self).model_fields) - {"low_freq_factor", "high_freq_factor"},
        }
        return self.model_dump(exclude_none=True, include=by_kind[self.rope_type])


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
    rope_scaling: RopeScaling | None = Field(None, title="Positions scaled for a context longer than that trained in")
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
        scaling = self.rope_scaling
        if scaling is not None and not scaling.original_max_position_embeddings:
            trained = {"original_max_position_embeddings": max(int(self.context / scaling.factor), 1)}
            object.__setattr__(self, "rope_scaling", scaling.model_copy(update=trained))
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
    """A model that exists: a Hugging Face folder or a GGUF file, named by its place and known by its content.

    One that isn't there has no version: a recipe may be read before its base is fetched, as before its sources are.
    """

    def content(self) -> str:
        """The version of what is there now; empty where nothing is."""
        return super().content() if Path(self.paths[0]).exists() else ""

    @classmethod
    def _written(cls, value: Any) -> list[str]:
        if isinstance(value, list | tuple) and len(value) == 1:
            value = value[0]
        if not isinstance(value, str) or not value.strip():
            raise ValueError("the path of a Hugging Face folder or of a GGUF file is wanted")
        return [value]

    @classmethod
    def __get_pydantic_json_schema__(cls, schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        handler(schema)
        return {"type": "string"}


class LoraConfig(BaseModel):
    """Low-rank adapters: what is trained instead of all weights."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    rank: int = Field(8, ge=1, le=1024, title="Rank of an adapter")
    alpha: float = Field(16.0, gt=0, title="Weight of an adapter: alpha / rank times what it says")
    targets: tuple[str, ...] = Field(
        (), title="Names of the layers that get one, such as q_proj; none: every linear layer"
    )
