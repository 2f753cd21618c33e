"""Spikes: what made a loss jump is named, what lasts is undone, a kill changes nothing, clean runs raise no alarm."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from toys import assert_told_alike, shard, stories, words

from models.methods.pretrain import PretrainConfig, pretrain
from models.text.sampler import Sampler
from models.training.method import _train
from models.training.metrics import read_metrics
from models.training.spikes import SpikeGuard, Window, _usual

STEPS, FIRST, BACK = 45, 31, 6
CONFIG = PretrainConfig(
    layers=1, width=32, heads=2, kv_heads=1, context=32, batch=8, learning_rate=1e-2, steps=STEPS, eval_every=0,
    checkpoint_every=7, spike_window=BACK,
)  # fmt: skip
POISON = b"poison".rjust(16)


def world_of(folder: Path, seed: int = 0, poison: str | None = None) -> dict[str, Any]:
    """Stories, one of which may be poison, as inputs of pretraining."""
    tokenizer = words(folder / "tokenizer")
    documents = stories(300, seed)
    if poison is not None:
        documents.append((POISON, poison))
    train = [(document, 1) for document, _ in documents]
    place = shard(folder / "shards", documents, tokenizer)
    return {"shards": [place], "train": train, "heldout": [], "tokenizer": folder / "tokenizer"}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return world_of(tmp_path_factory.mktemp("world"))


def trained(
    world: dict[str, Any], out: Path, garbled: Sequence[int] = range(FIRST, FIRST + 3), **more: Any
) -> dict[str, Any]:
    """A run whose steps 31 to 33 see what no model expects."""
    plain = Sampler.batch

    def batch(self: Sampler, step: int) -> Any:
        found = plain(self, step)
        if step + 1 in garbled:
            chance = torch.Generator().manual_seed(step)
            other = torch.randint(0, 300, found.targets.shape, generator=chance)
            found.targets = torch.where(found.targets >= 0, other, found.targets)
        return found

    settings = {name: more.pop(name) for name in ("checkpoint_every",) if name in more}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Sampler, "batch", batch)
        return pretrain(CONFIG.model_copy(update=settings), **world, out=out, **more)


@pytest.fixture(scope="module")
def whole(world: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    out = tmp_path_factory.mktemp("whole")
    return out, trained(world, out)


def weights(out: Path) -> bytes:
    return (out / "checkpoint" / "model.safetensors").read_bytes()


class CutError(Exception):
    pass


def cut_at(step: int, calls: int = 1):
    """Ends a run where a step is done the so-manieth time."""
    seen = [0]

    def cut(row: dict[str, Any]) -> None:
        seen[0] += row["step"] == step
        if seen[0] == calls:
            raise CutError

    return cut


def test_a_spike_that_lasts_is_undone_with_the_steps_before_it(world, whole, tmp_path: Path) -> None:
    out, report = whole
    first, last = FIRST - BACK, FIRST + 2
    assert report["left_out_steps"] == [[first, last]]
    assert report["skipped"] == last - first + 1
    rows = {row["step"]: row for row in read_metrics(out / "metrics.jsonl")}
    assert list(rows) == list(range(1, STEPS + 1))
    assert [step for step, row in rows.items() if row["skipped"]] == list(range(first, last + 1))
    assert not any("loss" in rows[step] for step in range(first, last + 1))
    # what a run does that was told beforehand to leave these steps out
    known = [Window(first, last, FIRST, 0.0, 0.0, 0.0)]
    _train(pretrain, CONFIG, tmp_path, world, None, None, None, None, windows=known)
    assert weights(tmp_path) == weights(out)
    # all documents of the steps, each by its own loss
    blamed = report["spikes"]
    assert {spike for spike, *_ in blamed} == {FIRST}
    assert [rank for *_, rank in blamed] == list(range(1, len(blamed) + 1))
    sampler = pretrain.data(CONFIG, **{k: v for k, v in world.items() if k != "tokenizer"}).sampler
    there = {document.hex() for step in range(first - 1, last) for document, _, _ in sampler.documents(step)}
    assert {who for _, _, who, *_ in blamed} == there
    mean = sum(targets * loss for *_, targets, loss, _ in blamed) / sum(targets for *_, targets, _, _ in blamed)
    told = [(targets * loss + 4 * mean) / (targets + 4) for *_, targets, loss, _ in blamed]
    assert all(better >= worse - 1e-9 for better, worse in pairwise(told))
    assert {step for _, step, *_ in blamed[:5]} <= set(range(FIRST, last + 1))


@pytest.mark.parametrize(("step", "calls"), [(32, 1), (23, 2), (26, 2), (40, 1)])
def test_a_kill_before_at_or_after_the_return_changes_nothing(world, whole, tmp_path: Path, step, calls) -> None:
    with pytest.raises(CutError):
        trained(world, tmp_path, on_step=cut_at(step, calls))
    report = trained(world, tmp_path)
    assert weights(tmp_path) == weights(whole[0])
    assert_told_alike(whole[1], report)


def test_states_of_what_was_undone_are_gone(world, tmp_path: Path) -> None:
    with pytest.raises(CutError):  # in the second pass
        trained(world, tmp_path, on_step=cut_at(26, 2), checkpoint_every=2)
    states = [int(path.name.removeprefix("step-")) for path in (tmp_path / "state").glob("step-*")]
    assert max(states) < FIRST - BACK


def test_a_step_that_two_returns_leave_out_counts_once(world, tmp_path: Path) -> None:
    report = trained(world, tmp_path, garbled=[*range(FIRST, FIRST + 3), *range(FIRST + 5, FIRST + 8)])
    assert report["left_out_steps"] == [[FIRST - BACK, FIRST + 2], [FIRST + 5 - BACK, FIRST + 7]]
    assert report["skipped"] == FIRST + 7 - (FIRST - BACK) + 1
    assert sum(row["skipped"] for row in read_metrics(tmp_path / "metrics.jsonl")) == report["skipped"]


@pytest.mark.parametrize("first", [1, STEPS - 2])
@pytest.mark.parametrize("what", ["loss", "norm"])
def test_what_is_no_number_in_the_first_or_last_steps_is_undone(
    world, tmp_path: Path, monkeypatch, first, what
) -> None:
    plain = SpikeGuard.accept

    def accept(self: SpikeGuard, run: Any, loss: float, norm: float) -> bool:
        if first <= run.state.step + 1 < first + 3:
            loss, norm = (math.nan, norm) if what == "loss" else (loss, math.inf)
        return plain(self, run, loss, norm)

    monkeypatch.setattr(SpikeGuard, "accept", accept)
    report = pretrain(CONFIG, **world, out=tmp_path)
    assert report["left_out_steps"] == [[max(first - BACK, 1), first + 2]]
    assert report["steps"] == STEPS
    assert all(math.isfinite(loss) for *_, loss, _ in report["spikes"])
    assert report["target_tokens"] > 0


def test_a_run_that_never_recovers_ends(world, tmp_path: Path) -> None:
    with pytest.raises(FloatingPointError, match="returns to good weights"):
        trained(world, tmp_path, garbled=range(FIRST, STEPS + 1))


def garbage(seed: int) -> str:
    """What a broken extractor leaves: characters without sense."""
    chance = random.Random(seed)
    return "".join(chr(chance.randint(33, 126)) for _ in range(chance.randint(100, 200)))


def found_first(folder: Path, seed: int) -> bool:
    """Whether a poisoned document is what a run names first in every spike that it finds."""
    world = world_of(folder, seed, garbage(seed))
    config = CONFIG.model_copy(update={"seed": seed, "batch": 4, "steps": 110})
    report = pretrain(config, **world, out=folder / "out")
    firsts = [who for _, _, who, _, _, rank in report.get("spikes", ()) if rank == 1]
    return bool(firsts) and set(firsts) == {POISON.hex()}


@pytest.mark.parametrize("seed", [0, 1])
def test_a_poisoned_document_is_named(tmp_path: Path, seed: int) -> None:
    assert found_first(tmp_path, seed)


@pytest.mark.slow
def test_nineteen_of_twenty_poisoned_documents_are_named(tmp_path: Path) -> None:
    assert sum(found_first(tmp_path / str(seed), seed) for seed in range(20)) >= 19


def test_what_is_usual_knows_a_trend() -> None:
    falling = [5.0 - 0.1 * step + 0.01 * (step % 2) for step in range(40)]
    level, deviation = _usual(falling)
    assert level == pytest.approx((falling[-8] + falling[-9]) / 2, abs=0.02)
    assert deviation < 0.02
    chance = random.Random(0)
    noisy = [3.0 + chance.gauss(0, 0.25) for _ in range(4000)]
    assert _usual(noisy)[1] == pytest.approx(0.25, rel=0.05)


def test_gradient_norms_are_judged_where_there_is_a_way_back() -> None:
    chance = random.Random(1)
    with_it, without = SpikeGuard(6.0, back=4), SpikeGuard(6.0)
    run: Any = SimpleNamespace(state=SimpleNamespace(step=40))
    for guard in (with_it, without):
        assert all(guard.accept(run, 3 + chance.gauss(0, 0.05), math.exp(chance.gauss(0, 0.1))) for _ in range(40))
    assert without.accept(run, 3.0, 30.0)
    assert not with_it.accept(run, 3.0, 30.0)
    assert with_it.events[0]["norm_limit"] < 30


@pytest.mark.slow
def test_ten_thousand_clean_steps_raise_no_alarm(tmp_path: Path) -> None:
    """Several epochs, rates from warm-up to the floor, at the demo's rate."""
    world = world_of(tmp_path, seed=5)
    config = CONFIG.model_copy(update={"steps": 10_000, "learning_rate": 3e-3, "checkpoint_every": 5000})
    report = pretrain(config, **world, out=tmp_path / "out")
    assert report["skipped"] == 0
    rows = read_metrics(tmp_path / "out" / "metrics.jsonl")
    assert len(rows) == 10_000
    assert not [row for row in rows if row["skipped"]]


def test_ten_thousand_simulated_batches_raise_no_alarm() -> None:
    """The means of 16 rows of three sources, skewed, with rare hard ones, of a loss that falls: as the demo's are."""
    chance = random.Random(0)
    guard = SpikeGuard(6.0, back=16)
    run: Any = SimpleNamespace(state=SimpleNamespace(step=0))
    for step in range(10_000):
        level = 2.2 + 6 * math.exp(-step / 120) + 3 * math.exp(-step / 2500)
        rows = [level * chance.choice((0.55, 0.55, 1.0, 1.0, 1.5)) * math.exp(chance.gauss(0, 0.25)) for _ in range(16)]
        assert guard.accept(run, sum(rows) / 16, math.exp(chance.gauss(0, 0.2)))
