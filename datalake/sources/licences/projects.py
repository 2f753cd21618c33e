"""The licence of each folder of a project: package metadata first, then licence files by their texts, nearest one up.

Metadata that says something unknown leaves its folder without a licence, unless it names a text that is known, or is
vague (`BSD`) where the text beside it isn't.

Several licence files side by side all bind (AND), unless their names offer a choice, as `LICENSE-MIT` beside
`LICENSE-APACHE` does. A licence file whose text isn't known leaves its folder without a licence, whatever stands
further up: it says that other terms hold there. What an installed or packed distribution has in `*.dist-info` holds for
the folder beside it.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Mapping
from pathlib import PurePosixPath
from typing import NamedTuple

from datalake.sources.languages import programming_language
from datalake.sources.licences.names import may_mean
from datalake.sources.licences.package_files import Statement, is_package_file, statement_of
from datalake.sources.licences.spdx import all_of
from datalake.sources.licences.texts import licences_in

LONGEST_PATH = 4_096  # characters, as operating systems have it
LARGEST = 1_000_000  # bytes of a licence or metadata file
_LONGEST_WORDS = 200  # characters kept of a licence text that isn't known
_LICENCE_NAME = re.compile(
    r"^(?:un)?licen[cs]es?(?:[-._].*)?$|^copying(?:[-._].*)?$|^[\w.]+-licen[cs]e(?:\.\w+)?$|^eula(?:[-._].*)?$", re.I
)
_CHOICE = re.compile(r"^licen[cs]e[-._](?:mit|apache|bsd|mpl|gpl|lgpl|zlib|boost|isc|unlicense|cc0)", re.IGNORECASE)
_AGREEMENT = re.compile(r"(?:^|/)eula[^/]*$", re.IGNORECASE)  # whose terms hold beside any licence's
_PROSE = (None, "markdown", "restructuredtext", "asciidoc", "org")
_SIDE = re.compile(r"(?:^|/)[^/]+\.(?:dist-info|egg-info)(?:/licenses)?$|(?:^|/)LICENSES$", re.IGNORECASE)


def speaks_of_licence(path: str) -> bool:
    """Whether a file by its name is a licence text or package metadata."""
    name = PurePosixPath(path).name
    if is_package_file(path):
        return True
    known = programming_language(path)
    if known and PurePosixPath(path).parent.name.lower() in ("doc", "docs", "source"):
        return False  # a page about the licence
    return bool(_LICENCE_NAME.match(name)) and (known in _PROSE or PurePosixPath(path).suffix[1:].isdigit())


class Terms(NamedTuple):
    """Under what a folder stands: an SPDX expression or None, the file that says so, and its words for it."""

    expression: str | None
    source: str
    words: str = ""


class ProjectLicences:
    """The licences of one project's folders. `root` is what holds where no folder answers."""

    def __init__(self, files: Mapping[str, bytes], root: Terms | None = None) -> None:
        self._root = root or Terms(None, "")
        self._folders: dict[str, Terms] = {}
        folders: dict[str, list[str]] = {}
        side: dict[str, list[str]] = {}
        for path in sorted(path for path in files if len(path) <= LONGEST_PATH):
            folder = _folder(path)
            if _is_side(folder):
                while _is_side(folder):
                    folder = _folder(folder)
                side.setdefault(folder, []).append(path)
            else:
                folders.setdefault(folder, []).append(path)
        for folder in sorted(folders.keys() | side.keys()):
            for paths in (folders.get(folder, []), side.get(folder, [])):
                if folder not in self._folders and (found := _of_folder(paths, files)):
                    self._folders[folder] = found

    def of(self, path: str) -> Terms:
        """The terms of a file of the project: those of the nearest folder that says something, known or not."""
        folder = _folder(path[:LONGEST_PATH])  # no folder that says something is deeper
        while True:
            if folder in self._folders:
                return self._folders[folder]
            if not folder:
                return self._root
            folder = _folder(folder)


def _is_side(folder: str) -> bool:
    """Whether a folder holds what is said of the one it lies in, by the last two names of its path."""
    return _SIDE.search("/".join(folder.rsplit("/", 2)[-2:])) is not None


def _folder(path: str) -> str:
    return path.rpartition("/")[0]


def _of_folder(paths: list[str], files: Mapping[str, bytes]) -> Terms | None:
    """What the files of one folder say together; None where they say nothing of a licence."""
    stated: list[Terms] = []
    texts = [path for path in paths if not is_package_file(path)]
    own = _of_texts(texts, files)
    for path in paths:
        if is_package_file(path) and (said := statement_of(path, files[path])):
            stated.append(_terms(said, path, files, own))
    if not stated:
        return own
    unknown = [terms for terms in stated if terms.expression is None]
    if unknown or len(stated) == 1:
        return (unknown or stated)[0]
    return Terms(all_of(sorted({str(terms.expression) for terms in stated})), stated[0].source, stated[0].words)


def _terms(said: Statement, path: str, files: Mapping[str, bytes], own: Terms | None) -> Terms:
    """A package's statement; where it names a text, or leaves open what one beside it tells, with that text's."""
    if said.expression:
        return Terms(said.expression, path, said.words)
    if said.file:
        place = posixpath.normpath(posixpath.join(_folder(path), said.file))
        found = _of_texts([place], files) if place in files else None
        return found if found and found.expression else Terms(None, path, said.words)
    if own and own.expression and may_mean(said.words, own.expression):
        return own
    return Terms(None, path, said.words)


def _of_texts(texts: list[str], files: Mapping[str, bytes]) -> Terms | None:
    """What licence files side by side say together; None where there are none."""
    if not texts:
        return None
    each = {path: licences_in(files[path].decode("utf-8", "replace")) for path in texts}
    agreement = next((path for path in texts if _AGREEMENT.search(path) and not each[path]), "")
    if agreement or not any(each.values()):
        first = files[agreement or texts[0]].decode("utf-8", "replace").strip().partition("\n")[0]
        return Terms(None, agreement or texts[0], first.strip()[:_LONGEST_WORDS])
    known = [path for path in texts if each[path]]
    if len(known) > 1 and all(_CHOICE.match(PurePosixPath(path).name) and len(each[path]) == 1 for path in known):
        return Terms(" OR ".join(sorted({each[path][0] for path in known})), known[0])
    names = {name for path in known for name in each[path]}
    for version in ("2.0", "2.1", "3.0"):  # the LGPL is terms on top of the GPL, whose text lies beside it
        if f"LGPL-{version}-only" in names:
            names -= {"GPL-2.0-only", "GPL-3.0-only"}
    return Terms(all_of(sorted(names)), known[0])
