"""What a training step saw: its batch, turned back into the documents, dialogues, pairs or prompts it was made of.

A stage's order is a pure function of (seed, step), so nothing is kept for this: the stage's inputs are read again, cut
to the context by its own rule, and asked for the step. Steps count from 1, as in metrics.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from datalake.errors import UserError
from datalake.lake import FolderRef, Lake, TableRef
from datalake.records import StageRecord


class Seen(NamedTuple):
    """One piece of a batch: the record's id, its first token that was seen, and how many."""

    id: bytes
    first: int
    tokens: int


def seen(lake: Lake, record: StageRecord, step: int) -> tuple[str, list[Seen]]:
    """The table whose rows a step of a stage saw, and which of them, in the batch's order.

    Raises:
        UserError: for a stage without steps, a step it never took, or inputs that no longer give what it trained on.
    """
    if record.stage not in _BATCHES:
        raise UserError(f"{record.stage} has no training steps: ask about {', '.join(_BATCHES)}")
    steps = int(record.report["steps"])
    if not 1 <= step <= steps:
        raise UserError(f"step {step} is out of range: {record.stage} took {steps} steps, 1 to {steps}")
    return _BATCHES[record.stage](lake, record, step - 1)


def _pretrain(lake: Lake, record: StageRecord, step: int) -> tuple[str, list[Seen]]:
    from models.text.sampler import Sampler
    from models.text.shards import TokenShards
    from models.training.config import PretrainConfig
    from tasks.training import token_indices, training_documents

    config = PretrainConfig.model_validate(record.payload["config"])
    tokens, mixture = _folder(record, "tokens"), _table(record, "mixture")
    documents, _ = training_documents(lake, mixture, tokens, int(record.payload["inputs"]["repetition_seed"]))
    shards = TokenShards(token_indices(lake, tokens))
    sampler = Sampler(shards, documents, config.seed, config.context, config.batch)
    return "documents", [Seen(*part) for part in sampler.documents(step)]


def _sft(lake: Lake, record: StageRecord, step: int) -> tuple[str, list[Seen]]:
    from models.training.config import SftConfig
    from models.training.epochs import Epochs
    from models.training.sft import fitting
    from tasks.alignment import dialogues

    config = SftConfig.model_validate(record.payload["config"])
    train, _ = dialogues(lake, _table(record, "conversations"), _holdout(record))
    words, context = _tokenizer(lake, record, "base", config.context)
    kept = []
    for row in train:
        found, _ = fitting(row["messages"], words, context + 1)
        if found is not None:
            kept.append(Seen(row["id"], 0, len(found[0])))
    _check(record, "dialogues", len(kept))
    epochs = Epochs([one.tokens for one in kept], config.seed, config.batch)
    return "conversations", [kept[item] for item in epochs.items(step)]


def _reward(lake: Lake, record: StageRecord, step: int) -> tuple[str, list[Seen]]:
    from models.training.config import RewardConfig
    from models.training.epochs import Epochs
    from models.training.reward import fitting
    from tasks.alignment import pairs

    config = RewardConfig.model_validate(record.payload["config"])
    train, _ = pairs(lake, _table(record, "preferences"), _holdout(record))
    words, context = _tokenizer(lake, record, "base", config.context)
    rendered = [(row["id"], fitting(row, words, context)) for row in train]
    kept = [(id, pair) for id, pair in rendered if pair]
    _check(record, "pairs", len(kept))
    epochs = Epochs([max(map(len, pair)) for _, pair in kept], config.seed, config.batch)
    items = [kept[item] for item in epochs.items(step)]
    return "preferences", [Seen(id, 0, sum(map(len, pair))) for id, pair in items]


def _ppo(lake: Lake, record: StageRecord, step: int) -> tuple[str, list[Seen]]:
    from models.training.config import PpoConfig
    from models.training.epochs import Epochs
    from models.training.ppo import fitting_prompt
    from tasks.alignment import dialogues

    config = PpoConfig.model_validate(record.payload["config"])
    train, _ = dialogues(lake, _table(record, "conversations"), _holdout(record))
    words, context = _tokenizer(lake, record, "policy", None)
    _, judges = _tokenizer(lake, record, "reward_model", None)
    room = min(context, judges) - config.new_tokens
    kept = []
    for row in train:
        found = fitting_prompt(row["messages"][:-1], words, room)
        if found:
            kept.append(Seen(row["id"], 0, len(found)))
    _check(record, "prompts", len(kept))
    order = Epochs([1] * len(kept), config.seed, 1)
    places = range(step * config.batch, (step + 1) * config.batch)
    return "conversations", [kept[order.items(place)[0]] for place in places]


_BATCHES: dict[str, Callable[[Lake, StageRecord, int], tuple[str, list[Seen]]]] = {
    "pretrain": _pretrain,
    "sft": _sft,
    "reward": _reward,
    "ppo": _ppo,
}


def _table(record: StageRecord, name: str) -> TableRef:
    ref = record.inputs[name][0]
    assert isinstance(ref, TableRef)
    return ref


def _folder(record: StageRecord, name: str) -> FolderRef:
    ref = record.inputs[name][0]
    assert isinstance(ref, FolderRef)
    return ref


def _holdout(record: StageRecord) -> Any:
    from tasks.alignment import HoldOut

    return HoldOut.model_validate(record.payload["inputs"]["holdout"])


def _tokenizer(lake: Lake, record: StageRecord, name: str, asked: int | None) -> tuple[Any, int]:
    """The tokenizer of a model that a stage began with, and the tokens that the stage took at once."""
    from models.text.tokenizer import load

    folder: Path = lake.path(_folder(record, name))
    try:
        longest = json.loads((folder / "config.json").read_bytes()).get("max_position_embeddings") or 1 << 30
    except (OSError, ValueError, AttributeError):
        raise UserError(f"{folder}, which {record.stage} began with, is gone: run its recipe again") from None
    return load(folder), min(asked or longest, longest)


def _check(record: StageRecord, what: str, found: int) -> None:
    """That as many items fit the context as when the stage ran: else what would be told is another run's order."""
    if found != record.report.get(what):
        raise UserError(
            f"{record.stage} trained on {record.report.get(what)} {what} and {found} fit now: it was run by another"
            " version, which cut them otherwise; run its recipe again to trace its steps"
        )
