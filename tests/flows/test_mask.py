"""Which tokens would train: shown before any does, with no lake or from one, and a run that stops where none would."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import world
import yaml
from begun import Start
from harness import Command, PrefectServer
from test_base import recipe
from test_dry import everything

from datalake.lake.lake import Lake
from datalake.lake.records import read_record
from models.text.mask import visible

MARKING = (
    "{% for m in messages %}{{ '<s>' + m['role'] + ': ' }}{% if m['role'] == 'assistant' %}"
    "{% generation %}{{ m['content'] + '</s>' }}{% endgeneration %}{% else %}{{ m['content'] + '</s>' }}{% endif %}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<s>assistant: ' }}{% endif %}"
)
NOTHING = MARKING.replace("{{ m['content'] + '</s>' }}{% endgeneration %}", "{% endgeneration %}{{ m['content'] }}")
ALL = "{% generation %}" + MARKING.replace("{% generation %}", "").replace("{% endgeneration %}", "")
ALL += "{% endgeneration %}"


@pytest.fixture
def written(open_model: Path, tmp_path: Path) -> Path:
    """A recipe of dialogues alone, as a file."""
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump(recipe(tmp_path / "in", open_model, pretrain=None)))
    return path


def template(folder: Path, text: str) -> str:
    path = folder / "template.jinja"
    path.write_text(text)
    return f"sft.template={path}"


def test_it_is_shown_with_no_lake_and_leaves_none(headwater: Command, written: Path, tmp_path: Path) -> None:
    found = headwater("mask", written, "--lake", tmp_path / "lake", "--json", "--rows", 2)
    assert (found.status, (tmp_path / "lake").exists()) == (0, False)
    answer = json.loads(found.out)
    assert [len(answer[name]) for name in ("shown", "notes")] == [2, 0]
    assert 0 < answer["trained"] < answer["tokens"]
    assert answer["share"] == answer["trained"] / answer["tokens"]
    for one in answer["shown"]:
        (asked, _), (said, trains) = one["pieces"]
        assert asked.startswith("<s>user: Where is the ")
        assert asked.endswith("?</s><s>assistant: ")
        assert (said[:7], said[-5:], trains) == ("In the ", ".</s>", True)
        assert one["trained"] < one["tokens"]
    told = headwater("mask", written, "--lake", tmp_path / "lake", "--rows", 1)
    assert f"{answer['shown'][0]['pieces'][0][0]}⟦{answer['shown'][0]['pieces'][1][0]}⟧\n" in told.out
    assert told.out.count("⟦") == 1
    assert f"tuned: {answer['trained']:,} of {answer['tokens']:,} tokens train" in told.out


def test_it_is_what_training_shows(
    headwater: Command, written: Path, tmp_path: Path, prefect_server: PrefectServer
) -> None:
    lake = tmp_path / "lake"
    before = json.loads(headwater("mask", written, "--lake", lake, "--json").out)
    reports = world.run(yaml.safe_load(written.read_text()), lake, "sft")
    left = everything(lake)
    assert json.loads(headwater("mask", written, "--lake", lake, "--json").out) == before
    assert everything(lake) == left
    record = read_record(Lake(lake), str(reports["sft"].fingerprint))
    assert record is not None
    [figure] = record.report["figures"]
    assert figure["texts"] == [[list(piece) for piece in visible(one["pieces"])] for one in before["shown"]]
    assert figure["note"] == f"{before['trained']:,} of {before['tokens']:,} tokens train ({before['share']:.1%})"


@pytest.mark.parametrize(("text", "which"), [(NOTHING, "no token"), (ALL, "every token")], ids=["none", "all"])
def test_none_and_all_are_refused_in_one_line(
    headwater: Command, written: Path, tmp_path: Path, text: str, which: str
) -> None:
    found = headwater("mask", written, "--lake", tmp_path / "lake", "--set", template(tmp_path, text))
    assert (found.status, found.out) == (2, "")
    assert found.err.startswith(f"headwater: {which} of ")
    assert found.err.count("\n") == 1


@pytest.mark.slow
@pytest.mark.parametrize(("text", "which"), [(NOTHING, "no token"), (ALL, "every token")], ids=["none", "all"])
def test_a_run_stops_before_it_trains_and_loses_nothing(
    start: Start, written: Path, tmp_path: Path, prefect_server: PrefectServer, text: str, which: str
) -> None:
    lake, wrong = tmp_path / "lake", tmp_path / "wrong.jinja"
    wrong.write_text(text)
    data: dict[str, Any] = yaml.safe_load(written.read_text())
    run = start(data | {"sft": data["sft"] | {"template": str(wrong)}}, lake, "sft", prefect_server.url)
    assert run.process.wait(300) == 2, run.told()
    line = run.told().splitlines()[-1]
    assert line.startswith(f"headwater: {which} of ")
    assert line.endswith("mend its generation blocks or name another sft.template")
    assert "Traceback" not in run.told()
    assert not list((lake / "folders").glob("sft/*/checkpoint"))
    wrong.write_text(MARKING)
    again = world.run(data | {"sft": data["sft"] | {"template": str(wrong)}}, lake, "sft")
    assert world.states(again) == {"ingest": "cached", "base": "cached", "sft": "ran"}


def test_what_is_missing_is_said_in_one_line(headwater: Command, written: Path, tmp_path: Path) -> None:
    data = yaml.safe_load(written.read_text())
    for change, said in (
        ({"sft": None}, "sft wouldn't run: `sft` is null in the recipe"),
        ({"sources": data["sources"][1:]}, "sft wouldn't run: no source of conversations"),
        ({"base": str(tmp_path / "nowhere")}, "base: there is no "),
        ({"base": None, "pretrain": {}}, "sft wouldn't run: it needs pretrain"),
        ({"mixture": {"holdout": 0.999}}, "there is no dialogue to train on"),
    ):
        path = tmp_path / "other.yaml"
        path.write_text(yaml.safe_dump(data | change))
        found = headwater("mask", path, "--lake", tmp_path / "lake")
        assert (found.status, found.out) == (2, "")
        assert found.err.startswith(f"headwater: {said}")
        assert found.err.count("\n") == 1


def test_a_tokenizer_that_is_yet_to_be_trained_is_asked_for(
    headwater: Command, tmp_path: Path, prefect_server: PrefectServer
) -> None:
    data = world.everything(tmp_path / "in") | world.tiny_models() | {"runtime": world.inline()}
    path, lake = tmp_path / "recipe.yaml", tmp_path / "lake"
    path.write_text(yaml.safe_dump(data))
    found = headwater("mask", path, "--lake", lake)
    assert (found.status, found.err.count("\n")) == (2, 1)
    assert "the tokenizer isn't trained yet: run the recipe with --until tokenizer first" in found.err
    world.run(data, lake, "tokenizer")
    shown = headwater("mask", path, "--lake", lake, "--json")
    assert shown.status == 0, shown.err
    answer = json.loads(shown.out)
    assert answer["context"] == data["pretrain"]["context"]
    assert answer["shown"][0]["pieces"][0][0].startswith("<|bos|><|user|>")
