"""A Ray cluster with its job server, apart from the suite's: one that outlives the runs that use it."""

from __future__ import annotations

import contextlib
import os
import secrets
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest
from harness import ROOT, free_port

from tasks.cluster.job_server import Away
from tasks.cluster.ray_jobs import RayJobServer


@dataclass
class Head:
    """Where it is, and the token that its clients must have."""

    address: str
    token: str
    process: subprocess.Popen[bytes]
    port: int
    folder: Path

    @property
    def environment(self) -> dict[str, str]:
        return {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": self.token}

    def jobs(self) -> RayJobServer:
        return RayJobServer(self.address)

    def kill(self) -> None:
        """All of it at once, as where the machine goes."""
        family = [one for one in psutil.process_iter() if _of(one, self.process.pid, self.folder)]
        for one in family:
            with contextlib.suppress(psutil.Error):
                one.send_signal(signal.SIGKILL)
        psutil.wait_procs(family, timeout=30)


def _of(process: psutil.Process, leader: int, folder: Path) -> bool:
    with contextlib.suppress(psutil.Error, OSError):
        return os.getsid(process.pid) == leader or str(folder) in " ".join(process.cmdline())
    return False


# Ray's own command, with the time that a node needs to come up on a busy machine.
_RAY = """
import ray
from ray.scripts.scripts import main
from tasks.cluster.connect import _patience
with _patience(ray):
    main()
"""


def start_head(port: int = 0, dashboard: int = 0, token: str = "", cpus: int = 2) -> Head:
    """Start one and wait until it takes jobs. What it starts sees this checkout."""
    token = token or secrets.token_hex(32)
    for _ in range(3):
        head = _begun(port or free_port(), dashboard or free_port(), token, cpus)
        try:
            if _up(head):
                return head
        except BaseException:
            head.kill()
            raise
        head.kill()
    raise AssertionError((head.folder / "start.log").read_text())


def _begun(port: int, dashboard: int, token: str, cpus: int) -> Head:
    folder = Path(tempfile.mkdtemp(prefix="hw", dir="/tmp"))  # sockets want a short path
    command = [
        sys.executable, "-c", _RAY, "start", "--head", "--block", "--port", str(port),
        "--dashboard-port", str(dashboard), "--include-dashboard", "true", "--num-cpus", str(cpus),
        "--object-store-memory", str(100 << 20),
        "--temp-dir", str(folder), "--disable-usage-stats", "--ray-client-server-port", str(free_port()),
        "--dashboard-agent-listen-port", str(free_port()),
    ]  # fmt: skip
    others = ("RAY_", "PREFECT_", "HEADWATER_")
    ours = {name: value for name, value in os.environ.items() if not name.startswith(others)}
    with (folder / "start.log").open("wb") as log:
        process = subprocess.Popen(
            command,
            stdout=log,
            stderr=subprocess.STDOUT,
            cwd=ROOT,
            env=ours
            | {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": token, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"}
            | {"RAY_worker_niceness": "0"},  # else its workers wait for every other program of the machine
            start_new_session=True,
        )
    return Head(f"http://127.0.0.1:{dashboard}", token, process, port, folder)


def _up(head: Head) -> bool:
    deadline = time.monotonic() + 120
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_AUTH_TOKEN", head.token)
        while head.process.poll() is None and time.monotonic() < deadline:
            with contextlib.suppress(Away):
                head.jobs().state("none")
                if "Ray runtime started" in (head.folder / "start.log").read_text():
                    return True
            time.sleep(0.2)
    return False


@contextmanager
def ray_head() -> Iterator[Head]:
    head = start_head()
    try:
        yield head
    finally:
        head.kill()
