"""Writing whole or not at all: a temporary name (`.NAME.PID.tmp`), a flush to the disk, a rename.

Whoever reads sees what was there before or what was written, never half of it; a kill at any moment leaves temporary
names alone, which say whose they are.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from io import BufferedWriter
from pathlib import Path


def temporary(path: Path) -> Path:
    """The name under which this process writes what becomes `path`."""
    return path.with_name(f".{path.name}.{os.getpid()}.tmp")


def sync(path: Path) -> None:
    """Make a file's bytes, or the names in a folder, outlive a power cut."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def settle(path: Path) -> None:
    """Give a file that was written under its temporary name its own."""
    sync(temporary(path))
    temporary(path).replace(path)


@contextmanager
def whole_file(path: Path, private: bool = False) -> Iterator[BufferedWriter]:
    """A stream to write a file to, which is there when the block is left; an exception leaves what was there before.

    What is `private` can be read by nobody but its owner, whatever the umask.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
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
        for path in sorted(part.rglob("*")):
            sync(path)
        sync(part)
        if folder.exists():
            folder.rename(old)
        part.rename(folder)
        sync(folder.parent)
    except BaseException:
        if old.exists() and not folder.exists():
            old.rename(folder)
        raise
    finally:
        shutil.rmtree(part, ignore_errors=True)
        shutil.rmtree(old, ignore_errors=True)


def remove_leftovers(folder: Path) -> None:
    """Remove the temporary files of processes that were killed while they wrote here.

    On a folder shared by machines a living writer elsewhere may lose its file: its shard is then tried again.
    """
    for path in folder.glob(".*.tmp"):
        number = path.name.split(".")[-2]
        try:
            os.kill(int(number), 0)
        except ProcessLookupError:
            path.unlink(missing_ok=True)
        except (ValueError, PermissionError):
            continue  # not ours to judge
