"""From nodes back to documents, and what was decided in the order of ids.

    settle (a range of places)     heads, and what follows them: who stays, or what stands for whom
    versions (a range of places)   those gone for their address: what stands for the first one there
    tables (a part, by ids)        the lake's tables `pairs` and `duplicates`

A part of the tables is a range of ids, read some sections at a time. How many parts there are depends on the number of
documents alone (`datalake.dedup.tables.parts_of`), so the tables' files are the same however they were made.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from datalake.dedup.ranges.firsts import HEAD, NODE, ONE, PAIR, followers
from datalake.dedup.ranges.places import as_text, documents_of
from datalake.dedup.ranges.shuffle import INDEX, INDEX_BITS, Ints, Task, within
from datalake.dedup.tables import EXACT, KEPT, NEAR, ROWS, URL, duplicates_table, pairs_table, range_of
from datalake.dedup.texts.signed import as_bytes, same

DECISION = 6  # columns of a decision: id, id of what stands for it, level, similarity
_SORTED = 200  # bytes that sorting takes for each row, about


def settle(task: Task, url: bool) -> None:
    """Decide on the heads of a range, told from batches, and on all that follows them."""
    plan, documents = task.plan, documents_of(task)
    kind = task.own("kinds", "kinds", 1)[:, 0]
    target, target_text = documents.ids.copy(), documents.texts.copy()
    alike = np.full(len(kind), 1.0)
    moved = np.zeros(len(kind), np.bool_)
    for rows in task.blocks("compare", "moved"):
        index = rows[:, 0] & INDEX
        target[index], target_text[index] = rows[:, 1:3], rows[:, 3:5]
        alike[index], moved[index] = rows[:, 5].copy().view(np.float64), True
    out, pairs = task.table("decisions", DECISION, plan.sections), task.table("pairs", PAIR, plan.sections)
    targets = task.table("targets", 3, plan.ranges)
    counts = dict.fromkeys(("kept", "exact", "near"), 0)

    def decided(places: Ints, ids: Ints, texts: Ints, head: Ints) -> Ints:
        """Documents that another one stands for, with a head's index each; gives their levels."""
        level = np.where(same(texts, target_text[head]), EXACT, NEAR)
        out.add(range_of(ids[:, 0], plan.sections), ids, target[head], level, alike[head])
        if url:
            targets.add(places >> INDEX_BITS, places, target[head])
        counts["exact"] += int(np.sum(level == EXACT))
        counts["near"] += int(np.sum(level == NEAR))
        return level

    heads = (kind == HEAD) | (kind == NODE)
    here = np.flatnonzero(heads & ~moved)
    ids = documents.ids[here]
    out.add(range_of(ids[:, 0], plan.sections), ids, ids, KEPT, ONE)
    counts["kept"] = len(here)
    here = np.flatnonzero(heads & moved)
    decided((task.item << INDEX_BITS) + here, documents.ids[here], documents.texts[here], here)
    for some in followers(task):
        head = some.head & INDEX
        level = decided(some.place, some.ids, some.texts, head)
        # On record are pairs with the first of equal texts. One that isn't among these is with the first of its set.
        own, own_text = documents.ids[head], documents.texts[head]
        star = np.flatnonzero(~some.again)
        of_sets = np.where(same(some.texts[star], own_text[star]), EXACT, NEAR)
        pairs.add(range_of(own[star, 0], plan.sections), own[star], some.ids[star], of_sets, ONE)
        first = np.where(some.again[:, None], some.first_of_text, own)
        other = np.flatnonzero(~same(first, target[head]))
        to = target[head[other]]
        pairs.add(range_of(to[:, 0], plan.sections), to, some.ids[other], level[other], alike[head[other]])
    task.counts |= {**counts, "pairs": pairs.rows}


def versions(task: Task) -> None:
    """Documents gone for their address name what stands for the first one there."""
    plan, target = task.plan, documents_of(task).ids.copy()
    for rows in task.blocks("settle", "targets"):
        target[rows[:, 0] & INDEX] = rows[:, 1:3]
    out = task.table("decisions", DECISION, plan.sections)
    for rows in task.blocks("keys", "gone"):
        ids = rows[:, 1:3]
        out.add(range_of(ids[:, 0], plan.sections), ids, target[rows[:, 0] & INDEX], URL, ONE)


def duplicates_by_id(task: Task, url: bool) -> Iterator[pa.Table]:
    """DUPLICATES of a part, sorted by id. Raises ValueError where a document appears twice."""
    before = np.empty((0, 2), np.int64)

    def blocks(section: int) -> Iterator[Ints]:
        for step in ("settle", *(["versions"] if url else [])):
            yield from task.blocks(step, "decisions", section, task.plan.sections)

    for rows in _in_order(task, blocks, DECISION, 2):
        ids = np.concatenate((before, rows[:, :2]))
        twice = np.flatnonzero(same(ids[1:], ids[:-1]))
        if len(twice):
            name = as_bytes(ids[twice[:1]].view(np.uint64))[0].as_py().hex()
            raise ValueError(f"document {name} appears twice: give every shard once, and every archive to one source")
        before = rows[-1:, :2]
        yield duplicates_table(rows[:, :2], rows[:, 2:4], rows[:, 4], rows[:, 5].copy().view(np.float64))


def pairs_by_id(task: Task) -> Iterator[pa.Table]:
    """PAIRS of a part, sorted by a and b."""

    def blocks(section: int) -> Iterator[Ints]:
        for step in ("firsts", "compare", "settle"):
            yield from task.blocks(step, "pairs", section, task.plan.sections)

    for rows in _in_order(task, blocks, PAIR, 4):
        yield pairs_table(rows[:, :2], rows[:, 2:4], rows[:, 4], rows[:, 5].copy().view(np.float64))


def _in_order(task: Task, blocks: Callable[[int], Iterator[Ints]], width: int, by: int) -> Iterator[Ints]:
    """The rows of a part's sections by their first columns as unsigned numbers, `ROWS` at a time, the last ones fewer.

    Writers' chunks decide where row groups end, so these are the same whatever the sections.
    """
    each = task.plan.sections // task.plan.parts
    rest = np.empty((0, width), np.int64)
    for section in range(task.item * each, (task.item + 1) * each):
        for rows in _sorted(lambda: blocks(section), width, by, task.plan.memory // _SORTED):  # noqa: B023
            rest = np.concatenate((rest, rows))
            while len(rest) >= ROWS:
                yield rest[:ROWS]
                rest = rest[ROWS:].copy()
    if len(rest):
        yield rest


def _sorted(blocks: Callable[[], Iterator[Ints]], width: int, by: int, room: int) -> Iterator[Ints]:
    """Rows in order; where they are more than `room`, a slice at a time, each found by reading all of them again."""
    rows = within(blocks(), room)
    if rows is not None:
        yield _by_columns(rows.reshape(-1, width), by)
        return
    total = sum(len(some) for some in blocks())
    slices = -(-total // max(room, 1))
    step, seen, some = max(1, total // (1000 * slices)), 0, []
    for rows in blocks():
        some.append(rows[-seen % step :: step, :by].view(np.uint64))
        seen += len(rows)
    keys = np.sort(as_text(np.concatenate(some)))
    bounds = keys[np.arange(1, slices) * len(keys) // slices]
    for k in range(slices):
        yield _by_columns(np.concatenate([rows[_slice_of(rows, bounds, by) == k] for rows in blocks()]), by)


def _by_columns(rows: Ints, by: int) -> Ints:
    return rows[np.lexsort(rows[:, :by].view(np.uint64).T[::-1])]


def _slice_of(rows: Ints, bounds: npt.NDArray[np.bytes_], by: int) -> Ints:
    return np.searchsorted(bounds, as_text(np.ascontiguousarray(rows[:, :by]).view(np.uint64)), side="right")
