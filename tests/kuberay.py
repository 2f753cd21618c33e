"""A Kubernetes API server and a KubeRay operator of the tests' own: as much of both as `tasks.cluster.kuberay` uses.

The server keeps RayJobs and answers GET, POST and DELETE on them as Kubernetes does. The operator is a function that
the server calls after each change: `Operator` acts as KubeRay in HTTP mode, with a job server behind it.
"""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import threading
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml

CRDS = "ray-operator/config/crd/bases/ray.io_{plural}.yaml"


@cache
def schema(plural: str) -> dict[str, Any]:
    """The OpenAPI schema of KubeRay's own definition; the test skips where none is at hand: HEADWATER_KUBERAY names a
    clone of it, bare or not."""
    clone = os.environ.get("HEADWATER_KUBERAY", "")
    if not Path(clone or "none").is_dir():
        pytest.skip("no definitions of KubeRay: HEADWATER_KUBERAY names a clone of ray-project/kuberay")
    show = ["git", "-C", clone, "show", f"HEAD:{CRDS.format(plural=plural)}"]
    text = subprocess.run(show, capture_output=True, text=True, check=True).stdout
    versions = yaml.load(text, getattr(yaml, "CSafeLoader", yaml.SafeLoader))["spec"]["versions"]  # 25,000 lines
    return dict(next(one for one in versions if one["name"] == "v1")["schema"]["openAPIV3Schema"])


def strict(node: Any) -> Any:
    """The schema with unknown fields refused, which the server would drop in silence."""
    if isinstance(node, list):
        return [strict(item) for item in node]
    if not isinstance(node, dict):
        return node
    made = {name: strict(item) for name, item in node.items()}
    if made.pop("x-kubernetes-int-or-string", False):
        made.pop("anyOf", None)
        made["type"] = ["integer", "string"]
        made.pop("pattern", None)
    if isinstance(made.get("properties"), dict) and not made.get("x-kubernetes-preserve-unknown-fields"):
        made.setdefault("additionalProperties", False)
    return made


def validate(manifest: Mapping[str, Any], plural: str) -> None:
    """Raise where a manifest isn't what KubeRay's definition says."""
    from jsonschema import Draft202012Validator

    known = strict(schema(plural))
    known["properties"]["metadata"] = {"type": "object"}
    Draft202012Validator(known).validate(manifest)


class Kubernetes:
    """The API server. `objects`: RayJobs by their names; `refuse`: a status for every request, while it is set."""

    def __init__(self) -> None:
        self.objects: dict[str, dict[str, Any]] = {}
        self.asked: list[tuple[str, str]] = []
        self.refuse = 0
        self.reconcile: Callable[[str], None] = lambda name: None
        self.lock = threading.RLock()
        home = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_: object) -> None:
                """In silence."""

            def _answer(self) -> None:
                length = int(self.headers.get("Content-Length") or 0)
                body = json.loads(self.rfile.read(length)) if length else None
                with home.lock:
                    home.asked.append((self.command, self.path))
                    status, told = home.answer(self.command, self.path.partition("?")[0], body)
                data = json.dumps(told).encode()
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            do_GET = do_POST = do_DELETE = _answer  # noqa: N815

        self._http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._http.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._http.server_address[1]}"
        threading.Thread(target=self._http.serve_forever, args=(0.01,), daemon=True).start()

    def close(self) -> None:
        self._http.shutdown()
        self._http.server_close()

    def answer(self, method: str, path: str, body: Any) -> tuple[int, dict[str, Any]]:
        """As Kubernetes answers, in the namespace `ml` alone."""
        place = "/apis/ray.io/v1/namespaces/ml/rayjobs"
        if self.refuse:
            return self.refuse, {"kind": "Status", "message": "not now", "code": self.refuse}
        if not path.startswith(place):
            return 403, {"kind": "Status", "message": f"forbidden: {path}", "code": 403}
        name = path.removeprefix(place).strip("/") or body["metadata"]["name"]
        if method == "POST":
            if name in self.objects:
                return 409, {"kind": "Status", "reason": "AlreadyExists", "code": 409}
            self.objects[name] = body | {"status": {}}
            self.reconcile(name)
            return 201, self.objects[name]
        if name not in self.objects:
            return 404, {"kind": "Status", "reason": "NotFound", "code": 404}
        self.reconcile(name)
        found = self.objects.get(name)
        if found is None:
            return 404, {"kind": "Status", "reason": "NotFound", "code": 404}
        if method == "DELETE":
            found["metadata"]["deletionTimestamp"] = "2026-11-30T00:00:00Z"  # a finalizer holds it
        return 200, found

    def configure(self, folder: Path) -> Path:
        """A KUBECONFIG for it."""
        place = {"cluster": "c", "user": "u", "namespace": "ml"}
        config = {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "x",
            "clusters": [{"name": "c", "cluster": {"server": self.url}}],
            "users": [{"name": "u", "user": {"token": "not-a-real-one"}}],
            "contexts": [{"name": "x", "context": place}],
        }
        path = folder / "kubeconfig"
        path.write_text(yaml.safe_dump(config))
        return path


@contextmanager
def kubernetes() -> Iterator[Kubernetes]:
    made = Kubernetes()
    try:
        yield made
    finally:
        made.close()


class Operator:
    """KubeRay in HTTP mode, looked at whenever the server is asked: it submits a job to `server` once, tells what that
    says, stops it when its object is deleted, and then lets the object go."""

    def __init__(self, api: Kubernetes, server: Any, dashboard: str) -> None:
        self.api, self.server, self.dashboard = api, server, dashboard
        api.reconcile = self

    def __call__(self, name: str) -> None:
        found = self.api.objects[name]
        spec, status = found["spec"], found["status"]
        state, said = self.server.state(spec["jobId"])
        if found["metadata"].get("deletionTimestamp"):
            if state == "running":
                self.server.stop(spec["jobId"])
            else:
                if state == "ended":
                    self.server.remove(spec["jobId"])
                del self.api.objects[name]
            return
        if state == "unknown":
            environment = yaml.safe_load(spec["runtimeEnvYAML"])["env_vars"]
            self.server.submit(spec["jobId"], spec["entrypoint"], environment, spec["metadata"])
        words = {"waiting": "PENDING", "running": "RUNNING", "ended": "FAILED", "unknown": ""}
        status |= {"jobStatus": words[state], "dashboardURL": self.dashboard, "message": said}
        status["jobDeploymentStatus"] = "Failed" if state == "ended" else "Running"


class Jobs:
    """A job server in memory, as `tasks.cluster.job_server.JobServer`; what a job does is a test's `work`."""

    def __init__(self, work: Callable[[Path], None] | None = None) -> None:
        self.states: dict[str, str] = {}
        self.submitted: list[str] = []
        self.stopped: list[str] = []
        self.away: list[Exception] = []  # raised by as many questions
        self.work = work
        self.output = "one\ntwo\n"

    def state(self, id: str) -> tuple[Any, str]:
        if self.away:
            raise self.away.pop()
        return self.states.get(id, "unknown"), ""

    def submit(self, id: str, entrypoint: str, environment: Mapping[str, str], metadata: Mapping[str, str]) -> None:
        assert id not in self.states, "an id that is known is refused"
        self.submitted.append(entrypoint)
        self.states[id] = "running"
        if self.work:
            self.work(Path(entrypoint.split()[-1]))

    def stop(self, id: str) -> None:
        self.stopped.append(id)
        if self.states.get(id) == "running":
            self.states[id] = "ended"

    def remove(self, id: str) -> None:
        self.states.pop(id, None)

    async def logs(self, id: str) -> AsyncIterator[str]:
        yield self.output
        while self.states.get(id) == "running":
            await asyncio.sleep(0.01)
