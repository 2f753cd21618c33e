"""Who builds what just now: one holder a name, for every process that shares a lake. A lease ends with its holder.

- A folder: a lock of the operating system on a file, as far as the file system's locks reach.
- A store, where PostgreSQL has the catalog: a lock of a transaction there (`pg_try_advisory_xact_lock`), which the
  server ends with the connection, however that ends. A lock of a session would do as well, but for a pooler between
  the two (PgBouncer's transaction mode), where each transaction has another session: two hold it, and nobody frees it.
- A store with another catalog: an object that is written only where there is none (`If-None-Match: *`), and written
  anew while its holder lives. Another takes it over, by one conditional request (`If-Match`), where it hasn't changed
  for some time by the taker's own clock: whatever the clocks of the machines say, two never hold it.

Two who build the same give the same bytes, so that a lease that is lost (a server that is restarted) costs work twice
and nothing else. A lease is taken inside of `still`, so that whoever holds that knows that nothing begins meanwhile.
"""

from __future__ import annotations

import json
import os
import socket
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Protocol

from datalake.conditional import tag, write_first, write_over
from datalake.errors import first_line, note
from datalake.lake.database import AwayError, engine, is_postgres, unavailable
from datalake.places import is_local, short, store_of

BEAT_S = 15.0  # that the holder of an object writes it anew
GONE_S = 60.0  # an object that hasn't changed for so long has no holder any more
LEFT_S = 600.0  # and by the store's clock, which a lister has to go by
PATIENCE_S = 300.0  # so long a database may be away
STILL = "still"

Waiting = Callable[[], None]


class Lock(Protocol):
    """A lock that ends with its process. `look_s`: how long to wait before it is asked for again."""

    look_s: float

    def take(self) -> bool:
        """Take it, unless another holds it. Whether it was taken."""

    def release(self) -> None:
        """Let go of it."""


@contextmanager
def lease(root: Path, catalog: str, name: str, on_wait: Waiting | None = None) -> Iterator[bool]:
    """Hold the right to `name` in a lake; waits for whoever holds it. Yields whether it had to wait.

    catalog: the URL of the database that has the catalog; empty where it lies in the lake. on_wait: called before
    waiting, to tell so.
    """
    lock, waited = _lock(root, catalog, name), False
    while True:
        with still(root, catalog):
            held = lock.take()
        if held:
            break
        if not waited and on_wait:
            on_wait()
        waited = True
        time.sleep(lock.look_s)
    try:
        yield waited
    finally:
        lock.release()


@contextmanager
def still(root: Path, catalog: str) -> Iterator[None]:
    """Hold back everybody who would take a lease; those who have one go on."""
    lock = _lock(root, catalog, STILL)
    while not lock.take():
        time.sleep(lock.look_s)
    try:
        yield
    finally:
        lock.release()


def held(root: Path, catalog: str) -> set[str]:
    """The names whose leases are held now; certain inside of `still` alone."""
    if is_local(root):
        found = {path.stem for path in (root / "leases").glob("*.lock") if _FileLock(path).is_held()}
    elif is_postgres(catalog):
        found = _sessions(catalog, root)
    else:
        found = _objects(root / "leases")
    return found - {STILL}


def _lock(root: Path, catalog: str, name: str) -> Lock:
    if is_local(root):
        return _FileLock(root / "leases" / f"{name}.lock")
    if is_postgres(catalog):
        return _TransactionLock(catalog, root, name)
    return _ObjectLock(root / "leases" / f"{name}.json")


class _FileLock:
    look_s = 0.05

    def __init__(self, path: Path):
        from filelock import FileLock

        path.parent.mkdir(parents=True, exist_ok=True)
        self._lock = FileLock(path)

    def take(self) -> bool:
        from filelock import Timeout

        with suppress(Timeout):
            self._lock.acquire(timeout=0)
        return self._lock.is_locked

    def release(self) -> None:
        self._lock.release()

    def is_held(self) -> bool:
        """Whether another holds it."""
        taken = self.take()
        if taken:
            self.release()
        return not taken


# PostgreSQL -----------------------------------------------------------------------------------------------------------

# A holder whose machine has lost its power or its network is told from one that has nothing to say; one that works for
# days isn't ended. Not every server has each of these settings.
_STAY = """
SELECT set_config(name, value, true)
FROM pg_settings
JOIN (VALUES ('tcp_keepalives_idle', '30'), ('tcp_keepalives_interval', '10'), ('tcp_keepalives_count', '3'),
             ('idle_in_transaction_session_timeout', '0'), ('transaction_timeout', '0')) AS wanted (name, value)
USING (name)
"""
_TAKE = "SELECT pg_try_advisory_xact_lock(hashtextextended(:name, 0))"
# Whoever holds a lease has its lake and name as the session's own, by which others are told of it.
_NAME = "SELECT set_config('application_name', :name, true)"
_NAMES = "SELECT application_name FROM pg_stat_activity WHERE application_name LIKE :prefix"


class _TransactionLock:
    look_s = 0.5

    def __init__(self, url: str, root: Path, name: str):
        self._engine = engine(url)
        self._name, self._shown = f"{root} {name}", f"{_prefix(root)}{name}"
        self._session: Any = None

    def take(self) -> bool:
        from sqlalchemy import text
        from sqlalchemy.exc import DBAPIError

        away = time.monotonic()
        while True:
            try:
                if self._session is None:
                    self._session = self._engine.connect()
                taken = bool(self._session.execute(text(_TAKE), {"name": self._name}).scalar())
                if taken:
                    self._session.execute(text(_STAY))
                    self._session.execute(text(_NAME), {"name": self._shown})
                else:
                    self._session.rollback()  # whoever waits keeps no session of a pooler
                return taken
            except DBAPIError as error:  # it is started again, say
                with suppress(Exception):
                    if self._session is not None:
                        self._session.invalidate()
                        self._session.close()
                self._session = None
                why = unavailable(error)
                if not isinstance(why, AwayError) or time.monotonic() - away > PATIENCE_S:
                    raise why from None
                note(f"{first_line(why).rpartition(': ')[0]}: tried again for {PATIENCE_S / 60:g} minutes")
                time.sleep(self.look_s)

    def release(self) -> None:
        with suppress(Exception):  # the transaction ends, and the lock with it
            if self._session is not None:
                self._session.close()
        self._session = None
        self._engine.dispose()


def _prefix(root: Path) -> str:
    return f"headwater {short(root)} "


def _sessions(url: str, root: Path) -> set[str]:
    from sqlalchemy import text

    sessions = engine(url)
    try:
        with sessions.connect() as session:
            found = session.execute(text(_NAMES), {"prefix": f"{_prefix(root)}%"}).scalars().all()
    finally:
        sessions.dispose()
    return {name.removeprefix(_prefix(root)) for name in found}


# An object in a store -------------------------------------------------------------------------------------------------


class _ObjectLock:
    look_s = 0.5

    def __init__(self, path: Path):
        self._path = path
        self._mine: dict[str, Any] = {"holder": f"{socket.gethostname()} {os.getpid()} {uuid.uuid4().hex}", "beat": 0}
        self._seen: tuple[str, float] = "", time.monotonic()
        self._over, self._beating = threading.Event(), threading.Thread()

    def take(self) -> bool:
        if not write_first(self._path, json.dumps(self._mine).encode()):
            found = tag(self._path)
            if found != self._seen[0]:
                self._seen = found, time.monotonic()
                return False
            if not found or time.monotonic() - self._seen[1] <= GONE_S or not self._write_over(found):
                return False
        self._over = threading.Event()
        self._beating = threading.Thread(target=self._beat, name="lease", daemon=True)
        self._beating.start()
        return True

    def release(self) -> None:
        self._over.set()
        self._beating.join()
        with suppress(OSError, ValueError):
            if json.loads(self._path.read_bytes())["holder"] == self._mine["holder"]:
                self._path.unlink()

    def _beat(self) -> None:
        while not self._over.wait(BEAT_S):
            self._mine["beat"] = self._mine["beat"] + 1
            with suppress(OSError):  # a store that is away for a while: whoever waits can't ask it either
                found = tag(self._path)
                if found and json.loads(self._path.read_bytes()).get("holder") == self._mine["holder"]:
                    self._write_over(found)

    def _write_over(self, seen: str) -> bool:
        return write_over(self._path, json.dumps(self._mine).encode(), seen)


def _objects(folder: Path) -> set[str]:
    """The names of objects whose holders wrote them of late."""
    store, key = store_of(folder)
    try:
        listed = store.ls(key, detail=True)
    except FileNotFoundError:
        return set()
    found = set()
    for one in listed:
        name, changed = one["name"].rpartition("/")[2], one.get("LastModified") or one.get("mtime")
        if name.endswith(".json") and (changed is None or time.time() - changed.timestamp() < LEFT_S):
            found.add(name.removesuffix(".json"))
    return found
