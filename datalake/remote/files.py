"""Which remote files a path stands for, and a remote file as Python reads one.

Names are relative to the fixed part of an address, as for local paths. In HTTP addresses `?` begins a query and is no
glob character; `*` and `[...]` are, and need a server that shows its folders as pages of links.
"""

from __future__ import annotations

import fnmatch
import glob
import io
import re
from collections.abc import Iterator
from contextlib import suppress
from urllib.parse import unquote

from datalake.errors import UserError
from datalake.remote.address import HTTP, base_name, checksum, scheme, shown
from datalake.remote.client import Client, RemoteError
from datalake.remote.session import current


def matches(pattern: str, descend: bool = True) -> list[tuple[str, str]]:
    """(name, address) of every file one remote path stands for, in order.

    Raises UserError where there is nothing, no access, or no listing.
    """
    client = current().client
    address, wanted = checksum(pattern)
    web = scheme(address) in HTTP
    path, _, query = address.partition("?") if web else (address, "", "")
    try:
        if re.search(r"[*\[]" if web else r"[*?\[]", path):
            if wanted:
                raise UserError(f"{shown(address)} is a glob: a checksum belongs to one file")
            root = _fixed_part(path)
            parts = path.removeprefix(root).strip("/").split("/")
            suffix = f"?{query}" if query else ""
            found = []
            for place, folder in _matching(client, root + suffix, parts):
                if not folder:
                    found.append(place)
                elif descend:
                    found.extend(_below(client, place))
            return [(_relative(place, root), place) for place in found]
        if path.endswith("/") or (not web and client.is_folder(address)):
            if not descend:
                raise UserError(f"{shown(address)} is a remote folder: copy it to a local one and name that in `paths`")
            return [(_relative(place, path), place) for place in _below(client, address)]
        with suppress(RemoteError):  # then its shard fails, and is read by a later run
            client.facts(address)
        return [(base_name(address), pattern)]
    except FileNotFoundError as error:
        raise UserError(f"there is no {shown(address)}: correct the path in `paths` ({_told(error)})") from None
    except PermissionError as error:
        raise UserError(f"{_told(error)}: give credentials in the environment, or correct the path") from None
    except RemoteError as error:
        raise UserError(f"{error}: run again later, or correct the path") from None


def _told(error: OSError) -> str:
    return str(error.strerror or error)


def _fixed_part(path: str) -> str:
    """The folder before the first part of a glob that has a glob character."""
    head, _, rest = path.partition("://")
    fixed = []
    for part in rest.split("/"):
        if glob.has_magic(part):
            break
        fixed.append(part)
    return f"{head}://{'/'.join(fixed)}"


def _relative(address: str, root: str) -> str:
    """The name of a file below the fixed part of its path."""
    if scheme(address) in HTTP:
        return unquote(address.partition("?")[0].removeprefix(root.partition("?")[0]).strip("/"))
    return address.removeprefix(root).strip("/")


def _matching(client: Client, folder: str, parts: list[str]) -> Iterator[tuple[str, bool]]:
    """What lies below a folder and matches the parts of a glob: (address, whether it is a folder)."""
    first, rest = parts[0], parts[1:]
    if first == "**":
        if rest:
            yield from _matching(client, folder, rest)
        for place, is_folder in _visible(client, folder):
            if is_folder:
                yield from _matching(client, place, parts)
            elif not rest:
                yield place, False
        return
    if not glob.has_magic(first):
        place = _with_part(folder, first)
        if rest:
            try:
                yield from _matching(client, place, rest)
            except FileNotFoundError:
                return
            return
    for place, is_folder in _visible(client, folder, hidden=first.startswith(".")):
        if fnmatch.fnmatchcase(base_name(place), first):
            if not rest:
                yield place, is_folder
            elif is_folder:
                yield from _matching(client, place, rest)


def _with_part(folder: str, part: str) -> str:
    if scheme(folder) not in HTTP:
        return f"{folder.rstrip('/')}/{part}"
    path, mark, query = folder.partition("?")
    return f"{path.rstrip('/')}/{part}{mark}{query}"


def _visible(client: Client, folder: str, hidden: bool = False) -> list[tuple[str, bool]]:
    return [one for one in client.listing(folder) if hidden or not base_name(one[0]).startswith(".")]


def _below(client: Client, folder: str) -> Iterator[str]:
    """Every visible file below a folder."""
    for place, is_folder in _visible(client, folder):
        if is_folder:
            yield from _below(client, place)
        else:
            yield place


class RemoteFile(io.RawIOBase):
    """A remote file, read where it is asked for; `fetched` counts the bytes. Raises OSError as the client does."""

    def __init__(self, client: Client, address: str):
        super().__init__()
        self._client = client
        self._address = address
        self._at = 0
        self.size = client.facts(address).size
        self.fetched = 0

    def readable(self) -> bool:
        """It is."""
        return True

    def seekable(self) -> bool:
        """It is."""
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Where the next byte is read."""
        self._at = max(0, offset + (0, self._at, self.size)[whence])
        return self._at

    def tell(self) -> int:
        """Where the next byte is read."""
        return self._at

    def read(self, size: int = -1) -> bytes:
        """The next bytes, with one request."""
        size = self.size - self._at if size is None or size < 0 else min(size, self.size - self._at)
        if size <= 0:
            return b""
        data, _ = self._client.range(self._address, self._at, size)
        self._at += len(data)
        self.fetched += len(data)
        return data
