"""How many connections and requests go out at once, bounded over all processes of a machine.

A connection is a slot: one of N files, locked while the connection is open. The pace of a host is a file with the time
from which its next request may go. Locks end with their process, so a kill leaves no slot taken.
"""

from __future__ import annotations

import hashlib
import random
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from datalake.remote.config import RemoteConfig

_POLL = 0.005  # seconds between looks for a free slot, doubled up to 0.1
_FARTHEST = 3_600.0  # a next time further ahead than this was written under another clock


class Limits:
    """The bounds of one folder: all processes that name it share them."""

    def __init__(self, folder: Path, config: RemoteConfig):
        self._folder = folder
        self._config = config
        self._lock = threading.Lock()
        self._own: dict[str, threading.Semaphore] = {}
        folder.mkdir(parents=True, exist_ok=True)

    @contextmanager
    def connection(self, host: str) -> Iterator[None]:
        """Hold a connection to a host; waits for its turn, and for the host's pace before each request on it."""
        name = hashlib.sha256(host.encode()).hexdigest()[:16]
        with (
            self._slot(f"host-{name}", self._config.connections_per_host),
            self._slot("all", self._config.connections),
        ):
            self.pace(host)
            yield

    @contextmanager
    def _slot(self, name: str, amount: int) -> Iterator[None]:
        """Hold one of so many. Threads of a process queue among themselves, so that only processes have to look again
        and again."""
        with self._lock:
            own = self._own.setdefault(name, threading.Semaphore(amount))
        with own, self._file_slot(name, amount):
            yield

    @contextmanager
    def _file_slot(self, name: str, amount: int) -> Iterator[None]:
        wait = _POLL
        while True:
            first = random.randrange(amount)
            for number in range(amount):
                lock = FileLock(self._folder / f"{name}-{(first + number) % amount}.lock", thread_local=False)
                try:
                    lock.acquire(blocking=False)
                except Timeout:
                    continue
                try:
                    yield
                finally:
                    lock.release()
                return
            time.sleep(wait * random.uniform(0.5, 1))
            wait = min(2 * wait, 0.1)

    def pace(self, host: str) -> None:
        """Wait until the next request to a host may go."""
        wait = self._reserve(host, 1 / self._config.requests_per_second, 0)
        if wait > 0:
            time.sleep(wait)

    def hold(self, host: str, seconds: float) -> None:
        """Let no request go to a host for some time: it asked for that."""
        self._reserve(host, 0, min(seconds, self._config.longest_wait_seconds))

    def _reserve(self, host: str, takes: float, least: float) -> float:
        """Take the next turn, which lasts `takes` seconds and begins in `least` at the earliest; seconds until then."""
        name = hashlib.sha256(host.encode()).hexdigest()[:16]
        place = self._folder / f"pace-{name}"
        with FileLock(f"{place}.lock", thread_local=False):
            now = time.time()
            try:
                turn = float(place.read_text())
            except (FileNotFoundError, ValueError):
                turn = 0.0
            if turn - now > _FARTHEST:
                turn = 0.0
            turn = max(turn, now + least)
            place.write_text(repr(turn + takes))
        return turn - now
