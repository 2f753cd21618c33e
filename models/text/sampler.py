"""Which tokens a training step sees: a pure function of (seed, step), so that a run resumes bit-equal and its data
order depends neither on the number of ranks nor on what ran before.

An epoch puts all documents, each as often as its repetitions say, in an order drawn from (seed, epoch); takes them as
one stream; cuts it into windows of `context` tokens; and visits the windows in another order drawn from (seed, epoch),
so that a long document doesn't fill whole batches. Every token of an epoch is in exactly one window, and every token
but a document's first is a target exactly once. A step is `batch` windows in turn, and can be turned back into
documents.

Or documents are packed: each whole in one row, by best fit, so that none is cut that needn't be (Ding et al. 2024,
"Fewer Truncations Improve Language Modeling", arXiv 2404.10830). The same holds of an epoch then, and rows end in
padding where nothing fits.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
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


class Packed(Stream):
    """Documents in rows of `context` tokens, by best fit, longest first: each goes where it leaves the least room.

    One that is longer than a row fills rows, and what is left of it is packed as if it were a document. How many rows
    there are depends on the lengths alone, not on the order.
    """

    def __init__(self, shards: TokenShards, numbers: np.ndarray, context: int):
        super().__init__(shards, numbers)
        lengths = shards.lengths[numbers]
        pieces = [
            (place, first, min(context, int(length) - first))
            for place, length in enumerate(lengths)
            for first in range(0, int(length), context)
        ]
        pieces.sort(key=lambda piece: -piece[2])  # those of one length stay in the order drawn
        self.context, self.rows = context, list[list[tuple[int, int, int]]]()
        open_rows: list[list[int]] = [[] for _ in range(context + 1)]  # by the room that they have left
        rooms = 0  # as bits: which room some row has
        for piece in pieces:
            fitting = rooms >> piece[2]
            if fitting:
                room = piece[2] + (fitting & -fitting).bit_length() - 1
                row = open_rows[room].pop()
                if not open_rows[room]:
                    rooms ^= 1 << room
                self.rows[row].append(piece)
            else:
                room, row = context, len(self.rows)
                self.rows.append([piece])
            if room > piece[2]:
                open_rows[room - piece[2]].append(row)
                rooms |= 1 << (room - piece[2])

    def parts(self, start: int, length: int) -> Iterator[tuple[int, int, int, int]]:
        """The documents of the row that begins at `start`, as a stream's window has them."""
        offset = 0
        for place, first, count in self.rows[start // self.context]:
            yield place, first, count, offset
            offset += count


def _rows(batch: int, context: int) -> tuple[np.ndarray, ...]:
    shape = (batch, context)
    return np.zeros(shape, np.int64), np.full(shape, IGNORED, np.int64), np.zeros(shape, np.int64), np.full(shape, -1)


def _batch(arrays: tuple[np.ndarray, ...]) -> Batch:
    return Batch(*(torch.from_numpy(array) for array in arrays))


class Sampler:
    """Training batches from documents and how often each is seen in an epoch.

    `documents`: (id, repetitions), in an order that is part of the input; repetitions 0 leaves a document out.
    `batch(step)` and `documents(step)` may be asked for any step, in any order. `packed`: by best fit.

    Raises:
        UserError: where there is nothing to sample, or a document isn't in the shards.
    """

    def __init__(
        self,
        shards: TokenShards,
        documents: Sequence[tuple[bytes, int]],
        seed: int,
        context: int,
        batch: int,
        packed: bool = False,
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
        self.packed = packed
        self.windows = -(-self.tokens_per_epoch // context)
        if packed:
            self.windows = len(Packed(shards, self._numbers, context).rows)
        self._epochs: dict[int, tuple[Stream, np.ndarray]] = {}

    @property
    def steps_per_epoch(self) -> float:
        """Steps in which every document is seen as often as its repetitions say."""
        return self.windows / self.batch_size

    def _epoch(self, epoch: int) -> tuple[Stream, np.ndarray]:
        if epoch not in self._epochs:
            draw = np.random.Generator(np.random.Philox(np.random.SeedSequence([self.seed, epoch])))
            order = self._numbers[draw.permutation(len(self._numbers))]
            stream = Packed(self.shards, order, self.context) if self.packed else Stream(self.shards, order)
            self._epochs = {number: kept for number, kept in self._epochs.items() if number == epoch - 1}
            self._epochs[epoch] = stream, draw.permutation(self.windows)
        return self._epochs[epoch]

    def _windows(self, step: int) -> Iterator[tuple[Stream, int]]:
        for row in range(step * self.batch_size, (step + 1) * self.batch_size):
            stream, order = self._epoch(row // self.windows)
            yield stream, int(order[row % self.windows]) * self.context

    def tokens_seen(self, steps: int, without: Iterable[int] = ()) -> np.ndarray:
        """How many tokens of each document of the shards, by its number, the first `steps` steps see but those in
        `without` (from 0). Whole epochs are counted at once."""
        epochs, rest = divmod(steps * self.batch_size, self.windows)
        times = np.bincount(self._numbers, minlength=len(self.shards))
        seen = epochs * times * self.shards.lengths
        last = (self._epoch(epochs) for _ in range(1 if rest else 0))
        windows = [(stream, int(start) * self.context, 1) for stream, order in last for start in order[:rest]]
        for step in without:
            windows += [(stream, start, -1) for stream, start in self._windows(step)]
        for stream, start, sign in windows:
            for place, _, count, _ in stream.parts(start, self.context):
                seen[stream.numbers[place]] += sign * count
        return seen

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
