"""What the server does by itself: it goes on where raw has grown, tells of failed runs, notices those that died."""

from __future__ import annotations

import bz2
import json
import signal
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import world
import yaml
from harness import PrefectServer, free_port, headwater, up

from flows.service import automations, daemons
from flows.service.api import Api

CURATES = "headwater curates what has grown"
TELLS = "headwater tells of runs that failed"
NOTICES = "headwater notices runs whose process is gone"
ENDS = "headwater ends runs that stay at cancelling"
KEY = "hooks/s3cr3t-key-of-the-webhook"


class Server:
    """A server's API as far as automations go."""

    def __init__(self, here: list[dict[str, Any]], blocks: list[dict[str, Any]] | None = None):
        self.here, self.blocks = here, blocks or []
        self.asked: list[tuple[str, Any]] = []

    def __call__(self, path: str, body: Any = None, method: str | None = None) -> Any:
        if path == "/automations/filter":
            return self.here
        if path == "/block_documents/filter":
            return self.blocks
        self.asked.append((f"{method or 'POST'} {path}", body))
        return None


FILE: dict[str, Any] = {
    "automations": [
        {"name": "tells", "enabled": True, "trigger": {}, "actions": [{"type": "t", "block_document": "headwater"}]}
    ],
    "deployments": [
        {
            "name": "curate",
            "triggers": [{"name": "goes on", "enabled": False, "expect": ["grown"], "parameters": {"a": 1}}],
        }
    ],
}


def applied(server: Server, before: dict[str, Any], file: dict[str, Any] = FILE) -> tuple[dict[str, Any], int]:
    copy = json.loads(json.dumps(file))
    return automations.apply(server, automations.wanted(copy), before, {"curate": "d"})  # type: ignore[arg-type]


def test_an_automation_is_made_once_and_then_belongs_to_whoever_changes_it() -> None:
    server = Server([])
    entries, made = applied(server, {})
    assert made == 1, "the other one has no block to tell by"
    ((path, body),) = server.asked
    assert path == "POST /automations/"
    assert (body["name"], body["enabled"]) == ("goes on", False)
    assert (body["trigger"]["expect"], body["trigger"]["posture"]) == (["grown"], "Reactive")
    assert body["actions"] == [
        {"type": "run-deployment", "source": "selected", "deployment_id": "d", "parameters": {"a": 1}}
    ]
    here = [{"id": "x", "name": "goes on", "enabled": True}]
    server = Server(here)
    assert applied(server, entries) == (entries, 0)
    assert server.asked == [], "turned on by a person: left alone"
    assert applied(Server([]), entries)[1] == 0, "removed by a person: stays so"
    assert applied(Server(here), {})[1] == 0, "made before anything was written down: left alone"

    changed = json.loads(json.dumps(FILE))
    changed["deployments"][0]["triggers"][0]["expect"] = ["more"]
    server = Server(here)
    assert applied(server, entries, changed)[1] == 1
    ((path, body),) = server.asked
    assert path == "PUT /automations/x"
    assert body["enabled"], "on or off as it was"


def test_one_that_tells_is_made_where_a_block_can() -> None:
    server = Server([], [{"id": "other", "block_schema": {"capabilities": ["write-path"]}}])
    assert "tells" not in applied(server, {})[0]
    server.blocks.append({"id": "b", "block_schema": {"capabilities": ["notify"]}})
    entries, _ = applied(server, {})
    assert entries.keys() == {"tells", "goes on"}
    assert server.asked[-2][1]["actions"] == [{"type": "t", "block_document_id": "b"}]


@pytest.fixture(scope="module")
def hook() -> Iterator[tuple[str, list[str]]]:
    """A webhook on this machine: its address, and the texts that it was sent."""
    texts: list[str] = []

    class Receiver(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            assert self.path == f"/{KEY}"
            texts.append(json.loads(self.rfile.read(int(self.headers["Content-Length"])))["text"])
            self.send_response(204)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Receiver) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}/{KEY}", texts
        server.shutdown()
        thread.join()


def until(ready: Callable[[], Any], what: Callable[[], Any] = lambda: "", limit_s: float = 300) -> Any:
    deadline = time.monotonic() + limit_s
    while not (found := ready()):
        assert time.monotonic() < deadline, f"did not come: {what()}"
        time.sleep(0.5)
    return found


def automation(server: PrefectServer, name: str) -> dict[str, Any]:
    (found,) = [one for one in server.call("/automations/filter", {}) if one["name"] == name]
    return dict(found)


def begun(server: PrefectServer, name: str, **parameters: Any) -> str:
    deployment = server.call(f"/deployments/name/{name}/{name}")["id"]
    return str(server.call(f"/deployments/{deployment}/create_flow_run", {"parameters": parameters})["id"])


def state(server: Any, run: str) -> dict[str, Any]:
    return dict(server.call(f"/flow_runs/{run}")["state"])


@pytest.fixture(scope="module")
def telling(running: dict[str, Any], prefect_server: PrefectServer, hook: tuple[str, list[str]]) -> dict[str, Any]:
    """What `up` says where the environment names a webhook, and its server is up already."""
    return up(prefect_server.lake, prefect_server.port, HEADWATER_WEBHOOK=hook[0])


def test_a_run_that_fails_is_told_of_in_one_message(
    telling: dict[str, Any], prefect_server: PrefectServer, hook: tuple[str, list[str]]
) -> None:
    assert telling["changed"] == ["deployments"]
    run = begun(prefect_server, "pipeline", recipe="recipes/none.yaml")
    (text,) = until(lambda: hook[1], lambda: state(prefect_server, run))
    assert text.startswith("headwater: pipeline Failed\n")
    assert "no recipe at recipes/none.yaml" in text
    assert text.endswith(f"/runs/flow-run/{run}")


def test_the_webhooks_address_is_kept_as_a_secret(telling: dict[str, Any], prefect_server: PrefectServer) -> None:
    wanted = {"block_documents": {"name": {"any_": [automations.BLOCK]}}}
    (block,) = prefect_server.call("/block_documents/filter", wanted)
    assert KEY not in json.dumps(block)
    home = prefect_server.lake / "prefect"
    for path in home.rglob("*"):
        if path.is_file():
            assert KEY.encode() not in path.read_bytes(), path
    assert not any(
        KEY in process.environ().get("HEADWATER_WEBHOOK", "") for process in daemons.find("worker", prefect_server.lake)
    )


def test_a_second_up_makes_no_second_block_and_changes_nothing(
    telling: dict[str, Any], prefect_server: PrefectServer, hook: tuple[str, list[str]]
) -> None:
    assert up(prefect_server.lake, prefect_server.port, HEADWATER_WEBHOOK=hook[0])["changed"] == []
    assert up(prefect_server.lake, prefect_server.port)["changed"] == []


def test_what_was_turned_on_stays_on_where_deployments_are_applied_again(
    telling: dict[str, Any], prefect_server: PrefectServer
) -> None:
    from flows.service import deployments

    assert not automation(prefect_server, CURATES)["enabled"]
    assert automation(prefect_server, NOTICES)["enabled"]
    prefect_server.call(f"/automations/{automation(prefect_server, CURATES)['id']}", {"enabled": True}, "PATCH")
    prefect_server.call(f"/automations/{automation(prefect_server, NOTICES)['id']}", {"enabled": False}, "PATCH")
    file = prefect_server.lake / "prefect" / deployments.APPLIED
    file.write_text(file.read_text().replace('"digest": "', '"digest": "older '))
    try:
        assert up(prefect_server.lake, prefect_server.port)["changed"] == ["deployments"]
        assert automation(prefect_server, CURATES)["enabled"]
        assert not automation(prefect_server, NOTICES)["enabled"]
    finally:
        prefect_server.call(f"/automations/{automation(prefect_server, CURATES)['id']}", {"enabled": False}, "PATCH")
        prefect_server.call(f"/automations/{automation(prefect_server, NOTICES)['id']}", {"enabled": True}, "PATCH")


@pytest.mark.slow
def test_where_raw_has_grown_the_curation_begins_by_itself(
    telling: dict[str, Any], prefect_server: PrefectServer, tmp_path: Path
) -> None:
    latest = tmp_path / "dumps" / "testwiki" / "latest"
    export = world.wiki(tmp_path / "export.xml", range(4)).read_bytes()
    latest.mkdir(parents=True)
    (latest / "testwiki-latest-pages-articles-multistream.xml.bz2").write_bytes(bz2.compress(export))
    switch = f"/automations/{automation(prefect_server, CURATES)['id']}"
    prefect_server.call(switch, {"enabled": True}, "PATCH")
    try:
        parameters = {"wiki": "testwiki", "dumps": str(tmp_path / "dumps"), "set": ["runtime.cluster=inline"]}
        begun(prefect_server, "wikipedia", **parameters)
        curate = prefect_server.call("/deployments/name/curate/curate")["id"]

        def runs() -> Any:
            return prefect_server.call("/flow_runs/filter", {"deployments": {"id": {"any_": [curate]}}})

        until(lambda: [run for run in runs() if run["state"]["type"] == "COMPLETED"], runs)
    finally:
        prefect_server.call(switch, {"enabled": False}, "PATCH")
    assert world.rows(prefect_server.lake, "SELECT count(*) FROM wiki.mixture") == [(4,)]


@pytest.mark.slow
def test_a_run_whose_process_and_worker_are_gone_is_noticed(tmp_path: Path) -> None:
    lake, port = tmp_path / "lake", free_port()
    try:
        told = up(lake, port)
        server = PrefectServer(told["url"], port, lake)
        found = automation(server, NOTICES)
        hurried = found | {"trigger": found["trigger"] | {"within": 100}}  # signs of life come once a minute
        body = {name: hurried[name] for name in ("name", "description", "enabled", "trigger", "actions")}
        server.call(f"/automations/{found['id']}", body, "PUT")
        world.jsonl(tmp_path / "a.jsonl", [{"text": f"text {n}"} for n in range(200_000)])
        recipe = tmp_path / "recipe.yaml"
        recipe.write_text(yaml.safe_dump(world.tables(tmp_path, [tmp_path / "a.jsonl"])))
        run = begun(server, "ingest", recipe=str(recipe))
        beats = {"filter": {"event": {"prefix": ["prefect.flow-run.heartbeat"]}}}
        until(lambda: server.call("/events/filter", beats)["events"], lambda: state(server, run))
        for process in [*daemons.find("worker", lake), *daemons.runs(lake)]:
            process.send_signal(signal.SIGKILL)
        assert state(server, run)["type"] == "RUNNING"
        until(lambda: state(server, run)["type"] == "CRASHED", lambda: state(server, run))
        assert "no sign of life" in state(server, run)["message"]
        limit = server.call("/deployments/name/ingest/ingest")["global_concurrency_limit"]
        assert Api(server.url, server.login)(f"/v2/concurrency_limits/{limit['id']}")["active_slots"] == 0
    finally:
        headwater("down", "--lake", str(lake))


@pytest.mark.slow
def test_a_run_that_is_cancelled_before_it_has_a_process_ends_and_holds_no_slot(
    running: dict[str, Any], prefect_server: PrefectServer
) -> None:
    """After PrefectHQ/prefect#17563."""
    found = automation(prefect_server, ENDS)
    body = {name: found[name] for name in ("name", "description", "enabled", "trigger", "actions")}
    hurried = body | {"trigger": found["trigger"] | {"within": 10}}
    deployment = prefect_server.call("/deployments/name/ingest/ingest")
    api = Api(prefect_server.url, prefect_server.login)

    def slots() -> Any:
        return api(f"/v2/concurrency_limits/{deployment['global_concurrency_limit']['id']}")["active_slots"]

    pool = f"/work_pools/{deployment['work_pool_name']}"
    prefect_server.call(f"/automations/{found['id']}", hurried, "PUT")
    prefect_server.call(pool, {"is_paused": True}, "PATCH")  # no worker takes it
    try:
        run = begun(prefect_server, "ingest")
        for kind in ("PENDING", "CANCELLING"):
            prefect_server.call(f"/flow_runs/{run}/set_state", {"state": {"type": kind}})
            assert (state(prefect_server, run)["type"], slots()) == (kind, 1)
        until(lambda: state(prefect_server, run)["type"] == "CANCELLED", lambda: state(prefect_server, run))
        assert slots() == 0
    finally:
        prefect_server.call(pool, {"is_paused": False}, "PATCH")
        prefect_server.call(f"/automations/{found['id']}", body, "PUT")
