"""Boosted trees as flat arrays: prediction in a compiled loop, without the library that trained them.

A forest is kept in an `.npz` file beside others. Features are 32-bit floats and so are thresholds, rounded down where
they aren't: a feature is at most a threshold exactly when it is at most the largest 32-bit float not above it.

No tree is walked (QuickScorer, Lucchese et al. 2015): a split whose condition fails rules out the leaves on its left,
and a row's leaf is the first that no split of its tree rules out. Each split is looked at for `_ROWS` rows at a time,
without a branch, which is several times as fast as to follow each row's path.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from datalake.compiled import kernel

Array = npt.NDArray[Any]

MAX_LEAVES = 64  # of a tree: one bit each
_ROWS = 64
# The place of a number's lowest bit by the six highest bits of that bit times a de Bruijn number.
_DE_BRUIJN = 0x03F79D71B4CB0A89
_PLACES = np.zeros(64, np.int64)
_PLACES[[(_DE_BRUIJN << k) % (1 << 64) >> 58 for k in range(64)]] = range(64)


class Forest(NamedTuple):
    """Trees of splits `feature <= threshold` (then left, else right) and of leaves with values that are summed up.

    - `roots`, shape (trees,); `feature`, `threshold`, `left`, `right`, shape (splits,); `value`, shape (leaves,).
    - A number below zero in `roots`, `left` or `right` is the leaf of that number's complement, ~number.
    """

    roots: Array
    feature: Array
    threshold: Array
    left: Array
    right: Array
    value: Array


def load(arrays: Mapping[str, Array], name: str) -> Forest:
    """The forest of this name among an `.npz` file's arrays. Raises KeyError where it isn't there."""
    return Forest(*(np.ascontiguousarray(arrays[f"{name}_{field}"]) for field in Forest._fields))


def named(forest: Forest, name: str) -> dict[str, Array]:
    """The forest's arrays as an `.npz` file keeps them under this name."""
    return {f"{name}_{field}": getattr(forest, field) for field in Forest._fields}


def from_lightgbm(model: Mapping[str, Any]) -> Forest:
    """The forest of a LightGBM booster's `dump_model()`. Raises ValueError for splits by category."""
    feature: list[int] = []
    threshold: list[float] = []
    left: list[int] = []
    right: list[int] = []
    value: list[float] = []

    def add(node: Mapping[str, Any]) -> int:
        if "leaf_value" in node:
            value.append(node["leaf_value"])
            return ~(len(value) - 1)
        if node["decision_type"] != "<=":
            raise ValueError(f"a split by {node['decision_type']!r}: train without categories")
        place = len(feature)
        feature.append(node["split_feature"])
        threshold.append(node["threshold"])
        left.append(0)
        right.append(0)
        left[place], right[place] = add(node["left_child"]), add(node["right_child"])
        return place

    roots = [add(tree["tree_structure"]) for tree in model["tree_info"]]
    exact = np.array(threshold, np.float64)
    rounded = exact.astype(np.float32)
    above = rounded > exact
    rounded[above] = np.nextafter(rounded[above], np.float32(-np.inf))
    return Forest(
        np.array(roots, np.int32),
        np.array(feature, np.int32),
        rounded,
        np.array(left, np.int32),
        np.array(right, np.int32),
        np.array(value, np.float32),
    )


class Scorer(NamedTuple):
    """A forest made ready to score rows.

    - `splits`, shape (trees + 1,): where each tree's splits begin; `feature`, `threshold`, shape (splits,), and `left`,
      the leaves that are left where a split's condition fails, a bit each, from the left.
    - `leaves`, shape (trees,): where each tree's leaves begin among the values, from the left; `value`: of leaves.
    """

    splits: Array
    feature: Array
    threshold: Array
    left: Array
    leaves: Array
    value: Array


def scorer(forest: Forest) -> Scorer:
    """The forest made ready. Raises ValueError for a tree of more than MAX_LEAVES leaves, or one that is no tree."""
    splits, leaves = [0], []
    order: list[int] = []
    left: list[int] = []
    values: list[float] = []
    for root in forest.roots.tolist():
        begin = len(values)
        leaves.append(begin)
        waiting = [(root, -1)]
        while waiting:
            node, above = waiting.pop()
            if above >= 0:  # what hangs on the left of this split is done
                left[above] = ((1 << MAX_LEAVES) - 1) & ~((1 << len(values) - begin) - (1 << left[above]))
            if node < 0:
                values.append(forest.value[~node])
                continue
            if len(order) == len(forest.feature):
                raise ValueError("its splits are no trees")
            waiting += [(int(forest.right[node]), len(order)), (int(forest.left[node]), -1)]
            order.append(node)
            left.append(len(values) - begin)
        if len(values) - begin > MAX_LEAVES:
            raise ValueError(f"a tree has {len(values) - begin} leaves: train with at most {MAX_LEAVES}")
        splits.append(len(order))
    return Scorer(
        np.array(splits, np.int64),
        forest.feature[order].astype(np.int64),
        forest.threshold[order].astype(np.float32),
        np.array(left, np.uint64),
        np.array(leaves, np.int64),
        np.array(values, np.float32),
    )


def predict(forest: Scorer, features: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
    """The probability of each row, shape (rows,): the logistic function of the sum over trees."""
    return 1.0 / (1.0 + np.exp(-_sums(features, *forest)))


@kernel
def _sums(
    features: Array, splits: Array, feature: Array, threshold: Array, left: Array, leaves: Array, value: Array
) -> npt.NDArray[np.float64]:
    count, width = features.shape
    out = np.zeros(count, np.float64)
    columns, bits = np.zeros((width, _ROWS), np.float32), np.empty(_ROWS, np.uint64)
    every = ~np.uint64(0)
    for begin in range(0, count, _ROWS):
        rows = min(_ROWS, count - begin)
        for row in range(rows):
            for k in range(width):
                columns[k, row] = features[begin + row, k]
        for tree in range(len(leaves)):  # in this order, so that sums are rounded as ever
            bits[:] = every
            for split in range(splits[tree], splits[tree + 1]):
                column, bound, rest = columns[feature[split]], threshold[split], left[split]
                for row in range(_ROWS):
                    bits[row] &= every if column[row] <= bound else rest
            for row in range(rows):
                lowest = bits[row] & (~bits[row] + np.uint64(1))
                place = _PLACES[np.int64(lowest * np.uint64(_DE_BRUIJN) >> np.uint64(58))]
                out[begin + row] += value[leaves[tree] + place]
    return out
