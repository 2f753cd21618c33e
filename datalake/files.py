"""Files by content: versions that are remembered, and `Files`: named by place, known by content.

A place has no identity: files that moved rerun nothing, files that changed do. A local file's version is the xxh128 of
its bytes, remembered by path, size and time. A remote one's is its entity tag and size as its server tells them (time
and size where it has no tag), remembered by a digest of its address: whatever opens a door, wherever in the address it
stands, isn't kept. Imports nothing heavier than pydantic.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Annotated, Any

import xxhash
from pydantic import BaseModel, ConfigDict, GetJsonSchemaHandler, model_validator
from pydantic_core import CoreSchema

from datalake.atomic import write_atomically
from datalake.digests import file_digest, folder_files
from datalake.errors import UserError
from datalake.identity import Place, data_version, fingerprint
from datalake.paths import expand
from datalake.remote.address import is_remote, lasting

__all__ = ["File", "FileVersions", "Files", "file_digest", "folder_files", "folder_version"]


def folder_version(folder: Path) -> str:
    """The data version of a folder: a digest over the names and contents of its files."""
    return data_version([f"{path} {digest}" for path, digest, _ in folder_files(folder)])


Listing = list[tuple[str, str]]  # (name, path) of files, sorted by name


class Files(BaseModel):
    """Files that a config names by paths: files, folders or globs; their names and contents are their version.

    A recipe has the paths alone: where it is read they become absolute, since a worker may stand in another folder, and
    the version is filled in. What was stored with a version is read as it stands, though the files have gone since.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    paths: Annotated[tuple[str, ...], Place()] = ()
    version: str = ""

    @model_validator(mode="before")
    @classmethod
    def _as_written(cls, value: Any) -> Any:
        if isinstance(value, dict) and (value.get("version") or not value.get("paths")):
            return value
        paths = cls._written(value.get("paths") if isinstance(value, dict) else value)
        here = cls.model_construct(paths=tuple(map(cls._place, paths)))
        return {"paths": here.paths, "version": here.content() if paths else ""}

    @classmethod
    def _written(cls, value: Any) -> list[str]:
        """The paths that a recipe has."""
        if not isinstance(value, list | tuple) or not all(isinstance(path, str) for path in value):
            raise ValueError("a list of paths is wanted, such as [lists/*.txt]")
        return list(value)

    @classmethod
    def _place(cls, path: str) -> str:
        """Where a path leads from any folder."""
        if "://" in path:
            raise UserError(f"{path!r} is an address, and files named here are read from this machine: copy it here")
        return os.path.abspath(os.path.expanduser(path))  # noqa: PTH100, PTH111 - a glob is no Path

    @classmethod
    def __get_pydantic_json_schema__(cls, schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        return {"anyOf": [{"type": "array", "items": {"type": "string"}}, dict(handler(schema))]}

    def __len__(self) -> int:
        return len(self.paths) or int(bool(self.version))  # an identity that was stored has no paths

    def listed(self) -> Listing:
        """Every file behind the paths. Raises UserError where one matches none."""
        found = [(name, path) for name, path in expand(self.paths) if Path(path).is_file()]
        if self.paths and not found:
            raise UserError(f"there is no file in {', '.join(map(repr, self.paths))}: correct the path")
        return found

    def content(self) -> str:
        """The version of what is there now. Raises UserError where something isn't, or can't be read."""
        try:
            return fingerprint(sorted([name, file_digest(path)] for name, path in self.listed()))[:32]
        except OSError as error:
            raise UserError(f"{error.filename} can't be read ({error.strerror}): correct the path") from None

    def is_there(self) -> bool:
        """Whether there are files, and those that the recipe was read with."""
        try:
            return bool(self) and self.content() == self.version
        except UserError:
            return False

    def check(self, setting: str) -> None:
        """Make sure that the files are still those that the recipe was read with.

        Raises:
            UserError: one that names the setting, where they are not.
        """
        try:
            now = self.content() if self else ""
        except UserError as error:
            raise UserError(f"{setting}: {error}") from None
        if now != self.version:
            places = ", ".join(self.paths)
            raise UserError(f"{setting}: {places} has changed since the recipe was read: run it again")


class File(Files):
    """One file, given as text; its content alone is its version, whatever it is called."""

    @classmethod
    def _written(cls, value: Any) -> list[str]:
        if not isinstance(value, str):
            raise ValueError("a path is wanted")
        return [value] if value else []

    @classmethod
    def __get_pydantic_json_schema__(cls, schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        return {"anyOf": [{"type": "string"}, dict(handler(schema))]}

    @property
    def path(self) -> str:
        """Where it lies; empty where none is named."""
        return self.paths[0] if self.paths else ""

    def content(self) -> str:
        """xxh128 of its bytes as they are now. Raises UserError as `Files.content`."""
        if not Path(self.path).is_file():
            raise UserError(f"there is no file {self.path!r}: correct the path")
        try:
            return file_digest(self.path)
        except OSError as error:
            raise UserError(f"{self.path} can't be read ({error.strerror}): correct the path") from None


_REMOTE = "remote"
_BLOCK = 1_000  # answers after which they are saved


class FileVersions:
    """The versions of files. `remembered` is a JSON file in the lake; a file changed in place gets a new version.

    What is learnt is written there unless it is only to be read.
    """

    def __init__(self, remembered: Path, only_read: bool = False):
        self._path, self._only_read = remembered, only_read
        try:
            known = json.loads(remembered.read_bytes())
        except (FileNotFoundError, ValueError):  # not there, or nothing that was written here
            known = {}
        entries = known.items() if isinstance(known, dict) else ()
        self._known: dict[str, list[object]] = {
            path: entry
            for path, entry in entries
            if isinstance(entry, list) and len(entry) == 4 and not is_remote(path)  # as they were kept once
        }
        self._fresh = False
        self._asked: dict[str, str | OSError] = {}  # answers of this listing

    def version(self, path: str) -> str:
        """The version of a file's content. Raises OSError where it can't be read."""
        if is_remote(path):
            if _digest(path) not in self._asked:
                self.ask([path])
            answer = self._asked[_digest(path)]
            if isinstance(answer, OSError):
                raise answer
            return answer
        place = Path(path).absolute()
        status = place.stat()
        stamp = [status.st_size, status.st_mtime_ns, status.st_ino]
        known = self._known.get(str(place))
        if known is None or known[:3] != stamp:
            known = [*stamp, file_digest(str(place))]
            self._known[str(place)] = known
            self._fresh = True
        return str(known[3])

    def ask(self, addresses: Iterable[str]) -> None:
        """Ask for the versions of remote files, several at once; those asked for lately enough aren't asked again.

        A server that can't be reached leaves a file at the version it had when it was last asked for.
        """
        from datalake.remote.session import current

        here = current()
        trusted = time.time() - here.config.recheck_hours * 3_600
        wanted = {}
        for address in addresses:
            place = _digest(address)
            known = self._known.get(place)
            if known and known[0] == _REMOTE and isinstance(known[1], float) and known[1] > trusted:
                self._asked[place] = str(known[3])
            else:
                wanted[place] = address
        todo = iter(wanted.items())
        with ThreadPoolExecutor(here.config.connections) as pool:
            while block := list(islice(todo, _BLOCK)):
                answers = pool.map(partial(_version, here), [address for _, address in block])
                for (place, _), answer in zip(block, answers, strict=True):
                    known = self._known.get(place)
                    if isinstance(answer, str):
                        self._known[place] = [_REMOTE, time.time(), 0, answer]
                        self._fresh = True
                    elif known and known[0] == _REMOTE and not isinstance(answer, FileNotFoundError):
                        answer = str(known[3])
                    self._asked[place] = answer
                self.save()

    def save(self) -> None:
        """Remember what was learnt. Two runs at once may each keep their own; what is forgotten is only read again."""
        if self._fresh and not self._only_read:
            write_atomically(self._path, json.dumps(self._known, sort_keys=True).encode(), private=True)
            self._fresh = False


def _digest(address: str) -> str:
    """What a remote file is remembered by."""
    return f"{_REMOTE}:{xxhash.xxh3_128_hexdigest(lasting(address).encode('utf-8', 'surrogatepass'))}"


def _version(here: object, address: str) -> str | OSError:
    """The version of a remote file, or why it can't be had."""
    from datalake.remote.session import Session

    assert isinstance(here, Session)
    try:
        return here.cache.version(address, here.client)
    except OSError as error:
        return error
