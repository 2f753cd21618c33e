"""Where jobs are run, as `tasks.cluster.jobs` asks of it: a Ray cluster, or Kubernetes with KubeRay."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from typing import Literal, Protocol

State = Literal["unknown", "waiting", "running", "ended"]


class Away(Exception):  # noqa: N818 - it may come back
    """The job server can't be reached just now; the message says why."""


class JobServer(Protocol):
    """Where jobs are run. Each call raises `Away` while it can't be reached."""

    def state(self, id: str) -> tuple[State, str]:
        """Where a job stands, and what the server says of it."""

    def submit(self, id: str, entrypoint: str, environment: Mapping[str, str], metadata: Mapping[str, str]) -> None:
        """Ask for a job that isn't known there; one that another has asked for meanwhile is no error."""

    def stop(self, id: str) -> None:
        """Ask a job to save its state and end; it may have ended already."""

    def remove(self, id: str) -> None:
        """Forget a job, so that its id can be used again; it is then unknown, at once or a little later."""

    def logs(self, id: str) -> AsyncIterator[str]:
        """What it writes, from its beginning on, until it ends."""
