"""Fixtures shared by the whole suite: the real samples, where they are."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


def samples_root() -> Path:
    """Where the real samples are looked for: HEADWATER_SAMPLES, else beside the repository."""
    return Path(os.environ.get("HEADWATER_SAMPLES", ROOT.parent / "shared" / "samples"))


@pytest.fixture(scope="session")
def samples() -> Path:
    """The folder of real samples; the test skips where there is none."""
    root = samples_root()
    if not root.is_dir():
        pytest.skip(f"no samples at {root}: set HEADWATER_SAMPLES")
    return root
