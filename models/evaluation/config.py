"""What an evaluation may be told. Nothing heavier than pydantic is imported here."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

Task = Literal["perplexity", "multiple_choice", "generation", "reward_accuracy"]


class EvaluateConfig(BaseModel):
    """Which tasks a model is judged by, on how many held-out items. A task without data is left out of the results."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    tasks: list[Task] = Field(
        default=["perplexity", "multiple_choice", "generation", "reward_accuracy"],
        title="Tasks",
        description="perplexity of held-out documents; the right answer among wrong ones by likelihood; answers "
        "written against the reference; which answer of a pair the reward model prefers",
    )
    limit: int = Field(
        200, ge=1, le=1_000_000, title="Items", description="Held-out items per task at most, drawn by the seed."
    )
    generation_limit: int = Field(
        50, ge=1, le=1_000_000, title="Written answers", description="Answers to generate at most: the slowest task."
    )
    choices: int = Field(4, ge=2, le=26, title="Choices", description="Answers to pick from, the right one among them.")
    max_new_tokens: int = Field(64, ge=1, le=65536, title="New tokens", description="Length of an answer at most.")
    batch: int = Field(16, ge=1, le=4096, title="Batch", description="Sequences in one forward pass.")
    resamples: int = Field(
        1000, ge=100, le=100_000, title="Resamples", description="Bootstrap samples behind an interval of a mean."
    )
    confidence: float = Field(0.95, gt=0.5, lt=1, title="Confidence", description="Of every interval.")
    seed: int = Field(0, ge=0, lt=2**31, title="Seed", description="Of the items, the wrong answers and the bootstrap.")
