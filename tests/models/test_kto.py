"""Answers judged one by one: the loss, its reference point, and what a model learns of them; what pairs share of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from toys import assert_told_alike, base, reversals, words

from datalake.errors import UserError
from models.methods.dpo import DpoConfig, dpo
from models.methods.kto import KtoConfig, data, kto
from models.network import checkpoint
from models.objectives import kto as objectives
from models.objectives.kto import Judged
from models.rl import reference
from models.text.packing import EMPTY, EQUAL, TOO_LONG
from models.training.metrics import read_metrics

CONFIG = KtoConfig(batch=8, steps=60, learning_rate=3e-3, eval_every=20, beta=0.2, warmup=0.0)


def pair(question: str, chosen: str | None, rejected: str | None) -> dict[str, Any]:
    return {"prompt": [{"role": "user", "content": question}], "chosen": chosen, "rejected": rejected}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Rows of which a third are pairs, a third good answers alone and a third bad ones."""
    folder = tmp_path_factory.mktemp("kto")
    tokenizer = words(folder / "tokenizer")
    asked = [(question, answer) for question, answer in reversals(70, seed=1, digits=3) if answer != "000"]
    rows = [
        pair(question, answer if number % 3 else None, "000" if number % 3 != 2 else None)
        for number, (question, answer) in enumerate(asked)
    ]
    return {"base": base(folder / "base", tokenizer), "judgements": rows[12:], "heldout": rows[:12]}


def test_answers_of_a_batch_are_told_again_for_other_prompts_of_it() -> None:
    judged = [
        Judged([1, 2, 3, 10], 3, True),
        Judged([1, 2, 3, 11, 12], 3, False),  # of the same prompt
        Judged([1, 4, 13], 2, True),
    ]
    assert objectives.mismatched(judged, 9) == [([1, 2, 3, 13], 3), ([1, 2, 3, 13], 3), ([1, 4, 10], 2)]
    assert objectives.mismatched([*judged[:2]], 9) == []
    assert objectives.mismatched([judged[2], judged[1]], 3) == [([1, 4, 11], 2), ([1, 2, 3], 3)]


def test_the_reference_point_is_a_divergence_and_never_below_nothing() -> None:
    assert float(objectives.baseline(torch.tensor([-1.0, -3.0]), torch.tensor([-2.0, -5.0]))) == 1.5
    assert float(objectives.baseline(torch.tensor([-2.0]), torch.tensor([-1.0]))) == 0
    assert float(objectives.baseline(torch.zeros(0), torch.zeros(0))) == 0


def test_a_batch_costs_the_same_in_any_number_of_parts(world: dict[str, Any], tmp_path: Path) -> None:
    rows = []
    for parts in (1, 4):
        config = CONFIG.model_copy(update={"steps": 4, "accumulation": parts, "eval_every": 0})
        kto(config, **world, out=tmp_path / str(parts))
        rows.append(read_metrics(tmp_path / str(parts) / "metrics.jsonl"))
    for one, other in zip(*rows, strict=True):
        assert one["loss"] == pytest.approx(other["loss"], rel=1e-5)
        assert one["kl"] == pytest.approx(other["kl"], abs=1e-4)
    assert rows[0][0]["loss"] == pytest.approx(0.5, rel=1e-5)  # the policy is the reference
    assert (rows[0][0]["kl"], rows[0][0]["margin"]) == (0, pytest.approx(0, abs=1e-5))


def test_good_answers_become_likelier_than_bad_ones_also_unseen(world: dict[str, Any], tmp_path: Path) -> None:
    report = kto(CONFIG, **world, out=tmp_path / "whole")
    assert report["heldout_accuracy"] > 0.9
    assert report["heldout_loss"] < 0.4
    rows = world["judgements"]
    assert report["desirable"] == sum(row["chosen"] is not None for row in rows)
    assert report["undesirable"] == sum(row["rejected"] is not None for row in rows)
    assert report["judgements"] == report["desirable"] + report["undesirable"]
    assert any(row["kl"] > 0 for row in read_metrics(tmp_path / "whole" / "metrics.jsonl"))

    def cut(row: dict[str, Any]) -> None:
        if row["step"] == 27:
            raise KeyboardInterrupt

    more = CONFIG.model_copy(update={"checkpoint_every": 8})
    with pytest.raises(KeyboardInterrupt):
        kto(more, **world, out=tmp_path / "cut", on_step=cut)
    assert_told_alike(kto(more, **world, out=tmp_path / "cut"), report)
    weights = [(tmp_path / name / "checkpoint" / "model.safetensors").read_bytes() for name in ("cut", "whole")]
    assert weights[0] == weights[1]


def test_weights_say_what_counts(world: dict[str, Any], tmp_path: Path) -> None:
    config = CONFIG.model_copy(update={"steps": 1, "desirable_weight": 3.0, "undesirable_weight": 0.0})
    kto(config, **world, out=tmp_path)
    (row,) = read_metrics(tmp_path / "metrics.jsonl")
    items = data(config, world["base"], world["judgements"], []).of_step(0)
    assert row["loss"] == pytest.approx(1.5 * sum(one.desirable for one in items) / len(items), rel=1e-5)


def test_the_reference_is_taken_once_for_every_run_on_the_same_answers(
    world: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pairs = [row for row in world["judgements"] if row["chosen"] and row["rejected"]]
    start, states = world["base"], tmp_path / "states"
    taken: list[int] = []
    plain = reference.log_probs_of

    def counting(begun: Any, passes: Any) -> Any:
        for said in plain(begun, passes):
            taken.append(len(said))
            yield said

    monkeypatch.setattr(reference, "log_probs_of", counting)
    config = DpoConfig(batch=4, steps=5, eval_every=0)  # an epoch
    first = config.model_copy(update={"steps": 2})
    dpo(first, start, pairs, [], out=tmp_path / "first", states=states)
    seen = sum(row["targets"] for row in read_metrics(tmp_path / "first" / "metrics.jsonl"))
    assert sum(taken) == 2 * seen < 2 * len(pairs)
    dpo(config, start, pairs, [], out=tmp_path / "a", states=states)
    assert sum(taken) == 2 * len(pairs)
    dpo(config.model_copy(update={"beta": 0.5, "batch": 8}), start, pairs, [], out=tmp_path / "b", states=states)
    dpo(config.model_copy(update={"per_token": True}), start, pairs, [], out=tmp_path / "c", states=states)
    assert sum(taken) == 2 * len(pairs)
    files = sorted(states.glob("reference-*"))
    kto(CONFIG.model_copy(update={"steps": 1}), start, pairs, [], out=tmp_path / "d", states=states)
    others = 2 * CONFIG.batch  # other prompts' answers alone, by the reference and by the model before its step
    assert sum(taken) == 2 * len(pairs) + others
    (file,) = files
    file.write_bytes(file.read_bytes()[:-5])  # a damaged one is taken again
    dpo(config.model_copy(update={"seed": 1}), start, pairs, [], out=tmp_path / "e", states=states)
    assert sum(taken) == 4 * len(pairs) + others
    dpo(config, start, pairs, [], out=tmp_path / "f")
    weights = [(tmp_path / name / "checkpoint" / "model.safetensors").read_bytes() for name in ("a", "f")]
    assert weights[0] == weights[1]
    changed = checkpoint.load(start)[0]
    with torch.no_grad():
        next(changed.parameters()).add_(0.1)
    other = checkpoint.save(changed, start, tmp_path / "other")
    dpo(config, other, pairs, [], out=tmp_path / "g", states=states)
    assert len(list(states.glob("reference-*"))) == 3


def test_what_cannot_be_used_is_named_and_what_contradicts_is_said(world: dict[str, Any], tmp_path: Path) -> None:
    long = "7" * 60
    rows = [
        *world["judgements"][:8],
        pair("1", "5", "5"),
        pair("1", "", "5"),
        pair("1", None, " "),
        pair("1", long + "1", long + "2"),
        pair("2", long, None),
        pair("3", "4", "5"),
        pair("3", "5", "4"),
        pair("4", "5", None),
        pair("4", None, "5"),
    ]
    report = kto(CONFIG.model_copy(update={"steps": 1}), world["base"], rows, [], tmp_path)
    assert [line[:2] for line in report["left_out"]] == [[8, EQUAL], [9, EMPTY], [10, EMPTY], [11, TOO_LONG]]
    assert report["cut"] == 1
    assert report["contradictions"] == 4
    assert report["warnings"] == ["4 of 17 judgements are contradicted by another of the same prompt and answers"]
    with pytest.raises(UserError, match=r"none of 1 judgements .* \(an empty answer\).* raise kto.context"):
        kto(CONFIG, world["base"], rows[9:10], [], tmp_path / "none")
