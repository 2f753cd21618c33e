"""A recipe may name a tokenizer that exists: documents become its tokens, and a decoder learns from them."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import world
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from datalake.lake.lake import Lake
from datalake.lake.tokens import token_indices
from flows.recipe import Recipe
from models.text.tokenizer import load


@pytest.fixture(scope="module", autouse=True)
def _server(prefect_server: Any) -> None:
    """Every test here runs flows."""


def saved(folder: Path, **names: str) -> Path:
    """A tokenizer of bytes, with no special token but those named."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    inner = Tokenizer(models.BPE({letter: number for number, letter in enumerate(alphabet)}, []))
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    PreTrainedTokenizerFast(tokenizer_object=inner, **names).save_pretrained(folder)
    return folder


def test_a_named_tokenizer_is_taken_as_it_is_and_known_by_its_content(tmp_path: Path) -> None:
    words = saved(tmp_path / "words", eos_token="<|endoftext|>")
    files = [world.jsonl(tmp_path / "a.jsonl", [{"id": str(n), "text": world.prose(n, 9)} for n in range(12)])]
    recipe = world.tables(tmp_path / "lake", files, **world.tiny_models() | {"tokenizer": {"path": str(words)}})
    reports = world.run(recipe, tmp_path / "lake", "pretrain")
    assert {name: reports[name].state for name in ("tokenizer", "tokenize", "pretrain")} == dict.fromkeys(
        ("tokenizer", "tokenize", "pretrain"), "ran"
    )
    lake = Lake(tmp_path / "lake")
    assert len(load(world.folder_of(lake.root, reports["tokenizer"], "tokenizer"))) == 257
    assert token_indices(lake, reports["tokenize"].outputs["tokens"])

    moved = shutil.copytree(words, tmp_path / "elsewhere")
    again = world.run(recipe | {"tokenizer": {"path": str(moved)}}, tmp_path / "lake", "pretrain")
    assert {again[name].state for name in ("tokenizer", "tokenize", "pretrain")} == {"cached"}


def test_one_without_an_end_of_text_is_refused_in_one_line(tmp_path: Path) -> None:
    words = saved(tmp_path / "words", pad_token="<pad>")
    files = [world.jsonl(tmp_path / "a.jsonl", [{"id": str(n), "text": world.prose(n, 9)} for n in range(12)])]
    recipe = world.tables(tmp_path / "lake", files, tokenizer={"path": str(words)})
    with pytest.raises(Exception, match="no token to begin or end a document with"):
        world.run(recipe, tmp_path / "lake", "tokenizer")


def test_a_recipe_with_a_path_that_leads_nowhere_is_refused(tmp_path: Path) -> None:
    recipe = world.tables(tmp_path, [tmp_path / "a.jsonl"], tokenizer={"path": str(tmp_path / "nothing")})
    with pytest.raises(Exception, match="nothing"):
        Recipe.model_validate(recipe)
