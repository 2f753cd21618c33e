"""Which documents are duplicates of which: one decision over any number of signed shards.

1. Documents stand in the stated order of precedence; ties go by id. Nothing depends on the order or number of shards.
2. Where addresses are compared, the first document of each address stays, and only those go on.
3. Documents with equal shingle sets (equal normalised texts among them) collapse to their first; the others share its
   similarities, so a hundred thousand copies cost no more than one. Documents without words collapse only where their
   texts are equal.
4. Bands propose. Documents that share buckets, even through others, form a group; groups are decided apart from each
   other, as many at once as the memory holds.
5. Exact Jaccard decides (verify.py): all pairs of every bucket of at most `bucket_limit` distinct documents.
6. In order of precedence a document is removed only when a document *already kept* is its verified partner at or above
   the threshold: the most similar of them, the first among equals. In buckets over the limit a document is compared,
   here, with the first `bucket_limit` documents kept there instead of with all: linear in the bucket's size.

Hence every document removed for its text has a kept one at or above the threshold, directly, whatever the buckets. What
step 6 leaves out costs recall between kept documents of crowded buckets, which the report counts, and never the
guarantee. A document removed for its address names what stands for the first one there.

Where a recipe asks for it, some of what is left is then removed for its meaning (semantic.py). With such a document go
those that repeat its text, each as close to the kept one as it must be. Documents without words have no part in it.

Memory: about `BYTES_PER_DOCUMENT` for every document, and within the budget bands, shingles and pairs, in files where
they are more (spill.py, pairs.py). A single group may be larger than the budget: it is walked in order of precedence,
some documents at a time, with their places in each band in memory.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from datalake.dedup.config import DedupConfig
from datalake.dedup.meaning.semantic import settle_meaning
from datalake.dedup.schema import DUPLICATES, PAIRS
from datalake.dedup.tables import EXACT, KEPT, NEAR, ROWS, SEMANTIC, URL, duplicates_table, pairs_table, range_of
from datalake.dedup.texts.bands import shared_buckets
from datalake.dedup.texts.compare import compared, in_threads, meetings_of
from datalake.dedup.texts.components import join, join_pairs, settle_roots
from datalake.dedup.texts.pairs import Pairs
from datalake.dedup.texts.signed import (
    Corpus,
    Shard,
    check_signing,
    fill_bands,
    fill_shingles,
    first_alike,
    read,
    same,
)
from datalake.dedup.texts.spill import Spill
from datalake.dedup.texts.verify import Sets, Settling

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
Flags = npt.NDArray[np.bool_]

BYTES_PER_DOCUMENT = 200
PROCESS = 400 << 20  # bytes of the interpreter and what it has imported and compiled
MEMORY = 4 << 30
_BATCH, _PAIRS = 4, 16  # parts of the budget: a batch with its pairs, and of that the pairs held
_AT_ONCE = 2048  # of the budget in bytes, so many pairs at most are looked for at once


@dataclass(frozen=True)
class Decision:
    """What became of every document; ranks are places in the order of precedence."""

    corpus: Corpus
    target: Ints  # the document that stands for each one: itself where kept
    similarity: Floats  # to that one; NaN where the address decided
    for_meaning: Flags  # removed for its meaning
    found: Pairs
    report: dict[str, int]
    spilled: int  # bytes that lay in files meanwhile

    def duplicates_by_id(self, part: int = 0, parts: int = 1) -> Iterator[pa.Table]:
        """DUPLICATES, a row per document, sorted by id, a million rows at a time; or one part of several."""
        low, high = self._numbers(part, parts)
        for start in range(low, high, ROWS):
            rows = self.corpus.by_id[start : min(start + ROWS, high)].astype(np.int64)
            ids, texts, target = self.corpus.ids, self.corpus.texts, self.target[rows]
            level = np.where(same(texts[rows], texts[target]), EXACT, NEAR)
            level[np.isnan(self.similarity[rows])] = URL
            level[self.for_meaning[rows]] = SEMANTIC
            level[target == rows] = KEPT
            yield duplicates_table(ids[rows], ids[target], level, self.similarity[rows])

    def pairs_by_id(self, part: int = 0, parts: int = 1) -> Iterator[pa.Table]:
        """PAIRS, sorted by a, b and level, a million rows at a time; or one part of several."""
        ids, texts = self.corpus.ids, self.corpus.texts
        for a, b, similarity, meaning in self.found.in_order(ROWS, *self._numbers(part, parts)):
            level = np.where(same(texts[a], texts[b]), EXACT, NEAR)
            level[meaning] = SEMANTIC
            yield pairs_table(ids[a], ids[b], level, similarity)

    def _numbers(self, part: int, parts: int) -> tuple[int, int]:
        """Which places in the order of ids a part has."""
        by_id = self.corpus.by_id
        if parts == 1:
            return 0, len(by_id)
        low, high = np.searchsorted(range_of(self.corpus.ids[by_id, 0], parts), (part, part + 1))
        return int(low), int(high)

    @cached_property
    def duplicates(self) -> pa.Table:
        """All decisions in one table."""
        return pa.concat_tables([DUPLICATES.empty_table(), *self.duplicates_by_id()])

    @cached_property
    def pairs(self) -> pa.Table:
        """All pairs in one table."""
        return pa.concat_tables([PAIRS.empty_table(), *self.pairs_by_id()])


def decide(
    files: Sequence[Shard],
    config: DedupConfig,
    threads: int = 1,
    memory: int = MEMORY,
    folder: str | Path | None = None,
    curation: Sequence[Shard] = (),
    embeddings: Sequence[Shard] = (),
) -> Decision:
    """Decides over signed shards (Parquet files or tables of schema SIGNATURES); equal for any order of them.

    `memory` is a budget in bytes; what goes beyond lies in files below `folder` while this runs. `curation`: files or
    tables with `id` and `quality`, where the order of precedence asks for it. `embeddings`: shards of schema
    EMBEDDINGS, in any order, where `config.semantic` asks for them.

    Raises:
        ValueError: where shards were signed or embedded with other settings or a document appears twice.
    """
    signing = config.signing
    for file in files:
        check_signing(file, signing)
    corpus = read(files, config, curation)
    with Pairs(corpus.by_id, memory // _PAIRS, folder) as found:
        return _decide(files, corpus, config, threads, memory, folder, embeddings, found)


def _decide(
    files: Sequence[Shard],
    corpus: Corpus,
    config: DedupConfig,
    threads: int,
    memory: int,
    folder: str | Path | None,
    embeddings: Sequence[Shard],
    found: Pairs,
) -> Decision:
    documents = len(corpus.rows)
    everyone = np.arange(documents)
    first_of_url = everyone if corpus.urls is None else _first_of_url(corpus.urls)
    alive = first_of_url == everyone
    first_of_text = first_alike(corpus.texts, alive)
    worded = corpus.shingles > 0
    first_of_set = np.where(worded, first_alike(corpus.sets, alive & worded), first_of_text)
    nodes = np.flatnonzero(alive & worded & (first_of_set == everyone))  # ranks, ascending
    near = _near(files, corpus, nodes, config, threads, memory, folder, found)

    # From nodes back to documents: a document's decision is its node's, or its node itself.
    target, similarity = first_of_set.copy(), np.ones(documents)
    node_of = np.full(documents, -1)
    node_of[nodes] = np.arange(len(nodes))
    node = np.where(alive, node_of[first_of_set], -1)
    moved = np.flatnonzero((node >= 0) & (near.partner[node] >= 0)) if len(nodes) else np.empty(0, np.int64)
    target[moved] = nodes[near.partner[node[moved]]]
    similarity[moved] = near.similarity[node[moved]]
    for_text = np.flatnonzero(target != everyone)

    again = alive & (first_of_text != everyone)
    apart = alive & ~again & (first_of_set != everyone)
    copies, alikes = np.flatnonzero(again), np.flatnonzero(apart)
    # What replaces a document is on record for nodes, and where it is the first of equal ones.
    on_record = (node_of >= 0) | again & (target == first_of_text) | apart & (target == first_of_set)
    others = for_text[~on_record[for_text]]
    del again, apart, on_record
    found.add(first_of_text[copies], copies, np.ones(len(copies)))
    found.add(first_of_set[alikes], alikes, np.ones(len(alikes)))
    found.add(target[others], others, similarity[others])
    for_meaning, told, spilled = np.zeros(documents, np.bool_), {}, near.spilled
    if config.semantic is not None:
        with _spill(memory, documents, folder) as spill:
            taking_part = np.where(alive & worded, target, -1)
            meaning = settle_meaning(embeddings, corpus.ids, taking_part, config.semantic, spill)
            spilled += spill.spilled
        told = meaning.report
        for_meaning = meaning.partner >= 0
        target[for_meaning] = meaning.partner[for_meaning]
        similarity[for_meaning] = meaning.similarity[for_meaning]
        for_text = for_text[~for_meaning[for_text]]
        gone = np.flatnonzero(for_meaning)
        found.add(target[gone], gone, similarity[gone], meaning=True)
    target[~alive] = target[first_of_url[~alive]]
    similarity[~alive] = np.nan
    removed = int(np.sum(target != everyone))
    exact = int(np.sum(same(corpus.texts[for_text], corpus.texts[target[for_text]])))
    report = {
        "documents": documents,
        "kept": documents - removed,
        **({"url": int(np.sum(~alive))} if config.url else {}),
        "exact": exact,
        "near": len(for_text) - exact,
        **told,
        "pairs": found.total,
        **near.counts,
        **_groups(near.group, node, near.partner),
    }
    return Decision(corpus, target, similarity, for_meaning, found, report, spilled + found.spilled)


def _spill(memory: int, documents: int, folder: str | Path | None) -> Spill:
    """What a budget leaves for large arrays: beside a quarter of it for a batch, the documents and the process."""
    pages = memory // 16
    left = memory - memory // _BATCH - pages - PROCESS - BYTES_PER_DOCUMENT * documents
    return Spill(max(left, 0), pages, folder)


class _Near(NamedTuple):
    """What replaces each node (-1: it stays) and how similar it is, and the first node in its group of joined pairs."""

    partner: Ints
    similarity: Floats
    group: Ints
    counts: dict[str, int]
    spilled: int


def _near(
    files: Sequence[Shard],
    corpus: Corpus,
    nodes: Ints,
    config: DedupConfig,
    threads: int,
    memory: int,
    folder: str | Path | None,
    pairs: Pairs,
) -> _Near:
    """Compare distinct sets of shingles group by group; `nodes` are the ranks of the documents that have them."""
    documents, signing = len(corpus.rows), config.signing
    partner, alike_to, group = np.full(len(nodes), -1, np.int64), np.ones(len(nodes)), np.arange(len(nodes))
    share = memory // _BATCH - memory // _PAIRS
    counts = dict.fromkeys(("candidates", "large_buckets", "crowded"), 0)
    with _spill(memory, documents, folder) as spill:
        bands = spill.empty((signing.bands, documents), np.int64)
        fill_bands(files, bands, spill)
        rows = corpus.rows[nodes]
        # Beside its shingles, a document in a batch has a place in each band and may be in large buckets, 4 bytes each,
        # and as much goes for scratch.
        taken = 8 * corpus.shingles[nodes] + 16 * signing.bands
        order, bounds = _batches(_groups_of(bands, threads, spill)[rows], taken, share)
        del taken
        sizes = corpus.shingles[nodes[order]]
        starts = np.concatenate(([0], np.cumsum(sizes)))[bounds]
        values = spill.empty(int(starts[-1]), np.uint64)
        part = np.full(documents, -1, np.int32)
        part[rows[order]] = np.repeat(np.arange(len(bounds) - 1), np.diff(bounds))
        begins = fill_shingles(files, part, starts, values, spill)[rows[order]]
        del part
        spill.release()
        for k, (start, stop) in enumerate(pairwise(bounds.tolist())):
            here = order[start:stop]
            first = begins[start:stop] - starts[k]
            sets = Sets(values[starts[k] : starts[k + 1]], first, first + sizes[start:stop])
            meetings = meetings_of(bands, rows[here], config.bucket_limit, threads, spill)
            settling = Settling(meetings, config.threshold, config.stored_from, sets)
            for links in compared(meetings, settling, sets, config.stored_from, threads, memory // _AT_ONCE):
                first, second = here[links.first], here[links.second]
                pairs.add(nodes[first], nodes[second], links.similarity)
                joined = links.similarity >= config.threshold
                join_pairs(group, first[joined], second[joined])
                counts["candidates"] += links.candidates
                if sets.values.nbytes > share:  # a single group
                    spill.release()
            moved = np.flatnonzero(settling.partner >= 0)
            partner[here[moved]] = here[settling.partner[moved]]
            alike_to[here[moved]] = settling.similarity[moved]
            counts["large_buckets"] += meetings.large
            counts["crowded"] += settling.crowded
            spill.release()
        spilled = spill.spilled
    settle_roots(group)
    return _Near(partner, alike_to, group, counts, spilled)


def _first_of_url(urls: Ints) -> Ints:
    """For each document the first with its address; itself without one."""
    keys = urls.view(np.uint64)
    return first_alike(np.stack((keys, keys), axis=1), urls != 0)


def _groups_of(bands: Ints, threads: int, spill: Spill) -> Ints:
    """For each document, as the shards have them, the first in its group: those sharing buckets, even through others.

    Copies are in the group of what they repeat, and documents without shingles in one of their own.
    """
    parent = np.arange(bands.shape[1])
    for start in range(0, len(bands), threads):  # a few at a time: each takes memory
        some = range(start, min(start + threads, len(bands)))
        for shared in in_threads(lambda k: shared_buckets(bands[k]), some, threads):
            join(parent, *shared)
        spill.release()
    settle_roots(parent)
    return parent


def _batches(group: Ints, sizes: Ints, share: int) -> tuple[Ints, Ints]:
    """Nodes that aren't alone, group by group, and where among them batches of whole groups begin and end.

    A batch takes at most `share` bytes, unless a single group takes more; `sizes` are the nodes'.
    """
    several = np.bincount(group, minlength=len(group)) > 1
    order = np.flatnonzero(several[group]) if len(group) else np.empty(0, np.int64)
    order = order[np.argsort(group[order], kind="stable")]
    if not len(order):
        return order, np.zeros(1, np.int64)
    heads = np.flatnonzero(np.concatenate(([True], group[order[1:]] != group[order[:-1]])))
    totals = np.add.reduceat(sizes[order], heads)
    bounds, filled = [0], 0
    for head, total in zip(heads.tolist(), totals.tolist(), strict=True):
        if filled and filled + total > share:
            bounds.append(head)
            filled = 0
        filled += total
    return order, np.array([*bounds, len(order)])


def _groups(group: Ints, node: Ints, partner: Ints) -> dict[str, int]:
    """How documents hang together through joined pairs: groups of several, the largest, and how many of it stay.

    `node` is each document's node, -1 without words. A large group of which much stays was held together by weak links.
    """
    documents = np.bincount(group[node[node >= 0]], minlength=len(group)) if len(group) else np.zeros(0, np.int64)
    if not len(documents) or documents.max() < 2:
        return {"groups": 0, "largest_group": 0, "largest_group_kept": 0}
    largest = int(documents.argmax())
    kept = int(np.sum((group == largest) & (partner < 0)))
    return {"groups": int(np.sum(documents > 1)), "largest_group": int(documents.max()), "largest_group_kept": kept}
