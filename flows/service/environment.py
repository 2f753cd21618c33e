"""The surroundings of a run, prepared before Prefect is imported: its home, its server, and what a killed run left.

Headwater's Prefect keeps everything under `<lake>/prefect`, apart from the user's own, and takes its settings from
here alone. A run talks to the server that PREFECT_API_URL names, else to the one that `headwater up` started for the
lake, if that answers; else to a temporary one that ends with it (`flows.service.servers`). Every process started for a
run carries the run's mark in its environment, so that leftovers of a killed run are found and ended.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import urllib.request
from collections.abc import Mapping, MutableMapping
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlsplit

from datalake.errors import UserError
from flows.service.api import Api
from flows.service.login import home as prefect_home
from flows.service.login import login, place_of

if TYPE_CHECKING:
    import psutil

_LAKE_MARK = "HEADWATER_PROCESS_LAKE"
_OWNER_MARK = "HEADWATER_PROCESS_OWNER"

# What of the user's Prefect settings is meant for us: how much is said, and where a team's server keeps its data.
_MEANT = ("PREFECT_LOGGING_LEVEL", "PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL", "PREFECT_SERVER_DATABASE_CONNECTION_URL")
# What speaks of the server that PREFECT_API_URL names, and of no other.
_OF_A_SERVER = ("PREFECT_API_", "PREFECT_CLIENT_", "PREFECT_CLOUD_")
LOOPBACK = ("127.0.0.1", "localhost", "::1")


def server_state(lake: Path) -> dict[str, Any]:
    """What `headwater up` wrote down: url and the process ids of server and worker; empty when it is not up.

    A copy of a lake carries the note along that belongs to the original.
    """
    try:
        state = json.loads((place_of(lake) / "headwater-server.json").read_bytes())
    except (OSError, ValueError):
        return {}
    return state if isinstance(state, dict) and state.get("lake", str(lake)) == str(lake) else {}


def listens(url: str) -> bool:
    """Whether anything listens at the address of a server; one that is slow to answer does."""
    try:
        parts = urlsplit(url)
        with socket.create_connection(
            (parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80)), 5
        ):
            return True
    except TimeoutError:
        return True
    except (OSError, ValueError):
        return False


def settings(lake: Path) -> dict[str, str]:
    """Environment of everything Prefect does for a lake."""
    home, password = prefect_home(lake), login(lake)
    # Prefect writes the path of its database into a URL as it is: what comes after a `?` would be cut off.
    url = f"sqlite+aiosqlite:///file:{quote(str(home / 'prefect.db'))}?uri=true"
    own = {"PREFECT_SERVER_DATABASE_CONNECTION_URL": url} if "?" in str(home) else {}
    return {
        **own,
        "PREFECT_HOME": str(home),
        "PREFECT_PROFILES_PATH": str(home / "profiles.toml"),
        "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "120",
        "PREFECT_SERVER_ALLOW_EPHEMERAL_MODE": "true",
        "PREFECT_SERVER_API_MAX_PARAMETER_SIZE": str(64 << 20),  # a recipe may name thousands of files
        # The lake's own server, and the temporary one of a run without it, know this login alone and no other site.
        "PREFECT_API_AUTH_STRING": password,
        "PREFECT_SERVER_API_AUTH_STRING": password,
        "PREFECT_SERVER_CORS_ALLOWED_ORIGINS": "http://127.0.0.1",
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "PREFECT_SERVER_UI_SHOW_PROMOTIONAL_CONTENT": "false",
        "PREFECT_CLOUD_ENABLE_ORCHESTRATION_TELEMETRY": "false",
        "DO_NOT_TRACK": "1",
        "RAY_USAGE_STATS_ENABLED": "0",
        "HEADWATER_LAKE": str(lake),
    }


def apart(environment: Mapping[str, str], server: str = "") -> dict[str, str]:
    """An environment without the Prefect settings of other projects: an address, a password, a profile, a database.

    Those that go with a server stay where that `server` is used. Names in small letters count too, as Prefect has it.
    """
    kept = (*_MEANT, *(_OF_A_SERVER if server else ()))
    return {
        name: value
        for name, value in environment.items()
        if not name.upper().startswith("PREFECT_")
        or name.upper().startswith("PREFECT__")  # how Prefect tells its own processes apart
        or name.upper().startswith(kept)
    }


def pass_proxies(environment: MutableMapping[str, str]) -> None:
    """Let requests to this machine go past the user's proxies, in this process and in what it starts."""
    have = environment.get("no_proxy") or environment.get("NO_PROXY") or ""
    names = [name for name in (part.strip() for part in have.split(",")) if name]
    names += [name for name in LOOPBACK if name not in names]
    # The small name wins where both are set; some libraries read the large one alone.
    environment["no_proxy"] = environment["NO_PROXY"] = ",".join(names)


def prepare(lake: Path, quiet: bool = True) -> str | None:
    """Set this process's environment for a run in `lake`; returns the API of the running server, or None.

    Must come before the first import of Prefect. A PREFECT_API_URL set by the user is respected, with the password or
    key beside it; the lake's own server is asked with the lake's own password.

    Raises:
        UserError: where PREFECT_API_URL names a server that can't be used, or `lake` can't hold Prefect's files.
    """
    theirs, their_login = os.environ.get("PREFECT_API_URL", ""), os.environ.get("PREFECT_API_AUTH_STRING", "")
    own = str(server_state(lake).get("url") or "")
    if theirs and theirs != own:
        _require(theirs, their_login)
    kept = apart(os.environ, theirs if theirs != own else "")
    for name in [name for name in os.environ if name not in kept]:
        del os.environ[name]
    os.environ.update(settings(lake))
    pass_proxies(os.environ)
    enter(lake)
    if quiet:
        # The API still gets every log line; the terminal shows Headwater's own.
        os.environ.setdefault("PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL", "CRITICAL")
        os.environ.setdefault("PREFECT_LOGGING_LEVEL", "INFO")
    if theirs and theirs != own:
        os.environ.pop("PREFECT_API_AUTH_STRING")
        os.environ |= {"PREFECT_API_URL": theirs} | ({"PREFECT_API_AUTH_STRING": their_login} if their_login else {})
        return theirs
    if own and Api(own, os.environ["PREFECT_API_AUTH_STRING"]).answers():
        os.environ["PREFECT_API_URL"] = own
        return own
    if theirs:
        raise UserError(_NOT_THERE.format(url=theirs))
    return None


_NOT_THERE = (
    "no Prefect server answers at {url}, which PREFECT_API_URL names: start it, or unset the variable "
    "(a run then uses the lake's own)"
)


def _require(url: str, login: str) -> None:
    """Raise UserError where the server that the user names can't be used with the login."""
    status = Api(url, login).status(timeout_s=10.0)
    if status in (401, 403) and "PREFECT_API_KEY" not in os.environ:
        raise UserError(
            f"PREFECT_API_URL={url} wants its password: set PREFECT_API_AUTH_STRING, or unset PREFECT_API_URL"
        )
    try:
        behind_proxy = urlsplit(url).scheme in urllib.request.getproxies() and urlsplit(url).hostname not in LOOPBACK
    except ValueError:
        behind_proxy = False
    if not status and not behind_proxy:
        raise UserError(_NOT_THERE.format(url=url))


def enter(lake: Path) -> None:
    """Make this process the owner of what it starts for a lake, and end what killed owners left there.

    A run that the worker starts calls this at its beginning; before, it carries no mark, so the worker is no owner.
    """
    mark = process_mark(os.getpid())
    if (os.environ.get(_LAKE_MARK), os.environ.get(_OWNER_MARK)) == (str(lake), mark):
        return
    clear_leftovers(lake)
    os.environ[_LAKE_MARK], os.environ[_OWNER_MARK] = str(lake), mark
    # Threads of GNU's OpenMP, which PyTorch computes with, wait for each other by turning round and round. Beside
    # another program that keeps the CPUs busy they so use up the time that the one they wait for would need.
    if not os.environ.keys() & {"OMP_WAIT_POLICY", "GOMP_SPINCOUNT"}:
        os.environ["GOMP_SPINCOUNT"] = "10000"


def unowned(environment: Mapping[str, str]) -> dict[str, str]:
    """An environment without the marks: for what outlives the process that starts it."""
    return {name: value for name, value in environment.items() if name not in (_LAKE_MARK, _OWNER_MARK)}


def process_mark(pid: int) -> str:
    """A process by number and start, so that a number used again is not mistaken.

    Raises:
        Exception: of psutil or OSError where there is no such process, or only the entry of an ended one.
    """
    import psutil

    process = psutil.Process(pid)
    if process.status() == psutil.STATUS_ZOMBIE:
        raise psutil.NoSuchProcess(pid)
    try:
        # Ticks since boot (field 22 of proc(5)'s stat): unlike a time of day, clock adjustments don't move them.
        start = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    except FileNotFoundError:
        start = f"{process.create_time():.2f}"
    return f"{pid}:{start}"


def alive(mark: str) -> bool:
    """Whether the process of a mark still runs."""
    try:
        return process_mark(int(mark.split(":")[0])) == mark
    except Exception:  # gone, or not a mark
        return False


def leftovers(lake: Path) -> list[psutil.Process]:
    """Servers and Ray processes whose run in this lake was killed."""
    import psutil

    left = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            environment = process.environ()
            owner = environment.get(_OWNER_MARK)
            if environment.get(_LAKE_MARK) == str(lake) and owner and not alive(owner) and process.pid != os.getpid():
                left.append(process)
    return left


def clear_leftovers(lake: Path) -> list[int]:
    """End servers and Ray processes whose run in this lake was killed; returns their process ids."""
    import psutil

    left = leftovers(lake)
    for process in left:
        with contextlib.suppress(psutil.Error):
            process.terminate()
    _, stubborn = psutil.wait_procs(left, timeout=5)
    for process in stubborn:
        with contextlib.suppress(psutil.Error):
            process.kill()
    return [process.pid for process in left]


def end_own() -> None:
    """Kill every process that was started for the run of this process: it is over, and they keep nothing."""
    import psutil

    mark = process_mark(os.getpid())
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            if process.pid != os.getpid() and process.environ().get(_OWNER_MARK) == mark:
                process.kill()
