"""Batches made ahead are those made when they are asked for, and they are made ahead."""

from __future__ import annotations

import threading
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from test_spikes import CONFIG, world_of

from datalake.files import folder_version
from models.methods.pretrain import pretrain
from models.training import method
from models.training.loop import Batches
from models.training.prefetch import prefetched


@dataclass
class Rows:
    tokens: torch.Tensor
    name: str = "rows"


def batches(step: int) -> list[list[Rows]]:
    """Two updates of a micro-batch each."""
    return [[Rows(torch.full((2, 3), 10 * step + update))] for update in range(2)]


def values(updates: list[list[Rows]]) -> list[list[list[int]]]:
    return [[batch.tokens.flatten().tolist() for batch in update] for update in updates]


def test_they_are_the_same_from_any_step_on_and_after_a_jump() -> None:
    with prefetched(batches, 8, pin=False) as ahead:
        for step in (3, 4, 5, 2, 7):
            assert values(ahead(step)) == values(batches(step))


def test_the_next_step_is_made_before_it_is_asked_for_and_none_after_the_last() -> None:
    made: list[int] = []
    there = threading.Event()

    def told(step: int) -> list[list[Rows]]:
        made.append(step)
        if step == 1:
            there.set()
        return batches(step)

    with prefetched(told, 2, pin=False) as ahead:
        ahead(0)
        assert there.wait(60)
        ahead(1)
    assert made == [0, 1]
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("batches")]


def test_an_error_comes_with_its_own_step() -> None:
    def fails(step: int) -> list[list[Rows]]:
        if step == 1:
            raise ValueError("row 7")
        return batches(step)

    with prefetched(fails, 3, pin=False) as ahead:
        assert len(ahead(0)) == 2
        with pytest.raises(ValueError, match="row 7"):
            ahead(1)
        assert values(ahead(2)) == values(batches(2))


def test_training_from_batches_made_ahead_gives_the_same_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The driver's own use of it, which a GPU alone turns on."""
    config = CONFIG.model_copy(update={"steps": 6})
    world = world_of(tmp_path, seed=5)
    pretrain(config, **world, out=tmp_path / "plain")
    asked: list[int] = []

    def unpinned(every: Batches) -> AbstractContextManager[Batches]:
        asked.append(1)
        return prefetched(every, 6, pin=False)

    monkeypatch.setattr(method, "nullcontext", unpinned)
    pretrain(config, **world, out=tmp_path / "ahead")
    assert asked == [1]
    assert folder_version(tmp_path / "plain" / "checkpoint") == folder_version(tmp_path / "ahead" / "checkpoint")
