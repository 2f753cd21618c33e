"""`run_alone`: one piece of work that takes all CPUs of the run, such as a training stage."""

from __future__ import annotations

import contextlib
import os
import sys
import time
from collections.abc import Callable
from typing import Any

from datalake.errors import UserError
from tasks.cluster.connect import aside, connect, require
from tasks.runtime import Runtime, RuntimeConfig

# So long an interrupted task may take to end its step and save its state; what takes longer is ended by force.
SAVING_S = 30.0


def run_alone(
    work: Callable[..., Any], *arguments: Any, runtime: Runtime, poll: Callable[[], None] | None = None
) -> Any:
    """Call `work(*arguments)` in one task that holds all of the run's CPUs; `poll` is called about once a second.

    Not retried here: such work keeps its own state for resuming, and the next run goes on from it. Where this process
    is interrupted, so is the work: it gets a KeyboardInterrupt, and some seconds to save its state.

    Raises:
        ClusterError: where Ray ends before the work does.
    """
    config = runtime.config
    if config.cluster == "inline":
        return work(*arguments)
    ray = connect(config)

    cpus = cpus_of_one(ray, config)

    def call(*values: Any) -> Any:
        # Ray fixes a process's threads when it starts; this one may have started for a task with a single CPU.
        os.environ["OMP_NUM_THREADS"] = str(cpus)
        torch = sys.modules.get("torch")
        if torch is not None:
            torch.set_num_threads(cpus)
        return work(*values)

    task = ray.remote(num_cpus=cpus, memory=int(config.memory_gb * (1 << 30)), max_retries=0)(call)
    return wait_for(task.remote(*arguments), ray, poll)


def cpus_of_one(ray: Any, config: RuntimeConfig) -> int:
    """The CPUs that one task has where it is to have all of the run's: it lives on one node, and no node has more than
    the largest one."""
    largest = max((int(node["Resources"].get("CPU", 0)) for node in ray.nodes() if node["Alive"]), default=1)
    return max(1, min(config.workers, largest))


def wait_for(reference: Any, ray: Any, poll: Callable[[], None] | None, end: Callable[[], None] | None = None) -> Any:
    """The result of a task, with `poll` called about once a second; where this process is interrupted, so is the task,
    or told to `end`; it has some seconds to save its state.

    Raises what the task raised, and ClusterError where Ray ends before it does.
    """
    try:
        while not aside(ray.wait, [reference], timeout=1.0)[0]:
            require(ray)
            if poll:
                poll()
        result = aside(ray.get, reference)
    except ray.exceptions.RayTaskError as error:
        if isinstance(error.cause, UserError):
            raise error.cause from None
        if isinstance(error.cause, Exception):
            raise error.cause from error  # the mistake itself; Ray's wrapping begins with where it ran
        raise
    except ray.exceptions.RayError:
        require(ray)
        raise
    except BaseException:
        with contextlib.suppress(Exception):
            end() if end else ray.cancel(reference, recursive=False)  # what it waits for it needs to end its step
            deadline = time.monotonic() + SAVING_S
            while time.monotonic() < deadline and not aside(ray.wait, [reference], timeout=1.0)[0]:
                pass
        with contextlib.suppress(Exception):
            ray.cancel(reference, force=True)
        raise
    if poll:
        poll()
    return result
