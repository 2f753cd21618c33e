"""A team's installation with the real parts: Prefect on PostgreSQL and Redis, our server open to other machines, a
worker with the lake's catalog in PostgreSQL, secrets from a block of Prefect's and from the environment.

The environment of each part is that of deployments/compose.yaml; only hosts and ports are this machine's.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import secrets
import signal
import subprocess
import sys
import time
from base64 import b64encode
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import parts
import psutil
import pyarrow.parquet as pq
import pytest
import world
import yaml
from harness import ROOT, free_port
from servers import RangeServer, serving

from flows.service.api import Api

pytestmark = pytest.mark.slow

PLANTED = {
    "HEADWATER_MIRROR_TOKEN": "Sesam-of-block-77",  # a block of Prefect's
    "HEADWATER_MIRROR_PASSWORD": "Sesam-of-environment-77",  # the worker's environment
}


@dataclass
class Team:
    api: Api
    lake: Path
    folder: Path
    postgres: str
    redis: str
    mirror: RangeServer


def environment(service: str, **values: str) -> dict[str, str]:
    """What deployments/compose.yaml gives a service, on this machine."""
    told = yaml.safe_load((ROOT / "deployments" / "compose.yaml").read_text())["services"][service]["environment"]
    made = {}
    for name, value in told.items():
        text = re.sub(r"\$\{(\w+)(?::\?)?\}", lambda match: values[match[1]], str(value))
        for theirs, ours in (("postgres:5432", "POSTGRES"), ("redis:6379", "REDIS"), ("server:4200", "SERVER")):
            text = text.replace(theirs, values[ours])
        made[name] = text
    others = ("PREFECT_", "HEADWATER_", "RAY_", "AWS_")
    return {name: value for name, value in os.environ.items() if not name.startswith(others)} | made


@contextlib.contextmanager
def process(folder: Path, name: str, command: list[str], env: dict[str, str]) -> Iterator[subprocess.Popen[bytes]]:
    with (folder / f"{name}.log").open("wb") as log:
        begun = subprocess.Popen(command, stdout=log, stderr=log, cwd=ROOT, env=env, start_new_session=True)
    try:
        yield begun
    finally:
        with contextlib.suppress(psutil.Error):
            family = psutil.Process(begun.pid).children(recursive=True)
            begun.send_signal(signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                begun.wait(30)
            for one in family:
                with contextlib.suppress(psutil.Error):
                    one.kill()


def until(moment: Any, seconds: float = 240) -> Any:
    deadline = time.monotonic() + seconds
    while not (found := moment()):
        assert time.monotonic() < deadline
        time.sleep(0.3)
    return found


@pytest.fixture(scope="module")
def team(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Team]:
    pytest.importorskip("prefect_redis", reason="no prefect-redis: pip install -e .[dev]")
    pytest.importorskip("psycopg2", reason="no psycopg2: pip install -e .[dev]")
    folder = tmp_path_factory.mktemp("team")
    python, port, lake = sys.executable, free_port(), folder / "lake"
    lake.mkdir()
    with parts.postgres("prefect", "catalog") as pg, parts.redis(folder / "redis") as redis:
        values = {
            "POSTGRES_PASSWORD": pg.partition(":")[2].partition("@")[0],
            "REDIS_PASSWORD": redis.partition(":")[2].partition("@")[0],
            "OBJECTS_USER": "lake",
            "OBJECTS_PASSWORD": "x" * 16,
            "PREFECT_AUTH": f"headwater:{secrets.token_hex(16)}",
            "RAY_AUTH_TOKEN": secrets.token_hex(32),
            "POSTGRES": pg.rpartition("@")[2],
            "REDIS": redis.rpartition("@")[2],
            "SERVER": f"127.0.0.1:{port}",
        }
        homes = {name: str(folder / name) for name in ("home-server", "home-worker")}
        own = {"PYTHONPATH": str(ROOT), "DO_NOT_TRACK": "1", "PREFECT_SERVER_ANALYTICS_ENABLED": "false"}
        server_env = environment("server", **values) | own | {"PREFECT_HOME": homes["home-server"]}
        client_env = environment("deployments", **values) | own | {"PREFECT_HOME": homes["home-worker"]}
        worker_env = environment("worker", **values) | own | {"PREFECT_HOME": homes["home-worker"]}
        worker_env |= {"HEADWATER_LAKE": str(lake), "HEADWATER_METRICS": str(folder / "metrics")}
        worker_env |= {"HEADWATER_LOG": "json", "HEADWATER_MIRROR_PASSWORD": PLANTED["HEADWATER_MIRROR_PASSWORD"]}
        for home in homes.values():
            Path(home).mkdir()
        serve = [python, "-m", "flows.service", "server", "--host", "0.0.0.0", "--port", str(port)]
        prefect = [python, "-m", "prefect", "--no-prompt"]
        api = Api(f"http://127.0.0.1:{port}/api", values["PREFECT_AUTH"])
        with serving() as mirror, process(folder, "server", serve, server_env) as server:

            def up() -> bool:
                assert server.poll() is None, (folder / "server.log").read_text()[-3000:]
                return api.status() == 200

            until(up)
            for asked in (
                ["work-pool", "create", "headwater", "--type", "process", "--overwrite"],
                ["deploy", "--all", "--prefect-file", "deployments/prefect.yaml"],
            ):
                done = subprocess.run([*prefect, *asked], env=client_env, cwd=ROOT, capture_output=True, text=True)
                assert done.returncode == 0, done.stdout + done.stderr
            start = [*prefect, "worker", "start", "--pool", "headwater", "--type", "process"]
            with process(folder, "worker", start, worker_env):
                yield Team(api, lake, folder, pg, redis, mirror)


def ended(team: Team, deployment: str, **asked: Any) -> dict[str, Any]:
    """A run of a deployment, once it has ended."""
    named = team.api(f"/deployments/name/{deployment}")
    run = team.api(f"/deployments/{named['id']}/create_flow_run", asked)

    def end() -> Any:
        found = team.api(f"/flow_runs/{run['id']}")
        over = found["state"]["type"] in ("COMPLETED", "FAILED", "CRASHED", "CANCELLED")
        return found if over else None

    return dict(until(end))


def secret_block(team: Team, name: str, value: str) -> None:
    """Prefect's own Secret, as its page makes it."""
    kind = team.api("/block_types/slug/secret")
    schemas = team.api("/block_schemas/filter", {"block_schemas": {"block_type_id": {"any_": [kind["id"]]}}})
    body = {"name": name, "data": {"value": value}, "block_type_id": kind["id"], "block_schema_id": schemas[0]["id"]}
    team.api("/block_documents/", body)


def recipe(team: Team) -> dict[str, Any]:
    host = team.mirror.url.removeprefix("http://")
    rows = "".join(json.dumps({"id": str(n), "text": world.prose(n)}) + "\n" for n in range(40))
    place = f"/{PLANTED['HEADWATER_MIRROR_TOKEN']}/table.jsonl"
    if place not in team.mirror.files:  # put again, it would have another tag, and be another file
        team.mirror.put(place, rows.encode())
    paths = [f"http://me:${{mirror_password}}@{host}/${{mirror_token}}/table.jsonl"]
    return {
        "corpus": "team",
        "sources": [{"kind": "table", "paths": paths}],
        "curate": {"preset": "none"},
        "runtime": world.inline(),
    }


def test_a_run_of_a_deployment_on_the_teams_parts_leaves_no_secret_behind(team: Team) -> None:
    secret_block(team, "mirror-token", PLANTED["HEADWATER_MIRROR_TOKEN"])
    reference = {"env": {"HEADWATER_MIRROR_TOKEN": "{{ prefect.blocks.secret.mirror-token }}"}}
    run = ended(
        team,
        "pipeline/pipeline",
        parameters={"recipe": recipe(team), "until": "mixture"},
        job_variables=reference,
    )
    told = team.api("/logs/filter", {"limit": 200, "logs": {"flow_run_id": {"any_": [run["id"]]}}})
    assert run["state"]["type"] == "COMPLETED", run["state"]["message"]
    assert team.mirror.asked, "the block's value is in the path that was asked for, or nothing would have been found"
    login = b64encode(f"me:{PLANTED['HEADWATER_MIRROR_PASSWORD']}".encode()).decode()
    assert {one.headers["authorization"] for one in team.mirror.asked} == {f"Basic {login}"}

    # What the parts hold: the run in PostgreSQL, its tables in the catalog, Prefect's events in Redis.
    database, catalog = parts.dump(team.postgres, "prefect"), parts.dump(team.postgres, "catalog")
    assert run["id"] in database
    assert "team" in catalog
    assert "documents" in catalog
    [meters] = (team.folder / "metrics").glob("*.prom")
    assert 'headwater_stages_total{corpus="team",stage="mixture",state="ran"} 1.0' in meters.read_text()

    # The secrets: nowhere.
    places: dict[str, str] = {"database": database, "catalog": catalog, "logs": json.dumps(told)}
    places["artifacts"] = json.dumps(team.api("/artifacts/filter", {}))
    places["run"] = json.dumps(run)
    for path in [*team.lake.rglob("*"), *team.folder.glob("*.log"), *team.folder.glob("metrics/*"), meters]:
        if path.is_file():
            text = path.read_bytes().decode("utf-8", "replace")
            places[str(path)] = text + (str(pq.read_table(path).to_pylist()) if path.suffix == ".parquet" else "")
    assert len(places) > 20
    found = [(place, name) for place, text in places.items() for name, value in PLANTED.items() if value in text]
    assert found == [], "secrets were found"


def test_a_second_run_is_cached_by_the_same_catalog(team: Team) -> None:
    reference = {"env": {"HEADWATER_MIRROR_TOKEN": "{{ prefect.blocks.secret.mirror-token }}"}}
    run = ended(
        team,
        "pipeline/pipeline",
        parameters={"recipe": recipe(team), "until": "mixture"},
        job_variables=reference,
    )
    assert run["state"]["type"] == "COMPLETED"

    def states() -> set[str]:
        asked = {"flow_runs": {"id": {"any_": [run["id"]]}}}
        return {task["state"]["name"] for task in team.api("/task_runs/filter", asked)}

    until(lambda: "Running" not in states())  # they come by way of Redis, a little later
    assert states() == {"Cached"}


def test_the_open_server_wants_its_login_and_refuses_pages_of_others(team: Team) -> None:
    import urllib.error
    import urllib.request

    assert Api(team.api.url, "").status() == 401
    assert Api(team.api.url, "headwater:wrong").status() == 401
    request = urllib.request.Request(f"{team.api.url}/health", headers={"Origin": "http://evil.example"})
    with pytest.raises(urllib.error.HTTPError, match="403"):
        urllib.request.urlopen(request)
    named = urllib.request.Request(f"{team.api.url}/health", headers={"Host": "headwater.team.example"})
    assert urllib.request.urlopen(named).status == 200  # by the name that a proxy gave it
