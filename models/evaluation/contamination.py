"""Which items of a benchmark a model has trained on: those whose text a training document contains.

A document is first looked up in an index of all items (`datalake.curate.checks.decontaminate`, n-grams of 13 words). An
n-gram in common says little: of flags raised by that alone most are false, being phrases that many texts have. So an
item counts only where `COVERED` of its words lie within runs of `RUN` words that one document has too. Words are
compared in lower case and NFKC; punctuation and white space don't count.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Sequence

from datalake.curate.checks.decontaminate import Index
from datalake.curate.checks.decontaminate_config import DecontaminateConfig
from datalake.curate.checks.evaluation_sets import WORD, EvaluationRow
from datalake.files import Files

RUN = 8  # words (or Chinese characters) in a row
COVERED = 0.8  # of an item's words


def contaminated(texts: Sequence[str], documents: Iterable[tuple[str, str]]) -> list[list[str]]:
    """For each item's text the names of the documents, (name, text) each, that contain it, in their order.

    An item of fewer than 8 words (a Chinese character being half a word, 13 characters) is found in none.
    """
    config = DecontaminateConfig.model_construct(paths=Files(), ngram=13, shortest=RUN, max_rows=None, share=0.0)
    index = Index((EvaluationRow("item", "item", number, [text]) for number, text in enumerate(texts)), config)
    words = [_words(text) for text in texts]
    grams: dict[tuple[str, ...], list[tuple[int, int]]] = {}  # a run: items, and where it begins in each
    for number, own in enumerate(words):
        for place in range(len(own) - RUN + 1):
            grams.setdefault(tuple(own[place : place + RUN]), []).append((number, place))
    found: list[list[str]] = [[] for _ in texts]
    for name, text in documents:
        if not index.overlap(text).ngrams:
            continue
        own = _words(text)
        shared: dict[int, set[int]] = {}
        for gram in {tuple(own[place : place + RUN]) for place in range(len(own) - RUN + 1)} & grams.keys():
            for number, place in grams[gram]:
                shared.setdefault(number, set()).update(range(place, place + RUN))
        for number, places in sorted(shared.items()):
            if len(places) >= COVERED * len(words[number]):
                found[number].append(name)
    return found


def _words(text: str) -> list[str]:
    return WORD.findall(unicodedata.normalize("NFKC", text).lower())
