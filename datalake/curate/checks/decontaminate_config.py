"""What a user may set about decontamination. Imports nothing heavier than pydantic."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field, model_validator

from datalake.files import Files

SECTION = "curate.decontaminate"


class DecontaminateConfig(BaseModel):
    """Decontamination: evaluation sets, and how much of one a document may hold."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    paths: Files = Field(
        min_length=1,
        title="Evaluation sets",
        description="Files, folders or globs of JSON, JSON Lines, CSV, Parquet or text, also compressed and in "
        "archives; every text in a row counts",
    )
    ngram: int = Field(
        default=13,
        ge=5,
        le=64,
        title="Words of an n-gram",
        description="So many words in a row are an overlap; a Chinese character counts half a word",
    )
    shortest: int = Field(
        default=8,
        ge=5,
        title="Words of the shortest row",
        description="A row with fewer words than an n-gram is looked for as a whole, if it has at least so many "
        "(13 Chinese characters for 8)",
    )
    max_rows: int | None = Field(
        default=None,
        ge=1,
        title="Most rows of an n-gram",
        description="An n-gram in more evaluation rows than this is boilerplate and ignored; empty ignores none",
    )
    share: float = Field(
        default=0.2,
        ge=0.0,
        le=1.0,
        title="Share of words that may overlap",
        description="Documents of which a larger share of words overlaps are rejected; of others the sentences with an "
        "overlap are cut. 0 rejects at one n-gram",
    )

    @model_validator(mode="after")
    def _fits(self) -> DecontaminateConfig:
        if self.shortest > self.ngram:
            raise ValueError(f"curate.decontaminate: shortest is {self.shortest}, more than the {self.ngram} of ngram")
        return self
