"""The metrics of a document: their families in the order of their columns, and the words that definitions use.

Published filters share names and differ in formulas, so each metric has one definition, written here. Two families
measure repetition. The *covered* family (`dup_*`, `top_*`) is the set-coverage definition of DCLM and RedPajama-v2:
every occurrence of what repeats counts, over the characters of words. The *later* family (`later_*`) follows
datatrove: only what comes after the first occurrence counts, over the length of the text. A threshold belongs to the
family it was published with: Gopher's go with the first here, those of FineWeb and FineWeb-2 were set on the second.

Units. A *line* is stripped and not blank. A *paragraph* is a run of lines between blank lines. A *token* is what white
space separates, where a Chinese character and a run of hiragana or katakana are tokens of their own; in Chinese it is
what the segmenter gives. A *piece* of an English line is a run of letters and digits (joined to the next by one of `. /
_ , :` between them), `...`, a run of hyphens, or another symbol, but no apostrophe between letters and no full stop
that ends an abbreviation with others in it: close to the tokens of spaCy, on which datatrove counts. `words` counts
tokens with a letter or digit. An n-gram is over the project's words, the lower-cased matches of
`[\\u3400-\\u9fff]|[^\\W_]+`, in Chinese over the segmenter's, in Japanese cut where tokens are. A metric without
meaning for a document is missing (null), and a rule on a missing metric does not apply.
"""

from __future__ import annotations

from importlib import import_module
from itertools import accumulate

from datalake.curate.metrics.family import Family, Metric
from datalake.curate.rules import CLASSIFIER

# Modules of `families/`, in the order of their columns: a new one comes last.
_ORDER = (
    "gopher",
    "covered",
    "later",
    "fineweb",
    "c4",
    "fineweb_lines",
    "shape",
    "scripts",
    "dolma",
    "c4_variants",
    "dclm",
    "chinese",
    "auto",
    "code",
    "asked",
    "language",
    "mojibake",
)
FAMILIES: dict[str, Family] = {
    name: import_module(f"datalake.curate.metrics.families.{name}").FAMILY for name in _ORDER
}
_ENDS = list(accumulate(len(family.metrics) for family in FAMILIES.values()))
# Which part of a row is a family's.
PLACES: dict[str, slice] = {
    name: slice(start, end) for name, start, end in zip(FAMILIES, [0, *_ENDS], _ENDS, strict=False)
}
METRICS: tuple[Metric, ...] = tuple(metric for family in FAMILIES.values() for metric in family.metrics)
NAMES: tuple[str, ...] = tuple(metric.name for metric in METRICS)

# What the recipe's own rules ask about, in columns of their own.
_OWN = {
    "blocked": "entries of the block lists that its address is on",
    "contaminated_share": "share of its words in overlaps with evaluation sets",
}


def definition(name: str) -> str:
    """What a metric says, for people; also of those that the recipe's own rules ask about."""
    found = next((metric.definition for metric in METRICS if metric.name == name), _OWN.get(name))
    if found is None and not name.startswith(CLASSIFIER):
        return "the recipe's own metric"
    return found or f"score by the classifier {name.removeprefix(CLASSIFIER)}"
