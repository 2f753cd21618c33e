"""A flow run that is cancelled leaves no process and no lease, and the next one goes on from what it had finished."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import world
import yaml
from begun import many_archives, processes_of
from harness import PrefectServer

from datalake.lake.lake import Lake

pytestmark = pytest.mark.slow


def until(ready: Callable[[], Any], what: Callable[[], Any], limit_s: float = 400) -> Any:
    deadline = time.monotonic() + limit_s
    while not (found := ready()):
        assert time.monotonic() < deadline, f"did not come: {what()}"
        time.sleep(0.2)
    return found


def test_a_cancelled_run_leaves_nothing_behind(
    running: dict[str, Any], prefect_server: PrefectServer, tmp_path: Path
) -> None:
    lake = tmp_path / "lake"
    recipe = many_archives(tmp_path / "in", 60, 25) | {"runtime": {"workers": 1, "cluster": "local", "memory_gb": 1}}
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    deployment = prefect_server.call("/deployments/name/ingest/ingest")["id"]
    place = f"/deployments/{deployment}/create_flow_run"
    parameters = {"parameters": {"recipe": str(tmp_path / "recipe.yaml"), "lake": str(lake)}}

    def state(run: str) -> str:
        return str(prefect_server.call(f"/flow_runs/{run}")["state"]["type"])

    run = prefect_server.call(place, parameters)["id"]
    until(lambda: len(world.shard_marks(lake, "ingest")) >= 2, lambda: state(run))
    assert processes_of(lake), "Ray's at least"
    assert len(Lake(lake).running()) == 1
    prefect_server.call(f"/flow_runs/{run}/set_state", {"state": {"type": "CANCELLING"}})  # as the UI's button does
    until(lambda: state(run) == "CANCELLED", lambda: state(run))
    until(lambda: not processes_of(lake), lambda: processes_of(lake))
    assert Lake(lake).running() == {}
    assert list((lake / "records").glob("*")) == []
    finished = world.shard_marks(lake, "ingest")
    assert 2 <= len(finished) < 60

    again = prefect_server.call(place, parameters)["id"]
    until(lambda: state(again) == "COMPLETED", lambda: state(again))
    assert finished.items() <= world.shard_marks(lake, "ingest").items()
    assert len(world.shard_marks(lake, "ingest")) == 60
    until(lambda: not processes_of(lake), lambda: processes_of(lake))
    assert list(lake.rglob("*.tmp")) == []
