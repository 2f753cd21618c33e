"""Remote reading as a run sets it: settings, limits, client and cache together, found by whoever needs them.

`using(config, folder)` sets the session of a block; without one, settings are the defaults and copies are kept in
HEADWATER_CACHE, or ~/.cache/headwater. Sessions are kept by process, so that shards share connections.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import TypeVar

from datalake.remote.address import is_remote
from datalake.remote.cache import Cache
from datalake.remote.client import Client
from datalake.remote.config import RemoteConfig
from datalake.remote.limits import Limits
from datalake.sources.protocol import InputShard

T = TypeVar("T")


@dataclass(frozen=True)
class Session:
    """What remote reading needs."""

    config: RemoteConfig
    client: Client
    cache: Cache


_current: ContextVar[Session | None] = ContextVar("remote session", default=None)


@lru_cache(maxsize=8)
def _session(config: str, folder: str, process: int) -> Session:
    del process  # a forked process has connections of its own
    settings = RemoteConfig.model_validate_json(config)
    cache = Cache(Path(folder), int(settings.cache_gb * 1e9))
    return Session(settings, Client(settings, Limits(Path(folder, "locks"), settings)), cache)


def session(config: RemoteConfig, folder: Path | None = None) -> Session:
    """The session of these settings; copies are kept in the settings' folder, HEADWATER_CACHE, or `folder`."""
    place = config.cache or os.environ.get("HEADWATER_CACHE") or folder or Path("~/.cache/headwater")
    return _session(config.model_dump_json(), str(Path(place).expanduser().absolute()), os.getpid())


def current() -> Session:
    """The session of the block that the caller is in."""
    return _current.get() or session(RemoteConfig())


@contextmanager
def using(config: RemoteConfig, folder: Path | None = None) -> Iterator[Session]:
    """Let everything in the block read with these settings."""
    token = _current.set(session(config, folder))
    try:
        yield current()
    finally:
        _current.reset(token)


@contextmanager
def at_hand(shard: InputShard) -> Iterator[InputShard]:
    """The shard with its archive as a local copy; a local one, or one that names its archives itself, as it is.

    Raises OSError where the archive can't be had.
    """
    if not is_remote(shard.path) or any(span.archive for span in shard.spans):
        yield shard
        return
    here = current()
    with here.cache.copy(shard.path, shard.version, here.client, keep=here.config.keep) as path:
        yield replace(shard, path=str(path))
