"""What a user may set about lists: addresses that are blocked, words that are toxic. Imports only pydantic."""

from __future__ import annotations

from pathlib import Path, PurePosixPath

from pydantic import BaseModel, ConfigDict, Field, model_validator

from datalake.files import Files, Listing

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


class Lists(Files):
    """Lists, known by what `list_name` calls them.

    In folders (and globs) that hold lists of UT1, `domains` and `urls`, all else is left out.
    """

    def listed(self) -> Listing:
        """Every list behind the paths. Raises UserError where one matches none."""
        found: dict[str, str] = {}
        for path in self.paths:
            files = [file for _, file in Files.model_construct(paths=(path,)).listed()]
            names = {file: list_name(file) for file in files}
            ut1 = {file for file, name in names.items() if PurePosixPath(name).stem in _UT1}
            found |= {file: names[file] for file in files if not ut1 or file in ut1 or Path(path).is_file()}
        return sorted((name, file) for file, name in found.items())


class BlockConfig(BaseModel):
    """Block lists: addresses from which no document is kept."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    paths: Lists = Field(
        default=Lists(),
        title="Lists of domains and addresses",
        description="Files, folders or globs, an entry a line: a domain blocks its subdomains, too, an address what is "
        "below it; folders may be UT1's",
    )
    words: Lists = Field(
        default=Lists(),
        title="Lists of banned words",
        description="A word a line; an address with one between its separators is blocked",
    )
    subwords: Lists = Field(
        default=Lists(),
        title="Lists of banned parts of words",
        description="A part a line; an address with one anywhere, its separators left out, is blocked",
    )
    soft_words: Lists = Field(
        default=Lists(),
        title="Lists of words banned together",
        description="A word a line; an address with two of them between its separators is blocked",
    )

    @model_validator(mode="after")
    def _some(self) -> BlockConfig:
        if not any(getattr(self, name) for name in BLOCK_LISTS):
            names = ", ".join(f"`{name}`" for name in BLOCK_LISTS)
            raise ValueError(f"curate.block: give lists by {names}, or leave the section out")
        return self


class ToxicConfig(BaseModel):
    """Toxic words: lists by language, and how many of their words a document may hold."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    paths: Lists = Field(
        min_length=1,
        title="Lists of words",
        description="Files, folders or globs, a word or phrase a line; `en`, `en.txt` is for English, other names are "
        "for all languages",
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
