"""Held-out documents as rows to measure a loss on, and what a model that knows only frequencies could reach on them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from datalake.errors import UserError
from models.objectives.base import IGNORED
from models.text.sampler import Batch, heldout
from models.text.shards import TokenShards
from models.training.epochs import draw


def heldout_rows(
    tokens: TokenShards, documents: Sequence[bytes], seed: int, context: int, batch: int, rows: int
) -> list[Batch]:
    """Up to `rows` rows of documents in an order drawn from the seed, as batches that have targets.

    Raises UserError when a document isn't in the shards.
    """
    missing = next((document for document in documents if document not in tokens), None)
    if missing is not None:
        raise UserError(f"held-out document {missing.hex()} isn't in the token shards: run the recipe again")
    order = draw(seed, 1 << 20).permutation(len(documents))
    batches: list[Batch] = []
    left = rows
    for one in heldout(tokens, [documents[place] for place in order], context, batch):
        taken = min(left, len(one.tokens))
        batches.append(Batch(*(part[:taken] for part in (one.tokens, one.targets, one.positions, one.segments))))
        left -= taken
        if not left:
            break
    return [one for one in batches if bool((one.targets != IGNORED).any())]


def token_counts(tokens: TokenShards, train: Sequence[tuple[bytes, int]], vocabulary: int) -> np.ndarray:
    """How often each token (V) is a target in one epoch: all of each document but its first, times its repetitions."""
    counts = np.zeros(vocabulary, np.int64)
    by_times: dict[int, list[int]] = {}
    for document, times in train:
        by_times.setdefault(times, []).append(tokens.number(document))
    for times in sorted(set(by_times) - {0}):
        numbers = by_times[times]
        for start in range(0, len(numbers), 1024):
            pieces = [tokens.tokens(number)[1:] for number in numbers[start : start + 1024]]
            counts += times * np.bincount(np.concatenate(pieces), minlength=vocabulary)
    return counts


def unigram_losses(targets: np.ndarray, training_counts: np.ndarray) -> tuple[float, float]:
    """Two baselines in nats per token, of a model that knows how often each token (V) is a target in training.

    First the entropy of that distribution: what such a model loses on more text of the kind it was made from, whatever
    the size of a held-out sample. Then its cross-entropy on these held-out targets (N), with one added to each count so
    that no token is impossible.
    """
    total = training_counts.sum()
    share = training_counts[training_counts > 0] / max(total, 1)
    smoothed = (training_counts + 1) / (total + len(training_counts))
    return float(-(share * np.log(share)).sum()), float(-np.log(smoothed[targets]).mean())
