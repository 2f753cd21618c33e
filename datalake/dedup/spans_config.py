"""What a user may set about the removal of repeated lines, paragraphs and word runs from documents that stay.

Each section has a part that shapes what a shard is marked with (`marking`): shards marked under equal values are joined
without reading their documents again, whatever else changes.
"""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

Unit = Literal["line", "paragraph"]
Measure = Literal["words", "characters"]
Normalisation = Literal["ccnet", "c4"]


class LineMarking(BaseModel):
    """All that shapes a shard's units and their hashes."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    unit: Unit
    minimum: int
    measure: Measure
    normalise: Normalisation


class LinesConfig(BaseModel):
    """Lines or paragraphs that several documents hold: cut from all of them but the first, or from all."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    unit: Unit = Field(
        "line",
        title="Unit",
        description="`line`: what stands between line breaks; `paragraph`: lines up to a blank one",
    )
    minimum: int = Field(
        10,
        ge=1,
        le=100_000,
        title="Least length",
        description="A unit shorter than this, in `measure`, is never cut (10 words as in FineWeb's experiments)",
    )
    measure: Measure = Field(
        "words", title="Measure", description="What `minimum` counts: words, or characters after normalisation"
    )
    copies: int = Field(
        2,
        ge=2,
        le=1_000_000,
        title="Documents from which on it is cut",
        description="A unit is cut when at least so many kept documents hold it",
    )
    keep: Literal["first", "none"] = Field(
        "first",
        title="What stays",
        description="`first`: the first occurrence in the order of precedence (C4); `none`: nothing, all copies go "
        "(CCNet)",
    )
    normalise: Normalisation = Field(
        "ccnet",
        title="Normalisation",
        description="How units are compared. `ccnet`: stripped, lower-cased, digits as 0, without CCNet's Unicode "
        "punctuation and control characters; `c4`: stripped and lower-cased",
    )

    @property
    def marking(self) -> LineMarking:
        """The part that shapes a shard's marks."""
        return LineMarking(unit=self.unit, minimum=self.minimum, measure=self.measure, normalise=self.normalise)


class SubstringMarking(BaseModel):
    """All that shapes a shard's fingerprints: hashes of `gram` words, the least of every `window` in a row."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    gram: int
    window: int


class SubstringsConfig(BaseModel):
    """Runs of words that stand in an earlier document, or earlier in the same one: cut wherever they come again."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    minimum: int = Field(
        50,
        ge=2,
        le=10_000,
        title="Least length in words",
        description="Runs of at least so many words are cut; a Chinese character is a word. 50 as in RefinedWeb, whose "
        "tokens are GPT-2's",
    )
    limit: int = Field(
        32,
        ge=1,
        le=10_000,
        title="Comparisons at most",
        description="A place is compared with up to this many first occurrences of its fingerprint; where more share "
        "it, a longer match with a later one can be missed (counted as crowded)",
    )

    @property
    def marking(self) -> SubstringMarking:
        """Winnowing (Schleimer, Wilkerson, Aiken 2003) finds every run of gram + window - 1 words: here, `minimum`."""
        gram = (self.minimum + 1) // 2
        return SubstringMarking(gram=gram, window=self.minimum - gram + 1)
