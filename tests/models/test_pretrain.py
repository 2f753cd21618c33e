"""Pretraining end to end on a few kilobytes: the loss falls below what frequencies allow, a kill costs nothing."""

import json
import math
import shutil
import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from toys import assert_told_alike, shard, stories, words

from datalake.errors import UserError
from models.evaluation.heldout import token_counts, unigram_losses
from models.methods.pretrain import PretrainConfig, pretrain
from models.network import checkpoint
from models.text.shards import TokenShards
from models.training import callbacks
from models.training.state import load_state, save_state

CONFIG = PretrainConfig(
    layers=2, width=32, heads=4, kv_heads=2, context=32, steps=80, batch=8, learning_rate=1e-2, checkpoint_every=10,
    eval_every=15, eval_rows=16,
)  # fmt: skip


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    folder = tmp_path_factory.mktemp("world")
    tokenizer = words(folder / "tokenizer")
    documents = stories(60)
    ids = [document for document, _ in documents]
    return {
        "shards": [shard(folder / "shards", documents, tokenizer)],
        "train": [(document, 1 + place % 2) for place, document in enumerate(ids[:50])],
        "heldout": ids[50:],
        "tokenizer": folder / "tokenizer",
    }


@pytest.fixture(scope="module")
def whole(world, tmp_path_factory):
    out = tmp_path_factory.mktemp("whole")
    return out, pretrain(CONFIG, **world, out=out)


def test_the_heldout_loss_falls_below_the_unigram_entropy(whole):
    out, report = whole
    rows = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == list(range(1, 81))
    assert rows[0]["loss"] == pytest.approx(math.log(320), abs=0.3)
    assert [row["step"] for row in rows if "heldout_loss" in row] == [15, 30, 45, 60, 75, 80]
    assert report["heldout_loss"] == rows[-1]["heldout_loss"]
    assert report["heldout_loss"] < 0.75 * report["unigram_entropy"]
    assert report["unigram_entropy"] == pytest.approx(report["heldout_unigram_cross_entropy"], rel=0.1)
    assert report["steps"] == 80
    assert report["tokens_per_s"] > 0
    assert report["memory_mb"] > 1
    assert report["mfu"] is None  # a CPU's peak isn't known


def test_the_checkpoint_loads_in_transformers_with_equal_logits(whole):
    from transformers import AutoModelForCausalLM

    out, _ = whole
    model, tokenizer = checkpoint.load(out / "checkpoint")
    other = AutoModelForCausalLM.from_pretrained(out / "checkpoint")
    tokens = torch.tensor([tokenizer("the cat sees")["input_ids"]])
    with torch.no_grad():
        torch.testing.assert_close(model.logits(model(tokens)), other(tokens).logits, rtol=1e-4, atol=1e-4)


def test_layers_computed_again_for_their_gradients_change_no_byte(world, whole, tmp_path):
    out, report = whole
    with_it = pretrain(CONFIG.model_copy(update={"activation_checkpointing": True}), **world, out=tmp_path)
    assert_told_alike(report, with_it)
    for name in ("config.json", "model.safetensors"):
        assert (tmp_path / "checkpoint" / name).read_bytes() == (out / "checkpoint" / name).read_bytes()


@pytest.mark.slow
@pytest.mark.skipif(not (shutil.which("g++") or shutil.which("clang++")), reason="inductor needs a C++ compiler")
def test_a_compiled_run_learns_the_same(world, whole, tmp_path):
    steps = 20
    logs = []
    for compile in ("off", "on"):
        config = CONFIG.model_copy(
            update={"compile": compile, "steps": steps, "accumulation": 2, "schedule": "constant"}
        )
        pretrain(config, **world, out=tmp_path / compile)
        logs.append([json.loads(line) for line in (tmp_path / compile / "metrics.jsonl").read_text().splitlines()])
    for eager, compiled in zip(*logs, strict=True):
        assert eager["loss"] == pytest.approx(compiled["loss"], rel=1e-4)
        assert eager["tokens"] == compiled["tokens"] == 8 * 32


def test_a_run_cut_in_the_middle_ends_with_the_same_bytes(world, whole, tmp_path):
    class CutError(Exception):
        pass

    def cut(row):
        if row["step"] == 67:
            raise CutError

    with pytest.raises(CutError):
        pretrain(CONFIG, **world, out=tmp_path, on_step=cut)
    assert not (tmp_path / "checkpoint").exists()
    torch.manual_seed(12345)
    report = pretrain(CONFIG, **world, out=tmp_path)
    weights = [(folder / "checkpoint" / "model.safetensors").read_bytes() for folder in (tmp_path, whole[0])]
    assert weights[0] == weights[1]
    assert report["heldout_loss"] == whole[1]["heldout_loss"]
    steps = [json.loads(line)["step"] for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert steps == list(range(1, 81))


def test_accumulation_changes_the_loss_only_by_rounding(world, tmp_path):
    losses = []
    for accumulation in (1, 4):
        config = CONFIG.model_copy(update={"steps": 4, "eval_every": 0, "accumulation": accumulation})
        report = pretrain(config, **world, out=tmp_path / str(accumulation))
        losses.append((report["target_tokens"], pytest.approx(report["heldout_loss"], rel=1e-4)))
    assert losses[0] == (losses[1][0], losses[1][1].expected)


def test_settings_changed_under_a_saved_state_are_refused(world, tmp_path):
    def cut(row):
        if row["step"] == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        pretrain(CONFIG.model_copy(update={"checkpoint_every": 1}), **world, out=tmp_path, on_step=cut)
    with pytest.raises(UserError, match="other settings"):
        pretrain(CONFIG.model_copy(update={"learning_rate": 2e-2}), **world, out=tmp_path)


def test_a_run_that_ends_by_an_error_leaves_its_last_state_whole(world, tmp_path, monkeypatch):
    cut, over = threading.Event(), threading.Event()

    def late(*arguments):
        cut.wait()
        over.wait(0.3)  # long enough that a run that doesn't wait is over before
        return save_state(*arguments)

    def on_step(row):
        if row["step"] == 2:
            cut.set()
            raise KeyboardInterrupt

    monkeypatch.setattr(callbacks, "save_state", late)
    with pytest.raises(KeyboardInterrupt):
        pretrain(CONFIG.model_copy(update={"checkpoint_every": 1}), **world, out=tmp_path, on_step=on_step)
    found = [path.name for path in (tmp_path / "state").glob("*")]
    over.set()
    assert found == ["step-000000001"]


def test_a_document_on_both_sides_or_in_no_shard_is_refused(world, tmp_path):
    both = {**world, "heldout": [world["train"][0][0]]}
    with pytest.raises(UserError, match="in training and held out"):
        pretrain(CONFIG, **both, out=tmp_path)
    with pytest.raises(UserError, match="isn't in the token shards"):
        pretrain(CONFIG, **{**world, "heldout": [b"x" * 16]}, out=tmp_path)
    assert not (tmp_path / "state").exists()


def test_without_heldout_documents_there_is_no_heldout_loss(world, tmp_path):
    report = pretrain(CONFIG.model_copy(update={"steps": 2}), **{**world, "heldout": []}, out=tmp_path)
    assert "heldout_loss" not in report
    assert load_state(tmp_path / "elsewhere", "x").step == 0


def test_a_token_budget_becomes_steps():
    assert PretrainConfig(tokens=10_000, batch=4, context=64).total_steps == 40
    assert PretrainConfig(steps=7).total_steps == 7


def test_sizes_that_do_not_fit_are_refused_when_the_config_is_made():
    with pytest.raises(ValueError, match="heads"):
        PretrainConfig(width=30, heads=4)
    with pytest.raises(ValueError, match="kv_heads"):
        PretrainConfig(heads=6, kv_heads=4)


def test_unigram_entropies_by_hand():
    entropy, cross = unigram_losses(np.array([0, 0, 1, 1]), np.array([6, 0, 0, 0]))
    assert entropy == 0
    assert cross == pytest.approx(-(math.log(7 / 10) + math.log(1 / 10)) / 2)
    # that of the training tokens doesn't depend on how much is held out
    for targets in (np.array([1]), np.arange(4)):
        assert unigram_losses(targets, np.array([3, 3, 0, 0]))[0] == pytest.approx(math.log(2))


def test_token_counts_are_the_targets_of_an_epoch(world):
    tokens = TokenShards(world["shards"])
    counts = token_counts(tokens, world["train"], tokens.vocabulary)
    expected = np.zeros(tokens.vocabulary, int)
    for document, times in world["train"]:
        for token in tokens.tokens(tokens.number(document))[1:]:
            expected[token] += times
    assert counts.tolist() == expected.tolist()


def test_the_config_is_light():
    import subprocess
    import sys

    code = "import sys, models.training.config; print([m for m in ('torch','numpy','pyarrow') if m in sys.modules])"
    root = Path(__file__).parent.parent.parent
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=root)
    assert found.stdout.strip() == "[]"
