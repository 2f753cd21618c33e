"""What a user may set about models in curation. Imports nothing heavier than pydantic."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from datalake.files import File, Files
from datalake.text.transformer_config import TransformerConfig

Words = Literal["plain", "jieba", "raw"]
Share = Annotated[float, Field(ge=0.0, le=1.0)]


def label_text(value: Any) -> str:
    """A label as text: true and false as JSON writes them, whole numbers without a fraction (1.0 is `1`)."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value)


class QualityConfig(BaseModel):
    """A quality classifier (fastText) trained from labelled texts, whose probability curation stores as `quality`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    paths: Files = Field(
        min_length=1,
        title="Labelled texts",
        description="Files, folders or globs of JSON, JSON Lines, CSV or Parquet with the two columns below, or text "
        "in fastText's form (`__label__NAME text` on each line); also compressed and in archives",
    )
    text: str = Field(default="text", min_length=1, title="Column of the text", description="Of a row")
    label: str = Field(default="label", min_length=1, title="Column of the label", description="Of a row")
    good: str = Field(
        title="Good label", description="The label whose probability is the quality; every other label is not good"
    )
    language: str | None = Field(
        default="en",
        pattern=r"^[a-z]{2,3}$",
        title="Language",
        description="Of the texts and of the documents that get a quality, as lid.176 names it; empty scores documents "
        "in every language. Words of Chinese (zh) are those of jieba",
    )
    holdout: float = Field(
        default=0.2, gt=0.0, le=0.9, title="Held out", description="Share of the texts that judges and never trains"
    )
    seed: int = Field(
        default=0, ge=0, lt=2**31, title="Seed", description="Of what is held out, the order and the first weights"
    )
    word_ngrams: int = Field(
        default=2, ge=1, le=5, title="Word n-grams", description="Longest run of words as a feature"
    )
    learning_rate: float = Field(default=0.5, gt=0.0, le=10.0, title="Learning rate", description="At the start")
    epochs: int = Field(default=5, ge=1, le=1000, title="Epochs", description="Passes over the texts that train")
    dimension: int = Field(default=100, ge=1, le=1000, title="Dimension", description="Numbers that stand for a word")
    buckets: int = Field(
        default=200_000,
        ge=1,
        le=10_000_000,
        title="Buckets",
        description="Word n-grams are hashed into so many; the model takes 4 bytes for each, times the dimension",
    )
    min_count: int = Field(
        default=1, ge=1, title="Rarest word", description="Words that occur less often among the texts don't count"
    )

    @field_validator("good", mode="before")
    @classmethod
    def _good_as_text(cls, value: Any) -> Any:
        return label_text(value) if isinstance(value, bool | int | float) else value

    @property
    def words(self) -> Words:
        """What a word is in this language."""
        return "jieba" if self.language == "zh" else "plain"


class QualityUse(BaseModel):
    """How curation uses a quality classifier: the one that the section `quality` trains, or a ready model."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    minimum: Share | None = Field(
        default=None,
        title="Least quality",
        description="Documents with less are rejected by the rule `quality`; empty stores the quality alone",
    )
    model: File = Field(
        default=File(),
        title="Ready model",
        description="A fastText classifier (.bin or .ftz) in place of the one that the section `quality` trains",
    )
    label: str = Field(
        default="", title="Good label", description="Of a ready model, as in the file, with or without `__label__`"
    )
    words: Words = Field(
        default="raw",
        title="Words",
        description="What a ready model was trained on: `raw` text with white space as it is parted by, `plain` "
        "lower-cased words without punctuation, `jieba` words of Chinese",
    )
    language: str | None = Field(
        default=None,
        pattern=r"^[a-z]{2,3}$",
        title="Language",
        description="Documents that a ready model scores; empty: all",
    )

    @model_validator(mode="after")
    def _whole(self) -> QualityUse:
        if self.model and not self.label:
            raise ValueError("curate.quality: say which label of the model is the good one: `label: __label__hq`")
        if not self.model and (self.label, self.words, self.language) != ("", "raw", None):
            raise ValueError(
                "curate.quality: label, words and language are about a ready model: give `model`, or set them in the"
                " section `quality`"
            )
        return self


class PerplexityModel(BaseModel):
    """The KenLM model of a language, as CCNet uses one."""

    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=())

    model: File = Field(
        min_length=1, title="KenLM model", description="Its file (.arpa, .arpa.bin), over pieces of the other model"
    )
    sentencepiece: File = Field(
        min_length=1, title="sentencepiece model", description="Its file (.sp.model), by which texts are cut"
    )
    maximum: float | None = Field(
        default=None,
        gt=0.0,
        allow_inf_nan=False,
        title="Most perplexity",
        description="Documents in the language with as much or more are rejected by the rule `perplexity`; empty asks "
        "nothing beyond the preset",
    )


class ClassifierConfig(TransformerConfig):
    """A classifier of texts (Transformers, for sequence classification) whose score curation stores.

    Documents may be held to it.
    """

    name: str = Field(
        pattern=r"^[a-z][a-z0-9_]*$",
        max_length=64,
        title="Name",
        description="Of the score, in `classifiers` of the curation table, and of the rules",
    )
    label: str = Field(
        default="", title="Label", description="Whose probability is the score; may be empty where there is but one"
    )
    language: str | None = Field(
        default=None, pattern=r"^[a-z]{2,3}$", title="Language", description="Documents that are scored; empty: all"
    )
    minimum: float | None = Field(
        default=None,
        allow_inf_nan=False,
        title="Least score",
        description="Documents with less are rejected by the rule `classifier:NAME:minimum`; empty asks nothing",
    )
    maximum: float | None = Field(
        default=None,
        allow_inf_nan=False,
        title="Greatest score",
        description="Documents with more are rejected by the rule `classifier:NAME:maximum`; empty asks nothing",
    )
