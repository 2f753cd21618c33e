"""Fixtures shared by the whole suite: the real samples, where they are."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


def samples_root() -> Path:
    """Where the real samples are looked for: HEADWATER_SAMPLES, else beside the repository."""
    return Path(os.environ.get("HEADWATER_SAMPLES", ROOT.parent / "shared" / "samples"))


@pytest.fixture(scope="session")
def samples() -> Path:
    """The folder of real samples; the test skips where there is none."""
    root = samples_root()
    if not root.is_dir():
        pytest.skip(f"no samples at {root}: set HEADWATER_SAMPLES")
    return root


@dataclass(frozen=True)
class PrefectServer:
    """The suite's one Prefect server: its API, the lake it belongs to, and the environment of commands that use it."""

    url: str
    port: int
    lake: Path

    @property
    def environment(self) -> dict[str, str]:
        return os.environ | {"PREFECT_API_URL": self.url}


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture(scope="session")
def prefect_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PrefectServer]:
    """One Prefect server for the whole suite (20 s); flows called in this process go to it."""
    from flows.commands import service

    lake, port = tmp_path_factory.mktemp("server") / "lake", free_port()
    service.start_server(lake, port)
    server = PrefectServer(f"http://127.0.0.1:{port}/api", port, lake)
    try:
        from prefect.settings import PREFECT_API_URL, PREFECT_HOME, temporary_settings

        with temporary_settings({PREFECT_API_URL: server.url, PREFECT_HOME: lake / "prefect"}):
            yield server
    finally:
        service.stop(lake, as_json=True)
