"""What every source has in common: the two functions that read it.

A source module offers two plain functions, `archives(config)` and `read(archive, config)` (see `Reader`). An archive is
a file, a dump, a part of one or a group of files, and becomes one shard, the unit of work and of reuse. It is known by
its *name*, which stays the same when a folder is moved, and by its *version*, which is its content; never by where it
happens to lie.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Protocol

from datalake.archive import Archive
from datalake.document import Entry


class Reader(Protocol):
    """The two functions of a source module. `config` is its kind's class, as `KINDS` names it."""

    def archives(self, config: Any) -> list[Archive]:
        """All archives of the source, sorted by name. Raises UserError where a path matches nothing or isn't there."""
        ...

    def read(self, archive: Archive, config: Any) -> Iterator[Entry]:
        """Exactly one entry for each record, in the archive's order, `Passed` for what is no record.

        Damaged input never raises: each record or span of bytes that can't be read is one `Quarantined`.
        """
        ...
