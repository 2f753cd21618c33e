"""How a run ends before its time: told by a signal, or because something that it rests on is gone.

The first Ctrl-C, SIGTERM or SIGHUP ends it in order: training saves its state, Ray's tasks are cancelled, the processes
that the run started are ended. The second Ctrl-C, or an end that takes too long, ends all of them at once. Either way
the lake is whole: what was finished is kept, and the same command goes on from it.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from types import FrameType, TracebackType

from datalake.errors import UserError
from flows.output import note
from flows.service.environment import end_own
from flows.streams import unheard
from models.training.interrupt import SIGNALS

GRACE_S = 7.0
TWICE_S = 0.5  # `timeout` sends its signal to the process and to its group: that is one signal, not two
AGAIN = "the same command goes on from what is finished"


class Ending:
    """A context in which signals end the run; `report` gets exit status and reason where it is ended at once.

    `status` and `reason` say how the run was ended: 130, 143 or 129 by a signal, 1 by a loss, and 0 where nothing did.
    Only the main thread can enter it. A signal that the command was told to ignore (`nohup`) stays ignored.
    """

    def __init__(self, report: Callable[[int, str], object]) -> None:
        self.status, self.reason = 0, ""
        self._report = report
        self._lock = threading.RLock()  # a handler may come upon itself
        self._raised = False
        self._over = threading.Event()
        self._before: dict[int, object] = {}

    def __enter__(self) -> Ending:
        global _current
        read, self._told = os.pipe()
        os.set_blocking(self._told, False)
        # Signals reach this pipe also while the main thread is held by native code, where no handler of Python's runs.
        self._pipe = signal.set_wakeup_fd(self._told, warn_on_full_buffer=False)
        self._before = {number: signal.getsignal(number) for number in SIGNALS}
        _current = self
        self.listen()
        threading.Thread(target=self._watch, args=(read,), name="signals", daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        global _current
        _current = None
        self._over.set()
        for number, handler in self._before.items():
            signal.signal(number, handler)  # type: ignore[arg-type]
        signal.set_wakeup_fd(self._pipe)
        os.close(self._told)

    def listen(self) -> None:
        """Handle the signals, also where a library has put its own handlers there."""
        for number, before in self._before.items():
            if before is not signal.SIG_IGN:
                signal.signal(number, self._interrupt)

    def lose(self, reason: str) -> None:
        """End the run from any thread: something that it rests on is gone."""
        self._begin(1, reason)
        if not self._over.is_set():
            signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)

    def leave(self) -> None:
        """End this process: all is said and done, and what libraries still do at an exit may take them a minute."""
        self._over.set()
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        os._exit(self.status)

    def _begin(self, status: int, reason: str) -> None:
        with self._lock:
            if not self.reason:
                self.status, self.reason = status, reason
                late = threading.Timer(GRACE_S, self._at_once)
                late.daemon = True
                late.start()

    def _interrupt(self, number: int, frame: FrameType | None) -> None:
        """In the main thread, once: what follows is up to those who clean up behind themselves."""
        self._begin(128 + number, "interrupted")
        if not self._raised:
            self._raised = True
            raise KeyboardInterrupt

    def _watch(self, pipe: int) -> None:
        first = 0.0
        with os.fdopen(pipe, "rb", buffering=0) as told:
            while byte := told.read(1):
                if byte[0] not in SIGNALS or self._over.is_set():
                    continue
                if not first:
                    first = time.monotonic()
                    self._begin(128 + byte[0], "interrupted")
                elif byte[0] == signal.SIGINT and time.monotonic() - first > TWICE_S:
                    self._at_once()

    def _at_once(self) -> None:
        """End everything now: the main thread may hang in native code and never come back."""
        if self._over.is_set():
            return
        with contextlib.suppress(Exception):
            self._report(self.status, f"{self.reason}; {AGAIN}")
        with contextlib.suppress(Exception):
            end_own()
        os._exit(self.status)


def told(status: int, failure: str) -> int:
    """Say a failure in one line; returns the status."""
    if failure:
        note(failure)
    return status


def in_order(body: Callable[[Ending], tuple[int, str]], end: Callable[[int, str], int] = told) -> int:
    """Call what gives a command's exit status and failure, then `end` with both, however it ended; returns the status.

    Where a signal or a loss ended it, this process is left as soon as that is said. The streams may lose their readers.

    Raises:
        UserError: of `body`, unless it was ended.
    """
    unheard()
    with Ending(end) as ending:
        try:
            status, failure = body(ending)
        except KeyboardInterrupt:
            status, failure = 130, AGAIN
        except UserError:
            if not ending.status:
                raise
        if ending.status:  # also where a library took the interruption for a failure of its own, or for nothing
            end(ending.status, f"{ending.reason}; {AGAIN}")
            ending.leave()
        return end(status, failure)


_current: Ending | None = None


def listen() -> None:
    """Put the run's own handlers back, inside something that put its own there: Prefect's flows, Ray's start."""
    if _current is not None and threading.current_thread() is threading.main_thread():
        _current.listen()
