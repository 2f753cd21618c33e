"""`run_job`: a job is found again by its id, begun again where it was lost, and known by what it answers."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from kuberay import Jobs, Kubernetes, Operator, kubernetes, validate

from datalake.errors import UserError
from tasks.cluster import jobs as following
from tasks.cluster.connect import ClusterError
from tasks.cluster.job_server import Away
from tasks.cluster.jobs import ANSWER, BEAT, Job, run_job
from tasks.cluster.kuberay import KubeRayServer, manifest
from tasks.runtime import JobsConfig, Runtime, RuntimeConfig

PRINT = "0123456789abcdef" * 4


@pytest.fixture(autouse=True)
def fast(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(following, "LOOK_S", 0.01)


@pytest.fixture
def job(tmp_path: Path) -> Job:
    (folder := tmp_path / "lake" / "job").mkdir(parents=True)
    return Job("pretrain", PRINT, str(tmp_path / "lake"), folder, "tasks.job", {"steps": 3})


def runtime(lake: Path, retries: int = 2, **more: Any) -> Runtime:
    config = JobsConfig(**({"address": "http://head:8265"} | more))
    return Runtime(RuntimeConfig(workers=1, cluster="inline", retries=retries, jobs=config), lake, "tests")


def answers(folder: Path, **told: Any) -> None:
    (folder / ANSWER).write_text(json.dumps({"fingerprint": PRINT} | (told or {"report": {"steps": 3}})))


def run(
    job: Job, server: Any, poll: Callable[[], None] = lambda: None, **more: Any
) -> tuple[dict[str, Any], list[str]]:
    told: list[str] = []
    deadline = time.monotonic() + 60

    def look() -> None:
        assert time.monotonic() < deadline, told
        poll()

    report = run_job(job, runtime(job.lake, **more), look, told.append, server)
    return report, told


def ending(server: Jobs, job: Job, **told: Any) -> Callable[[], None]:
    """Ends the job, with an answer, when it is polled for the first time."""

    def poll() -> None:
        answers(job.folder, **told)
        server.states[job.id] = "ended"

    return poll


def test_a_job_is_submitted_under_its_fingerprint_and_its_report_is_what_it_answers(job: Job) -> None:
    server = Jobs()
    report, told = run(job, server, ending(server, job))
    assert report == {"steps": 3}
    assert server.submitted == [f"python -m tasks.job {job.folder}"]
    assert json.loads((job.folder / "asked.json").read_bytes()) == {"steps": 3}
    assert told == [f"job {job.id} submitted", "one", "two"]
    assert server.states == {}, "a job that has ended is forgotten, so that its id can be used again"
    assert job.id.startswith(f"pretrain-{PRINT[:24]}-")
    assert len(job.id) <= 47  # KubeRay's longest


def test_two_lakes_on_one_cluster_have_jobs_of_their_own(job: Job, tmp_path: Path) -> None:
    assert job.id != Job("pretrain", PRINT, str(tmp_path / "other"), job.folder, "tasks.job", {}).id


def test_a_job_that_is_there_is_followed_and_not_submitted_again(job: Job) -> None:
    server = Jobs()
    server.states[job.id] = "running"
    report, told = run(job, server, ending(server, job))
    assert report == {"steps": 3}
    assert server.submitted == []
    assert told[0] == f"job {job.id} is there (running) and is followed"


def test_what_has_ended_while_nobody_looked_is_taken_once(job: Job) -> None:
    server = Jobs()
    server.states[job.id] = "ended"
    answers(job.folder)
    assert run(job, server)[0] == {"steps": 3}
    assert server.submitted == []
    assert job.answer() is None
    answers(job.folder, fingerprint="f" * 64)  # what another stage left there is no answer
    assert run(job, server, ending(server, job))[0] == {"steps": 3}
    assert len(server.submitted) == 1


def test_a_job_that_failed_earlier_is_begun_again(job: Job) -> None:
    server = Jobs()
    server.states[job.id] = "ended"
    answers(job.folder, error="OutOfMemoryError")
    assert run(job, server, ending(server, job))[0] == {"steps": 3}
    assert len(server.submitted) == 1


def test_a_lost_job_is_begun_again_as_often_as_shards_are(job: Job) -> None:
    """The head restarts and knows no job any more; or calls one failed that has told of no end."""
    for state in (None, "ended"):
        server, looks = Jobs(), [0]

        def poll(server: Jobs = server, looks: list[int] = looks, state: str | None = state) -> None:
            if server.states.get(job.id) != "running":
                return
            looks[0] += 1
            if looks[0] > 2:
                ending(server, job)()
            elif state:
                server.states[job.id] = state
            else:
                server.states.pop(job.id)

        report, told = run(job, server, poll)
        assert report == {"steps": 3}
        assert len(server.submitted) == 3
        assert sum("was lost" in line for line in told) == 2
        with pytest.raises(ClusterError, match="was lost"):
            run(job, server, lambda server=server: server.states.pop(job.id, None), retries=1)  # type: ignore[misc]


def test_a_job_that_runs_and_does_nothing_is_begun_again(job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(following, "STILL_S", 0.3)
    server, beats = Jobs(), [0]

    def poll() -> None:
        if len(server.submitted) == 2:
            ending(server, job)()
        elif beats[0] < 60:  # it lives for longer than that
            beats[0] += 1
            (job.folder / BEAT).write_text(str(beats[0]))

    assert run(job, server, poll)[0] == {"steps": 3}
    assert (beats[0], len(server.submitted)) == (60, 2)
    assert server.stopped == [job.id]


def test_a_success_that_ray_calls_a_failure_is_one(job: Job) -> None:
    server = Jobs()
    report, _ = run(job, server, ending(server, job))  # `ended` is all that is looked at; the answer says how
    assert report == {"steps": 3}


def test_mistakes_and_errors_of_the_job_are_told_and_not_tried_again(job: Job) -> None:
    for kind, told in ((UserError, {"mistake": "no document is left"}), (RuntimeError, {"error": "ValueError: nan"})):
        server = Jobs()
        with pytest.raises(kind, match=next(iter(told.values()))):
            run(job, server, ending(server, job, **told))
        assert len(server.submitted) == 1


def test_an_interrupted_run_stops_its_job(job: Job) -> None:
    server = Jobs()

    def poll() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(job, server, poll)
    assert server.stopped == [job.id]
    assert server.states == {}


def test_a_server_that_is_away_for_a_while_is_waited_for(job: Job) -> None:
    server, polls = Jobs(), [0]

    def poll() -> None:
        polls[0] += 1
        if polls[0] == 1:
            server.away = [Away("ConnectionError")] * 5
        elif polls[0] == 8:
            ending(server, job)()

    assert run(job, server, poll)[0] == {"steps": 3}
    server, polls[0] = Jobs(), 0

    def gone() -> None:
        server.away = [Away("ConnectionError")]

    with pytest.raises(ClusterError, match="may go on: the same command finds it"):
        run(job, server, gone, away_s=0.2)
    assert server.stopped == [], "what can't be reached isn't stopped"
    server.away = [Away("ConnectionError")]
    server.states.clear()
    with pytest.raises(UserError, match="no job server at http://head:8265"):
        run(job, server)


def test_a_server_that_cannot_take_a_job_yet_is_asked_again(job: Job) -> None:
    """A head that has just begun answers before its agent is there; that costs none of the tries."""

    class Young(Jobs):
        refusals = 3

        def submit(self, id: str, entrypoint: str, environment: Any, metadata: Any) -> None:
            if self.refusals:
                self.refusals -= 1
                raise Away("No available agent to submit job, please try again later.")
            super().submit(id, entrypoint, environment, metadata)

    server, lost = Young(), [False]

    def poll() -> None:
        if job.id in server.states and not lost[0]:
            lost[0], server.refusals = True, 3
            server.states.pop(job.id)
        elif job.id in server.states:
            ending(server, job)()

    report, told = run(job, server, poll, retries=1)
    assert report == {"steps": 3}
    assert (len(server.submitted), sum("was lost" in line for line in told)) == (2, 1)


def test_lines_come_once_though_the_connection_breaks(job: Job) -> None:
    class Breaking(Jobs):
        tries = 0

        async def logs(self, id: str) -> Any:
            self.tries += 1
            yield "one\ntw" if self.tries == 1 else "one\ntwo\nthree"
            if self.tries == 1:
                raise ConnectionError

    server = Breaking()

    def poll() -> None:
        if server.tries >= 2:
            ending(server, job)()

    assert run(job, server, poll)[1][1:] == ["one", "two", "three"]


@pytest.fixture
def api(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    pytest.importorskip("kubernetes", reason="no kubernetes: pip install -e .[dev]")
    with kubernetes() as running:
        monkeypatch.setenv("KUBECONFIG", str(running.configure(tmp_path)))
        yield running


def raycluster(folder: Path) -> Path:
    from harness import ROOT

    return ROOT / "deployments" / "kubernetes" / "raycluster.yaml"


def on_kubernetes(named: str | Path) -> dict[str, Any]:
    return {"address": "", "raycluster": str(named), "namespace": "ml"}


def test_a_rayjob_is_what_kuberay_defines(job: Job, tmp_path: Path) -> None:
    from tasks.cluster.kuberay import _cluster

    own = manifest(job.id, "python -m x y", {"A": "1"}, {"stage": "pretrain"}, _cluster(str(raycluster(tmp_path))))
    there = manifest(job.id, "python -m x y", {}, {}, "shared")
    for made in (own, there):
        validate(made, "rayjobs")
        assert made["spec"]["submissionMode"] == "HTTPMode"
        assert made["spec"]["backoffLimit"] == 0
    assert own["spec"]["shutdownAfterJobFinishes"]
    assert "shutdownAfterJobFinishes" not in there["spec"]
    from jsonschema import ValidationError

    with pytest.raises(ValidationError):
        validate(own | {"spec": own["spec"] | {"submissionmode": "HTTPMode"}}, "rayjobs")


def test_a_job_on_kubernetes_is_followed_stopped_and_removed_with_its_cluster(job: Job, api: Kubernetes) -> None:
    behind = Jobs()
    Operator(api, behind, "head-svc:8265")
    config = on_kubernetes("shared")
    server = KubeRayServer(JobsConfig(**config))
    server._server = lambda id: behind  # type: ignore[method-assign, assignment, return-value]
    report, told = run(job, server, ending(behind, job), **config)
    assert report == {"steps": 3}
    assert told[1:] == ["one", "two"]
    assert api.objects.keys() <= {job.id}
    assert any(method == "DELETE" for method, _ in api.asked)

    def poll() -> None:
        if behind.states.get(job.id) == "running":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(job, server, poll, **config)
    assert behind.stopped[-1] == job.id


def test_what_kubernetes_says_no_to_is_one_line(job: Job, api: Kubernetes, tmp_path: Path) -> None:
    config = on_kubernetes("shared")
    with pytest.raises(UserError, match="Kubernetes refuses rayjobs in other: 403"):
        run(job, KubeRayServer(JobsConfig(**config | {"namespace": "other"})), **config)
    api.refuse = 503
    with pytest.raises(Away, match="503"):
        KubeRayServer(JobsConfig(**config)).state(job.id)
    api.refuse = 0
    api.objects[job.id] = {
        "metadata": {"name": job.id},
        "spec": {},
        "status": {"jobDeploymentStatus": "ValidationFailed", "message": "the name is too long"},
    }
    with pytest.raises(UserError, match=r"KubeRay refuses job .*: the name is too long"):
        KubeRayServer(JobsConfig(**config)).state(job.id)
    for name, text, words in (
        ("none.yaml", "kind: Service\n", "has 0 RayClusters"),
        ("bad.yaml", "a: [", "is no YAML"),
        ("gone.yaml", None, "can't be read"),
    ):
        if text is not None:
            (tmp_path / name).write_text(text)
        with pytest.raises(UserError, match=words):
            KubeRayServer(JobsConfig(**on_kubernetes(tmp_path / name)))


def test_one_place_is_named() -> None:
    for wrong in ({}, {"address": "http://head:8265", "raycluster": "shared"}, {"address": "head:8265"}):
        with pytest.raises(ValueError, match=r"address|pattern"):
            JobsConfig(**wrong)


def test_a_cluster_with_other_code_is_refused(tmp_path: Path) -> None:
    from tasks.asked import Asked
    from tasks.runtime import StageKey

    asked = Asked(
        stage="sft",
        version="3",
        libraries={"torch": "2.13.0", "python": "3.11"},
        fingerprint=PRINT,
        lake=str(tmp_path),
        corpus="c",
        run="r",
        config={},
        runtime=RuntimeConfig(workers=1),
        inputs={"repetition_seed": 1},
    )
    same = StageKey("sft", "3", {"python": "3.11", "torch": "2.13.0"})
    assert asked.runtime_here(same).fingerprint == PRINT
    other = StageKey("sft", "2", {"python": "3.11", "torch": "2.12.0"})
    with pytest.raises(UserError, match=r"other code for sft \(torch 2\.12\.0 for 2\.13\.0, version 2 for 3\)"):
        asked.runtime_here(other)


def test_a_rayjob_that_stays_running_after_its_head_is_gone_is_made_again(
    job: Job, api: Kubernetes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In HTTP mode an operator that can't reach a head leaves the job's status as it was (ray-project/kuberay 4914)."""
    monkeypatch.setattr(following, "STILL_S", 0.3)
    config = on_kubernetes("shared")
    made: list[str] = []

    def operator(name: str) -> None:
        found = api.objects[name]
        if found["metadata"].get("deletionTimestamp"):
            del api.objects[name]
        elif not found["status"]:
            made.append(name)
            found["status"] = {"jobStatus": "RUNNING", "jobDeploymentStatus": "Running", "dashboardURL": "127.0.0.1:9"}

    api.reconcile = operator

    def poll() -> None:
        if len(made) == 2:
            answers(job.folder)
            api.objects[job.id]["status"] |= {"jobStatus": "SUCCEEDED", "jobDeploymentStatus": "Complete"}

    report, told = run(job, KubeRayServer(JobsConfig(**config)), poll, **config)
    assert report == {"steps": 3}
    assert made == [job.id, job.id]
    assert any("it says that it runs, and has done nothing" in line for line in told)
