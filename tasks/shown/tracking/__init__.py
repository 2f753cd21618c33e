"""Other places that show a stage's curves while it trains: `runtime: {tracking: [tensorboard, mlflow, wandb]}`.

Whatever such a place does shapes nothing: it reads the metrics that a method writes, from outside, so it is no part of
an identity, and a failure of it ends no stage. One more is a file with a function `track(place, tracked)`, which
yields what writes a step, and a line in `TRACKERS`.
"""

from __future__ import annotations

import importlib
import importlib.util
import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from datalake.atomic import write_atomically
from datalake.errors import UserError, first_line
from datalake.lake.copies import workplace
from models.training.metrics import read_metrics

# By the name in a recipe: the package that has to be there, which is an extra of this one, and the module here.
TRACKERS = {
    "mlflow": ("mlflow", "tasks.shown.tracking.in_mlflow"),
    "tensorboard": ("tensorboard", "tasks.shown.tracking.in_tensorboard"),
    "wandb": ("wandb", "tasks.shown.tracking.in_wandb"),
}

PACKAGES = {"mlflow": "mlflow-skinny"}  # what is installed, where that is called otherwise

Write = Callable[[int, Mapping[str, float]], None]


class Tracked(NamedTuple):
    """A stage of a corpus by its fingerprint, and what it was set to, as plain values."""

    corpus: str
    stage: str
    fingerprint: str
    settings: Mapping[str, Any]

    @property
    def name(self) -> str:
        """For people, and another for another fingerprint."""
        return f"{self.corpus} {self.stage} {self.fingerprint[:8]}"


def known(names: Sequence[str]) -> Sequence[str]:
    """These names of trackers, each of which there is. Raises ValueError for another."""
    for name in names:
        if name not in TRACKERS:
            raise ValueError(f"no tracker {name!r}: choose among {', '.join(TRACKERS)}")
    return names


def required(names: Sequence[str]) -> None:
    """Raises UserError where the package of a tracker isn't installed."""
    for name in names:
        if importlib.util.find_spec(TRACKERS[name][0]) is None:
            wanted = f"pip install {PACKAGES.get(name, name)}, or leave it out"
            raise UserError(f"runtime.tracking names {name}, which isn't installed: {wanted}")


class Tracks:
    """Hands the steps of a stage's `metrics.jsonl` to its trackers, each step once.

    The last step that was handed on is kept beside the metrics, so that a run that goes on after a kill, or goes back
    to a state before, says no step twice.
    """

    def __init__(self, places: Mapping[str, Path], folder: Path, tracked: Tracked, say: Callable[[str], None]):
        self._metrics, self._mark, self._say = folder / "metrics.jsonl", folder / "tracked.json", say
        self._open = ExitStack()
        self._writes: dict[str, Write] = {}
        try:
            self._last: dict[str, int] = json.loads(self._mark.read_bytes())
        except (OSError, ValueError):
            self._last = {}
        for name, place in places.items():
            self._try(name, lambda name=name, place=place: self._begin(name, place, tracked))  # type: ignore[misc]

    def _begin(self, name: str, place: Path, tracked: Tracked) -> None:
        track: Callable[[Path, Tracked], AbstractContextManager[Write]] = importlib.import_module(
            TRACKERS[name][1]
        ).track
        here = self._open.enter_context(workplace(place, alone=False))
        self._writes[name] = self._open.enter_context(track(here, tracked))

    def look(self) -> None:
        """Hand on what is new."""
        if not self._writes:
            return
        rows = read_metrics(self._metrics)
        for name, write in list(self._writes.items()):
            new = [row for row in rows if row["step"] > self._last.get(name, 0)]
            if not new:
                continue
            self._last[name] = new[-1]["step"]
            self._try(name, lambda write=write, new=new: self._hand_on(write, new))  # type: ignore[misc]

    def _hand_on(self, write: Write, rows: Sequence[Mapping[str, Any]]) -> None:
        write_atomically(self._mark, json.dumps(self._last).encode())  # before: a step too few, not one twice
        for row in rows:
            write(
                int(row["step"]), {name: value for name, value in row.items() if name != "step" and value is not None}
            )

    def _try(self, name: str, work: Callable[[], None]) -> None:
        try:
            work()
        except Exception as error:
            self._writes.pop(name, None)
            self._say(f"{name} shows no more of this stage: {first_line(error)}")

    def close(self, error: BaseException | None = None) -> None:
        """All that was handed on is written; `error`: what the stage ended with."""
        try:
            self._open.__exit__(type(error) if error else None, error, error.__traceback__ if error else None)
        except Exception as wrong:
            self._say(f"a tracker didn't close: {first_line(wrong)}")


@contextmanager
def tracking(
    places: Mapping[str, Path], folder: Path, tracked: Tracked, say: Callable[[str], None]
) -> Iterator[Tracks]:
    """Trackers of a stage that writes its metrics into `folder`, by name, each with the folder of what it keeps."""
    required(list(places))
    tracks = Tracks(places, folder, tracked, say)
    try:
        yield tracks
        tracks.look()
    except BaseException as error:
        tracks.close(error)
        raise
    tracks.close()


def address(variable: str, otherwise: str) -> str:
    """Where a tracker of another service writes: as its own environment variable says, else within the lake."""
    return os.environ.get(variable) or otherwise
