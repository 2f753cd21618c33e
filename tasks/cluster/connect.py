"""The one place where Ray is started or joined."""

from __future__ import annotations

import contextlib
import logging
import os
import secrets
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from importlib import import_module
from pathlib import Path
from typing import Any, TypeVar

from datalake.errors import UserError, note
from datalake.printable import one_line
from tasks.runtime import RuntimeConfig

T = TypeVar("T")

# Ray's own settings, where this machine's cluster is meant; those of a cluster that is joined are the user's.
_OURS = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_DEDUP_LOGS": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
}
_TOKEN = secrets.token_hex(32)  # one a process: Ray remembers the first that it sees
# A cluster without one of these does nothing any more.
_VITAL = {"raylet": "raylet", "gcs_server": "control service (gcs_server)"}
START_S = 60.0
# So long the head of a cluster that was joined may be away, as where its control service is started again. After
# another while Ray would abort this process, without a word: `require` is sooner.
AWAY_S = 45.0
_ABORT_S = 120
# Below Ray's folder lie sockets, whose paths the system limits to 107 characters; so many remain for the folder's own.
_LONGEST_FOLDER = 40


class ClusterError(RuntimeError):
    """Ray is no longer there; what was handed to it is neither done nor at fault."""


class _Ahead:
    """Ray started in a thread. That has to live on until Ray is left: its processes are killed when their parent ends,
    which to Linux is the thread that began them (prctl(2), PR_SET_PDEATHSIG)."""

    def __init__(self, config: RuntimeConfig) -> None:
        self._there, self._left = threading.Event(), threading.Event()
        threading.Thread(target=self._start, args=(config,), name="ray", daemon=True).start()

    def _start(self, config: RuntimeConfig) -> None:
        with contextlib.suppress(Exception):  # `connect` tries again, and tells
            _connect(config)
        self._there.set()
        self._left.wait()

    def arrive(self) -> None:
        """Wait until it is there, or couldn't be started."""
        self._there.wait()

    def leave(self) -> None:
        """Let the thread end, Ray having ended."""
        self._left.set()


_ahead: _Ahead | None = None


@contextlib.contextmanager
def leaving(config: RuntimeConfig, at_once: bool) -> Iterator[None]:
    """A context at whose end the cluster is left that was started or joined inside.

    A local one may start `at_once`, beside what the run does to prepare itself: `connect` waits for it.
    """
    global _ahead
    if at_once and config.cluster == "local":
        _ahead = _Ahead(config)
    try:
        yield
    finally:
        disconnect()
        if _ahead is not None:
            _ahead.leave()
            _ahead = None


def connect(config: RuntimeConfig) -> Any:
    """Ray, initialised once per process as `config` says; returns the module.

    A local cluster has as many CPUs as the run has workers, so that two workers mean two processes at work; they run
    at the niceness of this process, and nothing of the cluster is kept outside its temporary folder.

    Raises:
        UserError: where Ray can't be started or joined.
        ClusterError: where the cluster of this process has ended.
    """
    if _ahead is not None:
        _ahead.arrive()
    return _connect(config)


def _connect(config: RuntimeConfig) -> Any:
    local = config.cluster == "local"
    if not local:
        for name, value in (_OURS | {"RAY_gcs_rpc_server_reconnect_timeout_s": str(_ABORT_S)}).items():
            os.environ.setdefault(name, value)
    with _own_settings() if local else contextlib.nullcontext():
        import ray  # which reads some of its settings just once, now

    if ray.is_initialized():
        require(ray)
        while not _head_answers(ray):  # what asks it now would wait, and not look for signals
            time.sleep(0.5)
            require(ray)
        return ray
    ray._private.worker.print_to_stdstream = _told_by_ray  # else it prints between the lines of an answer
    # Ray turns its token on by itself and says so on every start; the token stays on, the notice goes.
    # So does the warning that no signal is handled in a thread: they are the run's own.
    for name in ("authentication.authentication_token_setup", "worker"):
        logging.getLogger(f"ray._private.{name}").setLevel(logging.ERROR)
    options: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR, "configure_logging": False}
    if local:
        options |= {
            "address": "local",  # never join a cluster left over from something else
            "num_cpus": config.workers,
            "_memory": int(config.memory_gb * (1 << 30)) + config.workers,  # what the tasks ask for always fits
            "_temp_dir": str(_short_folder()),
            "include_dashboard": False,
            "object_store_memory": max(int(config.memory_gb * (1 << 30) * 0.1), 100 << 20),
            # Ray adds 15 to the niceness of its workers: beside any other program a run would then come to a halt. And
            # it aborts a driver a minute after its control service has gone: `require` says so in words, and sooner.
            "_system_config": {"worker_niceness": 0, "gcs_rpc_server_reconnect_timeout_s": 3600},
        }
    else:
        options |= {"address": config.cluster}
        if config.code == "sent":
            options |= {"runtime_env": {"py_modules": _code()}}
        if _joining_needs_token():
            os.environ.setdefault("RAY_AUTH_MODE", "token")  # joining doesn't turn the token on by itself
    _heard.clear()
    try:
        settings = _own_settings() if local else contextlib.nullcontext()
        with settings, _patience(ray), _own_signals(ray):
            ray.init(**options)
    except ConnectionError as error:
        raise UserError(
            f"no Ray cluster at {config.cluster} ({str(error).splitlines()[0]}): start one with `ray start`, "
            "or set runtime.cluster to local"
        ) from None
    except Exception as error:
        words = " ".join(str(error).split())[:200] or type(error).__name__
        raise UserError(f"Ray can't be started: {words}; runtime.cluster: inline does without it") from error
    return ray


def _told_by_ray(data: dict[str, Any], ignore_prefix: bool) -> None:
    """Of what Ray's processes tell the driver, that a node is lost; of a task that died its shard tells."""
    for text in data["lines"]:
        if text.startswith("The node with node id"):
            note(f"Ray: {one_line(text).partition('. ')[0]}")


def _code() -> list[str]:
    """The packages that work on a node is made of, as they lie here: Ray brings each node a copy."""
    return [str(Path(import_module(name).__file__ or "").parent) for name in ("datalake", "models", "tasks")]


@contextlib.contextmanager
def _own_signals(ray: Any) -> Iterator[None]:
    """Leave signals to the run: Ray handles SIGTERM in Python, and in its core as a crash.

    Neither handler is put there at all. Undone afterwards they would take what comes while Ray starts, of which the
    core holds the interpreter for a second: the process would end by SIGABRT, and Ray's go on without it for a while.
    What the core's says of a crash is lost with it; Python's fault handler, which Ray turns on, tells the rest.
    """
    constants, utils = ray._private.ray_constants, ray._private.utils
    before = constants.RAY_DISABLE_FAILURE_SIGNAL_HANDLER, utils.set_sigterm_handler
    constants.RAY_DISABLE_FAILURE_SIGNAL_HANDLER, utils.set_sigterm_handler = True, lambda handler: None
    try:
        yield
    finally:
        constants.RAY_DISABLE_FAILURE_SIGNAL_HANDLER, utils.set_sigterm_handler = before


@contextlib.contextmanager
def _patience(ray: Any) -> Iterator[None]:
    """Give Ray's node the time that it needs to come up; its own limit, 30 s and fixed, is short on a busy machine."""
    services = ray._private.services
    ask = services.get_node

    def get_node(*arguments: Any, **named: Any) -> Any:
        deadline = time.monotonic() + START_S
        while True:
            try:
                return ask(*arguments, **named)
            except RuntimeError:  # it isn't known to the cluster yet
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.2)

    services.get_node = get_node
    try:
        yield
    finally:
        services.get_node = ask


def _threads() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(thread_name_prefix="waits for Ray")


_waiting = _threads()


def aside(call: Callable[..., T], *arguments: Any, **named: Any) -> T:
    """What a call comes to that waits in Ray's core, a second at most; it is made in another thread, so that this one
    hears of signals at once.

    The core runs their handlers while it waits, but knows KeyboardInterrupt alone: what else one raises, such as
    Prefect's for a run that is cancelled, stays pending in the interpreter while the core goes on, and comes out of it
    as a SystemError. Other threads have no handlers to run.
    """
    return _waiting.submit(call, *arguments, **named).result()


_heard: dict[str, float] = {}  # when the head of a cluster that was joined last answered, by its address


def require(ray: Any) -> None:
    """Raise ClusterError where a process that Ray needs has ended: of a cluster that this process started any of them,
    of one that it joined the head, once that hasn't answered for a while.

    Ray itself says so after 5 seconds and more, and then of each task as if that had failed; of a head it never does.
    """
    node = getattr(ray._private.worker, "_global_node", None)
    if node is None:
        return
    for kind, process in node.dead_processes():
        if kind in _VITAL:
            status = process.returncode
            how = f"signal {-status}" if status is not None and status < 0 else f"exit status {status}"
            raise ClusterError(f"Ray's {_VITAL[kind]} ended ({how})")
    now, address = time.monotonic(), str(node.gcs_address)
    if _head_answers(ray):
        _heard[address] = now
    elif now - _heard.setdefault(address, now) > AWAY_S:
        raise ClusterError(f"the head of the Ray cluster at {address} has been away for {AWAY_S:g} s: start it again")


def _head_answers(ray: Any) -> bool:
    """Whether somebody listens where the control service is."""
    host, _, port = str(ray._private.worker._global_node.gcs_address).rpartition(":")
    try:
        with socket.create_connection((host.strip("[]"), int(port)), timeout=5):
            return True
    except OSError:
        return False


def disconnect() -> None:
    """Leave the cluster; a local one ends with it."""
    if _ahead is not None:
        _ahead.arrive()
    ray = sys.modules.get("ray")
    if ray is None or not ray.is_initialized():
        return
    global _waiting
    _waiting.shutdown(cancel_futures=True)  # a call that was left when a signal came must not outlive Ray's core
    _waiting = _threads()
    try:
        require(ray)
    except ClusterError:
        # Taking leave of it in order would wait for answers that don't come.
        logging.getLogger("ray").setLevel(logging.CRITICAL)
        ray._private.worker._global_node.kill_all_processes(check_alive=False, allow_graceful=False)
    ray.shutdown()


@contextlib.contextmanager
def _own_settings() -> Iterator[None]:
    """Hide the Ray settings of other projects (an address, a folder, a hook) while a local cluster is started.

    The processes that Ray starts inherit what stands there then. The token is told by the environment, so that no file
    in the home folder is needed.
    """
    others = _remove_settings()
    os.environ.update(_OURS | {"RAY_AUTH_TOKEN": _TOKEN})  # with which Ray turns its authentication on
    try:
        yield
    finally:
        _remove_settings()
        os.environ.update(others)


def _remove_settings() -> dict[str, str]:
    return {name: os.environ.pop(name) for name in list(os.environ) if name.startswith("RAY_")}


def _short_folder() -> Path:
    """Where Ray keeps its sockets and logs: in the temporary folder where its path is short enough, else in /tmp."""
    tried = []
    for folder in (Path(tempfile.gettempdir()) / "ray", Path("/tmp/ray"), Path("/dev/shm/ray")):
        if len(os.fsencode(folder)) > _LONGEST_FOLDER:
            tried.append(f"{folder} is too long a path")
            continue
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=folder):
                return folder
        except OSError as error:
            tried.append(f"{folder}: {error.strerror}")
    raise UserError(
        f"Ray has no folder for its sockets ({'; '.join(tried)}): set TMPDIR to a folder with a short path that can be "
        "written, or runtime.cluster to inline"
    )


def _joining_needs_token() -> bool:
    try:
        return (Path.home() / ".ray" / "auth_token").exists()
    except (OSError, RuntimeError):  # no home, or none that can be read
        return False
