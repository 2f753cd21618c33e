"""What others trip over in what was exported, as small tables and checkpoints of our own: nested maps, licences and
names that the hub refuses, settings that keep Transformers from saving, a token that ends nothing."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from datalake.errors import UserError
from datalake.lake.export import Exported, write_rows
from datalake.lake.lake import Lake
from flows.report.card import bare_card, dataset_card, hub_licences, render
from models.export import folder as hub
from models.export import ollama
from models.network import checkpoint
from models.network.build import build_model
from models.network.config import NetworkConfig
from models.text import tokenizer as text
from models.text.config import TokenizerConfig


def head(card: str) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load(card.split("---")[1])
    return found


@pytest.fixture(scope="module")
def words(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return text.train(["the cat sees"] * 9, TokenizerConfig(vocabulary=300), tmp_path_factory.mktemp("t") / "words")


@pytest.fixture
def source(words: Any, tmp_path: Path) -> Path:
    shape = NetworkConfig(layers=1, width=32, heads=2, kv_heads=1, context=32).sized(len(words))
    return checkpoint.save(build_model(shape, 1), words, tmp_path / "source")


@pytest.mark.parametrize(
    ("sql", "rows"),
    [
        ("SELECT {'m': MAP {'a': 'b'}} x FROM range(1)", [{"m": [{"key": "a", "value": "b"}]}]),
        ("SELECT [MAP {'a': [1]}] x FROM range(1)", [[[{"key": "a", "value": [1]}]]]),
        ("SELECT CASE WHEN range = 1 THEN [MAP {'a': {'b': MAP {1: 2}}}] END x FROM range(2)",
         [None, [[{"key": "a", "value": {"b": [{"key": 1, "value": 2}]}}]]]),
        ("SELECT CASE WHEN range = 1 THEN {'m': MAP {'a': 'b'}} END x FROM range(2)",
         [None, {"m": [{"key": "a", "value": "b"}]}]),
        ("SELECT [range, NULL] x FROM range(2)", [[0, None], [1, None]]),
    ],
)  # fmt: skip
def test_rows_of_every_shape_are_read_by_datasets(sql: str, rows: list[Any], tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    write_rows(Lake(tmp_path / "lake"), sql, tmp_path / "out" / "data")
    read = datasets.load_dataset(str(tmp_path / "out"), split="train", cache_dir=str(tmp_path / "cache"))
    assert read.column_names == ["x"]
    assert list(read["x"]) == rows


@pytest.mark.parametrize(
    ("sql", "why"),
    [
        ("SELECT 1 a, 2 a FROM range(1)", "several columns are called 'a'"),
        ("SELECT INTERVAL 3 DAY x FROM range(1)", "which Parquet doesn't hold"),
        ("SELECT union_value(a := 1) x FROM range(1)", "which Parquet doesn't hold"),
        ("SELECT 170141183460469231731687303715884105727::HUGEINT x FROM range(1)", "don't fit int64"),
    ],
)
def test_rows_that_parquet_cannot_hold_are_one_line(sql: str, why: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=why) as error:
        write_rows(Lake(tmp_path / "lake"), sql, tmp_path / "data")
    assert "\n" not in str(error.value)


def test_licences_are_those_that_the_hub_takes() -> None:
    assert hub_licences(["Apache-2.0"], None) == {"license": "apache-2.0"}
    assert hub_licences(["GPL-3.0-or-later", "GPL-3.0-only", "MIT"], None) == {"license": ["gpl-3.0", "mit"]}
    assert hub_licences([], "LGPL-2.1-only") == {"license": "lgpl-2.1"}
    assert hub_licences(["GFDL-1.3-or-later", "ODbL-1.0"], None) == {"license": ["gfdl", "odbl"]}
    assert hub_licences(["LicenseRef-mine", "Python-2.0"], None) == {
        "license": "other",
        "license_name": "LicenseRef-mine, Python-2.0",
    }
    assert hub_licences([], None) == {"license": "unknown"}
    exported = Exported(rows=1, files=["part-00000.parquet"], columns=[("a", "string")])
    exported.groups[("s", "LicenseRef-mine", "no")] += 1
    card = head(dataset_card(Lake(Path("none")), "SELECT 1 FROM x ", exported, "no"))
    assert (card["license"], card["license_name"]) == ("other", "LicenseRef-mine")
    assert (card["pretty_name"], card["language"]) == ("no", ["no"])  # a name and Norwegian, not falsehoods


def test_a_cards_head_has_no_name_and_no_number_that_the_hub_refuses() -> None:
    assert head(bare_card("m", base="/models/SmolLM2-135M"))["base_model"] == "SmolLM2-135M"
    assert "base_model" not in head(bare_card("m", base="/models/my base"))
    rows = [
        {"task": task, "metric": "perplexity", "value": value, "low": 1.0, "high": value, "n": 3}
        for task, value in (("a", 2.0), ("b", float("inf")), ("c", float("nan")))
    ]
    facts = {"name": "m", "stage": None, "base": None, "results": rows, "sources": ["crawl", "my source"]}
    card = head(render("model_card.md.j2", facts, None))
    assert [one["dataset"]["type"] for one in card["model-index"][0]["results"]] == ["a"]
    assert card["datasets"] == ["crawl"]


def test_generation_settings_can_be_saved_again(source: Path, words: Any, tmp_path: Path) -> None:
    from transformers import GenerationConfig, GPT2Config, GPT2LMHeadModel

    foreign = GPT2LMHeadModel(GPT2Config(vocab_size=len(words), n_embd=32, n_layer=1, n_head=2, n_positions=32))
    foreign.save_pretrained(tmp_path / "foreign")
    text.save(words, tmp_path / "foreign")
    for name in (source, tmp_path / "foreign"):
        settings = json.loads((name / "generation_config.json").read_text())
        for drawn in ({"do_sample": False}, {}, {"do_sample": True}):
            plain = {key: value for key, value in settings.items() if key != "do_sample"}
            changed = plain | drawn | {"temperature": 0.9, "top_p": 0.6}
            (name / "generation_config.json").write_text(json.dumps(changed))
            hub.write(hub.read(name), tmp_path / "out")
            read = GenerationConfig.from_pretrained(tmp_path / "out")
            read.save_pretrained(tmp_path / "again")  # it refuses settings that contradict each other
            assert (read.temperature == 0.9) == bool(drawn.get("do_sample"))


def test_every_token_that_ends_an_answer_stands_in_the_modelfile(source: Path, tmp_path: Path) -> None:
    settings = json.loads((source / "generation_config.json").read_text())
    (source / "generation_config.json").write_text(json.dumps(settings | {"eos_token_id": [1, 9]}))
    loaded = hub.read(source)
    stops = text.stop_ids(loaded.tokenizer, loaded.model)
    assert 9 in stops
    written = ollama.modelfile(tmp_path / "m.gguf", loaded.tokenizer, stops)
    for id in stops:
        assert f'PARAMETER stop "{loaded.tokenizer.convert_ids_to_tokens(id)}"' in written


def test_a_tokenizer_says_nothing_of_how_it_was_loaded_here(source: Path, tmp_path: Path) -> None:
    hub.write(hub.read(source), tmp_path / "out")
    settings = json.loads((tmp_path / "out" / "tokenizer_config.json").read_text())
    assert not settings.keys() & {"is_local", "local_files_only", "name_or_path", "backend"}
    assert str(tmp_path) not in json.dumps(settings)
