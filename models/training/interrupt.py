"""A Ctrl-C, SIGTERM or SIGHUP between two steps: training saves where it stands before it ends.

A signal may come in the middle of an optimizer's update, when the weights belong to no step. Here it is noted and waits
until the step is done. Ray interrupts a cancelled task in the same way.
"""

from __future__ import annotations

import signal
from types import FrameType
from typing import Any

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)  # that end a run


class Interrupts:
    """The signals that end a run, kept back until `deliver` or `close`; does nothing outside the main thread."""

    def __init__(self) -> None:
        self.waiting: tuple[int, FrameType | None] | None = None
        self._before: dict[int, Any] = {}
        for number in SIGNALS:
            before = signal.getsignal(number)
            if not callable(before):  # ignored, or the system's own, which ends the process at once
                continue
            try:
                signal.signal(number, self._note)
            except ValueError:
                break
            self._before[number] = before

    def deliver(self) -> None:
        """Let the signal that waits do what it would have done; where there is none, another rank has got it."""
        if self.waiting is None:
            raise KeyboardInterrupt
        number, frame = self.waiting
        before = self._before[number]
        self.waiting = None
        self.close()
        before(number, frame)

    def close(self) -> None:
        """Put the former handlers back."""
        for number, handler in self._before.items():
            if signal.getsignal(number) == self._note:  # else someone has put another there since
                signal.signal(number, handler)

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.waiting = (number, frame)
