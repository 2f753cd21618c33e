"""A GGUF file is a base like a folder: same logits as what was written, its own tokenizer, saved as a plain folder."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from datalake.errors import UserError
from models.network import checkpoint
from models.network.build import build_model
from models.network.config import NetworkConfig
from models.network.decoder import Decoder
from models.network.foreign import Foreign
from models.network.generate import generate
from models.text import tokenizer as text
from models.text.config import TokenizerConfig

gguf = pytest.importorskip("gguf")
TEMPLATE = "{% for m in messages %}<{{ m['role'] }}>{{ m['content'] }}{% endfor %}"
NAMES = {
    "embed_tokens": "token_embd",
    "lm_head": "output",
    "norm": "output_norm",
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
    "q_proj": "attn_q",
    "k_proj": "attn_k",
    "v_proj": "attn_v",
    "o_proj": "attn_output",
    "gate_proj": "ffn_gate",
    "up_proj": "ffn_up",
    "down_proj": "ffn_down",
}


@pytest.fixture(scope="module")
def words(tmp_path_factory: pytest.TempPathFactory):
    texts = ["where does the water flow? downhill it flows." * 9]
    return text.train(texts, TokenizerConfig(vocabulary=300), tmp_path_factory.mktemp("t") / "tokenizer")


def paired(weight: torch.Tensor, heads: int) -> torch.Tensor:
    """Rows of a head as llama.cpp's Llama turns them: neighbours, where Transformers pairs the first half with the
    second."""
    return weight.view(heads, 2, -1, weight.shape[1]).transpose(1, 2).reshape(weight.shape)


def write(model: Decoder, words, path: Path) -> None:
    """The decoder as a GGUF file in float16, with a small vocabulary of bytes."""
    shape = model.config
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_context_length(shape.context)
    writer.add_embedding_length(shape.width)
    writer.add_block_count(shape.layers)
    writer.add_feed_forward_length(shape.hidden)
    writer.add_head_count(shape.heads)
    writer.add_head_count_kv(shape.kv_heads)
    writer.add_key_length(shape.head_width)
    writer.add_layer_norm_rms_eps(shape.norm_eps)
    writer.add_rope_freq_base(shape.rope_base)
    writer.add_rope_dimension_count(shape.head_width)
    writer.add_vocab_size(shape.vocabulary)
    kept = words.backend_tokenizer
    tokens = [kept.id_to_token(id) or f"<spare {id}>" for id in range(shape.vocabulary)]
    merges = json.loads(kept.to_str())["model"]["merges"]
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list(tokens)
    writer.add_token_types([3 if token in words.all_special_tokens else 1 for token in tokens])
    writer.add_token_merges([" ".join(merge) for merge in merges])
    writer.add_eos_token_id(words.eos_token_id)
    writer.add_bos_token_id(words.bos_token_id)
    writer.add_chat_template(TEMPLATE)
    for name, weight in model.state_dict().items():
        *rest, part, _ = name.split(".")
        place = f"blk.{rest[1]}.{NAMES[part]}" if rest else NAMES[part]
        if part in ("q_proj", "k_proj"):
            weight = paired(weight, shape.heads if part == "q_proj" else shape.kv_heads)
        writer.add_tensor(f"{place}.weight", weight.half().numpy() if weight.ndim > 1 else weight.numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


@torch.no_grad()
def test_a_gguf_file_is_a_base(words, tmp_path: Path) -> None:
    shape = NetworkConfig(layers=2, width=32, heads=4, kv_heads=2, hidden=48, context=64, tie=False).sized(len(words))
    made = build_model(shape, seed=1)
    for parameter in made.parameters():
        parameter.copy_(torch.randn_like(parameter).mul(0.2).half().float())
    path = tmp_path / "tiny.gguf"
    write(made, words, path)
    model, own = checkpoint.load(path)
    assert isinstance(model, Decoder)
    assert model.config == shape.model_copy(update={"norm_eps": model.config.norm_eps})
    x = torch.randint(len(words), (2, 20), generator=torch.Generator().manual_seed(0))
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
    assert torch.allclose(model.logits(model(x)), made.logits(made(x)), atol=1e-4)
    assert checkpoint.context_of(path) == 64
    assert text.stop_ids(own, model) == text.stop_ids(words)
    assert own("the water flows").input_ids[-3:] == words("the water flows").input_ids[-3:]
    assert own.chat_template == TEMPLATE
    # Saved: a plain folder of the same class, tokenizer and template.
    folder = checkpoint.save(model, own, tmp_path / "folder")
    theirs = AutoModelForCausalLM.from_pretrained(folder)
    assert type(theirs).__name__ == "LlamaForCausalLM"
    assert getattr(theirs.config, "quantization_config", None) is None
    assert torch.allclose(theirs(x).logits, model.logits(model(x)), atol=1e-5)
    again = AutoTokenizer.from_pretrained(folder)
    assert again.chat_template == TEMPLATE
    assert again("the water flows").input_ids == own("the water flows").input_ids


def test_what_is_no_gguf_is_said_in_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "broken.gguf"
    path.write_bytes(b"GGUF but not really")
    for load in (checkpoint.load, checkpoint.load_model, text.load, checkpoint.context_of):
        with pytest.raises(UserError, match=r"can't be read") as caught:
            load(path)
        assert "\n" not in str(caught.value)
    with pytest.raises(UserError, match="is not a checkpoint"):
        checkpoint.load(tmp_path / "missing.gguf")
    monkeypatch.setattr("models.gguf.find_spec", lambda name: None)
    with pytest.raises(UserError, match="pip install gguf"):
        checkpoint.load(path)


@pytest.mark.slow
@pytest.mark.skipif(
    "HEADWATER_GGUF" not in os.environ, reason="HEADWATER_GGUF names no SmolLM2-135M-Instruct GGUF file"
)
def test_the_real_model_answers_from_its_file_and_from_the_folder_saved_from_it(tmp_path: Path) -> None:
    model, words = checkpoint.load(os.environ["HEADWATER_GGUF"])
    assert isinstance(model, Decoder)
    assert not isinstance(model, Foreign)
    assert 134e6 < model.config.parameters < 135e6
    question = [{"role": "user", "content": "What is the capital of France?"}]
    prompt = words.apply_chat_template(question, add_generation_prompt=True, tokenize=True, return_dict=False)
    stops = text.stop_ids(words, model)
    answer = generate(model, [prompt], 16, temperature=0, eos_id=stops)[0]
    assert "Paris" in words.decode(answer)
    folder = checkpoint.save(model, words, tmp_path / "folder")
    theirs, again = AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    written = theirs.generate(torch.tensor([prompt]), max_new_tokens=16, do_sample=False)[0, len(prompt) :].tolist()
    assert again.decode(written) == words.decode(answer)
    assert again.chat_template == words.chat_template
