"""The Prefect server that a run talks to: one that was there, or, where none is up, one that starts and ends with it.

The latter is ours and not Prefect's own temporary server, for three reasons: it is in a session of its own, so that a
Ctrl-C meant for the run doesn't end it first; its port belongs to the run, so that one that was killed is started again
while the run's requests wait; and it starts while the run imports its packages.
"""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType

from flows.service.api import Api
from flows.service.database import set_aside_damaged
from flows.service.environment import listens, settings
from flows.service.login import place_of

HOST = "127.0.0.1"
START_S = 180.0  # it needs about 10 s; a busy machine several times that
RESTARTS = 3
GONE_S = 10.0  # so long nothing listens where a server did: it won't come back by itself


class ServerError(RuntimeError):
    """The server of a run didn't start; the message says what and where to look."""


class LastingServer:
    """A context that watches a server which isn't the run's own; `lost` is called where nothing listens there any more.

    Else each request would be tried again for a minute, and a run makes one every second.
    """

    def __init__(self, url: str, lost: Callable[[str], None]) -> None:
        self.url, self.lost = url, lost
        self._closing = threading.Event()

    def __enter__(self) -> LastingServer:
        threading.Thread(target=self._watch, name="prefect-server", daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._closing.set()

    def wait(self) -> None:
        """It was there before the run."""

    def _watch(self) -> None:
        heard = time.monotonic()
        while not self._closing.wait(1.0):
            if listens(self.url):
                heard = time.monotonic()
            elif time.monotonic() - heard > GONE_S:
                self.lost(f"the Prefect server at {self.url.removesuffix('/api')} is gone (`headwater up` starts one)")
                return


class TemporaryServer:
    """A context that gives this process's environment a Prefect server; `lost` is called where it ends for good.

    `say` gets a line for people. Entering starts the server and doesn't wait: `wait` does.
    """

    def __init__(self, lake: Path, say: Callable[[str], None], lost: Callable[[str], None]) -> None:
        self.lake, self.say, self.lost = lake, say, lost
        self.log = place_of(lake) / "temporary.log"
        self._closing = threading.Event()
        self._watcher: threading.Thread | None = None
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> TemporaryServer:
        told = set_aside_damaged(self.lake)
        if told:
            self.say(told)
        self._socket = socket.create_server((HOST, 0), backlog=512)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # what it accepts inherits this
        self.url = f"http://{HOST}:{self._socket.getsockname()[1]}/api"
        os.environ["PREFECT_API_URL"] = self.url
        self.log.write_bytes(b"")
        self._start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._closing.set()
        _drain(2.0 if kind else 10.0)
        process = self._process
        if process is not None:
            process.terminate()
            try:
                process.wait(timeout=2)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        if self._watcher is not None:
            self._watcher.join(timeout=5)
        self._socket.close()

    def wait(self) -> None:
        """Wait until the server answers; from then on one that ends is started again.

        Raises:
            ServerError: where it ends, or doesn't answer in time.
        """
        deadline = time.monotonic() + START_S
        while not self._answers():
            ended = self._process is None or self._process.poll() is not None
            if ended or time.monotonic() > deadline:
                what = "ended" if ended else "doesn't answer"
                raise ServerError(f"the run's Prefect server {what}: {self._last_line()} (see {self.log})")
        self._watcher = threading.Thread(target=self._watch, name="prefect-server", daemon=True)
        self._watcher.start()

    def _start(self) -> None:
        command = [sys.executable, "-P", "-m", "flows.service", "server", "--fd", str(self._socket.fileno())]
        # The lake's own database, also where a team's server has another.
        own = {n: v for n, v in os.environ.items() if n.upper() != "PREFECT_SERVER_DATABASE_CONNECTION_URL"}
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                command,
                cwd=self.log.parent,  # where no .env, prefect.toml or pyproject.toml of another project lies
                env={**own, **settings(self.lake), "PREFECT_UI_ENABLED": "0"},
                pass_fds=[self._socket.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def _watch(self) -> None:
        for left in reversed(range(RESTARTS + 1)):
            assert self._process is not None
            status = self._process.wait()
            if self._closing.is_set():
                return
            how = f"signal {-status}" if status < 0 else f"exit status {status}"
            if not left:
                self.lost(f"the run's Prefect server ended again and again ({how}; see {self.log})")
                return
            self.say(
                f"the run's Prefect server ended ({how}) and is started again: what it was told last may be missing "
                "in the UI's history, in the lake nothing is"
            )
            told = set_aside_damaged(self.lake)
            if told:
                self.say(told)
            self._start()

    def _answers(self) -> bool:
        """Whether the server answers; before it listens, a request waits at the port."""
        return Api(self.url, os.environ["PREFECT_API_AUTH_STRING"]).status(timeout_s=5.0) == 200

    def _last_line(self) -> str:
        lines = [line.strip() for line in self.log.read_text(errors="replace").splitlines() if line.strip()]
        return lines[-1] if lines else "it said nothing"


def _drain(seconds: float) -> None:
    """Hand the server what Prefect still holds back of logs and events."""

    def drain() -> None:
        for module, name in (("prefect.logging.handlers", "APILogWorker"), ("prefect.events.worker", "EventsWorker")):
            with contextlib.suppress(Exception):
                if module in sys.modules:
                    getattr(sys.modules[module], name).drain_all(timeout=seconds)

    # Where an event loop runs, as in a notebook, Prefect would give a coroutine: in a thread of its own there is none.
    thread = threading.Thread(target=drain, name="prefect-drain")
    thread.start()
    thread.join()
