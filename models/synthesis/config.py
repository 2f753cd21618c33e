"""Settings of what models write for training: instructions, answers, judgements.

Imports nothing heavier than pydantic.
"""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from models.network.config import OpenModel
from models.serving.config import Endpoint

Tongue = Literal["en", "zh"]


class WriterConfig(BaseModel):
    """Who writes: a model at hand or an endpoint, and how answers are drawn."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    model: Annotated[Literal["base", "sft"] | OpenModel | None, Field(union_mode="left_to_right")] = Field(
        None,
        title="Model",
        description="A Hugging Face folder or GGUF file; or the run's own: `base` (in `instruct`: the one that `sft` "
        "starts from), `sft` (in `feedback`: the one that `sft` gives)",
    )
    endpoint: Endpoint | None = Field(None, title="Endpoint", description="An OpenAI-compatible server")
    format: Literal["chat", "text"] = Field(
        "chat", title="Format", description="`text`: to be gone on from, for a model that isn't tuned to answer"
    )
    temperature: float = Field(0.7, ge=0, le=10, title="Temperature")
    top_p: float = Field(1.0, gt=0, le=1, title="Top p")
    new_tokens: int = Field(512, ge=1, le=1_000_000, title="New tokens", description="At most, of one answer")
    batch: int = Field(8, ge=1, le=4096, title="Batch", description="Answers that a model at hand writes at once")

    @model_validator(mode="after")
    def _one_writer(self) -> Self:
        if (self.model is None) == (self.endpoint is None):
            raise ValueError("name a `model` or an `endpoint`, one of them")
        return self

    @property
    def own(self) -> bool:
        """Whether it is the run's own model."""
        return isinstance(self.model, str)
