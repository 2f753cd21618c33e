"""The suite's Prefect server with deployments and a worker, as `headwater up` leaves it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from harness import ROOT, PrefectServer

Up = Callable[[Path, int], dict[str, Any]]


@pytest.fixture(scope="session")
def up() -> Up:
    """`headwater up` in a process of its own; gives what it says."""

    def call(lake: Path, port: int) -> dict[str, Any]:
        command = [sys.executable, "-m", "flows.cli", "up", "--lake", str(lake), "--port", str(port), "--json"]
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=300, env=os.environ, cwd=ROOT, check=False
        )
        assert done.returncode == 0, done.stderr
        return dict(json.loads(done.stdout))

    return call


@pytest.fixture(scope="session")
def running(prefect_server: PrefectServer, up: Up) -> dict[str, Any]:
    """What `up` says where only a server is there: the suite's. The suite's end stops all of it."""
    return up(prefect_server.lake, prefect_server.port)
