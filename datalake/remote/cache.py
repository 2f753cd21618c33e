"""Local copies of remote files, kept by content, shared by all processes of a machine.

    objects/K    a whole file: K is a digest of its version, and of its address unless that was seen to be its MD5
    parts/K      one on its way, gone on with after a break
    ranges/K     stretches of archives, until the shard they belong to is done
    use/PID-N/   the copies a process reads, as links: what is removed from `objects` stays readable till it is done
    locks/       who is fetching what; slots of connections

A copy appears under its name only when it is whole and checked.
"""

from __future__ import annotations

import hashlib
import itertools
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import xxhash
from filelock import FileLock, Timeout

from datalake.atomic import sync
from datalake.remote.address import base_name, checksum, lasting, shown
from datalake.remote.client import ChangedError, Client, Facts

_MD5_TAG = re.compile(r"[0-9a-f]{32} \d+")
HASHED = "xxh128:"
_HASH = 16  # bytes of a stretch's hash
_numbers = itertools.count()


class Cache:
    """The copies in one folder. `budget` is in bytes; files used longest ago go first."""

    def __init__(self, folder: Path, budget: int):
        self.folder = folder
        self._budget = budget
        for name in ("objects", "parts", "ranges", "use", "locks"):
            (folder / name).mkdir(parents=True, exist_ok=True)
        self._clear_leftovers()

    def _places(self, address: str, version: str) -> list[Path]:
        """Where a copy may lie: under its address and version; under its content alone where the tag may be its MD5."""
        _, wanted = checksum(address)
        names = [lasting(address)] + ([""] if _MD5_TAG.fullmatch(version) else [])
        digests = [hashlib.sha256(f"{name}\n{version}\n{wanted}".encode()).hexdigest() for name in names]
        return [self.folder / "objects" / digest for digest in digests]

    def version(self, address: str, client: Client) -> str:
        """The version of a remote file's content; where the server names none it is fetched and hashed."""
        known = client.known.get(checksum(address)[0]) or client.facts(address)
        if isinstance(known, OSError):
            raise known
        facts = known
        return facts.version or self._hashed(address, facts, client)

    def _hashed(self, address: str, facts: Facts, client: Client) -> str:
        part = self.folder / "parts" / f"{os.getpid()}-{next(_numbers)}.tmp"
        try:
            client.download(address, facts, part)
            digest = xxhash.xxh3_128()
            with part.open("rb") as file:
                while piece := file.read(1 << 20):
                    digest.update(piece)
            version = HASHED + digest.hexdigest()
            part.replace(self._places(address, version)[0])
        finally:
            part.unlink(missing_ok=True)
        return version

    @contextmanager
    def copy(self, address: str, version: str, client: Client, *, keep: bool = True) -> Iterator[Path]:
        """The path of a local copy of that version, under the file's own name; valid until the block is left.

        Raises ChangedError where the file isn't of that version any more, and OSError where it can't be had.
        """
        folder = self.folder / "use" / f"{os.getpid()}-{next(_numbers)}"
        folder.mkdir(parents=True)
        link = folder / base_name(address)
        try:
            while True:
                place = self._fetch(address, version, client)
                try:
                    os.utime(place)
                    _link(place, link)
                except FileNotFoundError:  # removed in between to make room
                    continue
                break
            self.make_room(place)
            yield link
            if not keep:
                place.unlink(missing_ok=True)
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def _fetch(self, address: str, version: str, client: Client) -> Path:
        """Where a copy is, fetched if there is none; one process fetches, the others wait for it."""
        places = self._places(address, version)
        with FileLock(self.folder / "locks" / f"{places[0].name}.lock", thread_local=False):
            for place in places:
                if place.exists():
                    return place
            facts = client.facts(address)
            now = facts.version
            if version.startswith(HASHED) and not now:
                now = self._hashed(address, facts, client)
            if now != version:
                raise ChangedError(
                    f"{shown(address)} changed after it was listed: it was {version!r} and is {now!r}; "
                    "the next run reads it anew"
                )
            if not version.startswith(HASHED):
                part = self.folder / "parts" / places[0].name
                # What is only said to have this content mustn't be taken for that of another address.
                place = places[-1] if client.download(address, facts, part) else places[0]
                sync(part)
                part.replace(place)
                return place
            return places[0]

    # Stretches ---------------------------------------------------------------------------------------------------

    def stretch(self, key: str) -> bytes | None:
        """A stretch fetched before, if it is still there and whole."""
        try:
            kept = (self.folder / "ranges" / key).read_bytes()
        except FileNotFoundError:
            return None
        data = kept[_HASH:]
        return data if xxhash.xxh3_128_digest(data) == kept[:_HASH] else None

    def put_stretch(self, key: str, data: bytes) -> None:
        """Keep a stretch with its hash, which stands for a flush to the disk: what a crash spoils is fetched again."""
        part = self.folder / "parts" / f"{os.getpid()}-{next(_numbers)}.tmp"
        part.write_bytes(xxhash.xxh3_128_digest(data) + data)
        part.replace(self.folder / "ranges" / key)

    def drop_stretch(self, key: str) -> None:
        """Forget a stretch."""
        (self.folder / "ranges" / key).unlink(missing_ok=True)

    # Room --------------------------------------------------------------------------------------------------------

    def make_room(self, sparing: Path | None = None) -> None:
        """Remove the copies used longest ago until the rest is within the budget; stretches of broken runs too."""
        with FileLock(self.folder / "locks" / "room.lock", thread_local=False):
            found = []
            for kind in ("objects", "ranges", "parts"):
                for path in (self.folder / kind).iterdir():
                    with suppress(FileNotFoundError):
                        status = path.stat()
                        found.append((status.st_mtime_ns, status.st_size, path))
            total = sum(size for _, size, _ in found)
            for _, size, path in sorted(found):
                if total <= self._budget:
                    break
                if path == sparing:
                    continue
                if path.parent.name == "parts":
                    lock = FileLock(self.folder / "locks" / f"{path.name}.lock", thread_local=False)
                    try:
                        lock.acquire(blocking=False)
                    except Timeout:  # it is being fetched
                        continue
                    path.unlink(missing_ok=True)
                    lock.release()
                else:
                    path.unlink(missing_ok=True)
                total -= size

    def _clear_leftovers(self) -> None:
        """Remove what processes of this machine left in `use` when they were killed."""
        for folder in [*(self.folder / "use").iterdir(), *(self.folder / "parts").glob("*-*.tmp")]:
            try:
                os.kill(int(folder.name.partition("-")[0]), 0)
            except ProcessLookupError:
                if folder.is_dir():
                    shutil.rmtree(folder, ignore_errors=True)
                else:
                    folder.unlink(missing_ok=True)
            except (ValueError, PermissionError):
                continue


def _link(place: Path, link: Path) -> None:
    """The same file under another name; a copy on file systems without links."""
    try:
        os.link(place, link)
    except FileNotFoundError:
        raise
    except OSError:
        shutil.copyfile(place, link)
