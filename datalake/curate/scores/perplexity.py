"""Perplexity under a KenLM model, as CCNet computes it (cc_net/perplexity.py and mine.py; Wenzek et al. 2020).

The whole document is normalised at once (lower case, no accents, digits as 0, punctuation in ASCII, no control
characters, so that lines run on without a break), cut by sentencepiece, and scored as one line with beginning and end:

    perplexity = 10 ^ (-log10 probability / (pieces + 1)), rounded to 1 digit

A document of which nothing is left has none. The packages kenlm and sentencepiece are the extra `kenlm`.
"""

from __future__ import annotations

import sys
import unicodedata
from functools import cache, lru_cache
from typing import Any, NamedTuple

from datalake.curate.scores.config import PerplexityModel
from datalake.errors import UserError
from datalake.files import File
from datalake.text.normal_forms import normal_form

# cc_net/text_normalizer.py. Its table names the full-width 1 as well, which is a digit and 0 before that.
_PUNCTUATION = {
    "，": ",", "。": ".", "、": ",", "„": '"', "”": '"', "“": '"', "«": '"', "»": '"', "」": '"', "「": '"', "《": '"',
    "》": '"', "´": "'", "∶": ":", "：": ":", "？": "?", "！": "!", "（": "(", "）": ")", "；": ";", "–": "-",
    "—": " - ", "．": ". ", "～": "~", "’": "'", "…": "...", "━": "-", "〈": "<", "〉": ">", "【": "[", "】": "]",
    "％": "%",     "►": "-",
}  # fmt: skip


@cache
def _table() -> dict[int, str | None]:
    """What becomes of single characters of a lower-cased, decomposed text; None: nothing."""
    table: dict[int, str | None] = {ord(character): other for character, other in _PUNCTUATION.items()}
    table |= dict.fromkeys([*range(32), *range(127, 160)])
    for point in range(sys.maxunicode + 1):
        category = unicodedata.category(chr(point))
        if category == "Mn":
            table[point] = None
        elif category == "Nd":
            table[point] = "0"
    return table


def normalise(text: str) -> str:
    """A text as CCNet shows it to sentencepiece."""
    return normal_form("NFD", text.strip().lower()).translate(_table())


class Models(NamedTuple):
    """A sentencepiece and a KenLM model, loaded."""

    pieces: Any  # has encode_as_pieces(text) -> list of str
    model: Any  # has score(line) -> log10 probability, beginning and end included


def perplexity(text: str, models: Models) -> float | None:
    """The perplexity of a text, rounded to 1 digit; None where normalisation leaves nothing of it."""
    line = normalise(text).encode("utf-8", "replace").decode("utf-8")  # lone surrogates can't reach the models
    if not line:
        return None
    cut = " ".join(models.pieces.encode_as_pieces(line))
    exponent = -models.model.score(cut) / (len(cut.split()) + 1)
    return round(10.0**exponent, 1) if exponent < 300 else None  # beyond what a double holds: a broken model


def perplexity_of(text: str, config: PerplexityModel) -> float | None:
    """The perplexity of a text under the models of its language.

    Raises:
        UserError: where a file is gone, has changed or is no model, or the packages aren't installed.
    """
    return perplexity(text, _loaded(config.model, config.sentencepiece))


@lru_cache(maxsize=16)
def _loaded(model: File, pieces: File) -> Models:
    """The loaded models, one pair for each language and process."""
    try:
        import kenlm
        import sentencepiece
    except ImportError:
        raise UserError("curate.perplexity needs KenLM: run `pip install kenlm sentencepiece`") from None
    model.check("curate.perplexity, model")
    pieces.check("curate.perplexity, sentencepiece")
    cutter = sentencepiece.SentencePieceProcessor()
    try:
        cutter.load(pieces.path)
    except Exception:
        what = f"{pieces.path} is no sentencepiece model"
        raise UserError(f"{what}: correct `curate.perplexity`, sentencepiece") from None
    settings = kenlm.Config()
    settings.show_progress = False
    settings.arpa_complain = kenlm.ARPALoadComplain.NONE
    try:
        return Models(cutter, kenlm.Model(model.path, settings))
    except Exception:
        raise UserError(f"{model.path} is no KenLM model: correct `curate.perplexity`, model") from None
