"""Groups of documents that hang together, from edges in files: connected components over ranges of places.

Each writer of edges hands on a forest of them (`forest`). Then two steps, each a map over ranges, take turns, after
Kiveris, Lattanzi, Mirrokni, Rastogi, Vassilvitskii 2014 ("Connected Components in MapReduce and Beyond", alternating
large-star and small-star):

    join (a range)     each document is linked to the first of those before it, and these to that one (small star)
    spread (a range)   who is linked to a document is linked to what that one is linked to (large star)

An edge is a row (later place, earlier place). No edge is lost that held two documents together, and each round brings
documents nearer to the first of their group; where neither step changes one, all are linked to that one directly.
Memory: 8 bytes for each document of a range and the rows at hand, however large a group is.
"""

from __future__ import annotations

import numpy as np

from datalake.compiled import kernel
from datalake.dedup.ranges.shuffle import INDEX, INDEX_BITS, Ints, Parted, Task
from datalake.dedup.texts.components import join_pairs, settle_roots

WIDTH = 2


def forest(edges: Ints) -> Ints:
    """Fewer edges that hold the same documents together: (place, first of its group), each document once."""
    if not len(edges):
        return edges
    known, numbers = np.unique(edges, return_inverse=True)
    numbers = numbers.reshape(edges.shape)
    parent = np.arange(len(known))
    join_pairs(parent, numbers[:, 0].copy(), numbers[:, 1].copy())
    settle_roots(parent)
    later = np.flatnonzero(parent != np.arange(len(known)))
    return np.stack((known[later], known[parent[later]]), axis=1)


def write_edges(out: Parted, edges: Ints) -> None:
    """To the ranges of the later places."""
    out.add(edges[:, 0] >> INDEX_BITS, edges)


class Forest:
    """Edges on their way to a table: held as a forest while that fits `room` rows, then written and begun anew."""

    def __init__(self, out: Parted, room: int):
        self._out, self._room = out, room
        self._held: list[Ints] = [np.empty((0, WIDTH), np.int64)]
        self._count = 0

    def add(self, edges: Ints) -> None:
        """Edges between any two places, the later one in front or not."""
        self._held.append(edges)
        self._count += len(edges)
        if self._count > self._room:
            self._held = [forest(np.concatenate(self._held))]
            self._count = len(self._held[0])
            if self._count > self._room // 2:
                self.close()

    def close(self) -> None:
        """Write what is held."""
        write_edges(self._out, forest(np.concatenate(self._held)))
        self._held, self._count = [np.empty((0, WIDTH), np.int64)], 0


@kernel
def _least(rows: Ints, least: Ints, index: int) -> None:
    for k in range(len(rows)):
        at = rows[k, 0] & index
        least[at] = min(least[at], rows[k, 1])


def linked(task: Task, after: str) -> Ints:
    """For each document of a range the first one that an edge of a step links it to; itself without one."""
    least = (task.item << INDEX_BITS) + np.arange(task.made("places", task.item)["documents"])
    for rows in task.blocks(after, "links"):
        _least(rows, least, INDEX)
    return least


def join(task: Task, after: str) -> None:
    """Small star, over the edges that a step left. Counts the rows that it changed as `changed`."""
    ranges = task.plan.ranges
    links, children = task.table("links", WIDTH, ranges), task.table("children", WIDTH, ranges)

    def write(edges: Ints) -> None:
        write_edges(links, edges)
        children.add(edges[:, 1] >> INDEX_BITS, edges)

    least = linked(task, after)
    places = (task.item << INDEX_BITS) + np.arange(len(least))
    task.counts["changed"] = 0
    for rows in task.blocks(after, "links"):
        first = least[rows[:, 0] & INDEX]
        others = np.flatnonzero(rows[:, 1] != first)
        task.counts["changed"] += len(others)
        write(_each_once(np.stack((rows[others, 1], first[others]), axis=1)))
    later = np.flatnonzero(least != places)
    write(np.stack((places[later], least[later]), axis=1))
    task.counts["linked"] = len(later)


def spread(task: Task, after: str) -> None:
    """Large star, over the edges that `join` left as the step of this name. Counts the rows that it changed."""
    links = task.table("links", WIDTH, task.plan.ranges)
    least = linked(task, after)
    task.counts["changed"] = 0
    for rows in task.blocks(after, "children"):
        first = least[rows[:, 1] & INDEX]
        task.counts["changed"] += int(np.sum(first != rows[:, 1]))
        write_edges(links, _each_once(np.stack((rows[:, 0], first), axis=1)))


def _each_once(edges: Ints) -> Ints:
    """The edges in order, each once."""
    if not len(edges):
        return edges
    edges = edges[np.lexsort((edges[:, 1], edges[:, 0]))]
    return edges[np.concatenate(([True], np.any(edges[1:] != edges[:-1], axis=1)))]
