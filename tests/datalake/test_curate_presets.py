"""Rules are data; presets hold the published numbers; no document meets a rule made for another language."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from datalake.curate.config import CurateConfig
from datalake.curate.judge import rules_for, rules_in_use
from datalake.curate.metrics.catalog import NAMES
from datalake.curate.rules_file import PRESETS, choose, compats, rule_sets
from datalake.errors import UserError
from datalake.identity import fingerprint

READINGS = [(preset, compat) for preset in PRESETS for compat in ("", *compats(preset))]


def thresholds(preset: str, source: str = "common_crawl", language: str = "en", compat: str = "") -> dict[str, float]:
    return {rule.name: rule.threshold for rule in choose(rule_sets(preset, compat), source, language).rules}


@pytest.mark.parametrize(("preset", "compat"), READINGS)
def test_rules_ask_for_metrics_that_exist_and_their_names_are_unique_within_a_set(preset: str, compat: str) -> None:
    for rules in rule_sets(preset, compat):
        assert {rule.metric for rule in rules.rules} <= set(NAMES)
        assert len({rule.name for rule in rules.rules}) == len(rules.rules)
        assert all(rule.source for rule in rules.rules)
    names = [rules.name for rules in rule_sets(preset, compat)]
    assert len(set(names)) == len(names)


def test_gophers_numbers_are_those_of_its_paper() -> None:
    assert thresholds("gopher") == {
        **{"min_words": 50, "max_words": 100_000, "min_mean_word_length": 3, "max_mean_word_length": 10},
        **{"max_hash_ratio": 0.1, "max_ellipsis_ratio": 0.1, "max_bullet_lines": 0.9, "max_ellipsis_lines": 0.3},
        **{"min_alpha_words": 0.8, "min_stop_words": 2},
        **{"dup_line_frac": 0.3, "dup_para_frac": 0.3, "dup_line_chars": 0.2, "dup_para_chars": 0.2},
        **{"top_2gram": 0.2, "top_3gram": 0.18, "top_4gram": 0.16},
        **{"dup_5gram": 0.15, "dup_6gram": 0.14, "dup_7gram": 0.13},
        **{"dup_8gram": 0.12, "dup_9gram": 0.11, "dup_10gram": 0.1},
    }


def test_the_chinese_set_is_fineweb_2s_and_other_languages_have_their_own() -> None:
    chinese = thresholds("fineweb2", language="zh")
    assert chinese == {
        **{"dup_line_frac": 0.287, "top_2gram": 0.256, "top_3gram": 0.201, "top_4gram": 0.171},
        **{"dup_5gram": 0.198, "dup_6gram": 0.182, "dup_7gram": 0.167},
        **{"dup_8gram": 0.154, "dup_9gram": 0.14, "dup_10gram": 0.127},
        **{"min_line_punct": 0.106, "max_char_dup": 0.1, "max_newline_ratio": 0.178},
        **{"min_words": 50, "max_words": 100_000, "min_mean_word_length": 1, "max_mean_word_length": 5},
        **{"max_hash_ratio": 0.1, "max_ellipsis_ratio": 0.1, "max_bullet_lines": 0.9, "max_ellipsis_lines": 0.3},
        **{"min_alpha_words": 0.735, "min_stop_words": 2},
    }
    assert thresholds("fineweb2", language="yue") == thresholds("fineweb2", language="wuu") == chinese
    assert thresholds("fineweb2", language="ja") == chinese | {
        **{"dup_line_frac": 0.328, "top_2gram": 0.239, "top_3gram": 0.196, "top_4gram": 0.172},
        **{"dup_5gram": 0.243, "dup_6gram": 0.225, "dup_7gram": 0.207},
        **{"dup_8gram": 0.19, "dup_9gram": 0.175, "dup_10gram": 0.159},
        **{"min_line_punct": 0.096, "max_newline_ratio": 0.13, "max_mean_word_length": 6, "min_alpha_words": 0.759},
    }
    korean = chinese | {
        **{"dup_line_frac": 0.374, "top_2gram": 0.282, "top_3gram": 0.228, "top_4gram": 0.185},
        **{"dup_5gram": 0.201, "dup_6gram": 0.184, "dup_7gram": 0.168},
        **{"dup_8gram": 0.154, "dup_9gram": 0.14, "dup_10gram": 0.127},
        **{"min_line_punct": 0.062, "max_mean_word_length": 6, "min_alpha_words": 0.791},
    }
    del korean["max_newline_ratio"]
    assert thresholds("fineweb2", language="ko") == korean


def test_languages_without_a_set_of_their_own_are_held_to_numbers_that_suit_any() -> None:
    assert thresholds("fineweb2", language="fr") == {
        **{"dup_line_frac": 0.3, "max_char_dup": 0.1, "max_newline_ratio": 0.3, "min_words": 50, "max_words": 100_000},
        **{"max_hash_ratio": 0.1, "max_ellipsis_ratio": 0.1, "max_bullet_lines": 0.9, "max_ellipsis_lines": 0.3},
        **{"min_alpha_words": 0.8, "min_chars": 500},
        **TOPS,
        **GRAMS,
    }


def test_pages_of_wikipedia_books_and_documentation_have_few_rules() -> None:
    assert thresholds("auto", "wikipedia") == {"min_words": 25}
    assert thresholds("auto", "books") == {"min_words": 50}
    assert thresholds("auto", "pydoc") == {"min_words": 25, "min_alpha_words": 0.4}


def test_the_default_sets_of_english_and_chinese_hold_the_numbers_that_were_measured() -> None:
    shared = {"min_words": 50, "max_words": 100_000, "max_hash_ratio": 0.1, "max_ellipsis_ratio": 0.1}
    shared |= {"min_stop_words": 2, "top_4gram": 0.2, "max_char_dup": 0.5, "min_prose": 0.64}
    assert thresholds("auto") == shared | {
        **{"min_mean_word_length": 3, "max_mean_word_length": 10, "lorem_ipsum": 0},
        **{"top_2gram": 0.2, "top_3gram": 0.18, "dup_10gram": 0.1, "min_alpha_words": 0.7, "min_stop_share": 0.05},
    }
    assert thresholds("auto", language="zh") == shared | {
        **{"min_mean_word_length": 1, "max_mean_word_length": 5, "top_2gram": 0.256, "top_3gram": 0.201},
        **{"dup_10gram": 0.127, "min_alpha_words": 0.45, "min_stop_share": 0.025, "spam": 0.5},
    }


@pytest.mark.parametrize("language", ["ja", "ko", "fr"])
def test_the_default_sets_of_other_languages_are_fineweb_2s_but_for_repeated_lines(language: str) -> None:
    ours, published = (thresholds(preset, language=language) for preset in ("auto", "fineweb2"))
    assert ours == {name: t for name, t in published.items() if name not in [f"dup_{n}gram" for n in range(5, 10)]} | {
        "max_char_dup": 0.3
    }
    metrics = {rule.name: rule.metric for rule in choose(rule_sets("auto"), "", language).rules}
    assert metrics["dup_10gram"] == "within_10gram"
    assert metrics.get("min_line_punct", "line_end") == "line_end"


def test_c4_fineweb_and_code_hold_the_numbers_of_their_code() -> None:
    assert thresholds("c4") == {
        **{"max_chars": 190_000, "lorem_ipsum": 0, "curly_bracket": 0, "min_sentences": 3, "max_toxic_words": 0}
    }
    assert thresholds("fineweb") == thresholds("gopher") | {
        **{"min_language_score": 0.65, "lorem_ipsum": 0, "curly_bracket": 0, "min_sentences": 5},
        **{"min_line_punct": 0.12, "max_short_lines": 0.67, "max_char_dup": 0.01, "max_newline_ratio": 0.3},
    }
    assert thresholds("code") == {
        **{"max_line": 1000, "mean_line": 100, "min_alnum": 0.25, "min_alpha_per_token": 1.5, "xml_header": 0}
    }
    assert thresholds("none") == {}


GRAMS = {
    "dup_5gram": 0.15,
    "dup_6gram": 0.14,
    "dup_7gram": 0.13,
    "dup_8gram": 0.12,
    "dup_9gram": 0.11,
    "dup_10gram": 0.1,
}
TOPS = {"top_2gram": 0.2, "top_3gram": 0.18, "top_4gram": 0.16}


def test_refinedweb_and_dclm_hold_the_numbers_of_dclms_files() -> None:
    refinedweb = {
        **{"min_language_score": 0.65, "min_words": 50, "max_words": 100_000},
        **{"min_mean_word_length": 3, "max_mean_word_length": 10, "max_symbol_ratio": 0.1, "max_bullet_lines": 0.9},
        **{"max_ellipsis_lines": 0.3, "min_alpha_words": 0.8, "min_stop_words": 2, "max_removed": 0.05},
        **{"dup_line_frac": 0.3, "dup_para_frac": 0.3, "dup_line_chars": 0.2, "dup_para_chars": 0.2},
        **TOPS,
        **GRAMS,
    }
    assert thresholds("refinedweb") == refinedweb
    assert thresholds("dclm") == refinedweb | {"min_quality": 0.018112}
    assert {rules.repair for preset in ("refinedweb", "dclm") for rules in rule_sets(preset)} == {"no_urls"}


def test_ccnet_dolma_and_chinesewebtext_hold_the_numbers_of_their_code() -> None:
    assert thresholds("ccnet", language="zh") == {
        **{"min_chars": 300, "min_language_score": 0.5, "max_perplexity_en": 520, "max_perplexity_zh": 1950},
        **{"max_perplexity_ja": 1450, "max_perplexity_fr": 330},
    }
    assert thresholds("dolma") == {
        **{"min_words": 50, "max_words": 100_000, "min_median_word_length": 3, "max_median_word_length": 10},
        **{"max_symbol_words": 0.1, "min_alpha_words": 0.8, "min_stop_words": 2, "max_bullet_lines": 0.9},
        **{"max_ellipsis_lines": 0.3, "dup_line_frac": 0.3, "dup_line_chars": 0.3, "max_pii": 5},
        **TOPS,
        **GRAMS,
    }
    assert thresholds("chinesewebtext", language="zh") == {
        **{"min_language_score": 0.5, "min_chars": 300, "min_chars_per_line": 10, "min_han": 0.3, "traditional": 0},
        **{"max_toxic": 0.5, "max_char_13gram": 0.5, "min_quality": 0.5},
    }


def test_datajuicer_holds_the_bounds_of_its_refined_recipe() -> None:
    assert thresholds("datajuicer") == {
        **{"min_alnum": 0.7508, "max_alnum": 0.8591, "max_mean_line": 1500, "max_line": 5000},
        **{"min_language_score": 0.793, "max_perplexity": 5000, "max_chars": 58187},
        **{"min_words": 20, "max_words": 11529},
    }
    [rules] = rule_sets("datajuicer")
    assert {rule.metric for rule in rules.rules if rule.languages == ("en",)} == {"alnum_ratio"}


def test_other_readings_of_a_preset_hold_the_numbers_published_so() -> None:
    assert (
        thresholds("c4", compat="paper")["min_sentences"] == thresholds("c4", compat="datatrove")["min_sentences"] == 5
    )
    assert thresholds("fineweb", compat="paper") == thresholds("fineweb") | {"max_char_dup": 0.1}
    datatrove = choose(rule_sets("gopher", "datatrove"), "", "en")
    assert thresholds("gopher", compat="datatrove") == thresholds("gopher")
    assert all(rule.metric.startswith("later_") for rule in datatrove.rules if rule.name.startswith(("dup_", "top_")))
    assert thresholds("code", "code", compat="starcoder") == {
        **{"max_line": 1000, "mean_line": 100, "min_alnum": 0.25, "min_alpha": 0.25, "xml_header": 0},
        **{"min_comments": 0.01, "max_comments": 0.8, "min_html_ratio": 0.2, "min_html_text": 100},
        **{"min_data_chars": 100, "max_data_chars": 5000},
    }


@pytest.mark.parametrize(
    ("source", "language", "rule_set"),
    [
        *(
            ("code", "en", "code"),
            ("pydoc", "en", "documentation"),
            ("wikipedia", "zh", "wiki"),
            ("books", "fr", "books"),
        ),
        *(("common_crawl", "en", "english"), ("common_crawl", "zh", "chinese"), ("table", "wuu", "chinese")),
        *(("common_crawl", "ja", "japanese"), ("table", "ko", "korean"), ("table", "en", "english")),
        *(
            ("common_crawl", "ar", "any"),
            ("common_crawl", "und", "any"),
            ("", "", "any"),
        ),
    ],
)
def test_auto_chooses_by_source_and_then_by_language(source: str, language: str, rule_set: str) -> None:
    assert choose(rule_sets("auto"), source, language).name == rule_set
    assert rule_set in {rules.name for rules in rule_sets("auto")}


ENGLISH_ONLY = ("stop_words", "mean_word_length", "alpha_words", "c4_sentences", "fw_line_punct", "fw_short_lines")


# Where the published code compares strictly.
STRICT = {
    "fineweb/min_language_score",
    *(f"ccnet/max_perplexity_{language}" for language in ("en", "zh", "ja", "fr")),
    *(
        "chinesewebtext/min_quality",
        "fineweb2-other/min_chars",
        "any/min_chars",
        "starcoder/min_comments",
        "starcoder/max_comments",
    ),
    *("starcoder/min_html_ratio", "starcoder/min_html_text"),
}


@pytest.mark.parametrize(("preset", "compat"), READINGS)
def test_a_bound_is_kept_at_the_bound_unless_it_was_published_as_strict(preset: str, compat: str) -> None:
    for rules in rule_sets(preset, compat):
        for rule in rules.rules:
            usual = {"min": ">=", "max": "<=", "mea": "<=", "dup": "<=", "top": "<=", "spa": "<="}.get(
                rule.name[:3], "=="
            )
            name = f"{rules.name.removesuffix('-paper')}/{rule.name}"
            assert rule.op == (usual.rstrip("=") if name in STRICT else usual), name


@pytest.mark.parametrize(
    ("preset", "metrics"),
    [
        ("refinedweb", {"language_score", "mean_word_length", "alpha_words", "stop_word_count", "dclm_removed"}),
        ("dclm", {"language_score", "mean_word_length", "alpha_words", "stop_word_count", "dclm_removed"}),
        ("dolma", {"median_word_length", "alpha_words", "stop_word_count"}),
    ],
)
def test_what_the_presets_of_dclm_and_dolma_ask_of_english_alone(preset: str, metrics: set[str]) -> None:
    [rules] = rule_sets(preset)
    assert {rule.metric for rule in rules.rules if rule.languages == ("en",)} == metrics
    assert {rule.languages for rule in rules.rules} == {None, ("en",)}


def test_scripts_that_no_segmenter_cuts_are_held_to_characters_in_place_of_words() -> None:
    [rule] = [rule for rule in choose(rule_sets("auto"), "", "th").rules if rule.name == "min_chars"]
    assert (rule.metric, rule.languages) == ("chars", ("th", "lo", "km", "my", "bo", "dz"))
    for language in ("th", "lo", "km", "my", "bo", "dz"):
        assert choose(rule_sets("auto"), "", language).name == "any"


@pytest.mark.parametrize("preset", ["gopher", "c4", "fineweb"])
def test_what_english_presets_ask_of_english_is_marked_so(preset: str) -> None:
    for rules in rule_sets(preset):
        for rule in rules.rules:
            assert (rule.languages == ("en",)) or not rule.metric.startswith((*ENGLISH_ONLY, "c4_", "fw_"))


@pytest.mark.parametrize("preset", ["auto", "fineweb2"])
@pytest.mark.parametrize("language", ["zh", "yue", "wuu", "ja", "ko", "ar", "und"])
@pytest.mark.parametrize("source", ["common_crawl", "wikipedia", "table", "books", "pydoc", "code"])
def test_no_rule_for_english_reaches_another_language(preset: str, language: str, source: str) -> None:
    for rule in choose(rule_sets(preset), source, language).rules:
        assert rule.languages is None or "en" not in rule.languages


def test_a_threshold_can_be_changed_in_every_set_or_in_one() -> None:
    everywhere = {(name, rule.name): rule for name, rule in rules_in_use(CurateConfig(thresholds={"min_words": 7}))}
    assert {rule.threshold for (_, name), rule in everywhere.items() if name == "min_words"} == {7}
    assert everywhere["wiki", "min_words"].source == "recipe"
    one = {(s, r.name): r.threshold for s, r in rules_in_use(CurateConfig(thresholds={"wiki/min_words": 7}))}
    assert one["wiki", "min_words"] == 7
    assert one["english", "min_words"] == 50
    both = CurateConfig(thresholds={"min_words": 7, "wiki/min_words": 9})
    held = {(s, r.name): r.threshold for s, r in rules_in_use(both)}
    assert (held["wiki", "min_words"], held["books", "min_words"]) == (9, 7), "the name of one set goes first"


def test_the_recipes_own_rules_come_behind_the_presets_and_keep_what_is_at_the_bound(tmp_path: Path) -> None:
    for name in ("words.txt", "hosts.txt", "asked.jsonl", "model"):
        (tmp_path / name).write_text("word")
    file, language_model = str(tmp_path / "model"), {"sentencepiece": str(tmp_path / "model"), "maximum": 700}
    config = CurateConfig.model_validate(
        {
            "preset": "gopher",
            "block": {"paths": [str(tmp_path / "hosts.txt")]},
            "toxic": {"paths": [str(tmp_path / "words.txt")], "maximum": 2, "maximum_ratio": 0.25},
            "pii": {"maximum": 5},
            "decontaminate": {"paths": [str(tmp_path / "asked.jsonl")], "share": 0.125},
            "quality": {"minimum": 0.5},
            "perplexity": {"zh": {"model": file, **language_model}, "en": {"model": file, **language_model}},
        }
    )
    own = config.own_rules
    assert rules_for(config, "common_crawl", "en").rules[-len(own) + 1 :] == own[:-1], "but for those about Chinese"
    assert [str(rule) for rule in own] == [
        "blocked: blocked == 0",
        "toxic_words: toxic_words <= 2",
        "toxic_ratio: toxic_ratio <= 0.25",
        "pii: pii <= 5",
        "contaminated: contaminated_share <= 0.125",
        "quality: quality >= 0.5",
        "perplexity: perplexity < 700",
        "perplexity: perplexity < 700",
    ]
    assert [rule.languages for rule in own[-2:]] == [("en",), ("zh",)]


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"preset": "gopher", "thresholds": {"min_wrods": 7}}, "has no rule 'min_wrods'"),
        ({"preset": "none", "thresholds": {"min_words": 7}}, "has no rule"),
        ({"preset": "gopher", "thresholds": {"min_words": float("nan")}}, "finite"),
        ({"preset": "wanjuan"}, "preset"),
        ({"preset": "dolma", "compat": "paper"}, "no reading 'paper'; it has none"),
        ({"preset": "c4", "compat": "starcoder"}, "it has datatrove or paper"),
        ({"prest": "auto"}, "prest"),
        ({"languages": ()}, "languages"),
    ],
)
def test_a_config_that_means_nothing_is_refused_with_the_reason(config: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        CurateConfig.model_validate(config)
    assert issubclass(UserError, ValueError)


def test_every_setting_enters_identity() -> None:
    configs = [
        CurateConfig(),
        CurateConfig(preset="gopher"),
        CurateConfig(preset="gopher", compat="datatrove"),
        CurateConfig(thresholds={"min_words": 7}),
        CurateConfig(languages=("en",)),
    ]
    assert len({fingerprint(config) for config in configs}) == len(configs)


def test_the_config_loads_nothing_heavy() -> None:
    code = "import sys, datalake.curate.config; print({'numpy', 'numba', 'pyarrow', 'torch'} & set(sys.modules))"
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "set()"
