"""The config of books. Imports nothing heavier than pydantic."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from datalake.identity import Paths
from datalake.sources.config import PATHS, SourceConfig
from datalake.text.language_config import Language


class Books(SourceConfig):
    """Long plain texts: text files, alone or in zip or tar archives."""

    kind: Literal["books"] = "books"
    paths: Paths = PATHS
    max_bytes: int = Field(
        default=50_000_000,
        ge=1_000,
        le=1_000_000_000,
        title="Largest book",
        description="In bytes; larger files are refused.",
    )
    unit: Literal["book", "chapter"] = Field(
        default="book",
        title="Document",
        description="The whole book, or each chapter; what stands before the first one is a document of its own.",
    )
    reflow: bool = Field(
        default=False,
        title="Join lines",
        description="Join hard-wrapped lines of prose to paragraphs; verse and tables stay as they are.",
    )
    language: Language = Field(default=Language(), title="Language identification")
