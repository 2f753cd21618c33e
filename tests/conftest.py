"""Fixtures shared by the whole suite: the real samples, where they are."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from harness import ROOT, PrefectServer, free_port


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
