"""`headwater up` and `down`: one state to reach, from whatever state there is."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest
from harness import PrefectServer, free_port, headwater, up

from datalake.errors import UserError
from flows.commands import service
from flows.commands.common import Common
from flows.deployment import version
from flows.service import daemons, deployments
from flows.service.api import Api, call
from flows.service.environment import alive, prepare, process_mark, server_state
from flows.service.login import login


def finished(api: Callable[..., Any], run: str, limit_s: float = 180) -> dict[str, Any]:
    deadline = time.monotonic() + limit_s
    while time.monotonic() < deadline:
        found = api(f"/flow_runs/{run}")
        if found["state"]["type"] in ("COMPLETED", "FAILED", "CRASHED", "CANCELLED"):
            return dict(found)
        time.sleep(0.5)
    raise AssertionError(f"flow run {run} did not end in {limit_s} s: {found['state']}")


def toy(folder: Path, texts: int = 3) -> dict[str, Any]:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "texts.jsonl").write_text("".join(json.dumps({"text": f"text {i}"}) + "\n" for i in range(texts)))
    source = {"kind": "table", "paths": [str(folder / "*.jsonl")]}
    return {"corpus": "toy", "sources": [source], "runtime": {"workers": 1, "cluster": "inline"}}


def test_up_completes_what_is_half_there(running: dict[str, Any], prefect_server: PrefectServer) -> None:
    assert running["changed"] == ["worker", "deployments"]
    assert running["url"] == prefect_server.url
    assert psutil.Process(running["worker"]).is_running()


def test_a_second_up_changes_nothing(running: dict[str, Any], prefect_server: PrefectServer) -> None:
    # What is written down is stale, and the user's own Prefect has another password: neither is asked.
    stale = {"url": f"http://127.0.0.1:{free_port()}/api", "server": "1:1", "worker": "2:2"}
    (prefect_server.lake / "prefect" / service.STATE).write_text(json.dumps(stale))
    again = up(prefect_server.lake, prefect_server.port, PREFECT_API_AUTH_STRING="their:own")
    assert again["changed"] == []
    assert again == running | {"changed": [], "seconds": again["seconds"]}
    assert server_state(prefect_server.lake)["url"] == prefect_server.url


def test_the_password_is_the_owners_alone(running: dict[str, Any], prefect_server: PrefectServer) -> None:
    file = prefect_server.lake / "prefect" / "password"
    assert running["login"] == prefect_server.login == file.read_text().strip()
    assert (file.stat().st_mode & 0o777, file.parent.stat().st_mode & 0o777) == (0o600, 0o700)
    file.chmod(0o644)
    assert login(prefect_server.lake) == running["login"]
    assert file.stat().st_mode & 0o777 == 0o600


def test_each_lake_has_a_password_of_its_own(tmp_path: Path) -> None:
    first, second = login(tmp_path / "a"), login(tmp_path / "b")
    assert first.startswith("headwater:")
    assert len(first) > 30
    assert first != second
    assert login(tmp_path / "a") == first
    (tmp_path / "a" / "prefect" / "password").write_text("")
    assert login(tmp_path / "a") != first


def test_a_run_takes_the_password_of_the_server_that_it_goes_to(
    prefect_server: PrefectServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "environ", os.environ.copy())
    for url, known, expected in (
        (prefect_server.url, prefect_server.login, prefect_server.login),
        (None, "their:own", login(tmp_path)),
    ):
        os.environ |= {"PREFECT_API_AUTH_STRING": known}
        os.environ.pop("PREFECT_API_URL", None)
        if url:
            os.environ |= {"PREFECT_API_URL": url}
        assert prepare(tmp_path) == (url if expected == prefect_server.login else None)
        assert os.environ["PREFECT_API_AUTH_STRING"] == expected
    os.environ |= {"PREFECT_API_URL": prefect_server.url, "PREFECT_API_AUTH_STRING": "their:own"}
    with pytest.raises(UserError, match="PREFECT_API_AUTH_STRING"):
        prepare(tmp_path)
    os.environ["PREFECT_API_URL"] = f"http://127.0.0.1:{free_port()}/api"
    with pytest.raises(UserError, match="no Prefect server answers"):
        prepare(tmp_path)
    # A stale note that names another lake's server is no way to it.
    os.environ.pop("PREFECT_API_URL")
    (tmp_path / "prefect" / service.STATE).write_text(json.dumps({"url": prefect_server.url}))
    assert prepare(tmp_path) is None


def test_down_waits_for_up(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    said: list[str] = []
    with service._one_at_a_time(tmp_path, said.append):
        other = threading.Thread(target=service.stop, args=(tmp_path,))
        other.start()
        other.join(2)
        assert other.is_alive()
    other.join(60)
    assert not other.is_alive()
    assert said == []
    shown = capsys.readouterr()
    assert "waiting for it" in shown.err


def test_daemons_are_no_leftovers_of_up(running: dict[str, Any], prefect_server: PrefectServer) -> None:
    from flows.service.environment import clear_leftovers

    # The `up` that started them has ended long ago; a run that now clears what killed runs left spares them.
    assert clear_leftovers(prefect_server.lake) == []
    for name in ("server", "worker"):
        process = psutil.Process(running[name])
        assert process.is_running()
        assert os.getsid(process.pid) == process.pid
        assert "HEADWATER_PROCESS_OWNER" not in process.environ()


def test_deployments_wait_in_line_and_start_by_themselves_only_when_told_to(
    running: dict[str, Any], prefect_server: PrefectServer
) -> None:
    scheduled = ["pipeline", "ingest", "crawl", "wikipedia", "code", "evaluate", "judge", "maintain"]
    for name in (*scheduled, "curate", "train", "plan", "sweep", "ablate"):
        deployment = prefect_server.call(f"/deployments/name/{name}/{name}")
        assert deployment["work_pool_name"] == service.POOL
        assert deployment["global_concurrency_limit"]["limit"] == 1
        assert deployment["concurrency_options"]["collision_strategy"] == "ENQUEUE"
        assert deployment["enforce_parameter_schema"]
        assert deployment["version"] == version()
        assert "headwater" in deployment["tags"]
        assert [schedule["active"] for schedule in deployment["schedules"]] == [False] * (name in scheduled)
        assert all(schedule["schedule"]["timezone"] == "UTC" for schedule in deployment["schedules"])


def test_runs_beyond_what_the_machine_bears_wait_for_it(running: dict[str, Any], prefect_server: PrefectServer) -> None:
    assert prefect_server.call(f"/work_pools/{service.POOL}")["concurrency_limit"] >= 4


def test_the_versions_are_gits(tmp_path: Path) -> None:
    commit = subprocess.run(["git", "rev-parse", "HEAD"], cwd=service.ROOT, capture_output=True, text=True, check=False)
    if commit.returncode:
        pytest.skip("no git working tree")
    assert version().removesuffix("+changes") == commit.stdout[:12]


def test_a_run_that_waits_for_people_keeps_no_other_from_running(
    running: dict[str, Any], prefect_server: PrefectServer
) -> None:
    deployment = prefect_server.call("/deployments/name/label/label")
    assert deployment["global_concurrency_limit"] is None
    assert deployment["enforce_parameter_schema"]


_FORMS = (
    ("pipeline/pipeline", ["until"]),
    ("ingest/ingest", []),
    ("curate/curate", []),
    ("train/train", ["stage", "steps"]),
    ("sweep/sweep", ["depths", "ratios", "held_out", "aspect"]),
    ("ablate/ablate", ["against", "seeds"]),
    ("evaluate/evaluate", []),
    ("label/label", ["judged", "pairs"]),
)


def test_the_form_is_short_and_filled_in_with_the_demo(running: dict[str, Any], prefect_server: PrefectServer) -> None:
    others = [path for path in (service.ROOT / "recipes").glob("*.yaml") if path.name != "demo.yaml"]
    for name, last in _FORMS:
        deployment = prefect_server.call(f"/deployments/name/{name}")
        fields = deployment["parameter_openapi_schema"]["properties"]
        assert sorted(fields) == sorted(["recipe", "set", "lake", *last])
        assert all(field["description"] for field in fields.values())
        kinds = [kind.get("enum") or kind["type"] for kind in fields["recipe"]["anyOf"]]
        assert kinds == [
            "string",
            ["recipes/demo.yaml", *sorted(f"recipes/{path.name}" for path in others)],
            "object",
        ]
        assert deployment["parameters"] == {"recipe": "recipes/demo.yaml"}


def test_forms_without_a_recipe_say_what_each_field_is(running: dict[str, Any], prefect_server: PrefectServer) -> None:
    for name, own in (
        ("judge", ["checkpoints", "benchmarks", "limit", "shots", "reasons", "cluster"]),
        ("promote", ["candidate", "tag", "benchmarks", "limit", "contamination", "losses", "cluster"]),
        ("crawl", ["snapshots", "archives", "languages", "set"]),
        ("wikipedia", ["wiki", "dumps", "set"]),
        ("code", ["paths", "set"]),
        ("plan", ["gpu", "gpu_hours", "gpus", "corpus"]),
        ("maintain", ["apply", "days", "abandoned"]),
    ):
        deployment = prefect_server.call(f"/deployments/name/{name}/{name}")
        fields = deployment["parameter_openapi_schema"]["properties"]
        assert sorted(fields) == sorted(["lake", *own])
        assert all(field["description"] for field in fields.values())
        assert deployment["parameters"] == {}, "every field has a default"


def test_the_crawl_takes_an_open_range_of_snapshots_every_night(
    running: dict[str, Any], prefect_server: PrefectServer
) -> None:
    deployment = prefect_server.call("/deployments/name/crawl/crawl")
    assert deployment["parameter_openapi_schema"]["properties"]["snapshots"]["default"].endswith("..")
    (schedule,) = deployment["schedules"]
    assert (schedule["slug"], schedule["schedule"]["cron"]) == ("nightly", "30 1 * * *")


def test_the_upkeep_on_schedule_removes_and_the_one_of_the_form_only_lists(
    running: dict[str, Any], prefect_server: PrefectServer
) -> None:
    deployment = prefect_server.call("/deployments/name/maintain/maintain")
    (schedule,) = deployment["schedules"]
    assert schedule["parameters"] == {"apply": True}
    assert deployment["parameter_openapi_schema"]["properties"]["apply"]["default"] is False


def test_a_form_with_a_mistake_is_refused(
    running: dict[str, Any], prefect_server: PrefectServer, tmp_path: Path
) -> None:
    deployment = prefect_server.call("/deployments/name/pipeline/pipeline")
    place = f"/deployments/{deployment['id']}/create_flow_run"
    for wrong, where in (({"deduplicate": {"threshold": 7}}, "threshold"), ({"colour": "blue"}, "colour")):
        with pytest.raises(urllib.error.HTTPError) as error:
            prefect_server.call(place, {"parameters": {"recipe": toy(tmp_path) | wrong}})
        assert error.value.code == 409
        assert where in error.value.read().decode()
    with pytest.raises(urllib.error.HTTPError, match="409"):
        prefect_server.call(place, {"parameters": {"until": "sometime"}})


def test_a_run_from_the_form_uses_the_lake_of_the_server(
    running: dict[str, Any], prefect_server: PrefectServer, tmp_path: Path
) -> None:
    deployment = prefect_server.call("/deployments/name/pipeline/pipeline")
    # As the form sends it: every section with its defaults, fields left empty as null.
    sent = {
        "recipe": toy(tmp_path) | {"vars": {}, "curate": {"preset": "none"}},
        "until": "ingest",
        "set": [],
        "lake": "",
    }
    run = prefect_server.call(f"/deployments/{deployment['id']}/create_flow_run", {"parameters": sent})
    assert finished(prefect_server.call, run["id"])["state"]["type"] == "COMPLETED"
    asked = headwater("query", "SELECT count(*) AS n FROM toy.raw", "--json", "--lake", str(prefect_server.lake))
    assert json.loads(asked.stdout) == [{"n": 3}], asked.stderr


def test_a_port_taken_is_one_line_and_nothing_is_written(tmp_path: Path) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        done = headwater("up", "--lake", str(tmp_path / "lake"), "--port", str(port))
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert f"port {port}" in done.stderr
    assert "--port" in done.stderr
    assert not (tmp_path / "lake").exists()


def test_a_port_that_is_none_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="1 to 65535"):
        service.up(port=70_000, common=Common(tmp_path / "lake"))
    assert not (tmp_path / "lake").exists()


def test_down_where_nothing_is_up_is_no_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    service.down(common=Common(tmp_path / "lake", json=True))
    assert json.loads(capsys.readouterr().out)["stopped"] == {"worker": [], "runs": [], "server": []}
    assert not (tmp_path / "lake").exists()


def test_a_mark_tells_a_process_from_another_of_its_number() -> None:
    process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    mark = process_mark(process.pid)
    assert alive(mark)
    assert not alive(f"{process.pid}:1")
    process.kill()
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    assert not alive(mark), "a killed process is dead before its parent has waited for it"
    process.wait()


def test_daemons_are_found_by_what_they_are_not_by_a_file(tmp_path: Path) -> None:
    pid = daemons.spawn("worker", tmp_path, [sys.executable, "-c", "import time; time.sleep(60)", "worker"], os.environ)
    try:
        deadline = time.monotonic() + 60
        while not daemons.find("worker", tmp_path) and time.monotonic() < deadline:
            time.sleep(0.05)
        assert [process.pid for process in daemons.find("worker", tmp_path)] == [pid]
        assert daemons.find("server", tmp_path) == []
        assert daemons.find("worker", tmp_path / "other") == []
    finally:
        assert daemons.end(daemons.find("worker", tmp_path)) == [pid]
    assert daemons.find("worker", tmp_path) == []


@pytest.mark.slow
def test_up_repairs_what_kills_left(tmp_path: Path) -> None:
    lake, port = tmp_path / "lake", free_port()
    try:
        first = up(lake, port)
        assert first["changed"] == ["server", "worker", "deployments"]
        api = Api(first["url"], first["login"])
        deployment = api("/deployments/name/pipeline/pipeline")
        place = f"/deployments/{deployment['id']}/create_flow_run"
        long = toy(tmp_path / "in", texts=200_000)
        run = api(place, {"parameters": {"recipe": long, "until": "ingest"}})
        while not any(process.is_running() for process in daemons.runs(lake)):
            time.sleep(0.2)
        while api(f"/flow_runs/{run['id']}")["state"]["type"] != "RUNNING":
            time.sleep(0.2)

        for process in [*daemons.find("worker", lake), *daemons.runs(lake)]:
            process.send_signal(signal.SIGKILL)
        second = up(lake, port)
        assert second["changed"] == ["worker"]
        assert second["server"] == first["server"]
        assert api(f"/flow_runs/{run['id']}")["state"]["type"] == "CRASHED"

        short = call(first["url"], place, {"parameters": {"recipe": toy(tmp_path / "short"), "until": "ingest"}})
        assert finished(api, short["id"])["state"]["type"] == "COMPLETED", "the lost run holds no slot"

        psutil.Process(second["server"]).kill()
        (lake / "prefect" / service.STATE).write_text("{")
        place = f"/deployments/{deployment['id']}/schedules"
        added = {"schedule": {"interval": 86_400}, "active": True, "parameters": {"until": "ingest"}}
        api(place, [added])
        (ours,) = [one for one in api(f"/deployments/{deployment['id']}")["schedules"] if one["slug"] == "weekly"]
        api(f"{place}/{ours['id']}", {"active": True, "schedule": {"cron": "5 4 * * *", "timezone": "UTC"}}, "PATCH")
        applied = lake / "prefect" / deployments.APPLIED
        applied.write_text(applied.read_text().replace('"digest": "', '"digest": "older '))
        third = up(lake, port, PREFECT_API_AUTH_STRING="their:own")
        assert third["changed"] == ["server", "worker", "deployments"]
        kept = api(f"/deployments/{deployment['id']}")["schedules"]
        assert sorted((one["slug"] or "", one["active"]) for one in kept) == [("", True), ("weekly", True)]
        assert {one["schedule"].get("cron") for one in kept} == {None, "5 4 * * *"}
        assert third["server"] != first["server"]
        assert not psutil.pid_exists(second["worker"])
    finally:
        assert headwater("down", "--lake", str(lake), PREFECT_API_AUTH_STRING="their:own").returncode == 0
    assert server_state(lake) == {}
    assert daemons.find("server", lake) == daemons.find("worker", lake) == daemons.runs(lake) == []
    again = headwater("down", "--lake", str(lake))
    assert (again.returncode, again.stdout.strip()) == (0, f"nothing was up for {lake}")


class Deployed:
    """A server's API as far as schedules go."""

    def __init__(self, schedules: list[dict[str, Any]]):
        self.schedules = schedules
        self.asked: list[tuple[str, Any]] = []

    def __call__(self, path: str, body: Any = None, method: str | None = None) -> Any:
        if path == "/deployments/filter":
            return [{"id": "d", "name": "ingest", "schedules": self.schedules}]
        self.asked.append((f"{method or 'POST'} {path}", body))
        return None


def test_a_schedule_is_made_once_and_then_belongs_to_whoever_changes_it() -> None:
    nightly = {"slug": "nightly", "cron": "0 1 * * *", "timezone": "UTC", "active": False}
    later = nightly | {"cron": "0 3 * * *"}
    here = [{"id": "s", "slug": "nightly", "active": True}, {"id": "p", "slug": None, "active": True}]

    def asked(schedules: list[dict[str, Any]], wanted: dict[str, Any], before: dict[str, Any] | None) -> Any:
        api = Deployed(schedules)
        last = {"ingest": {"nightly": before}} if before else {}
        deployments._schedule(api, {"ingest": {"nightly": wanted}}, last)  # type: ignore[arg-type]
        return api.asked

    ((made, (body,)),) = asked([], nightly, None)
    assert made == "POST /deployments/d/schedules"
    assert body == {
        "slug": "nightly",
        "schedule": {"cron": "0 1 * * *", "timezone": "UTC"},
        "parameters": {},
        "active": False,
    }
    assert asked(here, nightly, nightly) == [], "turned on by a person: left alone"
    assert asked(here, nightly, None) == [], "made by an older version: left alone"
    assert asked(here[1:], nightly, nightly) == [], "removed by a person: stays so"
    ((changed, body),) = asked(here, later, nightly)
    assert changed == "PATCH /deployments/d/schedules/s"
    assert body["schedule"]["cron"] == "0 3 * * *"
    assert body["active"], "on or off as it was"


def test_a_copy_of_a_lake_does_not_use_the_server_of_the_original(tmp_path: Path) -> None:
    from flows.commands.service import _write

    original, copy = tmp_path / "original", tmp_path / "copy"
    _write(original, {"url": "http://127.0.0.1:9/api"})
    shutil.copytree(original, copy)
    assert server_state(original)["url"] == "http://127.0.0.1:9/api"
    assert server_state(copy) == {}
