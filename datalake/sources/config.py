"""What the configs of all kinds of sources share. Imports nothing heavier than pydantic.

What shapes a document is in a config and enters identity; `paths` and other places are marked `Place` and don't.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, Field

from datalake.archive import Archive
from datalake.origin import Origin


class SourceConfig(BaseModel):
    """What all sources share."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str | None = Field(
        default=None,
        pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$",
        title="Name",
        description="What the `source` column says; the kind when left empty. Weights of a mixture go by it.",
    )
    licence: str | None = Field(
        default=None, title="Licence", description="SPDX identifier given to documents that don't name their own."
    )
    kind: str

    @property
    def label(self) -> str:
        """What the `source` column of its documents says."""
        return self.name or self.kind

    def origin(self, archive: Archive) -> Origin:
        """What makes the entries of one of its archives."""
        return Origin(self.label, self.kind, archive.name, self.licence, getattr(self, "language", None))

    def at_home(self, lake: Path) -> Self:
        """The source with the folder of its own archives inside the lake, where it keeps any and none is named."""
        return self


PATHS: Any = Field(min_length=1, title="Paths", description="Files, folders or globs.")
HEADER: Any = Field(
    default=(),
    title="Header",
    description="The names of the columns of CSV files that have no header; then the first line is a row.",
)
