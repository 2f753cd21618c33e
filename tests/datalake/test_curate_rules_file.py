"""Presets, `curate.rules` and what `thresholds` writes are files read alike; one that means nothing is refused."""

from __future__ import annotations

import shutil
import tomllib
from pathlib import Path
from typing import Any

import pytest
from harness import ROOT

from datalake.curate import rules_file
from datalake.curate.config import CurateConfig
from datalake.curate.judge import rules_for, rules_in_use
from datalake.curate.metrics.catalog import NAMES
from datalake.curate.rules_file import PRESETS, RulesFile, compats, parse_rules, rule_sets
from datalake.curate.thresholds import ThresholdsConfig
from datalake.errors import UserError
from datalake.identity import fingerprint

FOLDER = ROOT / "datalake/curate/presets"
READINGS = [(preset, compat) for preset in PRESETS for compat in ("", *compats(preset))]

OWN = """
sets:
  - name: notes
    kinds: [table]
    languages: [en]
    source: read by hand
    rules:
      - {name: min_words, metric: words, op: ">=", threshold: 8}
      - {name: max_words, metric: words, op: "<", threshold: 900, languages: [en], source: here}
  - name: others
    extends: fineweb
    repair: no_urls
    rules:
      - {name: max_char_dup, metric: char_dup, op: "<=", threshold: 0.2}
      - {name: min_prose, metric: prose, op: ">=", threshold: 0.1}
rules:
  other: [{name: others/min_words, threshold: 30}]
  de: [{name: others/min_words, threshold: 20}]
"""


def used(folder: Path, text: str = OWN, **more: Any) -> CurateConfig:
    path = folder / "my.yaml"
    path.write_text(text, encoding="utf-8")
    return CurateConfig.model_validate({"rules": str(path), **more})


@pytest.mark.parametrize(("preset", "compat"), READINGS)
def test_a_presets_file_copied_and_named_gives_what_the_preset_does(preset: str, compat: str, tmp_path: Path) -> None:
    name = f"{preset}-{compat}.yaml" if compat else f"{preset}.yaml"
    copy = shutil.copy(FOLDER / name, tmp_path / "my.yaml")
    config, published = CurateConfig(rules=str(copy)), CurateConfig(preset=preset, compat=compat)
    assert config.rule_sets == published.rule_sets
    for kind in ("common_crawl", "wikipedia", "code"):
        for language in ("en", "wuu", "fr"):
            assert rules_for(config, kind, language) == rules_for(published, kind, language)


@pytest.mark.parametrize(("preset", "compat"), READINGS)
def test_a_presets_file_says_first_what_it_is_and_every_number_where_it_comes_from(preset: str, compat: str) -> None:
    text = (FOLDER / (f"{preset}-{compat}.yaml" if compat else f"{preset}.yaml")).read_text(encoding="utf-8")
    assert text.startswith("# ")
    for rules in rule_sets(preset, compat):
        assert all(rule.metric in NAMES and rule.source not in ("", "recipe") for rule in rules.rules)


def test_files_of_presets_are_shipped_and_read_when_they_are_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    shipped = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["package-data"]["datalake"]
    assert "**/*.yaml" in shipped
    read: list[str] = []
    monkeypatch.setattr(rules_file, "parse_rules", lambda text, origin: read.append(origin) or RulesFile((), {}))
    rules_file.preset.cache_clear()
    try:
        CurateConfig(preset="dolma", thresholds={})
        assert read == ["dolma.yaml"]
    finally:
        rules_file.preset.cache_clear()


def test_whole_rule_sets_stand_in_place_of_the_presets(tmp_path: Path) -> None:
    config = used(tmp_path)
    assert [rules.name for rules in config.rule_sets] == ["notes", "others"]
    notes = rules_for(config, "table", "en")
    assert [(str(rule), rule.source) for rule in notes.rules] == [
        ("min_words: words >= 8", "read by hand"),
        ("max_words: words < 900", "here"),
    ]
    assert rules_for(config, "wikipedia", "en").name == "others"
    assert rules_for(config, "table", "fr").name == "others"


def test_a_set_that_extends_a_preset_has_its_rules_in_their_places_and_its_own_behind(tmp_path: Path) -> None:
    [fineweb] = rule_sets("fineweb")
    others = used(tmp_path).rule_sets[1]
    assert (others.line_edits, others.repair) == ("fineweb", "no_urls")
    assert [rule.name for rule in others.rules] == [*(rule.name for rule in fineweb.rules), "min_prose"]
    changed = [(a, b) for a, b in zip(others.rules, fineweb.rules, strict=False) if a != b]
    assert [(str(a), str(b)) for a, b in changed] == [
        ("max_char_dup: char_dup <= 0.2", "max_char_dup: fw_char_dup <= 0.01")
    ]


def test_thresholds_by_language_lie_over_the_sets_of_the_same_file(tmp_path: Path) -> None:
    config = used(tmp_path)

    def least(language: str, kind: str = "web", **more: Any) -> float:
        held = rules_for(config.model_copy(update=more), kind, language)
        return next(rule.threshold for rule in held.rules if rule.name == "min_words")

    assert (least("de"), least("fr"), least("en"), least("en", "table")) == (20, 30, 30, 8)
    assert least("de", thresholds={"others/min_words": 40}) == 40, "the recipe's go before the file's"


def test_a_file_counts_by_its_content_and_thresholds_are_asked_of_its_sets(tmp_path: Path) -> None:
    config, other = used(tmp_path), used(tmp_path, OWN.replace("900", "901"))
    assert len({fingerprint(one) for one in (config, other, CurateConfig())}) == 3
    asked = ThresholdsConfig(preset="auto", rules=other.rules, rules_version=other.rules_version)
    assert asked.rule_sets == other.rule_sets
    rules_file.read_rules.cache_clear()
    rules_file.rule_sets.cache_clear()
    with pytest.raises(UserError, match="has changed since the recipe was read"):
        _ = config.rule_sets


def test_metrics_of_the_recipe_can_be_asked_for(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model/config.json").write_text("{}")
    text = OWN.replace("metric: prose", "metric: classifier:edu")
    classifier = {"name": "edu", "model": str(tmp_path / "model"), "label": "0"}
    assert rules_in_use(used(tmp_path, text, classifiers=[classifier]))[-1][1].metric == "classifier:edu"
    with pytest.raises(ValueError, match=r"asks for 'classifier:edu', which is no metric"):
        used(tmp_path, text)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("sets: {}", "`sets` must be a list"),
        ("sets: [3]", "3 is no rule set"),
        ("sets: [{rules: []}]", "rule set None: name"),
        ("sets: [{name: a, rule: []}]", "rule set 'a': rule: Extra inputs"),
        ("sets: [{name: a, languages: [en]}]", "add one without `kinds` and `languages` behind 'a'"),
        ("sets: [{name: a, extends: fineweb2}]", "can't extend 'fineweb2': choose a preset with one rule set"),
        ("sets: [{name: a, extends: wanjuan}]", "can't extend 'wanjuan'"),
        ("sets: [{name: a, kinds: [code]}, {name: a}]", "two rule sets are called 'a'"),
        ("sets: [{name: a, line_edits: gopher}]", "rule set 'a': line_edits: "),
        ("rules: [{name: min_words, threshold: 3}]", "whole rules stand in `sets`"),
        (OWN.replace("threshold: 8", "threshold: .inf"), r"rule set 'notes': rules.0.threshold: "),
        (OWN.replace('op: "<"', 'op: "=<"'), r"rule set 'notes': rules.1.op: "),
        (OWN.replace("max_words", "min_words"), "two rules of 'notes' are called 'min_words'"),
        (OWN.replace("metric: prose", "metric: pross"), "'min_prose' asks for 'pross', which is no metric: is prose"),
        (OWN.replace("others/min_words, threshold: 20", "few, threshold: 2"), "rules file has no rule 'few'"),
    ],
)
def test_a_file_that_means_nothing_is_refused_in_one_line_with_its_name(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(ValueError, match=said) as caught:
        used(tmp_path, text)
    message = str(caught.value).split("Value error, ")[-1].split(" [type=")[0]
    assert "\n" not in message
    assert "my.yaml" in message


def test_the_format_is_as_its_description_shows_it() -> None:
    example = [line[4:] for line in (rules_file.__doc__ or "").splitlines() if line.startswith("    ")]
    found = parse_rules("\n".join([*example[:8], "  - {name: any}", *example[8:]]), "example")
    assert [rules.name for rules in found.sets] == ["english", "any"]
    assert found.thresholds == {"en": {"english/min_words": 30.0}}
