"""The suite's Prefect server with deployments and a worker, as `headwater up` leaves it, and a browser on it."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from typing import Any

import pytest
from browser import Browser, chromium
from harness import PrefectServer, up


@pytest.fixture(scope="session")
def running(prefect_server: PrefectServer) -> dict[str, Any]:
    """What `up` says where only a server is there: the suite's. The suite's end stops all of it."""
    return up(prefect_server.lake, prefect_server.port)


@pytest.fixture(scope="session")
def browser(prefect_server: PrefectServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    """Chromium, logged in to the suite's server with the password that `up` shows."""
    pytest.importorskip("selenium", reason="no selenium: pip install -e .[dev]")
    binary = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    driver = shutil.which("chromedriver")
    if not binary or not driver:
        pytest.skip("no Chromium with its driver: apt-get install chromium chromium-driver")
    with chromium(binary, driver, prefect_server.ui, tmp_path_factory.mktemp("browser")) as opened:
        opened.log_in(prefect_server.login)
        yield opened
