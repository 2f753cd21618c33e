"""A checkpoint is a Hugging Face folder: Transformers reads ours with equal logits, and we read theirs."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    BertConfig,
    BertForMaskedLM,
    DistilBertConfig,
    DistilBertForMaskedLM,
    GenerationConfig,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    MixtralConfig,
    MixtralForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from datalake.errors import UserError
from datalake.sources.web.pydoc import write_archive
from models.network import checkpoint
from models.network.build import ScalarHead, build_model
from models.network.config import NetworkConfig
from models.network.decoder import Decoder
from models.network.foreign import Foreign
from models.network.generate import generate
from models.serving import chat
from models.text import tokenizer as text
from models.text.config import SPECIALS, TokenizerConfig
from models.text.rendering import render
from models.text.shards import write_shard
from models.text.template import CHAT_TEMPLATE
from models.training.state import save_state

TALK = [{"role": "user", "content": "水 flows where?"}]
SHAPES = {
    "Llama": {},
    "LlamaUntied": {"tie": False, "kv_heads": 1, "head_width": 24, "rope_base": 5e5},
    "Qwen3": {"qk_norm": True, "norm_eps": 1e-6},
    "Mixtral": {"experts": 4, "experts_per_token": 2},
    "Qwen3Moe": {"experts": 4, "experts_per_token": 3, "qk_norm": True},
}


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    texts = ["where does the water flow? downhill. 水往低处流。" * 9]
    return text.train(texts, TokenizerConfig(vocabulary=326), tmp_path_factory.mktemp("t") / "tokenizer")


def stirred(model: torch.nn.Module) -> torch.nn.Module:
    """With weights far enough from each other that no two names can be mixed up unseen."""
    draw = torch.Generator().manual_seed(11)
    for parameter in model.parameters():
        if parameter.ndim > 1:
            parameter.data.normal_(0, 0.15, generator=draw)
        else:
            parameter.data.uniform_(0.5, 1.5, generator=draw)
    return model.eval()


def shape(name: str, tokens: int) -> NetworkConfig:
    base = {"layers": 2, "width": 32, "heads": 4, "kv_heads": 2, "hidden": 48, "context": 64}
    return NetworkConfig(**{**base, **SHAPES[name]}).sized(tokens)


@pytest.mark.parametrize("name", SHAPES)
@torch.no_grad()
def test_transformers_reads_our_folder_with_equal_logits_and_equal_text(name: str, tokenizer, tmp_path: Path) -> None:
    model = stirred(build_model(shape(name, len(tokenizer))))
    folder = checkpoint.save(model, tokenizer, tmp_path / "model")
    theirs, loading = AutoModelForCausalLM.from_pretrained(folder, output_loading_info=True)
    assert type(theirs).__name__ == f"{name.removesuffix('Untied')}ForCausalLM"
    assert not any(loading[what] for what in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    x = torch.randint(len(tokenizer), (3, 40), generator=torch.Generator().manual_seed(0))
    assert torch.allclose(model.logits(model(x)), theirs(x).logits, atol=1e-5)

    prompt, _ = render(TALK, tokenizer, prompt=True)
    reader = AutoTokenizer.from_pretrained(folder)
    assert reader.apply_chat_template(TALK, add_generation_prompt=True)["input_ids"] == prompt
    written = theirs.generate(torch.tensor([prompt]), max_new_tokens=24, do_sample=False)[0, len(prompt) :].tolist()
    ours = generate(model, [prompt], 24, temperature=0, eos_id=text.stop_ids(tokenizer))[0]
    assert reader.decode(ours) == reader.decode(written)
    assert theirs.generation_config.eos_token_id == text.stop_ids(tokenizer)


@pytest.mark.parametrize("name", SHAPES)
@torch.no_grad()
def test_our_folder_comes_back_as_it_was(name: str, tokenizer, tmp_path: Path) -> None:
    model = stirred(build_model(shape(name, len(tokenizer))))
    checkpoint.save(model, tokenizer, tmp_path / "model")
    loaded, reader = checkpoint.load(tmp_path / "model")
    assert isinstance(loaded, Decoder)
    assert loaded.config == model.config
    assert all(torch.equal(weight, model.state_dict()[key]) for key, weight in loaded.state_dict().items())
    assert render(TALK, reader) == render(TALK, tokenizer)
    assert not loaded.training


@pytest.mark.parametrize(
    ("config", "kind", "more"),
    [
        (LlamaConfig, LlamaForCausalLM, {}),
        (LlamaConfig, LlamaForCausalLM, {"tie_word_embeddings": True, "rms_norm_eps": 1e-3}),
        (Qwen3Config, Qwen3ForCausalLM, {"head_dim": 16}),
        (MixtralConfig, MixtralForCausalLM, {"num_local_experts": 3}),
    ],
)
@torch.no_grad()
def test_we_read_their_folders_with_equal_logits(config, kind, more: dict, tmp_path: Path) -> None:
    sizes = {"vocab_size": 70, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2}
    theirs = stirred(kind(config(**sizes, **heads, **more)))
    theirs.save_pretrained(tmp_path, max_shard_size="30KB")
    assert (tmp_path / "model.safetensors.index.json").exists()
    ours = checkpoint.load_model(tmp_path)
    assert isinstance(ours, Decoder)
    x = torch.randint(70, (2, 30), generator=torch.Generator().manual_seed(0))
    assert torch.allclose(ours.logits(ours(x)), theirs(x).logits, atol=1e-5)


LLAMA3 = {"rope_type": "llama3", "low_freq_factor": 1.0, "high_freq_factor": 4.0}


@pytest.mark.parametrize(
    "rope",
    [
        {"rope_type": "linear", "factor": 2.0},
        {**LLAMA3, "factor": 8.0, "original_max_position_embeddings": 64},
        {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 128},
        {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 128, "truncate": False},
        {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 64, "beta_fast": 8, "beta_slow": 2},
        {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 64, "attention_factor": 0.7},
        {
            "rope_type": "yarn",
            "factor": 40.0,
            "original_max_position_embeddings": 64,
            "mscale": 0.7,
            "mscale_all_dim": 1.0,
        },
    ],
    ids=lambda rope: f"{rope['rope_type']} {rope['factor']}",
)
@torch.no_grad()
def test_scaled_positions_are_those_of_transformers_both_ways(rope: dict, tokenizer, tmp_path: Path) -> None:
    sizes = {"vocab_size": 320, "hidden_size": 64, "intermediate_size": 48, "num_hidden_layers": 2}
    more = {"num_attention_heads": 2, "max_position_embeddings": 512, "rope_parameters": {"rope_theta": 1e4, **rope}}
    theirs = stirred(LlamaForCausalLM(LlamaConfig(**sizes, **more)))
    theirs.save_pretrained(tmp_path / "theirs")
    ours = checkpoint.load_model(tmp_path / "theirs")
    assert isinstance(ours, Decoder)
    x = torch.randint(320, (2, 300), generator=torch.Generator().manual_seed(0))
    assert torch.allclose(ours.logits(ours(x)), theirs(x).logits, atol=2e-4)
    plain = build_model(ours.config.model_copy(update={"rope_scaling": None}))
    plain.load_state_dict(ours.state_dict())
    assert not torch.allclose(plain(x), ours(x), atol=0.1)
    del ours.base  # the decoder's own words for it
    again = AutoModelForCausalLM.from_pretrained(checkpoint.save(ours, tokenizer, tmp_path / "again"))
    assert torch.allclose(again(x).logits, theirs(x).logits, atol=2e-4)
    assert checkpoint.load_model(tmp_path / "again").config == ours.config


@torch.no_grad()
def test_positions_scaled_by_the_length_of_a_text_are_left_to_transformers(tmp_path: Path) -> None:
    sizes = {"vocab_size": 70, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 1}
    rope = {"rope_type": "dynamic", "factor": 2.0, "rope_theta": 10000.0}
    theirs = stirred(LlamaForCausalLM(LlamaConfig(**sizes, num_attention_heads=4, rope_parameters=rope)))
    theirs.save_pretrained(tmp_path)
    ours = checkpoint.load_model(tmp_path)
    assert isinstance(ours, Foreign)
    x = torch.randint(70, (2, 30), generator=torch.Generator().manual_seed(0))
    assert torch.allclose(ours.logits(ours(x)), theirs(x).logits, atol=1e-5)


def test_a_longer_context_is_asked_for_with_one_field() -> None:
    config = NetworkConfig(context=512, rope_scaling={"rope_type": "yarn", "factor": 4})
    assert config.rope_scaling.original_max_position_embeddings == 128
    assert NetworkConfig(**config.model_dump()) == config
    with pytest.raises(ValueError, match="high_freq_factor must be above"):
        NetworkConfig(rope_scaling={"rope_type": "llama3", "high_freq_factor": 1, "low_freq_factor": 2})


@torch.no_grad()
def test_a_head_that_lies_beside_the_embedding_counts_whatever_the_config_says(tmp_path: Path) -> None:
    # vllm#51665: a tuned model's config said "tied", its files held a head of their own
    sizes = {"vocab_size": 70, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2}
    theirs = stirred(LlamaForCausalLM(LlamaConfig(**sizes, num_attention_heads=4, tie_word_embeddings=False)))
    theirs.save_pretrained(tmp_path)
    settings = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(settings | {"tie_word_embeddings": True}))
    ours = checkpoint.load_model(tmp_path)
    x = torch.arange(20)[None]
    assert torch.allclose(ours.logits(ours(x)), theirs(x).logits, atol=1e-5)
    checkpoint.save(ours, None, tmp_path / "again")
    assert json.loads((tmp_path / "again" / "config.json").read_text())["tie_word_embeddings"] is False
    weights = load_file(tmp_path / "model.safetensors")
    copied = weights | {"lm_head.weight": weights["model.embed_tokens.weight"].clone()}
    save_file(copied, tmp_path / "model.safetensors")
    assert checkpoint.load_model(tmp_path).lm_head is None  # a copy is no head of its own


def test_weights_that_are_no_numbers_or_have_other_names_are_refused(tmp_path: Path) -> None:
    checkpoint.save(build_model(NetworkConfig(layers=1, width=16, heads=2, vocabulary=64)), None, tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    name = "model.layers.0.mlp.up_proj.weight"
    save_file(weights | {name: torch.full_like(weights[name], torch.nan)}, tmp_path / "model.safetensors")
    with pytest.raises(UserError, match=r"no number, in layers.0.mlp.up_proj.weight"):
        checkpoint.load_model(tmp_path)
    save_file({f"_orig_mod.{key}": weight for key, weight in weights.items()}, tmp_path / "model.safetensors")
    with pytest.raises(UserError, match=r"its files have no model.embed_tokens.weight"):
        checkpoint.load_model(tmp_path)


@torch.no_grad()
def test_another_family_answers_through_the_same_calls(tokenizer, tmp_path: Path) -> None:
    theirs = stirred(GPT2LMHeadModel(GPT2Config(vocab_size=320, n_embd=32, n_layer=2, n_head=4, n_positions=64)))
    theirs.save_pretrained(tmp_path / "gpt2")
    model = build_model({"family": "auto", "path": tmp_path / "gpt2"}).eval()
    x = torch.randint(320, (2, 20), generator=torch.Generator().manual_seed(0))
    assert torch.allclose(model.logits(model(x)), theirs(x).logits, atol=1e-5)
    causal = torch.ones(20, 20, dtype=torch.bool).tril()[None, None]
    assert torch.allclose(model(x, attend=causal), model(x), atol=1e-5)
    prompts = [[1, 2, 3], [4], [5, 6]]
    alone = [generate(model, [prompt], 12, temperature=0)[0] for prompt in prompts]
    assert generate(model, prompts, 12, temperature=0) == alone
    written = theirs.generate(torch.tensor([prompts[0]]), max_new_tokens=12, do_sample=False, pad_token_id=0)
    assert written[0, 3:].tolist() == alone[0]
    assert ScalarHead(model)(x).shape == (2, 20)
    checkpoint.save(ScalarHead(model), tokenizer, tmp_path / "again")
    again, _ = checkpoint.load(tmp_path / "again")
    assert torch.equal(again.trunk(x), model(x))


@torch.no_grad()
def test_an_encoder_answers_through_the_same_calls(tmp_path: Path) -> None:
    sizes = {
        "vocab_size": 90,
        "hidden_size": 32,
        "num_hidden_layers": 1,
        "num_attention_heads": 4,
        "intermediate_size": 48,
    }
    theirs = stirred(BertForMaskedLM(BertConfig(**sizes)))
    theirs.save_pretrained(tmp_path / "bert")
    model = build_model({"family": "auto", "path": tmp_path / "bert", "task": "masked"}).eval()
    x = torch.randint(90, (2, 20), generator=torch.Generator().manual_seed(0))
    assert torch.allclose(model.logits(model(x)), theirs(x).logits, atol=1e-5)
    seen = torch.ones(2, 20, dtype=torch.bool)
    seen[1, 12:] = False
    masked = theirs(x, attention_mask=seen.long()).logits
    apart = model.logits(model(x, attend=seen[:, None, None, :].expand(2, 1, 20, 20)))
    assert torch.allclose(apart, masked, atol=1e-5)


def test_a_family_whose_head_cant_be_taken_apart_is_refused(tmp_path: Path) -> None:
    DistilBertForMaskedLM(
        DistilBertConfig(vocab_size=90, dim=32, n_layers=1, n_heads=4, hidden_dim=48)
    ).save_pretrained(tmp_path)
    with pytest.raises(UserError, match=r"DistilBertForMaskedLM can't .* its logits come from its hidden states"):
        build_model({"family": "auto", "path": tmp_path, "task": "masked"})


@torch.no_grad()
def test_a_scalar_head_lies_beside_the_body(tokenizer, tmp_path: Path) -> None:
    reward = ScalarHead(stirred(build_model(shape("Llama", len(tokenizer)))), "normal")
    reward.head.bias.fill_(0.25)
    checkpoint.save(reward, tokenizer, tmp_path / "reward")
    loaded, _ = checkpoint.load(tmp_path / "reward")
    assert isinstance(loaded, ScalarHead)
    x = torch.randint(64, (2, 9), generator=torch.Generator().manual_seed(0))
    assert torch.equal(loaded(x), reward(x))
    assert type(AutoModelForCausalLM.from_pretrained(tmp_path / "reward")) is LlamaForCausalLM


def test_saving_replaces_whole_or_not_at_all_and_gives_equal_bytes(tokenizer, tmp_path: Path, monkeypatch) -> None:
    model = stirred(build_model(shape("Llama", len(tokenizer))))
    checkpoint.save(model, tokenizer, tmp_path / "a")
    checkpoint.save(model, tmp_path / "a", tmp_path / "b")
    before = {path.name: path.read_bytes() for path in (tmp_path / "a").iterdir()}
    assert before == {path.name: path.read_bytes() for path in (tmp_path / "b").iterdir()}
    (tmp_path / "a" / "stale").write_text("from another save")

    def fail(*_: object) -> None:
        raise OSError("no space left")

    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "_write", fail)
        with pytest.raises(OSError, match="no space"):
            checkpoint.save(model, tokenizer, tmp_path / "a")
    assert (tmp_path / "a" / "model.safetensors").read_bytes() == before["model.safetensors"]
    checkpoint.save(model, tokenizer, tmp_path / "a")
    assert before == {path.name: path.read_bytes() for path in (tmp_path / "a").iterdir()}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b"]


def test_what_is_no_checkpoint_is_said_in_one_line(tokenizer, tmp_path: Path) -> None:
    def said(folder: Path) -> str:
        with pytest.raises(UserError) as caught:
            checkpoint.load(folder)
        assert "\n" not in str(caught.value)
        return str(caught.value)

    assert "is not a checkpoint" in said(tmp_path / "nothing")
    assert "is not a checkpoint" in said(tmp_path)
    folder = checkpoint.save(build_model(shape("Llama", len(tokenizer))), tokenizer, tmp_path / "m")
    weights = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(weights[:1000])
    assert "can't be read" in said(folder)
    (folder / "model.safetensors").unlink()
    assert "model.safetensors is missing" in said(folder)
    (folder / "model.safetensors").write_bytes(weights)
    settings = json.loads((folder / "config.json").read_text())
    for wrong in (
        "{",
        json.dumps({**settings, "num_hidden_layers": 3}),
        json.dumps({"model_type": "llama"}),
        '{"model_type": "x"}',
    ):
        (folder / "config.json").write_text(wrong)
        said(folder)


@pytest.mark.parametrize("mask", [0o022, 0o027, 0o002])
def test_files_have_the_mode_that_the_umask_gives(tokenizer, tmp_path: Path, mask: int) -> None:
    before = os.umask(mask)
    try:
        model = build_model(shape("Llama", len(tokenizer)))
        checkpoint.save(ScalarHead(model), tokenizer, tmp_path / "ours")
        theirs = LlamaForCausalLM(
            LlamaConfig(vocab_size=64, hidden_size=16, num_hidden_layers=1, num_attention_heads=2)
        )
        checkpoint.save(Foreign(theirs.eval()), tokenizer, tmp_path / "theirs")
        text.train(["words and words"], TokenizerConfig(vocabulary=326), tmp_path / "words")
        write_shard([(b"a" * 16, "words")], tokenizer, tmp_path / "tokens", "x")
        save_state(tmp_path / "state", {"step": 1, "targets": 0}, "i")
        write_archive(tmp_path / "pages.warc", ["this"])
    finally:
        os.umask(before)
    for path in tmp_path.rglob("*"):
        assert path.stat().st_mode & 0o777 == (0o777 if path.is_dir() else 0o666) & ~mask, path


def test_the_tokenizers_config_is_read_by_transformers_4_and_5(tokenizer, tmp_path: Path) -> None:
    """4 knows no class TokenizersBackend, and takes a list of special tokens by its old name only."""
    folder = checkpoint.save(build_model(shape("Llama", len(tokenizer))), tokenizer, tmp_path / "model")
    again = checkpoint.save(*checkpoint.load(folder), tmp_path / "again")
    for place in (folder, again):
        settings = json.loads((place / "tokenizer_config.json").read_text())
        assert settings["tokenizer_class"] == "PreTrainedTokenizerFast"
        assert settings["additional_special_tokens"] == [name for name in SPECIALS[3:] if name != "<|mask|>"]
        assert "extra_special_tokens" not in settings
        reader = AutoTokenizer.from_pretrained(place)
        assert set(reader.all_special_tokens) == set(SPECIALS)
        assert reader.convert_tokens_to_ids(list(SPECIALS)) == list(range(len(SPECIALS)))
        assert reader.chat_template == CHAT_TEMPLATE
    assert (folder / "tokenizer_config.json").read_bytes() == (again / "tokenizer_config.json").read_bytes()
    generation = GenerationConfig.from_pretrained(folder)
    assert generation.eos_token_id == text.stop_ids(tokenizer)
    assert (generation.pad_token_id, generation.bos_token_id) == (tokenizer.pad_token_id, tokenizer.bos_token_id)


@pytest.mark.parametrize("kind", ["ours", "theirs"])
def test_answers_end_where_the_generation_settings_say(tokenizer, tmp_path: Path, kind: str) -> None:
    """An instruction-tuned model often ends its turns with another token than its tokenizer's end of text."""
    if kind == "ours":
        folder = checkpoint.save(stirred(build_model(shape("Llama", len(tokenizer)))), tokenizer, tmp_path / "model")
    else:
        gpt = GPT2LMHeadModel(GPT2Config(vocab_size=len(tokenizer), n_embd=16, n_layer=1, n_head=2, n_positions=64))
        folder = checkpoint.save(Foreign(gpt.eval()), tokenizer, tmp_path / "model")
    model, words = checkpoint.load(folder)
    prompt, _ = render(TALK, words, prompt=True)
    written = generate(model, [prompt], 12, temperature=0)[0]
    own = set(text.stop_ids(tokenizer))
    last = next(token for token in written if token not in own)
    settings = json.loads((folder / "generation_config.json").read_text())
    (folder / "generation_config.json").write_text(json.dumps(settings | {"eos_token_id": [last, *own]}))
    model, words = checkpoint.load(folder)
    assert text.stop_ids(words, model) == sorted([last, *own])
    pieces = "".join(chat.reply(model, words, TALK, 12, temperature=0))
    assert pieces == words.decode(written[: written.index(last)], skip_special_tokens=True)
    # it stays so in the folder of a model tuned from this one
    again = checkpoint.save(ScalarHead(model), words, tmp_path / "again")
    assert text.stop_ids(words, checkpoint.load(again)[0].trunk) == sorted([last, *own])
    tuned = checkpoint.save(model, words, tmp_path / "tuned")
    assert sorted(GenerationConfig.from_pretrained(tuned).eos_token_id) == sorted([last, *own])


def test_a_base_keeps_what_its_folder_says(tokenizer, tmp_path: Path) -> None:
    """Sampling settings, and fields of the config that the decoder has no word for."""
    folder = checkpoint.save(stirred(build_model(shape("Llama", len(tokenizer)))), tokenizer, tmp_path / "base")
    for name, more in (
        ("config.json", {"pretraining_tp": 2, "torch_dtype": "bfloat16", "max_window_layers": 7}),
        ("generation_config.json", {"temperature": 0.6, "do_sample": True, "repetition_penalty": 1.1}),
    ):
        settings = json.loads((folder / name).read_text())
        (folder / name).write_text(json.dumps(settings | more))
    model, words = checkpoint.load(folder)
    again = checkpoint.save(ScalarHead(model), words, tmp_path / "again")
    before, after = (json.loads((place / "config.json").read_text()) for place in (folder, again))
    assert before.pop("torch_dtype") == "bfloat16"
    assert after == before
    before, after = (json.loads((place / "generation_config.json").read_text()) for place in (folder, again))
    assert after == before


def test_another_familys_folder_comes_back_with_its_class_tokenizer_template_and_settings(
    tokenizer, tmp_path: Path
) -> None:
    gpt = GPT2LMHeadModel(GPT2Config(vocab_size=len(tokenizer), n_embd=16, n_layer=1, n_head=2, attn_pdrop=0.2))
    gpt.generation_config.update(temperature=0.6, do_sample=True, eos_token_id=[3, 4])
    gpt.save_pretrained(tmp_path / "base")
    tokenizer.save_pretrained(tmp_path / "base")
    template = "{% for m in messages %}[{{ m['role'] }}]{{ m['content'] }}{% endfor %}"
    (tmp_path / "base" / "chat_template.jinja").write_text(template)
    checkpoint.save(*checkpoint.load(tmp_path / "base"), tmp_path / "again")
    for name in ("config.json", "tokenizer.json", "chat_template.jinja"):
        before, after = ((tmp_path / place / name).read_text() for place in ("base", "again"))
        assert after == before, name
    paths = (tmp_path / place / "generation_config.json" for place in ("base", "again"))
    before, after = (json.loads(path.read_text()) for path in paths)
    assert after == before | {"eos_token_id": [1, 3, 4, 6]}  # and what ends a text and a turn
    theirs = AutoModelForCausalLM.from_pretrained(tmp_path / "again")
    assert type(theirs) is GPT2LMHeadModel
    assert all(torch.equal(weight, gpt.state_dict()[key]) for key, weight in theirs.state_dict().items())
