"""`headwater up` and `down`: one state to reach, from whatever state there is."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml
from harness import PrefectServer, free_port, headwater, up

from datalake.errors import UserError
from flows import daemons
from flows.commands import service
from flows.environment import alive, process_mark, server_state
from flows.recipe import STAGES


def finished(url: str, run: str, limit_s: float = 180) -> dict[str, Any]:
    deadline = time.monotonic() + limit_s
    while time.monotonic() < deadline:
        found = service.call(url, f"/flow_runs/{run}")
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
    again = up(prefect_server.lake, prefect_server.port)
    assert again["changed"] == []
    assert (again["server"], again["worker"]) == (running["server"], running["worker"])


def test_daemons_are_no_leftovers_of_up(running: dict[str, Any], prefect_server: PrefectServer) -> None:
    from flows.environment import clear_leftovers

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
    for name in ("pipeline/pipeline", "ingest/ingest", "ingest/crawl", "evaluate/evaluate"):
        deployment = service.call(prefect_server.url, f"/deployments/name/{name}")
        assert deployment["work_pool_name"] == service.POOL
        assert deployment["global_concurrency_limit"]["limit"] == 1
        assert deployment["concurrency_options"]["collision_strategy"] == "ENQUEUE"
        assert deployment["enforce_parameter_schema"]
        assert [schedule["active"] for schedule in deployment["schedules"]] == [False]


def test_the_form_is_the_recipe_filled_in_with_the_demo(running: dict[str, Any], prefect_server: PrefectServer) -> None:
    deployment = service.call(prefect_server.url, "/deployments/name/pipeline/pipeline")
    schema = deployment["parameter_openapi_schema"]
    recipe = schema["definitions"]["Recipe"]
    assert {"corpus", "sources", "runtime", *STAGES[1:4]} <= set(recipe["properties"])
    assert recipe["properties"]["corpus"]["description"]
    assert "Wikipedia" in schema["definitions"]
    folder = service.ROOT / "recipes"
    demo = yaml.safe_load((folder / "demo.yaml").read_text().replace("${recipe}", str(folder)))
    assert deployment["parameters"] == {"recipe": demo}


def test_the_crawl_takes_an_open_range_of_snapshots_once_a_month(
    running: dict[str, Any], prefect_server: PrefectServer
) -> None:
    deployment = service.call(prefect_server.url, "/deployments/name/ingest/crawl")
    crawl = yaml.safe_load((service.ROOT / "recipes" / "crawl.yaml").read_text())
    assert deployment["parameters"] == {"recipe": crawl}
    (source,) = crawl["sources"]
    assert source["snapshots"][0].endswith("..")
    (schedule,) = deployment["schedules"]
    assert schedule["schedule"]["cron"] == "0 3 5 * *"


def test_a_form_with_a_mistake_is_refused(
    running: dict[str, Any], prefect_server: PrefectServer, tmp_path: Path
) -> None:
    deployment = service.call(prefect_server.url, "/deployments/name/pipeline/pipeline")
    place = f"/deployments/{deployment['id']}/create_flow_run"
    for wrong in ({"deduplicate": {"threshold": 7}}, {"colour": "blue"}):
        with pytest.raises(service.urllib.error.HTTPError) as error:
            service.call(prefect_server.url, place, {"parameters": {"recipe": toy(tmp_path) | wrong}})
        assert error.value.code == 409


def test_a_run_from_the_form_uses_the_lake_of_the_server(
    running: dict[str, Any], prefect_server: PrefectServer, tmp_path: Path
) -> None:
    deployment = service.call(prefect_server.url, "/deployments/name/pipeline/pipeline")
    # As the form sends it: every section with its defaults, fields left empty as null.
    sent = {"recipe": toy(tmp_path) | {"vars": {}, "curate": {"preset": "none"}}, "until": "ingest", "lake": ""}
    run = service.call(prefect_server.url, f"/deployments/{deployment['id']}/create_flow_run", {"parameters": sent})
    assert finished(prefect_server.url, run["id"])["state"]["type"] == "COMPLETED"
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
        service.start(tmp_path / "lake", 70_000, as_json=True)
    assert not (tmp_path / "lake").exists()


def test_down_where_nothing_is_up_is_no_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert service.stop(tmp_path / "lake", as_json=True) == 0
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
        deployment = service.call(first["url"], "/deployments/name/pipeline/pipeline")
        place = f"/deployments/{deployment['id']}/create_flow_run"
        long = toy(tmp_path / "in", texts=200_000)
        run = service.call(first["url"], place, {"parameters": {"recipe": long, "until": "ingest"}})
        while not any(process.is_running() for process in daemons.runs(lake)):
            time.sleep(0.2)
        while service.call(first["url"], f"/flow_runs/{run['id']}")["state"]["type"] != "RUNNING":
            time.sleep(0.2)

        for process in [*daemons.find("worker", lake), *daemons.runs(lake)]:
            process.send_signal(signal.SIGKILL)
        second = up(lake, port)
        assert second["changed"] == ["worker"]
        assert second["server"] == first["server"]
        assert service.call(first["url"], f"/flow_runs/{run['id']}")["state"]["type"] == "CRASHED"

        short = service.call(
            first["url"], place, {"parameters": {"recipe": toy(tmp_path / "short"), "until": "ingest"}}
        )
        assert finished(first["url"], short["id"])["state"]["type"] == "COMPLETED", "the lost run holds no slot"

        psutil.Process(second["server"]).kill()
        (lake / "prefect" / service.STATE).write_text("{")
        third = up(lake, port)
        assert third["changed"][:2] == ["server", "worker"]
        assert third["server"] != first["server"]
        assert not psutil.pid_exists(second["worker"])
    finally:
        assert headwater("down", "--lake", str(lake)).returncode == 0
    assert server_state(lake) == {}
    assert daemons.find("server", lake) == daemons.find("worker", lake) == daemons.runs(lake) == []
    again = headwater("down", "--lake", str(lake))
    assert (again.returncode, again.stdout.strip()) == (0, f"nothing was up for {lake}")
