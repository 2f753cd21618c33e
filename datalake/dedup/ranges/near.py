"""Near duplicates by ranges: buckets to groups, groups to batches, and each batch compared as one process does.

    buckets (a sheaf)            the buckets of its nodes, each to a range of its hash
    edges (a range of hashes)    who shares a bucket, as a forest; then `groups` finds what hangs together
    members (a range of places)  nodes that aren't alone, with the batch that their group is in, to their sheaves
    shingles (a sheaf)           what a batch needs of its nodes
    compare (a batch)            which nodes go, and the pairs (`datalake.dedup.texts.compare`)

A batch holds whole groups, so its buckets are whole. One group may be larger than memory: its bands, shingles and pairs
then lie in files, as where all is decided in one process.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pyarrow as pa

from datalake.compiled import kernel
from datalake.dedup.config import DedupConfig
from datalake.dedup.ranges.firsts import PAIR, first_rows, followers
from datalake.dedup.ranges.groups import WIDTH as EDGE
from datalake.dedup.ranges.groups import Forest, linked
from datalake.dedup.ranges.places import documents_of
from datalake.dedup.ranges.shuffle import INDEX, INDEX_BITS, Ints, Task, within
from datalake.dedup.tables import EXACT, NEAR, range_of
from datalake.dedup.texts.bands import shared_buckets
from datalake.dedup.texts.compare import compared, meetings_of
from datalake.dedup.texts.components import join_pairs, settle_roots
from datalake.dedup.texts.signed import batches_of, flat, halves, rows_within, same
from datalake.dedup.texts.spill import Spill
from datalake.dedup.texts.verify import Sets, Settling
from datalake.places import room_beside

_MEMBER = 7  # columns before the bands: place, documents, shingles, id, text
_SORTED = 64  # bytes that sorting a bucket's row takes, about
_MOVED = 6  # node; id and text of what replaces it; similarity
SCATTER = np.uint64(0x9E3779B97F4A7C15)  # 2^64 / golden ratio: puts groups one after the other in different batches


def _chosen(task: Task, rows: Ints, names: list[str]) -> Iterator[tuple[pa.RecordBatch, Ints]]:
    """Batches of a sheaf's files, each with those of `rows` that are in it, their first column as rows of the batch.

    `rows` are sorted by their first column, which is a row of the sheaf.
    """
    at = 0
    for file in task.plan.sheaves[task.item]:
        for batch in batches_of([file], names, rows_within(file, names[-1])):
            begin, end = np.searchsorted(rows[:, 0], (at, at + batch.num_rows))
            if end > begin:
                here = rows[begin:end].copy()
                here[:, 0] -= at
                yield batch, here
            at += batch.num_rows


def _by_row(task: Task, step: str, table: str, width: int) -> Ints:
    rows = task.rows(step, table, width)
    return rows[np.argsort(rows[:, 0], kind="stable")]


def buckets(task: Task, config: DedupConfig) -> None:
    """A sheaf's nodes to the ranges of their buckets: a section for each range and band.

    Raises ValueError where a document has another number of bands.
    """
    bands, ranges = config.signing.bands, task.plan.ranges
    out = task.table("buckets", 2, ranges * bands)
    band = np.arange(bands)
    for batch, rows in _chosen(task, _by_row(task, "kinds", "nodes", 2), ["bands"]):
        found = bands_of(batch, rows[:, 0], bands)
        sections = range_of(found.ravel(), ranges) * bands + np.tile(band, len(rows))
        out.add(sections, found.ravel(), np.repeat(rows[:, 1], bands))


def bands_of(batch: pa.RecordBatch, rows: Ints, bands: int) -> Ints:
    """The buckets of some rows of a batch, shape (rows, bands)."""
    values, begins, ends = flat(batch.column("bands"))
    if np.any(ends[rows] - begins[rows] != bands):
        raise ValueError(f"a shard holds another number of bands than {bands}: sign it again with this recipe")
    found: Ints = values.view(np.int64)[begins[rows][:, None] + np.arange(bands)]
    return found


def edges(task: Task, config: DedupConfig) -> None:
    """Who shares a bucket of a range. A bucket that all documents share takes no more memory than others."""
    bands, ranges, memory = config.signing.bands, task.plan.ranges, task.plan.memory
    out = Forest(task.table("links", EDGE, ranges), memory // 128)
    for band in range(bands):

        def blocks(section: int = task.item * bands + band) -> Iterator[Ints]:
            return task.blocks("buckets", "buckets", section, ranges * bands)

        rows = within(blocks(), memory // _SORTED)
        if rows is None:
            for later, first in first_rows(blocks, one=True):
                out.add(np.stack((later[:, 1], first[:, 1]), axis=1))
        elif len(rows):
            members, starts = shared_buckets(rows[:, 0].copy())
            places, first = rows[members, 1], np.repeat(members[starts[:-1]], np.diff(starts))
            later = np.flatnonzero(members != first)
            out.add(np.stack((places[later], rows[first[later], 1]), axis=1))
    out.close()


def members(task: Task, after: str, batches: int) -> None:
    """The nodes of a range that hang together with others, by the edges that the last `join` left.

    How many documents a node stands for goes along. Of nodes that are alone it is counted here: `groups` of several
    documents, the `largest`, and its place.
    """
    documents, first = documents_of(task), linked(task, after)
    places = (task.item << INDEX_BITS) + np.arange(len(first))
    several = first != places
    for rows in task.blocks(after, "children"):
        several[rows[:, 1] & INDEX] = True
    amount = np.ones(len(first), np.int64)
    for some in followers(task):
        amount += np.bincount(some.head[some.worded] & INDEX, minlength=len(first))
    here = np.flatnonzero(several)
    batch = range_of(first[here].view(np.uint64) * SCATTER, batches)
    origin = documents.origin[here]
    out = task.table("members", 4, len(task.plan.sheaves))
    out.add(origin >> INDEX_BITS, origin & INDEX, places[here], batch, amount[here])
    alone = np.where(several, 1, amount)
    task.counts["groups"] = int(np.sum(alone > 1))
    if task.counts["groups"]:
        best = int(alone.argmax())
        task.counts |= {"largest": int(alone[best]), "largest_kept": 1, "largest_place": int(places[best])}


def shingles(task: Task, config: DedupConfig, batches: int) -> None:
    """Bands, shingles and names of a sheaf's nodes that aren't alone, to their batches."""
    bands = config.signing.bands
    out, values = task.table("members", _MEMBER + bands, batches), task.table("values", 1, batches)
    for batch, rows in _chosen(task, _by_row(task, "members", "members", 4), ["id", "text_hash", "bands", "shingles"]):
        at, place, to, amount = rows.T
        every, begins, ends = flat(batch.column("shingles"))
        begins, ends = begins[at], ends[at]
        ids, texts = halves(batch.column("id"))[at], halves(batch.column("text_hash"))[at]
        out.add(to.copy(), place, amount, ends - begins, ids, texts, bands_of(batch, at, bands))
        values.add(np.repeat(to, ends - begins), _gather(every, begins, ends))


@kernel
def _gather(values: np.ndarray, begins: Ints, ends: Ints) -> np.ndarray:
    out = np.empty(np.sum(ends - begins), np.uint64)
    done = 0
    for k in range(len(begins)):
        size = ends[k] - begins[k]
        out[done : done + size] = values[begins[k] : ends[k]]
        done += size
    return out


def compare(task: Task, config: DedupConfig) -> None:
    """The nodes of a batch: which of them go, and the pairs, told to the ranges of places and of ids."""
    plan, signing = task.plan, config.signing
    moved, pairs = task.table("moved", _MOVED, plan.ranges), task.table("pairs", PAIR, plan.sections)
    count, total = 0, 0
    for rows in task.blocks("shingles", "members"):
        count += len(rows)
        total += int(rows[:, 2].sum())
    if not count:
        return
    share = max(plan.memory // 2 - 200 * count, 0)
    with (
        TemporaryDirectory(prefix=".spill-", dir=room_beside(plan.root / "spill")) as name,
        Spill(share, plan.memory // 8, Path(name)) as spill,
    ):
        bands = spill.empty((signing.bands, count), np.int64)
        values = spill.empty(total, np.uint64)
        facts, at = np.empty((count, _MEMBER), np.int64), 0
        for rows in task.blocks("shingles", "members"):
            here = slice(at, at + len(rows))
            facts[here], bands[:, here] = rows[:, :_MEMBER], rows[:, _MEMBER:].T
            at += len(rows)
            spill.touched(rows.nbytes)
        at = 0
        for rows in task.blocks("shingles", "values"):
            values[at : at + len(rows)] = rows[:, 0].view(np.uint64)
            at += len(rows)
            spill.touched(rows.nbytes)
        order = np.argsort(facts[:, 0])
        ends = np.cumsum(facts[:, 2])
        facts, ends = facts[order], ends[order]
        place, ids, texts = facts[:, 0], facts[:, 3:5], facts[:, 5:7]
        sets = Sets(values, ends - facts[:, 2], ends)
        meetings = meetings_of(bands, order, config.bucket_limit, 1, spill)
        settling = Settling(meetings, config.threshold, config.stored_from, sets)
        group = np.arange(count)
        for links in compared(meetings, settling, sets, config.stored_from, 1, plan.memory // 1024):
            a, b = links.first.astype(np.int64), links.second.astype(np.int64)
            level = np.where(same(texts[a], texts[b]), EXACT, NEAR)
            pairs.add(range_of(ids[a, 0], plan.sections), ids[a], ids[b], level, links.similarity)
            joined = links.similarity >= config.threshold
            join_pairs(group, a[joined], b[joined])
            task.counts["candidates"] += links.candidates
            if spill.spilled:
                spill.release()
        settle_roots(group)
    gone = np.flatnonzero(settling.partner >= 0)
    to = settling.partner[gone]
    moved.add(place[gone] >> INDEX_BITS, place[gone], ids[to], texts[to], settling.similarity[gone])
    task.counts |= {"large_buckets": meetings.large, "crowded": settling.crowded, "pairs": pairs.rows}
    documents = np.bincount(group, facts[:, 1], minlength=count).astype(np.int64)
    task.counts["groups"] = int(np.sum(documents > 1))
    best = int(documents.argmax())
    kept = int(np.sum((group == best) & (settling.partner < 0)))
    task.counts |= {"largest": int(documents[best]), "largest_kept": kept, "largest_place": int(place[best])}
