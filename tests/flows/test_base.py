"""A recipe that starts from an open model: tuned on dialogues alone, or going on with documents, and traced to it."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
import world
from transformers import AutoModelForCausalLM, AutoTokenizer, GPT2LMHeadModel

from datalake.lake.records import read_record
from flows.lake import Lake


@pytest.fixture(scope="module", autouse=True)
def _server(prefect_server: Any) -> None:
    """Every test here runs flows."""


def recipe(folder: Path, base: Path, *more: dict[str, Any], **sections: Any) -> dict[str, Any]:
    talks = world.dialogues(folder / "dialogues.jsonl")
    pairs = world.preferences(folder / "preferences.jsonl")
    sources = [{"kind": "conversations", "paths": [str(talks)]}, {"kind": "preferences", "paths": [str(pairs)]}, *more]
    models = {name: section for name, section in world.tiny_models().items() if name != "tokenizer"}
    given = {"corpus": "tuned", "base": str(base), "sources": sources, "mixture": {"holdout": 0.2}, **models}
    return given | {"runtime": world.inline()} | sections


def test_dialogues_alone_make_it_ones_own(open_model: Path, tmp_path: Path) -> None:
    lake = tmp_path / "lake"
    reports = world.run(recipe(tmp_path, open_model, pretrain=None), lake)
    ran = {"ingest", "base", "sft", "dpo", "kto", "reward", "ppo", "evaluate"}
    assert {name for name, report in reports.items() if report.state == "ran"} == ran
    assert reports["pretrain"].note == "`pretrain` is null in the recipe"
    for stage in ("sft", "dpo", "kto", "ppo"):
        folder = world.folder_of(lake, reports[stage], stage)
        model = AutoModelForCausalLM.from_pretrained(folder)
        assert type(model) is GPT2LMHeadModel
        assert (model.config.attn_pdrop, model.config.an_unknown_setting) == (0.1, 7)
        words = AutoTokenizer.from_pretrained(folder)
        assert words.chat_template == world.TEMPLATE
        assert words.get_vocab() == AutoTokenizer.from_pretrained(open_model).get_vocab()
    ancestors = Lake(lake).trace("ppo")
    assert {"base", "sft", "reward", "ingest"} <= {row["stage"] for row in ancestors}
    judged = world.rows(lake, "SELECT DISTINCT checkpoint FROM runs.evaluations ORDER BY 1")
    assert judged == [("base",), ("dpo",), ("kto",), ("ppo",), ("reward",), ("sft",)]

    # known by its content, not by its place
    moved = shutil.copytree(open_model, tmp_path / "elsewhere")
    again = world.run(recipe(tmp_path, moved), lake)
    assert {again[name].state for name in ran} == {"cached"}
    assert again["pretrain"].note == "no source of documents"


def test_documents_are_read_with_its_tokenizer_and_it_goes_on(open_model: Path, tmp_path: Path) -> None:
    lake = tmp_path / "lake"
    texts = {"kind": "table", "paths": [str(world.texts(tmp_path / "texts.jsonl", range(30)))]}
    reports = world.run(recipe(tmp_path, open_model, texts, curate={"preset": "none"}), lake, "sft")
    assert {reports[name].state for name in ("base", "tokenizer", "tokenize", "pretrain", "sft")} == {"ran"}
    grown = AutoModelForCausalLM.from_pretrained(world.folder_of(lake, reports["pretrain"], "pretrain"))
    assert type(grown) is GPT2LMHeadModel
    start = AutoModelForCausalLM.from_pretrained(open_model)
    assert not torch.equal(grown.transformer.wte.weight, start.transformer.wte.weight)
    record = read_record(Lake(lake).store, str(reports["pretrain"].fingerprint))
    assert record is not None
    assert {ref.name for refs in record.inputs.values() for ref in refs if ref.kind == "folder"} >= {"base", "tokens"}
    tuned = Lake(lake).trace("sft")
    assert {"base", "pretrain", "tokenize", "tokenizer", "mixture"} <= {row["stage"] for row in tuned}
    assert len(Lake(lake).trace("pretrain", step=3)) >= 4


def test_a_base_that_is_not_there_is_said_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(Exception, match=r"base: there is no '.*nothing': correct the path"):
        world.run(recipe(tmp_path, tmp_path / "nothing"), tmp_path / "lake")
