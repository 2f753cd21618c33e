"""Which items a step sees when items are rows of unequal length: a pure function of (seed, step).

Each epoch visits every item once, in an order drawn from (seed, epoch). Items of like length are put in one batch, so
that little is padding: the order is cut into pools, each pool is sorted by length and cut into batches, and the batches
are shuffled. Nothing depends on what ran before.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

POOL_BATCHES = 16  # batches sorted together: enough that rows are alike, few enough that batches stay random


def draw(*seeds: int) -> np.random.Generator:
    """A generator that is the same in every process for the same numbers."""
    return np.random.Generator(np.random.Philox(np.random.SeedSequence(list(seeds))))


class Epochs:
    """Batches of item numbers. `lengths` are the items' lengths; equal ones give plain shuffled batches."""

    def __init__(self, lengths: Sequence[int], seed: int, batch: int) -> None:
        if not len(lengths):
            raise ValueError("there is nothing to train on: give at least one item")
        self.lengths, self.seed, self.batch = np.asarray(lengths), seed, batch
        self._epoch: tuple[int, list[np.ndarray]] = (-1, [])

    @property
    def steps_per_epoch(self) -> int:
        """Steps that visit every item once; the last may have fewer items."""
        return -(-len(self.lengths) // self.batch)

    def steps(self, epochs: float) -> int:
        """Steps that so many epochs come to, one at least."""
        return max(1, int(np.ceil(epochs * self.steps_per_epoch - 1e-9)))

    def first(self, steps: int) -> set[int]:
        """The items that the first `steps` steps see."""
        if steps >= self.steps_per_epoch:
            return set(range(len(self.lengths)))
        return {item for step in range(steps) for item in self.items(step)}

    def items(self, step: int) -> list[int]:
        """The items of a step, counted from 0."""
        epoch, place = divmod(step, self.steps_per_epoch)
        if self._epoch[0] != epoch:
            self._epoch = epoch, self._batches(epoch)
        return [int(item) for item in self._epoch[1][place]]

    def _batches(self, epoch: int) -> list[np.ndarray]:
        generator = draw(self.seed, epoch)
        order = generator.permutation(len(self.lengths))
        batches = []
        for start in range(0, len(order), self.batch * POOL_BATCHES):
            pool = order[start : start + self.batch * POOL_BATCHES]
            pool = pool[np.argsort(self.lengths[pool], kind="stable")]
            batches += [pool[first : first + self.batch] for first in range(0, len(pool), self.batch)]
        return [batches[place] for place in generator.permutation(len(batches))]
