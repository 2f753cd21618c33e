"""Duplicates in meaning among the documents that the texts leave: those whose embeddings are close.

SemDeDup (Abbas et al. 2023, arXiv 2303.09540) compares documents within the clusters of k-means; here those near a
border are compared across it, too (clusters.py), and what SemDeDup decides cluster by cluster is decided once over all:

1. Two documents are compared where one of them belongs to a cluster that the other belongs to or probes.
2. In order of precedence a document is removed only when a document *already kept*, with which it was compared, is at
   or above the threshold: never through a chain. The most similar of them is named, the first among equals.
3. A document that stands for others, which repeat its text, goes only together with them: each of them must be at or
   above the threshold to that same kept document, and then names it. So whatever is removed has a kept document that
   its own text or its own meaning answers for, directly.

What step 2 decides doesn't depend on the order in which clusters are walked. Each round walks those with undecided
documents: a document goes once a kept one is close enough, waits while an undecided earlier one is, and stays when it
waits nowhere. Nothing is stored for a pair, so a million copies of one meaning take no more memory than as many
strangers; and a removed document is no longer compared with.

Matrix products in float32 say how close a pair is within `slack`; where that leaves something open, and for whatever is
stated, the cosine of the embeddings themselves, added up in their order in float64, decides. So neither the size of the
products nor the library that makes them changes a decision. Memory: the embeddings, in files beyond the budget, about
50 bytes for every document and 10 for every probe, 35 MB of products and some 8,000 embeddings in float32.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import xxhash

from datalake.compiled import kernel
from datalake.dedup.config import SemanticConfig
from datalake.dedup.meaning.clusters import SCALE, Clusters, cluster
from datalake.dedup.meaning.embed import EMBEDDED_WITH
from datalake.dedup.texts.signed import Shard, as_bytes, batches_of
from datalake.dedup.texts.spill import Spill
from datalake.errors import UserError
from datalake.identity import canonical
from datalake.lake.parquet import read_schema

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
Singles = npt.NDArray[np.float32]
Flags = npt.NDArray[np.bool_]
Halves = npt.NDArray[np.uint16]  # float16 as it lies in memory: numba has no such numbers
Hashes = npt.NDArray[np.uint64]

_BLOCK = 2048  # documents asked about at once
_ROWS = 256  # of them, where they are compared among themselves
_WIDTH = 4096  # documents they are compared with at once
_UNDECIDED, _KEPT, _REMOVED = 0, 1, 2
_NUMBERS = np.arange(1 << 16, dtype=np.uint16).view(np.float16).astype(np.float32)


class Meaning(NamedTuple):
    """For each document the kept one that is a duplicate of it in meaning (-1: none) and their cosine."""

    partner: Ints
    similarity: Floats
    report: dict[str, int]


class _Vectors(NamedTuple):
    """Embeddings: of the documents compared, by their place, then of those that they stand for."""

    halves: Halves  # (vectors, dimension)
    squares: Floats  # (vectors,): of their lengths; 0 where there is no embedding


class _Families(NamedTuple):
    """Document k stands for those with the vectors `members[starts[k]:starts[k + 1]]`; held: it can't be removed."""

    starts: Ints
    members: Ints
    held: Flags


def settle_meaning(files: Sequence[Shard], ids: Hashes, target: Ints, config: SemanticConfig, spill: Spill) -> Meaning:
    """Decides over shards of embeddings (Parquet files or tables of schema EMBEDDINGS), in any order.

    `ids`, shape (documents, 2), are in order of precedence; `target` is for each document the one that stands for it by
    the texts, itself where kept, -1 where it has no part in this.

    Raises:
        ValueError: where shards were embedded with other settings or have other dimensions.
        UserError: where an embedding has numbers that are not finite.
    """
    for file in files:
        _check(file, config)
    documents = len(ids)
    everyone = np.arange(documents)
    firsts = np.flatnonzero(target == everyone)
    others = np.flatnonzero((target >= 0) & (target != everyone))
    place = np.full(documents, -1)
    place[firsts] = np.arange(len(firsts))
    place[others] = len(firsts) + np.arange(len(others))
    vectors = _read(files, ids, place, len(firsts) + len(others), spill)
    families = _families(vectors, len(firsts), place[target[others]])
    usable = np.flatnonzero(vectors.squares[: len(firsts)] > 0)

    def points(rows: Ints) -> Singles:
        return _rounded(vectors, usable[rows])

    found = cluster(points, len(usable), config.clusters, config.probes, config.threshold, config.seed)
    walk = _Walk(vectors, families, _cells(found, usable), config.threshold, spill)
    walk.decide(usable)
    walk.name()

    partner, similarity = np.full(documents, -1), np.ones(documents)
    gone = np.flatnonzero(walk.partner >= 0)
    partner[firsts[gone]] = firsts[walk.partner[gone]]
    similarity[firsts[gone]] = walk.similarity[gone]
    named = walk.partner[place[target[others]]] if len(others) else np.empty(0, np.int64)
    along = np.flatnonzero(named >= 0)
    partner[others[along]] = firsts[named[along]]
    similarity[others[along]] = _cosines(*vectors, _NUMBERS, named[along], len(firsts) + along)
    report = {
        "semantic": len(gone) + len(along),
        "semantic_copies": len(along),  # of these those that went along
        "not_embedded": len(firsts) - len(usable),
        "clusters": found.total,
        "probes_cut_short": found.cut_short,
    }
    return Meaning(partner, similarity, report)


def _check(file: Shard, config: SemanticConfig) -> None:
    schema = file.schema if isinstance(file, pa.Table) else read_schema(file)
    made = (schema.metadata or {}).get(EMBEDDED_WITH)
    if made is not None and made != canonical(config.embedding):
        asked = canonical(config.embedding).decode()
        raise ValueError(f"a shard was embedded with {made.decode()}, this recipe asks for {asked}: embed it again")


def _read(files: Sequence[Shard], ids: Hashes, place: Ints, count: int, spill: Spill) -> _Vectors:
    """The embeddings of documents with a place, there."""
    columns = [batch.column("id") for batch in batches_of(files, ["id"])]
    found = pc.index_in(pa.chunked_array(columns, pa.binary(16)), value_set=as_bytes(ids))
    ranks = found.fill_null(-1).to_numpy().astype(np.int64)
    halves: Halves = np.zeros((count, 1), np.uint16)
    there = np.zeros(count, np.bool_)
    at = 0
    for batch in batches_of(files, ["embedding"]):
        column = batch.column("embedding")
        here = ranks[at : at + len(column)]
        at += len(column)
        wanted = np.where(here >= 0, place[here], -1)
        rows = np.flatnonzero((wanted >= 0) & column.is_valid().to_numpy(zero_copy_only=False))
        if not len(rows):
            continue
        sizes = set(pc.binary_length(column.take(pa.array(rows))).to_pylist())
        if not there.any():
            halves = spill.empty((count, max(sizes) // 2), np.uint16)
        if sizes != {2 * halves.shape[1]}:
            raise ValueError("embeddings have different dimensions: embed all shards again with this recipe")
        flat = b"".join(column[k].as_buffer() for k in rows.tolist())
        halves[wanted[rows]] = np.frombuffer(flat, "<u2").reshape(len(rows), -1)
        there[wanted[rows]] = True
        spill.release()
    halves[~there] = 0
    squares = _squares(halves, _NUMBERS)
    damaged = np.flatnonzero(~np.isfinite(squares))
    if len(damaged):
        id = as_bytes(ids[np.flatnonzero(place == damaged[0])])[0].as_py().hex()
        raise UserError(
            f"the embedding of document {id} has numbers that are none (NaN or infinite):"
            " name another model in `deduplicate.semantic`"
        )
    return _Vectors(halves, squares)


def _families(vectors: _Vectors, firsts: int, of: Ints) -> _Families:
    """The different vectors of those that each document stands for; `of[k]` is the document of vector firsts + k."""
    held = np.zeros(firsts, np.bool_)
    held[of[vectors.squares[firsts:] == 0]] = True
    hashes = np.fromiter(
        (xxhash.xxh3_64_intdigest(vectors.halves[firsts + k].tobytes()) for k in range(len(of))), np.uint64, len(of)
    )
    order = np.lexsort((hashes, of))
    members, of = firsts + order, of[order]
    fresh = np.ones(len(of), np.bool_)
    fresh[1:] = (of[1:] != of[:-1]) | ~_equal(vectors.halves, members[1:], members[:-1])
    fresh &= ~_equal(vectors.halves, members, of)  # what holds for the document holds for them
    return _Families(np.searchsorted(of[fresh], np.arange(firsts + 1)), members[fresh], held)


def slack(dimension: int) -> float:
    """How far a product of unit vectors in float32 may be from their cosine as `_cosine` says it, at most.

    With u = 2^-24, sums of n products in any order are within n u |a||b| of the exact one to first order (Higham,
    "Accuracy and Stability of Numerical Algorithms", 2002, section 3.1), and dividing by lengths adds 4 u: twice that.
    """
    return (dimension + 8) * 2.0**-23


def _rounded(vectors: _Vectors, rows: Ints) -> Singles:
    """Some vectors at the length `SCALE`, as whole numbers."""
    scaled: Singles = _scaled(vectors.halves, vectors.squares, _NUMBERS, rows, SCALE)
    return np.rint(scaled, out=scaled)


def _units(vectors: _Vectors, rows: Ints) -> Singles:
    """Some vectors at the length 1."""
    scaled: Singles = _scaled(vectors.halves, vectors.squares, _NUMBERS, rows, 1.0)
    return scaled


class _Cells(NamedTuple):
    """Cluster k is walked by `documents[starts[k]:starts[k + 1]]`, ascending; those not at home only probe it."""

    documents: Ints
    at_home: Flags
    starts: Ints
    alone: Flags  # for each document: it is in no other cluster


def _cells(found: Clusters, usable: Ints) -> _Cells:
    documents = np.concatenate((np.arange(len(usable)), found.visitor))
    cells = np.concatenate((found.own, found.visited))
    at_home = np.arange(len(documents)) < len(usable)
    order = np.lexsort((documents, cells))
    starts = np.searchsorted(cells[order], np.arange(found.total + 1))
    alone = np.ones(int(usable[-1]) + 1 if len(usable) else 0, np.bool_)
    alone[usable[found.visitor]] = False
    return _Cells(usable[documents[order]], at_home[order], starts, alone)


class _Side(NamedTuple):
    """Documents of one cell, ascending, on one side of a comparison."""

    documents: Ints
    at_home: Flags

    def those(self, chosen: Flags | Ints | slice) -> _Side:
        return _Side(self.documents[chosen], self.at_home[chosen])


class _Walk:
    """Walks over the cells until every document is decided, then to name what answers for each removed one."""

    def __init__(self, vectors: _Vectors, families: _Families, cells: _Cells, threshold: float, spill: Spill):
        self.vectors, self.families, self.cells, self.spill = vectors, families, cells, spill
        self.threshold, self.slack = threshold, slack(vectors.halves.shape[1])
        count = len(families.held)
        self.state = np.full(count, _KEPT, np.int8)
        self.waits = np.zeros(count, np.bool_)
        self.partner, self.similarity = np.full(count, -1), np.zeros(count)

    def decide(self, documents: Ints) -> None:
        """Which of the documents stay; others stay anyway."""
        self.state[documents] = np.where(self.families.held[documents], _KEPT, _UNDECIDED)
        while True:
            open_places = np.flatnonzero(self.state[self.cells.documents] == _UNDECIDED)
            if not len(open_places):
                return
            self.waits[:] = False
            for cell in np.unique(np.searchsorted(self.cells.starts, open_places, side="right") - 1).tolist():
                self._decide_in(self._cell(cell))
                self.spill.release()
            self.state[(self.state == _UNDECIDED) & ~self.waits] = _KEPT

    def name(self) -> None:
        """For each removed document its most similar kept one."""
        for cell in range(len(self.cells.starts) - 1):
            here = self._cell(cell)
            gone = np.flatnonzero(self.state[here.documents] == _REMOVED)
            for start in range(0, len(gone), _BLOCK):
                block = gone[start : start + _BLOCK]
                stays = np.flatnonzero(self.state[here.documents[: block[-1]]] == _KEPT)
                queries = here.those(block)
                self._compare_all(queries, _units(self.vectors, queries.documents), here.those(stays), _REMOVED)
            self.spill.release()

    def _cell(self, cell: int) -> _Side:
        here = slice(self.cells.starts[cell], self.cells.starts[cell + 1])
        return _Side(self.cells.documents[here], self.cells.at_home[here])

    def _decide_in(self, here: _Side) -> None:
        asked = np.flatnonzero(self.state[here.documents] == _UNDECIDED)
        for start in range(0, len(asked), _BLOCK):
            block = asked[start : start + _BLOCK]
            state = self.state[here.documents[: block[-1]]]
            stays, before = np.flatnonzero(state == _KEPT), np.flatnonzero(state[: block[0]] == _UNDECIDED)
            queries = here.those(block)
            units = _units(self.vectors, queries.documents)
            self._compare_all(queries, units, here.those(stays), _UNDECIDED)
            self._compare_all(queries, units, here.those(before), _UNDECIDED, waiting=False)
            # Those of the block among themselves, in order: whoever is in no other cell is decided here.
            left = np.flatnonzero(self.state[queries.documents] == _UNDECIDED)
            queries, units = queries.those(left), units[left]
            for first in range(0, len(left), _ROWS):
                some = slice(first, first + _ROWS)
                live = np.flatnonzero(self.state[queries.documents[: some.stop]] != _REMOVED)
                self._compare(units[some] @ units[live].T, queries.those(some), queries.those(live), True)

    def _compare_all(self, queries: _Side, units: Singles, columns: _Side, state: int, waiting: bool = True) -> None:
        """Compares pairs of which one at least is at home, as long as the queries are in this state."""
        for home in (True, False):
            some = columns.those(columns.at_home == home)
            for start in range(0, len(some.documents), _WIDTH):
                asked = self.state[queries.documents] == state
                if not home:
                    asked &= queries.at_home
                if not waiting:
                    asked &= ~self.waits[queries.documents]
                if not asked.any():
                    break
                part = some.those(slice(start, start + _WIDTH))
                scores = units[asked] @ _units(self.vectors, part.documents).T
                self._compare(scores, queries.those(asked), part, False)

    def _compare(self, scores: Singles, queries: _Side, columns: _Side, last: bool) -> None:
        _compare(
            scores,
            self.slack,
            *queries,
            *columns,
            last,
            self.cells.alone,
            self.state,
            self.waits,
            self.partner,
            self.similarity,
            *self.vectors,
            _NUMBERS,
            self.families.starts,
            self.families.members,
            self.threshold,
        )


@kernel
def _cosine(halves: Any, squares: Any, numbers: Any, a: Any, b: Any) -> float:
    total = 0.0
    for k in range(halves.shape[1]):
        total += np.float64(numbers[halves[a, k]] * numbers[halves[b, k]])  # exact: 11 bits times 11
    return min(total / np.sqrt(squares[a] * squares[b]), 1.0)


@kernel
def _cosines(halves: Any, squares: Any, numbers: Any, a: Any, b: Any) -> Any:
    out = np.empty(len(a), np.float64)
    for k in range(len(a)):
        out[k] = _cosine(halves, squares, numbers, a[k], b[k])
    return out


@kernel
def _scaled(halves: Any, squares: Any, numbers: Any, rows: Any, length: float) -> Any:
    out = np.empty((len(rows), halves.shape[1]), np.float32)
    for k in range(len(rows)):
        scale = np.float32(length) / np.float32(np.sqrt(squares[rows[k]]))
        for column in range(halves.shape[1]):
            out[k, column] = numbers[halves[rows[k], column]] * scale
    return out


@kernel
def _squares(halves: Any, numbers: Any) -> Any:
    out = np.zeros(len(halves), np.float64)
    for row in range(len(halves)):
        for k in range(halves.shape[1]):
            out[row] += np.float64(numbers[halves[row, k]]) ** 2
    return out


@kernel
def _equal(halves: Any, a: Any, b: Any) -> Any:
    out = np.ones(len(a), np.bool_)
    for row in range(len(a)):
        for k in range(halves.shape[1]):
            if halves[a[row], k] != halves[b[row], k]:
                out[row] = False
                break
    return out


@kernel
def _along(
    halves: Any, squares: Any, numbers: Any, starts: Any, members: Any, threshold: float, kept: Any, gone: Any
) -> bool:
    """Whether those that a document stands for are all as close to the kept one as it must be."""
    for k in range(starts[gone], starts[gone + 1]):
        if _cosine(halves, squares, numbers, kept, members[k]) < threshold:
            return False
    return True


@kernel
def _compare(
    scores: Any,
    slack: float,
    queries: Any,
    home: Any,
    columns: Any,
    home_of: Any,
    last: bool,
    alone: Any,
    state: Any,
    waits: Any,
    partner: Any,
    similarity: Any,
    halves: Any,
    squares: Any,
    numbers: Any,
    starts: Any,
    members: Any,
    threshold: float,
) -> None:
    # An undecided query goes with the first kept column that answers for it; one that has gone is given the most
    # similar. `last`: nothing more of this cluster comes for these queries.
    for i in range(len(queries)):
        d = queries[i]
        gone = state[d] == 2
        stop = np.searchsorted(columns, d)
        least = threshold - slack
        if gone:
            least = max(threshold, similarity[d]) - slack
            if starts[d] == starts[d + 1]:  # else the most similar need not answer for those it stands for
                for j in range(stop):
                    least = max(least, scores[i, j] - 2 * slack)
        for j in range(stop):
            if scores[i, j] < least:
                continue
            e = columns[j]
            if state[e] == 2 or not (home[i] or home_of[j]) or (state[e] == 0 and waits[d]):
                continue
            if gone or scores[i, j] < threshold + slack:
                cosine = _cosine(halves, squares, numbers, e, d)
                if cosine < threshold:
                    continue
                if gone and (cosine < similarity[d] or (cosine == similarity[d] and e > partner[d])):
                    continue
            if not _along(halves, squares, numbers, starts, members, threshold, e, d):
                continue
            if gone:
                partner[d], similarity[d] = e, cosine
                least = max(least, cosine - slack)
            elif state[e] == 1:
                state[d] = 2
                break
            else:
                waits[d] = True
        if last and state[d] == 0 and not waits[d] and alone[d]:
            state[d] = 1
