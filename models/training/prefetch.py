"""The batches of the next step, made in a thread while the device computes this one's.

For a GPU alone: on a CPU the thread would take the cores that compute. Batches lie in pinned memory, from which they
are copied while the device goes on.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

from models.training.device import pinned
from models.training.loop import Batches

Updates = list[Sequence[Any]]


@contextmanager
def prefetched(batches: Batches, steps: int, pin: bool = True) -> Iterator[Batches]:
    """The same batches, where they depend on the step alone; an error comes with the step it belongs to."""
    with ThreadPoolExecutor(1, "batches") as thread:
        made: dict[int, Future[Updates]] = {}

        def make(step: int) -> Updates:
            return [[pinned(batch) if pin else batch for batch in update] for update in batches(step)]

        def ahead(step: int) -> Updates:
            asked = made.pop(step, None) or thread.submit(make, step)
            made.clear()
            updates = asked.result()
            if step + 1 < steps:
                made[step + 1] = thread.submit(make, step + 1)
            return updates

        yield ahead
