"""Scheduled runs that wait in line: the last one that is due does the work, those before it are cancelled."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from uuid import uuid4

import pytest
from harness import PrefectServer
from prefect.client.schemas.objects import FlowRun
from prefect.states import Cancelled, Cancelling, Completed, Failed, Scheduled, State
from test_automations import until
from test_forms import recipe, runs

from flows import flows, schedules
from flows.commands.service import POOL

DEPLOYMENT, BEGAN = uuid4(), datetime(2026, 11, 30, 1, tzinfo=UTC)


def due(hours: int, state: State | None = None, **more: Any) -> FlowRun:
    asked = {"auto_scheduled": True, "run_count": 1, "deployment_id": DEPLOYMENT, "parameters": {"lake": ""}} | more
    return FlowRun(flow_id=uuid4(), expected_start_time=BEGAN + timedelta(hours=hours), state=state, **asked)


@pytest.mark.parametrize(
    ("this", "others", "found"),
    [
        ({}, [], None),
        ({}, [due(2, Scheduled()), due(1, Scheduled())], 0),
        ({}, [due(2, Failed()), due(1, Scheduled())], 0),  # begun out of order: an old one doesn't try again
        ({}, [due(2, Cancelled()), due(1, Completed())], 1),
        ({}, [due(2, Cancelled()), due(1, Cancelling())], None),  # of people
        ({}, [due(2, Scheduled(), parameters={"lake": "another"})], None),  # of another schedule
        ({}, [due(2, Scheduled(), auto_scheduled=False)], None),  # asked for by a person
        ({"auto_scheduled": False}, [due(2, Scheduled())], None),
        ({"run_count": 2}, [due(2, Scheduled())], None),  # tried again
        ({"deployment_id": None}, [due(2, Scheduled())], None),
    ],
)
def test_who_comes_after_a_run(
    monkeypatch: pytest.MonkeyPatch, this: dict[str, Any], others: list[FlowRun], found: int | None
) -> None:
    run = due(0, **this)
    asked: list[Any] = []

    def read_flow_runs(flow_run_filter: Any, **more: Any) -> list[FlowRun]:
        asked.append(flow_run_filter.expected_start_time)
        return [*others, run]

    monkeypatch.setattr(schedules, "get_client", lambda sync_client: SimpleNamespace(read_flow_runs=read_flow_runs))
    monkeypatch.setattr(schedules, "FlowRunContext", SimpleNamespace(get=lambda: SimpleNamespace(flow_run=run)))
    assert schedules.successor() is (None if found is None else others[found])
    assert all(one.after_ == BEGAN and one.before_ <= datetime.now(UTC) for one in asked)


def test_of_two_that_are_due_at_one_time_one_does_the_work(monkeypatch: pytest.MonkeyPatch) -> None:
    both = [due(0, Scheduled()), due(0, Scheduled())]
    client = SimpleNamespace(read_flow_runs=lambda **asked: both)
    monkeypatch.setattr(schedules, "get_client", lambda sync_client: client)
    found = []
    for run in both:
        context = SimpleNamespace(flow_run=run)
        monkeypatch.setattr(schedules, "FlowRunContext", SimpleNamespace(get=lambda context=context: context))
        found.append(schedules.successor())
    last = max(both, key=lambda run: run.id)
    assert found == [None if run is last else last for run in both]


def test_a_flow_that_is_called_has_none() -> None:
    assert schedules.successor() is None


def test_a_run_that_has_one_is_cancelled_and_does_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[str] = []

    def work() -> None:
        done.append("work")

    flow: Any = flows.in_one_line(work)
    monkeypatch.setattr(flows, "successor", lambda: due(1, name="later-run"))
    state = flow()
    assert state.is_cancelled()
    assert "later-run was due later" in state.message
    assert done == []
    monkeypatch.setattr(flows, "successor", lambda: None)
    flow()
    assert done == ["work"]


@pytest.mark.slow
def test_of_runs_that_were_due_while_nobody_could_begin_them_one_does_the_work(
    running: dict[str, Any], prefect_server: PrefectServer, tmp_path: Path
) -> None:
    deployment = prefect_server.call("/deployments/name/ingest/ingest")["id"]
    begin = datetime.now(UTC) + timedelta(seconds=45)  # the server looks for new schedules from time to time
    times = f"DTSTART:{begin:%Y%m%dT%H%M%S}Z\nRRULE:FREQ=SECONDLY;INTERVAL=2;COUNT=4"
    parameters = {"recipe": str(recipe(tmp_path, "late")), "lake": str(tmp_path / "lake")}
    asked = {"active": True, "schedule": {"rrule": times, "timezone": "UTC"}, "parameters": parameters}

    def ours() -> list[dict[str, Any]]:
        return [run for run in runs(prefect_server, deployment) if run["parameters"].get("lake") == parameters["lake"]]

    def state(run: dict[str, Any]) -> str:
        return str(run["state"]["type"])

    pool = f"/work_pools/{POOL}"
    prefect_server.call(pool, {"is_paused": True}, "PATCH")
    try:
        [made] = prefect_server.call(f"/deployments/{deployment}/schedules", [asked])
        until(lambda: len(ours()) == 4, ours, 120)
        until(lambda: datetime.now(UTC) > begin + timedelta(seconds=8), ours, 120)
    finally:
        prefect_server.call(pool, {"is_paused": False}, "PATCH")
    try:
        until(lambda: {state(run) for run in ours()} <= {"CANCELLED", "COMPLETED", "FAILED", "CRASHED"}, ours, 120)
    finally:
        prefect_server.call(f"/deployments/{deployment}/schedules/{made['id']}", method="DELETE")
    found = sorted(ours(), key=lambda run: str(run["expected_start_time"]))
    assert [state(run) for run in found] == ["CANCELLED"] * 3 + ["COMPLETED"]
    assert "due later and does the same work" in found[0]["state"]["message"]
