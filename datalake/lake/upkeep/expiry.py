"""Iceberg's snapshots and metadata files that are of no more use: the log of commits, which Headwater never reads.

A table's last snapshot stays, and so do those that tags and branches of other tools name. Files go after the commit
that forgets them, and those of younger commits stay: another process may be about to name them.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import tenacity

from datalake.errors import first_line, note
from datalake.lake.database import database_url
from datalake.lake.iceberg import local_path
from datalake.lake.lake import Lake

if TYPE_CHECKING:
    from pyiceberg.table import Table

_LOG = "write.metadata.previous-versions-max"  # how many former metadata files a table's newest one names
_KEPT = "10"
_TRIES = tenacity.stop_after_attempt(20)


class Expired(NamedTuple):
    """What of a table could go: snapshots, and the files that nothing else needs, with their size."""

    table: str
    snapshots: list[int]
    files: list[Path]
    bytes: int


def expired(lake: Lake, before: float, keep: Mapping[str, Collection[int]]) -> Iterator[Expired]:
    """Of each table what is older than a time (Unix, s), unless `keep` names it: snapshots by the tables' names."""
    if not database_url() and not lake.tables.file.exists():
        return
    catalog = lake.tables.catalog
    for (namespace,) in sorted(catalog.list_namespaces()):
        for identifier in sorted(catalog.list_tables(namespace)):
            name = ".".join(identifier)
            try:
                found = _expired(lake, name, catalog.load_table(identifier), before, keep.get(name, ()))
            except Exception as error:  # metadata that can't be read is made anew by the next commit
                note(f"the Iceberg table {name} can't be looked at ({first_line(error)})")
                continue
            if found.snapshots or found.files:
                yield found


def expire(lake: Lake, name: str, before: float, keep: Mapping[str, Collection[int]]) -> None:
    """Forget a table's expired snapshots in one commit, then remove the files that nothing names any more.

    Tried again where another process commits meanwhile.
    """
    from pyiceberg.exceptions import CommitFailedException

    again = tenacity.retry_if_exception_type(CommitFailedException)
    for attempt in tenacity.Retrying(retry=again, wait=tenacity.wait_random(0.05, 0.5), stop=_TRIES, reraise=True):
        with attempt:
            found = _forget(lake, name, before, keep)
    for path in found.files:
        lake.remove(lake.relative(path))


def _forget(lake: Lake, name: str, before: float, keep: Mapping[str, Collection[int]]) -> Expired:
    """Forget a table's expired snapshots; what of its files can go then."""
    table = lake.tables.catalog.load_table(name)
    found = _expired(lake, name, table, before, keep.get(name, ()))
    if found.snapshots:
        with table.transaction() as transaction:
            transaction.set_properties({_LOG: _KEPT})
        table.maintenance.expire_snapshots().by_ids(found.snapshots).commit()
        found = _expired(lake, name, lake.tables.catalog.load_table(name), before, keep.get(name, ()))
    return found


def _expired(lake: Lake, name: str, table: Table, before: float, keep: Collection[int]) -> Expired:
    heads = {ref.snapshot_id for ref in table.metadata.refs.values()} | set(keep)
    snapshots = [
        one.snapshot_id
        for one in table.metadata.snapshots
        if one.snapshot_id not in heads and one.timestamp_ms < before * 1000
    ]
    needed = {local_path(table.metadata_location)}
    needed |= {local_path(entry.metadata_file) for entry in table.metadata.metadata_log}
    for one in table.metadata.snapshots:
        if one.snapshot_id not in snapshots and one.manifest_list:
            needed.add(local_path(one.manifest_list))
            needed |= {local_path(manifest.manifest_path) for manifest in one.manifests(table.io)}
    files, size = [], 0
    for path in sorted((lake.root / "warehouse").joinpath(*name.split("."), "metadata").glob("*")):
        with suppress(OSError):
            status = path.stat()
            if str(path) not in needed and status.st_mtime < before:
                files.append(path)
                size += status.st_size
    return Expired(name, snapshots, files, size)
