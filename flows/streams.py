"""Standard streams to rely on: open, able to show any text, and no reason to fail when nobody listens."""

from __future__ import annotations

import codecs
import contextlib
import io
import logging
import os
import sys
from collections.abc import Iterator
from typing import Any, TextIO


def steady() -> None:
    """Make the standard streams of this process ones that can be written to, whatever the shell gave it."""
    for number in range(3):
        _open(number)
    codecs.register_error("headwater.escape", escape)
    for name, number in (("stdout", 1), ("stderr", 2)):
        stream = getattr(sys, name)
        if stream is None:  # it was closed when Python started
            stream = open(number, "w", encoding="utf-8", buffering=1, closefd=False)  # noqa: SIM115
            setattr(sys, name, stream)
            setattr(sys, f"__{name}__", stream)
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="headwater.escape")


def _open(number: int) -> None:
    """Give a closed descriptor to the null device, lest the next file that is opened gets it and is printed into."""
    try:
        os.fstat(number)
    except OSError:
        null = os.open(os.devnull, os.O_RDWR)
        if null != number:
            os.dup2(null, number)
            os.close(null)


def escape(error: UnicodeError) -> tuple[str, int]:
    r"""What an encoding can't show, as `\uXXXX`: JSON that is printed stays JSON."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    text = error.object[error.start : error.end]
    units = text.encode("utf-16-be", "surrogatepass")
    return "".join(f"\\u{units[at]:02x}{units[at + 1]:02x}" for at in range(0, len(units), 2)), error.end


def silence(stream: TextIO) -> None:
    """Send what is still in a stream's buffer, and all that follows, nowhere; so too what native code writes there."""
    with contextlib.suppress(OSError, ValueError):
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, stream.fileno())
        os.close(null)


class Unheard:
    """A text stream that may lose its reader (`| head`, a terminal that closes): what is written then is lost.

    A run goes on without it: who looks for what was done finds it in the lake.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        """Write, or lose, some text."""
        with self._or_lost():
            self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        """Hand on what was written."""
        with self._or_lost():
            self._stream.flush()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    @contextlib.contextmanager
    def _or_lost(self) -> Iterator[None]:
        try:
            yield
        except OSError:
            silence(self._stream)


def unheard() -> None:
    """Let this process's streams lose their readers, and its logs what hears them, without a line about each record."""
    logging.raiseExceptions = False  # Prefect asks it too, of records that a server which is gone doesn't get
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if not isinstance(stream, Unheard):
            setattr(sys, name, Unheard(stream))
