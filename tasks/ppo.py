"""The stage `ppo`: the tuned model learns to answer as the reward model likes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from datalake.lake.lake import FolderRef, TableRef
from models.training.config import PpoConfig
from tasks.dialogues import HoldOut, dialogues, prompts
from tasks.learning import LEARNING, Trained, left_out, train_alone, trained
from tasks.produced import Produced
from tasks.runtime import Runtime
from tasks.stage import stage


def _ppo(config: PpoConfig, policy: Path, reward_model: Path, prompts: list[Any], out: Path) -> Any:
    from models.methods.ppo import ppo as run

    return run(config, policy, reward_model, prompts, out)


@stage(Trained, version="3", libraries=LEARNING)
def ppo(
    config: PpoConfig,
    runtime: Runtime,
    policy: FolderRef,
    reward_model: FolderRef,
    conversations: TableRef,
    holdout: HoldOut,
) -> Produced:
    """Optimise the tuned model against the reward model, held near the reference by KL control."""
    train, _ = dialogues(runtime.lake, conversations, holdout)
    asked = prompts(train)
    report = train_alone(
        "ppo",
        _ppo,
        config.steps,
        runtime,
        config,
        runtime.lake.path(policy),
        runtime.lake.path(reward_model),
        asked,
    )
    rows, note = left_out(report, train, "prompts")
    return trained("ppo", report, runtime, len(asked), left_out=rows, note=note)
