"""The evaluation stage: every model of a run on held-out documents, dialogues and pairs."""

from __future__ import annotations

from typing import Any

from datalake.lake import FolderRef, TableRef
from models.evaluation.config import EvaluateConfig
from tasks.alignment import HoldOut
from tasks.runtime import Runtime
from tasks.stage import Produced, stage


@stage(version="1", libraries=("torch", "numpy"))
def evaluate(
    tokens: FolderRef,
    mixture: TableRef,
    pretrain: FolderRef,
    holdout: HoldOut,
    config: EvaluateConfig,
    runtime: Runtime,
    **others: Any,
) -> Produced:
    """Judge every model that is there; each figure comes with its interval."""
    raise NotImplementedError
