"""An archive as work reaches a source: which file, or which stretches of one, by name and by content."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

from datalake.identity import fingerprint


class Span(NamedTuple):
    """A stretch of an archive's bytes. `archive` is its name relative to that archive's path, "" for its own.

    `digest` is what an index says of the content, empty where it says nothing.
    """

    archive: str
    offset: int
    length: int
    digest: str = ""


@dataclass(frozen=True)
class Archive:
    """One input, or a part of one, which becomes one shard.

    - `kind`: the source's kind, such as `common_crawl`.
    - `name`: archive name relative to its source's root, with "/" between parts. The root is the fixed part of the
      path before its first glob character. Equal on every machine and after every move; it enters every document's id.
    - `path`: where it lies now, a local path or an address; readers get it as a local path. Never part of identity.
    - `version`: version of its content. Files leave it empty, and it is filled in where archives are listed: the xxh128
      of their bytes, or the entity tag and size of a remote one; a source that is no file (`pydoc`) sets it itself.
    - `spans`: the stretches of bytes that belong to it, where it isn't all of its file: a part of a multistream dump,
      the records an index chose. Part of identity.
    - `source`: the number of its source in the recipe, filled in where archives are listed.
    - `problem`: why a remote one has no version: it can't be read by this run, and is by a later one.
    """

    kind: str
    name: str
    path: str
    version: str = ""
    spans: tuple[Span, ...] = ()
    source: int = 0
    problem: str = ""

    @property
    def part(self) -> str:
        """What tells it from the other parts of its file: a digest of its spans, empty where it has none."""
        return fingerprint(self.spans)[:16] if self.spans else ""

    @property
    def content(self) -> dict[str, Any]:
        """What of it shapes what is read from it: its name, content and part, not its place."""
        here = {"kind": self.kind, "name": self.name, "version": self.version}
        return here | ({"part": self.part} if self.spans else {})

    @property
    def identity(self) -> dict[str, Any]:
        """What of it shapes the output of a recipe: its content, and by which of the sources it is read."""
        return self.content | {"source": self.source}
