"""Verified pairs come out as sorting all of them would have it, from memory and from files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from datalake.dedup.runs import Runs
from datalake.dedup.texts.pairs import BYTES_PER_PAIR, Pairs


@pytest.mark.parametrize("skewed", [False, True])
@pytest.mark.parametrize("room", [1 << 10, 1 << 20])
def test_pairs_are_sorted_by_id_and_those_of_texts_come_first(tmp_path: Path, room: int, skewed: bool) -> None:
    random = np.random.default_rng(room)
    documents, count = 3000, 20_000
    by_id = random.permutation(documents).astype(np.int32)
    chosen = random.choice(documents * documents, count, replace=False)
    if skewed:  # most pairs are those of three documents
        heads = random.choice(documents, 3, replace=False)[:, None] * documents + np.arange(documents)
        chosen = np.unique(np.concatenate((heads.ravel(), chosen)))
        random.shuffle(chosen)
    first, second, similarity = chosen // documents, chosen % documents, random.random(len(chosen))
    of_meaning = chosen[:500]
    with Pairs(by_id, room * BYTES_PER_PAIR, tmp_path) as pairs:
        for some in np.array_split(np.arange(len(chosen)), 37):
            pairs.add(first[some], second[some], similarity[some])
        pairs.add(of_meaning // documents, of_meaning % documents, np.full(500, 0.5), meaning=True)
    assert list(tmp_path.iterdir()) == []
    assert (pairs.spilled > 0) == (room < count)
    assert pairs.total == len(chosen) + 500

    number = {int(rank): k for k, rank in enumerate(by_id)}
    expected = [*zip(first.tolist(), second.tolist(), [False] * len(chosen), similarity.tolist(), strict=True)]
    expected += [(a, b, True, 0.5) for a, b in zip(first[:500].tolist(), second[:500].tolist(), strict=True)]
    expected.sort(key=lambda row: (number[row[0]], number[row[1]], row[2]))
    for rows in (999, 1 << 20):  # as often as one likes
        found, sizes = [], []
        for part in pairs.in_order(rows):
            columns = (part.first, part.second, part.meaning, part.similarity)
            found += zip(*(column.tolist() for column in columns), strict=True)
            sizes.append(len(part.first))
        assert found == expected
        assert set(sizes[:-1]) <= {rows}


def test_no_pairs_are_no_rows(tmp_path: Path) -> None:
    none = np.empty(0, np.int32)
    with Pairs(none, 0, tmp_path) as pairs:
        pairs.add(none, none, np.empty(0))
    assert list(pairs.in_order(10)) == []
    assert pairs.total == 0


@pytest.mark.parametrize("values", [5, 1000, 1 << 60])
def test_runs_are_merged_a_few_rows_at_a_time_however_they_lie(tmp_path: Path, values: int) -> None:
    random = np.random.default_rng(values)
    runs, every = Runs(tmp_path, "some", 2, by=1), []
    assert list(runs.in_order(10)) == []
    for size in (1, 300, 40, 0, 700):
        low = int(random.integers(values))  # runs lie apart, and one value may fill a run
        every.append(
            np.stack((random.integers(low, max(low + 1, values), size), random.integers(9, size=size)), axis=1)
        )
        runs.add(every[-1])
    parts = list(runs.in_order(40))
    assert max(map(len, parts)) <= 40
    whole = np.concatenate(parts)
    assert np.array_equal(whole[:, 0], np.sort(np.concatenate(every)[:, 0]))
    assert sorted(whole.tolist()) == sorted(np.concatenate(every).tolist())
