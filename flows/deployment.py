"""A step of deployments/prefect.yaml: where Headwater's code lies, so that no path is written down in the file."""

from __future__ import annotations

from pathlib import Path


def place() -> dict[str, str]:
    """The repository's root, for the templates of prefect.yaml."""
    return {"root": str(Path(__file__).parent.parent)}
