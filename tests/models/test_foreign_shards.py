"""Tokenizers of other families can pretrain: documents are kept apart by what these have for it."""

from __future__ import annotations

from pathlib import Path

import pytest
from test_rendering import byte_level
from tokenizers import AddedToken, Tokenizer
from tokenizers import models as kinds
from toys import stories
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerFast

from datalake.errors import UserError
from models.methods.pretrain import PretrainConfig, pretrain
from models.text import tokenizer as text
from models.text.shards import TokenShards, write_shard

# What each has, under the names that Transformers gives them.
KINDS = {
    "gpt-2": {"bos_token": "<|endoftext|>", "eos_token": "<|endoftext|>"},
    "llama-3": {"bos_token": "<|begin_of_text|>", "eos_token": "<|end_of_text|>"},
    "qwen": {"eos_token": "<|endoftext|>", "pad_token": "<|endoftext|>"},
    "bos alone": {"bos_token": "<s>"},
    "bert": {"cls_token": "[CLS]", "sep_token": "[SEP]", "mask_token": "[MASK]", "pad_token": "[PAD]"},
}


def made(**names: str) -> PreTrainedTokenizerFast:
    inner = byte_level(text.SPLIT)
    inner.add_special_tokens([AddedToken(name, special=True, normalized=False) for name in set(names.values())])
    return PreTrainedTokenizerFast(tokenizer_object=inner, **names)


@pytest.mark.parametrize("kind", list(KINDS))
def test_documents_are_told_apart_and_a_decoder_learns_from_them(kind: str, tmp_path: Path) -> None:
    words = made(**KINDS[kind])
    words.save_pretrained(tmp_path / "words")
    words = text.load(tmp_path / "words")
    begin, end = (KINDS[kind].get(name) for name in ("bos_token", "eos_token"))
    if kind == "bert":
        begin, end = "[CLS]", "[SEP]"
    documents = [*stories(8), (b"z" * 16, f"It says {begin or end} here."), (b"y" * 16, "")]
    write_shard(documents, words, tmp_path / "shards", "part-0")
    shards = TokenShards(tmp_path / "shards")
    for number, content in documents:
        names = words.convert_ids_to_tokens(shards.tokens(shards.number(number)).tolist())
        before, after = len([begin] if begin else []), len([end] if end else [])
        assert names[:before] == [begin][:before]
        assert names[len(names) - after :] == [end][:after]
        inner = names[before : len(names) - after]
        assert words.convert_tokens_to_string(inner) == content
        assert not {begin, end} & set(inner)

    config = PretrainConfig(layers=1, width=32, heads=2, kv_heads=1, context=32, batch=4, steps=3, eval_every=0)
    train = [(number, 1) for number, _ in documents[2:]]
    held = [number for number, _ in documents[:2]]
    report = pretrain(config, [tmp_path / "shards"], train, held, tmp_path / "words", tmp_path / "out")
    assert report["steps"] == 3
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "out" / "checkpoint")
    again = AutoTokenizer.from_pretrained(tmp_path / "out" / "checkpoint")
    assert (again.bos_token, again.eos_token) == (words.bos_token, words.eos_token)
    assert model.get_input_embeddings().num_embeddings >= text.vocabulary_size(words)


def test_one_with_nothing_to_keep_documents_apart_is_refused_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no token to begin or end a document with") as error:
        write_shard(stories(1), made(pad_token="<pad>"), tmp_path, "part-0")
    assert "\n" not in str(error.value)
    assert not list(tmp_path.iterdir())


def test_ids_may_have_gaps(tmp_path: Path) -> None:
    inner = Tokenizer(kinds.WordLevel({"a": 0, "b": 70_000, "<s>": 5}, unk_token="a"))
    words = PreTrainedTokenizerFast(tokenizer_object=inner, bos_token="<s>")
    assert text.vocabulary_size(words) == 70_001
    write_shard([(b"a" * 16, "b")], words, tmp_path, "part-0")
    shards = TokenShards(tmp_path)
    assert (shards.tokens(0).tolist(), shards.vocabulary) == ([5, 70_000], 70_001)
