"""What must lie on a local disk: files that are mapped into memory, models that libraries load, folders to work in.

Of a lake that is a folder of this machine they are where they are. Of one in a store this machine fetches a copy, once,
and knows it by its content: sizes and digests stand in the `shard.json`, or the list of a folder, that was written
last. A copy that isn't what was written is fetched again; what the store itself no longer has as it was written is set
aside there, as on a disk. Copies lie under HEADWATER_CACHE, may be removed at any time, and go, oldest first, where the
disk is full.
"""

from __future__ import annotations

import json
import os
import shutil
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path

import xxhash

from datalake.atomic import FILES, folder_list, upload, upload_folder
from datalake.digests import file_digest, folder_files
from datalake.errors import LostDataError, note
from datalake.places import copy_of, is_local, machine_folder, place, scratch, several, short, store_of

SPARE_BYTES = 1 << 30  # of the disk that copies leave to others
IDLE_S = 600.0  # a copy that was fetched or used of late isn't removed: somebody is about to open it
EVERY_S = 2.0  # that a folder in work is looked at for what is new
SMALL_BYTES = 64 << 20  # larger files are written to the store at the end alone

# Files found whole by this process, as they were then.
_whole: dict[str, tuple[int, int, int]] = {}


def found_whole(path: Path, size: int, digest: str) -> bool:
    """Whether a file of this machine is what was written; its bytes are read once, while it isn't touched.

    Raises OSError where it can't be read.
    """
    status = path.stat()
    seen = (status.st_size, status.st_mtime_ns, status.st_ino)
    if _whole.get(str(path)) == seen:
        return True
    if (status.st_size, file_digest(str(path))) != (size, digest):
        return False
    _whole[str(path)] = seen
    return True


def verify(path: Path, size: int, digest: str) -> Path:
    """Make sure that a file's bytes are what was written; returns it, or this machine's copy of it.

    A file that isn't is set aside as `NAME.damaged`, so that what it belongs to no longer counts as finished.

    Raises:
        LostDataError: where it isn't, or is gone.
    """
    here = path if is_local(path) else copy_of(path)
    try:
        if here is not path:
            _fetch(path, here, size, digest)
        if found_whole(here, size, digest):
            return here
    except FileNotFoundError as error:
        raise LostDataError(str(path), error.strerror or "it is missing") from None
    except OSError as error:
        if here is not path:  # the store can't be read now, which says nothing of what it holds
            raise
        raise LostDataError(str(path), error.strerror or "it can't be read") from None
    with suppress(OSError):  # a lake that can't be written
        aside = path.with_name(f"{path.name}.damaged")
        path.replace(aside) if here is path else path.rename(aside)
    if here is not path:
        here.unlink(missing_ok=True)
    raise LostDataError(str(path), "it isn't what was written")


def _fetch(path: Path, here: Path, size: int, digest: str) -> None:
    """Make sure that this machine has a copy; one process fetches it, others wait. One that isn't whole is fetched
    again."""
    from filelock import FileLock

    with suppress(OSError):
        if found_whole(here, size, digest):
            return
    locks = machine_folder() / "locks"
    locks.mkdir(parents=True, exist_ok=True)
    with FileLock(locks / f"{short(here)}.lock"):
        with suppress(OSError):
            if found_whole(here, size, digest):
                return
        _download(path, here, size)


def _download(path: Path, here: Path, size: int) -> None:
    here.parent.mkdir(parents=True, exist_ok=True)
    part = here.with_name(f".{here.name}.{os.getpid()}.tmp")
    _make_room(size)
    store, key = store_of(path)
    try:
        store.get_file(key, str(part))
        part.replace(here)
    finally:
        part.unlink(missing_ok=True)


def _make_room(size: int) -> None:
    """Remove the copies used longest ago where the disk has no room for another."""
    copies = machine_folder() / "copies"
    short = size + SPARE_BYTES - shutil.disk_usage(machine_folder()).free
    if short <= 0:
        return
    there = []
    for path in copies.rglob("*"):
        with suppress(OSError):  # gone meanwhile: others make room as well
            status = path.stat()
            used = max(status.st_atime, status.st_mtime)
            if path.is_file() and str(path) not in _whole and time.time() - used > IDLE_S:
                there.append((used, status.st_size, path))
    for _, size, path in sorted(there):
        if short <= 0:
            return
        with suppress(OSError):
            path.unlink()
            short -= size


# Shards and folders ---------------------------------------------------------------------------------------------------


def shard_entries(mark: Path) -> dict[str, tuple[int, str]] | None:
    """Size and digest of each file that a `shard.json` names; None where it can't be read."""
    try:
        files = json.loads(mark.read_bytes())["files"]
        return {Path(file["path"]).name: (int(file["bytes"]), str(file["digest"])) for file in files}
    except (FileNotFoundError, NotADirectoryError, ValueError, KeyError, TypeError):
        return None
    except OSError:
        if is_local(mark):
            return None
        raise


def near(path: str | Path) -> Path:
    """A file of a shard on this machine's disk, compared with its digest; one outside any shard has nothing to be
    compared with, and of a store is fetched each time.

    Raises LostDataError where it isn't what was written: see `verify`.
    """
    path = place(path)
    mark = path.parent / "shard.json"
    if is_local(path):
        written = (shard_entries(mark) or {}).get(path.name)
        return path if written is None else verify(path, *written)
    written = (shard_entries(copy_of(mark)) or {}).get(path.name)
    if written is not None:
        with suppress(OSError):
            if found_whole(copy_of(path), *written):
                return copy_of(path)
    written = (shard_entries(mark) or {}).get(path.name)
    if written is None:
        _download(path, copy_of(path), 0)
        return copy_of(path)
    _download(mark, copy_of(mark), 0)
    return verify(path, *written)


def near_shard(file: str | Path) -> Path:
    """A file of a shard on this machine's disk, with all others of its shard beside it."""
    path = place(file)
    if not is_local(path):
        for name in shard_entries(path.parent / "shard.json") or ():
            near(path.parent / name)
    return near(path)


def near_folder(folder: Path) -> Path:
    """A folder of a lake on this machine's disk: a model that libraries load, a tokenizer, a state.

    Raises LostDataError where one in a store isn't whole, or isn't what was written.
    """
    if is_local(folder):
        return folder
    listed = folder_list(folder)
    if listed is None:
        raise LostDataError(str(folder), "it isn't whole")
    copy = copy_of(folder)
    for path in sorted(copy.rglob("*"), reverse=True):  # what the folder held before is no part of it
        if path.is_file() and path.relative_to(copy).as_posix() not in listed:
            if not path.match(".*.tmp"):  # what another process is fetching
                path.unlink(missing_ok=True)
        elif path.is_dir():
            with suppress(OSError):  # one that isn't empty
                path.rmdir()
    for _ in several(lambda item: verify(folder / item[0], *item[1]), listed.items(), folder):
        pass
    copy.mkdir(parents=True, exist_ok=True)
    return copy


def files_of_folder(folder: Path) -> list[tuple[str, str, int]]:
    """(name relative to the folder, xxh128, size in bytes) of each file of a finished folder, sorted by name."""
    if is_local(folder):
        return folder_files(folder)
    return sorted((name, digest, size) for name, (size, digest) in (folder_list(folder) or {}).items())


def digest_of(path: Path) -> str:
    """xxh128 of a file's bytes as they lie in the lake, wherever that is."""
    if is_local(path):
        return file_digest(str(path))
    digest = xxhash.xxh3_128()
    with path.open("rb") as stream:
        while block := stream.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


# Folders in work ------------------------------------------------------------------------------------------------------


@contextmanager
def workplace(folder: Path, leads: bool = True, alone: bool = True) -> Iterator[Path]:
    """A folder of this machine to work in, which is `folder`, or becomes it: in a store small files appear a few
    seconds after they are written, so that others can follow, and all of it, with its list, when the block is left.

    What `folder` holds is there at the beginning. An exception leaves in the store what was written so far, as a kill
    does. Of several processes that work alike one `leads` and writes. Where it isn't `alone` others write to `folder`
    as well: nothing of theirs is removed, and there is no list.
    """
    if is_local(folder):
        folder.mkdir(parents=True, exist_ok=True)
        yield folder
        return
    here = scratch() / f"{short(folder)}-{folder.name}"
    shutil.rmtree(here, ignore_errors=True)
    here.mkdir(parents=True)
    try:
        follower = _Follower(here, folder)
        with follower if leads else nullcontext():
            yield here
        if leads and alone:
            upload_folder(here, folder)
        elif leads:
            follower.write(None)
    finally:
        shutil.rmtree(here, ignore_errors=True)


class _Follower:
    """Writes what is new in a folder of this machine to a store, from a thread; begins with what the store has."""

    def __init__(self, here: Path, folder: Path) -> None:
        self.here, self.folder = here, folder
        store, key = store_of(folder)
        names = [found.removeprefix(f"{key}/") for found in store.find(key)]
        for name in names:
            (here / name).parent.mkdir(parents=True, exist_ok=True)
        for _ in several(lambda name: store.get_file(f"{key}/{name}", str(here / name)), names, folder):
            pass
        (here / FILES).unlink(missing_ok=True)
        self._written = dict(self._there())
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._follow, name="workplace", daemon=True)

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._over.set()
        self._thread.join()
        if kind is not None:
            self.write()

    def _there(self) -> Iterator[tuple[str, tuple[int, int]]]:
        for path in self.here.rglob("*"):
            with suppress(FileNotFoundError):  # one that has its own name by now
                if path.is_file() and not path.match(".*.tmp"):
                    status = path.stat()
                    yield path.relative_to(self.here).as_posix(), (status.st_size, status.st_mtime_ns)

    def _follow(self) -> None:
        while not self._over.wait(EVERY_S):
            self.write()

    def write(self, most: int | None = SMALL_BYTES) -> None:
        """Write what is new, up to so many bytes each."""
        for name, seen in list(self._there()):
            if self._written.get(name) != seen and (most is None or seen[0] <= most):
                try:
                    upload(self.here / name, self.folder / name)
                    self._written[name] = seen
                except FileNotFoundError:
                    continue  # gone again
                except OSError as error:  # tried again, and at the end for good
                    note(f"{self.folder / name} can't be written now ({error}): tried again every {EVERY_S:g} s")
