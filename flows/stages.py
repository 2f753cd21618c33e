"""The names of the stages, in the order of the pipeline."""

from __future__ import annotations

from typing import Literal, get_args

StageName = Literal[
    "ingest",
    "quality",
    "curate",
    "thresholds",
    "deduplicate",
    "mixture",
    "tokenizer",
    "tokenize",
    "pretrain",
    "sft",
    "reward",
    "ppo",
    "evaluate",
]

STAGES: tuple[StageName, ...] = get_args(StageName)
TRAINING: tuple[StageName, ...] = ("pretrain", "sft", "reward", "ppo")  # those that make a model
ANSWERING: tuple[StageName, ...] = ("pretrain", "sft", "ppo")  # of them, those whose model writes
