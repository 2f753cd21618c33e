"""Adapters: nothing else is trained, merged they are the adapted model, and peft reads what is written."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from transformers import AutoModelForCausalLM, GPT2Config, GPT2LMHeadModel

from datalake.errors import UserError
from models.methods.pretrain import PretrainConfig
from models.network import checkpoint
from models.network.build import ScalarHead, build_model
from models.network.config import LoraConfig, NetworkConfig
from models.network.lora import apply_lora, load_adapter, merged, save_adapter
from models.network.rows import untrained
from models.training.optimizer import build_optimizer

SHAPE = NetworkConfig(vocabulary=96, layers=2, width=32, heads=4, kv_heads=2, hidden=48, context=64)
KINDS = ["llama", "untied", "mixtral", "gpt2"]


@pytest.fixture(params=KINDS)
def base(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    if request.param == "gpt2":
        gpt = GPT2LMHeadModel(GPT2Config(vocab_size=96, n_embd=32, n_layer=2, n_head=4, n_positions=64))
        gpt.save_pretrained(tmp_path / "base")
        return tmp_path / "base"
    changes: dict[str, dict[str, Any]] = {"mixtral": {"experts": 4}, "untied": {"tie": False}}
    shape = SHAPE.model_copy(update=changes.get(request.param, {}))
    return checkpoint.save(build_model(shape, seed=3), None, tmp_path / "base")


def tokens(seed: int = 0) -> torch.Tensor:
    return torch.randint(96, (3, 12), generator=torch.Generator().manual_seed(seed))


def trained(model: nn.Module, steps: int = 5) -> nn.Module:
    optimizer = build_optimizer(PretrainConfig(learning_rate=1e-2), {"model": model})
    model.train()
    for step in range(steps):
        x = tokens(step)
        F.cross_entropy(model.logits(model(x))[:, :-1].flatten(0, 1), x[:, 1:].flatten()).backward()
        optimizer.step()
        optimizer.zero_grad()
    return model.eval()


def test_adapters_alone_are_trained_and_merged_they_are_the_model(base: Path, tmp_path: Path) -> None:
    plain = checkpoint.load_model(base)
    model = apply_lora(checkpoint.load_model(base), LoraConfig(rank=4, alpha=8))
    assert torch.equal(model(tokens()), plain(tokens()))  # it begins as its base
    trainable = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert trainable
    assert all(".lora_" in name for name in trainable)
    trained(model)
    weights = model.state_dict()
    assert all(torch.equal(weights[name], weight) for name, weight in plain.state_dict().items())
    whole = merged(model)
    assert set(whole.state_dict()) == set(plain.state_dict())
    assert all(parameter.requires_grad for parameter in whole.parameters())
    with torch.no_grad():
        assert not torch.allclose(model.logits(model(tokens())), plain.logits(plain(tokens())), atol=1e-2)
        assert torch.allclose(whole.logits(whole(tokens())), model.logits(model(tokens())), atol=1e-5)
        theirs = AutoModelForCausalLM.from_pretrained(checkpoint.save(whole, None, tmp_path / "merged"))
        assert torch.allclose(theirs(tokens()).logits, model.logits(model(tokens())), atol=1e-5)


@torch.no_grad()
def test_peft_reads_what_is_written(base: Path, tmp_path: Path) -> None:
    peft = pytest.importorskip("peft")
    model = apply_lora(checkpoint.load_model(base), LoraConfig(rank=4, alpha=8))
    with torch.enable_grad():
        trained(model)
    folder = save_adapter(model, tmp_path / "adapter", base)
    assert sorted(path.name for path in folder.iterdir()) == ["adapter_config.json", "adapter_model.safetensors"]
    theirs = peft.PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), folder).eval()
    assert torch.allclose(theirs(tokens()).logits, model.logits(model(tokens())), atol=1e-5)
    ours = {name: tensor for name, tensor in theirs.state_dict().items() if ".lora_" in name}
    assert len(ours) == sum(".lora_" in name for name in model.state_dict())
    whole = theirs.merge_and_unload()
    assert torch.allclose(whole(tokens()).logits, model.logits(model(tokens())), atol=1e-5)


def test_a_scalar_head_is_trained_and_saved_beside_the_adapters(tmp_path: Path) -> None:
    model = apply_lora(ScalarHead(build_model(SHAPE), "normal"), LoraConfig(rank=2, targets=("q_proj", "v_proj")))
    trainable = [name for name, parameter in model.named_parameters() if parameter.requires_grad]
    assert {name.rpartition("lora_")[0].split(".")[-2] for name in trainable if "lora" in name} == {"q_proj", "v_proj"}
    assert [name for name in trainable if "lora" not in name] == ["head.weight", "head.bias"]
    model(tokens()).sum().backward()
    assert isinstance(merged(model), ScalarHead)
    assert (save_adapter(model, tmp_path / "adapter") / checkpoint.VALUE_HEAD).is_file()


def test_equal_seeds_give_equal_adapters_and_a_copy_has_its_own() -> None:
    first, same, other = (apply_lora(build_model(SHAPE), LoraConfig(), seed).state_dict() for seed in (1, 1, 2))
    assert all(torch.equal(first[name], same[name]) for name in first)
    assert not torch.equal(first["layers.0.mlp.up_proj.lora_A.weight"], other["layers.0.mlp.up_proj.lora_A.weight"])
    model = apply_lora(build_model(SHAPE), LoraConfig())
    reference = copy.deepcopy(model)
    with torch.no_grad():
        before = reference(tokens())
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.fill_(1.0)
        assert torch.equal(reference(tokens()), before)
        assert not torch.allclose(model(tokens()), before)


def test_names_that_no_layer_has_are_refused_in_one_line() -> None:
    for targets in (("c_attn",), ("q_proj", "c_attn")):  # some of them (peft#1959) as well as all
        with pytest.raises(UserError, match=r"\['c_attn'\] name no layer that can be adapted: .* down_proj, gate_proj"):
            apply_lora(build_model(SHAPE), LoraConfig(targets=targets))
    with pytest.raises(UserError, match="lm_head"):  # as with unsloth#9326
        apply_lora(build_model(SHAPE), LoraConfig(targets=("q_proj", "lm_head")))


def never_seen(base: Path, ids: list[int]) -> nn.Module:
    """A base as training leaves it where no text has these tokens: their rows are one."""
    model = checkpoint.load_model(base)
    head = model.lm_head if hasattr(model, "lm_head") else model.inner.get_output_embeddings()
    embedding = model.embed_tokens if hasattr(model, "embed_tokens") else model.inner.get_input_embeddings()
    with torch.no_grad():
        for layer in (embedding, head):
            if layer is not None:
                layer.weight[ids] = layer.weight[ids[0]].clone()
    return model


def of_the_end(model: nn.Module) -> torch.Tensor:
    """The probability that token 91 comes next; 90 to 95 are alike."""
    return model.logits(model(tokens())).softmax(-1)[..., 91]


def test_a_token_that_the_base_never_learned_is_learned_beside_the_adapters(base: Path, tmp_path: Path) -> None:
    """As with an end of turn in a model of texts: frozen, its row is one with those of the other tokens."""
    peft = pytest.importorskip("peft")
    alike = list(range(90, 96))
    start = never_seen(base, alike)
    checkpoint.save(start, None, tmp_path / "start")
    told = {}
    for taught in ((), (7, 90, 91)):
        model = apply_lora(copy.deepcopy(start), LoraConfig(rank=4, alpha=8), tokens=taught)
        assert torch.equal(model.logits(model(tokens())), start.logits(start(tokens()))), "it begins as its base"
        optimizer = build_optimizer(PretrainConfig(learning_rate=3e-2, weight_decay=0.0), {"model": model})
        for _ in range(60):
            (-of_the_end(model).log().mean()).backward()
            optimizer.step()
            optimizer.zero_grad()
        told[taught] = model.eval()
    frozen, model = told.values()
    with torch.no_grad():
        assert of_the_end(frozen).max() < 1 / 6 + 1e-3
        assert of_the_end(model).mean() > 0.95
        assert model.lora_tokens == [90, 91], "those that it was asked for and that the base hadn't learned"
        weights = model.state_dict()
        assert all(torch.equal(weights[name], weight) for name, weight in start.state_dict().items())
        logits = model.logits(model(tokens()))
        folder = save_adapter(model, tmp_path / "adapter", tmp_path / "start")
        loaded, _ = load_adapter(folder)
        theirs = peft.PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(tmp_path / "start"), folder).eval()
        for other in (merged(model), loaded):
            assert torch.allclose(other.logits(other(tokens())), logits, atol=1e-4)
            assert set(other.state_dict()) == set(start.state_dict())
        assert torch.allclose(theirs(tokens()).logits, logits, atol=1e-4)
        assert torch.allclose(theirs.merge_and_unload()(tokens()).logits, logits, atol=1e-4)


def test_rows_are_unlearned_where_they_are_nothing_or_anothers() -> None:
    rows = torch.randn(50, 32, generator=torch.Generator().manual_seed(0))
    rows[3] = rows[9] * 1.5
    rows[4] = 1e-6
    assert untrained(rows, range(50)) == [3, 4, 9]
    assert untrained(rows, ()) == []
