"""Files that a user names in a section of the recipe: where they lie, and their version, which stands for them.

A place has no identity: files that moved rerun nothing, files that changed do. Imports nothing heavier than pydantic.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from datalake.errors import UserError
from datalake.identity import file_digest, fingerprint

Files = list[tuple[str, str]]  # (name, path), sorted by name


def absolute(paths: Iterable[str], section: str, what: str) -> list[str]:
    """Paths that hold wherever a worker stands. Raises UserError where one is an address."""
    paths = list(paths)
    places = [os.path.abspath(os.path.expanduser(path)) for path in paths if "://" not in path]  # noqa: PTH100, PTH111
    if len(places) < len(paths):
        raise UserError(f"{section}: {what} are read from this machine, copy them here")
    return places


def are_paths(paths: Any) -> bool:
    """Whether a setting holds paths at all; what is wrong with others is said by its field."""
    return isinstance(paths, list | tuple) and bool(paths) and all(isinstance(path, str) for path in paths)


def files_of(paths: list[str], section: str) -> Files:
    """(name, path) of every file behind these paths, sorted by name. Raises UserError where a path matches nothing."""
    from datalake.sources.base import expand  # imports Arrow, which a recipe without files doesn't need

    try:
        return [(name, path) for name, path in expand(paths) if Path(path).is_file()]
    except UserError as error:
        raise UserError(f"{section}: {error}") from None


def version_of(files: Files, section: str) -> str:
    """The version of files: a digest of names and contents, wherever they lie. Raises UserError."""
    try:
        return fingerprint(sorted([name, file_digest(path)] for name, path in files))[:32]
    except OSError as error:
        raise UserError(f"{section}: {error.filename} can't be read ({error.strerror}): correct the path") from None
