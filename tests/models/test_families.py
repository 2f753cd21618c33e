"""Every family of the literature, from a tiny random model of its class: it trains and samples as our decoder does, or
is refused in one line.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from torch.nn import functional as F
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForMaskedLM, AutoModelForSeq2SeqLM

from datalake.errors import UserError
from models.network import checkpoint
from models.network.foreign import Foreign
from models.network.generate import generate
from models.network.masks import within_documents
from models.rl.policy import action_log_probs

VOCABULARY = 97
SIZES: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
LATENT = {"q_lora_rank": 16, "kv_lora_rank": 16, "qk_nope_head_dim": 8, "qk_rope_head_dim": 8, "v_head_dim": 8}
ROUTED = {"n_routed_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16, "first_k_dense_replace": 1}
HALF = ["sliding_attention", "full_attention"]

# The family as it is spoken of, the model type of its class, and what its config needs beside SIZES.
TRAINED: dict[str, tuple[str, dict[str, Any]]] = {
    "LLaMA": ("llama", {}),
    "Falcon": ("falcon", {"alibi": False, "new_decoder_architecture": True, "num_kv_heads": 2}),
    "Falcon 7B": ("falcon", {"alibi": False, "multi_query": True, "parallel_attn": True}),
    "InternLM 3": ("internlm3", {"head_dim": 8}),
    "Qwen 2": ("qwen2", {}),
    "Qwen 2 with windows": ("qwen2", {"use_sliding_window": True, "sliding_window": 6, "max_window_layers": 1}),
    "Qwen 2 MoE": (
        "qwen2_moe",
        {
            "num_experts": 4,
            "num_experts_per_tok": 2,
            "moe_intermediate_size": 16,
            "shared_expert_intermediate_size": 16,
        },
    ),
    "Qwen 3": ("qwen3", {"head_dim": 8}),
    "Mistral": ("mistral", {"sliding_window": 6, "head_dim": 8}),
    "Mixtral": ("mixtral", {"num_local_experts": 4}),
    "DeepSeek V2": ("deepseek_v2", {**LATENT, **ROUTED, "num_key_value_heads": 4, "topk_method": "greedy"}),
    "DeepSeek V3": (
        "deepseek_v3",
        {**LATENT, **ROUTED, "num_key_value_heads": 4, "n_group": 2, "topk_group": 1, "n_shared_experts": 1},
    ),
    "Gemma": ("gemma", {"head_dim": 8}),
    "Gemma 2": ("gemma2", {"head_dim": 8, "sliding_window": 6, "layer_types": HALF, "query_pre_attn_scalar": 8}),
    "Gemma 3": ("gemma3_text", {"head_dim": 8, "sliding_window": 6, "layer_types": HALF, "query_pre_attn_scalar": 8}),
    "MiniCPM 3": ("minicpm3", {**LATENT, "num_key_value_heads": 4}),
    "GLM": ("glm", {"head_dim": 8}),
    "GLM 4": ("glm4", {"head_dim": 8}),
    "GPT": ("openai-gpt", {}),
    "GPT-2": ("gpt2", {}),
    "GPT-NeoX": ("gpt_neox", {}),
    "GPT-OSS": (
        "gpt_oss",
        {"head_dim": 8, "sliding_window": 6, "layer_types": HALF, "num_local_experts": 4, "num_experts_per_tok": 2},
    ),
    "Phi": ("phi", {}),
    "Phi 3": ("phi3", {"sliding_window": 6}),
    "OLMo": ("olmo", {}),
    "OLMo 2": ("olmo2", {}),
    "SmolLM 3": ("smollm3", {}),
    "OPT": ("opt", {"word_embed_proj_dim": 32, "ffn_dim": 48}),
    "Cohere": ("cohere", {"logit_scale": 0.25}),
    "MPT": ("mpt", {"d_model": 32, "n_heads": 4, "n_layers": 2}),  # ALiBi by distance: packing asks for no positions
    "Granite": ("granite", {"logits_scaling": 4.0, "residual_multiplier": 0.5}),
}

# Refused, and the part of the line that says why.
REFUSED: dict[str, tuple[str, dict[str, Any], str]] = {
    "Bloom": ("bloom", {}, "BloomForCausalLM"),
    "Falcon with ALiBi": ("falcon", {"alibi": True}, "FalconForCausalLM"),
    "Mamba": ("mamba", {}, "MambaForCausalLM"),
    "BERT as a causal model": ("bert", {}, "BertLMHeadModel.*a later token moves earlier ones"),
    "RWKV": ("rwkv", {"attention_hidden_size": 32}, "RwkvForCausalLM"),
}

# Families whose published folders bring Python code of their own, as Transformers has no class for them.
NEED_CODE = {
    "Baichuan": ("baichuan", "modeling_baichuan.BaichuanForCausalLM"),
    "ChatGLM": ("chatglm", "modeling_chatglm.ChatGLMForConditionalGeneration"),
    "InternLM": ("internlm", "modeling_internlm.InternLMForCausalLM"),
    "InternLM 2": ("internlm2", "modeling_internlm2.InternLM2ForCausalLM"),
    "MiniCPM": ("minicpm", "modeling_minicpm.MiniCPMForCausalLM"),
    "Qwen 1": ("qwen", "modeling_qwen.QWenLMHeadModel"),
    "DeepSeek MoE": ("deepseek", "modeling_deepseek.DeepseekForCausalLM"),
    "YuLan-Mini": ("yulanmini", "modeling_yulanmini.YuLanMiniForCausalLM"),
}


def saved(folder: Path, kind: str, more: dict[str, Any], auto: Any = AutoModelForCausalLM) -> Path:
    """A folder with a tiny random model, its weights large enough that attention and logits matter."""
    torch.manual_seed(1)
    model = auto.from_config(AutoConfig.for_model(kind, **{**SIZES, **more}))
    for parameter in model.parameters():
        if parameter.ndim > 1:
            parameter.data.normal_(0, 0.15)
    model.save_pretrained(folder)
    return folder


def row(length: int, seed: int = 0) -> torch.Tensor:
    return torch.randint(3, VOCABULARY, (1, length), generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("name", TRAINED)
def test_a_family_is_exact_where_the_decoder_is(name: str, tmp_path: Path) -> None:
    model = checkpoint.load_model(saved(tmp_path, *TRAINED[name]))
    theirs = AutoModelForCausalLM.from_pretrained(tmp_path).eval()
    first, second = row(20), row(13, 1)
    with torch.no_grad():
        # Alone: Transformers' own masks, no padding, all of its logits.
        assert torch.allclose(model.logits(model(first)), theirs(first).logits, atol=1e-4)
        # In one row: no document sees another.
        segments = torch.tensor([[0] * 20 + [1] * 13])
        positions = torch.cat((torch.arange(20), torch.arange(13)))[None]
        packed = model(torch.cat((first, second), 1), positions, within_documents(segments))
        assert torch.allclose(packed, torch.cat((model(first), model(second)), 1), atol=2e-4)
    # In a batch: what each prompt becomes alone, and what Transformers makes of it.
    prompts = [first[0, :9].tolist(), second[0, :4].tolist(), first[0, 5:11].tolist()]
    alone = [generate(model, [prompt], 12, temperature=0)[0] for prompt in prompts]
    assert generate(model, prompts, 12, temperature=0) == alone
    written = theirs.generate(torch.tensor(prompts[:1]), max_new_tokens=12, do_sample=False, eos_token_id=None)
    assert written[0, 9:].tolist() == alone[0]
    # A step of training.
    model.train()
    before = F.cross_entropy(model.logits(model(first))[0, :-1], first[0, 1:])
    before.backward()
    assert all(parameter.grad is not None or not parameter.requires_grad for parameter in model.parameters())
    torch.optim.SGD(model.parameters(), 0.01).step()
    assert F.cross_entropy(model.logits(model(first))[0, :-1], first[0, 1:]) < before


@pytest.mark.parametrize("name", REFUSED)
def test_what_would_be_wrong_is_refused_in_one_line(name: str, tmp_path: Path) -> None:
    kind, more, why = REFUSED[name]
    saved(tmp_path, kind, more)
    with pytest.raises(UserError, match=why) as caught:
        checkpoint.load_model(tmp_path)
    assert "\n" not in str(caught.value)


def test_a_cap_on_logits_that_isnt_known_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """However small the weights are: it shows in logits made large."""
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model("gemma2", **{**SIZES, **TRAINED["Gemma 2"][1]}))
    for name in ("_LOGIT_RULES", "_PROVEN"):
        monkeypatch.setattr(f"models.network.foreign.{name}", {})
    with pytest.raises(UserError, match="Gemma2ForCausalLM can't be trained exactly here: its logits"):
        Foreign(model)


@pytest.mark.parametrize("name", NEED_CODE)
def test_what_brings_code_of_its_own_is_refused_in_one_line(name: str, tmp_path: Path) -> None:
    kind, code = NEED_CODE[name]
    assert kind not in transformers.CONFIG_MAPPING
    settings = '{"model_type": "%s", "auto_map": {"AutoConfig": "%s", "AutoModelForCausalLM": "%s"}}'
    (tmp_path / "config.json").write_text(settings % (kind, code.split(".")[0] + ".Config", code))
    with pytest.raises(UserError, match="brings Python code of its own") as caught:
        checkpoint.load_model(tmp_path)
    assert "\n" not in str(caught.value)


ENCODERS: dict[str, tuple[str, Any, dict[str, Any]]] = {
    "BERT": ("bert", AutoModelForMaskedLM, {}),
    "T5": ("t5", AutoModelForSeq2SeqLM, {"d_kv": 8, "d_ff": 48}),
    "T5 1.1": (
        "t5",
        AutoModelForSeq2SeqLM,
        {"d_kv": 8, "feed_forward_proj": "gated-gelu", "tie_word_embeddings": False},
    ),
}


@pytest.mark.parametrize("name", ENCODERS)
def test_encoders_come_from_their_folder_and_take_a_step(name: str, tmp_path: Path) -> None:
    kind, auto, more = ENCODERS[name]
    saved(tmp_path, kind, {"decoder_start_token_id": 0, **more}, auto)
    model, theirs = checkpoint.load_model(tmp_path).train(), auto.from_pretrained(tmp_path).eval()
    read, written = row(20), row(13, 1)
    given = (read,) if kind == "bert" else (read, None, written)
    with torch.no_grad():
        logits = theirs(read).logits if kind == "bert" else theirs(read, decoder_input_ids=written).logits
        assert torch.allclose(model.logits(model(*given)), logits, atol=1e-4)
    targets = given[-1].flatten()
    before = F.cross_entropy(model.logits(model(*given))[0], targets)
    before.backward()
    torch.optim.SGD(model.parameters(), 0.01).step()
    assert F.cross_entropy(model.logits(model(*given))[0], targets) < before


def test_dropout_is_off_so_the_first_ratio_is_one(tmp_path: Path) -> None:
    settings = {"resid_pdrop": 0.1, "embd_pdrop": 0.1, "attn_pdrop": 0.1}
    policy = checkpoint.load_model(saved(tmp_path, "gpt2", settings)).train()
    tokens = torch.cat((row(12), row(12, 1)))
    starts, actions, mask = torch.tensor([4, 4]), tokens[:, 4:], torch.ones(2, 8)
    sampled, again = (action_log_probs(policy, tokens, starts, actions, mask, 0.7)[0] for _ in range(2))
    assert torch.equal((again - sampled).exp(), torch.ones(2, 8))
    # The folder saved from it says what the base's said.
    checkpoint.save(policy, None, tmp_path / "again")
    assert AutoConfig.from_pretrained(tmp_path / "again").attn_pdrop == 0.1


def test_checkpointing_another_family_gives_the_same_gradients(tmp_path: Path) -> None:
    model = checkpoint.load_model(saved(tmp_path, "gemma2", TRAINED["Gemma 2"][1])).train()
    gradients = []
    for on in (False, True):
        model.checkpointing = on
        assert model.checkpointing is on
        model.zero_grad()
        model.logits(model(row(12))).logsumexp(-1).sum().backward()
        gradients.append([parameter.grad for parameter in model.parameters()])
    assert all(torch.equal(*pair) for pair in zip(*gradients, strict=True))
