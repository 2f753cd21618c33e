"""The stage `reward`: a model of which answers people prefer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from datalake.lake.lake import FolderRef, TableRef
from models.training.config import RewardConfig
from tasks.dialogues import HoldOut, nothing_left, pairs, warn_of_one_sided
from tasks.learning import LEARNING, Trained, left_out, planned_steps, train_alone, trained
from tasks.produced import Produced
from tasks.runtime import Runtime
from tasks.stage import stage


def _reward(config: RewardConfig, base: Path, train: list[Any], heldout: list[Any], out: Path) -> Any:
    from models.methods.reward import reward as run

    return run(config, base, train, heldout, out)


@stage(Trained, version="3", libraries=LEARNING)
def reward(
    config: RewardConfig, runtime: Runtime, base: FolderRef, preferences: TableRef, holdout: HoldOut
) -> Produced:
    """Learn a scalar reward from pairs of a preferred and another answer."""
    train, heldout = pairs(runtime.lake, preferences, holdout)
    if not train:
        raise nothing_left("preference pair", len(heldout), "reward")
    unpaired = preferences.rows - len(train) - len(heldout)
    report = train_alone(
        "reward",
        _reward,
        planned_steps(config, len(train)),
        runtime,
        config,
        runtime.lake.path(base),
        train,
        heldout,
    )
    if unpaired:
        report["unpaired"] = unpaired
    warn_of_one_sided(report, train, heldout, holdout.share, "pairs")
    rows, note = left_out(report, train, "pairs")
    return trained("reward", report, runtime, preferences.rows, left_out=rows, note=note)
