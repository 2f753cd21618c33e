"""Curves and settings for Weights & Biases, offline unless WANDB_MODE says otherwise: `wandb sync
LAKE/tracking/wandb/wandb/offline-run-*` sends them."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tasks.shown.tracking import Tracked, Write, address


@contextmanager
def track(place: Path, tracked: Tracked) -> Iterator[Write]:
    """A project for each corpus, a run for each stage; one that goes on has the same id, by which they are joined."""
    os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
    import wandb

    mode: Any = address("WANDB_MODE", "offline")
    run = wandb.init(
        project=tracked.corpus,
        name=tracked.name,
        id=tracked.fingerprint[:16],
        resume="allow",
        dir=str(place),
        mode=mode,
        config=dict(tracked.settings),
        settings=wandb.Settings(console="off", silent=True, x_disable_stats=True, disable_git=True, save_code=False),
        reinit="create_new",
    )

    def write(step: int, figures: Mapping[str, float]) -> None:
        run.log(dict(figures), step=step)

    try:
        yield write
    except BaseException:
        run.finish(exit_code=1)
        raise
    run.finish()
