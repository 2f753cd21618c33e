"""A recipe: what is valid, what each mistake is answered with, and which value counts when several are given."""

from __future__ import annotations

import json
import math
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel

from datalake.curate.thresholds import ThresholdsConfig
from datalake.dedup.config import DedupConfig
from datalake.errors import UserError
from datalake.identity import fingerprint
from datalake.mixture.config import MixtureConfig
from flows.recipe import Recipe, load, override, validate
from flows.start import find_inputs
from models.evaluation.config import EvaluateConfig
from models.methods.ppo import PpoConfig
from models.methods.pretrain import PretrainConfig
from models.methods.reward import RewardConfig
from models.methods.sft import SftConfig
from models.text.config import TokenizerConfig
from tasks.runtime import RuntimeConfig

TABLE = {"kind": "table", "paths": ["in.jsonl"]}
LEAST: dict[str, Any] = {"corpus": "small", "sources": [TABLE]}
QUALITY = {"paths": {"paths": ["labels.jsonl"], "version": "0"}, "good": "hq"}


def write(path: Path, data: Any) -> Path:
    path.write_text(data if isinstance(data, str) else yaml.safe_dump(data))
    return path


def mistake(data: Any) -> str:
    """What a recipe is answered with: always one line."""
    with pytest.raises(UserError) as error:
        validate(data, "small.yaml")
    text = str(error.value)
    assert "\n" not in text
    assert text.startswith("small.yaml: ")
    return text.removeprefix("small.yaml: ")


@pytest.fixture(autouse=True)
def _bare_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HEADWATER_SAMPLES", raising=False)


# What is valid -------------------------------------------------------------------------------------------------------


def test_corpus_and_sources_are_enough() -> None:
    recipe = validate(LEAST, "small.yaml")
    assert recipe.curate.preset == "auto"
    assert recipe.deduplicate.threshold == 0.8
    assert recipe.pretrain is not None


def test_the_recipes_of_this_repository_are_valid(monkeypatch: pytest.MonkeyPatch) -> None:
    folder = Path(__file__).parents[2] / "recipes"
    found = sorted(folder.glob("*.yaml"))
    assert {path.name for path in found} >= {"demo.yaml", "samples.yaml"}
    for path in found:
        assert load(path).corpus == path.stem


def test_a_recipe_survives_json_as_a_manifest_and_a_form_keep_it() -> None:
    recipe = validate(LEAST | {"curate": {"preset": "gopher"}, "sft": None}, "small.yaml")
    assert Recipe.model_validate(json.loads(recipe.model_dump_json())) == recipe


def test_every_field_of_the_form_says_what_it_is() -> None:
    schema = Recipe.model_json_schema()
    for model in [schema, *schema["$defs"].values()]:
        for name, one in model.get("properties", {}).items():
            told = one | schema["$defs"].get(str(one.get("$ref")).rpartition("/")[2], {})
            constant = "const" in one  # the kind of a source
            assert told.get("description") or told.get("title") or constant, (model.get("title"), name)


def test_reading_a_recipe_imports_nothing_heavy() -> None:
    code = "import sys, flows.recipe; print([m for m in ('torch', 'numpy', 'pyarrow', 'prefect', 'ray', 'numba', 'transformers', 'duckdb') if m in sys.modules])"  # noqa: E501
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


# What is written down is read again -----------------------------------------------------------------------------------

NUMBERS = {
    "pretrain": PretrainConfig,
    "sft": SftConfig,
    "reward": RewardConfig,
    "ppo": PpoConfig,
    "deduplicate": DedupConfig,
    "mixture": MixtureConfig,
    "thresholds": ThresholdsConfig,
    "tokenizer": TokenizerConfig,
    "evaluate": EvaluateConfig,
    "runtime": RuntimeConfig,
}


def numbers(model: type[BaseModel]) -> dict[str, st.SearchStrategy[Any]]:
    """For each numeric field of a config, the values within its bounds."""
    found: dict[str, st.SearchStrategy[Any]] = {}
    for name, field in model.model_fields.items():
        marks = {type(mark).__name__: getattr(mark, type(mark).__name__.lower(), None) for mark in field.metadata}
        least, most = marks.get("Ge", marks.get("Gt", 0)), marks.get("Le", marks.get("Lt", 10**6))
        without = {"exclude_min": "Gt" in marks, "exclude_max": "Lt" in marks}
        if field.annotation in (int, int | None):
            found[name] = st.integers(int(least) + ("Gt" in marks), int(most) - ("Lt" in marks))
        elif field.annotation in (float, float | None):
            found[name] = st.floats(least, most, allow_nan=False, **without)
    return found


SECTIONS = st.fixed_dictionaries(
    {}, optional={section: st.fixed_dictionaries({}, optional=numbers(model)) for section, model in NUMBERS.items()}
)


def assert_comes_back(recipe: Recipe, path: Path) -> None:
    for data in (recipe.model_dump(), recipe.model_dump(mode="json")):
        assert Recipe.model_validate(data) == recipe
    plain = recipe.model_dump(mode="json")
    for text in (yaml.safe_dump(plain), json.dumps(plain)):
        assert load(write(path, text)) == recipe


@settings(max_examples=15, deadline=None)
@given(sections=SECTIONS)
def test_a_recipe_that_is_written_down_is_read_as_the_same(
    tmp_path_factory: pytest.TempPathFactory, sections: dict[str, Any]
) -> None:
    kept: dict[str, Any] = {}
    for section, values in sections.items():
        for name, value in values.items():  # what goes with the others: widths with heads, bands with rows
            try:
                Recipe.model_validate(LEAST | kept | {section: kept.get(section, {}) | {name: value}})
            except ValueError:
                continue
            kept[section] = kept.get(section, {}) | {name: value}
    recipe = validate(LEAST | kept, "r")
    assert_comes_back(recipe, tmp_path_factory.getbasetemp() / "again.yaml")


def test_the_recipes_at_hand_are_read_as_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HEADWATER_SAMPLES", "/somewhere")
    for path in sorted((Path(__file__).parents[2] / "recipes").glob("*.yaml")):
        assert_comes_back(load(path), tmp_path / "again.yaml")


def test_a_number_in_scientific_notation_is_a_number(tmp_path: Path) -> None:
    text = "corpus: a\nsources: [{kind: table, paths: [x]}]\npretrain: {learning_rate: 3e-3, steps: 1e3}\n"
    recipe = load(write(tmp_path / "r.yaml", text), ["sft.learning_rate=2e-4", "runtime.workers=1e1"])
    assert recipe.pretrain is not None
    assert recipe.sft is not None
    assert (recipe.pretrain.learning_rate, recipe.pretrain.steps) == (0.003, 1000)
    assert (recipe.sft.learning_rate, recipe.runtime.workers) == (0.0002, 10)
    assert type(recipe.model_dump(mode="json")["pretrain"]["learning_rate"]) is float


def test_a_shorthand_is_written_down_as_what_it_stands_for(tmp_path: Path) -> None:
    recipe = validate(LEAST | {"mixture": {"rehydration": "fineweb2"}}, "r")
    assert recipe.model_dump(mode="json")["mixture"]["rehydration"][0] == [1, 1.0]
    assert_comes_back(recipe, tmp_path / "again.yaml")


def test_variables_are_texts_as_they_are_written(tmp_path: Path) -> None:
    text = (
        "corpus: a\nvars: {day: 2024-06-01, n: 010, on: no}\nsources: [{kind: table, paths: ['${day}/${n}/${on}']}]\n"
    )
    source: Any = load(write(tmp_path / "r.yaml", text)).sources[0]
    assert source.paths == ["2024-06-01/010/no"]


def test_six_thousand_paths_are_read_in_proportion(tmp_path: Path) -> None:
    def took(amount: int) -> float:
        paths = "".join(f"      - s3://bucket/{n}.jsonl\n" for n in range(amount))
        path = write(tmp_path / "r.yaml", "corpus: a\nsources:\n  - kind: table\n    paths:\n" + paths)
        begin = time.process_time()
        source: Any = load(path).sources[0]
        assert len(source.paths) == amount
        return time.process_time() - begin

    took(10)
    assert min(took(6_000) for _ in range(2)) < 20 * min(took(1_500) for _ in range(2)) + 0.1


# Mistakes ------------------------------------------------------------------------------------------------------------


def test_an_unknown_key_is_answered_with_the_one_that_was_meant() -> None:
    assert mistake(LEAST | {"dedupliacte": {}}) == "unknown key 'dedupliacte': did you mean 'deduplicate'?"
    assert "unknown key 'deduplicate.treshold': did you mean 'threshold'?" in mistake(
        LEAST | {"deduplicate": {"treshold": 0.7}}
    )
    text = mistake(LEAST | {"sources": [TABLE | {"path": ["x"]}]})
    assert "did you mean 'paths'?" in text
    text = mistake(LEAST | {"sources": [TABLE | {"language": {"treshold": 1}}]})
    assert "treshold" in text
    assert "did you mean 'threshold'?" in text


def test_an_unknown_key_near_nothing_is_answered_with_all_there_are() -> None:
    text = mistake(LEAST | {"tokenizer": {"zzz": 1}})
    assert text.startswith("unknown key 'tokenizer.zzz': known are ")
    assert "vocabulary" in text


@pytest.mark.parametrize(
    ("section", "values", "said"),
    [
        ("deduplicate", {"threshold": 1.5}, "less than or equal to 1 (it is 1.5)"),
        ("deduplicate", {"threshold": 0}, "greater than 0 (it is 0)"),
        ("deduplicate", {"ngram": "five"}, "integer"),
        ("deduplicate", {"bands": 3}, "bands and rows together"),
        ("mixture", {"holdout": 1.0}, "less than 1"),
        ("mixture", {"weights": {"web": -1}}, "weight of web is -1"),
        (
            "deduplicate",
            {"sources": ["tabel"]},
            "deduplicate.sources names 'tabel', which is no source: there are table",
        ),
        ("mixture", {"caps": {"tabel": 2}}, "mixture.caps names 'tabel', which is no source: there are table"),
        (
            "pretrain",
            {"phases": [{"share": 1}, {"share": 1, "mixture": {"weights": {"tabel": 1}}}]},
            "pretrain.phases.1.mixture.weights names 'tabel', which is no source: there are table",
        ),
        ("mixture", {"weights": {"table": 1e308}}, "weight of table is 1e+308"),
        ("deduplicate", {"precedence": ["quality"]}, "deduplicate.precedence: nothing tells a document's quality"),
        ("deduplicate", {"bands": 10_000, "rows": 1_000}, "bands x rows is more than 65,536"),
        ("deduplicate", {"threshold": 1e-310}, "144 permutations cannot find pairs at similarity 1e-310"),
        ("tokenizer", {"vocabulary": 10}, "greater than or equal to 289"),
        ("pretrain", {"width": 100, "heads": 3}, "heads"),
        ("pretrain", {"learning_rate": 0}, "greater than 0"),
        ("ppo", {"batch": 7, "minibatches": 2}, "multiple of minibatches"),
        ("curate", {"preset": "fineweb3"}, "'fineweb2'"),
        ("curate", {"rules": "nowhere.yaml"}, "nowhere.yaml': correct the path (it is 'nowhere.yaml')"),
        ("thresholds", {"method": "guess"}, "'quantile'"),
        ("thresholds", {"cut": 0.5}, "less than 0.5"),
        ("runtime", {"workers": 0}, "greater than or equal to 1"),
        ("runtime", {"memory_gb": -1}, "greater than 0"),
        ("evaluate", {"tasks": ["poetry"]}, "'perplexity'"),
    ],
)
def test_a_value_out_of_bounds_is_named_with_its_bounds(section: str, values: dict[str, Any], said: str) -> None:
    text = mistake(LEAST | {section: values})
    assert text.startswith(section)
    assert said in text


def test_a_file_that_is_missing_is_named_with_its_setting_once() -> None:
    text = mistake(LEAST | {"curate": {"block": {"paths": ["gone.txt"]}}})
    assert text.startswith("curate.block.paths: there is no ")
    there = {"paths": ["x.model"], "version": "0"}
    text = mistake(LEAST | {"curate": {"perplexity": {"en": {"model": "/gone.bin", "sentencepiece": there}}}})
    assert text == "curate.perplexity.en.model: there is no file '/gone.bin': correct the path"


@pytest.mark.parametrize("name", ["two words", "1st", "a-b", "Ünï", "", "a.b", 'x"; DROP', "A"])
def test_a_corpus_is_an_identifier(name: str) -> None:
    text = mistake(LEAST | {"corpus": name})
    assert "identifier" in text


@pytest.mark.parametrize("name", ["runs", "models", "main", "system", "temp", "pg_catalog", "information_schema"])
def test_names_the_lake_needs_itself_are_taken(name: str) -> None:
    assert f"{name!r} is taken" in mistake(LEAST | {"corpus": name})


def test_corpus_and_sources_must_be_there() -> None:
    assert "'corpus' is missing" in mistake({"sources": [TABLE]})
    assert "'sources' is missing" in mistake({"corpus": "small"})
    assert mistake(LEAST | {"sources": []}).startswith("sources: ")
    assert "paths" in mistake(LEAST | {"sources": [{"kind": "table"}]})


def test_an_unknown_kind_of_source_is_answered_with_those_there_are() -> None:
    text = mistake(LEAST | {"sources": [{"kind": "crawl", "paths": ["x"]}]})
    assert "'crawl'" in text
    assert "common_crawl" in text
    assert "kind" in mistake(LEAST | {"sources": [{"paths": ["x"]}]})


def test_kinds_name_sources_of_the_recipe_and_kinds_that_there_are() -> None:
    named = LEAST | {"sources": [TABLE | {"name": "novels"}]}
    recipe = validate(named | {"curate": {"kinds": {"novels": "books"}}}, "here")
    assert recipe.curate_by_kind.kinds == {"novels": "books"}
    assert validate(named, "here").curate_by_kind.kinds == {"novels": "table"}
    said = mistake(named | {"curate": {"kinds": {"novels": "book"}}})
    assert "curate.kinds: 'book' is no kind of source: choose one of common_crawl, wikipedia, code, books" in said
    assert "no source is called 'novel'; there are novels" in mistake(named | {"curate": {"kinds": {"novel": "books"}}})


def test_several_mistakes_are_counted() -> None:
    assert mistake(LEAST | {"curat": {}, "mixtur": {}}).endswith("(and 1 more mistake)")


@pytest.mark.parametrize("section", ["curate", "deduplicate", "mixture", "tokenizer", "runtime"])
def test_a_section_no_run_can_do_without_is_not_null(section: str) -> None:
    text = mistake(LEAST | {section: None})
    assert text.startswith(f"{section}: ")
    assert "leave it out" in text


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("corpus: [", "is not YAML"),
        ("- a\n- b\n", "must be a mapping"),
        ("", "must be a mapping"),
        ("corpus: a\n\tsources: b", "is not YAML"),
        ("corpus: a\nsources: []\ncorpus: b", "line 3: 'corpus' is given twice, first in line 1"),
        ("corpus: a\nsft: &x {epochs: *x}", r"line 2: \*x stands within what it stands for"),
        ("corpus: !!python/name:os.system", "line 1: the tag !!python/name:os.system has no meaning"),
        ("corpus: a\n---\ncorpus: b", "line 2: a second document begins"),
    ],
)
def test_a_file_that_is_no_recipe_is_told_in_one_line(tmp_path: Path, content: str, said: str) -> None:
    with pytest.raises(UserError, match=said) as error:
        load(write(tmp_path / "r.yaml", content))
    assert "\n" not in str(error.value)


def test_a_file_that_is_not_there_is_answered_with_those_at_hand(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no recipe at .*none\.yaml: the ones at hand are .*recipes/demo\.yaml"):
        load(tmp_path / "none.yaml")
    with pytest.raises(UserError, match="is a folder"):
        load(tmp_path)
    (tmp_path / "binary.yaml").write_bytes(b"\xff\xfe\x00\x81")
    with pytest.raises(UserError, match="is not YAML"):
        load(tmp_path / "binary.yaml")


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ({"kind": "table"}, "'sources[0].paths' is missing"),
        (
            {"kind": "table", "paths": "in.jsonl"},
            "sources[0].paths: a list is wanted, such as [a, b]",
        ),
        ({"kind": "table", "paths": ["a", 5]}, "sources[0].paths[1]: a text is wanted: write it in quotes (it is 5)"),
        ({"kind": "table", "paths": ["a"], "columns": {"text": None}}, "sources[0].columns.text: a text is wanted"),
        ({"kind": "wikipedia", "paths": ["a"], "namespaces": ["b"]}, "sources[0].namespaces[0]: an integer is wanted"),
        ({"kind": "common_crawl", "paths": ["a"], "seed": 10**30}, "sources[0].seed: an integer of more digits"),
        ({"paths": ["a"]}, "sources[0]: it has no `kind`: choose one of common_crawl, wikipedia"),
        ({"kind": "crawl"}, "sources[0]: there is no kind 'crawl': choose one of common_crawl"),
        (5, "sources[0]: a mapping is wanted"),
        (None, "sources[0]: a mapping is wanted"),
    ],
)
def test_a_mistake_is_told_with_its_place_in_the_recipe(source: Any, said: str) -> None:
    assert mistake(LEAST | {"sources": [source]}).startswith(said)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, "nan", "inf", "-Infinity", "1e400"])
@pytest.mark.parametrize(
    "place",
    [
        "pretrain.learning_rate",
        "pretrain.steps",
        "mixture.weights.table",
        "curate.thresholds.x",
        "curate.quality.minimum",
        "runtime.memory_gb",
        "runtime.shard_seconds",
        "runtime.remote.cache_gb",
        "runtime.remote.recheck_hours",
    ],
)
def test_what_is_no_finite_number_is_refused_everywhere(place: str, value: Any) -> None:
    data: Any = value
    for name in reversed(place.split(".")):
        data = {name: data}
    text = mistake(LEAST | data)
    assert text.startswith(place.rsplit(".", 1)[0])


@pytest.mark.parametrize("value", [10**30, -(10**30), 10**4299])
@pytest.mark.parametrize("place", ["mixture.tokens", "thresholds.min_documents", "pretrain.seed", "runtime.window"])
def test_a_huge_integer_is_refused_everywhere(place: str, value: int) -> None:
    section, name = place.split(".")
    text = mistake(LEAST | {section: {name: value}})
    assert text.startswith(f"{place}: ")
    assert len(text) < 300


def test_a_missing_sample_is_told_with_the_variable_that_names_its_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HEADWATER_SAMPLES", "/no/such/samples")
    recipe = validate(LEAST | {"sources": [{"kind": "table", "paths": ["${samples}/a.jsonl"]}]}, "r")
    with pytest.raises(UserError, match=r"\$\{samples\} is '/no/such/samples': set HEADWATER_SAMPLES") as error:
        find_inputs(recipe)
    assert "\n" not in str(error.value)


# Variables and overrides ---------------------------------------------------------------------------------------------


def test_a_variable_is_taken_from_set_else_the_environment_else_the_recipe(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = LEAST | {
        "vars": {"samples": "from-recipe"},
        "sources": [{"kind": "table", "paths": ["${samples}/a.jsonl", "${samples}/${samples}"]}],
    }
    path = write(tmp_path / "r.yaml", data)

    def first(*overrides: str) -> str:
        source: Any = load(path, overrides).sources[0]
        assert source.paths[1] == "{0}/{0}".format(source.paths[0].split("/")[0])
        return str(source.paths[0])

    assert first() == "from-recipe/a.jsonl"
    monkeypatch.setenv("HEADWATER_SAMPLES", "from-environment")
    assert first() == "from-environment/a.jsonl"
    assert first("vars.samples=from-set") == "from-set/a.jsonl"


def test_set_names_a_variable_the_recipe_does_not(tmp_path: Path) -> None:
    data = LEAST | {"sources": [{"kind": "table", "paths": ["${place}/a.jsonl"]}]}
    path = write(tmp_path / "r.yaml", data)
    source: Any = load(path, ["vars.place=here"]).sources[0]
    assert source.paths == ["here/a.jsonl"]


def test_a_variable_without_a_value_is_told_with_the_ways_to_give_it() -> None:
    text = mistake(LEAST | {"sources": [{"kind": "table", "paths": ["${nowhere}/a"]}]})
    assert "${nowhere} has no value" in text
    assert "HEADWATER_NOWHERE" in text
    assert "--set vars.nowhere=" in text


def test_set_goes_before_the_file_and_the_last_one_wins(tmp_path: Path) -> None:
    path = write(tmp_path / "r.yaml", LEAST | {"deduplicate": {"threshold": 0.9}})
    assert load(path).deduplicate.threshold == 0.9
    assert load(path, ["deduplicate.threshold=0.7"]).deduplicate.threshold == 0.7
    assert load(path, ["deduplicate.threshold=0.7", "deduplicate.threshold=0.6"]).deduplicate.threshold == 0.6


def test_set_reaches_sections_that_are_not_in_the_file_lists_and_null(tmp_path: Path) -> None:
    path = write(tmp_path / "r.yaml", LEAST)
    recipe = load(path, ["pretrain.steps=5", "sources.0.name=web", "sft=null", "mixture.weights={web: 2}"])
    assert recipe.pretrain is not None
    assert recipe.pretrain.steps == 5
    assert recipe.sources[0].label == "web"
    assert recipe.sft is None
    assert recipe.mixture.weights == {"web": 2}


def test_set_reopens_a_section_the_file_leaves_out(tmp_path: Path) -> None:
    path = write(tmp_path / "r.yaml", LEAST | {"pretrain": None})
    recipe = load(path, ["pretrain.steps=5"])
    assert recipe.pretrain is not None
    assert recipe.pretrain.steps == 5


ODD = "a..b=1 .a=1 a.=1 a= sources.-1.name=a sources[-1].name=a sources[1].name=a sources.².name=a sources[0]name=a"


@pytest.mark.parametrize(
    "text", ["deduplicate", "=1", "corpus.x=1", "sources.9.name=a", "sources.first=1", "a b=1", *ODD.split()]
)
def test_an_override_that_leads_nowhere_is_told(text: str) -> None:
    with pytest.raises(UserError, match="--set") as error:
        override(json.loads(json.dumps(LEAST)), [text])
    assert "\n" not in str(error.value)


def test_a_place_is_written_with_dots_or_brackets(tmp_path: Path) -> None:
    path = write(tmp_path / "r.yaml", LEAST | {"sources": [TABLE | {"name": "my.web"}]})
    recipe: Any = load(path, ["sources[0].paths=[a, b]", "sources.0.paths[1]=c", 'mixture.weights["my.web"]=2'])
    assert recipe.sources[0].paths == ["a", "c"]
    assert recipe.mixture.weights == {"my.web": 2}


def test_an_override_of_what_an_alias_shares_changes_one_place(tmp_path: Path) -> None:
    text = "corpus: a\nsources: [{kind: table, paths: [x]}]\nsft: &a {batch: 4}\nreward: *a\n"
    recipe = load(write(tmp_path / "r.yaml", text), ["sft.batch=8"])
    assert recipe.sft is not None
    assert recipe.reward is not None
    assert (recipe.sft.batch, recipe.reward.batch) == (8, 4)


def test_an_override_is_held_to_the_same_bounds(tmp_path: Path) -> None:
    path = write(tmp_path / "r.yaml", LEAST)
    with pytest.raises(UserError, match=r"deduplicate.threshold: .*less than or equal to 1"):
        load(path, ["deduplicate.threshold=7"])
    with pytest.raises(UserError, match=r"unknown key 'deduplicate.thresh': did you mean 'threshold'"):
        load(path, ["deduplicate.thresh=0.7"])


def test_thresholds_are_proposed_for_the_rules_of_curation() -> None:
    recipe = validate(LEAST | {"curate": {"preset": "gopher"}, "thresholds": {}}, "r")
    assert recipe.thresholds_of_preset is not None
    assert recipe.thresholds_of_preset.preset == "gopher"
    assert "no rules" in mistake(LEAST | {"curate": {"preset": "none"}, "thresholds": {}})
    assert "leave it out" in mistake(LEAST | {"thresholds": {"preset": "gopher"}})


def test_search_needs_documents() -> None:
    talks = {"sources": [{"kind": "conversations", "paths": TABLE["paths"]}]}
    said = mistake(LEAST | talks | {"grpo": {"tools": ["calculator", "search"]}})
    assert said.startswith("grpo.tools: search looks through the recipe's documents, and it has none: add")
    validate(LEAST | talks | {"grpo": {"tools": ["calculator"]}}, "r")
    validate(LEAST | {"grpo": {"tools": ["search"]}}, "r")


def test_one_classifier_tells_a_documents_quality() -> None:
    assert "nothing tells" in mistake(LEAST | {"curate": {"quality": {"minimum": 0.5}}})
    assert validate(LEAST | {"quality": QUALITY, "curate": {"quality": {"minimum": 0.5}}}, "r").quality is not None
    ready = {"quality": {"model": {"paths": ["m.bin"], "version": "0"}, "label": "hq", "minimum": 0.5}}
    assert validate(LEAST | {"curate": ready}, "r").curate.quality.minimum == 0.5
    assert "two classifiers" in mistake(LEAST | {"quality": QUALITY, "curate": ready})
    assert "'quality.good' is missing" in mistake(LEAST | {"quality": {"paths": {"paths": ["x"], "version": "0"}}})
    assert "there is no" in mistake(LEAST | {"quality": {"paths": ["gone.jsonl"], "good": "hq"}})


# Identity ------------------------------------------------------------------------------------------------------------


def test_places_and_runtime_are_no_part_of_a_sections_identity() -> None:
    here = validate(LEAST, "r").sources[0]
    there = validate(LEAST | {"sources": [TABLE | {"paths": ["/elsewhere/in.jsonl"]}]}, "r").sources[0]
    other = validate(LEAST | {"sources": [TABLE | {"max_bytes": 5000}]}, "r").sources[0]
    assert fingerprint(here) == fingerprint(there) != fingerprint(other)


def test_the_order_of_sources_is_the_order_of_precedence_unless_one_is_given() -> None:
    both = [TABLE, TABLE | {"name": "web"}]
    assert validate(LEAST | {"sources": both}, "r").dedup_in_order.sources == ("table", "web")
    given = validate(LEAST | {"sources": both, "deduplicate": {"sources": ["web"]}}, "r")
    assert given.dedup_in_order.sources == ("web",)


def test_workers_are_all_the_cores_unless_given() -> None:
    import os

    assert RuntimeConfig().workers == len(os.sched_getaffinity(0))
