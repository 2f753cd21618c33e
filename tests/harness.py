"""What tests share beside fixtures: the suite's Prefect server as a value, and ports nobody listens on."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from flows.service.api import Api
from flows.service.login import login

ROOT = Path(__file__).parent.parent


@dataclass(frozen=True)
class PrefectServer:
    """The suite's one Prefect server: its API, the lake it belongs to, and the environment of commands that use it.

    Its login is in this process's environment, so what tests start has it."""

    url: str
    port: int
    lake: Path

    @property
    def login(self) -> str:
        return login(self.lake)

    def call(self, path: str, body: Any = None, method: str | None = None) -> Any:
        """One request to its API."""
        return Api(self.url, self.login)(path, body, method)

    @property
    def ui(self) -> str:
        return self.url.removesuffix("/api")

    @property
    def environment(self) -> dict[str, str]:
        return os.environ | {"PREFECT_API_URL": self.url, "PREFECT_API_AUTH_STRING": self.login}


class Ended(NamedTuple):
    """How a command ended, and what it printed where."""

    status: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)

    def mistake(self) -> str:
        """The one line a user's mistake is answered with."""
        assert self.status == 2, self
        assert self.out == ""
        assert self.err.startswith("headwater: ")
        assert self.err.count("\n") == 1
        assert "Traceback" not in self.err
        return self.err


Command = Callable[..., Ended]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def headwater(*arguments: str, **more: str) -> subprocess.CompletedProcess[str]:
    """The command in a process of its own."""
    command = [sys.executable, "-m", "flows.cli", *arguments]
    return subprocess.run(
        command, capture_output=True, text=True, timeout=300, env=os.environ | more, cwd=ROOT, check=False
    )


def up(lake: Path, port: int, **more: str) -> dict[str, Any]:
    """What `headwater up` says."""
    done = headwater("up", "--lake", str(lake), "--port", str(port), "--json", **more)
    assert done.returncode == 0, done.stderr
    return dict(json.loads(done.stdout))


@contextmanager
def answering(app: Any) -> Iterator[str]:
    """A server of an ASGI application in this process: where it is."""
    import uvicorn

    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        server = uvicorn.Server(uvicorn.Config(app, log_level="warning", lifespan="off", http="h11", loop="asyncio"))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"
        server.should_exit = server.force_exit = True
        thread.join()


@contextmanager
def browsing() -> Iterator[Any]:
    """Debian's Chromium under Playwright; the test skips where there is none. Prefect's flows can't run beside it."""
    playwright = pytest.importorskip("playwright.sync_api", reason="no playwright: pip install -e .[dev]")
    binary = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if not binary:
        pytest.skip("no Chromium: apt-get install chromium")
    with playwright.sync_playwright() as running:
        options = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--disable-dev-shm-usage"]
        browser = running.chromium.launch(executable_path=binary, args=options, timeout=120_000)
        yield browser
        browser.close()


def chromium(*arguments: str, profile: Path) -> str:
    """What a headless Chromium prints, in a profile of its own; the test skips where there is none."""
    names = ("chromium", "chromium-browser", "google-chrome")
    browser = next((found for name in names if (found := shutil.which(name))), None)
    if browser is None:
        pytest.skip("no Chromium: apt-get install chromium")
    quiet = (
        "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
        "--disable-component-update --disable-sync"
    )
    done = subprocess.run(
        [browser, *quiet.split(), f"--user-data-dir={profile}", *arguments],
        capture_output=True, text=True, timeout=300, check=True,
    )  # fmt: skip
    return done.stdout


def laid_out(html: str, folder: Path, width: int, scheme: str = "light") -> tuple[int, int, str]:
    """A page in a window of the browser: its width, the width that its content needs, and the colour behind it."""
    measure = "<script>document.title = [innerWidth, document.documentElement.scrollWidth,"
    measure += "getComputedStyle(document.body).backgroundColor].join(';')</script>"
    page = folder / f"page-{width}-{scheme}.html"
    page.write_text(html.replace("</body>", f"{measure}</body>"), encoding="utf-8")
    dark = f"--blink-settings=preferredColorScheme={int(scheme == 'light')}"
    shown = chromium(f"--window-size={width},900", dark, "--dump-dom", page.as_uri(), profile=folder / "profile")
    inner, needed, background = shown[shown.index("<title>") + 7 : shown.index("</title>")].split(";")
    return int(inner), int(needed), background


class Tab:
    """A page that is open: what it asks of the network, and what the console says against it."""

    def __init__(self, chromium: Any, width: int, patience_ms: int, **more: Any):
        # Playwright's own scripts are texts, which the policy stops; without it nothing else may run, either.
        self.context = chromium.new_context(
            viewport={"width": width, "height": 900}, bypass_csp=True, **({"locale": "en-US"} | more)
        )
        self.context.set_default_timeout(patience_ms)
        self.page = self.context.new_page()
        self.requests: list[str] = []
        self.errors: list[str] = []
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))
        self.page.on("console", lambda said: self.errors.append(said.text) if said.type == "error" else None)
