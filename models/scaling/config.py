"""What trainings beside each other may be told: the sizes of a sweep, the seeds of an ablation."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field, field_validator

from models.methods.pretrain import PretrainConfig

JUDGED = Field(
    256, ge=2, le=1_000_000, title="Held-out documents", description="That each model is judged on: drawn by their ids."
)


class SweepConfig(BaseModel):
    """Small models to fit a law of scaling to, and a larger one that it has to foretell."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    pretrain: PretrainConfig = Field(
        default_factory=PretrainConfig, title="Pretraining", description="All but size, tokens, batch and rate."
    )
    depths: tuple[int, ...] = Field((1, 2, 3), title="Depths", description="Layers of the small models.")
    aspect: int = Field(
        64, ge=2, le=1024, multiple_of=2, title="Width per layer", description="And of a head: a layer has one more."
    )
    ratios: tuple[float, ...] = Field(
        (2.5, 5.0, 10.0), title="Tokens per parameter", description="That each of them is trained on."
    )
    held_out: int = Field(
        4, ge=1, le=256, title="Held-out depth", description="Of the larger model; it takes the middle ratio."
    )

    documents: int = JUDGED

    @field_validator("depths", "ratios")
    @classmethod
    def _enough(cls, values: tuple[float, ...]) -> tuple[float, ...]:
        if len(set(values)) < 3 or not all(0 < value <= 10_000 for value in values):
            raise ValueError("a law has three constants in each direction: give three different ones, above 0")
        return values


class AblationConfig(BaseModel):
    """The model that each mixture trains, once for each seed, each as its own recipe says."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    pretrain: PretrainConfig = Field(default_factory=PretrainConfig, title="Pretraining")
    other: PretrainConfig = Field(default_factory=PretrainConfig, title="Pretraining on the second mixture")
    seeds: int = Field(5, ge=2, le=1000, title="Seeds", description="Trainings of each mixture, paired by their seed.")
    documents: int = JUDGED
