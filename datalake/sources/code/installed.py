"""The source files of what Python itself has installed: its distributions and its standard library."""

from __future__ import annotations

import os
import re
import sysconfig
from importlib import metadata
from pathlib import Path, PurePosixPath

from datalake.sources.licences.projects import speaks_of_licence

STDLIB_MODULES_A_SHARD = 20
# Not the library: tests, bundled wheels, applications with windows.
STDLIB_LEFT_OUT = frozenset(("test", "idlelib", "tkinter", "turtledemo", "ensurepip", "site-packages", "dist-packages"))
FOLDERS_LEFT_OUT = frozenset((".git", ".hg", ".svn", "__pycache__", ".venv", ".tox", "node_modules"))


def distributions() -> dict[str, metadata.Distribution]:
    """Installed distributions by `name@version`, sorted; where a name is found twice, the first on the path counts."""
    found: dict[str, metadata.Distribution] = {}
    names: set[str] = set()
    for distribution in metadata.distributions():
        name = re.sub(r"[-_.]+", "-", distribution.metadata["Name"] or "").lower()
        if name and name not in names:
            names.add(name)
            found[f"{name}@{distribution.version}"] = distribution
    return dict(sorted(found.items()))


def distribution_files(distribution: metadata.Distribution) -> list[tuple[str, str]]:
    """(path, file) of a distribution's files as its RECORD lists them, but those outside, metadata, and bytecode."""
    out = []
    for path in distribution.files or []:
        name = path.as_posix()
        if ".." not in path.parts and "__pycache__" not in path.parts:
            if path.parts[0].endswith((".dist-info", ".egg-info")):
                continue
            file = str(distribution.locate_file(path))
            if Path(file).is_file():
                out.append((name, file))
    return sorted(out)


def distribution_licences(distribution: metadata.Distribution) -> dict[str, bytes]:
    """The licence files that lie among a distribution's packages, and in its metadata's folder."""
    out = {}
    for path in distribution.files or []:
        name = path.as_posix()
        if speaks_of_licence(name) and ".." not in path.parts and not name.endswith(("/METADATA", "/PKG-INFO")):
            file = Path(str(distribution.locate_file(path)))
            if file.is_file() and not file.is_symlink():
                out[name] = file.read_bytes()
    return out


def stdlib_groups() -> list[list[tuple[str, str]]]:
    """The standard library's source files, grouped by top-level modules in the order of their names."""
    root = Path(sysconfig.get_paths()["stdlib"])
    modules: dict[str, list[tuple[str, str]]] = {}
    for path, file in _stdlib_files(root):
        modules.setdefault(PurePosixPath(path).parts[0].removesuffix(".py"), []).append((path, file))
    names = sorted(modules)
    return [
        [entry for name in names[start : start + STDLIB_MODULES_A_SHARD] for entry in modules[name]]
        for start in range(0, len(names), STDLIB_MODULES_A_SHARD)
    ]


def _stdlib_files(root: Path) -> list[tuple[str, str]]:
    """Python files of the standard library itself; build configuration depends on machines and is left out."""
    out = []
    for parent, folders, files in os.walk(root, followlinks=False):
        top = Path(parent) == root
        folders[:] = [
            name
            for name in folders
            if name not in FOLDERS_LEFT_OUT | {"tests", "test", "idle_test"}
            and not (top and (name in STDLIB_LEFT_OUT or name.startswith(("config-", "lib-dynload"))))
        ]
        for name in files:
            if name.endswith(".py") and not name.startswith("_sysconfigdata") and name != "sitecustomize.py":
                file = Path(parent, name)
                out.append((file.relative_to(root).as_posix(), str(file)))
    return sorted(out)
