"""A step of deployments/prefect.yaml: where Headwater's code lies and which it is, so that neither is written there."""

from __future__ import annotations

import importlib.metadata
from pathlib import Path


def place() -> dict[str, str]:
    """The repository's root and its version, for the templates of prefect.yaml."""
    return {"root": str(Path(__file__).parent.parent), "version": version()}


def version() -> str:
    """The commit that lies there, `+changes` where files of it were changed; outside of git the package's version."""
    from tasks.record import git_state

    commit, changed = git_state()
    if commit is None:
        return importlib.metadata.version("headwater")
    return commit[:12] + ("+changes" if changed else "")
