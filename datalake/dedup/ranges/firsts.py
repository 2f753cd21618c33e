"""The first of equal documents, by ranges of a hash: of one address, of one text, of one set of shingles.

    addresses (a range of hashes)   of each address its first document          only where addresses are compared
    keys (a range of places)        who has the first place of its address goes on
    firsts (a range of hashes)      of each text, and of each set, its first document
    kinds (a range of places)       what each document is: gone for its address, like an earlier one, or a head

A head stands for itself and all that are like it: those with its set of shingles, and where there are no words those
with its text. What is like a head follows it (`followers`), wherever that stands in the order. Heads with words are
the nodes that are compared.

However many documents are alike, a range of hashes holds of each hash one row for every range that it comes from.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

from datalake.compiled import kernel
from datalake.dedup.ranges.places import documents_of
from datalake.dedup.ranges.shuffle import INDEX, INDEX_BITS, Ints, Task
from datalake.dedup.tables import EXACT, range_of
from datalake.dedup.texts.signed import same
from datalake.dedup.texts.sorting import sort_halves

GONE, LIKE, HEAD, NODE = 0, 1, 2, 3  # kinds of documents; a node is a head with words
ONE = int(np.float64(1.0).view(np.int64))  # the bits of similarity 1

PAIR = 6  # columns of a pair: id of a, id of b, level, similarity
_FOLLOWER = 10


def addresses(task: Task) -> None:
    """The first document of each address."""
    out = task.table("answers", 2, task.plan.ranges)
    for rows, first in first_rows(lambda: task.blocks("places", "urls"), one=True):
        out.add(rows[:, 1] >> INDEX_BITS, rows[:, 1], first[:, 1])


def keys(task: Task, url: bool) -> None:
    """Texts and sets of the documents that go on, each to its range of hashes; the others to what precedes them."""
    documents, ranges = documents_of(task), task.plan.ranges
    places = (task.item << INDEX_BITS) + np.arange(len(documents.ids))
    alive = np.ones(len(places), np.bool_)
    gone = task.table("gone", 3, ranges)
    for rows in task.blocks("addresses", "answers") if url else ():
        index = rows[:, 0] & INDEX
        alive[index] = False
        gone.add(rows[:, 1] >> INDEX_BITS, rows[:, 1], documents.ids[index])
    texts, sets = task.table("texts", 5, ranges), task.table("sets", 3, ranges)
    some = np.flatnonzero(alive)
    hashes = np.ascontiguousarray(documents.texts[some])
    texts.add(range_of(hashes[:, 0].copy(), ranges), hashes, places[some], documents.ids[some])
    some = np.flatnonzero(alive & (documents.shingles > 0))
    hashes = np.ascontiguousarray(documents.sets[some])
    sets.add(range_of(hashes[:, 0].copy(), ranges), hashes, places[some])
    task.table("alive", 1, 1).add(0, alive.astype(np.int64))
    task.counts["url"] = int(np.sum(~alive))


def firsts(task: Task) -> None:
    """The first document of each text and of each set, told to those that come later; and the pairs of equal texts."""
    plan = task.plan
    texts, pairs = task.table("texts", 4, plan.ranges), task.table("pairs", PAIR, plan.sections)
    for rows, first in first_rows(lambda: task.blocks("keys", "texts")):
        texts.add(rows[:, 2] >> INDEX_BITS, rows[:, 2], first[:, 2:5])
        part = range_of(first[:, 3].copy(), plan.sections)
        pairs.add(part, first[:, 3:5], rows[:, 3:5], EXACT, ONE)
    sets = task.table("sets", 2, plan.ranges)
    for rows, first in first_rows(lambda: task.blocks("keys", "sets")):
        sets.add(rows[:, 2] >> INDEX_BITS, rows[:, 2], first[:, 2])
    task.counts["pairs"] = pairs.rows


def kinds(task: Task) -> None:
    """What each document of a range is; nodes to their sheaves, and what is like a head to that one's range."""
    documents, plan = documents_of(task), task.plan
    alive = task.own("keys", "alive", 1)[:, 0].astype(np.bool_)
    places = (task.item << INDEX_BITS) + np.arange(len(alive))
    text, text_id = places.copy(), documents.ids.copy()
    for rows in task.blocks("firsts", "texts"):
        index = rows[:, 0] & INDEX
        text[index], text_id[index] = rows[:, 1], rows[:, 2:4]
    worded = documents.shingles > 0
    head = np.where(worded, places, text)
    for rows in task.blocks("firsts", "sets"):
        head[rows[:, 0] & INDEX] = rows[:, 1]
    kind = np.where(alive, np.where(head != places, LIKE, np.where(worded, NODE, HEAD)), GONE)
    task.table("kinds", 1, 1).add(0, kind)

    like = np.flatnonzero(kind == LIKE)
    task.table("followers", _FOLLOWER, plan.ranges).add(
        head[like] >> INDEX_BITS,
        head[like],
        places[like],
        documents.ids[like],
        documents.texts[like],
        (text != places)[like].astype(np.int64),
        text_id[like],
        worded[like].astype(np.int64),
    )
    nodes = np.flatnonzero(kind == NODE)
    origin = documents.origin[nodes]
    task.table("nodes", 2, len(plan.sheaves)).add(origin >> INDEX_BITS, origin & INDEX, places[nodes])
    task.counts |= {"nodes": len(nodes), "shingles": int(documents.shingles[nodes].sum())}


class Followers:
    """Documents that are like a head of a range."""

    def __init__(self, rows: Ints):
        self.head, self.place = rows[:, 0], rows[:, 1]
        self.ids, self.texts = rows[:, 2:4], rows[:, 4:6]
        self.again = rows[:, 6].astype(np.bool_)  # their text stood before
        self.first_of_text = rows[:, 7:9]  # whose id this is
        self.worded = rows[:, 9].astype(np.bool_)


def followers(task: Task) -> Iterator[Followers]:
    """Those of the range that an item is about, some at a time."""
    for rows in task.blocks("kinds", "followers"):
        yield Followers(rows)


@kernel
def _find(high: Ints, low: Ints, known_high: Ints, known_low: Ints) -> Ints:
    """Where each of some 128-bit hashes stands among sorted ones, that have them all."""
    out = np.empty(len(high), np.int64)
    for k in range(len(high)):
        a, b = np.uint64(high[k]), np.uint64(low[k])
        begin, end = 0, len(known_high)
        while begin < end:
            middle = (begin + end) // 2
            x = np.uint64(known_high[middle])
            if x < a or (x == a and np.uint64(known_low[middle]) < b):
                begin = middle + 1
            else:
                end = middle
        out[k] = begin
    return out


def first_rows(blocks: Callable[[], Iterator[Ints]], one: bool = False) -> Iterator[tuple[Ints, Ints]]:
    """Rows that aren't the first with their hash, and for each of them that first row; blocks come in order of place.

    A hash takes the first two columns of a row (the first, where it is `one`), and the next one is the place.
    """
    high, low = 0, 0 if one else 1
    heads = [_heads(rows, low) for rows in blocks()]
    if not heads:
        return
    known = _heads(np.concatenate(heads), low)
    del heads
    sorted_high, sorted_low = known[:, high].copy(), known[:, low].copy()
    for rows in blocks():
        first = known[_find(rows[:, high].copy(), rows[:, low].copy(), sorted_high, sorted_low)]
        later = np.flatnonzero(first[:, low + 1] != rows[:, low + 1])
        yield rows[later], first[later]


def _heads(rows: Ints, low: int) -> Ints:
    """The first row with each hash, in the order of the hashes."""
    hashes = rows[:, [0, low]].view(np.uint64)
    order = sort_halves(hashes)  # stable: equal ones stay in order
    hashes = hashes[order]
    fresh = np.concatenate(([True], ~same(hashes[1:], hashes[:-1])))
    return rows[order[fresh]]
