"""What methods share: kinds of pretraining, an open base, adapters, and longer runs that go on from shorter ones."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from toys import base, conversations, dialogue, reversals, shard, stories, words
from transformers import AutoModelForCausalLM, BertForMaskedLM, MixtralForCausalLM, T5ForConditionalGeneration

from datalake.errors import UserError
from models.methods import METHODS
from models.methods.pretrain import PretrainConfig, pretrain
from models.methods.sft import SftConfig, sft
from models.network import checkpoint
from models.network.build import build_model, lengthened
from models.network.config import NetworkConfig, RopeScaling
from models.text.shards import TokenShards
from models.training.metrics import read_metrics

SHAPE: dict[str, Any] = {"layers": 2, "width": 32, "heads": 4, "kv_heads": 2, "context": 32, "batch": 8}
SHORT: dict[str, Any] = {**SHAPE, "steps": 12, "warmup": 0.0, "eval_every": 0, "checkpoint_every": 5}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("methods")
    tokenizer = words(folder / "tokenizer")
    tokens = shard(folder / "tokens", stories(40), tokenizer)
    ids = list(TokenShards(tokens).ids)
    documents = {"shards": [tokens], "train": [(id, 1) for id in ids[5:]], "heldout": ids[:5]}
    return {
        "words": tokenizer,
        "documents": documents | {"tokenizer": folder / "tokenizer"},
        "base": base(folder / "base", tokenizer),
        "dialogues": [dialogue(*pair) for pair in reversals(40, seed=1)],
    }


def tensors(folder: Path) -> bytes:
    return (folder / "checkpoint" / "model.safetensors").read_bytes()


class StopError(Exception):
    pass


def stopping(at: int) -> Any:
    def on_step(row: dict[str, Any]) -> None:
        if row["step"] == at:
            raise StopError

    return on_step


@pytest.mark.parametrize(
    ("objective", "family"),
    [
        ("next_token", AutoModelForCausalLM),
        ("masked_tokens", BertForMaskedLM),
        ("span_corruption", T5ForConditionalGeneration),
    ],
)
def test_every_kind_of_pretraining_learns_and_ends_as_if_undisturbed(
    world: dict[str, Any], tmp_path: Path, objective: str, family: Any
) -> None:
    config = PretrainConfig(**SHORT | {"steps": 40, "learning_rate": 5e-3, "objective": objective})
    report = pretrain(config, **world["documents"], out=tmp_path / "whole")
    rows = read_metrics(tmp_path / "whole" / "metrics.jsonl")
    assert report["heldout_loss"] == rows[-1]["heldout_loss"] < rows[0]["loss"] - 0.5
    family.from_pretrained(tmp_path / "whole" / "checkpoint")
    with pytest.raises(StopError):
        pretrain(config, **world["documents"], out=tmp_path / "cut", on_step=stopping(33))
    torch.manual_seed(9)
    again = pretrain(config, **world["documents"], out=tmp_path / "cut")
    assert again["computed"]["from_step"] == 30
    assert tensors(tmp_path / "cut") == tensors(tmp_path / "whole")


def test_what_fills_gaps_answers_nobody(world: dict[str, Any], tmp_path: Path) -> None:
    config = PretrainConfig(**SHORT | {"steps": 1, "objective": "masked_tokens"})
    pretrain(config, **world["documents"], out=tmp_path)
    with pytest.raises(UserError, match="fills gaps and can't write"):
        sft(SftConfig(steps=1), tmp_path / "checkpoint", conversations(world["dialogues"]), [], tmp_path / "sft")


def test_experts_of_a_recipe_pay_for_their_balance(world: dict[str, Any], tmp_path: Path) -> None:
    config = PretrainConfig(**SHORT | {"experts": 4, "experts_per_token": 2, "hidden": 32})
    pretrain(config, **world["documents"], out=tmp_path / "paid")
    MixtralForCausalLM.from_pretrained(tmp_path / "paid" / "checkpoint")
    rows = read_metrics(tmp_path / "paid" / "metrics.jsonl")
    assert all(row["balance"] >= 1.99 for row in rows)  # 2 a token where all are used alike
    pretrain(config.model_copy(update={"balance": 0.0}), **world["documents"], out=tmp_path / "free")
    assert tensors(tmp_path / "paid") != tensors(tmp_path / "free")


def test_an_open_model_goes_on_learning_in_its_own_shape(world: dict[str, Any], tmp_path: Path) -> None:
    first = PretrainConfig(**SHORT | {"steps": 30, "learning_rate": 5e-3})
    report = pretrain(first, **world["documents"], out=tmp_path / "first")
    start = tmp_path / "first" / "checkpoint"
    more = PretrainConfig(**SHORT | {"layers": 7, "steps": 3})
    went_on = pretrain(more, **world["documents"], base=start, out=tmp_path / "more")
    assert went_on["parameters"] == report["parameters"]
    assert read_metrics(tmp_path / "more" / "metrics.jsonl")[0]["loss"] < report["loss"] + 0.3
    longer = more.model_copy(update={"context": 64})
    with pytest.raises(UserError, match=r"64 tokens is longer than the base's 32.*rope_scaling"):
        pretrain(longer, **world["documents"], base=start, out=tmp_path / "longer")
    yarn = {"context": 64, "rope_scaling": {"rope_type": "yarn", "factor": 2.0}}
    scaled = PretrainConfig(**more.model_dump() | yarn)
    pretrain(scaled, **world["documents"], base=start, out=tmp_path / "scaled")
    model, _ = checkpoint.load(tmp_path / "scaled" / "checkpoint")
    theirs = AutoModelForCausalLM.from_pretrained(tmp_path / "scaled" / "checkpoint")
    tokens = torch.arange(60)[None] % 200
    with torch.no_grad():
        torch.testing.assert_close(model.logits(model(tokens)), theirs(tokens).logits, atol=1e-4, rtol=1e-4)
    assert theirs.config.rope_parameters["original_max_position_embeddings"] == 32


def test_a_base_that_was_made_longer_once_goes_on_from_the_context_it_was_first_trained_in() -> None:
    # unsloth#7028: a model's own scaling was replaced by another, which it had never seen
    llama3 = {"rope_type": "llama3", "factor": 4.0, "original_max_position_embeddings": 64}
    base = build_model(NetworkConfig(layers=1, width=32, heads=2, vocabulary=64, context=256, rope_scaling=llama3))
    with pytest.raises(UserError, match=r"scaled already \(llama3, factor 4 of 64 tokens\).*factor of at least 4"):
        lengthened(base, 512, RopeScaling(rope_type="linear", factor=8))
    longer = lengthened(base, 512, RopeScaling(rope_type="llama3", factor=8))
    assert longer.config.rope_scaling == RopeScaling(**llama3 | {"factor": 8.0})
    assert longer.config.context == 512
    assert lengthened(base, 256, None) is base


def test_a_tokenizer_larger_than_its_model_is_refused(world: dict[str, Any], tmp_path: Path) -> None:
    small = build_model(NetworkConfig(layers=1, width=16, heads=2, context=32, vocabulary=256))
    checkpoint.save(small, world["words"], tmp_path / "base")
    with pytest.raises(UserError, match="beyond the 256 that the model has rows for"):
        sft(SftConfig(steps=1), tmp_path / "base", conversations(world["dialogues"]), [], tmp_path)


def test_adapters_alone_are_trained_and_peft_reads_them(world: dict[str, Any], tmp_path: Path) -> None:
    peft = pytest.importorskip("peft")
    config = SftConfig(steps=6, batch=8, lora={"rank": 4, "alpha": 8.0, "targets": ["q_proj", "v_proj"]})
    sft(config, world["base"], conversations(world["dialogues"]), [], tmp_path)
    merged, _ = checkpoint.load(tmp_path / "checkpoint")
    start, _ = checkpoint.load(world["base"])
    changed = {name for name, value in start.state_dict().items() if not torch.equal(value, merged.state_dict()[name])}
    assert changed == {f"layers.{k}.self_attn.{name}.weight" for k in range(2) for name in ("q_proj", "v_proj")}
    theirs = peft.PeftModel.from_pretrained(
        AutoModelForCausalLM.from_pretrained(world["base"]), tmp_path / "checkpoint" / "adapter"
    ).eval()
    tokens = torch.arange(20)[None] + 40
    with torch.no_grad():
        torch.testing.assert_close(merged.logits(merged(tokens)), theirs(tokens).logits, atol=1e-5, rtol=1e-5)


class TestMoreSteps:
    """A run that has ended leaves what a longer one can go on from."""

    def longer(self, world: dict[str, Any], work: Path, first: int, then: int, **settings: Any) -> dict[str, Any]:
        """A run of so many steps, then a longer one that finds its state; a straight one beside it."""
        config = PretrainConfig(**SHORT | settings | {"steps": first})
        pretrain(config, **world["documents"], out=work / "first", states=work / "states")
        assert not (work / "first" / "state").exists()
        more = config.model_copy(update={"steps": then})
        report = pretrain(more, **world["documents"], out=work / "more", states=work / "states")
        pretrain(more, **world["documents"], out=work / "straight")
        assert tensors(work / "more") == tensors(work / "straight")
        return report

    def test_a_constant_rate_goes_on_from_the_last_step(self, world: dict[str, Any], tmp_path: Path) -> None:
        report = self.longer(world, tmp_path, 7, 12, schedule="constant")
        assert report["computed"]["from_step"] == 7
        rows = read_metrics(tmp_path / "more" / "metrics.jsonl")
        assert [row["step"] for row in rows] == list(range(1, 13))

    def test_wsd_branches_before_the_fall(self, world: dict[str, Any], tmp_path: Path) -> None:
        report = self.longer(world, tmp_path, 10, 16, schedule="wsd", decay=0.4)
        assert report["computed"]["from_step"] == 6

    def test_a_cosine_is_another_from_its_first_step_on(self, world: dict[str, Any], tmp_path: Path) -> None:
        report = self.longer(world, tmp_path, 7, 12, schedule="cosine")
        assert report["computed"]["from_step"] == 0
        assert not (tmp_path / "states").exists() or not any((tmp_path / "states").iterdir())

    def test_a_warm_up_that_is_longer_in_the_longer_run_begins_anew(
        self, world: dict[str, Any], tmp_path: Path
    ) -> None:
        report = self.longer(world, tmp_path, 8, 16, schedule="constant", warmup=0.5)
        assert report["computed"]["from_step"] == 0

    def test_nothing_is_kept_where_nobody_asks(self, world: dict[str, Any], tmp_path: Path) -> None:
        config = PretrainConfig(**SHORT | {"schedule": "constant", "keep_state": False})
        pretrain(config, **world["documents"], out=tmp_path / "out", states=tmp_path / "states")
        assert not any((tmp_path / "states").iterdir()) if (tmp_path / "states").exists() else True


def test_threads_change_the_last_bits_and_no_more(world: dict[str, Any], tmp_path: Path) -> None:
    config, before, losses = PretrainConfig(**SHORT), torch.get_num_threads(), []
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            report = pretrain(config, **world["documents"], out=tmp_path / str(threads))
            assert report["computed"]["threads"] == threads
            losses.append([row["loss"] for row in read_metrics(tmp_path / str(threads) / "metrics.jsonl")])
    finally:
        torch.set_num_threads(before)
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)


def test_what_was_trained_and_not_taken_is_told_and_not_trained_again(world: dict[str, Any], tmp_path: Path) -> None:
    config = PretrainConfig(**SHORT)
    report = pretrain(config, **world["documents"], out=tmp_path)
    assert pretrain(config, **world["documents"], out=tmp_path, on_step=stopping(1)) == report
    with pytest.raises(StopError):  # another run than the one that is told
        pretrain(config.model_copy(update={"seed": 1}), **world["documents"], out=tmp_path, on_step=stopping(1))


def test_a_method_says_where_it_stands_and_what_it_takes() -> None:
    assert list(METHODS)[:2] == ["pretrain", "sft"]
    assert METHODS["sft"].inputs == ("base", "conversations", "heldout")
    for name, method in METHODS.items():
        assert method.name == name
        assert method.config().model_dump(mode="json") == json.loads(method.config().model_dump_json())
