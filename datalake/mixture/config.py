"""What a user may set about the mixture: which documents train, in what proportions, and which are held out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from datalake.text.language_code import LanguageCode

# How often a document trains by how many it stands for, from that many on (README of FineWeb-2, "rehydration"):
# what was copied a few times is worth more, what was copied a thousand times is boilerplate.
FINEWEB2 = {1: 1.0, 2: 2.0, 3: 3.0, 5: 5.0, 100: 8.0, 1000: 1.0}
Weights = tuple[tuple[int, float], ...]
LIGHTEST, HEAVIEST = 1e-9, 1e9  # weights of a source: what is lighter is left out, and sums stay numbers


class Shares(BaseModel):
    """What share each source gets, and how often its documents are seen at most."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    weights: dict[str, float] = Field(
        default_factory=dict,
        title="Weights of the sources",
        description="Share of the training words each source gets, relative to the others; a source that isn't named "
        "weighs 1, one that weighs 0 is left out. Without any weights every document is seen once",
    )
    temperature: float = Field(
        1.0,
        ge=1.0,
        le=1000.0,
        title="Temperature",
        description="Without weights: shares follow the sources' sizes to the power of 1 / temperature; above 1 evens "
        "out large and small ones",
    )
    max_epochs: float = Field(
        4.0,
        gt=0.0,
        le=1000.0,
        title="Epochs at most",
        description="No document is seen more often; what a small source can't give goes to the others. "
        "Four epochs are almost as good as new text (Muennighoff et al. 2023)",
    )
    caps: dict[str, float] = Field(
        default_factory=dict,
        title="Epochs at most, by source",
        description="In place of the former for the sources that are named",
    )

    @field_validator("weights")
    @classmethod
    def _weights_are_shares(cls, weights: dict[str, float]) -> dict[str, float]:
        for source, weight in weights.items():
            if weight and not LIGHTEST <= weight <= HEAVIEST:
                raise ValueError(f"the weight of {source} is {weight}: give 0, or {LIGHTEST:g} to {HEAVIEST:g}")
        if weights and not any(weights.values()):
            raise ValueError("all weights are 0: leave weights out to take every source as it comes")
        return weights

    @field_validator("caps")
    @classmethod
    def _caps_are_epochs(cls, caps: dict[str, float]) -> dict[str, float]:
        for source, most in caps.items():
            if not 0.0 < most <= 1000.0:
                raise ValueError(f"the cap of {source} is {most}: give epochs above 0, up to 1000")
        return caps

    @model_validator(mode="after")
    def _shares_by_one_rule(self) -> Self:
        if self.weights and self.temperature != 1.0:
            raise ValueError("weights and temperature are two rules for shares: leave one out")
        return self

    def rates(self, sizes: Mapping[str, float]) -> dict[str, float]:
        """What is asked for each of these sources, relative to the others: its weight or, without any, its size in
        words or tokens, evened out by the temperature."""
        if self.weights:
            return {source: self.weights.get(source, 1.0) for source in sizes}
        return {source: float(size) ** (1.0 / self.temperature) for source, size in sizes.items()}

    def asked(self, sizes: Mapping[str, float]) -> dict[str, float]:
        """The share that is asked for each of these sources whose weight isn't 0; they add up to 1."""
        rates = {source: rate for source, rate in sorted(self.rates(sizes).items()) if rate}
        whole = sum(rates.values())
        return {source: rate / whole for source, rate in rates.items()} if whole else {}

    def most(self, source: str) -> float:
        """How often a source's documents are seen at most."""
        return self.caps.get(source, self.max_epochs)


class MixtureConfig(Shares):
    """The mixture: shares of the sources, repetition, languages, and the held-out groups."""

    tokens: int | None = Field(
        None,
        ge=1,
        title="Words to train on",
        description="Total length of the mixture in words, repetitions included; by default as many as there are. "
        "Where a source has too few for its weight, fewer in all give every source its share",
    )
    rehydration: Weights = Field(
        default=(),
        title="Rehydration",
        description="How much more often a document trains that stands for several: from so many documents on, itself "
        "included, so many times. `fineweb2` is that corpus' table, {2: 2, 3: 3, 5: 5, 100: 8, 1000: 1}. Empty: all "
        "alike. `max_epochs` goes before it: 8 leaves that table whole",
    )
    holdout: float = Field(
        0.05,
        ge=0.0,
        lt=1.0,
        title="Held-out share",
        description="Share of the groups (modules, repositories, else single documents) that never train",
    )
    languages: tuple[LanguageCode, ...] = Field(
        (), title="Languages", description="Only documents in these languages (`en`, `zh`); empty takes all"
    )
    seed: int = Field(0, ge=0, le=2**63 - 1, title="Seed of hold-out and repetition")

    @field_validator("rehydration", mode="before")
    @classmethod
    def _table_or_name(cls, table: Any) -> Any:
        table = FINEWEB2 if table == "fineweb2" else table
        return tuple(table.items()) if isinstance(table, dict) else table

    @field_validator("rehydration")
    @classmethod
    def _grows_from_one(cls, table: Weights) -> Weights:
        for size, weight in table:
            if size < 1 or not 0.0 <= weight < float("inf"):
                raise ValueError(f"{size}: {weight} is no weight of a size: sizes begin at 1, weights at 0")
        if len(dict(table)) < len(table):
            raise ValueError("a size has two weights")
        return tuple(sorted(table))
