"""The surroundings of a run, prepared before Prefect is imported: its home, its server, and what a killed run left.

Headwater's Prefect keeps everything under `<lake>/prefect`, apart from the user's own. A run talks to the server that
`headwater up` started for the lake, if that answers; else to a temporary one that ends with it. Every process started
for a run carries the run's mark in its environment, so that leftovers of a killed run are found and ended.
"""

from __future__ import annotations

import contextlib
import json
import os
import urllib.error
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

if TYPE_CHECKING:
    import psutil

_LAKE_MARK = "HEADWATER_PROCESS_LAKE"
_OWNER_MARK = "HEADWATER_PROCESS_OWNER"


def server_state(lake: Path) -> dict[str, Any]:
    """What `headwater up` wrote down: url and the process ids of server and worker; empty when it is not up."""
    try:
        state = json.loads((lake / "prefect" / "headwater-server.json").read_bytes())
        return state if isinstance(state, dict) else {}
    except (FileNotFoundError, NotADirectoryError, json.JSONDecodeError):
        return {}


def healthy(url: str, timeout_s: float = 2.0) -> bool:
    """Whether a Prefect API at `url` (…/api) answers its health check."""
    try:
        with urllib.request.urlopen(f"{url}/health", timeout=timeout_s) as answer:
            return bool(answer.status == 200)
    except (urllib.error.URLError, OSError, ValueError):
        return False


def settings(lake: Path) -> dict[str, str]:
    """Environment of everything Prefect does for a lake."""
    home = lake / "prefect"
    # Prefect writes the path of its database into a URL as it is: what comes after a `?` would be cut off.
    url = f"sqlite+aiosqlite:///file:{quote(str(home / 'prefect.db'))}?uri=true"
    own = {"PREFECT_SERVER_DATABASE_CONNECTION_URL": url} if "?" in str(home) else {}
    return {
        **own,
        "PREFECT_HOME": str(home),
        "PREFECT_PROFILES_PATH": str(home / "profiles.toml"),
        "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "120",
        "PREFECT_SERVER_ALLOW_EPHEMERAL_MODE": "true",
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "PREFECT_SERVER_UI_SHOW_PROMOTIONAL_CONTENT": "false",
        "PREFECT_CLOUD_ENABLE_ORCHESTRATION_TELEMETRY": "false",
        "DO_NOT_TRACK": "1",
        "RAY_USAGE_STATS_ENABLED": "0",
        "HEADWATER_LAKE": str(lake),
    }


def prepare(lake: Path, quiet: bool = True) -> str | None:
    """Set this process's environment for a run in `lake`; returns the API of the running server, or None.

    Must come before the first import of Prefect. A PREFECT_API_URL set by the user is respected.
    """
    os.environ.update(settings(lake))
    enter(lake)
    if quiet:
        # The API still gets every log line; the terminal shows Headwater's own.
        os.environ.setdefault("PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL", "CRITICAL")
        os.environ.setdefault("PREFECT_LOGGING_LEVEL", "INFO")
    url = os.environ.get("PREFECT_API_URL") or server_state(lake).get("url")
    if url and healthy(url):
        os.environ["PREFECT_API_URL"] = url
        return str(url)
    os.environ.pop("PREFECT_API_URL", None)
    return None


def enter(lake: Path) -> None:
    """Make this process the owner of what it starts for a lake, and end what killed owners left there.

    A run that the worker starts calls this at its beginning; before, it carries no mark, so the worker is no owner.
    """
    mark = process_mark(os.getpid())
    if (os.environ.get(_LAKE_MARK), os.environ.get(_OWNER_MARK)) == (str(lake), mark):
        return
    clear_leftovers(lake)
    os.environ[_LAKE_MARK], os.environ[_OWNER_MARK] = str(lake), mark


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
