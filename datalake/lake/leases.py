"""Who builds what just now: one holder a name, for every process that shares a lake. A lease ends with its holder.

- A folder: a lock of the operating system on a file, as far as the file system's locks reach.
- A store, where PostgreSQL has the catalog: a lock of a session there (`pg_try_advisory_lock`), which the server ends
  with the connection, however that ends.
- A store with another catalog: an object that is written only where there is none (`If-None-Match: *`), and written
  anew while its holder lives. Another takes it over, by one conditional request (`If-Match`), where it hasn't changed
  for some time by the taker's own clock: whatever the clocks of the machines say, two never hold it.

Two who build the same give the same bytes, so that a lease that is lost (a server that is restarted) costs work twice
and nothing else.
"""

from __future__ import annotations

import json
import os
import socket
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from typing import Any

from datalake.atomic import write_first
from datalake.errors import UserError, first_line, note
from datalake.places import is_local, store_of

LOOK_S = 0.5  # that a waiting process asks again
BEAT_S = 15.0  # that the holder of an object writes it anew
GONE_S = 60.0  # an object that hasn't changed for so long has no holder any more
PATIENCE_S = 300.0  # so long a database may be away

Waiting = Callable[[], None]


def lease(root: Path, catalog: str, name: str, on_wait: Waiting | None = None) -> AbstractContextManager[bool]:
    """Hold the right to `name` in a lake; waits for whoever holds it. Gives whether it had to wait.

    catalog: the URL of the database that has the catalog; empty where it lies in the lake. on_wait: called before
    waiting, to tell so.
    """
    if is_local(root):
        return _file_lock(root / "leases" / f"{name}.lock", on_wait)
    if is_postgres(catalog):
        return _session_lock(catalog, f"{root} {name}", on_wait)
    return _object(root / "leases" / f"{name}.json", on_wait)


def is_postgres(url: str) -> bool:
    """Whether the URL of a database is one of PostgreSQL."""
    return url.split("://")[0].split("+")[0] in ("postgresql", "postgres")


@contextmanager
def _file_lock(path: Path, on_wait: Waiting | None) -> Iterator[bool]:
    from filelock import FileLock, Timeout

    path.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(path)
    waited = False
    try:
        lock.acquire(timeout=0)
    except Timeout:
        waited = True
        if on_wait:
            on_wait()
        lock.acquire()
    try:
        yield waited
    finally:
        lock.release()


# PostgreSQL -----------------------------------------------------------------------------------------------------------

# So that a holder whose machine has lost its power or its network is told from one that has nothing to say.
_ALIVE = "SET tcp_keepalives_idle = 30; SET tcp_keepalives_interval = 10; SET tcp_keepalives_count = 3"
_TAKE = "SELECT pg_try_advisory_lock(hashtextextended(:name, 0))"


@contextmanager
def _session_lock(url: str, name: str, on_wait: Waiting | None) -> Iterator[bool]:
    from sqlalchemy import create_engine, text
    from sqlalchemy.exc import DBAPIError
    from sqlalchemy.pool import NullPool

    engine = create_engine(database_url(url), isolation_level="AUTOCOMMIT", poolclass=NullPool)
    waited, session, away = False, None, time.monotonic()
    try:
        while True:
            try:
                if session is None:
                    session = engine.connect()
                    session.execute(text(_ALIVE))
                held = session.execute(text(_TAKE), {"name": name}).scalar()
                away = time.monotonic()
            except DBAPIError as error:  # it is started again, say
                with suppress(Exception):
                    if session is not None:
                        session.invalidate()
                session = None
                if time.monotonic() - away > PATIENCE_S:
                    raise UserError(f"{_told(error)}: start it, or correct HEADWATER_CATALOG") from None
                note(f"{_told(error)}: tried again for {PATIENCE_S / 60:g} minutes")
                time.sleep(LOOK_S)
                continue
            if held:
                break
            if not waited and on_wait:
                on_wait()
            waited = True
            time.sleep(LOOK_S)
        yield waited
    finally:
        with suppress(Exception):  # the session ends, and the lock with it
            if session is not None:
                session.close()
        engine.dispose()


def database_url(url: str) -> str:
    """A database's URL as SQLAlchemy knows it, which has no `postgres://`."""
    return "postgresql" + url.removeprefix("postgres") if url.startswith("postgres://") else url


def _told(error: Exception) -> str:
    return f"the catalog's database doesn't answer ({first_line(error)})"


# An object in a store -------------------------------------------------------------------------------------------------


@contextmanager
def _object(path: Path, on_wait: Waiting | None) -> Iterator[bool]:
    waited = False
    seen: tuple[str, float] = "", time.monotonic()
    mine = {"holder": f"{socket.gethostname()} {os.getpid()} {uuid.uuid4().hex}", "beat": 0}
    while not write_first(path, json.dumps(mine).encode()):
        tag = _tag(path)
        if tag != seen[0]:
            seen = tag, time.monotonic()
        elif tag and time.monotonic() - seen[1] > GONE_S and _replace(path, mine, tag):
            break
        if not waited and on_wait:
            on_wait()
        waited = True
        time.sleep(LOOK_S)
    over = threading.Event()
    beating = threading.Thread(target=_beat, args=(path, mine, over), name="lease", daemon=True)
    beating.start()
    try:
        yield waited
    finally:
        over.set()
        beating.join()
        with suppress(OSError, ValueError):
            if json.loads(path.read_bytes())["holder"] == mine["holder"]:
                path.unlink()


def _beat(path: Path, mine: dict[str, Any], over: threading.Event) -> None:
    while not over.wait(BEAT_S):
        mine["beat"] += 1
        with suppress(OSError):  # a store that is away for a while: whoever waits can't ask it either
            tag = _tag(path)
            if tag and json.loads(path.read_bytes()).get("holder") == mine["holder"]:
                _replace(path, mine, tag)


def _tag(path: Path) -> str:
    """The entity tag of an object; empty where it is gone."""
    store, key = store_of(path)
    try:
        about = store.info(key)
    except FileNotFoundError:
        return ""
    return str(about.get("ETag") or about.get("etag") or about.get("created") or "")


def _replace(path: Path, mine: dict[str, Any], tag: str) -> bool:
    """Write an object in place of the one that has this tag; whether it still had it."""
    store, key = store_of(path)
    try:
        store.pipe_file(key, json.dumps(mine).encode(), IfMatch=tag)
    except (OSError, TypeError):  # another was first, or a store without such requests
        return False
    return True
