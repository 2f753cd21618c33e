"""Clusters of unit vectors, and near which borders between them each vector lies.

Spherical k-means (Dhillon, Modha, "Concept decompositions for large sparse text data", 2001) on a sample: a vector
belongs to the centre with which its product is greatest, so the border between two clusters is the plane through the
origin at right angles to the difference of their centres. Of two vectors at an angle of at most theta on both sides of
a border, one at least is within theta / 2 of it: only there must a vector be compared across, and with as many probes
as it has such borders nothing is missed.

Arithmetic is exact, hence the same for any number of threads and on any processor: vectors are of length `SCALE` and
rounded to whole numbers, whose products float32 adds up without rounding in any order, since |a . b| <= |a||b| < 2^24
holds for any part of the sum as well.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float32]
Points = Callable[[Ints], Floats]  # some of the vectors as whole numbers, shape (vectors, dimension)

SCALE = 4000.0  # with what rounding adds below 2^12, up to a dimension of 36,000
ALL_WITH_ALL = 4096  # up to so many vectors are one cluster unless another number is asked for
_SAMPLE = 40  # vectors for each cluster that the centres are learnt from
_STEPS = 10
_SCORES = 1 << 23  # products at once


class Clusters(NamedTuple):
    """Each vector's cluster, and the others it is compared with: (`visitor[k]`, `visited[k]`)."""

    own: Ints
    visitor: Ints
    visited: Ints
    total: int
    cut_short: int  # vectors near more borders than were probed


def rounding(dimension: int) -> float:
    """The most that rounding, from float32, moves a vector of length `SCALE`."""
    return 0.501 * math.sqrt(dimension)


def least_product(cosine: float, dimension: int) -> float:
    """No two rounded vectors whose cosine was at least this have a smaller product."""
    return SCALE**2 * cosine - 2 * SCALE * rounding(dimension) - rounding(dimension) ** 2


def cluster(points: Points, count: int, clusters: int | None, probes: int, cosine: float, seed: int) -> Clusters:
    """Clusters of `count` vectors for comparing those whose cosine is at least the one given.

    `clusters`: how many, by default about the square root of `count`; never more than `count`.
    """
    if clusters is None:
        clusters = 1 if count <= ALL_WITH_ALL else round(math.sqrt(count))
    clusters = min(clusters, count)
    if clusters <= 1:
        none = np.empty(0, np.int64)
        return Clusters(np.zeros(count, np.int64), none, none, clusters, 0)
    centres = _centres(points, count, clusters, seed)
    dimension = centres.shape[1]
    products = (centres @ centres.T).astype(np.float64)
    squares = np.diagonal(products)
    between = np.sqrt(squares[:, None] + squares[None, :] - 2 * products).astype(np.float32)
    between[between == 0] = np.nan  # a centre itself, or its twin, which nothing belongs to
    longest = SCALE + rounding(dimension)
    # sin(theta / 2) from cos(theta), in the units of the products over the distance of two centres
    near = longest * math.sqrt((1 - min(max(least_product(cosine, dimension) / longest**2, -1.0), 1.0)) / 2)

    own = np.empty(count, np.int64)
    visitors, visited, cut_short = [np.empty(0, np.int64)], [np.empty(0, np.int64)], 0
    step = max(1, _SCORES // clusters)
    for start in range(0, count, step):
        rows = np.arange(start, min(start + step, count))
        scores = points(rows) @ centres.T
        own[rows] = here = scores.argmax(1)
        away = (np.take_along_axis(scores, here[:, None], 1) - scores) / between[here]
        row, other = np.nonzero(away <= near * (1 + 1e-6))
        order = np.lexsort((other, away[row, other], row))
        row, other = row[order], other[order]
        nth = np.arange(len(row)) - np.searchsorted(row, row)
        cut_short += int(np.sum(nth == probes))
        visitors.append(rows[row[nth < probes]])
        visited.append(other[nth < probes])
    return Clusters(own, np.concatenate(visitors), np.concatenate(visited), clusters, cut_short)


def _centres(points: Points, count: int, clusters: int, seed: int) -> Floats:
    """Centres as whole numbers, shape (clusters, dimension), learnt from a sample drawn by the seed."""
    draw = np.random.Generator(np.random.PCG64(seed))
    chosen = draw.choice(count, min(count, _SAMPLE * clusters), replace=False)
    sample = points(np.sort(chosen))
    centres = points(chosen[:clusters])
    before = np.full(len(sample), -1)
    step = max(1, _SCORES // clusters)
    for _ in range(_STEPS):
        nearest = [(sample[k : k + step] @ centres.T).argmax(1) for k in range(0, len(sample), step)]
        own = np.concatenate(nearest)
        if np.array_equal(own, before):
            break
        before = own
        order = np.argsort(own, kind="stable")
        heads = np.flatnonzero(np.diff(own[order], prepend=-1))
        sums = np.add.reduceat(sample[order], heads, axis=0, dtype=np.float64)  # whole numbers: exact
        lengths = np.array([math.sqrt(math.fsum(row * row)) for row in sums])
        some = lengths > 0  # an empty cluster, or one that cancels out, keeps its centre
        centres[own[order[heads]][some]] = np.rint(sums[some] / lengths[some, None] * SCALE)
    return centres
