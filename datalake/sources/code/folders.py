"""The files of a folder, by the repository they belong to: the folder's own, or one checked out inside of it.

Of a git working tree the files that its index holds are its own, as they lie; others (build output, notes, keys) are
part of no revision and told as `untracked`. A repository inside is another one, a submodule or not: its files are named
after it, and its licences are its own. Nothing behind a link is read.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from datalake.sources.code.installed import FOLDERS_LEFT_OUT
from datalake.sources.code.repositories import Tracked, tracked


@dataclass(slots=True)
class File:
    """A file below a folder: `path` there, and where it lies. `kind`: `file`, `link`, `special` or `untracked`."""

    path: str
    place: str
    kind: str = "file"


@dataclass(slots=True)
class Tree:
    """The files of one repository in a folder, sorted. `root` is where it lies in the folder, "" or `sub/`.

    `passed` says what else was met: folders left out, submodules that aren't checked out.
    """

    root: str
    place: str
    files: list[File] = field(default_factory=list)
    passed: list[str] = field(default_factory=list)


def trees(folder: str) -> list[Tree]:
    """A folder's own files, and those of each repository that lies within, sorted by place."""
    found: dict[str, Tree] = {}
    indexes: dict[str, Tracked | None] = {}
    roots: dict[str, str] = {}  # a folder's path: the root it belongs to
    for parent, folders, files in os.walk(folder, followlinks=False):
        place = Path(parent).relative_to(folder).as_posix()
        prefix = "" if place == "." else f"{place}/"
        root = roots[prefix] if prefix else ""
        if not prefix or ".git" in folders or ".git" in files:
            root = prefix
            found[root] = Tree(root, parent)
            indexes[root] = tracked(parent)
        tree, index = found[root], indexes[root]
        left = [name for name in folders if name in FOLDERS_LEFT_OUT]
        tree.passed += ["left_out" for name in left if name != ".git"]
        folders[:] = [name for name in folders if name not in FOLDERS_LEFT_OUT]
        roots |= {f"{prefix}{name}/": root for name in folders}
        linked = [name for name in folders if Path(parent, name).is_symlink()]
        for name in (*files, *linked):
            if name == ".git":
                continue
            path = f"{prefix}{name}"
            known = index is None or index.holds(path.removeprefix(root))
            file = Path(parent, name)
            kind = "link" if file.is_symlink() else "special" if not file.is_file() else "file"
            tree.files.append(File(path, str(file), kind if known or kind != "file" else "untracked"))
    for root, tree in found.items():
        tree.files.sort(key=lambda file: file.path)
        index = indexes[root]
        empty = index.submodules if index else frozenset[str]()
        tree.passed += ["submodule" for path in empty if f"{root}{path}/" not in found]
    return [found[root] for root in sorted(found)]


def listed(files: list[tuple[str, str]]) -> Iterator[File]:
    """Files that a list names, as (path, place)."""
    for path, place in files:
        yield File(path, place, "link" if Path(place).is_symlink() else "file")
