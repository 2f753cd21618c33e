"""A curriculum: stretches of a run, each with its own mixture of sources and its own length of rows.

A phase's documents are repeated, or left out, so that together they are just as many tokens as the phase sees, in the
shares that were asked: it is one epoch of a sampler of its own. What a source can't give without being seen too often
goes to the others, as in the mixture itself; where documents of a source are chosen, a hash of (seed, phase, document)
chooses them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import xxhash

from datalake.errors import UserError
from datalake.mixture.build import epochs_by_source
from datalake.mixture.config import MixtureConfig, Shares
from models.text.sampler import Batch, Sampler
from models.text.shards import TokenShards


@dataclass
class Phase:
    """A sampler for `steps` steps from `first` (from 0) on; the share of its tokens that was asked of each source, and
    why it is another."""

    sampler: Sampler
    first: int
    steps: int
    asked: dict[str, float]
    why: dict[str, str]


class Phases:
    """Phases one after the other, to be asked as one sampler is. `warnings`: what of the plan comes out otherwise."""

    def __init__(self, phases: Sequence[Phase], warnings: Sequence[str] = ()):
        self.phases, self.warnings = phases, list(warnings)
        self.shards, self.batch_size = phases[0].sampler.shards, phases[0].sampler.batch_size

    @property
    def steps_per_epoch(self) -> float:
        """Steps that see as many tokens as there are in all phases' documents, each once."""
        known = np.unique(np.concatenate([phase.sampler._numbers for phase in self.phases]))
        one = self.phases[0].sampler
        return float(self.shards.lengths[known].sum() / (one.batch_size * one.context))

    def _of(self, step: int) -> tuple[Phase, int]:
        phase = next((phase for phase in self.phases if step < phase.first + phase.steps), self.phases[-1])
        return phase, step - phase.first

    def batch(self, step: int) -> Batch:
        """The batch of a step, counted from 0."""
        phase, place = self._of(step)
        return phase.sampler.batch(place)

    def documents(self, step: int) -> list[tuple[bytes, int, int]]:
        """What a step saw, as a sampler tells it."""
        phase, place = self._of(step)
        return phase.sampler.documents(place)

    def tokens_seen(self, steps: int, without: Iterable[int] = ()) -> np.ndarray:
        """How many tokens of each document the first `steps` steps see, as a sampler tells it."""
        seen = np.zeros(len(self.shards), np.int64)
        left_out = list(without)
        for phase in self.phases:
            mine = [step - phase.first for step in left_out if phase.first <= step < phase.first + phase.steps]
            seen += phase.sampler.tokens_seen(min(max(steps - phase.first, 0), phase.steps), mine)
        return seen

    @property
    def why(self) -> dict[str, str]:
        """Why a source can't have the share that was asked."""
        return {source: why for phase in self.phases for source, why in phase.why.items()}

    def asked(self, steps: int) -> dict[str, float]:
        """The share of all tokens asked of each source over so many steps."""
        whole: dict[str, float] = {}
        for phase in self.phases:
            taken = min(max(steps - phase.first, 0), phase.steps) / max(steps, 1)
            for source, share in phase.asked.items():
                whole[source] = whole.get(source, 0.0) + taken * share
        return whole


def chosen(
    lengths: Mapping[bytes, int], sources: Mapping[bytes, str], shares: Shares, tokens: int, seed: int, phase: int
) -> tuple[list[tuple[bytes, int]], dict[str, float], dict[str, str]]:
    """How often each document (id, its length in tokens) is seen, so that together they are `tokens` of them in these
    shares of the sources, to within half a document each; the shares that were asked, which add up to 1; and why the
    share of a source is another by more than 1%. A document is seen as often as others of its source, or once more.
    Where all are too long for so few tokens it is the shortest one, of which a part is seen."""
    kept = [id for id in lengths if not shares.weights or shares.weights.get(sources[id], 1.0)]
    totals: dict[str, int] = {}
    for id in kept:
        totals[sources[id]] = totals.get(sources[id], 0) + lengths[id]
    config = MixtureConfig(**shares.model_dump(), tokens=tokens)
    epochs = epochs_by_source(totals, config)
    asked = shares.asked(dict.fromkeys(shares.weights, 0) | totals)
    why: dict[str, str] = {}
    for source, share in asked.items():
        if abs(epochs.get(source, 0.0) * totals.get(source, 0) - share * tokens) <= 0.01 * share * tokens:
            continue
        if source not in totals:
            why[source] = "it has no document"
        elif epochs[source] == config.most(source):
            why[source] = f"its {totals[source]:,} tokens are seen {config.most(source):g} times at most"
        else:
            why[source] = "it has what other sources can't give"
    times: dict[bytes, int] = {}
    by_source: dict[str, list[bytes]] = {}
    for id in kept:
        by_source.setdefault(sources[id], []).append(id)
    for source, ids in by_source.items():
        often = int(epochs[source])
        left = (epochs[source] - often) * totals[source]
        unseen: list[bytes] = []
        for id in sorted(ids, key=lambda id: xxhash.xxh3_64_digest(b"%d %d " % (seed, phase) + id)):
            more = lengths[id] <= left
            left -= lengths[id] if more else 0
            times[id] = often + more
            unseen += [] if more else [id]
        shortest = min(unseen, key=lambda id: lengths[id], default=None)
        if shortest is not None and lengths[shortest] < 2 * left:  # nearer to the share with it than without
            times[shortest] += 1
    if not any(times.values()) and all(epochs[source] < config.most(source) for source in totals):
        for id in sorted(kept, key=lambda id: lengths[id])[:1]:
            times[id] = 1
    return [(id, times[id]) for id in kept], asked, why


def phased(
    shards: TokenShards,
    sources: Mapping[bytes, str],
    plan: Sequence[tuple[float, Shares, int]],
    steps: int,
    seed: int,
    context: int,
    batch: int,
    packed: bool,
) -> Phases:
    """Phases by (share of the steps, mixture, tokens in a row), for documents by their sources. Every step sees as many
    rows as make `batch` x `context` tokens."""
    lengths = {id: int(shards.lengths[shards.number(id)]) for id in sources}
    whole = sum(share for share, _, _ in plan)
    ends = [round(steps * sum(share for share, _, _ in plan[: place + 1]) / whole) for place in range(len(plan))]
    phases: list[Phase] = []
    warnings: list[str] = []
    for place, ((share, shares, length), first, end) in enumerate(zip(plan, [0, *ends], ends, strict=False)):
        if end == first:
            warnings.append(
                f"phase {place + 1} has no step: its share of {steps} is {steps * share / whole:.2g} of one"
            )
            continue
        budget = (end - first) * batch * context
        documents, asked, why = chosen(lengths, sources, shares, budget, seed, place)
        if not any(times for _, times in documents):
            raise UserError(f"phase {place + 1} has no document: look at its mixture's weights, max_epochs and caps")
        rows, drawn = batch * context // length, seed + (place << 32)
        sampler = Sampler(shards, documents, drawn, length, rows, packed)
        if packed:  # some of a row is padding: as many documents as fill the phase with it
            budget = round(sampler.tokens_per_epoch / (sampler.windows * length) * budget)
            documents, asked, why = chosen(lengths, sources, shares, budget, seed, place)
            sampler = Sampler(shards, documents, drawn, length, rows, packed)
        allowed = sum(shares.most(sources[id]) * lengths[id] for id, _ in documents)
        if allowed < budget:
            warnings.append(
                f"phase {place + 1} sees {budget:,} tokens of documents that max_epochs and caps allow {allowed:,.0f}"
                f" of: it goes through them {budget / allowed:.3g} times as often; raise these, or lower its share"
            )
        phases.append(Phase(sampler, first, end - first, asked, why))
    return Phases(phases, warnings)
