"""`map_shards`: a bounded window of plain Ray tasks over shards, in any order of completion.

Finished shards are found by their folder's `shard.json` and cost nothing. A shard that raises, dies or overruns its
time is tried again and at last reported as failed; the others go on. Nothing but small results travels through Ray, and
no more shards than the window holds are asked for ahead of time: the driver's memory doesn't grow with their number.
"""

from __future__ import annotations

import contextlib
import faulthandler
import math
import sys
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

from datalake import secrets
from datalake.errors import UserError
from datalake.lake.shards import ShardResult, find_shard
from datalake.places import several
from tasks.cluster.connect import aside, connect, require
from tasks.runtime import Runtime, RuntimeConfig

Work = Callable[["Shard"], ShardResult | None]


@dataclass(frozen=True)
class Shard:
    """One piece of work: a readable name, its key, what the work function needs, where its files go (if it has any)."""

    name: str
    key: str
    payload: Any = None
    folder: Path | None = None


@dataclass
class _Try:
    """A shard on its way: which attempt this is and when it was handed over."""

    shard: Shard
    attempt: int = 0
    submitted: float = 0.0

    def failed(self, reason: str) -> ShardResult:
        return ShardResult(self.shard.name, self.shard.key, state="failed", error=reason)


def map_shards(
    work: Work,
    shards: Iterable[Shard],
    runtime: Runtime,
    progress: Callable[[ShardResult], None] | None = None,
    on_gpus: bool = False,
) -> Iterator[ShardResult]:
    """Run `work` on every shard and yield results as they come; a shard finished earlier is yielded as `found`.

    `work` must be importable on the workers (a module-level function or a `functools.partial` of one). A `UserError` it
    raises ends the whole map; any other failure is retried `runtime.config.retries` times, then yielded as `failed`.
    The end of Ray itself ends the map with a ClusterError: shards on their way haven't failed, the next run does them.
    With `on_gpus`, workers share the GPUs of the cluster, if it has any: Ray hides them from work that asks for none.
    """
    todo = _Todo(shards, runtime.lake_root)
    inline = runtime.config.cluster == "inline"
    run = _run_inline(work, todo, runtime.config) if inline else _run_on_ray(work, todo, runtime.config, on_gpus)
    for result in run:
        if progress:
            progress(result)
        yield result


class _Todo:
    """Shards to work on, asked for one at a time; those to be tried again come after the others."""

    def __init__(self, shards: Iterable[Shard], lake: Path):
        self._looked: Iterator[ShardResult | _Try] = several(_look, shards, lake)
        self._again: deque[_Try] = deque()

    def put_back(self, flight: _Try) -> None:
        self._looked = chain([flight], self._looked)

    def again(self, flight: _Try) -> None:
        self._again.append(flight)

    def next(self) -> ShardResult | _Try | None:
        """The next shard to be worked on, or what an earlier run made of it; None where there is none just now."""
        found = next(self._looked, None)
        return self._again.popleft() if found is None and self._again else found


def _look(shard: Shard) -> ShardResult | _Try:
    return (find_shard(shard.folder) if shard.folder is not None else None) or _Try(shard)


def _timed(work: Work, shard: Shard) -> ShardResult:
    start = time.perf_counter()
    return work(shard) or ShardResult(shard.name, shard.key, seconds=time.perf_counter() - start)


def _one_line(error: BaseException) -> str:
    text = secrets.masked(str(error).strip())
    return f"{type(error).__name__}: {text.splitlines()[-1] if text else 'no message'}"


def _run_inline(work: Work, todo: _Todo, config: RuntimeConfig) -> Iterator[ShardResult]:
    while (flight := todo.next()) is not None:
        if isinstance(flight, ShardResult):
            yield flight
            continue
        try:
            result = _timed(work, flight.shard)
        except UserError:
            raise
        except Exception as error:
            flight.attempt += 1
            if flight.attempt <= config.retries:
                todo.again(flight)
                continue
            result = flight.failed(_one_line(error))
        yield result


def gpu_share(gpus: float, workers: int) -> float:
    """The part of a GPU that each worker asks for, so that all of them fit; in the steps of 1/10,000 that Ray has."""
    return min(1.0, math.floor(10_000 * gpus / workers) / 10_000)


def _run_on_ray(work: Work, todo: _Todo, config: RuntimeConfig, on_gpus: bool) -> Iterator[ShardResult]:
    while isinstance(flight := todo.next(), ShardResult):  # where everything is finished, no Ray is started
        yield flight
    if flight is None:
        return
    todo.put_back(flight)
    ray = connect(config)
    limit, hidden = config.shard_seconds, secrets.known()

    def call(shard: Shard) -> ShardResult:
        secrets.remember(hidden)
        if limit:
            # A watchdog in C: it ends the process even while native code holds the interpreter.
            faulthandler.dump_traceback_later(limit, exit=True, file=sys.__stderr__ or 2)
        try:
            return _timed(work, shard)
        finally:
            if limit:
                faulthandler.cancel_dump_traceback_later()

    memory = int(config.memory_gb * (1 << 30) / config.workers)
    share = gpu_share(ray.cluster_resources().get("GPU", 0), config.workers) if on_gpus else 0
    task = ray.remote(num_cpus=1, num_gpus=share, memory=memory, max_retries=0)(call)
    flights: dict[Any, _Try] = {}
    try:
        while True:
            while len(flights) < config.window * config.workers and (flight := todo.next()) is not None:
                if isinstance(flight, ShardResult):
                    yield flight
                    continue
                flight.submitted = time.perf_counter()
                flights[task.remote(flight.shard)] = flight
            if not flights:
                return
            ready, rest = aside(ray.wait, list(flights), num_returns=1, timeout=1.0)
            if not ready:
                require(ray)
                continue
            ready += aside(ray.wait, rest, num_returns=len(rest), timeout=0)[0] if rest else []
            try:
                # One round trip for all that are there; where one of them failed, each is asked for by itself below.
                results = aside(ray.get, ready)
            except ray.exceptions.RayError:
                require(ray)
            else:
                for reference in ready:
                    del flights[reference]
                yield from results
                continue
            for reference in ready:
                flight = flights.pop(reference)
                try:
                    yield aside(ray.get, reference)
                    continue
                except ray.exceptions.RayTaskError as error:
                    if isinstance(error.cause, UserError):
                        raise error.cause from None
                    reason = _one_line(error.cause)
                except ray.exceptions.OutOfMemoryError:
                    reason = "out of memory: raise runtime.memory_gb or lower runtime.workers"
                except ray.exceptions.RayError as error:
                    over = limit is not None and time.perf_counter() - flight.submitted >= limit
                    reason = f"over its time limit of {limit:g} s" if over else f"its worker died ({_one_line(error)})"
                flight.attempt += 1
                if flight.attempt <= config.retries:
                    todo.again(flight)
                else:
                    yield flight.failed(reason)
    finally:
        with contextlib.suppress(Exception):
            for reference in flights:
                ray.cancel(reference, force=True)
