"""Through a pipe a run says how far it is, again and again; at a terminal the bar does."""

from __future__ import annotations

import io
import itertools
import re
import sys
import threading
from typing import Any

import pytest

from tasks.shown import artifacts, pulse


class Written(io.StringIO):
    """A stream that tells when it has so many lines."""

    def __init__(self, lines: int = 3, terminal: bool = False):
        super().__init__()
        self.enough, self.lines, self.terminal = threading.Event(), lines, terminal

    def isatty(self) -> bool:
        return self.terminal

    def write(self, text: str) -> int:
        done = super().write(text)
        if self.getvalue().count("\n") >= self.lines:
            self.enough.set()
        return done


def listen(monkeypatch: pytest.MonkeyPatch) -> Written:
    written = Written()
    monkeypatch.setattr(sys, "stderr", written)
    return written


def test_lines_come_while_the_work_goes_on_and_stop_with_it(monkeypatch: pytest.MonkeyPatch) -> None:
    stderr = listen(monkeypatch)
    steps = itertools.count()
    with pulse.pulse(lambda: f"step {next(steps)} \x1b[2J\n", 0.01):
        assert stderr.enough.wait(60)
    told = stderr.getvalue()
    assert told.startswith("  step 0 \\x1b[2J\n  step 1 \\x1b[2J\n")
    assert not [thread for thread in threading.enumerate() if thread.name == "pulse"]


def test_shards_and_steps_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    stderr = listen(monkeypatch)
    monkeypatch.setattr(artifacts, "pulse", lambda status: pulse.pulse(status, 0.01))
    with artifacts.progress("ingest", 40) as shown:
        shown.at(7, note="slow [/x]\n")
        assert stderr.enough.wait(60)
    assert re.search(r"ingest: 7 of 40 shards, \d+ s slow \[/x\]", stderr.getvalue())
    stderr = listen(monkeypatch)
    with artifacts.progress("pretrain", 300, "steps") as shown:
        shown.look = lambda: (12, "loss 4.000")
        assert stderr.enough.wait(60)
    assert re.search(r"pretrain: 12 of 300 steps, \d+ s loss 4.000\n", stderr.getvalue())


@pytest.mark.parametrize("stream", [Written(terminal=True), None])
def test_a_terminal_and_a_closed_stream_get_none(monkeypatch: pytest.MonkeyPatch, stream: Any) -> None:
    monkeypatch.setattr(sys, "stderr", stream)
    with pulse.pulse(lambda: "never", 0.0):
        assert not [thread for thread in threading.enumerate() if thread.name == "pulse"]
    monkeypatch.setattr(sys, "stderr", None)
    with artifacts.progress("ingest", 1) as shown:
        shown.at(1)


def test_a_reader_that_goes_away_ends_the_lines_and_not_the_work(monkeypatch: pytest.MonkeyPatch) -> None:
    class Gone(Written):
        def write(self, text: str) -> int:
            self.enough.set()
            raise BrokenPipeError

    gone = Gone()
    monkeypatch.setattr(sys, "stderr", gone)
    with pulse.pulse(lambda: "said to nobody", 0.01):
        assert gone.enough.wait(60)
