"""What a user may set about decontamination. Imports nothing heavier than pydantic."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, model_validator

from datalake.errors import UserError
from datalake.identity import Paths, file_digest, fingerprint


class DecontaminateConfig(BaseModel):
    """Decontamination: evaluation sets, and how much of one a document may hold."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    paths: Paths = Field(
        min_length=1,
        title="Evaluation sets",
        description="Files, folders or globs of JSON, JSON Lines, CSV, Parquet or text, also compressed and in "
        "archives; every text in a row counts",
    )
    sets_version: str = Field(
        default="",
        title="Version of the sets",
        description="Digest of the files' names and contents; filled in from the files when left empty",
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
        default=0.0,
        ge=0.0,
        le=1.0,
        title="Share of words that may overlap",
        description="Only documents of which a larger share of words overlaps are rejected; 0 rejects at one n-gram",
    )

    @model_validator(mode="before")
    @classmethod
    def _version_of_sets(cls, values: Any) -> Any:
        if not isinstance(values, dict) or values.get("sets_version"):
            return values
        paths = values.get("paths")
        if not isinstance(paths, list | tuple) or not paths or not all(isinstance(path, str) for path in paths):
            return values  # what is wrong with them is said by the field
        places = absolute(paths, "curate.decontaminate.paths: evaluation sets")
        return {**values, "paths": places, "sets_version": version_of(files_of(places))}

    @model_validator(mode="after")
    def _fits(self) -> DecontaminateConfig:
        if self.shortest > self.ngram:
            raise ValueError(f"curate.decontaminate: shortest is {self.shortest}, more than the {self.ngram} of ngram")
        return self


def absolute(paths: Sequence[str], what: str) -> list[str]:
    """Paths for a worker, which may stand in another folder. Raises ValueError where one is on another machine."""
    places = [os.path.abspath(os.path.expanduser(path)) for path in paths if "://" not in path]  # noqa: PTH100, PTH111
    if len(places) < len(paths):
        raise ValueError(f"{what} are read from this machine, copy them here")
    return places


def files_of(paths: list[str], setting: str = "curate.decontaminate") -> list[tuple[str, str]]:
    """(name, path) of every file that the paths mean, sorted by name. Raises UserError where one matches nothing."""
    from datalake.sources.protocol import expand  # imports Arrow, which a recipe without sets doesn't need

    try:
        return [(name, path) for name, path in expand(paths) if Path(path).is_file()]
    except UserError as error:
        raise UserError(f"{setting}: {error}") from None


def version_of(files: list[tuple[str, str]], setting: str = "curate.decontaminate") -> str:
    """The version of files together: a digest of names and contents, wherever they lie. Raises UserError."""
    try:
        return fingerprint([[name, file_digest(path)] for name, path in files])[:32]
    except OSError as error:
        raise UserError(f"{setting}: {error.filename} can't be read ({error.strerror}): correct the path") from None
