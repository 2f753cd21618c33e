"""Deployments as a person uses them in a browser: the form filled in and submitted, a schedule added, in both UIs.

Every run is seen to end. Screenshots stay in pytest's temporary folder (`browser`).
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from browser import Browser
from harness import PrefectServer, up

from datalake.errors import UserError
from flows.commands.service import POOL
from flows.service import deployments
from flows.service.api import Api

ENDED = ("COMPLETED", "FAILED", "CRASHED", "CANCELLED")


def recipe(folder: Path, corpus: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "texts.jsonl").write_text("".join(json.dumps({"text": f"text {i}"}) + "\n" for i in range(3)))
    source = {"kind": "table", "paths": [str(folder / "*.jsonl")]}
    body = {"corpus": corpus, "sources": [source], "runtime": {"workers": 1, "cluster": "inline"}}
    path = folder / "recipe.yaml"
    path.write_text(yaml.safe_dump(body))
    return path


def runs(server: PrefectServer, deployment: str, **filters: Any) -> list[dict[str, Any]]:
    """A deployment's runs, the newest first."""
    wanted = {"deployments": {"id": {"any_": [deployment]}}, "sort": "START_TIME_DESC", "flow_runs": filters}
    found: list[dict[str, Any]] = server.call("/flow_runs/filter", wanted)
    return found


def ended(browser: Browser, server: PrefectServer, find: Callable[[], list[dict[str, Any]]]) -> dict[str, Any]:
    """The run that `find` finds, once it has ended."""

    def run() -> Any:
        return next((one for one in find() if one["state"]["type"] in ENDED), None)

    return dict(browser.wait(run, lambda: f"the end of one of {[one['state'] for one in find()]}"))


def logs(server: PrefectServer, run: dict[str, Any]) -> list[str]:
    wanted = {"logs": {"flow_run_id": {"any_": [run["id"]]}}, "sort": "TIMESTAMP_ASC"}
    return [str(entry["message"]) for entry in server.call("/logs/filter", wanted)]


def named(server: PrefectServer, name: str) -> str:
    return str(server.call(f"/deployments/name/{name}")["id"])


@pytest.fixture(scope="module")
def scheduled(
    running: dict[str, Any],
    prefect_server: PrefectServer,
    browser: Browser,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[str]:
    """A deployment with a schedule of a minute, added in the UI that opens; the schedule is removed at the end."""
    deployment = named(prefect_server, "ingest/ingest")
    path = recipe(tmp_path_factory.mktemp("scheduled"), "by_schedule")
    browser.open(f"/deployments/deployment/{deployment}", "v2")
    browser.press("Schedule")
    browser.see("Add Schedule")
    browser.fill("Value", "1", "input")  # minutes
    browser.press("A file")
    browser.fill("recipe", str(path))
    browser.shot("schedule-v2")
    browser.press("Save")
    browser.wait(lambda: len(prefect_server.call(f"/deployments/{deployment}")["schedules"]) == 2)
    yield deployment
    for schedule in prefect_server.call(f"/deployments/{deployment}")["schedules"]:
        if schedule["slug"] is None:
            prefect_server.call(f"/deployments/{deployment}/schedules/{schedule['id']}", method="DELETE")
    for run in runs(prefect_server, deployment, state={"type": {"any_": ["SCHEDULED", "PENDING"]}}):
        prefect_server.call(f"/flow_runs/{run['id']}", method="DELETE")


@pytest.mark.parametrize("ui", [pytest.param("v1", marks=pytest.mark.slow), "v2"])
def test_every_form_is_drawn_whole(
    running: dict[str, Any], prefect_server: PrefectServer, browser: Browser, ui: str
) -> None:
    for deployment in deployments.there(Api(prefect_server.url, prefect_server.login)):
        browser.open(f"/deployments/deployment/{deployment['id']}/run", ui)
        fields = deployment["parameter_openapi_schema"]["properties"]
        browser.see(*fields, "Submit")
        assert "Error" not in browser.text
        browser.shot(f"form-{deployment['name']}-{ui}")


@pytest.mark.parametrize("ui", ["v1", "v2"])
def test_the_form_untouched_runs_the_demo(
    scheduled: str, prefect_server: PrefectServer, browser: Browser, ui: str
) -> None:
    pipeline = named(prefect_server, "pipeline/pipeline")
    before = {run["id"] for run in runs(prefect_server, pipeline)}
    # Nobody wants the demo's run here: it is removed before a worker gets it.
    prefect_server.call(f"/work_pools/{POOL}", {"is_paused": True}, "PATCH")
    try:
        browser.open(f"/deployments/deployment/{pipeline}/run", ui)
        browser.see("recipe", "set", "until", "lake", "A whole recipe")
        browser.shot(f"form-{ui}")
        browser.submit()
        (made,) = browser.wait(lambda: [run for run in runs(prefect_server, pipeline) if run["id"] not in before])
        prefect_server.call(f"/flow_runs/{made['id']}", method="DELETE")
    finally:
        prefect_server.call(f"/work_pools/{POOL}", {"is_paused": False}, "PATCH")
    assert made["parameters"] == {"recipe": "recipes/demo.yaml", "set": [], "until": "evaluate", "lake": ""}


@pytest.mark.parametrize("ui", [pytest.param("v1", marks=pytest.mark.slow), "v2"])
def test_the_form_filled_in_runs_what_it_says(
    scheduled: str, prefect_server: PrefectServer, browser: Browser, tmp_path: Path, ui: str
) -> None:
    pipeline = named(prefect_server, "pipeline/pipeline")
    path = recipe(tmp_path, f"by_form_{ui}")
    before = {run["id"] for run in runs(prefect_server, pipeline)}
    browser.driver.get_log("performance")
    browser.open(f"/deployments/deployment/{pipeline}/run", ui)
    browser.see("recipe", "set", "until", "lake")
    browser.press("A file")
    browser.fill("recipe", str(path))
    browser.choose("until", "ingest")
    browser.shot(f"filled-{ui}")
    browser.submit()
    run = ended(
        browser, prefect_server, lambda: [one for one in runs(prefect_server, pipeline) if one["id"] not in before]
    )
    assert run["state"]["type"] == "COMPLETED", run["state"]
    assert (run["parameters"]["recipe"], run["parameters"]["until"]) == (str(path), "ingest")

    (manifest,) = [
        json.loads(file.read_text())
        for file in (prefect_server.lake / "runs").glob("*.json")
        if run["id"] in file.read_text()
    ]
    assert run["name"] == f"by_form_{ui} {manifest['run']}"
    # The last lines reach the server after the state does.
    browser.wait(lambda: any(line.startswith("ingest ") for line in logs(prefect_server, run)))
    said = [line.split()[0] for line in logs(prefect_server, run)]
    assert (said.count("ingest"), said.count("curate")) == (1, 0)

    browser.open(f"/runs/flow-run/{run['id']}")
    browser.see(run["name"], "Completed")
    browser.shot(f"run-by-form-{ui}")
    wanted = {"artifacts": {"flow_run_id": {"any_": [run["id"]]}}}
    keys = {artifact["key"] for artifact in prefect_server.call("/artifacts/filter", wanted)}
    assert f"by-form-{ui}-ingest-record" in keys
    assert browser.elsewhere() == []


def test_a_schedule_added_in_the_ui_fires_and_ends(
    scheduled: str, prefect_server: PrefectServer, browser: Browser
) -> None:
    # Where this machine takes more than the minute to begin one, the next does its work.
    def begun() -> list[dict[str, Any]]:
        return [run for run in runs(prefect_server, scheduled) if run["state"]["type"] != "CANCELLED"]

    run = ended(browser, prefect_server, begun)
    assert run["state"]["type"] == "COMPLETED", run["state"]
    assert run["auto_scheduled"]
    assert run["name"].startswith("by_schedule ")


def test_schedules_of_people_survive_that_deployments_are_applied_again(
    scheduled: str, prefect_server: PrefectServer
) -> None:
    place = f"/deployments/{scheduled}/schedules"
    added, ours = sorted(
        prefect_server.call(f"/deployments/{scheduled}")["schedules"], key=lambda one: one["slug"] or ""
    )
    changed = {"schedule": {"cron": "7 4 * * *", "timezone": "UTC"}, "active": True}
    prefect_server.call(f"{place}/{ours['id']}", changed, "PATCH")
    # Its run has come; from now on it would only keep the machine busy.
    # (Prefect empties a schedule's parameters where a change doesn't name them.)
    prefect_server.call(f"{place}/{added['id']}", {"active": False, "parameters": added["parameters"]}, "PATCH")
    applied = prefect_server.lake / "prefect" / deployments.APPLIED
    applied.write_text(applied.read_text().replace('"digest": "', '"digest": "older '))
    try:
        assert up(prefect_server.lake, prefect_server.port)["changed"] == ["deployments"]
        kept = {one["id"]: one for one in prefect_server.call(f"/deployments/{scheduled}")["schedules"]}
        assert set(kept) == {added["id"], ours["id"]}
        assert kept[added["id"]]["schedule"] == added["schedule"]
        assert kept[added["id"]]["parameters"] == added["parameters"]
        assert (kept[ours["id"]]["active"], kept[ours["id"]]["schedule"]["cron"]) == (True, "7 4 * * *")
    finally:
        prefect_server.call(f"{place}/{ours['id']}", {"active": False, "schedule": ours["schedule"]}, "PATCH")


def test_a_wrong_recipe_ends_a_run_in_one_line(prefect_server: PrefectServer, tmp_path: Path) -> None:
    from prefect.logging.handlers import APILogHandler

    from flows.flows import ingest

    path = recipe(tmp_path, "wrong")
    path.write_text(path.read_text() + "colour: blue\n")
    for named_so, words in ((str(path), "unknown key 'colour'"), ("recipes/none.yaml", "no recipe at")):
        state = ingest(recipe=named_so, lake=str(tmp_path / "lake"), return_state=True)
        assert state.is_failed()
        assert words in str(state.message)
        assert "\n" not in str(state.message)
        APILogHandler().flush()
        said = logs(prefect_server, {"id": str(state.state_details.flow_run_id)})
        assert len([line for line in said if words in line]) == 1
        assert not any("Traceback" in line for line in said)


def test_the_engine_of_a_deployed_run_repeats_no_error_that_was_told(
    prefect_server: PrefectServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from prefect.flow_engine import run_flow

    from flows.flows import ingest

    said: list[str] = []
    log = logging.getLogger("prefect.flow_runs")
    monkeypatch.setattr(log, "handlers", [handler := logging.Handler()])
    monkeypatch.setattr(handler, "emit", lambda record: said.append(logging.Formatter().format(record)))
    parameters = {"recipe": "recipes/none.yaml", "set": [], "lake": str(tmp_path / "lake")}
    with pytest.raises(UserError):
        run_flow(ingest, parameters=parameters, error_logger=log)  # as the process of a deployment's run does
    assert [line for line in said if "no recipe at" in line], "its state is told"
    assert not any("Traceback" in line for line in said)
    log.error("another", exc_info=ValueError("new"))
    assert "ValueError: new" in said[-1]
