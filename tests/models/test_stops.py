"""What ends an answer: a folder's generation settings, the end of text, and what the chat template ends a turn with."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from test_rendering import foreign
from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM

from models.evaluation import tasks
from models.methods.ppo import PpoConfig
from models.methods.prompted import sampling_of
from models.network import checkpoint
from models.network.generate import generate
from models.serving import chat
from models.text import tokenizer as text

QUESTION = [{"role": "user", "content": "Where?"}]


def folder_of(root: Path, eos: int | list[int] | None) -> Path:
    words = foreign("llama-3", "chatml")
    config = LlamaConfig(
        vocab_size=len(words),
        hidden_size=16,
        intermediate_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        max_position_embeddings=64,
    )
    torch.manual_seed(0)
    model = LlamaForCausalLM(config)
    model.generation_config = GenerationConfig(eos_token_id=eos)
    model.save_pretrained(root)
    words.save_pretrained(root)
    return root


@pytest.mark.parametrize(("eos", "named"), [([7, 9], {7, 9}), (9, {9}), (None, set())])
def test_what_generation_settings_name_ends_an_answer_everywhere(tmp_path: Path, eos, named: set[int]) -> None:
    model, words = checkpoint.load(folder_of(tmp_path / "base", eos))
    own = {words.eos_token_id, words.get_vocab()["<|im_end|>"]}
    stops = text.stop_ids(words, model)
    assert stops == sorted(own | named)
    config = PpoConfig(batch=2, minibatches=1)
    assert sampling_of(config, words, model).stop_ids == tuple(stops)
    checkpoint.save(model, words, tmp_path / "again")
    kept = json.loads((tmp_path / "again" / "generation_config.json").read_text())["eos_token_id"]
    assert {kept} == set(stops) if isinstance(kept, int) else sorted(kept) == stops
    assert text.stop_ids(words, checkpoint.load(tmp_path / "again")[0]) == stops

    for last in stops:  # a model that writes letters, and then this
        letters = iter([20, 21, last] * 3)

        def logits(hidden: torch.Tensor, letters=letters) -> torch.Tensor:
            found = torch.zeros(*hidden.shape[:-1], len(words))
            found[..., next(letters)] = 9.0
            return found

        model.logits = logits
        assert generate(model, [[5, 6]], 12, temperature=0, eos_id=stops)[0] == [20, 21, last]
        assert "".join(chat.reply(model, words, QUESTION, 12, temperature=0)) == words.decode([20, 21])
        asked = [{"messages": [*QUESTION, {"role": "assistant", "content": "There."}]}]
        (answer,) = tasks.written(model, words, asked, 12, 1)
        assert answer.ended


def test_the_end_of_a_turn_is_what_the_template_writes() -> None:
    for family, name in (("chatml", "<|im_end|>"), ("llama-3", "<|eot_id|>"), ("alpaca", "</s>"), ("mistral", "</s>")):
        words = foreign("llama-3", family)
        assert words.convert_ids_to_tokens(text.end_of_turn(words)) == name
    words.chat_template = None
    assert text.end_of_turn(words) == words.eos_token_id
    words.eos_token = None
    assert text.end_of_turn(words) is None
    assert text.stop_ids(words) == []


def test_dialogues_that_the_template_cant_ask_for_are_not_asked() -> None:
    words = foreign("llama-3", "mistral")
    answer = {"role": "assistant", "content": "There."}
    talks = [{"messages": [*QUESTION, answer]}, {"messages": [*QUESTION, *QUESTION, answer]}]
    assert tasks.askable(talks, words) == talks[:1]
    words.chat_template = None
    assert tasks.askable(talks, words) == []
