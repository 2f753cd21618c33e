"""The job server of a Ray cluster (its dashboard's port), through Ray's own client."""

from __future__ import annotations

import logging
import os
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from datalake.errors import UserError
from tasks.cluster.job_server import Away, State

_STATES: dict[str, State] = {
    "PENDING": "waiting",
    "RUNNING": "running",
    "STOPPED": "ended",
    "SUCCEEDED": "ended",
    "FAILED": "ended",
}
TOKEN_FILE = Path("~/.ray/auth_token")
_OVERRIDING = ("RAY_API_SERVER_ADDRESS", "RAY_ADDRESS")  # another cluster's: Ray's client would take them first


def token() -> str:
    """The token of the cluster that is meant, as `ray` itself looks for it; empty where there is none.

    It goes along with each request, since a process knows one token alone, and its own cluster may have another.
    """
    if text := os.environ.get("RAY_AUTH_TOKEN", ""):
        return text.strip()
    try:
        return Path(os.environ.get("RAY_AUTH_TOKEN_PATH") or TOKEN_FILE).expanduser().read_text().strip()
    except (OSError, RuntimeError):
        return ""


@contextmanager
def _without(*names: str) -> Iterator[None]:
    """Hide variables of the environment."""
    hidden = {name: os.environ.pop(name) for name in names if name in os.environ}
    try:
        yield
    finally:
        os.environ.update(hidden)


class RayJobServer:
    """A `JobServer`. Raises UserError where Ray has no client, or the server wants another token."""

    def __init__(self, address: str) -> None:
        self.address = address
        self._made: Any = None

    def state(self, id: str) -> tuple[State, str]:
        """As the server says; a job of which it knows nothing is unknown."""
        answer = self._request("GET", f"/api/jobs/{id}")
        if answer.status_code == 404:
            return "unknown", ""
        told = answer.json()
        return _STATES[told["status"]], " ".join(str(told.get("message") or "").split())[:300]

    def submit(self, id: str, entrypoint: str, environment: Mapping[str, str], metadata: Mapping[str, str]) -> None:
        """Ask for it; the server refuses an id that it knows, and then another was first."""
        body = {
            "entrypoint": entrypoint,
            "submission_id": id,
            "runtime_env": {"env_vars": dict(environment)},
            "metadata": dict(metadata),
        }
        answer = self._request("POST", "/api/jobs/", json_data=body, refusable=True)
        words = " ".join(answer.text.split())[:300]
        if answer.status_code < 400 or "already exists" in words:
            return
        if answer.status_code >= 500:  # "No available agent", where the head has just begun
            raise Away(words)
        raise UserError(f"the job server refuses {id}: {words}")

    def stop(self, id: str) -> None:
        """SIGTERM to its process, and SIGKILL after RAY_JOB_STOP_WAIT_TIME_S."""
        self._request("POST", f"/api/jobs/{id}/stop")

    def remove(self, id: str) -> None:
        """Forget a job that has ended; another is refused and stays."""
        self._request("DELETE", f"/api/jobs/{id}", refusable=True)

    async def logs(self, id: str) -> AsyncIterator[str]:
        """The output of its process."""
        async for text in self._client().tail_job_logs(id):
            yield text

    def _client(self) -> Any:
        if self._made is None:
            try:
                from ray.job_submission import JobSubmissionClient
            except ImportError as error:
                raise UserError(f"Ray's client of jobs isn't installed ({error}): pip install 'ray[default]'") from None
            logging.getLogger("ray.dashboard.modules.job.sdk").setLevel(logging.ERROR)  # else a line a connection
            headers = {"Authorization": f"Bearer {known}"} if (known := token()) else {}
            try:
                with _without(*_OVERRIDING):
                    self._made = JobSubmissionClient(self.address, headers=headers)
            except ConnectionError as error:
                raise Away(str(error)) from None
            except Exception as error:
                raise self._refused(error) from None
        return self._made

    def _request(self, method: str, path: str, json_data: Any = None, refusable: bool = False) -> Any:
        """One request through Ray's client, which knows headers and certificates. Its public methods hide the status in
        a text, and wait for an answer without end."""
        import requests

        client = self._client()
        try:
            answer = client._do_request(method, path, json_data=json_data, timeout=30)
        except (requests.ConnectionError, requests.Timeout) as error:
            raise Away(type(error).__name__) from None
        except Exception as error:
            raise self._refused(error) from None
        if answer.status_code in (502, 503, 504):
            raise Away(f"status {answer.status_code}")
        if answer.status_code >= 500 and not refusable:
            raise Away(f"status {answer.status_code}: {' '.join(answer.text.split())[:200]}")
        return answer

    def _refused(self, error: Exception) -> Exception:
        words = " ".join(str(error).split())
        if "401" in words or "403" in words or "uthenticat" in words:
            return UserError(
                f"the job server at {self.address} wants another token: set RAY_AUTH_TOKEN, or copy the cluster's"
                f" {TOKEN_FILE} here"
            )
        return Away(words[:200] or type(error).__name__)
