"""Curves for TensorBoard: `tensorboard --logdir LAKE/tracking/tensorboard`. Torch isn't loaded for them."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from tasks.shown.tracking import Tracked, Write


@contextmanager
def track(place: Path, tracked: Tracked) -> Iterator[Write]:
    """A folder of events for each stage; a run that goes on writes another file into it."""
    from tensorboard.compat.proto.event_pb2 import Event
    from tensorboard.compat.proto.summary_pb2 import Summary
    from tensorboard.summary.writer.event_file_writer import EventFileWriter

    writer = EventFileWriter(str(place / tracked.name))

    def write(step: int, figures: Mapping[str, float]) -> None:
        values = [Summary.Value(tag=name, simple_value=value) for name, value in figures.items()]
        writer.add_event(Event(wall_time=time.time(), step=step, summary=Summary(value=values)))
        writer.flush()

    try:
        yield write
    finally:
        writer.close()
