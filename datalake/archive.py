"""An archive as work reaches a source: which file, or which stretches of one, by name and by content."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from datalake.identity import fingerprint


class Span(NamedTuple):
    """A stretch of an archive's bytes. `archive` is its name relative to the shard's path, "" for the shard's own.

    `digest` is what an index says of the content, empty where it says nothing.
    """

    archive: str
    offset: int
    length: int
    digest: str = ""


@dataclass(frozen=True)
class InputShard:
    """One unit of input.

    - `kind`: the source's kind, such as `common_crawl`.
    - `name`: archive name relative to its source's root, with "/" between parts. The root is the fixed part of the
      path before its first glob character. Equal on every machine and after every move; it enters every document's id.
    - `path`: where it lies now, a local path or an address; readers get it as a local path. Never part of identity.
    - `version`: version of its content. Files leave it empty and the caller fills in the xxh128 of their bytes, or the
      entity tag and size of a remote one; a source that is no file (`pydoc`) sets it itself.
    - `spans`: the stretches of bytes that belong to this shard, where it isn't all of its archive: a part of a
      multistream dump, the records an index chose. Part of identity.
    """

    kind: str
    name: str
    path: str
    version: str = ""
    spans: tuple[Span, ...] = ()

    @property
    def part(self) -> str:
        """What tells it from the other shards of its archive: a digest of its spans, empty where it has none."""
        return fingerprint(self.spans)[:16] if self.spans else ""
