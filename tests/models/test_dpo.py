"""Preferences without a reward model: the loss by hand, where it starts, and what a model learns of it."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from toys import assert_told_alike, base, reversals, words

from models.methods.dpo import DpoConfig, dpo
from models.network import checkpoint
from models.objectives import dpo as objectives
from models.objectives.answers import answer_log_probs, as_rows
from models.text.packing import Answers
from models.training.figures import BEGINNING
from models.training.metrics import read_metrics

CONFIG = DpoConfig(batch=8, steps=30, learning_rate=3e-3, eval_every=10, beta=0.2, warmup=0.0)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("dpo")
    tokenizer = words(folder / "tokenizer")
    asked = reversals(60, seed=1, digits=3)
    pairs = [
        {"prompt": [{"role": "user", "content": question}], "chosen": answer, "rejected": "000"}
        for question, answer in asked
        if answer != "000"
    ]
    return {"base": base(folder / "base", tokenizer), "pairs": pairs[10:], "heldout": pairs[:10]}


def by_hand(model: Any, ids: list[int], start: int) -> float:
    """log p(answer | prompt), token by token, one row at a time."""
    logs = model.logits(model(torch.tensor([ids[:-1]])))[0].log_softmax(-1)
    return sum(float(logs[place - 1, ids[place]]) for place in range(start, len(ids)))


@torch.no_grad()
@pytest.mark.parametrize("kind", ["sigmoid", "ipo"])
@pytest.mark.parametrize("per_token", [False, True])
def test_the_loss_is_that_of_the_paper(world: dict[str, Any], kind: Any, per_token: bool) -> None:
    model, _ = checkpoint.load(world["base"])
    reference, _ = checkpoint.load(world["base"])
    for number, parameter in enumerate(model.parameters()):
        parameter += 0.02 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(number))
    pairs = [Answers([1, 20, 21, 30, 31, 6], [1, 20, 21, 32], 3), Answers([1, 40, 50], [1, 40, 41, 42, 43], 2)]
    mean = per_token or kind == "ipo"

    def said(network: Any, pair: Answers) -> list[float]:
        sides = ((ids, by_hand(network, ids, pair.start)) for ids in (pair.chosen, pair.rejected))
        return [total / (len(ids) - pair.start) if mean else total for ids, total in sides]

    rows = as_rows([(ids, pair.start) for pair in pairs for ids in pair[:2]])
    before = answer_log_probs(reference, *rows, mean).view(2, 2)
    torch.testing.assert_close(before, torch.tensor([said(reference, pair) for pair in pairs]), atol=1e-5, rtol=1e-5)
    loss = objectives.dpo(0.3, kind, 0.1, per_token)(model, objectives.collate(pairs, before))
    wanted = 0.0
    for pair in pairs:
        gains = [a - b for a, b in zip(said(model, pair), said(reference, pair), strict=True)]
        margin = 0.3 * (gains[0] - gains[1])
        if kind == "ipo":
            wanted += (margin / 0.3 - 1 / 0.6) ** 2
        else:
            wanted += 0.9 * math.log1p(math.exp(-margin)) + 0.1 * math.log1p(math.exp(margin))
    assert float(loss.total) == pytest.approx(wanted, rel=1e-4)
    assert loss.targets == 2


@pytest.mark.parametrize(("kind", "start"), [("sigmoid", math.log(2)), ("ipo", 1 / (4 * 0.2**2))])
def test_a_model_that_is_its_own_reference_starts_at_a_margin_of_nothing(
    world: dict[str, Any], tmp_path: Path, kind: str, start: float
) -> None:
    config = CONFIG.model_copy(update={"steps": 1, "loss": kind})
    dpo(config, **world, out=tmp_path)
    (row,) = read_metrics(tmp_path / "metrics.jsonl")
    beginning = (tmp_path / BEGINNING).read_text()
    assert beginning == "the model before its first step: 20 of 20 passes over answers"  # those held out come last
    assert row["loss"] == pytest.approx(start, rel=1e-4)
    assert row["margin"] == pytest.approx(0, abs=1e-5)


def test_the_chosen_answers_become_likelier_also_of_pairs_unseen(world: dict[str, Any], tmp_path: Path) -> None:
    report = dpo(CONFIG, **world, out=tmp_path / "whole")
    assert report["heldout_accuracy"] == 1.0
    assert report["heldout_margin"] > 1
    assert report["heldout_loss"] < 0.3
    assert report["pairs"] == len(world["pairs"])

    def cut(row: dict[str, Any]) -> None:
        if row["step"] == 13:
            raise KeyboardInterrupt

    more = CONFIG.model_copy(update={"checkpoint_every": 4})
    with pytest.raises(KeyboardInterrupt):
        dpo(more, **world, out=tmp_path / "cut", on_step=cut)
    assert_told_alike(dpo(more, **world, out=tmp_path / "cut"), report)
    weights = [(tmp_path / name / "checkpoint" / "model.safetensors").read_bytes() for name in ("cut", "whole")]
    assert weights[0] == weights[1]
