"""Which tokens a training step sees: a pure function of (seed, step), so that a run resumes bit-equal and its data
order depends neither on the number of ranks nor on what ran before.

An epoch puts all documents, each as often as its repetitions say, in an order drawn from (seed, epoch); takes them as
one stream; cuts it into windows of `context` tokens; and visits the windows in another order drawn from (seed, epoch),
so that a long document doesn't fill whole batches. Every token of an epoch is in exactly one window, and every token
but a document's first is a target exactly once. A step is `batch` windows in turn, and can be turned back into
documents.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from datalake.errors import UserError
from models.text.shards import TokenShards

IGNORED = -100  # the target that no loss counts


@dataclass(slots=True)
class Batch:
    """Windows as rows, (B, T) int64 each. Padding, at the end of a row, has token 0, no target and segment -1.

    tokens: token ids. targets: the next token of the same document, -100 where there is none. positions: count from 0
    at the row's start and at each document's. segments: the documents of a row, 0, 1, 2... in a training batch; in a
    held-out batch the document's number in the list that it was made from.
    """

    tokens: Tensor
    targets: Tensor
    positions: Tensor
    segments: Tensor

    def to(self, device: torch.device | str) -> Batch:
        """The same batch on another device."""
        return Batch(*(getattr(self, name).to(device) for name in ("tokens", "targets", "positions", "segments")))


class Stream:
    """Documents laid end to end, in the order of `numbers`; a window is read without reading what comes before it."""

    def __init__(self, shards: TokenShards, numbers: np.ndarray):
        self.shards, self.numbers = shards, numbers
        self.ends = np.cumsum(shards.lengths[numbers], dtype=np.int64)
        self.total = int(self.ends[-1]) if len(numbers) else 0

    def parts(self, start: int, length: int) -> Iterator[tuple[int, int, int, int]]:
        """The documents of a window: (place in the stream's order, first token, tokens, offset in the window)."""
        stop = min(start + length, self.total)
        place = int(np.searchsorted(self.ends, start, side="right"))
        at = start
        while at < stop:
            end = int(self.ends[place])
            first = at - (end - int(self.shards.lengths[self.numbers[place]]))
            count = min(end, stop) - at
            yield place, first, count, at - start
            at += count
            place += 1

    def fill(self, start: int, rows: tuple[np.ndarray, ...], named: bool = False) -> None:
        """Write one window into rows of (tokens, targets, positions, segments), each of the window's length."""
        tokens, targets, positions, segments = rows
        for ordinal, (place, first, count, offset) in enumerate(self.parts(start, len(tokens))):
            piece = self.shards.tokens(int(self.numbers[place]), first, count + 1)
            tokens[offset : offset + count] = piece[:count]
            targets[offset : offset + len(piece) - 1] = piece[1:]  # a document's last token has no target
            positions[offset : offset + count] = np.arange(count)
            segments[offset : offset + count] = place if named else ordinal


def _rows(batch: int, context: int) -> tuple[np.ndarray, ...]:
    shape = (batch, context)
    return np.zeros(shape, np.int64), np.full(shape, IGNORED, np.int64), np.zeros(shape, np.int64), np.full(shape, -1)


def _batch(arrays: tuple[np.ndarray, ...]) -> Batch:
    return Batch(*(torch.from_numpy(array) for array in arrays))


class Sampler:
    """Training batches from documents and how often each is seen in an epoch.

    `documents`: (id, repetitions), in an order that is part of the input; repetitions 0 leaves a document out.
    `batch(step)` and `documents(step)` may be asked for any step, in any order.

    Raises:
        UserError: where there is nothing to sample, or a document isn't in the shards.
    """

    def __init__(
        self, shards: TokenShards, documents: Sequence[tuple[bytes, int]], seed: int, context: int, batch: int
    ):
        missing = next((number for number, _ in documents if number not in shards), None)
        if missing is not None:
            raise UserError(f"document {missing.hex()} isn't in the token shards: run the recipe again")
        self.shards, self.seed, self.context, self.batch_size = shards, seed, context, batch
        numbers = np.array([shards.number(document) for document, _ in documents], np.int64)
        times = np.array([repetitions for _, repetitions in documents], np.int64)
        self._numbers = np.repeat(numbers, times)
        self.tokens_per_epoch = int(shards.lengths[self._numbers].sum())
        if not self.tokens_per_epoch:
            raise UserError("no document to train on: lower mixture.holdout, or look at mixture.weights")
        self.windows = -(-self.tokens_per_epoch // context)
        self._epochs: dict[int, tuple[Stream, np.ndarray]] = {}

    @property
    def steps_per_epoch(self) -> float:
        """Steps in which every document is seen as often as its repetitions say."""
        return self.windows / self.batch_size

    def _epoch(self, epoch: int) -> tuple[Stream, np.ndarray]:
        if epoch not in self._epochs:
            draw = np.random.Generator(np.random.Philox(np.random.SeedSequence([self.seed, epoch])))
            stream = Stream(self.shards, self._numbers[draw.permutation(len(self._numbers))])
            self._epochs = {number: kept for number, kept in self._epochs.items() if number == epoch - 1}
            self._epochs[epoch] = stream, draw.permutation(self.windows)
        return self._epochs[epoch]

    def _windows(self, step: int) -> Iterator[tuple[Stream, int]]:
        for row in range(step * self.batch_size, (step + 1) * self.batch_size):
            stream, order = self._epoch(row // self.windows)
            yield stream, int(order[row % self.windows]) * self.context

    def batch(self, step: int) -> Batch:
        """The batch of a step, counted from 0."""
        arrays = _rows(self.batch_size, self.context)
        for row, (stream, start) in enumerate(self._windows(step)):
            stream.fill(start, tuple(array[row] for array in arrays))
        return _batch(arrays)

    def documents(self, step: int) -> list[tuple[bytes, int, int]]:
        """What a step saw, row by row: (document id, its first token in the row, how many), <|bos|> being token 0."""
        return [
            (self.shards.ids[int(stream.numbers[place])], first, count)
            for stream, start in self._windows(step)
            for place, first, count, _ in stream.parts(start, self.context)
        ]


def heldout(shards: TokenShards, documents: Sequence[bytes], context: int, batch: int) -> Iterator[Batch]:
    """All tokens of these documents in order, each but a document's first a target once; the last may be smaller."""
    stream = Stream(shards, np.array([shards.number(document) for document in documents], np.int64))
    starts = range(0, stream.total, context)
    for first in range(0, len(starts), batch):
        taken = starts[first : first + batch]
        arrays = _rows(len(taken), context)
        for row, start in enumerate(taken):
            stream.fill(start, tuple(array[row] for array in arrays), named=True)
        yield _batch(arrays)
