"""Scores by any Transformers model for sequence classification: a text's beginning, batched by length.

How texts are read says datalake/text/transformer.py. The score is the probability of a label: softmax over the
labels of a classifier, a sigmoid where a text may have several labels or there is but one, the number itself of a
regression, as Transformers' text-classification pipeline does. A blank text has none,
nor one of which a broken model makes no number.

Scores are rounded to 4 digits, since the last ones of a float32 depend on processor, threads and neighbours in a batch.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from datalake.curate.scores.config import ClassifierConfig
from datalake.errors import UserError
from datalake.text.transformer import Loaded, load, token_batches


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
    auto = "AutoModelForSequenceClassification"
    loaded = load(config.model, auto, "classifier", "curate.classifiers")
    label = _place_of(config, loaded)
    for batch, tokens in token_batches([texts[row] for row in chosen], loaded, config.max_tokens):
        for k, score in zip(batch, _forward(loaded, label, tokens), strict=True):
            scores[chosen[k]] = round(score, 4) if math.isfinite(score) else None
    return scores


def _place_of(config: ClassifierConfig, loaded: Loaded) -> int:
    """The label's place among the logits."""
    labels = {str(text): int(index) for index, text in loaded.model.config.id2label.items()}
    if config.label not in labels and not (config.label == "" and len(labels) == 1):
        there = ", ".join(labels)
        raise UserError(
            f"{config.model.path} has no label {config.label!r}: correct `curate.classifiers`, label; it has {there}"
        )
    return labels.get(config.label, 0)


def _forward(loaded: Loaded, label: int, tokens: Any) -> list[float]:
    import torch

    config = loaded.model.config
    with torch.inference_mode():
        logits = loaded.model(**tokens).logits.float()
        if config.problem_type == "regression":
            values = logits
        elif config.problem_type == "multi_label_classification" or config.num_labels == 1:
            values = logits.sigmoid()
        else:
            values = logits.softmax(-1)
    return [float(value) for value in values[:, label].tolist()]
