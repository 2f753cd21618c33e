"""How paths become files: what a file, a folder, a glob or an address in a recipe stands for, and by which name.

A name is relative to the fixed part of its path, so that it stays the same when a folder is moved.
"""

from __future__ import annotations

import glob
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from datalake.errors import UserError
from datalake.remote.address import is_remote, lasting, local, shown


def expand(paths: Sequence[str], *, descend: bool = True) -> list[tuple[str, str]]:
    """The files behind paths, as (name, path) sorted by name.

    A path is a file (its name is the file's own), a folder (every file below it, hidden ones left out) or a glob (`*`,
    `?`, `[...]`, and `**` for any depth), on this machine or at an address (see `datalake.remote.files`). With
    `descend=False` a folder stays one item and isn't looked into. A file reached twice is taken once, under the name it
    got first. Of two files with one name the second is called by its folders as well.

    Raises UserError where a path matches nothing or isn't there.
    """
    found: dict[str, str] = {}  # real path -> name
    places: dict[str, str] = {}  # name -> path
    for pattern in paths:
        matches = _matches(pattern, descend)
        if not matches:
            raise UserError(f"nothing matches {shown(pattern)!r}: correct the path in `paths`")
        for name, path in matches:
            real = lasting(path) if is_remote(path) else os.path.realpath(path)
            if real in found:
                continue
            name = name if name not in places else with_folders(name, path, places)
            found[real], places[name] = name, path
    return sorted(places.items())


def with_folders(name: str, path: str, places: Mapping[str, str]) -> str:
    """A name for a file or address whose own is taken: behind as many of its folders as tell it from the others.

    `places` are the paths of names that are taken. A data set's files are called alike everywhere
    (`data/train-00000-of-00001.parquet`): the folder that differs counts.
    """
    folders, others = (shown(each).split("/")[: -len(name.split("/"))] for each in (path, places.get(name, "")))
    same = 0
    while same < min(len(folders), len(others)) and folders[-1 - same] == others[-1 - same]:
        same += 1
    for folder in range(len(folders) - 1 - same, -1, -1):
        longer = "/".join((*folders[folder:], name)).lstrip("/")
        if folders[folder] and longer not in places:
            return longer
    raise UserError(f"{shown(path)} has the same name as another file, {name!r}: rename one of them")


def _matches(pattern: str, descend: bool) -> list[tuple[str, str]]:
    """(name, path) of everything one pattern stands for."""
    if is_remote(pattern):
        from datalake.remote.files import matches  # imports what a local path doesn't need

        return matches(pattern, descend)
    pattern = os.path.expanduser(local(pattern))  # noqa: PTH111 - a glob is no Path
    if not glob.has_magic(pattern) or os.path.lexists(pattern):  # a file whose name has brackets is that file
        path = Path(pattern)
        if not path.exists():
            raise UserError(f"there is no {pattern!r}: correct the path in `paths`")
        if path.is_dir() and descend:
            return _below(path, path)
        return [(path.resolve().name if path.name in ("", "..") else path.name, str(path))]
    root = Path(_fixed_part(pattern))
    out: list[tuple[str, str]] = []
    for match in sorted(glob.glob(pattern, recursive=True)):  # noqa: PTH207 - keeps the user's own spelling of the path
        path = Path(match)
        if path.is_dir() and descend:
            out.extend(_below(path, root))
        elif path != root:
            out.append((path.relative_to(root).as_posix(), str(path)))
    return out


def _fixed_part(pattern: str) -> str:
    """The folder before the first part of a glob that has a glob character."""
    parts = Path(pattern).parts
    fixed = []
    for part in parts:
        if glob.has_magic(part):
            break
        fixed.append(part)
    return str(Path(*fixed)) if fixed else "."


def _below(folder: Path, root: Path) -> list[tuple[str, str]]:
    """(name, path) of every visible file below a folder, in the order of their names."""
    out = []
    for parent, folders, files in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(files):
            if not name.startswith("."):
                path = Path(parent, name)
                out.append((path.relative_to(root).as_posix(), str(path)))
    return out
