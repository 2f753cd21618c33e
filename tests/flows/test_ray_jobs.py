"""Training as a job of a Ray cluster: it outlives the run that asked for it, and the next run finds it."""

from __future__ import annotations

import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import world
from begun import Start, ended, kill_when, many_archives, state, steps_done, wait_for
from clusters import Head, ray_head, start_head
from harness import PrefectServer

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def head() -> Iterator[Head]:
    with ray_head() as running:
        yield running


@pytest.fixture
def jobs(head: Head, monkeypatch: pytest.MonkeyPatch) -> Any:
    for name, value in head.environment.items():
        monkeypatch.setenv(name, value)
    return head.jobs()


def recipe(folder: Path, head: Head, steps: int = 160, **more: Any) -> dict[str, Any]:
    made = many_archives(folder, 2, 25)
    made["pretrain"] |= {"steps": steps, "checkpoint_every": 20, "width": 128}
    asked = {"address": head.address, "python": sys.executable, "saving_s": 60, **more}
    return made | {"runtime": world.inline() | {"workers": 2, "retries": 1, "jobs": asked}}


def until(moment: Callable[[], bool], seconds: float = 120) -> None:
    deadline = time.monotonic() + seconds
    while not moment():
        assert time.monotonic() < deadline
        time.sleep(0.1)


def jobs_of(head: Head) -> dict[str, str]:
    """The jobs that were submitted by their id, and how they stand."""
    from ray.job_submission import JobSubmissionClient

    client = JobSubmissionClient(head.address, headers={"Authorization": f"Bearer {head.token}"})
    return {job.submission_id: str(job.status.value) for job in client.list_jobs() if job.submission_id}


def logs(server: PrefectServer, *words: str) -> list[str]:
    """Lines in the logs of the server's flow runs that have all of the words."""
    found = server.call("/logs/filter", {"limit": 200, "sort": "TIMESTAMP_DESC"})
    return [line["message"] for line in found if all(word in line["message"] for word in words)]


def test_a_job_outlives_a_killed_run_and_the_next_one_follows_it(
    start: Start, tmp_path: Path, prefect_server: PrefectServer, head: Head, jobs: Any
) -> None:
    asked, lake = recipe(tmp_path / "in", head), tmp_path / "lake"
    kill_when(start(asked, lake, "pretrain", prefect_server.url), lambda: steps_done(lake) >= 3)
    [(id, status)] = jobs_of(head).items()
    assert status == "RUNNING"
    before = steps_done(lake)
    until(lambda: steps_done(lake) > before)  # nobody follows it, and it goes on

    body = ended(start(asked, lake, "pretrain", prefect_server.url))
    assert state(body, "pretrain") == "ran"
    assert logs(prefect_server, id, "is followed")
    assert logs(prefect_server, "pretrain is done")  # the job's own last line
    assert jobs_of(head) == {}
    metrics = next((lake / "folders").glob("pretrain/*/metrics.jsonl")).read_text().splitlines()
    assert len(metrics) == 160  # no step was done twice

    undisturbed = tmp_path / "undisturbed"
    body = ended(start(asked, undisturbed, "pretrain", prefect_server.url))
    assert weights(lake) == weights(undisturbed)


def weights(lake: Path) -> bytes:
    [found] = (lake / "folders").glob("pretrain/*/checkpoint/model.safetensors")
    return found.read_bytes()


def test_a_run_that_is_interrupted_stops_its_job_which_saves_its_state(
    start: Start, tmp_path: Path, prefect_server: PrefectServer, head: Head, jobs: Any
) -> None:
    asked, lake = recipe(tmp_path / "in", head, steps=100_000), tmp_path / "lake"
    run = start(asked, lake, "pretrain", prefect_server.url)
    wait_for(run, lambda: steps_done(lake) >= 3)
    run.process.send_signal(signal.SIGTERM)
    assert run.process.wait(60) == 143
    until(lambda: "RUNNING" not in jobs_of(head).values())
    done = steps_done(lake)
    assert list((lake / "states").rglob("*")), "no state was saved"
    time.sleep(1)
    assert steps_done(lake) == done


def test_a_head_that_restarts_has_the_job_again_from_its_last_state(
    start: Start, tmp_path: Path, prefect_server: PrefectServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = start_head()
    second = None
    for name, value in first.environment.items():
        monkeypatch.setenv(name, value)
    try:
        asked, lake = recipe(tmp_path / "in", first), tmp_path / "lake"
        run = start(asked, lake, "pretrain", prefect_server.url)
        wait_for(run, lambda: steps_done(lake) >= 25)
        first.kill()
        second = start_head(first.port, int(first.address.rpartition(":")[2]), first.token)
        body = ended(run)
        assert state(body, "pretrain") == "ran"
        assert logs(prefect_server, "was lost", "begun again")
    finally:
        first.kill()
        if second:
            second.kill()


def test_mistakes_are_one_line(start: Start, tmp_path: Path, prefect_server: PrefectServer, head: Head) -> None:
    """A server that isn't there, one that wants another token, a job that finds a mistake."""
    asked, lake = recipe(tmp_path / "in", head), tmp_path / "lake"
    asked["pretrain"]["context"] = 64
    for words, changes, environment in (
        ("no job server at http://127.0.0.1:9", {"address": "http://127.0.0.1:9"}, head.environment),
        ("wants another token", {}, {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "0" * 64}),
    ):
        runtime = asked["runtime"] | {"jobs": asked["runtime"]["jobs"] | changes}
        run = start(asked | {"runtime": runtime}, lake, "pretrain", prefect_server.url, **environment)
        assert run.process.wait(200) == 2, run.told()
        assert words in run.told()


def test_a_flow_run_that_is_cancelled_in_the_ui_stops_its_job(
    tmp_path: Path, prefect_server: PrefectServer, running: dict[str, Any], head: Head, jobs: Any
) -> None:
    asked, lake = recipe(tmp_path / "in", head, steps=100_000), tmp_path / "lake"
    named = prefect_server.call("/deployments/name/pipeline/pipeline")
    body = {
        "parameters": {"recipe": asked, "until": "pretrain", "lake": str(lake)},
        "job_variables": {"env": head.environment},
    }
    run = prefect_server.call(f"/deployments/{named['id']}/create_flow_run", body)
    until(lambda: steps_done(lake) >= 3, 400)
    assert "RUNNING" in jobs_of(head).values()
    cancelling = {"state": {"type": "CANCELLING"}}
    prefect_server.call(f"/flow_runs/{run['id']}/set_state", cancelling)
    until(lambda: prefect_server.call(f"/flow_runs/{run['id']}")["state"]["type"] == "CANCELLED")
    until(lambda: "RUNNING" not in jobs_of(head).values())
    assert list((lake / "states").rglob("*")), "no state was saved"
