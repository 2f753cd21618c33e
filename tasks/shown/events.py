"""What happens in a run as events with their place (run, corpus, stage, shard): for logs that programs read
(`HEADWATER_LOG=json`, `--log json`) and for Prometheus (`HEADWATER_METRICS=FOLDER`, see `tasks.shown.meters`).

With JSON logs every line on stderr is one object: an event with its fields, or, as `message`, a line that something
else printed there. Without either an event costs a comparison.
"""

from __future__ import annotations

import atexit
import json
import logging
import os
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any, TextIO

from datalake.printable import json_safe
from datalake.secrets import masked

LOG, METRICS = "HEADWATER_LOG", "HEADWATER_METRICS"

# One run a process; a thread that prints has no context of its own.
_place: dict[str, str] = {}


@contextmanager
def within(**place: str) -> Iterator[None]:
    """A context whose events have this place."""
    before = dict(_place)
    _place.update(place)
    try:
        yield
    finally:
        _place.clear()
        _place.update(before)


def tell(event: str, level: str = "info", **fields: Any) -> None:
    """Tell an event: on stderr where logs are JSON, and to the meters where there are some."""
    if structured():
        stream = sys.stderr
        if stream is not None:
            stream.write(line({"level": level, "event": event, **_place, **fields}))
            stream.flush()
    if os.environ.get(METRICS):
        from tasks.shown import meters

        meters.take(event, _place | fields, os.environ[METRICS])


def structured() -> bool:
    """Whether logs are JSON in this process."""
    return os.environ.get(LOG, "").lower() == "json"


def line(fields: Mapping[str, Any]) -> str:
    """An event as one line of JSON, its time first (UTC), without secrets. JSON has no NaN and no infinity: they are
    null, as a loss that diverged."""
    from datalake.lake.ledger import plain_value

    told = {"time": datetime.now(UTC).isoformat(timespec="milliseconds")} | masked(plain_value(dict(fields)))
    return json_safe(json.dumps(told, ensure_ascii=False)) + "\n"


class Lines:
    """A stream whose whole lines become objects, unless they are some already."""

    def __init__(self, stream: TextIO) -> None:
        self._stream, self._part = stream, ""
        self._lock = threading.RLock()

    def write(self, text: str) -> int:
        """Write what is whole of it."""
        with self._lock:  # of two threads at once neither loses what it says
            *whole, self._part = (self._part + text).split("\n")
            for one in whole:
                if one.strip():
                    self._stream.write(one + "\n" if _is_event(one) else line(_said(one)))
        return len(text)

    def flush(self) -> None:
        """Hand on what was written."""
        self._stream.flush()

    def end(self) -> None:
        """Write what lacks the end of its line, as the last words of a process may."""
        if self._part:
            self.write("\n")
            self.flush()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


class _Formatter(logging.Formatter):
    """A record of Python's logging as such an object."""

    def format(self, record: logging.LogRecord) -> str:
        fields = {"level": record.levelname.lower(), "event": "log", "logger": record.name, **_place}
        fields["message"] = record.getMessage()
        if record.exc_info:
            fields["traceback"] = self.formatException(record.exc_info)
        return line(fields).rstrip("\n")


def _is_event(text: str) -> bool:
    try:
        return text.startswith('{"time"') and isinstance(json.loads(text), dict)
    except ValueError:
        return False


def _said(text: str) -> dict[str, str]:
    return {"level": "info", "event": "line", **_place, "message": " ".join(text.split())}


def listen() -> None:
    """Where logs are to be JSON, make them so: stderr, and the handlers by which Prefect writes to it."""
    if not structured():
        return
    if sys.stderr is not None and not isinstance(sys.stderr, Lines):
        sys.stderr = lines = Lines(sys.stderr)
        atexit.register(lines.end)
    loggers = [logging.getLogger(name) for name in ("", "prefect", "prefect.flow_runs", "prefect.task_runs")]
    for handler in (handler for logger in loggers for handler in logger.handlers):
        if type(handler).__name__ == "PrefectConsoleHandler":
            handler.setFormatter(_Formatter())
