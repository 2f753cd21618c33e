"""The stage `sft`: the pretrained decoder learns to answer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from datalake.lake.lake import FolderRef, TableRef
from models.training.config import SftConfig
from tasks.dialogues import HoldOut, dialogues, nothing_left, warn_of_one_sided
from tasks.learning import LEARNING, Trained, left_out, planned_steps, train_alone, trained
from tasks.produced import Produced
from tasks.runtime import Runtime
from tasks.stage import stage


def _sft(config: SftConfig, base: Path, train: list[Any], heldout: list[Any], out: Path) -> Any:
    from models.methods.sft import sft as run

    return run(config, base, [row["messages"] for row in train], [row["messages"] for row in heldout], out)


@stage(Trained, version="3", libraries=LEARNING)
def sft(config: SftConfig, runtime: Runtime, base: FolderRef, conversations: TableRef, holdout: HoldOut) -> Produced:
    """Tune the pretrained decoder on dialogues; the loss counts the assistant's tokens."""
    train, heldout = dialogues(runtime.lake, conversations, holdout)
    if not train:
        raise nothing_left("conversation", len(heldout), "sft")
    report = train_alone(
        "sft",
        _sft,
        planned_steps(config, len(train)),
        runtime,
        config,
        runtime.lake.path(base),
        train,
        heldout,
    )
    warn_of_one_sided(report, train, heldout, holdout.share, "dialogues")
    rows, note = left_out(report, train, "dialogues")
    return trained("sft", report, runtime, conversations.rows, left_out=rows, note=note)
