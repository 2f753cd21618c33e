"""Scores by any Transformers model for sequence classification: a text's beginning, batched by length.

A text is read up to `max_tokens` tokens, or as many as the model takes; of one too long to be cut into tokens as a
whole, the first 32 characters for each of these tokens are. The score is the probability of a label: softmax over the
labels of a classifier, a sigmoid where a text may have several labels or there is but one, the number itself of a
regression, as Transformers' text-classification pipeline does. A blank text has none,
nor one of which a broken model makes no number.

Scores are rounded to 4 digits, since the last ones of a float32 depend on processor, threads and neighbours in a batch.
A GPU is used where the process sees one.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from datalake.curate.quality_config import ClassifierConfig
from datalake.errors import UserError
from datalake.identity import folder_version

if TYPE_CHECKING:
    import torch

_CHARACTERS_PER_TOKEN = 32
_BATCH_TOKENS = 8192  # of a batch, padding included
_BATCH_TEXTS = 256


class _Loaded(NamedTuple):
    model: Any
    tokenizer: Any
    label: int  # its place among the logits
    device: torch.device
    most: int  # tokens that model and tokenizer take


def classify(texts: Sequence[str], languages: Sequence[str], config: ClassifierConfig) -> list[float | None]:
    """The score of each text; None for a blank one and for one in another language.

    Raises:
        UserError: where there is no such model or label, or the folder has changed.
    """
    chosen = [
        row
        for row, (text, language) in enumerate(zip(texts, languages, strict=True))
        if text.strip() and config.language in (None, language)
    ]
    scores: list[float | None] = [None] * len(texts)
    if not chosen:
        return scores
    loaded = _load(config.model, config.model_version, config.label)
    most = min(config.max_tokens, loaded.most)
    # Lone surrogates can't reach the tokenizer.
    cut = [texts[row][: _CHARACTERS_PER_TOKEN * most].encode("utf-8", "replace").decode("utf-8") for row in chosen]
    tokens = loaded.tokenizer(cut, truncation=True, max_length=most)
    for batch in _batches([len(ids) for ids in tokens["input_ids"]]):
        padded = loaded.tokenizer.pad(
            {name: [values[k] for k in batch] for name, values in tokens.items()}, return_tensors="pt"
        )
        for k, score in zip(batch, _forward(loaded, padded), strict=True):
            scores[chosen[k]] = round(score, 4) if math.isfinite(score) else None
    return scores


def _batches(lengths: Sequence[int]) -> Iterator[list[int]]:
    """Texts of like length together, the shortest first, no more than fit a batch when padded to its longest."""
    batch: list[int] = []
    for k in sorted(range(len(lengths)), key=lambda k: (lengths[k], k)):
        if batch and (len(batch) == _BATCH_TEXTS or (len(batch) + 1) * lengths[k] > _BATCH_TOKENS):
            yield batch
            batch = []
        batch.append(k)
    yield batch


def _forward(loaded: _Loaded, padded: Any) -> list[float]:
    import torch

    config = loaded.model.config
    with torch.inference_mode():
        logits = loaded.model(**padded.to(loaded.device)).logits.float()
        if config.problem_type == "regression":
            values = logits
        elif config.problem_type == "multi_label_classification" or config.num_labels == 1:
            values = logits.sigmoid()
        else:
            values = logits.softmax(-1)
    return [float(value) for value in values[:, loaded.label].tolist()]


@lru_cache(maxsize=8)
def _load(path: str, version: str, label: str) -> _Loaded:
    """The loaded model, one for each classifier and process."""
    import torch
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    name, _, commit = path.partition("@")
    where: dict[str, Any] = {"revision": commit}
    if Path(path).is_dir():
        if not version.startswith(folder_version(Path(path))[:32]):
            raise UserError(f"{path} has changed since the recipe was read: run it again")
        name, where = path, {"local_files_only": True}
    elif not commit:
        raise UserError(f"there is no folder {path!r}: correct `curate.classifiers`, model")
    try:
        tokenizer = AutoTokenizer.from_pretrained(name, **where)
        model = AutoModelForSequenceClassification.from_pretrained(name, dtype=torch.float32, **where)
    except Exception as error:
        why = " ".join(str(error).split())[:200]
        raise UserError(f"{path} is no classifier ({why}): correct `curate.classifiers`, model") from error
    labels = {str(text): int(index) for index, text in model.config.id2label.items()}
    if label not in labels and not (label == "" and len(labels) == 1):
        there = ", ".join(labels)
        raise UserError(f"{path} has no label {label!r}: correct `curate.classifiers`, label; it has {there}")
    # A causal model tells where a text ends by its padding.
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    if model.config.pad_token_id is None:
        model.config.pad_token_id = tokenizer.pad_token_id
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    positions = getattr(model.config, "max_position_embeddings", None) or 1 << 20
    most = min(int(tokenizer.model_max_length), int(positions), 1 << 20)
    return _Loaded(model.eval().to(device), tokenizer, labels.get(label, 0), device, most)
