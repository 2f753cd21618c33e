"""Remote reading as a run sets it: settings, limits, client and cache together, found by whoever needs them.

`using(config, folder)` sets the session of a block; without one, settings are the defaults and copies are kept in
HEADWATER_CACHE, or ~/.cache/headwater. Sessions are kept by process, so that shards share connections.
"""

from __future__ import annotations

import os
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, replace
from pathlib import Path

from datalake.archive import Archive
from datalake.remote.address import is_remote
from datalake.remote.cache import Cache
from datalake.remote.client import Client
from datalake.remote.config import RemoteConfig
from datalake.remote.limits import Limits


@dataclass(frozen=True)
class Session:
    """What remote reading needs."""

    config: RemoteConfig
    client: Client
    cache: Cache


_current: ContextVar[tuple[RemoteConfig, Path | None]] = ContextVar("remote session", default=(RemoteConfig(), None))
_built: dict[tuple[str, str, int], Session] = {}
_building = threading.Lock()


def current() -> Session:
    """The session of the block that the caller is in, made when first asked for."""
    config, folder = _current.get()
    place = config.cache or os.environ.get("HEADWATER_CACHE") or folder or Path("~/.cache/headwater")
    place = Path(place).expanduser().absolute()
    key = (config.model_dump_json(), str(place), os.getpid())  # a forked process has connections of its own
    with _building:
        if key not in _built:
            cache = Cache(place, int(config.cache_gb * 1e9))
            _built[key] = Session(config, Client(config, Limits(place / "locks", config)), cache)
        return _built[key]


@contextmanager
def using(config: RemoteConfig, folder: Path | None = None) -> Iterator[None]:
    """Let everything in the block read with these settings; copies are kept in the settings' folder, HEADWATER_CACHE,
    or `folder`."""
    token = _current.set((config, folder))
    try:
        yield
    finally:
        _current.reset(token)


def forget() -> None:
    """Ask anew for what servers have said: archives are about to be listed."""
    for session in _built.values():
        session.client.forget()


@contextmanager
def counted(archive: Archive) -> Iterator[Callable[[], dict[str, int]]]:
    """A function that says what reading a remote archive has taken so far: `requests`, `retries`, `bytes`."""
    if not is_remote(archive.path):
        yield dict
        return
    client = current().client
    before = Counter(client.counts)
    yield lambda: dict(sorted((client.counts - before).items()))


@contextmanager
def at_hand(archive: Archive) -> Iterator[Archive]:
    """The archive as a local copy; a local one, or one that names archives of its own, as it is.

    Raises OSError where it can't be had.
    """
    if not is_remote(archive.path) or any(span.archive for span in archive.spans):
        yield archive
        return
    here = current()
    with here.cache.copy(archive.path, archive.version, here.client, keep=here.config.keep) as path:
        yield replace(archive, path=str(path))
