"""Where things lie: a folder of this machine (`pathlib`), or an object store by its address (`s3://bucket/prefix`).

An address is a `UPath` of universal_pathlib, which has pathlib's methods, so that whoever writes `folder / name` and
`path.read_bytes()` needs no second way; a local path is a plain `pathlib.Path` and costs what it did. What differs
between the two stands here (is it local, where this machine keeps what belongs to it, many questions at once), in
`datalake.atomic` (files that appear whole) and in `datalake.lake.copies` (what must be on a local disk).

Credentials, region and endpoint of a store come from its own variables (`AWS_ACCESS_KEY_ID`, `AWS_ENDPOINT_URL`...)
on each machine, and never travel with an address.
"""

from __future__ import annotations

import contextlib
import glob
import os
import re
import shutil
import socket
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path, PurePath
from typing import Any, TypeVar, cast
from urllib.parse import unquote, urlsplit

import xxhash

from datalake.errors import UserError
from datalake.printable import one_line

T = TypeVar("T")
R = TypeVar("R")

_ADDRESS = re.compile(r"[a-z][a-z0-9+.-]{1,30}://", re.IGNORECASE)
_STORE = re.compile(r"\A(?:s3a?|gs|gcs|az|abfss?):", re.IGNORECASE)
# What else a store's library reads into a name: patterns, `?versionId=`; and what no line can show.
_MEANT = re.compile(r"[*?\[\x00-\x1f\x7f]")
_FLATTENED = re.compile(r"\A([a-z][a-z0-9+.-]{1,30}):/(?=[^/])", re.IGNORECASE)  # as pathlib writes an address
WIDTH = 32  # questions to a store that are under way at once
# botocore waits up to 20 s between tries of its `standard` mode: with so many, about two minutes in all.
TRIES = 12


def is_address(text: str) -> bool:
    """Whether a text is an address of a store rather than a path; `file://` is a path."""
    return bool(_ADDRESS.match(text)) and not text.lower().startswith("file://")


def place(text: str | os.PathLike[str], tries: int = TRIES) -> Path:
    """A path or an address as something with pathlib's methods. `tries`: how often a request to a store is made.

    A `UPath` is given as a `Path`: as far as anybody here uses it, it is one.
    """
    if not isinstance(text, str | PurePath):
        return cast(Path, text)
    words = _FLATTENED.sub(r"\1://", str(text), count=1) if isinstance(text, PurePath) else text
    if not is_address(words):
        return Path(unquote(urlsplit(words).path) if words.lower().startswith("file://") else words)
    from datalake.store_path import UPath

    protocol, _, rest = words.partition("://")
    return cast(Path, UPath(f"{protocol.lower()}://{rest.rstrip('/')}", **_options(protocol.lower(), tries)))


def _options(protocol: str, tries: int) -> dict[str, Any]:
    """fsspec's options: a listing may be out of date as soon as it is there, since other machines write as well."""
    options: dict[str, Any] = {"use_listings_cache": False}
    if protocol in ("s3", "s3a") and not os.environ.keys() & {"AWS_MAX_ATTEMPTS", "AWS_RETRY_MODE"}:
        retries = {"total_max_attempts": tries, "mode": "standard"}
        options["config_kwargs"] = {"retries": retries, "connect_timeout": 10, "read_timeout": 60}
    return options


def root_of(text: str | os.PathLike[str]) -> Path:
    """The root of a lake: its address, or the folder where it really lies, since a link to it may go away.

    Raises UserError for an address of a store that can't be one: without a bucket, as an empty variable leaves it, or
    with characters that stand for others, by which one lake would read, and remove, what is another's.
    """
    found = place(text)
    bucket = str(found).partition("://")[2]
    if _STORE.match(str(text)) and (is_local(found) or not bucket or bucket.startswith("/")):
        raise UserError(f"the lake {one_line(str(text))} has no bucket: write s3://bucket/prefix")
    if is_local(found):
        return Path(os.path.realpath(found.expanduser()))
    if meant := _MEANT.search(bucket):
        raise UserError(f"the lake {one_line(str(text))} has {meant[0]!r} in its address: choose another prefix")
    return found


def relative_to(root: Path, location: str) -> str | None:
    """An address within a root's, relative to it; None of one elsewhere."""
    above = f"{str(root).rstrip('/')}/"  # a bucket's own ends with one
    return location.removeprefix(above) if location.startswith(above) else None


def is_local(path: Path) -> bool:
    """Whether a place is one of this machine's file system."""
    return isinstance(path, PurePath)


def is_place(value: object) -> bool:
    """Whether a value is a path or an address, rather than text or anything else."""
    return isinstance(value, PurePath) or any(kind.__module__.startswith("upath.") for kind in type(value).__mro__)


def store_of(path: Path) -> Any:
    """fsspec's file system of an address, and what it calls the place: (store, key)."""
    return cast(Any, path).fs, cast(Any, path).path


def protocols_of(path: Path) -> tuple[str, ...]:
    """All protocols that a store's library answers to, the one that it writes addresses with first."""
    names = store_of(path)[0].protocol
    return (names,) if isinstance(names, str) else tuple(names)


def make_folder(folder: Path) -> None:
    """Make sure that a folder is there; a store has none, and would be asked for a bucket."""
    if is_local(folder):
        folder.mkdir(parents=True, exist_ok=True)


def remove_folder(folder: Path) -> None:
    """Remove a folder with all that is in it. Raises FileNotFoundError where there is none on this machine."""
    if is_local(folder):
        shutil.rmtree(folder)
        return
    store, key = store_of(folder)
    with contextlib.suppress(FileNotFoundError):
        store.rm(key, recursive=True)
    shutil.rmtree(copy_of(folder), ignore_errors=True)


def several(ask: Callable[[T], R], items: Iterable[T], where: Path) -> Iterator[R]:
    """`ask(item)` for each, in order: one after the other where they are local, many at once where each is a journey.

    Items are taken as they are needed, so there may be any number of them.
    """
    if is_local(where):
        yield from map(ask, items)
        return
    asked: deque[Future[R]] = deque()
    with ThreadPoolExecutor(WIDTH, "store") as pool:
        for item in items:
            asked.append(pool.submit(ask, item))
            if len(asked) >= 2 * WIDTH:
                yield asked.popleft().result()
        while asked:
            yield asked.popleft().result()


# What this machine keeps ---------------------------------------------------------------------------------------------


def machine_folder() -> Path:
    """Where this machine keeps what can be fetched or made again: HEADWATER_CACHE, else ~/.cache/headwater."""
    return Path(os.environ.get("HEADWATER_CACHE") or Path("~/.cache/headwater")).expanduser().absolute()


def home(root: Path) -> Path:
    """Where this machine keeps what belongs to a lake and is no part of it (Prefect's home, copies of remote sources):
    in the lake where that is local."""
    if is_local(root):
        return root
    return machine_folder() / "lakes" / f"{root.name or 'lake'}-{short(root)}"


def short(path: Path) -> str:
    """A name for a place."""
    return xxhash.xxh3_64_hexdigest(str(path).encode("utf-8", "surrogatepass"))


def copy_of(path: Path) -> Path:
    """Where this machine keeps its copy of a store's file or folder, whether it has one or not."""
    address = str(path)
    protocol, _, rest = address.partition("://")
    return machine_folder() / "copies" / protocol / rest.strip("/")


def scratch() -> Path:
    """A folder for what this process is writing to a store; those of processes that are gone are removed."""
    host = socket.gethostname()
    own = machine_folder() / "scratch" / f"{host}.{os.getpid()}"
    if not own.is_dir():
        own.mkdir(parents=True, exist_ok=True)
        for left in own.parent.glob(f"{glob.escape(host)}.*"):
            with contextlib.suppress(ValueError, PermissionError):
                try:
                    os.kill(int(left.suffix[1:]), 0)
                except ProcessLookupError:
                    shutil.rmtree(left, ignore_errors=True)
    return own


def room_beside(folder: Path) -> Path:
    """Where what spills over while a folder is made may lie: beside it, so that what a kill leaves is no part of it."""
    if not is_local(folder):
        return scratch()
    folder.parent.mkdir(parents=True, exist_ok=True)
    return folder.parent


def keep_copy(file: Path, path: Path) -> None:
    """Make a file that was just written to a store this machine's copy of it."""
    copy = copy_of(path)
    with contextlib.suppress(OSError):  # a disk that is full: it is fetched when it is wanted
        copy.parent.mkdir(parents=True, exist_ok=True)
        file.replace(copy)
