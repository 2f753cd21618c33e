"""Packing by best fit and phases of a curriculum: nothing is lost, shares are what was asked, a step is what it was."""

from __future__ import annotations

import random
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from toys import shard, stories, words

from datalake.errors import UserError
from datalake.mixture.config import MixtureConfig, Shares
from models.methods.pretrain import PhaseConfig, PretrainConfig, pretrain
from models.text.phases import Phases, chosen, phased
from models.text.sampler import IGNORED, Packed, Sampler
from models.text.shards import TokenShards

SOURCES = ("web", "code", "wiki")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("phases")
    documents = stories(400)
    documents.append((b"long".rjust(16), " ".join(text for _, text in stories(30, seed=3))))
    shard(folder / "shards", documents, words(folder / "tokenizer"))
    return folder


@pytest.fixture(scope="module")
def shards(folder: Path) -> TokenShards:
    return TokenShards(folder / "shards")


@pytest.fixture(scope="module")
def origins(shards: TokenShards) -> dict[bytes, tuple[str, str]]:
    return {id: (SOURCES[min(place % 5, 2)], ("en", "zh")[place % 2]) for place, id in enumerate(shards.ids)}


def packed(shards: TokenShards, seed: int = 1, context: int = 48) -> Sampler:
    return Sampler(shards, [(id, 1 + place % 2) for place, id in enumerate(shards.ids)], seed, context, 4, packed=True)


def test_best_fit_loses_no_token_and_cuts_no_document_that_fits(shards: TokenShards) -> None:
    sampler = packed(shards)
    times = {id: 1 + place % 2 for place, id in enumerate(shards.ids)}
    for epoch in (0, 1):
        stretches: Counter[bytes] = Counter()
        tokens: Counter[bytes] = Counter()
        targets = 0
        for row in range(epoch * sampler.windows, (epoch + 1) * sampler.windows):
            step, place = divmod(row, 4)
            batch = sampler.batch(step)
            targets += int((batch.targets[place] != IGNORED).sum())
        stream, order = sampler._epoch(epoch)
        for start in order:
            parts = list(stream.parts(int(start) * 48, 48))
            assert sum(count for _, _, count, _ in parts) <= 48
            for at, _, count, _ in parts:
                stretches[shards.ids[stream.numbers[at]]] += 1
                tokens[shards.ids[stream.numbers[at]]] += count
        for id, number in times.items():
            length = int(shards.lengths[shards.number(id)])
            assert tokens[id] == number * length
            assert stretches[id] == number * -(-length // 48)
        assert targets == sum(number * (int(shards.lengths[shards.number(id)]) - 1) for id, number in times.items())


def test_best_fit_is_that_of_the_plain_rule() -> None:
    draw = random.Random(0)
    lengths = np.array([draw.randint(1, 30) for _ in range(300)])
    shards: Any = type("Shards", (), {"lengths": lengths})()
    rows = Packed(shards, np.arange(300), 30).rows
    rooms: list[int] = []
    for length in sorted(lengths.tolist(), reverse=True):
        fitting = [room for room in rooms if room >= length]
        if fitting:
            rooms.remove(min(fitting))
        rooms.append((min(fitting) if fitting else 30) - length)
    assert sorted(30 - sum(count for _, _, count in row) for row in rows) == sorted(rooms)
    assert len(rows) <= 1.05 * lengths.sum() / 30


def test_a_packed_step_is_turned_back_into_what_it_saw_in_any_order(shards: TokenShards) -> None:
    forward = packed(shards)
    batches = [forward.batch(step) for step in range(12)]
    for step in (11, 0, 5):
        again = packed(shards)
        for name in ("tokens", "targets", "positions", "segments"):
            assert torch.equal(getattr(batches[step], name), getattr(again.batch(step), name))
        seen = [shards.tokens(shards.number(id), first, count) for id, first, count in again.documents(step)]
        assert np.concatenate(seen).tolist() == batches[step].tokens[batches[step].segments >= 0].tolist()


@pytest.mark.parametrize("fit", [False, True])
def test_tokens_are_counted_as_steps_saw_them(shards: TokenShards, fit: bool) -> None:
    sampler = Sampler(shards, [(id, place % 3) for place, id in enumerate(shards.ids)], 1, 32, 4, packed=fit)
    steps = int(2.4 * sampler.windows / 4)
    counted: Counter[bytes] = Counter()
    for step in set(range(steps)) - {3, 5}:
        for id, _, tokens in sampler.documents(step):
            counted[id] += tokens
    assert sampler.tokens_seen(steps, [3, 5]).tolist() == [counted[id] for id in shards.ids]


PLAN = (
    (2.0, Shares(weights={"web": 0.5, "code": 0.3, "wiki": 0.2}), 32),
    (1.0, Shares(weights={"web": 0.1, "code": 0.2, "wiki": 0.7}), 64),
)


def test_every_phase_has_its_shares_its_rows_and_its_steps(shards: TokenShards, origins) -> None:
    sources = {id: source for id, (source, _) in origins.items()}
    phases = phased(shards, sources, PLAN, 180, 7, 64, 4, False)
    assert [(phase.first, phase.steps) for phase in phases.phases] == [(0, 120), (120, 60)]
    assert phases.batch(119).tokens.shape == (8, 32)
    assert phases.batch(120).tokens.shape == (4, 64)
    seen = phases.tokens_seen(180)
    assert abs(seen.sum() - 180 * 256) <= 256
    for (first, last), (_, mixture, _) in zip(((0, 120), (120, 180)), PLAN, strict=True):
        part = phases.tokens_seen(last) - phases.tokens_seen(first)
        for source, share in mixture.weights.items():
            got = sum(int(part[shards.number(id)]) for id in sources if sources[id] == source) / part.sum()
            assert got == pytest.approx(share, rel=0.01)
    assert phases.asked(180)["wiki"] == pytest.approx((2 * 0.2 + 0.7) / 3)
    assert phases.why == {}


def test_what_a_source_cant_give_goes_to_the_others_and_is_said() -> None:
    lengths = {bytes([n]) * 16: 10 for n in range(100)}
    sources = {id: "small" if id[0] < 10 else "large" for id in lengths}
    documents, asked, why = chosen(lengths, sources, Shares(weights={"small": 1, "large": 1}), 2000, 0, 0)
    assert asked == {"large": 0.5, "small": 0.5}
    assert Counter(times for id, times in documents if sources[id] == "small") == {4: 10}
    assert sum(times * lengths[id] for id, times in documents) == 2000
    assert why == {
        "small": "its 100 tokens are seen 4 times at most",
        "large": "it has what other sources can't give",
    }
    capped = chosen(lengths, sources, Shares(weights={"small": 1, "large": 1}, caps={"small": 2.0}), 2000, 0, 0)[0]
    assert Counter(times for id, times in capped if sources[id] == "small") == {2: 10}
    evened = chosen(lengths, sources, Shares(temperature=2.0), 200, 0, 0)[1]
    assert evened["large"] == pytest.approx(3 / 4)  # sizes 9 to 1, so 3 to 1
    without = chosen(lengths, sources, Shares(weights={"small": 0, "large": 1}), 400, 0, 0)
    assert {sources[id] for id, _ in without[0]} == {"large"}
    _, asked, why = chosen(lengths, sources, Shares(weights={"small": 1, "large": 2, "other": 1}), 400, 0, 0)
    assert asked == {"large": 0.5, "other": 0.25, "small": 0.25}
    assert why["other"] == "it has no document"


@pytest.mark.parametrize("fit", [False, True])
def test_a_phase_of_fewer_tokens_than_any_document_has_sees_a_part_of_the_shortest(tmp_path: Path, fit: bool) -> None:
    documents = [(bytes([n]) * 16, " ".join(text for _, text in stories(30 + n, seed=n))) for n in range(3)]
    shards = TokenShards(shard(tmp_path / "shards", documents, words(tmp_path / "tokenizer")))
    phases = phased(shards, dict.fromkeys(shards.ids, "web"), [(1, Shares(), 32), (1, Shares(), 32)], 4, 0, 32, 2, fit)
    seen = dict(zip(shards.ids, phases.tokens_seen(4).tolist(), strict=True))
    assert max(seen.values()) == sum(seen.values()) > 64
    assert seen[min(shards.ids, key=lambda id: shards.lengths[shards.number(id)])] > 64
    plan = [(1, Shares(), 32), (1, Shares(weights={"web": 0, "wiki": 1}), 32)]
    with pytest.raises(UserError, match="phase 2 has no document: look at its mixture's weights"):
        phased(shards, dict.fromkeys(shards.ids, "web"), plan, 4, 0, 32, 2, fit)


@pytest.mark.parametrize("fit", [False, True])
def test_what_of_a_plan_comes_out_otherwise_is_said(shards: TokenShards, fit: bool) -> None:
    sources = dict.fromkeys(shards.ids, "web")
    plan = [(1e-4, Shares(), 64), (1, Shares(max_epochs=0.1), 64), (1, Shares(), 64)]
    phases = phased(shards, sources, plan, 60, 0, 64, 4, fit)
    assert [(phase.first, phase.steps) for phase in phases.phases] == [(0, 30), (30, 30)]
    none, often = phases.warnings
    assert none == "phase 1 has no step: its share of 60 is 0.003 of one"
    total = int(shards.lengths.sum())
    assert f"that max_epochs and caps allow {0.1 * total:,.0f} of: it goes through them" in often
    seen = int(often.split()[3].replace(",", ""))
    assert phases.tokens_seen(30).sum() == pytest.approx(seen, rel=0.05)
    assert phased(shards, sources, plan[2:], 30, 0, 64, 4, fit).warnings == []


def test_two_rules_for_shares_or_rows_that_dont_fit_are_refused() -> None:
    with pytest.raises(ValidationError, match="two rules for shares"):
        MixtureConfig(weights={"a": 1.0}, temperature=2.0)
    with pytest.raises(ValidationError, match="the cap of a is 0"):
        MixtureConfig(caps={"a": 0.0})
    for context in (512, 100):
        with pytest.raises(ValidationError, match="divides batch x context"):
            PretrainConfig(context=256, batch=4, phases=(PhaseConfig(share=1, context=context),))


def test_a_run_in_phases_tells_its_shares_and_costs_a_kill_nothing(folder, shards, origins, tmp_path: Path) -> None:
    phases = tuple(PhaseConfig(share=share, mixture=shares, context=rows) for share, shares, rows in PLAN)
    config = PretrainConfig(
        layers=1, width=16, heads=2, kv_heads=1, context=64, batch=4, steps=30, eval_every=0, checkpoint_every=8,
        phases=phases, packing="best_fit",
    )  # fmt: skip
    inputs = {
        "shards": [folder / "shards"], "train": [(id, 1) for id in shards.ids], "heldout": [], "origins": origins,
        "tokenizer": folder / "tokenizer",
    }  # fmt: skip

    def cut(row: dict[str, Any]) -> None:
        if row["step"] == 21:
            raise KeyboardInterrupt

    report = pretrain(config, **inputs, out=tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        pretrain(config, **inputs, out=tmp_path / "cut", on_step=cut)
    pretrain(config, **inputs, out=tmp_path / "cut")
    names = [tmp_path / name / "checkpoint" / "model.safetensors" for name in ("whole", "cut")]
    assert names[0].read_bytes() == names[1].read_bytes()
    sampler = pretrain.data(config, **{k: v for k, v in inputs.items() if k != "tokenizer"}).sampler
    assert isinstance(sampler, Phases)
    assert sum(row["tokens"] for row in report["tokens_seen"]) == sampler.tokens_seen(30).sum()
    assert report["asked"] == pytest.approx(sampler.asked(30))
    assert [row[0] for row in report["in_pieces"]] == [
        id.hex() for id in shards.ids if shards.lengths[shards.number(id)] > 32
    ]
