"""What a user may set about lists: addresses that are blocked, words that are toxic. Imports only pydantic."""

from __future__ import annotations

from pathlib import Path, PurePosixPath
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, model_validator

from datalake.curate.checks.user_files import Files, absolute, are_paths, files_of, version_of
from datalake.errors import UserError
from datalake.identity import Paths

BLOCK, TOXIC = "curate.block", "curate.toxic"
BLOCK_LISTS = ("paths", "words", "subwords", "soft_words")  # fields of a block section, as `BlockLists` takes them
PACKED = (".gz", ".bz2", ".xz")
# Names of lists in UT1's folders of categories; beside them lie descriptions, licences, and lists of other kinds.
_UT1 = ("domains", "urls")


def list_name(path: str) -> str:
    """A list's name: its file's without what it is packed by; for those of UT1 with the category, `adult/domains`."""
    name = PurePosixPath(path)
    while name.suffix in PACKED:
        name = name.with_suffix("")
    return f"{name.parent.name}/{name.stem}" if name.stem in _UT1 and name.parent.name else name.name


def list_files(paths: list[str], section: str) -> Files:
    """(name, path) of every list behind these paths, sorted.

    In folders (and globs) that hold lists of UT1, `domains` and `urls`, all else is left out.

    Raises:
        UserError: where a path matches nothing.
    """
    found: dict[str, str] = {}
    for path in paths:
        files = [file for _, file in files_of([path], section)]
        names = {file: list_name(file) for file in files}
        ut1 = {file for file, name in names.items() if PurePosixPath(name).stem in _UT1}
        if not files:
            raise UserError(f"{section}: there is no file in {path!r}: correct the path")
        found |= {file: names[file] for file in files if not ut1 or file in ut1 or Path(path).is_file()}
    return sorted((name, file) for file, name in found.items())


def _with_version(values: Any, section: str, fields: tuple[str, ...]) -> Any:
    """A section's values with the version of its files, `lists_version`."""
    if not isinstance(values, dict) or values.get("lists_version"):
        return values
    given = [name for name in fields if are_paths(values.get(name))]
    if not given:
        return values
    places = {name: absolute(values[name], f"{section}.{name}", "lists") for name in given}
    files = [(f"{name}:{file}", path) for name in given for file, path in list_files(places[name], section)]
    return {**values, **places, "lists_version": version_of(files, section)}


class BlockConfig(BaseModel):
    """Block lists: addresses from which no document is kept."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    paths: Paths = Field(
        default_factory=list,
        title="Lists of domains and addresses",
        description="Files, folders or globs, an entry a line: a domain blocks its subdomains, too, an address what is "
        "below it; folders may be UT1's",
    )
    words: Paths = Field(
        default_factory=list,
        title="Lists of banned words",
        description="A word a line; an address with one between its separators is blocked",
    )
    subwords: Paths = Field(
        default_factory=list,
        title="Lists of banned parts of words",
        description="A part a line; an address with one anywhere, its separators left out, is blocked",
    )
    soft_words: Paths = Field(
        default_factory=list,
        title="Lists of words banned together",
        description="A word a line; an address with two of them between its separators is blocked",
    )
    lists_version: str = Field(
        default="",
        title="Version of the lists",
        description="Digest of the files' names and contents; filled in from the files when left empty",
    )

    @model_validator(mode="before")
    @classmethod
    def _version_of_lists(cls, values: Any) -> Any:
        return _with_version(values, BLOCK, BLOCK_LISTS)

    @model_validator(mode="after")
    def _some(self) -> BlockConfig:
        if not any(getattr(self, name) for name in BLOCK_LISTS):
            names = ", ".join(f"`{name}`" for name in BLOCK_LISTS)
            raise ValueError(f"curate.block: give lists by {names}, or leave the section out")
        return self


class ToxicConfig(BaseModel):
    """Toxic words: lists by language, and how many of their words a document may hold."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    paths: Paths = Field(
        min_length=1,
        title="Lists of words",
        description="Files, folders or globs, a word or phrase a line; `en`, `en.txt` is for English, other names are "
        "for all languages",
    )
    lists_version: str = Field(
        default="",
        title="Version of the lists",
        description="Digest of the files' names and contents; filled in from the files when left empty",
    )
    maximum: int | None = Field(
        default=None,
        ge=0,
        title="Most occurrences",
        description="Documents with more are rejected by the rule `toxic_words`; empty leaves it to the "
        "preset (C4 has 0)",
    )
    maximum_ratio: float | None = Field(
        default=None,
        ge=0,
        title="Most distinct words a line",
        description="Documents with more are rejected by the rule `toxic_ratio` (ChineseWebText has 0.5); empty leaves "
        "it to the preset",
    )

    @model_validator(mode="before")
    @classmethod
    def _version_of_lists(cls, values: Any) -> Any:
        return _with_version(values, TOXIC, ("paths",))
