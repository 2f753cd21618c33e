"""Which documents are duplicates of which: one decision over any number of signed shards.

1. Documents stand in the stated order of precedence; ties go by id. Nothing depends on the order or number of shards.
2. Documents with equal shingle sets (equal normalised texts among them) collapse to their first; the others share its
   similarities, so a hundred thousand copies cost no more than one. Documents without words collapse only where their
   texts are equal.
3. Bands propose, exact Jaccard decides (verify.py): all pairs of every bucket of at most `bucket_limit` distinct
   documents.
4. In order of precedence a document is removed only when a document *already kept* is its verified partner at or above
   the threshold: the most similar of them, the first among equals. In buckets over the limit a document is compared,
   here, with the first `bucket_limit` documents kept there instead of with all: linear in the bucket's size.

Hence every removed document has a kept one at or above the threshold, directly, whatever the buckets. What step 4
leaves out costs recall between kept documents of crowded buckets, which the report counts, and never the guarantee.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from datalake.dedup.bands import Shared, shared_buckets
from datalake.dedup.components import components
from datalake.dedup.config import DedupConfig
from datalake.dedup.schema import DUPLICATES, PAIRS
from datalake.dedup.signed import Corpus, Shard, as_bytes, check_signing, collapse, gather, read, same
from datalake.dedup.verify import Links, Numbered, Sets, link_band, settle

Ints = npt.NDArray[np.int64]
Hashes = npt.NDArray[np.uint64]
Floats = npt.NDArray[np.float64]
Flags = npt.NDArray[np.bool_]


class Decision(NamedTuple):
    """`pairs` (PAIRS, sorted by a and b), `duplicates` (DUPLICATES, a row per document, sorted by id) and counts."""

    pairs: pa.Table
    duplicates: pa.Table
    report: dict[str, int]


def decide(files: Sequence[Shard], config: DedupConfig, threads: int = 1) -> Decision:
    """Decides over signed shards (Parquet files or tables of schema SIGNATURES); equal for any order of them.

    Raises ValueError where shards were signed with other settings or a document appears twice.
    """
    signing = config.signing
    for file in files:
        check_signing(file, signing)
    corpus = read(files, config)
    first_of_set, first_of_text = collapse(corpus)
    nodes = np.flatnonzero((first_of_set == np.arange(len(first_of_set))) & corpus.worded)  # ranks, ascending

    banded = gather(files, "bands", corpus.rows[nodes])
    if np.any(banded.ends - banded.begins != signing.bands):
        raise ValueError(f"a shard holds another number of bands than {signing.bands}: sign it again with this recipe")
    bands = banded.values.view(np.int64).reshape(-1, signing.bands)[banded.begins // signing.bands]
    shared = [shared_buckets(bands[:, k]) for k in range(signing.bands)]
    large, involved = np.zeros(bands.shape, np.bool_), np.zeros(len(nodes), np.bool_)
    for k, band in enumerate(shared):
        sizes = np.diff(band.starts)
        large[band.members, k] = np.repeat(sizes > config.bucket_limit, sizes)
        involved[band.members] = True

    loaded = gather(files, "shingles", corpus.rows[nodes[involved]])
    begins, ends = np.zeros(len(nodes), np.int64), np.zeros(len(nodes), np.int64)
    begins[involved], ends[involved] = loaded.begins, loaded.ends
    sets = Sets(loaded.values, begins, ends)

    def link(k: int) -> Links:
        return link_band(bands, large, k, shared[k], config.bucket_limit, sets, config.stored_from)

    links = _in_threads(link, range(signing.bands), threads)
    first, second, alike = (np.concatenate([part[k] for part in links]) for k in range(3))
    order = np.lexsort((first, second))
    linked = Links(first[order], second[order], alike[order], sum(part.candidates for part in links))
    buckets = _large_buckets(len(nodes), shared, config.bucket_limit)
    settled = settle(len(nodes), linked, config.threshold, config.stored_from, buckets, config.bucket_limit, sets)
    first, second = np.concatenate((linked.first, settled.first)), np.concatenate((linked.second, settled.second))
    alike = np.concatenate((linked.similarity, settled.alike))

    # From nodes back to documents: a document's decision is its node's, or its node itself.
    node_of = np.full(len(corpus.rows), -1)
    node_of[nodes] = np.arange(len(nodes))
    target, similarity = first_of_set.copy(), np.ones(len(first_of_set), np.float64)
    node = node_of[first_of_set]
    moved = np.flatnonzero((node >= 0) & (settled.partner[node] >= 0)) if len(nodes) else np.empty(0, np.int64)
    target[moved] = nodes[settled.partner[node[moved]]]
    similarity[moved] = settled.similarity[node[moved]]
    removed = np.flatnonzero(target != np.arange(len(target)))
    duplicates = _duplicates_table(corpus, removed, target, similarity)

    copies = np.flatnonzero(first_of_text != np.arange(len(target)))
    alikes = np.flatnonzero((first_of_set != np.arange(len(target))) & (first_of_text == np.arange(len(target))))
    pairs = _pairs_table(
        corpus,
        np.concatenate((nodes[first], first_of_text[copies], first_of_set[alikes], target[removed])),
        np.concatenate((nodes[second], copies, alikes, removed)),
        np.concatenate((alike, np.ones(len(copies) + len(alikes)), similarity[removed])),
    )
    joined = alike >= config.threshold
    group = components(len(nodes), first[joined], second[joined])
    report = {
        "documents": len(target),
        "kept": len(target) - len(removed),
        "exact": int(np.sum(same(corpus.texts[removed], corpus.texts[target[removed]]))),
        "pairs": pairs.num_rows,
        "candidates": linked.candidates + settled.candidates,
        "large_buckets": sum(int(np.sum(np.diff(band.starts) > config.bucket_limit)) for band in shared),
        "crowded": settled.crowded,
        **_groups(group, node, settled.partner),
    }
    report["near"] = len(removed) - report["exact"]
    return Decision(pairs, duplicates, report)


def _in_threads(work: Callable[[int], Links], items: Iterable[int], threads: int) -> list[Links]:
    if threads <= 1:
        return [work(item) for item in items]
    with ThreadPoolExecutor(threads) as pool:
        return list(pool.map(work, items))


def _large_buckets(count: int, shared: Sequence[Shared], limit: int) -> Numbered:
    """The buckets with more than `limit` documents."""
    members, numbers, total = [np.empty(0, np.int64)], [np.empty(0, np.int64)], 0
    for band in shared:
        sizes = np.diff(band.starts)
        large = sizes > limit
        here = np.repeat(large, sizes)
        members.append(band.members[here].astype(np.int64))
        numbers.append(np.repeat(total + np.arange(int(large.sum())), sizes[large]))
        total += int(large.sum())
    member, number = np.concatenate(members), np.concatenate(numbers)
    order = np.argsort(member, kind="stable")
    return Numbered(np.searchsorted(member[order], np.arange(count + 1)), number[order], total)


def _levels(exact: Flags) -> pa.Array:
    return pa.DictionaryArray.from_arrays(pa.array(np.where(exact, 0, 1).astype(np.int8)), ["exact", "near"]).cast(
        pa.string()
    )


def _duplicates_table(corpus: Corpus, removed: Ints, target: Ints, similarity: Floats) -> pa.Table:
    by_id = np.lexsort((corpus.ids[:, 1], corpus.ids[:, 0]))
    kept = pa.array(np.isin(by_id, removed, invert=True))
    columns = [
        as_bytes(corpus.ids[by_id]),
        _where_not(kept, as_bytes(corpus.ids[target[by_id]])),
        _where_not(kept, _levels(same(corpus.texts[by_id], corpus.texts[target[by_id]]))),
        _where_not(kept, pa.array(similarity[by_id])),
    ]
    return pa.Table.from_arrays(columns, schema=DUPLICATES)


def _where_not(empty: pa.Array, values: pa.Array) -> pa.Array:
    """The values, null where `empty` is true."""
    indices = pa.array(np.arange(len(values)), mask=empty.to_numpy(zero_copy_only=False))
    return values.take(indices)


def _pairs_table(corpus: Corpus, a: Ints, b: Ints, similarity: Floats) -> pa.Table:
    """One row per pair of ranks a < b; the same pair may come from several steps, always with one similarity."""
    order = np.lexsort((b, a))
    a, b, similarity = a[order], b[order], similarity[order]
    fresh = np.concatenate(([True], (a[1:] != a[:-1]) | (b[1:] != b[:-1]))) if len(a) else np.empty(0, np.bool_)
    a, b, similarity = a[fresh], b[fresh], similarity[fresh]
    x, y = corpus.ids[a], corpus.ids[b]
    by_id = np.lexsort((y[:, 1], y[:, 0], x[:, 1], x[:, 0]))
    exact = same(corpus.texts[a], corpus.texts[b])
    columns = [as_bytes(x[by_id]), as_bytes(y[by_id]), _levels(exact[by_id]), pa.array(similarity[by_id])]
    return pa.Table.from_arrays(columns, schema=PAIRS)


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
