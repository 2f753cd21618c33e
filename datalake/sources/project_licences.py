"""The licence of each folder of a project: package metadata first, then licence files by their texts, nearest one up.

Several licence files side by side all bind (AND), unless their names offer a choice, as `LICENSE-MIT` beside
`LICENSE-APACHE` does. A licence file whose text isn't known leaves its folder without a licence, whatever stands
further up: it says that other terms hold there. What an installed or packed distribution has in `*.dist-info` holds for
the folder beside it.
"""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Mapping
from email.parser import Parser
from pathlib import PurePosixPath
from typing import Any

from datalake.sources.languages import programming_language
from datalake.sources.licence_texts import licences_in
from datalake.sources.licences import licence
from datalake.sources.spdx import all_of, canonical_licence

METADATA = ("pyproject.toml", "package.json", "cargo.toml", "pkg-info", "metadata")
LONGEST_PATH = 4_096  # characters, as operating systems have it
LARGEST = 1_000_000  # bytes of a licence or metadata file
_DOTS = 100  # in a line of TOML, whose parser takes long over deep keys (`a.a.a = 1`)
_LICENCE_NAME = re.compile(
    r"^(?:un)?licen[cs]es?(?:[-._].*)?$|^copying(?:[-._].*)?$|^[\w.]+-licen[cs]e(?:\.\w+)?$", re.I
)
_CHOICE = re.compile(r"^licen[cs]e[-._](?:mit|apache|bsd|mpl|gpl|lgpl|zlib|boost|isc|unlicense|cc0)", re.IGNORECASE)
_SIDE = re.compile(r"(?:^|/)[^/]+\.(?:dist-info|egg-info)(?:/licenses)?$|(?:^|/)LICENSES$", re.IGNORECASE)


def speaks_of_licence(path: str) -> bool:
    """Whether a file by its name is a licence text or package metadata."""
    name = PurePosixPath(path).name
    if name.lower() in METADATA:
        return name.lower() != "metadata" or ".dist-info/" in path
    known = programming_language(path)
    if known and PurePosixPath(path).parent.name.lower() in ("doc", "docs", "source"):
        return False  # a page about the licence
    return bool(_LICENCE_NAME.match(name)) and known in (None, "markdown", "restructuredtext")


class ProjectLicences:
    """The licences of one project's folders. `root` is (expression, where it stands) of what no folder answers for."""

    def __init__(self, files: Mapping[str, bytes], root: tuple[str | None, str] = (None, "")) -> None:
        self._root = root
        self._folders: dict[str, tuple[str | None, str]] = {}
        folders: dict[str, list[str]] = {}
        side: dict[str, list[str]] = {}
        for path in sorted(path for path in files if len(path) <= LONGEST_PATH):
            folder = _folder(path)
            if _SIDE.search(folder):
                while _SIDE.search(folder):
                    folder = _folder(folder)
                side.setdefault(folder, []).append(path)
            else:
                folders.setdefault(folder, []).append(path)
        for folder in sorted(folders.keys() | side.keys()):
            for paths in (folders.get(folder, []), side.get(folder, [])):
                if folder not in self._folders and (found := _of_folder(paths, files)):
                    self._folders[folder] = found

    def of(self, path: str) -> tuple[str | None, str]:
        """(SPDX expression or None, the file that says so or what `root` said) for a file of the project."""
        folder = _folder(path)
        while True:
            if folder in self._folders:
                return self._folders[folder]
            if not folder:
                return self._root
            folder = _folder(folder)


def _folder(path: str) -> str:
    return path.rpartition("/")[0]


def _of_folder(paths: list[str], files: Mapping[str, bytes]) -> tuple[str | None, str] | None:
    """What the files of one folder say together; None where they say nothing of a licence."""
    texts = []
    for path in paths:
        if PurePosixPath(path).name.lower() in METADATA:
            if found := _of_metadata(PurePosixPath(path).name.lower(), files[path]):
                return found, path
        else:
            texts.append(path)
    if not texts:
        return None
    each = {path: licences_in(files[path].decode("utf-8", "replace")) for path in texts}
    if not any(each.values()):
        return None, texts[0]
    known = [path for path in texts if each[path]]
    if len(known) > 1 and all(_CHOICE.match(PurePosixPath(path).name) and len(each[path]) == 1 for path in known):
        return " OR ".join(sorted({each[path][0] for path in known})), known[0]
    names = {name for path in known for name in each[path]}
    for version in ("2.0", "2.1", "3.0"):  # the LGPL is terms on top of the GPL, whose text lies beside it
        if f"LGPL-{version}-only" in names:
            names -= {"GPL-2.0-only", "GPL-3.0-only"}
    return all_of(sorted(names)), known[0]


def _of_metadata(name: str, content: bytes) -> str | None:
    """The SPDX expression that package metadata names, None where it names none."""
    text = content.decode("utf-8", "replace")
    value: Any = None
    try:
        if name == "package.json":
            found = json.loads(text)
            value = found.get("license") if isinstance(found, dict) else None
            value = value.get("type") if isinstance(value, dict) else value
        elif name in ("pyproject.toml", "cargo.toml"):
            if any(line.count(".") > _DOTS for line in text.split("\n")):
                return None
            table = tomllib.loads(text).get("project" if name == "pyproject.toml" else "package")
            value = table.get("license") if isinstance(table, dict) else None
            value = value.get("text") if isinstance(value, dict) else value
            if name == "pyproject.toml" and isinstance(table, dict):
                trove = [str(each) for each in table.get("classifiers") or []]
                return licence(None, value if isinstance(value, str) else None, trove)
        else:
            message = Parser().parsestr(text, headersonly=True)
            expression, free = message.get("License-Expression"), message.get("License")
            return licence(expression, free, message.get_all("Classifier") or [])
    except (ValueError, AttributeError, TypeError, RecursionError):
        return None
    return canonical_licence(value) if isinstance(value, str) else None
