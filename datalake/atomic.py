"""Writing whole or not at all, into a folder or a store.

On this machine: a temporary name (`.NAME.PID.tmp`), a flush to the disk, a rename. Into a store: a temporary file of
this machine, then one upload, which a store shows when all of it is there. Whoever reads sees what was there before or
what was written, never half of it; a kill at any moment leaves temporary names alone, which say whose they are.

A folder can't appear at once in a store: its files come first, and last of all `.files.json`, the list of them.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from io import BufferedWriter
from pathlib import Path

from datalake.digests import folder_files
from datalake.places import is_local, keep_copy, make_folder, scratch, several, short, store_of

FILES = ".files.json"  # in a folder of a store: size and xxh128 of each of its files, by name; written last


def temporary(path: Path) -> Path:
    """The name under which this process writes what becomes `path`: a file of this machine in any case."""
    if is_local(path):
        return path.with_name(f".{path.name}.{os.getpid()}.tmp")
    return scratch() / f"{short(path)}-{path.name}"


def sync(path: Path) -> None:
    """Make a file's bytes, or the names in a folder, outlive a power cut; a store's do."""
    if not is_local(path):
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def settle(path: Path) -> None:
    """Give a file that was written under its temporary name its own; of one in a store this machine keeps a copy."""
    part = temporary(path)
    if is_local(path):
        sync(part)
        part.replace(path)
    else:
        upload(part, path)
        keep_copy(part, path)


def upload(file: Path, path: Path) -> None:
    """Write a file of this machine to a store, whole or not at all."""
    store, key = store_of(path)
    store.put_file(str(file), key)


def take(path: Path, file: Path) -> None:
    """Move a file of a folder or store to a place of this machine."""
    if is_local(path):
        path.replace(file)
        return
    store, key = store_of(path)
    store.get_file(key, str(file))
    store.rm_file(key)


@contextmanager
def whole_file(path: Path, private: bool = False) -> Iterator[BufferedWriter]:
    """A stream to write a file to, which is there when the block is left; an exception leaves what was there before.

    What is `private` can be read by nobody but its owner, whatever the umask; in a store by whom the bucket lets.
    """
    make_folder(path.parent)
    part = temporary(path)
    try:
        if private:
            part.unlink(missing_ok=True)
            part.touch(mode=0o600)
        with part.open("wb") as stream:
            yield stream
        settle(path)
    finally:
        part.unlink(missing_ok=True)


def write_atomically(path: Path, data: bytes, private: bool = False) -> None:
    """Write a small file whole; see `whole_file`."""
    if not is_local(path):
        store, key = store_of(path)
        store.pipe_file(key, data)
        return
    with whole_file(path, private) as stream:
        stream.write(data)


@contextmanager
def whole_folder(folder: Path) -> Iterator[Path]:
    """A folder to fill, which has the name `folder` when the block is left, in place of one that had it.

    An exception leaves what was there before.
    """
    part = temporary(folder)
    old = temporary(folder.with_name(f"{folder.name}.old"))
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    try:
        yield part
        if is_local(folder):
            for path in sorted(part.rglob("*")):
                sync(path)
            sync(part)
            if folder.exists():
                folder.rename(old)
            part.rename(folder)
            sync(folder.parent)
        else:
            upload_folder(part, folder)
    except BaseException:
        if is_local(folder) and old.exists() and not folder.exists():
            old.rename(folder)
        raise
    finally:
        shutil.rmtree(part, ignore_errors=True)
        shutil.rmtree(old, ignore_errors=True)


def upload_folder(part: Path, folder: Path) -> None:
    """Make a store's folder one of this machine: its files first, their list last, and nothing else in it.

    Between the two the folder isn't whole. This machine keeps a copy of it.
    """
    store, key = store_of(folder)
    written = {name: [size, digest] for name, digest, size in folder_files(part)}
    with suppress(FileNotFoundError):
        store.rm_file(f"{key}/{FILES}")
    for _ in several(lambda name: upload(part / name, folder / name), written, folder):
        pass
    for name in written:
        keep_copy(part / name, folder / name)
    write_atomically(folder / FILES, json.dumps(written, sort_keys=True).encode())
    names = {f"{key}/{name}" for name in (FILES, *written)}
    if others := [other for other in store.find(key) if other not in names]:
        store.rm(others)


def folder_list(folder: Path) -> dict[str, tuple[int, str]] | None:
    """Size and digest of each file of a store's folder by its name, as its list has them or that of a folder around it;
    None where there is no list: the folder isn't whole."""
    for around, inside in ((folder, ""), (folder.parent, f"{folder.name}/")):
        with suppress(FileNotFoundError, ValueError):
            listed = json.loads((around / FILES).read_bytes())
            return {
                name.removeprefix(inside): (int(size), str(digest))
                for name, (size, digest) in listed.items()
                if name.startswith(inside)
            }
    return None


def remove_leftovers(folder: Path) -> None:
    """Remove the temporary files of processes that were killed while they wrote here.

    On a folder shared by machines a living writer elsewhere may lose its file: its shard is then tried again.
    """
    if not is_local(folder):
        return  # they lie on the machine that wrote them, see `datalake.places.scratch`
    for path in folder.glob(".*.tmp"):
        number = path.name.split(".")[-2]
        try:
            os.kill(int(number), 0)
        except ProcessLookupError:
            path.unlink(missing_ok=True)
        except (ValueError, PermissionError):
            continue  # not ours to judge
