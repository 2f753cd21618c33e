"""The names of the stages, in the order of the pipeline; `base`, which a recipe may lack, is none of them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from models.methods import METHODS

TRAINING: tuple[str, ...] = tuple(METHODS)  # those that make a model
ANSWERING: tuple[str, ...] = tuple(name for name, method in METHODS.items() if method.writes)
# Those that let a model write what others learn from, by the method that they stand before or after.
_BEFORE = {"sft": ("instruct",)}
_AFTER = {"sft": ("feedback",)}
STAGES: tuple[str, ...] = (
    "ingest",
    "quality",
    "curate",
    "thresholds",
    "deduplicate",
    "mixture",
    "tokenizer",
    "tokenize",
    *(name for method in METHODS for name in (*_BEFORE.get(method, ()), method, *_AFTER.get(method, ()))),
    "evaluate",
)

if TYPE_CHECKING:
    StageName = str
    TrainingStage = str
else:
    StageName = Literal[STAGES]
    TrainingStage = Literal[TRAINING]
