"""`headwater up` and `headwater down`: a Prefect server for the lake, its deployments, and a worker that runs them.

Each step of `up` looks whether its work is done already, so a second `up` changes nothing and an interrupted or
half-dead one is completed. What runs is found by the processes themselves; `<lake>/prefect/headwater-server.json` says
where the server listens and which deployments it has.
"""

from __future__ import annotations

import json
import os
import socket
import sys
import time
import urllib.error
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from datalake.atomic import write_atomically
from datalake.errors import UserError
from datalake.lake.lake import Lake
from flows.commands.common import COMMON, Common
from flows.output import Console, note
from flows.service import automations, daemons, deployments
from flows.service.api import Api
from flows.service.database import set_aside_damaged
from flows.service.deployments import PREFECT_FILE, ROOT
from flows.service.environment import apart, clear_leftovers, process_mark, server_state, settings, unowned
from flows.service.login import home, login, place_of

if TYPE_CHECKING:
    import psutil

__all__ = ["POOL", "ROOT", "STATE", "down", "start_server", "stop", "up"]

HOST = "127.0.0.1"
POOL = "headwater"
STATE = "headwater-server.json"
LOCK = "up.lock"

BEAT_S = 60  # between two signs of life of a run; an automation of prefect.yaml notices that they stay away
START_S = 180.0  # a server needs about 20 s; a busy machine several times that


class NotUpError(Exception):
    """Something didn't start; the message says what and where to look."""


def up(*, port: int = 4200, common: Common = COMMON) -> int:
    """Start the Prefect server, apply the deployments and run a worker.

    Doing it again changes nothing.

    Parameters
    ----------
    port
        Where the server listens, on this machine only.
    """
    lake, output = common.folder, common.output
    if not PREFECT_FILE.is_file():
        raise UserError(f"no {PREFECT_FILE}: `headwater up` runs from a checkout of Headwater, where deployments/ is")
    if not 1 <= port <= 65_535:
        raise UserError(f"--port {port}: a port is a number from 1 to 65535")
    if not daemons.find("server", lake):
        _require_free(port)
    Lake(lake).create()
    began = time.perf_counter()
    try:
        with _one_at_a_time(lake, output.say):
            changed = _complete(lake, port, output.say)
    except NotUpError as error:
        note(str(error))
        return 1
    state = server_state(lake)
    ui = state["url"].removesuffix("/api")
    seconds = time.perf_counter() - began
    shown = {name: int(state[name].split(":")[0]) for name in ("server", "worker")}
    body = {"lake": str(lake), "url": state["url"], "ui": ui, "login": login(lake), **shown}

    def draw(console: Console, _: Any) -> None:
        console.line(f"up at {ui} ({seconds:.0f} s); headwater down --lake {lake} stops it")
        console.line(f"its password: {login(lake)} (all of it, the colon too; kept in {home(lake) / 'password'})")

    output.answer(body | {"changed": changed, "seconds": round(seconds, 3)}, draw)
    return 0


def down(*, common: Common = COMMON) -> None:
    """Stop what `up` started."""
    lake = common.folder
    ended = stop(lake)
    names = ", ".join(f"{name} {' '.join(map(str, pids))}" for name, pids in ended.items() if pids)
    told = f"stopped {names}" if names else f"nothing was up for {lake}"
    common.output.answer({"lake": str(lake), "stopped": ended}, lambda console, _: console.line(told))


def stop(lake: Path) -> dict[str, list[int]]:
    """End worker, flow runs with their Ray, and server; the processes ended. Nothing to end is no error."""
    with _one_at_a_time(lake, note) if place_of(lake).is_dir() else nullcontext():
        # The worker goes first, so that it starts no other run; the server last, so that runs can say that they ended.
        ended = {"worker": daemons.end(daemons.find("worker", lake))}
        ended["runs"] = daemons.end(daemons.runs(lake))
        servers = daemons.find("server", lake)
        if place_of(lake).parent.is_dir():
            clear_leftovers(lake)
            if servers:
                _end_lost_runs(_api(lake, _address(servers[0])))
        ended["server"] = daemons.end(servers)
        (place_of(lake) / STATE).unlink(missing_ok=True)
    return ended


@contextmanager
def _one_at_a_time(lake: Path, say: Callable[[str], None]) -> Iterator[None]:
    """Hold the lake's lock of `up` and `down`; whoever has it now is waited for."""
    from filelock import FileLock, Timeout

    lock = FileLock(home(lake) / LOCK)
    try:
        lock.acquire(timeout=1)
    except Timeout:
        say(f"another `headwater up` or `down` is at work on {lake}; waiting for it")
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def _complete(lake: Path, port: int, say: Callable[[str], None]) -> list[str]:
    """Start or repair what isn't there; returns what was done: server, worker, deployments."""
    changed = []
    clear_leftovers(lake)
    servers, workers = daemons.find("server", lake), daemons.find("worker", lake)
    url = _address(servers[0]) if len(servers) == 1 else ""
    if not url or not _answers(servers[0], _api(lake, url)):
        daemons.end([*workers, *servers])  # a worker without its server is of no use
        workers = []
        say(f"starting the Prefect server at {HOST}:{port} (log: {home(lake) / 'server.log'})")
        url = start_server(lake, port)
        changed.append("server")
    api = _api(lake, url)
    _make_pool(api)
    if len(workers) != 1:
        daemons.end(workers)
        if not daemons.runs(lake):
            _end_lost_runs(api)
        say(f"starting a worker (log: {home(lake) / 'worker.log'})")
        pid = daemons.spawn("worker", lake, _worker_command(), _environment(lake, url))
        changed.append("worker")
    else:
        pid = workers[0].pid
    server = process_mark(daemons.find("server", lake)[0].pid)
    _write(lake, {"url": url, "server": server, "worker": process_mark(pid)})
    if address := os.environ.get(automations.WEBHOOK):
        automations.notify_at(api, address)
    try:
        if deployments.apply(
            api, home(lake), _environment(lake, url), partial(say, "applying deployments/prefect.yaml")
        ):
            changed.append("deployments")
    except deployments.NotAppliedError as error:
        raise NotUpError(f"the deployments could not be applied: {error} (see {home(lake) / 'deploy.log'})") from None
    _wait(lambda: _worker_online(api), pid, home(lake) / "worker.log", "the worker")
    return changed


def start_server(lake: Path, port: int) -> str:
    """Start the lake's Prefect server and wait until it is healthy; returns its API's address.

    Raises:
        UserError: where the port is taken.
        NotUpError: where the server ends or doesn't answer.
    """
    _require_free(port)
    told = set_aside_damaged(lake)
    if told:
        print(told, file=sys.stderr, flush=True)
    url = f"http://{HOST}:{port}/api"
    pid = daemons.spawn("server", lake, _server_command(port), _environment(lake, url, port))
    _write(lake, {"url": url, "server": process_mark(pid)})
    _wait(_api(lake, url).answers, pid, home(lake) / "server.log", "the Prefect server")
    return url


def _api(lake: Path, url: str) -> Api:
    return Api(url, login(lake))


def _address(server: psutil.Process) -> str:
    """Where a server listens, by its own command line: what is written down may be stale."""
    import psutil

    try:
        command = server.cmdline()
        return f"http://{HOST}:{int(command[command.index('--port') + 1])}/api"
    except (psutil.Error, ValueError, IndexError):
        return ""


def _answers(server: psutil.Process, api: Api) -> bool:
    """Whether the server answers with this lake's password; a young one gets time to come up."""
    while not (status := api.status()):
        if not server.is_running() or time.time() - server.create_time() > START_S:
            return False
        time.sleep(0.5)
    return status == 200


def _require_free(port: int) -> None:
    """Raise UserError where something listens at the port."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError as error:
            raise UserError(
                f"port {port} can't be used ({(error.strerror or str(error)).lower()}): end what listens there, "
                f"or choose another with --port {port + 1 if port < 65_535 else port - 1}"
            ) from None


def _environment(lake: Path, url: str, port: int | None = None) -> dict[str, str]:
    """What server, worker and the runs it starts see: the lake's own Prefect, whatever the user's own is."""
    own = apart(unowned(os.environ))
    own.pop(automations.WEBHOOK, None)  # the server has it in a block
    more = {"PREFECT_API_URL": url, "PYTHONUNBUFFERED": "1", "PREFECT_FLOWS_HEARTBEAT_FREQUENCY": str(BEAT_S)}
    if port is not None:
        more |= {
            "PREFECT_SERVER_UI_API_URL": "/api",  # of the page's own origin, whatever name or tunnel it came by
            "PREFECT_SERVER_CORS_ALLOWED_ORIGINS": url.removesuffix("/api"),
            # Leases kept in memory would be lost with the server, and the slots of its deployments with them.
            "PREFECT_SERVER_CONCURRENCY_LEASE_STORAGE": "prefect.server.concurrency.lease_storage.filesystem",
        }
    return own | settings(lake) | more


# -P: what lies in the working directory, which is the lake's, is not imported.
def _server_command(port: int) -> list[str]:
    return [sys.executable, "-P", "-m", "flows.service", "server", "--port", str(port)]


def _worker_command() -> list[str]:
    pool = ["--pool", POOL, "--type", "process", "--name", POOL]
    return [sys.executable, "-P", "-m", "prefect", "worker", "start", *pool]


def _write(lake: Path, state: dict[str, Any]) -> None:
    write_atomically(place_of(lake) / STATE, json.dumps(state | {"lake": str(lake)}, indent=1).encode())


def _wait(ready: Callable[[], bool], pid: int, log: Path, what: str) -> None:
    """Wait until something is ready. Raises NotUpError when its process ends, or after START_S."""
    import psutil

    deadline = time.monotonic() + START_S
    while not ready():
        ended = not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
        if ended or time.monotonic() > deadline:
            raise NotUpError(f"{what} {'ended' if ended else 'is not ready'}: {_last_line(log)} (see {log})")
        time.sleep(0.3)


def _last_line(log: Path) -> str:
    lines = [line.strip() for line in log.read_text(errors="replace").splitlines() if line.strip()]
    return lines[-1] if lines else "it said nothing"


def _make_pool(api: Api) -> None:
    """Create the work pool where it isn't there."""
    try:
        api(f"/work_pools/{POOL}")
    except urllib.error.HTTPError as error:
        if error.code != 404:
            raise
        described = "Flow runs as processes of this machine, started by the worker of `headwater up`"
        at_once = max(4, os.cpu_count() or 1)  # each is a process with Prefect, Arrow and perhaps PyTorch in it
        body = {"name": POOL, "type": "process", "description": described, "concurrency_limit": at_once}
        api("/work_pools/", body)


def _worker_online(api: Api) -> bool:
    return any(worker["status"] == "ONLINE" for worker in api(f"/work_pools/{POOL}/workers/filter", {}))


def _end_lost_runs(api: Api) -> None:
    """Call runs crashed that the server believes running while no worker or process of theirs is left.

    Else such a run would hold its deployment's only slot.
    """
    if not api.answers():
        return
    wanted = {
        "flow_runs": {"state": {"type": {"any_": ["PENDING", "RUNNING", "CANCELLING"]}}},
        "work_pools": {"name": {"any_": [POOL]}},
    }
    for run in api("/flow_runs/filter", wanted):
        crashed = {"type": "CRASHED", "message": "The process of this run ended with its worker; run it again to go on"}
        api(f"/flow_runs/{run['id']}/set_state", {"state": crashed, "force": True})
