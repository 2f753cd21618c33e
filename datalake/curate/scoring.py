"""Metrics by models, for a batch of repaired texts: the quality classifier's probability, perplexity, classifiers."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from datalake.curate.config import CurateConfig
from datalake.curate.metrics.catalog import NAMES
from datalake.curate.scores.classifiers import classify
from datalake.curate.scores.perplexity import perplexity_of
from datalake.curate.scores.quality import QualityModel

_QUALITY, _PERPLEXITY = NAMES.index("quality"), NAMES.index("perplexity")


def fill(
    texts: Sequence[str],
    languages: Sequence[str],
    metrics: npt.NDArray[Any],
    config: CurateConfig,
    trained: Path | None = None,
) -> dict[str, list[float | None]]:
    """Write what models say of each text into its row of `metrics`, shape (texts, metrics of the catalog), in place.

    Returns the scores of the recipe's classifiers by name, one for each text.

    `trained` is the folder of the classifier that the stage `quality` left; a ready one is in the config.

    Raises:
        UserError: where a model is gone, has changed or is none.
    """
    model = QualityModel.trained(trained) if trained else None
    if config.quality.model:
        model = QualityModel.ready(config.quality)
    if model is not None:
        scores = [model.score(text, language) for text, language in zip(texts, languages, strict=True)]
        metrics[:, _QUALITY] = np.array(scores, np.float64)  # None becomes NaN
    for row, (text, language) in enumerate(zip(texts, languages, strict=True)):
        if (models := config.perplexity.get(language)) is not None:
            value = perplexity_of(text, models)
            metrics[row, _PERPLEXITY] = np.nan if value is None else value
    return {classifier.name: classify(texts, languages, classifier) for classifier in config.classifiers}
