"""Processes that outlive the command that starts them: the Prefect server and the worker of a lake.

A daemon is found by two variables in its environment (its lake and its role), not by a file that can be lost or stale.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from flows.service.environment import unowned
from flows.service.login import place_of

if TYPE_CHECKING:
    import psutil

LAKE = "HEADWATER_SERVICE_LAKE"
ROLE = "HEADWATER_SERVICE_ROLE"

# A run that is told to end writes down its state and ends its Ray cluster; that takes it some seconds.
GRACE_S = 8.0


def spawn(role: str, lake: Path, command: Sequence[str], environment: Mapping[str, str]) -> int:
    """Start a daemon in a session of its own, its output appended to `<lake>/prefect/<role>.log`; returns its pid."""
    folder = place_of(lake)
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / f"{role}.log").open("ab") as log:
        process = subprocess.Popen(
            list(command),
            cwd=folder,
            env=unowned(environment) | {LAKE: str(lake), ROLE: role},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    return process.pid


def find(role: str, lake: Path) -> list[psutil.Process]:
    """The daemons of a role in a lake (one, or none), without what they started."""
    import psutil

    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            environment = process.environ()
            if (
                environment.get(LAKE) == str(lake)
                and environment.get(ROLE) == role
                and os.getsid(process.pid) == process.pid
                and role in process.cmdline()
                and process.status() != psutil.STATUS_ZOMBIE
            ):
                found.append(process)
    return found


def runs(lake: Path) -> list[psutil.Process]:
    """The processes of flow runs that a worker of this lake started, be it alive or not."""
    import psutil

    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            environment = process.environ()
            if environment.get(LAKE) == str(lake) and "PREFECT__FLOW_RUN_ID" in environment:
                found.append(process)
    return found


def end(processes: Sequence[psutil.Process], grace_s: float = GRACE_S) -> list[int]:
    """End processes, then all they started, politely first; returns the pids of those named."""
    import psutil

    family: list[psutil.Process] = []
    for process in processes:
        with contextlib.suppress(psutil.Error):
            family += process.children(recursive=True)
    left: list[psutil.Process] = []
    for group in (processes, family):
        for process in group:
            with contextlib.suppress(psutil.Error):
                process.terminate()
        left += psutil.wait_procs(group, timeout=grace_s)[1]
    for process in left:
        with contextlib.suppress(psutil.Error):
            process.kill()
    psutil.wait_procs(left, timeout=5)
    return [process.pid for process in processes]
