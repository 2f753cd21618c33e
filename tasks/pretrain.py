"""The stage `pretrain`: a decoder from nothing, on the mixture's tokens."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from datalake.errors import UserError
from datalake.lake.lake import FolderRef, TableRef
from models.training.config import PretrainConfig
from tasks.learning import LEARNING, Trained, train_alone, trained
from tasks.produced import Produced
from tasks.runtime import Runtime
from tasks.stage import stage
from tasks.tokens import token_indices, training_documents


def _pretrain(config: PretrainConfig, indices: list[Path], documents: Any, tokenizer: Path, out: Path) -> Any:
    from models.methods.pretrain import pretrain as run

    train, heldout = documents
    return run(config, indices, train, heldout, tokenizer, out)


@stage(Trained, version="1", libraries=LEARNING)
def pretrain(
    config: PretrainConfig,
    runtime: Runtime,
    tokens: FolderRef,
    mixture: TableRef,
    tokenizer: FolderRef,
    repetition_seed: int,
) -> Produced:
    """Train a decoder from nothing on the mixture's token shards."""
    lake = runtime.lake
    documents = training_documents(lake, mixture, tokens, repetition_seed)
    if not documents[0]:
        raise UserError("no document is left to train on: lower mixture.holdout, or choose a milder curate.preset")
    report = train_alone(
        "pretrain",
        _pretrain,
        config.total_steps,
        runtime,
        config,
        token_indices(lake, tokens),
        documents,
        lake.path(tokenizer),
    )
    return trained("pretrain", report, runtime, records_in=len(documents[0]))
