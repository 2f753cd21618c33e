"""The mixture: one row per clean document with its split, its source's share, and how often it trains.

A document is clean when curation kept it and deduplication names no other in its place. Lengths are counted in words,
by the definition in dedup/shingles.py: an estimate that needs no tokenizer and doesn't change when one does.

Shares: of T words in all, source s is given w_s / sum(w) * T, so each of its n_s words is seen e_s = that / n_s times.
No e_s exceeds the cap, its own or that of all; what a capped source can't take goes to the others by their weights
(water-filling). Where all are capped, the mixture is shorter than T.

Rehydration multiplies how often a document is seen by a weight that goes by how many documents it stands for; a
source's words count by these weights, and the cap holds for every document.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from datalake.dedup.spans.cut import cut_texts, read_cuts
from datalake.dedup.texts.shingles import count_words
from datalake.dedup.texts.signed import batches_of, read_columns
from datalake.errors import UserError
from datalake.holdout import group_of, held_out
from datalake.mixture.config import MixtureConfig, Weights
from datalake.tables import ID

Shard: TypeAlias = str | Path | pa.Table

BATCH_ROWS = 1024

# One row per clean document in the languages asked for whose source weighs more than 0, sorted by id.
MIXTURE = pa.schema(
    [
        ("id", ID),
        ("source", pa.string()),
        ("language", pa.string()),
        ("split", pa.string()),  # train or heldout
        ("weight", pa.float64()),  # the share of the training words that its source gets: 0 to 1, 1 over all sources
        ("epochs", pa.float64()),  # how often it is to be seen; repetitions() makes it whole; 0 when held out
        ("words", pa.int64()),
        ("copies", pa.int64()),  # documents it stands for: itself, and those that name it as what they repeat
    ]
)


def build(
    documents: Sequence[Shard], duplicates: Sequence[Shard], config: MixtureConfig, spans: Sequence[Shard] = ()
) -> pa.Table:
    """The mixture (schema MIXTURE) of documents less duplicates, as Parquet files or tables, in any order.

    `duplicates` may be empty: then every document is clean. `spans` are cut from the texts before words are counted; a
    document of which nothing is left is out. Raises ValueError where it is not and lacks a document, and
    UserError where no document is left to train on.
    """
    rows = pa.concat_tables([_measure(shard, config, spans) for shard in documents] or [MEASURED.empty_table()])
    rows = rows.combine_chunks()
    repeats = pa.table({"duplicate_of": pa.array([], ID)})
    if duplicates:
        decided = pa.concat_tables([read_columns(shard, ["id", "duplicate_of"]) for shard in duplicates])
        if not pc.all(pc.is_in(rows["id"], decided["id"])).as_py() and len(rows):
            raise ValueError("some documents have no decision on duplicates: run deduplicate over all of them first")
        repeats = decided.filter(decided["duplicate_of"].is_valid())
        rows = rows.filter(pc.invert(pc.is_in(rows["id"], repeats["id"])))
    if config.weights:
        ignored = [source for source, weight in config.weights.items() if weight == 0.0]
        rows = rows.filter(pc.invert(pc.is_in(rows["source"], pa.array(ignored, pa.string()))))
    if config.languages:
        rows = rows.filter(pc.is_in(rows["language"], pa.array(config.languages, pa.string())))
    rows = rows.sort_by("id")

    train = pc.invert(rows["heldout"]).to_numpy(zero_copy_only=False)
    words = rows["words"].to_numpy()
    copies = _copies(rows["id"].combine_chunks(), repeats["duplicate_of"])
    weight = _weights(copies, config.rehydration)
    if documents and not np.any(words[train] > 0):
        raise UserError(
            "no document is left to train on: lower mixture.holdout, or look at mixture.languages and mixture.weights"
        )
    sources = rows["source"].combine_chunks().dictionary_encode()
    names, index = sources.dictionary.to_pylist(), sources.indices.to_numpy()
    weighted = np.bincount(index[train], (words * weight)[train], len(names))
    epochs = epochs_by_source(dict(zip(names, weighted.tolist(), strict=True)), config)
    often = np.array([epochs[name] for name in names])[index] * weight
    most = np.array([config.most(name) for name in names])[index]
    often = np.where(train, np.minimum(often, most), 0.0)
    seen = np.bincount(index, often * words, len(names))
    share = seen / seen.sum() if seen.any() else seen
    columns = [
        rows["id"],
        rows["source"],
        rows["language"],
        pc.if_else(rows["heldout"], "heldout", "train"),
        pa.array(share[index]),
        pa.array(often),
        rows["words"],
        pa.array(copies),
    ]
    return pa.Table.from_arrays(columns, schema=MIXTURE).combine_chunks()


def _copies(ids: pa.Array, duplicate_of: pa.ChunkedArray) -> npt.NDArray[np.int64]:
    """How many documents each of these stands for, itself included."""
    counted = duplicate_of.combine_chunks().value_counts()
    place = pc.index_in(ids, counted.field("values"))
    found = counted.field("counts").take(place).fill_null(0)
    return found.to_numpy(zero_copy_only=False) + 1


def _weights(copies: npt.NDArray[np.int64], table: Weights) -> npt.NDArray[np.float64]:
    """The weight of each document: that of the largest size in the table that its copies reach, else 1."""
    sizes = np.array([0, *(size for size, _ in table)], np.int64)
    weights = np.array([1.0, *(weight for _, weight in table)])
    return weights[np.searchsorted(sizes, copies, side="right") - 1]


def epochs_by_source(words: Mapping[str, float], config: MixtureConfig) -> dict[str, float]:
    """How often each source's documents are seen, given its words to train on. Sources without words are seen once."""
    epochs = {source: min(1.0, config.most(source)) for source in words}
    sources = sorted(source for source, count in words.items() if count)
    total = float(config.tokens or sum(words.values()))
    weight = config.rates({source: words[source] for source in sources})
    left, open_sources = total, list(sources)
    while open_sources:
        unit = left / sum(weight[source] for source in open_sources)
        capped = [s for s in open_sources if unit * weight[s] > config.most(s) * words[s]]
        for source in capped or open_sources:
            epochs[source] = config.most(source) if capped else unit * weight[source] / words[source]
        if not capped:
            break
        left -= sum(config.most(source) * words[source] for source in capped)
        open_sources = [source for source in open_sources if source not in capped]
    return epochs


def missed_shares(words: Mapping[str, float], config: MixtureConfig) -> list[str]:
    """Warnings about sources that can't have the share that weights ask for, given each one's words to train on, and
    the most words in all of which every source has it."""
    words = {source: count for source, count in words.items() if count and config.weights.get(source, 1.0)}
    if not config.weights or not words:
        return []
    epochs = epochs_by_source(words, config)
    seen = {source: epochs[source] * count for source, count in words.items()}
    asked = config.asked(words)
    poor = {source: share for source, share in asked.items() if seen[source] < 0.99 * share * sum(seen.values())}
    most = int(min(config.most(source) * words[source] / share for source, share in asked.items()))
    return [
        f"{source} has {seen[source] / sum(seen.values()):.1%} of the words where {share:.1%} were asked, though each"
        f" of its {words[source]:,.0f} words is seen {epochs[source]:g} times: mixture.tokens of {most} at most gives"
        " every source its share"
        for source, share in sorted(poor.items())
    ]


MEASURED = pa.schema(
    [
        ("id", ID),
        ("source", pa.string()),
        ("language", pa.string()),
        ("heldout", pa.bool_()),
        ("words", pa.int64()),
    ]
)


def _measure(shard: Shard, config: MixtureConfig, spans: Sequence[Shard]) -> pa.Table:
    """A shard's documents with their split and length, texts dropped as they are counted."""
    parts = []
    cuts = read_cuts(spans, read_columns(shard, ["id"])["id"]) if spans else {}
    for batch in batches_of([shard], ["id", "text", "source", "language", "attributes"], BATCH_ROWS):
        if cuts:
            texts = cut_texts(batch["id"], batch["text"], cuts)
            batch = batch.set_column(1, "text", texts).filter(pc.not_equal(texts, ""))
        heldout = [
            held_out(group_of(id, dict(attributes or ())), config.seed, config.holdout)
            for id, attributes in zip(batch["id"].to_pylist(), batch["attributes"].to_pylist(), strict=True)
        ]
        counts: npt.NDArray[np.int64] = count_words(batch["text"])
        columns = [batch["id"], batch["source"], batch["language"], pa.array(heldout, pa.bool_()), pa.array(counts)]
        parts.append(pa.RecordBatch.from_arrays(columns, schema=MEASURED))
    return pa.Table.from_batches(parts, MEASURED)
