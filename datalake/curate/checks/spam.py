"""Spam in Chinese: pages that advertise gambling, prostitution or forged papers, or are made for search engines.

Such pages are mostly good text taken from elsewhere, with names of bookmakers put into it; no measure of a text's form
tells them. What tells them are terms, in groups: what only they say (`gambling`), their names (`brand`), and names or
games followed at once by an entrance, `娱乐城` + `官网` (`pair`; `weak` where the name could be anybody's). A logistic
regression weighs how many terms of each group a text has, and how dense they stand. Words of news and courts weigh
against, since reports about gambling use its terms.

Terms and weights are this project's own, in `spam.json`: terms written down for it, weights trained by
`benchmarks/spam.py`, which also says on what and how well they do. Terms are in simplified characters. Texts are
compared in lower case, without compatibility forms (full width), in simplified characters, and without what is neither
letter nor digit within a sentence: 百 家 樂 and ＢＥＴ★３６５ are found.
"""

from __future__ import annotations

import json
import math
import unicodedata
from functools import cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from datalake.curate.languages import CHINESE
from datalake.text.automaton import Automaton
from datalake.text.characters import Points, points
from datalake.text.chinese import simplified_table

MODEL = Path(__file__).with_name("spam.json")
_ENDS = "\n\r\v\f\x85\u2028\u2029，。！？；：…“”!?;"  # no term goes beyond
_OUT, _END = 0, 10
_LAST = 0x20000  # nothing that is compared lies beyond but rare ideographs
_ANYBODY = ("adult", "game", "offers", "weak")  # groups of which one term alone may stand in any text
_SHORT = 500  # characters; in a shorter text terms are as dense as in one of so many
_DENSE = 8.0  # terms in 1,000 characters: more count as many


class Terms(NamedTuple):
    """Terms of all groups, ready to be counted."""

    groups: tuple[str, ...]
    automaton: Automaton
    group_of: tuple[int, ...]  # each word's group
    alone: npt.NDArray[np.int64]  # how many terms of each group say nothing


class Model(NamedTuple):
    """Terms, and what each feature weighs."""

    terms: Terms
    weights: npt.NDArray[np.float64]
    bias: float


def terms_of(lists: dict[str, list[str]]) -> Terms:
    """Terms from lists by name: those of `brand`, `house`, `stem` and `place` are also put before each `entrance`."""
    words: dict[str, str] = {}
    for first, group in (("brand", "pair"), ("house", "weak"), ("stem", "weak"), ("place", "weak")):
        for name in lists[first]:
            for entrance in lists["entrance"]:
                words.setdefault(name + entrance, group)
    for group, own in lists.items():
        if group not in ("house", "stem", "place", "entrance"):
            for word in own:
                words.setdefault(word, group)
    groups = tuple(sorted(set(words.values())))
    of_words = tuple(groups.index(group) for group in words.values())
    return Terms(groups, Automaton(list(words)), of_words, np.array([int(group in _ANYBODY) for group in groups]))


def features(text: str, terms: Terms) -> npt.NDArray[np.float64]:
    """What the regression weighs, shape (2 x groups + 1,): the logarithm of each group's terms, then how dense they
    stand, then whether a site that spins texts has a name or an entrance in it."""
    codes = _plain()[points(text)]
    codes = codes[codes != _OUT]
    counts = np.zeros(len(terms.groups), np.int64)
    for word, times in terms.automaton.counts(codes.tobytes().decode("utf-32-le", "surrogatepass")).items():
        counts[terms.group_of[word]] += times
    named = dict(zip(terms.groups, counts.tolist(), strict=True))
    counts -= np.minimum(counts, terms.alone)
    dense = np.minimum(1000 * counts / max(_SHORT, len(codes)), _DENSE)
    spun = named["spun"] and named["brand"] + named["pair"] + named["weak"] + named["gambling"]
    logs = np.log2(1 + counts)
    if logs.sum() == logs[report := terms.groups.index("report")]:
        logs[report] = dense[report] = 0.0  # a report about something else
    return np.concatenate([logs, dense, [float(bool(spun))]])


def feature_names(terms: Terms) -> list[str]:
    """The features' names, as the weights are kept under."""
    return [*(f"{g} terms" for g in terms.groups), *(f"{g} dense" for g in terms.groups), "spun with a name"]


def spam_score(text: str, language: str) -> float | None:
    """The probability that a text is spam, to 4 digits; None for a blank text and one in another language."""
    if language not in CHINESE or not text.strip():
        return None
    return probability(text, model())


def probability(text: str, model: Model) -> float:
    """The probability by a model that a Chinese text is spam, to 4 digits."""
    value = float(features(text, model.terms) @ model.weights) + model.bias
    return round(1 / (1 + math.exp(-min(max(value, -30.0), 30.0))), 4)


@cache
def model() -> Model:
    """The terms and weights that ship."""
    held = json.loads(MODEL.read_text("utf-8"))
    terms = terms_of(held["terms"])
    return Model(terms, np.array([held["weights"][name] for name in feature_names(terms)]), held["bias"])


@cache
def _plain() -> Points:
    """What each code point is compared as, shape (0x110000,): 0 where it is left out, a line break where words end."""
    table = np.arange(0x110000, dtype=np.uint32)
    simplified = simplified_table()
    for point in range(_LAST):
        character = chr(point)
        form = unicodedata.normalize("NFKC", character).lower()
        if character in _ENDS:
            table[point] = _END
        elif len(form) == 1 and form.isalnum():
            table[point] = simplified[ord(form)]
        elif not character.isalnum():
            table[point] = _OUT
    return table
