"""`headwater up` and `headwater down`: a Prefect server for the lake, its deployments, and a worker that runs them.

Each step of `up` looks whether its work is done already, so a second `up` changes nothing and an interrupted or
half-dead one is completed. What runs is found by the processes themselves; `<lake>/prefect/headwater-server.json` says
where the server listens and which deployments it has.
"""

from __future__ import annotations

import hashlib
import json
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from datalake.errors import UserError
from datalake.lake import Lake
from datalake.shards import write_atomically
from flows import daemons
from flows.environment import clear_leftovers, healthy, process_mark, server_state, settings, unowned

HOST = "127.0.0.1"
POOL = "headwater"
ROOT = Path(__file__).parent.parent.parent
PREFECT_FILE = ROOT / "deployments" / "prefect.yaml"
STATE = "headwater-server.json"

START_S = 180.0  # a server needs about 20 s; a busy machine several times that

# Settings of the user's own Prefect that would lead the lake's server or worker elsewhere.
_NOT_OURS = ("PREFECT_API_URL", "PREFECT_API_KEY", "PREFECT_PROFILE", "PREFECT_SERVER_API_PORT")


class NotUpError(Exception):
    """Something didn't start; the message says what and where to look."""


def start(lake: Path, port: int, as_json: bool) -> int:
    """Bring server, deployments and worker up, whatever of them is there; returns the exit status."""
    from filelock import FileLock

    if not PREFECT_FILE.is_file():
        raise UserError(f"no {PREFECT_FILE}: `headwater up` runs from a checkout of Headwater, where deployments/ is")
    if not 1 <= port <= 65_535:
        raise UserError(f"--port {port}: a port is a number from 1 to 65535")
    if not daemons.find("server", lake):
        _require_free(port)
    Lake(lake).create()
    (lake / "prefect").mkdir(exist_ok=True)
    say = partial(print, file=sys.stderr if as_json else sys.stdout, flush=True)
    began = time.perf_counter()
    try:
        with FileLock(lake / "prefect" / "up.lock"):
            changed = _complete(lake, port, say)
    except NotUpError as error:
        print(f"headwater: {error}", file=sys.stderr)
        return 1
    state = server_state(lake)
    seconds = time.perf_counter() - began
    if as_json:
        shown = {name: int(state[name].split(":")[0]) for name in ("server", "worker")}
        body = {"lake": str(lake), "url": state["url"], "ui": state["url"].removesuffix("/api"), **shown}
        print(json.dumps(body | {"changed": changed, "seconds": round(seconds, 3)}))
    else:
        say(f"up at {state['url'].removesuffix('/api')} ({seconds:.0f} s); headwater down --lake {lake} stops it")
    return 0


def stop(lake: Path, as_json: bool) -> int:
    """End worker, flow runs with their Ray, and server; returns the exit status. Nothing to end is no error."""
    # The worker goes first, so that it starts no other run; the server last, so that runs can say that they ended.
    ended = {"worker": daemons.end(daemons.find("worker", lake))}
    ended["runs"] = daemons.end(daemons.runs(lake))
    if lake.is_dir():
        clear_leftovers(lake)
        _end_lost_runs(lake)
    ended["server"] = daemons.end(daemons.find("server", lake))
    (lake / "prefect" / STATE).unlink(missing_ok=True)
    if as_json:
        print(json.dumps({"lake": str(lake), "stopped": ended}))
    else:
        names = ", ".join(f"{name} {' '.join(map(str, pids))}" for name, pids in ended.items() if pids)
        print(f"stopped {names}" if names else f"nothing was up for {lake}")
    return 0


def _complete(lake: Path, port: int, say: Callable[[str], None]) -> list[str]:
    """Start or repair what isn't there; returns what was done: server, worker, deployments."""
    changed = []
    clear_leftovers(lake)
    servers, workers = daemons.find("server", lake), daemons.find("worker", lake)
    state = server_state(lake)
    url = str(state.get("url") or "")
    if len(servers) != 1 or not _answers(servers[0], url):
        daemons.end([*workers, *servers])  # a worker without its server is of no use
        workers = []
        say(f"starting the Prefect server at {HOST}:{port} (log: {lake / 'prefect' / 'server.log'})")
        url = start_server(lake, port, state.get("applied"))
        state = server_state(lake)
        changed.append("server")
    state["server"] = process_mark(daemons.find("server", lake)[0].pid)
    _make_pool(url)
    if len(workers) != 1:
        daemons.end(workers)
        if not daemons.runs(lake):
            _end_lost_runs(lake)
        say(f"starting a worker (log: {lake / 'prefect' / 'worker.log'})")
        workers = []
        pid = daemons.spawn("worker", lake, _worker_command(), _environment(lake, url))
        changed.append("worker")
    else:
        pid = workers[0].pid
    state["worker"] = process_mark(pid)
    _write(lake, state)
    wanted = deployments_digest()
    if state.get("applied") != wanted or not _deployed(url):
        say("applying deployments/prefect.yaml")
        _deploy(lake, url)
        state["applied"] = wanted
        _write(lake, state)
        changed.append("deployments")
    _wait(lambda: _worker_online(url), pid, lake / "prefect" / "worker.log", "the worker")
    return changed


def start_server(lake: Path, port: int, applied: str | None = None) -> str:
    """Start the lake's Prefect server and wait until it is healthy; returns its API's address.

    Raises:
        UserError: where the port is taken.
        NotUpError: where the server ends or doesn't answer.
    """
    _require_free(port)
    url = f"http://{HOST}:{port}/api"
    pid = daemons.spawn("server", lake, _server_command(port), _environment(lake, url, port))
    _write(lake, {"url": url, "server": process_mark(pid), "applied": applied})
    _wait(lambda: healthy(url), pid, lake / "prefect" / "server.log", "the Prefect server")
    return url


def _answers(server: Any, url: str) -> bool:
    """Whether the server is healthy at the address written down; a young one gets time to come up."""
    if not url:
        return False
    while not healthy(url):
        if not server.is_running() or time.time() - server.create_time() > START_S:
            return False
        time.sleep(0.5)
    return True


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
    own = {name: value for name, value in unowned(os.environ).items() if name not in _NOT_OURS}
    more = {"PREFECT_API_URL": url, "PYTHONUNBUFFERED": "1"}
    if port is not None:
        more |= {
            "PREFECT_SERVER_UI_API_URL": url,
            # Leases kept in memory would be lost with the server, and the slots of its deployments with them.
            "PREFECT_SERVER_CONCURRENCY_LEASE_STORAGE": "prefect.server.concurrency.lease_storage.filesystem",
        }
    return own | settings(lake) | more


def _server_command(port: int) -> list[str]:
    return [sys.executable, "-m", "prefect", "server", "start", "--host", HOST, "--port", str(port)]


def _worker_command() -> list[str]:
    return [sys.executable, "-m", "prefect", "worker", "start", "--pool", POOL, "--type", "process", "--name", POOL]


def _write(lake: Path, state: dict[str, Any]) -> None:
    write_atomically(lake / "prefect" / STATE, json.dumps(state, indent=1).encode())


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


def call(url: str, path: str, body: Any = None, method: str | None = None) -> Any:
    """One request to the Prefect API; plain HTTP, since importing Prefect's client takes seconds.

    A server whose SQLite is locked just then says 503; it is asked again, as Prefect's own client does.

    Raises:
        urllib.error.HTTPError: for any other refusal.
    """
    request = urllib.request.Request(
        f"{url}{path}",
        data=None if body is None else json.dumps(body).encode(),
        headers={"Content-Type": "application/json"},
        method=method or ("GET" if body is None else "POST"),
    )
    for attempt in range(8):
        try:
            with urllib.request.urlopen(request, timeout=30) as answer:
                text = answer.read()
            return json.loads(text) if text else None
        except urllib.error.HTTPError as error:
            if error.code != 503 or attempt == 7:
                raise
            time.sleep(0.25 * 2**attempt)
    return None


def _make_pool(url: str) -> None:
    """Create the work pool where it isn't there."""
    try:
        call(url, f"/work_pools/{POOL}")
    except urllib.error.HTTPError as error:
        if error.code != 404:
            raise
        described = "Flow runs as processes of this machine, started by the worker of `headwater up`"
        call(url, "/work_pools/", {"name": POOL, "type": "process", "description": described})


def _worker_online(url: str) -> bool:
    return any(worker["status"] == "ONLINE" for worker in call(url, f"/work_pools/{POOL}/workers/filter", {}))


def deployments_digest() -> str:
    """What the deployments are made from: prefect.yaml, the recipe in it, the form's schema."""
    import yaml

    from flows.recipe import Recipe

    text = PREFECT_FILE.read_text(encoding="utf-8")
    steps = yaml.safe_load(text)["build"]
    recipes = [(ROOT / step["recipe"]).read_text(encoding="utf-8") for entry in steps for step in entry.values()]
    schema = json.dumps(Recipe.model_json_schema(), sort_keys=True)
    return hashlib.sha256("\x1f".join([str(ROOT), text, *recipes, schema]).encode()).hexdigest()


def _deployments(url: str) -> list[dict[str, Any]]:
    wanted = {"deployments": {"tags": {"all_": ["headwater"]}}}
    found: list[dict[str, Any]] = call(url, "/deployments/filter", wanted)
    return found


def _deployed(url: str) -> bool:
    import yaml

    named = {entry["name"] for entry in yaml.safe_load(PREFECT_FILE.read_text(encoding="utf-8"))["deployments"]}
    return named <= {deployment["name"] for deployment in _deployments(url)}


def _deploy(lake: Path, url: str) -> None:
    """Apply prefect.yaml. A schedule that someone turned on stays on."""
    on = {(d["name"], s["slug"]) for d in _deployments(url) for s in d["schedules"] if s["active"]}
    done = subprocess.run(
        [sys.executable, "-m", "prefect", "--no-prompt", "deploy", "--all", "--prefect-file", str(PREFECT_FILE)],
        cwd=ROOT,
        env=_environment(lake, url),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    log = lake / "prefect" / "deploy.log"
    log.write_text(done.stdout)
    if done.returncode or not _deployed(url):
        raise NotUpError(f"the deployments could not be applied: {_last_line(log)} (see {log})")
    for deployment in _deployments(url):
        for schedule in deployment["schedules"]:
            if (deployment["name"], schedule["slug"]) in on and not schedule["active"]:
                place = f"/deployments/{deployment['id']}/schedules/{schedule['id']}"
                call(url, place, {"active": True}, "PATCH")


def _end_lost_runs(lake: Path) -> None:
    """Call runs crashed that the server believes running while no worker or process of theirs is left.

    Else such a run would hold its deployment's only slot.
    """
    url = str(server_state(lake).get("url") or "")
    if not url or not healthy(url):
        return
    wanted = {
        "flow_runs": {"state": {"type": {"any_": ["PENDING", "RUNNING", "CANCELLING"]}}},
        "work_pools": {"name": {"any_": [POOL]}},
    }
    for run in call(url, "/flow_runs/filter", wanted):
        crashed = {"type": "CRASHED", "message": "The process of this run ended with its worker; run it again to go on"}
        call(url, f"/flow_runs/{run['id']}/set_state", {"state": crashed, "force": True})
