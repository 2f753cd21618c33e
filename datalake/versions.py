"""Content versions of input files, remembered so that an unchanged file is read once.

A local file's version is the xxh128 of its bytes, remembered by path, size and time. A remote one's is its entity tag
and size as its server tells them (time and size where it has no tag), remembered by a digest of its address: whatever
opens a door, wherever in the address it stands, isn't kept.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import islice
from pathlib import Path

import xxhash

from datalake.atomic import write_atomically
from datalake.identity import file_digest
from datalake.remote.address import is_remote, lasting

_REMOTE = "remote"
_BLOCK = 1_000  # answers after which they are saved


class FileVersions:
    """The versions of files. `remembered` is a JSON file in the lake; a file changed in place gets a new version."""

    def __init__(self, remembered: Path):
        self._path = remembered
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
        if self._fresh:
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
