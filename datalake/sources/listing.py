"""Which archives a recipe's sources have, with the version of each: what ingest maps over."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from datalake.archive import Archive
from datalake.errors import UserError
from datalake.files import FileVersions
from datalake.lake.lake import Lake
from datalake.paths import with_folders
from datalake.places import home
from datalake.remote.address import is_remote, shown
from datalake.remote.config import RemoteConfig
from datalake.remote.session import forget, using
from datalake.sources import Source, reader


def list_archives(
    sources: Sequence[Source], lake: Lake, remote: RemoteConfig | None = None, remember: bool = True
) -> list[Archive]:
    """Every archive of every source with the version of its content; empty for a remote one that can't be reached.

    Of two archives of one kind with one name the second is called by its source's name as well: no two have the same,
    since it is a part of every document's id. Versions are remembered in the lake unless that is to be left as it is.

    Raises:
        UserError: a path that matches nothing or can't be read; an archive that two sources of one kind name.
    """
    versions = FileVersions(lake.root / "versions.json", only_read=not remember)
    out: list[Archive] = []
    seen: set[tuple[str, ...]] = set()
    names: dict[str, dict[str, str]] = defaultdict(dict)  # by kind: an archive's name, and its path
    forget()
    with using(remote or RemoteConfig(), home(lake.root) / "cache"):
        found = [
            replace(archive, source=number)
            for number, source in enumerate(sources)
            for archive in reader(source.kind).archives(source)
        ]
        if addresses := [archive.path for archive in found if not archive.version and is_remote(archive.path)]:
            versions.ask(addresses)
        for archive in found:
            if not archive.version:
                archive = _with_version(archive, versions)
            twin = (archive.kind, archive.path, archive.name, archive.part)
            if twin in seen:
                place = f"{shown(archive.path)} is in two sources of kind {archive.kind}"
                raise UserError(f"{place}: name it in one of them")
            seen.add(twin)
            label = sources[archive.source].label
            out.append(replace(archive, name=_own_name(archive, label, names[archive.kind])))
    versions.save()
    return out


def _with_version(archive: Archive, versions: FileVersions) -> Archive:
    """A file with the version of its content, or the problem of a remote one."""
    try:
        version = versions.version(archive.path)
    except OSError as error:
        if not is_remote(archive.path):
            raise UserError(f"{archive.path} can't be read ({error.strerror}): correct the path") from None
        return replace(archive, problem=str(error))
    # Absolute: a worker elsewhere in the cluster may stand in another folder.
    path = archive.path if is_remote(archive.path) else str(Path(archive.path).absolute())
    return replace(archive, version=version, path=path)


def _own_name(archive: Archive, label: str, names: dict[str, str]) -> str:
    """The name of an archive in its recipe, which it is entered under: its own, unless another one has that."""
    name, path = archive.name, archive.path
    if names.get(name, path) != path:
        name = f"{label}/{name}"
    if names.get(name, path) != path:
        name = with_folders(archive.name, path, names)
    names[name] = path
    return name
