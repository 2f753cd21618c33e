"""A checkpoint leaves the house whole: the folder, its GGUF file and its Modelfile say what the checkpoint says."""

from __future__ import annotations

import contextlib
import json
import os
import random
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import go_template
import httpx
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from datalake.errors import UserError
from models.export import folder as hub
from models.export import gguf as llama_cpp
from models.export import ollama
from models.export.destination import destination
from models.gguf import text_field
from models.network import checkpoint
from models.network.build import ScalarHead, build_model
from models.network.config import LoraConfig, NetworkConfig, RopeScaling
from models.network.decoder import Decoder
from models.network.lora import apply_lora, merged, save_adapter
from models.network.rope import scaled_frequencies
from models.pre_tokenizers import named, pre_tokenizer
from models.text import template
from models.text import tokenizer as text
from models.text.config import TEMPLATES, TokenizerConfig
from models.text.templating import with_template

DIALOGUE = [
    {"role": "system", "content": "Answer in one line."},
    {"role": "user", "content": "Where does the water flow?"},
    {"role": "assistant", "content": "Downhill. 往下流。"},
    {"role": "user", "content": "And then?"},
]
CODE = "def f(x):\n    return {k: v ** 2 for k, v in x.items() if v != 0x1F}\n\n\tprint(f'{x!r}')\r\n"
CHINESE = "老城的河边有一座木桥，桥头住着一位修钟表的老人。每天清晨，他打开窗户，听见对岸学校的铃声。"
SHAPES: dict[str, dict[str, Any]] = {
    "llama": {"tie": False},
    "qwen3": {"qk_norm": True, "head_width": 128},  # the one width that Transformers reads a Qwen3 with
    "qwen3moe": {"qk_norm": True, "experts": 4, "head_width": 16, "hidden": 768},  # and experts of that width
}


@pytest.fixture(scope="module")
def words(tmp_path_factory: pytest.TempPathFactory):
    texts = [f"Where does the water flow? Downhill it flows, {n} times. {CHINESE} {CODE}" for n in range(40)]
    return text.train(texts, TokenizerConfig(vocabulary=500), tmp_path_factory.mktemp("t") / "tokenizer")


@pytest.fixture(scope="module")
def strings() -> list[str]:
    """Ten thousand strings of every kind that tokenizers trip over."""
    draw = random.Random(0)
    pools = [
        [chr(n) for n in range(32, 127)],
        [chr(n) for n in (*range(0xA1, 0x250), *range(0x370, 0x500), *range(0x5D0, 0x5EB), *range(0x900, 0x970))],
        [chr(n) for n in range(0x4E00, 0x4E80)] + list("，。、！？；：「」　"),
        ["😀", "👩‍👩‍👧", "🇨🇳", "👍🏽", "❤️", "e\u0301", "ﬁ", "\u200d", "\ufeff", "\u00ad"],
        list(" \t\n\r\u00a0\u2003\u3000\u0085\u2028\v\f"),
        [*"0123456789", "٣", "½", "Ⅷ", "１２", "3.14", "1,000", "0x1F", "-7"],
        ["def ", "return", "    ", "\t", "()", "{}", "[];", "->", "!=", "//", "#", "'s", "'LL", "I'm", "don't", "'re"],
        ["<|end|>", "<|bos|>", "<|user|>", "<|", "|>", "[PAD330]", "<0x0A>", "</s>"],
        ["a", "b", " "],
    ]
    made = [*CODE.splitlines(keepends=True), CHINESE, "", " ", "\n" * 9, " " * 50, "a" * 300, "1" * 40]
    folder = os.environ.get("HEADWATER_SAMPLES")
    if folder and (Path(folder) / "text").is_dir():
        import gzip

        for name in (
            "wikitext-2-valid.txt.gz",
            "chinesewebtext-2021-43-cleared1.jsonl.gz",
            "llmfoundry-arxiv.jsonl.gz",
        ):
            with gzip.open(Path(folder) / "text" / name, "rt", encoding="utf-8") as lines:
                made += [line[:400] for line, _ in zip(lines, range(800), strict=False)]
    while len(made) < 10_000:
        some = draw.choices(pools, k=draw.randint(1, 3))
        made.append("".join(draw.choice(draw.choice(some)) for _ in range(draw.randint(1, 30))))
    return made


def network(rows: int, seed: int = 1, **more: Any) -> Decoder:
    """A small decoder with weights large enough to tell one place from another."""
    fields = {"layers": 2, "width": 64, "heads": 4, "kv_heads": 2, "hidden": 96, "context": 96} | more
    model = build_model(NetworkConfig(**fields).sized(rows), seed=seed)
    assert isinstance(model, Decoder)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            drawn = torch.randn(parameter.shape, generator=generator) * 0.2
            parameter.copy_(drawn + 1 if parameter.ndim == 1 else drawn)  # norms about 1, else all attend to all alike
    return model.eval()


def rows_of(words: Any) -> torch.Tensor:
    return torch.randint(len(words), (2, 24), generator=torch.Generator().manual_seed(0))


@torch.no_grad()
def test_the_folder_loads_by_plain_auto_classes_and_writes_dialogues_as_before(words, tmp_path: Path) -> None:
    model = network(len(words))
    source = checkpoint.save(model, words, tmp_path / "source")
    with destination(tmp_path / "out") as place:
        hub.write(hub.read(source), place)
    theirs, again = (
        AutoModelForCausalLM.from_pretrained(tmp_path / "out"),
        AutoTokenizer.from_pretrained(tmp_path / "out"),
    )
    x = rows_of(words)
    assert torch.allclose(theirs(x).logits, model.logits(model(x)), atol=1e-5)
    for prompt in (True, False):
        ids = words.apply_chat_template(DIALOGUE, add_generation_prompt=prompt, return_dict=False)
        assert again.apply_chat_template(DIALOGUE, add_generation_prompt=prompt, return_dict=False) == ids
    assert theirs.generation_config.eos_token_id == text.stop_ids(words)


def test_numbers_stay_of_their_type(words, tmp_path: Path) -> None:
    source = checkpoint.save(network(len(words)).to(torch.bfloat16), words, tmp_path / "source")
    with destination(tmp_path / "out") as place:
        hub.write(hub.read(source), place)
    assert (tmp_path / "out" / "model.safetensors").read_bytes() == (source / "model.safetensors").read_bytes()


@torch.no_grad()
def test_adapters_are_added_to_their_base(words, tmp_path: Path) -> None:
    base = checkpoint.save(network(len(words)), words, tmp_path / "base")
    adapted = apply_lora(checkpoint.load_model(base), LoraConfig(rank=2, targets=("q_proj", "up_proj")))
    for name, parameter in adapted.named_parameters():
        if ".lora_B" in name:
            parameter.copy_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(3)))
    adapter = save_adapter(adapted, tmp_path / "adapter", base)
    loaded = hub.read(adapter)
    x = rows_of(words)
    whole: Any = merged(adapted)
    assert torch.allclose(loaded.model.logits(loaded.model(x)), whole.logits(whole(x)), atol=1e-5)
    assert not torch.allclose(loaded.model(x), checkpoint.load_model(base)(x), atol=1e-2)
    settings = json.loads((adapter / "adapter_config.json").read_text())
    (adapter / "adapter_config.json").write_text(json.dumps(settings | {"base_model_name_or_path": "gone/away"}))
    with pytest.raises(UserError, match=r"adapters of gone/away, which isn't here"):
        hub.read(adapter)


def test_what_cant_be_exported_is_said_in_one_line(words, tmp_path: Path) -> None:
    model = network(len(words))
    judge = checkpoint.save(ScalarHead(model), words, tmp_path / "judge")
    half = checkpoint.save(model, words, tmp_path / "half")
    weights = (half / "model.safetensors").read_bytes()
    (half / "model.safetensors").write_bytes(weights[: len(weights) // 2])
    bare = checkpoint.save(model, None, tmp_path / "bare")
    for source, why in ((judge, "reward model"), (half, "can't be read"), (bare, "no tokenizer")):
        with pytest.raises(UserError, match=why) as caught:
            hub.read(source)
        assert "\n" not in str(caught.value)


def test_a_folder_that_is_there_stays_as_it_was(words, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model, out = network(len(words)), tmp_path / "out"
    out.mkdir()
    (out / "mine.txt").write_text("mine")
    for force, why in ((False, "is there already"), (True, "something else than an export")):
        with pytest.raises(UserError, match=why), destination(out, force):
            pass
    assert (out / "mine.txt").read_text() == "mine"
    new = tmp_path / "new"
    monkeypatch.setattr("models.network.checkpoint.save_file", full)  # as safetensors says it
    with pytest.raises(UserError, match=r"can't be written \(No space left"), destination(new) as place:
        hub.write(hub.Loaded(model, words, torch.float32), place)
    assert [path.name for path in tmp_path.iterdir()] == ["out"]  # neither the folder nor what was begun of it


def full(*_: Any) -> None:
    """A disk without room."""
    raise OSError(28, "No space left on device")


@torch.no_grad()
@pytest.mark.parametrize("name", SHAPES)
def test_a_gguf_file_read_back_computes_the_same(name: str, words, tmp_path: Path) -> None:
    pytest.importorskip("gguf")
    model = network(len(words), **SHAPES[name])
    llama_cpp.write(model, words, tmp_path / "model.gguf")
    theirs = AutoModelForCausalLM.from_pretrained(tmp_path, gguf_file="model.gguf", dtype=torch.float32).eval()
    assert theirs.config.model_type.replace("_", "") == name
    x = rows_of(words)
    assert (theirs(x).logits - model.logits(model(x))).abs().max() < 1e-4
    folder = AutoModelForCausalLM.from_pretrained(checkpoint.save(model, words, tmp_path / "folder"))
    greedy: dict[str, Any] = {"max_new_tokens": 32, "do_sample": False, "attention_mask": torch.ones_like(x)}
    assert torch.equal(theirs.generate(x, **greedy), folder.generate(x, **greedy))


def test_its_tokenizer_gives_equal_ids_on_ten_thousand_strings(words, strings: Sequence[str], tmp_path: Path) -> None:
    pytest.importorskip("gguf")
    llama_cpp.write(network(len(words)), words, tmp_path / "model.gguf")
    again = AutoTokenizer.from_pretrained(tmp_path, gguf_file="model.gguf")
    ours, theirs = words(list(strings)).input_ids, again(list(strings)).input_ids
    assert len(strings) == 10_000
    assert [text for text, a, b in zip(strings, ours, theirs, strict=True) if a != b] == []
    ids = words.apply_chat_template(DIALOGUE, add_generation_prompt=True, return_dict=False)
    assert again.apply_chat_template(DIALOGUE, add_generation_prompt=True, return_dict=False) == ids
    assert again.eos_token == words.eos_token


def test_what_the_file_says_is_what_llama_cpp_asks_for(words, tmp_path: Path) -> None:
    gguf = pytest.importorskip("gguf")
    scaling = RopeScaling(rope_type="yarn", factor=2.0, original_max_position_embeddings=48)
    model = network(len(words), experts=4, rope_scaling=scaling)
    fields = read(gguf, model, words, tmp_path / "mixtral.gguf", "bfloat16")[0]
    assert fields["general.architecture"] == "llama"
    assert (fields["llama.expert_count"], fields["llama.expert_used_count"]) == (4, 2)
    assert fields["llama.rope.scaling.type"] == "yarn"
    assert fields["llama.rope.scaling.original_context_length"] == 48
    assert fields["tokenizer.ggml.pre"] == "qwen2"
    assert fields["tokenizer.ggml.eot_token_id"] == text.special(words, "<|end|>")
    assert not fields["tokenizer.ggml.add_bos_token"]
    kinds, tokens = fields["tokenizer.ggml.token_type"], fields["tokenizer.ggml.tokens"]
    assert len(tokens) == len(kinds) == model.config.vocabulary
    assert [kind for kind in kinds[: len(words)] if kind == 3] == [3] * len(words.all_special_tokens)
    assert set(kinds[len(words) :]) == {5}
    assert "generation" not in fields["tokenizer.chat_template"].replace("add_generation_prompt", "")
    tensors = read(gguf, model, words, tmp_path / "mixtral.gguf", "bfloat16")[1]
    experts = torch.stack([model.layers[0].mlp.experts[n].up_proj.weight for n in range(4)])
    assert torch.equal(tensors["blk.0.ffn_up_exps.weight"], experts.detach().bfloat16().float())
    assert torch.equal(tensors["blk.1.ffn_gate_inp.weight"], model.layers[1].mlp.gate.weight.detach())


def test_llama_3s_scaling_of_positions_is_a_tensor_of_factors(words, tmp_path: Path) -> None:
    gguf = pytest.importorskip("gguf")
    scaling = RopeScaling(rope_type="llama3", factor=8.0, original_max_position_embeddings=32)
    model = network(len(words), rope_scaling=scaling)
    tensors = read(gguf, model, words, tmp_path / "long.gguf")[1]
    plain = scaled_frequencies(network(len(words)).config)
    assert torch.allclose(plain / tensors["rope_freqs.weight"], scaled_frequencies(model.config))
    with pytest.raises(UserError, match="scales no positions"):
        llama_cpp.write(network(len(words), qk_norm=True, rope_scaling=scaling), words, tmp_path / "no.gguf")


def read(gguf: Any, model: Decoder, words: Any, path: Path, dtype: str = "float32") -> tuple[dict[str, Any], Any]:
    """A file's fields, and its tensors in float32."""
    llama_cpp.write(model, words, path, dtype)
    reader = gguf.GGUFReader(path)
    tensors = {
        one.name: torch.from_numpy(gguf.quants.dequantize(one.data, one.tensor_type).copy()) for one in reader.tensors
    }
    return {name: field.contents() for name, field in reader.fields.items()}, tensors


def test_a_tokenizer_that_llama_cpp_would_read_otherwise_is_refused(words, tmp_path: Path) -> None:
    from tokenizers import Regex, pre_tokenizers

    assert pre_tokenizer(words) == "qwen2"
    text.save(words, tmp_path)
    other = text.load(tmp_path)
    split = pre_tokenizers.Split(Regex(r"\p{L}+|."), behavior="isolated")
    bytes_only = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    other.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence([split, bytes_only])
    with pytest.raises(UserError, match="no way of splitting text"):
        llama_cpp.write(network(len(words)), other, tmp_path / "no.gguf")
    digits = pre_tokenizers.Digits(individual_digits=True)
    gpt2 = pre_tokenizers.ByteLevel(add_prefix_space=False)
    for steps, name in (([digits, gpt2], "smollm"), ([gpt2], "gpt-2")):
        other.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence(steps)
        assert pre_tokenizer(other) == name


def split_as(name: str, words: Any, folder: Path) -> Any:
    """A tokenizer with the same tokens that splits text in another way that llama.cpp knows."""
    text.save(words, folder)
    other = text.load(folder)
    other.backend_tokenizer.pre_tokenizer = named(name, None)
    return other


@pytest.mark.parametrize("name", ["qwen2", "gpt-2", "smollm"])
def test_a_tokenizer_read_from_a_file_splits_as_the_file_says(
    name: str, words, strings: Sequence[str], tmp_path: Path
) -> None:
    pytest.importorskip("gguf")
    other = split_as(name, words, tmp_path / "tokenizer")
    llama_cpp.write(network(len(words)), other, tmp_path / "model.gguf")
    assert text_field(tmp_path / "model.gguf", "tokenizer.ggml.pre") == name
    assert text_field(tmp_path / "model.gguf", "general.architecture") == "llama"
    assert text_field(tmp_path / "model.gguf", "tokenizer.ggml.tokens") is None  # no text
    again = text.load(tmp_path / "model.gguf")
    theirs = again(list(strings), add_special_tokens=False).input_ids
    assert [one for one, a, b in zip(strings, other(list(strings)).input_ids, theirs, strict=True) if a != b] == []


def test_llama_cpp_leaves_out_bytes_without_a_token_as_the_tokenizer_does(
    words, llama: Callable[..., Callable[..., Any]], tmp_path: Path
) -> None:
    """SmolLM2's has no token for bytes that no text holds."""
    text.save(words, tmp_path / "tokenizer")
    described = json.loads((tmp_path / "tokenizer" / "tokenizer.json").read_text(encoding="utf-8"))
    described["model"]["vocab"]["no byte"] = described["model"]["vocab"].pop("\u0106")  # of the control character 6
    (tmp_path / "tokenizer" / "tokenizer.json").write_text(json.dumps(described), encoding="utf-8")
    poorer = text.load(tmp_path / "tokenizer")
    assert poorer("a\x06b").input_ids == [*poorer("a").input_ids, *poorer("b").input_ids]
    ask = llama(network(len(words)), poorer)
    for one in ("a\x06b", "\x06", "where\x06\x06 it flows", "the water"):
        told = ask("/tokenize", content=one, add_special=False, parse_special=True)["tokens"]
        assert told == poorer(one).input_ids, one


@pytest.fixture
def llama(words, tmp_path: Path) -> Iterator[Callable[..., Callable[..., Any]]]:
    """A model written as GGUF and read by llama.cpp's own server: its answers, by path and body."""
    package = pytest.importorskip("xllamacpp", reason="no llama.cpp: pip install xllamacpp")
    with contextlib.ExitStack() as opened:

        def serve(model: Decoder, tokenizer: Any = words) -> Callable[..., Any]:
            llama_cpp.write(model, tokenizer, tmp_path / "model.gguf")
            params = package.CommonParams()
            params.model.path = str(tmp_path / "model.gguf")
            params.n_ctx, params.n_parallel, params.cpuparams.n_threads = 128, 1, 1
            params.cache_type_k = params.cache_type_v = package.ggml_type.GGML_TYPE_F32  # as precise as the folder is
            params.warmup = params.fit_params = False
            server = package.Server(params)
            client = opened.enter_context(httpx.Client(base_url=server.listening_address, timeout=120))
            opened.callback(lambda: server)  # it ends with its last name, so not before its client

            def ask(path: str, **body: Any) -> Any:
                answer = client.post(path, json=body)
                assert answer.status_code == 200, answer.text
                return answer.json()

            return ask

        yield serve


def test_llama_cpp_itself_gives_equal_ids(words, llama: Callable[..., Any], strings: Sequence[str]) -> None:
    ask = llama(network(len(words)))
    strings = [one for one in strings if "'ſ" not in one]  # a long s after an apostrophe: see docs/export.md
    ours = words(strings).input_ids
    theirs = [ask("/tokenize", content=one, add_special=False, parse_special=True)["tokens"] for one in strings]
    assert [one for one, a, b in zip(strings, ours, theirs, strict=True) if a != b] == []


MORE: dict[str, dict[str, Any]] = {  # what llama.cpp reads and Transformers doesn't, from GGUF
    "mixtral": {"experts": 4},
    "llama3": {"rope_scaling": RopeScaling(rope_type="llama3", factor=8.0, original_max_position_embeddings=32)},
    "linear": {"rope_scaling": RopeScaling(rope_type="linear", factor=4.0)},
    "yarn": {
        "qk_norm": True,
        "rope_scaling": RopeScaling(rope_type="yarn", factor=4.0, original_max_position_embeddings=32),
    },
}


@pytest.mark.parametrize("shape", SHAPES | MORE)
@torch.no_grad()
def test_llama_cpp_itself_writes_equal_greedy_text(
    shape: str, words, llama: Callable[..., Any], tmp_path: Path
) -> None:
    model = network(len(words), **(SHAPES | MORE)[shape])
    folder = AutoModelForCausalLM.from_pretrained(checkpoint.save(model, words, tmp_path / "folder"))
    ask, compared = llama(model), 0
    for prompt in rows_of(words)[:, :20].tolist():
        options = {"max_new_tokens": 24, "do_sample": False, "output_scores": True, "return_dict_in_generate": True}
        greedy = folder.generate(torch.tensor([prompt]), **options)
        written = ask("/completion", prompt=prompt, n_predict=24, temperature=0, return_tokens=True)["tokens"]
        for step, (theirs, ours) in enumerate(zip(written, greedy.sequences[0, len(prompt) :].tolist(), strict=False)):
            if theirs != ours:
                first, second = greedy.scores[step][0].topk(2).values.tolist()
                assert first - second < 0.03, step  # a tie, which rounding decides
                break
        for given in range(4, len(prompt)):
            body = {"prompt": prompt[:given], "n_predict": 1, "n_probs": 20, "cache_prompt": False, "seed": given}
            answer = ask("/completion", **body)
            if "completion_probabilities" not in answer:  # none where it drew an end, or half a character
                continue
            likely = answer["completion_probabilities"][0]["top_logprobs"]
            compared += 1
            expected = folder(torch.tensor([prompt[:given]])).logits[0, -1].float().log_softmax(-1)
            assert [one["logprob"] for one in likely] == pytest.approx(
                expected[[one["id"] for one in likely]], abs=0.02
            )
    assert compared > 10


@pytest.mark.parametrize("name", sorted(path.stem for path in TEMPLATES.glob("*.jinja")))
def test_a_modelfile_writes_dialogues_as_the_chat_template_does(name: str, words, tmp_path: Path) -> None:
    text.save(words, tmp_path / "own")
    own = with_template(text.load(tmp_path / "own"), template.read(TEMPLATES / f"{name}.jinja"), rows=600)
    written = ollama.modelfile(tmp_path / "m.gguf", own, text.stop_ids(own))
    assert written.startswith("FROM ./m.gguf\n")
    for id in text.stop_ids(own):
        assert f'PARAMETER stop "{own.convert_ids_to_tokens(id)}"' in written
    go = written.split('"""')[1]
    tool = [{"role": "tool", "content": "12"}, {"role": "tool", "content": "13"}]
    for dialogue in (DIALOGUE, DIALOGUE[1:], DIALOGUE[:2], [*DIALOGUE[1:3], *tool], DIALOGUE[1:2]):
        rendered = own.apply_chat_template(dialogue, tokenize=False, add_generation_prompt=True)
        assert go_template.render(go, dialogue) == rendered
        plain = text.load(tmp_path / "own")
        plain.chat_template = llama_cpp.chat_template(own)
        assert plain.apply_chat_template(dialogue, tokenize=False, add_generation_prompt=True) == rendered


def test_another_template_is_left_to_whoever_knows_it(words, tmp_path: Path) -> None:
    text.save(words, tmp_path)
    other = text.load(tmp_path)
    other.chat_template = "{% for m in messages %}{{ m.content }}{% endfor %}"
    written = ollama.modelfile(tmp_path / "m.gguf", other, text.stop_ids(other))
    assert 'TEMPLATE "' not in written
    assert "# The chat template has no counterpart" in written
