"""Classifiers of Transformers: scores are those of its pipeline, whatever the batch; rules and what-if on them."""

from __future__ import annotations

import random
import shutil
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pytest
import world
from pydantic import ValidationError

from datalake.curate.config import CurateConfig
from datalake.curate.curate import curate_batch
from datalake.curate.histograms import histograms
from datalake.curate.schema import value_of
from datalake.curate.scores.classifiers import classify
from datalake.curate.scores.config import ClassifierConfig
from datalake.curate.what_if import NeedsRerunError, ask, check_edits, columns_needed
from datalake.document import Document, document_id
from datalake.errors import UserError
from datalake.identity import fingerprint
from datalake.tables import RAW, to_table
from datalake.text.transformer import batches_by_length

POSITIONS = 48


def tiny(folder: Path, labels: int, family: str = "bert", **more: Any) -> Path:
    auto = "AutoModelForSequenceClassification"
    return world.transformer(folder, auto, family, POSITIONS, seed=labels, num_labels=labels, **more)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    names = {0: "advert", 1: "prose", 2: "other"}
    return tiny(tmp_path_factory.mktemp("models") / "three", 3, id2label=names)


def of(path: Path, **more: Any) -> ClassifierConfig:
    return ClassifierConfig(**({"name": "toy", "model": str(path), "label": "prose"} | more))


def texts() -> list[str]:
    draw = random.Random(1)
    some = [" ".join(world.prose(n).split()[: draw.randrange(1, 80)]) for n in range(40)]
    return [*some, "🙂", "שלום", "...", "\x00", "a" * 5000, "river " * 1000]


def by_pipeline(path: Path, label: str, text: str) -> float:
    import transformers

    pipeline: Any = transformers.pipeline("text-classification", model=str(path), device="cpu")
    if pipeline.tokenizer.pad_token is None:
        pipeline.tokenizer.pad_token = pipeline.tokenizer.eos_token
        pipeline.model.config.pad_token_id = pipeline.tokenizer.pad_token_id
    found = pipeline(text, top_k=None, truncation=True, max_length=POSITIONS)
    return float(next(row["score"] for row in found if row["label"] == label))


@pytest.mark.parametrize(
    ("labels", "family", "more"),
    [
        (3, "bert", {}),
        (3, "bert", {"problem_type": "multi_label_classification"}),
        (1, "bert", {}),
        (1, "bert", {"problem_type": "regression"}),
        (2, "llama", {}),
    ],
)
def test_scores_are_those_of_the_pipeline_whatever_the_batch(
    tmp_path: Path, labels: int, family: str, more: dict[str, Any]
) -> None:
    path = tiny(tmp_path / "model", labels, family, **more)
    config = of(path, label="LABEL_0")
    some = texts()
    scores = classify(some, ["en"] * len(some), config)
    for text, score in list(zip(some, scores, strict=True))[::5]:
        assert score == pytest.approx(by_pipeline(path, "LABEL_0", text), abs=1.01e-4)
    assert len(set(scores)) > 20
    for k in range(0, len(some), 7):
        [alone] = classify([some[k]], ["en"], config)
        assert alone == pytest.approx(scores[k], abs=1.01e-4)


def test_blank_texts_and_other_languages_have_no_score(folder: Path) -> None:
    some = ["", " \n", "a river", "ein Fluss", "\ud800 lone", "river " * 2_000_000]
    scores = classify(some, ["en", "en", "en", "de", "en", "en"], of(folder, language="en"))
    assert [score is None for score in scores] == [True, True, False, True, False, False]
    assert all(score is None or 0 <= score <= 1 for score in scores)
    assert classify([], [], of(folder)) == []


def test_what_stands_behind_the_limit_of_tokens_is_not_read(folder: Path) -> None:
    text = "the river teacher crossed a garden because every letter had been left"
    short = "the river teacher crossed a garden"
    few = of(folder, max_tokens=8)  # with the beginning and the end
    [cut], [whole] = classify([text], ["en"], few), classify([short], ["en"], of(folder))
    assert cut == pytest.approx(whole, abs=1.01e-4)
    assert classify([text], ["en"], of(folder)) != classify([text], ["en"], few)


def test_batches_hold_each_text_once_by_length_and_within_bounds() -> None:
    draw = random.Random(2)
    lengths = [draw.choice((1, 5, 60, 512, 5000, 20_000)) for _ in range(700)]
    found = list(batches_by_length(lengths))
    assert sorted(k for batch in found for k in batch) == list(range(700))
    assert [lengths[k] for batch in found for k in batch] == sorted(lengths)
    for batch in found:
        assert len(batch) <= 256
        assert len(batch) == 1 or len(batch) * max(lengths[k] for k in batch) <= 8192


def documents() -> pa.Table:
    rows = [
        Document(document_id("table", "t", str(k)), text, "table", f"t#{k}", "zh" if k % 5 == 0 else "en", 0.9)
        for k, text in enumerate([*texts()[:20], " "])
    ]
    return to_table(rows, RAW)


def test_scores_are_stored_by_name_and_rules_ask_for_them(folder: Path) -> None:
    toy, other = of(folder), of(folder, name="advert", label="advert", language="en")
    curation, _ = curate_batch(documents(), CurateConfig(preset="none", classifiers=(toy, other)))
    rows = curation.to_pylist()
    some, languages = documents()["text"].to_pylist(), documents()["language"].to_pylist()
    for one in (toy, other):
        values = [value_of(row, f"classifier:{one.name}") for row in rows]
        assert values == classify(some, languages, one)
    assert curate_batch(documents(), CurateConfig(preset="none"))[0]["classifiers"].null_count == len(rows)
    scores = sorted(value_of(row, "classifier:toy") for row in rows[:20])
    bounds = {"minimum": scores[5], "maximum": scores[15]}
    strict = CurateConfig(preset="none", classifiers=(of(folder, **bounds), other))
    judged = curate_batch(documents(), strict)[0].to_pylist()
    for row in judged:
        value = value_of(row, "classifier:toy")
        low, high = value is not None and value < scores[5], value is not None and value > scores[15]
        assert row["rules"] == [f"classifier:toy:{name}" for name, bad in (("minimum", low), ("maximum", high)) if bad]
    assert 0 < sum(row["verdict"] == "rejected" for row in judged) < len(judged)


def test_other_bounds_are_answered_from_the_ledger_another_model_is_not(folder: Path) -> None:
    loose = CurateConfig(preset="none", classifiers=(of(folder),))
    curation, _ = curate_batch(documents(), loose)
    assert "classifiers" in columns_needed(loose, CurateConfig(classifiers=(of(folder, minimum=0.1),)),
                                           groups=[("table", "en")])  # fmt: skip
    scores = sorted(filter(None, (value_of(row, "classifier:toy") for row in curation.to_pylist())))
    for minimum in (scores[0], scores[7], 1.1):
        strict = CurateConfig(preset="none", classifiers=(of(folder, minimum=minimum),))
        _, after = ask(curation, loose, strict)
        again = curate_batch(documents(), strict)[0]
        assert after.columns()["rules"].to_pylist() == again["rules"].to_pylist()
    for changed in (of(folder, label="advert"), of(folder, max_tokens=9), of(folder, name="other")):
        with pytest.raises(NeedsRerunError, match=r"curate\.classifiers"):
            check_edits(curation, loose, CurateConfig(preset="none", classifiers=(changed,)))


def test_histograms_are_drawn_of_scores(folder: Path) -> None:
    config = CurateConfig(preset="none", classifiers=(of(folder, minimum=0.5),))
    curation, _ = curate_batch(documents(), config)
    with duckdb.connect() as connection:
        connection.register("curation", curation)
        found = histograms(connection, "curation", config)
    assert {one.metric for one in found} == {"classifier:toy"}
    assert sum(sum(one.kept) + sum(one.rejected) for one in found) == 20


def test_models_are_versioned_by_content_and_changed_or_wrong_ones_refused(folder: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(folder, tmp_path / "copy"))
    assert fingerprint(of(copy)) == fingerprint(of(folder))
    config = of(copy)
    (copy / "config.json").write_text((copy / "config.json").read_text() + "\n")
    assert fingerprint(of(copy)) != fingerprint(config)
    with pytest.raises(UserError, match="has changed since"):
        classify(["a"], ["en"], config)
    with pytest.raises(UserError, match=r"has no label 'poem'.*it has advert, prose, other"):
        classify(["a"], ["en"], of(folder, label="poem"))
    with pytest.raises(UserError, match="has no label ''"):
        classify(["a"], ["en"], of(folder, label=""))
    (copy / "config.json").write_text("{}")
    with pytest.raises(UserError, match="is no classifier") as caught:
        classify(["a"], ["en"], of(copy))
    assert "\n" not in str(caught.value)


def test_a_model_of_the_hub_is_named_with_its_commit_and_libraries_are_part_of_the_version() -> None:
    commit = "0123456789abcdef" * 2 + "01234567"
    named = of(Path("x"), model=f"someone/classifier@{commit}")
    assert named.model.version.startswith(f"someone/classifier@{commit}, transformers ")
    assert ", torch " in named.model.version
    for wrong in ("someone/classifier", "someone/classifier@main", "no/such/folder"):
        with pytest.raises(ValidationError, match=r"there is no folder.*named with its commit"):
            of(Path("x"), model=wrong)


def test_two_of_one_name_and_names_that_are_no_identifiers_are_mistakes(folder: Path) -> None:
    with pytest.raises(ValidationError, match="two are called 'toy'"):
        CurateConfig(classifiers=(of(folder), of(folder)))
    for name in ("", "Toy", "a'b", "a:b"):
        with pytest.raises(ValidationError):
            of(folder, name=name)
