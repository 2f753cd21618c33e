"""A line every half minute for whoever follows a run through a pipe or in a file, where a bar can't be drawn."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from datalake.printable import one_line, write
from tasks.shown.events import structured

EVERY_S = 30.0


@contextmanager
def pulse(status: Callable[[], str], every_s: float = EVERY_S) -> Iterator[None]:
    """Print what `status` says on stderr every `every_s` seconds, unless that is a terminal, or logs are JSON, which
    tell more."""
    if sys.stderr is None or sys.stderr.isatty() or structured():
        yield
        return
    ended = threading.Event()

    def beat() -> None:
        while not ended.wait(every_s):
            try:
                write(f"  {one_line(status())}", sys.stderr)
            except (OSError, ValueError):  # nobody listens any more
                return

    thread = threading.Thread(target=beat, name="pulse", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
