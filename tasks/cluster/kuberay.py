"""Jobs on Kubernetes: a KubeRay `RayJob` for each, with a RayCluster of its own or one that is there.

KubeRay submits the job itself, by HTTP: its other way, a pod that submits, is tried again by Kubernetes and then finds
its id taken (ray-project/kuberay 1902, 2058). Trying again is left to `run_job`, which knows whether the work was done.
What runs on the job's cluster (logs, an end in good order) is asked of its job server, where that can be reached.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Callable, Mapping
from pathlib import Path
from typing import Any

import yaml

from datalake.errors import UserError
from tasks.cluster.job_server import Away, State
from tasks.cluster.ray_jobs import RayJobServer
from tasks.runtime import JobsConfig

GROUP, VERSION, PLURAL = "ray.io", "v1", "rayjobs"
LINGER_S = 60  # so long a cluster stays after its job, for the last lines of the log
_TIMEOUT_S = 30

# What the operator says of a job before Ray does; the rest is Ray's own word, `jobStatus`.
_DEPLOYMENT: dict[str, State] = {"Complete": "ended", "Failed": "ended", "ValidationFailed": "ended"}
_JOB: dict[str, State] = {"RUNNING": "running", "STOPPED": "ended", "SUCCEEDED": "ended", "FAILED": "ended"}


class KubeRayServer:
    """A `JobServer`. Raises UserError where Kubernetes can't be used."""

    def __init__(self, config: JobsConfig) -> None:
        self.namespace, self.cluster = config.namespace, _cluster(config.raycluster)
        try:
            from kubernetes import client
            from kubernetes import config as settings
        except ImportError:
            raise UserError("runtime.jobs.raycluster needs Kubernetes' client: pip install kubernetes") from None
        try:
            named = os.environ.get("KUBECONFIG")  # read by the client once, when it is imported
            if named or not os.environ.get("KUBERNETES_SERVICE_HOST"):
                settings.load_kube_config(config_file=named)
            else:  # a pod
                settings.load_incluster_config()
        except settings.ConfigException as error:
            raise UserError(f"runtime.jobs.raycluster: no Kubernetes is configured ({error}): set KUBECONFIG") from None
        self._objects = client.CustomObjectsApi()

    def state(self, id: str) -> tuple[State, str]:
        """As Ray's status in the RayJob says, or the operator's; one that is being removed still waits."""
        found = self._get(id)
        if found is None:
            return "unknown", ""
        status = found.get("status") or {}
        if found["metadata"].get("deletionTimestamp"):
            return "waiting", "it is being removed"
        deployment, job = status.get("jobDeploymentStatus", ""), status.get("jobStatus", "")
        if deployment == "ValidationFailed":
            raise UserError(f"KubeRay refuses job {id}: {status.get('message', '')}")
        said = " ".join(filter(None, (status.get("reason"), status.get("message"))))
        return _DEPLOYMENT.get(deployment) or _JOB.get(job, "waiting"), said

    def submit(self, id: str, entrypoint: str, environment: Mapping[str, str], metadata: Mapping[str, str]) -> None:
        """Create the RayJob."""
        body = manifest(id, entrypoint, environment, metadata, self.cluster)

        def create() -> None:
            self._objects.create_namespaced_custom_object(
                GROUP, VERSION, self.namespace, PLURAL, body, _request_timeout=_TIMEOUT_S
            )

        self._ask(create, or_else=409)

    def stop(self, id: str) -> None:
        """End the job by its own server, so that it can save; where that can't be reached, remove it with its cluster,
        for which the operator stops it."""
        server = self._server(id)
        try:
            if server is None:
                raise Away("it has no server yet")
            server.stop(id)
        except Away:
            self.remove(id)

    def remove(self, id: str) -> None:
        """Delete the RayJob, and with it a cluster that was made for it."""
        self._ask(
            lambda: self._objects.delete_namespaced_custom_object(
                GROUP,
                VERSION,
                self.namespace,
                PLURAL,
                id,
                propagation_policy="Background",
                _request_timeout=_TIMEOUT_S,
            ),
            or_else=404,
        )

    async def logs(self, id: str) -> AsyncIterator[str]:
        """The output of its process, where the job's server can be reached from here."""
        server = self._server(id)
        if server is not None:
            async for text in server.logs(id):
                yield text

    def _get(self, id: str) -> dict[str, Any] | None:
        found: dict[str, Any] | None = self._ask(
            lambda: self._objects.get_namespaced_custom_object(
                GROUP, VERSION, self.namespace, PLURAL, id, _request_timeout=_TIMEOUT_S
            ),
            or_else=404,
        )
        return found

    def _server(self, id: str) -> RayJobServer | None:
        """The job server of the job's cluster, once the operator has told its address."""
        address = ((self._get(id) or {}).get("status") or {}).get("dashboardURL")
        return RayJobServer(address if "://" in address else f"http://{address}") if address else None

    def _ask(self, call: Callable[[], Any], or_else: int) -> Any:
        """What a call gives; None where Kubernetes answers with the status `or_else`."""
        from kubernetes.client import ApiException
        from urllib3.exceptions import HTTPError

        try:
            return call()
        except ApiException as error:
            if error.status == or_else:
                return None
            if error.status in (429, 500, 502, 503, 504):
                raise Away(f"Kubernetes answers {error.status}") from None
            words = " ".join(str(error.body or error.reason).split())[:300]
            raise UserError(f"Kubernetes refuses rayjobs in {self.namespace}: {error.status} {words}") from None
        except (HTTPError, OSError) as error:
            raise Away(f"Kubernetes can't be reached: {type(error).__name__}") from None


def manifest(
    id: str,
    entrypoint: str,
    environment: Mapping[str, str],
    metadata: Mapping[str, str],
    cluster: str | Mapping[str, Any],
) -> dict[str, Any]:
    """The RayJob. `cluster`: the spec of a RayCluster of its own, or the name of one that is there."""
    if isinstance(cluster, str):
        where: dict[str, Any] = {"clusterSelector": {"ray.io/cluster": cluster}}
    else:
        where = {
            "rayClusterSpec": dict(cluster),
            "shutdownAfterJobFinishes": True,
            "ttlSecondsAfterFinished": LINGER_S,
        }
    return {
        "apiVersion": f"{GROUP}/{VERSION}",
        "kind": "RayJob",
        "metadata": {"name": id, "labels": {"app.kubernetes.io/managed-by": "headwater"}},
        "spec": {
            "jobId": id,
            "entrypoint": entrypoint,
            "submissionMode": "HTTPMode",
            "backoffLimit": 0,
            "metadata": dict(metadata),
            "runtimeEnvYAML": yaml.safe_dump({"env_vars": dict(environment)}),
            **where,
        },
    }


def _cluster(named: str) -> str | dict[str, Any]:
    """The spec in a RayCluster's file, or a name."""
    if not named.endswith((".yaml", ".yml")):
        return named
    try:
        documents = list(yaml.safe_load_all(Path(named).read_text(encoding="utf-8")))
    except OSError as error:
        raise UserError(f"runtime.jobs.raycluster: {named} can't be read ({error.strerror})") from None
    except yaml.YAMLError as error:
        raise UserError(f"runtime.jobs.raycluster: {named} is no YAML ({' '.join(str(error).split())[:200]})") from None
    specs = [one["spec"] for one in documents if isinstance(one, dict) and one.get("kind") == "RayCluster"]
    if len(specs) != 1:
        raise UserError(f"runtime.jobs.raycluster: {named} has {len(specs)} RayClusters, and one is meant")
    return dict(specs[0])
