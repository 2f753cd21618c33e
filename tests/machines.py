"""Machines that share nothing but a network, and a Ray cluster of them.

Each is a pair of Linux namespaces: of mounts, so that its disk, its shared memory and what it lacks are its own, and of
processes, so that it sees no others and goes as a whole. `unshare` makes them where this user may.
"""

from __future__ import annotations

import contextlib
import inspect
import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import psutil
import pytest
from harness import ROOT, free_port
from stores import BUCKET, CREDENTIALS, wait_until

from datalake.compiled import _places
from tasks.cluster.connect import _patience

PACKAGES = ("datalake", "models", "tasks", "flows")
DISK_BYTES = 256 << 20  # of a machine's own cache
UP_S = 60.0  # for a node to come up; one that doesn't is begun anew

# Its own disk at $1, with a cache at $2 of $3 bytes; nothing at the places that follow.
_BOOT = """
set -e
own=$1 cache=$2 size=$3; shift 3
mount -t tmpfs tmpfs /dev/shm
mount -t tmpfs -o mode=755 tmpfs "$own"
mkdir "$cache" "$own/ray" "$own/home"
mount -t tmpfs -o size="$size" tmpfs "$cache"
for hidden; do mount -t tmpfs tmpfs "$hidden"; done
trap "" CHLD
echo up
exec sleep infinity
"""


# Ray's own command, with the time that a node needs to come up on a busy machine. A node has none of our code.
_RAY = f"""
from __future__ import annotations
import contextlib, time
import ray
from ray.scripts.scripts import main
START_S = {UP_S}
{inspect.getsource(_patience)}
with _patience(ray):
    main()
"""


def require_namespaces() -> None:
    """Skip where no machines can be made."""
    if not shutil.which("unshare") or not shutil.which("nsenter"):
        pytest.skip("no unshare and nsenter here: apt-get install util-linux")
    tried = ["unshare", "--mount", "--pid", "--fork", "--mount-proc", "mount", "-t", "tmpfs", "tmpfs", "/dev/shm"]
    done = subprocess.run(tried, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"no namespaces for this user ({done.stderr.strip()}): run as root where mounts are allowed")


class Machine:
    """One of them. `own` is where its disk is, to itself; `hidden` are folders that are empty there. Each has its cache
    at another path, as where its user has another name."""

    def __init__(self, own: Path, hidden: Sequence[Path] = (), environment: Mapping[str, str] | None = None) -> None:
        cache = own / f"cache-{secrets.token_hex(2)}"
        here = {"PATH": os.environ["PATH"], "HOME": f"{own}/home", "HEADWATER_CACHE": str(cache), "LANG": "C.UTF-8"}
        self.environment = here | dict(environment or {})
        command = ["unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc", "sh", "-c", _BOOT, "sh"]
        self._kept = subprocess.Popen(
            [*command, str(own), str(cache), str(DISK_BYTES), *map(str, hidden)],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,  # where it says what it thinks of signals once its child was killed
            text=True,
        )
        assert self._kept.stdout is not None
        assert self._kept.stdout.readline() == "up\n"
        self._first = psutil.Process(self._kept.pid).children()[0]
        self.cache = Path(f"/proc/{self._first.pid}/root{cache}")  # its disk, as one sees it from here

    @property
    def within(self) -> list[str]:
        """What a command begins with to run there."""
        return ["nsenter", "--target", str(self._first.pid), "--mount", "--pid", "env", f"--chdir={ROOT}"]

    def begin(self, command: Sequence[str], log: Path) -> subprocess.Popen[bytes]:
        """Start a command there with the machine's environment and no other."""
        with log.open("wb") as stream:
            return subprocess.Popen(
                [*self.within, *command], stdout=stream, stderr=subprocess.STDOUT, env=self.environment
            )

    def processes(self) -> list[psutil.Process]:
        """What runs there."""
        place, found = _space(self._first.pid), []
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error, OSError):
                if _space(process.pid) == place:
                    found.append(process)
        return found

    def busy(self) -> list[psutil.Process]:
        """The workers of Ray there that are at work."""
        found = []
        for process in self.processes():
            with contextlib.suppress(psutil.Error, OSError, IndexError):
                if process.cmdline()[0].startswith("ray::call"):
                    found.append(process)
        return found

    def fill(self) -> None:
        """Leave no room on its disk."""
        with contextlib.suppress(OSError), (self.cache / "filler").open("wb", buffering=0) as stream:
            while True:
                stream.write(bytes(1 << 16))

    def empty(self) -> None:
        """Have room again."""
        (self.cache / "filler").unlink()

    @property
    def alive(self) -> bool:
        return self._kept.poll() is None

    def kill(self) -> None:
        """All of it at once, as where its power goes: the system ends the processes of a space with its first."""
        with contextlib.suppress(psutil.Error):
            self._first.send_signal(signal.SIGKILL)
        self._kept.wait(60)


def _space(pid: int) -> str:
    return str(Path(f"/proc/{pid}/ns/pid").readlink())


def code_places() -> list[Path]:
    """Where this machine has Headwater's own packages: this checkout, and what is installed."""
    found = {ROOT / name for name in PACKAGES}
    for name in PACKAGES:
        ask = f"import importlib.util; print((importlib.util.find_spec({name!r}) or exit()).origin)"
        clean = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
        told = subprocess.run(
            [sys.executable, "-c", ask], capture_output=True, text=True, check=True, cwd="/", env=clean
        )
        if told.stdout.strip():
            found.add(Path(told.stdout.strip()).parent)
    return sorted(found)


@dataclass
class Cluster:
    """Three nodes of Ray, the first of them its head, and the machine of whoever runs a recipe on them.

    That has the code and the inputs and offers no CPU; the nodes have neither, nor each other's disk.
    """

    inputs: Path
    store: str
    base: Path
    token: str = field(default_factory=lambda: secrets.token_hex(32))
    port: int = 0
    nodes: list[Machine] = field(default_factory=list)
    driver: Machine | None = None

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    @property
    def environment(self) -> dict[str, str]:
        """What a machine must have to reach the cluster and the store."""
        ray = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": self.token, "RAY_worker_niceness": "0"}
        kernels = {"NUMBA_CACHE_DIR": str(_places()[0])}  # compiled once, as for a package that is installed
        return CREDENTIALS | {"AWS_ENDPOINT_URL": self.store, "RAY_USAGE_STATS_ENABLED": "0"} | ray | kernels

    def up(self) -> None:
        """Make sure that all of it is there; what isn't is begun anew, with the head all of it."""
        if not self.nodes or not self.nodes[0].alive:
            self.down()
            self.port = free_port()
            self.nodes = [self._node(head=True)]
        self.nodes = [node for node in self.nodes if node.alive]
        while len(self.nodes) < 3:  # one after the other: Ray's node gives up where its agents are slow to come
            self.nodes.append(self._node())
        if self.driver is None or not self.driver.alive:
            self.driver = self._node(driver=True)

    def _node(self, head: bool = False, driver: bool = False) -> Machine:
        hidden = [] if driver else [*code_places(), self.inputs]
        for _ in range(5):
            machine = Machine(self.base, hidden, self.environment)
            if not driver:
                tried = [sys.executable, "-c", "import datalake.lake"]
                assert machine.begin(tried, self.base.parent / "tried.log").wait(60) == 1
            log = Path(tempfile.mkstemp(prefix="ray", suffix=".log", dir=self.base.parent)[1])
            where = ["--head", "--port", str(self.port), "--temp-dir", f"{self.base}/ray"]
            where += ["--ray-client-server-port", str(free_port()), "--include-dashboard", "false"]
            process = machine.begin(
                [
                    *(sys.executable, "-c", _RAY, "start", "--block", "--disable-usage-stats"),
                    *(where if head else ["--address", self.address]),
                    *("--num-cpus", "0" if driver else "1", "--object-store-memory", str(80 << 20)),
                    *("--dashboard-agent-listen-port", str(free_port())),
                ],
                log,
            )
            deadline = time.monotonic() + UP_S
            while process.poll() is None and time.monotonic() < deadline:
                if b"Ray runtime started" in log.read_bytes():
                    return machine
                time.sleep(0.1)
            machine.kill()
        raise AssertionError(log.read_text())

    def down(self) -> None:
        for machine in [*self.nodes, *([self.driver] if self.driver else [])]:
            machine.kill()
        self.nodes, self.driver = [], None


@contextmanager
def cluster(inputs: Path, store: str) -> Iterator[Cluster]:
    """A cluster that ends with the block; skips where no machines can be made."""
    require_namespaces()
    inputs.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="hw", dir="/tmp") as folder:  # sockets want a short path
        base = Path(folder) / "own"
        base.mkdir()
        made = Cluster(inputs, store, base)
        try:
            made.up()
            yield made
        finally:
            made.down()


# A store in a process of its own ----------------------------------------------------------------------------------


_SERVE = """
import sys, time
from pathlib import Path
from servers import S3Server
server = S3Server(Path(sys.argv[1]))
server.client().create_bucket(Bucket=sys.argv[2])
print(server.url, flush=True)
while True:
    time.sleep(60)
"""


@dataclass
class Store:
    """An S3 double that can be stopped for a while, and that says SlowDown while its `marker` is there."""

    url: str
    process: subprocess.Popen[str]
    marker: Path


@contextmanager
def store(folder: Path) -> Iterator[Store]:
    pytest.importorskip("moto", reason="the S3 double comes with the extra `dev`")
    pytest.importorskip("flask_cors", reason="the S3 double comes with the extra `dev`")
    marker = folder / "slow"
    with (folder / "store.log").open("w") as log:
        process = subprocess.Popen(
            [sys.executable, "-c", _SERVE, str(marker), BUCKET],
            stdout=subprocess.PIPE, stderr=log, text=True,
            env=os.environ | CREDENTIALS | {"PYTHONPATH": f"{ROOT}:{ROOT}/tests"},
        )  # fmt: skip
    try:
        assert process.stdout is not None
        url = process.stdout.readline().strip()
        assert url, (folder / "store.log").read_text()
        yield Store(url, process, marker)
    finally:
        process.kill()
        process.wait()


def pause(process: subprocess.Popen[str], seconds: float) -> None:
    """Stop a process for a while: what asks it waits, and hears nothing."""
    process.send_signal(signal.SIGSTOP)
    try:
        wait_until(lambda: psutil.Process(process.pid).status() == psutil.STATUS_STOPPED)
        time.sleep(seconds)
    finally:
        process.send_signal(signal.SIGCONT)
