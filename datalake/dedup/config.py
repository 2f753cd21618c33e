"""What a user may set about deduplication, and the band arithmetic that follows from it.

A pair of documents with Jaccard similarity s agrees in one MinHash row with probability s, in all r rows of a band
with s^r, and in at least one of b bands with 1 - (1 - s^r)^b: the S-curve (Leskovec, Rajaraman, Ullman, "Mining of
Massive Datasets", section 3.4.2). Bands only propose candidates; every candidate's Jaccard is then computed exactly.
Rows and bands are therefore chosen for recall at the threshold, and precision is not their business.
"""

from __future__ import annotations

import math
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from datalake.dedup.spans_config import LinesConfig, SubstringsConfig
from datalake.text.language_code import LanguageCode
from datalake.text.transformer_config import TransformerConfig

MOST_ROWS = 65_536  # of all bands together: a signature of 256 kB

Precedence = Literal["source", "quality", "created", "length"]


def collision_probability(similarity: float, bands: int, rows: int) -> float:
    """The S-curve: the chance that two documents of this Jaccard similarity share at least one bucket."""
    return 1.0 - (1.0 - similarity**rows) ** bands


def bands_needed(similarity: float, rows: int, recall: float) -> int:
    """The fewest bands of `rows` rows that find a pair of this similarity with at least this probability."""
    agreement = similarity**rows
    if agreement >= 1.0:
        return 1
    needed = math.log1p(-recall) / math.log1p(-agreement) if agreement else math.inf
    return max(1, math.ceil(min(needed, 2.0**53) - 1e-12))


def choose_bands(threshold: float, recall: float, permutations: int) -> tuple[int, int]:
    """(bands, rows): the most rows per band, hence the fewest false candidates, that reach the recall in the budget.

    Raises ValueError when not even one row per band reaches the recall with this many permutations.
    """
    best = None
    for rows in range(1, permutations + 1):
        bands = bands_needed(threshold, rows, recall)
        if bands * rows > permutations:  # from here on only more
            break
        best = bands, rows
    if best is None:
        raise ValueError(
            f"{permutations} permutations cannot find pairs at similarity {threshold} with probability {recall}: "
            "raise deduplicate.permutations or lower deduplicate.recall"
        )
    return best


class SigningConfig(BaseModel):
    """All that shapes a shard's signatures: shards signed under equal values are comparable, whatever else changes."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    ngram: int = Field(5, ge=1, le=100, title="Words per shingle")
    bands: int = Field(20, ge=1, le=10_000, title="Bands")
    rows: int = Field(6, ge=1, le=1_000, title="Rows per band")
    seed: int = Field(1, ge=0, le=2**32 - 1, title="Seed of the permutations")


class SemanticConfig(TransformerConfig):
    """Duplicates in meaning: documents whose embeddings by an encoder (Transformers) are close."""

    threshold: float = Field(
        0.95,
        gt=0.0,
        le=1.0,
        title="Similarity threshold",
        description="Cosine of the embeddings from which on two documents are duplicates in meaning",
    )
    pooling: Literal["mean", "cls", "last"] = Field(
        "mean",
        title="Pooling",
        description="A document's embedding is the mean of its tokens' last hidden states, or the state of the first "
        "token (cls) or the last",
    )
    languages: tuple[LanguageCode, ...] | None = Field(
        None,
        min_length=1,
        title="Languages",
        description="Those that the model reads: documents in others take no part, since to an encoder that never saw "
        "their script they are all alike. Empty: all",
    )
    clusters: int | None = Field(
        None,
        ge=1,
        le=100_000,
        title="Clusters",
        description="Documents are compared within clusters of like ones; empty: the square root of their number, and "
        "a single one, which compares all with all, up to 4,096 documents",
    )
    probes: int = Field(
        4,
        ge=0,
        le=10_000,
        title="Probes",
        description="Most other clusters that a document near their borders is compared with, the nearest borders "
        "first",
    )
    seed: int = Field(1, ge=0, le=2**32 - 1, title="Seed of the clusters")

    @property
    def embedding(self) -> dict[str, Any]:
        """All that shapes a document's embedding: shards embedded under equal values are comparable."""
        some = {} if self.languages is None else {"languages": sorted(set(self.languages))}
        return {"model": self.model.version, "max_tokens": self.max_tokens, "pooling": self.pooling, **some}


class DedupConfig(BaseModel):
    """Deduplication: what counts as a duplicate, and which of two duplicates stays."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    threshold: float = Field(
        0.8,
        gt=0.0,
        le=1.0,
        title="Similarity threshold",
        description="Jaccard similarity of the word shingle sets from which on two documents are duplicates",
    )
    ngram: int = Field(
        5,
        ge=1,
        le=100,
        title="Words per shingle",
        description="Length of the word n-grams compared; a shorter text is one shingle as a whole",
    )
    url: bool = Field(
        False,
        title="Compare addresses",
        description="Of the versions of a page at one web address only the first in the order of precedence stays, "
        "whatever their texts: to keep the newest crawl of each page, put its source first",
    )
    floor: float = Field(
        0.5,
        gt=0.0,
        le=1.0,
        title="Similarity floor of stored pairs",
        description="Verified pairs from this similarity on are stored, so that another threshold can be asked about; "
        "below the threshold only the pairs that the bands happen to propose. At most the threshold counts",
    )
    recall: float = Field(
        0.997,
        gt=0.0,
        lt=1.0,
        title="Recall at the threshold",
        description="Least probability that the bands propose a pair which lies exactly at the threshold",
    )
    permutations: int = Field(
        144,
        ge=1,
        le=4096,
        title="Permutations at most",
        description="Budget for bands x rows when these are chosen from threshold and recall; time grows with it",
    )
    bands: int | None = Field(None, ge=1, le=10_000, title="Bands", description="Set together with rows, or leave both")
    rows: int | None = Field(None, ge=1, le=1_000, title="Rows per band", description="Set together with bands")
    seed: int = Field(1, ge=0, le=2**32 - 1, title="Seed of the permutations")
    bucket_limit: int = Field(
        64,
        ge=2,
        le=100_000,
        title="Bucket limit",
        description="In a bucket of up to this many distinct documents all pairs are verified; in a larger one each "
        "document is compared with up to this many documents already kept there",
    )
    semantic: SemanticConfig | None = Field(
        None,
        title="Duplicates in meaning",
        description="Of what the texts leave, documents with like embeddings go, too; null: none are embedded",
    )
    precedence: tuple[Precedence, ...] = Field(
        ("source", "created", "length"),
        title="Order of precedence",
        description="Which of two duplicates stays: the one from the earlier source, then the earlier created, then "
        "the longer; ties by id. `quality`: the one that curation's quality classifier likes better",
    )
    sources: tuple[str, ...] = Field(
        (),
        title="Order of the sources",
        description="Sources from first to last; those not named come after them and are equal among themselves",
    )
    lines: LinesConfig | None = Field(
        None,
        title="Repeated lines",
        description="Cut lines or paragraphs that several kept documents hold; null: none are",
    )
    substrings: SubstringsConfig | None = Field(
        None,
        title="Repeated runs of words",
        description="Cut long runs of words that stand in an earlier kept document; null: none are",
    )

    @model_validator(mode="after")
    def _consistent(self) -> DedupConfig:
        if (self.bands is None) != (self.rows is None):
            raise ValueError("set bands and rows together, or neither")
        if (self.bands or 1) * (self.rows or 1) > MOST_ROWS:
            raise ValueError(f"bands x rows is more than {MOST_ROWS:,}: set fewer, such as 20 and 6")
        if len(set(self.precedence)) != len(self.precedence):
            raise ValueError("precedence names a criterion twice")
        if len(set(self.sources)) != len(self.sources):
            raise ValueError("sources names a source twice")
        self.signing  # noqa: B018 - raises where no bands fit
        return self

    @property
    def signing(self) -> SigningConfig:
        """The part that shapes signatures, with bands and rows resolved."""
        if self.bands is not None and self.rows is not None:
            bands, rows = self.bands, self.rows
        else:
            bands, rows = choose_bands(self.threshold, self.recall, self.permutations)
        return SigningConfig(ngram=self.ngram, bands=bands, rows=rows, seed=self.seed)

    @property
    def without_spans(self) -> DedupConfig:
        """The part that decides about whole documents."""
        return self.model_copy(update={"lines": None, "substrings": None})

    @property
    def stored_from(self) -> float:
        """The similarity from which on pairs are stored: the floor, never above the threshold."""
        return min(self.floor, self.threshold)

    def s_curve(self, steps: int = 20) -> list[tuple[float, float]]:
        """(similarity, probability of being proposed) at `steps` + 1 even similarities from 0 to 1."""
        signing = self.signing
        return [(k / steps, collision_probability(k / steps, signing.bands, signing.rows)) for k in range(steps + 1)]
