"""What an evaluation may be told. Nothing heavier than pydantic is imported here."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator

from datalake.identity import Place

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
    # What they ask is an input of the stage; their names, and those of files, shape nothing.
    benchmarks: Annotated[tuple[str, ...], Place()] = Field(
        default=(),
        title="Benchmarks",
        description="Benchmarks that every model which writes is judged by, by name (arc_easy) or as YAML files",
    )
    shots: Annotated[tuple[Annotated[int, Field(ge=0, le=64)], ...], Place()] = Field(
        default=(), title="Shots", description="Worked examples before a benchmark's question; several for a curve"
    )
    reasons: Annotated[Literal["yes", "no", "both"], Place()] = Field(
        "yes", title="Reasons", description="Whether worked examples show the way to their answers"
    )
    limit: int = Field(
        200,
        ge=1,
        le=1_000_000,
        title="Items",
        description="Items per task at most: held-out ones drawn by the seed, the first ones of a benchmark.",
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

    @field_validator("benchmarks")
    @classmethod
    def _can_be_read(cls, names: tuple[str, ...], info: ValidationInfo) -> tuple[str, ...]:
        if not names or (info.context or {}).get("stored"):
            return names
        from models.evaluation.benchmark import load

        for name in names:
            load(name)
        return tuple(name if Path(name).suffix == "" else str(Path(name).expanduser().absolute()) for name in names)
