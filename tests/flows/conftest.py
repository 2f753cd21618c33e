"""The suite's Prefect server with deployments and a worker, as `headwater up` leaves it."""

from __future__ import annotations

from typing import Any

import pytest
from harness import PrefectServer, up


@pytest.fixture(scope="session")
def running(prefect_server: PrefectServer) -> dict[str, Any]:
    """What `up` says where only a server is there: the suite's. The suite's end stops all of it."""
    return up(prefect_server.lake, prefect_server.port)
