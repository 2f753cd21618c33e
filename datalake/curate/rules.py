"""Rules are data: `metric op threshold` is what a kept document satisfies, with a name and where the number comes from.

A rule on a missing metric does not apply, nor does one to a document in a language it wasn't made for. Imports nothing
heavier than pydantic.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from datalake.identity import Place
from datalake.text.language_code import LanguageCode

CLASSIFIER = "classifier:"  # begins the name of a metric that a classifier of the recipe gives
RECIPE = "recipe"  # the source of a rule, or a number, that the recipe asks for
LANGUAGE, EMPTY = "language", "empty_after_edits"  # rules without a number: languages kept, text left by the edits
CONTAMINATED, BLOCKED, QUALITY, PERPLEXITY = "contaminated", "blocked", "quality", "perplexity"

Operator = Literal["<", "<=", ">", ">=", "=="]
LineEdits = Literal["none", "auto", "c4", "c4-paper", "c4-datatrove", "fineweb", "refinedweb"]
Repair = Literal["text", "no_urls", "code", "none"]


def _name(value: str) -> str:
    if not re.fullmatch(r"[^\s/]+", value):
        raise ValueError("a name without spaces and without `/` is wanted")
    return value


Name = Annotated[str, AfterValidator(_name)]  # `/` stands between a set's name and a rule's
# What fails `value op threshold`, so that a missing value (NaN, NULL) fails nothing; and the same in SQL.
_FAILS: dict[str, tuple[Callable[[Any, float], Any], str]] = {
    "<": (operator.ge, ">="),
    "<=": (operator.gt, ">"),
    ">": (operator.le, "<="),
    ">=": (operator.lt, "<"),
    "==": (lambda value, threshold: (value < threshold) | (value > threshold), "<>"),
}


class Rule(BaseModel):
    """One condition that a kept document satisfies."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: Name = Field(title="Name", description="What the ledger calls it in `rule` and `rules`")
    metric: str = Field(title="Metric", description="A column of the ledger")
    op: Operator = Field(title="Operator", description="How the metric of a kept document stands to the threshold")
    threshold: float = Field(allow_inf_nan=False, title="Threshold")
    languages: tuple[LanguageCode, ...] | None = Field(
        default=None, min_length=1, title="Languages", description="Of the documents meant; empty means all"
    )
    source: Annotated[str, Place()] = Field(
        default=RECIPE, title="Where it comes from", description="The paper or file that the threshold was taken from"
    )

    def __str__(self) -> str:
        return f"{self.name}: {self.metric} {self.op} {self.threshold:g}"

    def is_for(self, language: str) -> bool:
        """Whether documents in this language are meant."""
        return self.languages is None or language in self.languages


class RuleSet(BaseModel):
    """What documents of its kinds and languages (None: all) are held to: rules, repair, and line edits of those kept.

    With `code_apart` prose alone is measured and edited, and the code in it (between lines of three backticks, as pages
    and Markdown have it) goes with the prose as it is. `keep_empty` keeps also what has no text.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: Name
    kinds: tuple[str, ...] | None = Field(default=None, min_length=1)
    languages: tuple[LanguageCode, ...] | None = Field(default=None, min_length=1)
    line_edits: LineEdits = "none"
    repair: Repair = "text"
    code_apart: bool = False
    keep_empty: bool = False
    rules: tuple[Rule, ...]

    def is_for(self, kind: str, language: str) -> bool:
        """Whether documents from this kind of source in this language are meant."""
        return (self.kinds is None or kind in self.kinds) and (self.languages is None or language in self.languages)


def fails(op: str, value: Any, threshold: float) -> Any:
    """Whether `value op threshold` is not so: a truth value for a number, an array of them for an array."""
    return _FAILS[op][0](value, threshold)


def fails_sql(op: str, value: str, threshold: str) -> str:
    """The same of two expressions of DuckDB."""
    return f"{value} {_FAILS[op][1]} {threshold}"
