"""Sources of dialogues in shares of the tokens: which items a step sees, a pure function of (seed, step).

Every step's items are drawn one after the other from the source that is furthest behind its share of all tokens drawn
so far, so that what a run saw is within a few dialogues of its shares wherever it ends. A source goes through its items
in an order drawn anew each time round: none is seen twice before all were seen once.

Shares are given (`weights`), or follow the numbers of examples, as FLAN mixes (Wei et al. 2022, arXiv 2109.01652): the
rate of a source is min(examples, cap) to the power of 1 / temperature (Raffel et al. 2020, T5, section 3.5.2).
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence


def shares_of(
    tokens: Mapping[str, Sequence[int]],
    weights: Mapping[str, float],
    cap: int | None = None,
    temperature: float = 1.0,
) -> dict[str, float]:
    """The share of tokens of each source, from the lengths of its items in tokens; they add up to 1.

    With weights one that isn't named weighs 1. Without, a share is the rate in examples times their mean length.
    """
    if weights:
        rates = {source: weights.get(source, 1.0) for source in tokens}
    else:
        counts = {source: len(lengths) for source, lengths in tokens.items()}
        rates = {
            source: min(count, cap or count) ** (1 / temperature) * sum(tokens[source]) / count
            for source, count in counts.items()
        }
    whole = sum(rates.values())
    return {source: rate / whole if whole else 0.0 for source, rate in sorted(rates.items())}


class Mixed:
    """Items of several sources by their shares of the tokens, `batch` of them a step; as `models.training.Epochs`.

    An epoch is as many items as there are in sources that have a share.
    """

    def __init__(
        self, lengths: Sequence[int], sources: Sequence[str], shares: Mapping[str, float], seed: int, batch: int
    ) -> None:
        self.lengths, self.seed, self.batch = lengths, seed, batch
        self.shares = {source: share for source, share in sorted(shares.items()) if share > 0}
        self._items = {source: [n for n, of in enumerate(sources) if of == source] for source in self.shares}
        if not any(self._items.values()):
            raise ValueError("there is nothing to train on: give a source a weight")
        self._given: dict[str, int] = dict.fromkeys(self.shares, 0)  # tokens
        self._orders: dict[str, list[int]] = defaultdict(list)
        self._rounds: dict[str, int] = dict.fromkeys(self.shares, 0)
        self._drawn: list[int] = []

    @property
    def steps_per_epoch(self) -> int:
        """Steps that see as many items as there are."""
        return -(-sum(map(len, self._items.values())) // self.batch)

    def steps(self, epochs: float) -> int:
        """Steps that so many epochs come to, one at least."""
        return max(1, math.ceil(epochs * self.steps_per_epoch - 1e-9))

    def items(self, step: int) -> list[int]:
        """The items of a step, counted from 0."""
        while len(self._drawn) < (step + 1) * self.batch:
            self._drawn.append(self._next())
        return self._drawn[step * self.batch : (step + 1) * self.batch]

    def _next(self) -> int:
        from models.training.epochs import draw

        total = sum(self._given.values())
        source = max(self.shares, key=lambda name: (self.shares[name] * total - self._given[name], self.shares[name]))
        if not self._orders[source]:
            order = draw(self.seed, list(self.shares).index(source), self._rounds[source])
            self._orders[source] = [self._items[source][place] for place in order.permutation(len(self._items[source]))]
            self._orders[source].reverse()
            self._rounds[source] += 1
        item = self._orders[source].pop()
        self._given[source] += self.lengths[item]
        return item
