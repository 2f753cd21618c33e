"""Boosted trees as flat arrays: prediction in a compiled loop, without the library that trained them.

A forest is kept in an `.npz` file beside others. Features are 32-bit floats and so are thresholds, rounded down where
they aren't: a feature is at most a threshold exactly when it is at most the largest 32-bit float not above it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numba
import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]


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


def predict(forest: Forest, features: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
    """The probability of each row, shape (rows,): the logistic function of the sum over trees."""
    return 1.0 / (1.0 + np.exp(-_sums(features, *forest)))


@numba.njit(cache=True, nogil=True)
def _sums(
    features: Array, roots: Array, feature: Array, threshold: Array, left: Array, right: Array, value: Array
) -> npt.NDArray[np.float64]:
    out = np.zeros(len(features), np.float64)
    for root in roots:  # a tree at a time, so that its splits stay in the cache
        for row in range(len(features)):
            node = root
            while node >= 0:
                node = left[node] if features[row, feature[node]] <= threshold[node] else right[node]
            out[row] += value[~node]
    return out
