"""The quality classifier: labels read and parted, training to the byte, scores held against floret's own."""

from __future__ import annotations

import gzip
import json
import random
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import world
from pydantic import ValidationError

from datalake.curate.scores.config import QualityConfig, QualityUse, label_text
from datalake.curate.scores.quality import (
    GOOD,
    MODEL,
    OTHER,
    Labelled,
    QualityModel,
    as_fasttext,
    read_labels,
    train,
    words_of,
)
from datalake.dedup.texts.shingles import WORD
from datalake.errors import UserError
from datalake.files import file_digest
from datalake.identity import fingerprint
from datalake.text.chinese import segment

SMALL: dict[str, Any] = {"good": "1", "buckets": 500, "dimension": 8}


def shop(seed: int) -> str:
    """A text that is nobody's idea of good: what a shop writes."""
    draw = random.Random(seed)
    return " ".join(
        draw.choices(
            ["buy", "now", "cheap", "click", "here", "offer", "sale", "cart", "price", "discount", "login"], k=60
        )
    )


def labelled(path: Path, amount: int = 60) -> Path:
    """Good prose and shop texts in turn, labels 1 and 0."""
    rows = [{"text": world.prose(n) if n % 2 else shop(n), "label": n % 2} for n in range(amount)]
    return world.jsonl(path, rows)


def config(path: Path, **more: Any) -> QualityConfig:
    return QualityConfig(paths=[str(path)], **(SMALL | more))


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> QualityModel:
    folder = tmp_path_factory.mktemp("trained")
    small = config(labelled(folder / "labels.jsonl"), epochs=20)
    train(read_labels(small).training, small, folder / "model")
    return QualityModel.trained(folder / "model")


# Words -----------------------------------------------------------------------------------------------------------

ODD = ["", " \n\t", "...!?", "\ud800 lone \udfff", "שלום עולם", "مرحبا", "🙂🙂 smile", "a\x00b", "ＦＵＬＬ width",
       "x" * 100_000, "__label__good __label__other", "</s> end", "ΣΑΣ İstanbul", "中文字 mixed 文ab字"]  # fmt: skip


def odd_texts() -> list[str]:
    draw = random.Random(3)
    return ODD + [draw.randbytes(draw.randrange(200)).decode("utf-8", "surrogateescape") for _ in range(100)]


def test_words_are_those_of_the_definition_for_any_text() -> None:
    for text in odd_texts():
        plain = WORD.findall(text.lower())
        assert words_of(text, "plain") == " ".join(plain)
        wanted = [p for p in segment(text.lower()) if len(p) > 1 and any(c.isalnum() or c == "\ufffd" for c in p)]
        assert words_of(text, "jieba").split(" ") == ([p for p in wanted if re.search(r"[^\W_]", p)] or [""])
        for kind in ("plain", "jieba", "raw"):
            words_of(text, kind).encode()  # type: ignore[arg-type]


def test_chinese_words_are_longer_than_a_character_and_have_a_letter() -> None:
    assert words_of("我们的老师，在 ABC 学校（2024年）！", "jieba") == "我们 老师 abc 学校 2024"
    assert words_of("  A line.\n\nAnother\u3000one  ", "raw") == "A line. Another one"


# Labels ----------------------------------------------------------------------------------------------------------


def test_labels_come_from_columns_and_from_lines_also_compressed(tmp_path: Path) -> None:
    rows = [(world.prose(n), n % 3 != 0) for n in range(30)]
    world.jsonl(tmp_path / "a.jsonl", [{"body": text, "kind": "hq" if good else "cc"} for text, good in rows])
    lines = "".join(f"__label__{'hq' if good else 'cc'} {' '.join(text.split())}\n" for text, good in rows)
    (tmp_path / "b.txt.gz").write_bytes(gzip.compress(lines.encode()))
    columns = read_labels(config(tmp_path / "a.jsonl", text="body", label="kind", good="hq"))
    text = read_labels(config(tmp_path / "b.txt.gz", good="hq"))
    assert columns == text
    assert sorted(columns.training + columns.heldout) == sorted(Labelled(words_of(t, "plain"), g) for t, g in rows)
    both = read_labels(config(tmp_path, text="body", label="kind", good="hq"))
    assert (both.training, both.heldout) == (text.training, text.heldout)
    assert both.counts["repeated"] == 30


def test_a_label_is_text_whatever_its_type() -> None:
    values = (True, False, 1, 0, 1.0, 0.5, "hq", "1")
    assert [label_text(value) for value in values] == ["true", "false", "1", "0", "1", "0.5", "hq", "1"]


def test_repeats_count_once_contradictions_not_at_all(tmp_path: Path) -> None:
    rows = [{"text": world.prose(n), "label": n % 2} for n in range(20)]
    more = [rows[0], {"text": world.prose(1).upper(), "label": 0}, rows[1], {"text": "?!", "label": 1}]
    found = read_labels(config(world.jsonl(tmp_path / "l.jsonl", rows + more), holdout=0.4))
    assert found.counts == {"rows": 24, "repeated": 1, "both labels": 3, "without words": 1}
    texts = {row.words for row in found.training + found.heldout}
    assert texts == {words_of(world.prose(n), "plain") for n in range(20) if n != 1}


def test_what_is_held_out_stays_held_out_when_texts_are_added_and_follows_the_seed(tmp_path: Path) -> None:
    few = read_labels(config(labelled(tmp_path / "a.jsonl", 60)))
    more = read_labels(config(labelled(tmp_path / "b.jsonl", 200)))
    other = read_labels(config(tmp_path / "a.jsonl", seed=1))
    assert set(few.heldout) <= set(more.heldout)
    assert set(few.training) <= set(more.training)
    assert set(other.heldout) != set(few.heldout)
    assert not set(more.heldout) & set(more.training)
    assert 0.1 < len(more.heldout) / 200 < 0.3


def test_labels_are_versioned_by_content_not_by_place(tmp_path: Path) -> None:
    here = config(labelled(tmp_path / "here" / "l.jsonl"))
    shutil.copytree(tmp_path / "here", tmp_path / "there")
    assert fingerprint(config(tmp_path / "there" / "l.jsonl")) == fingerprint(here)
    labelled(tmp_path / "there" / "l.jsonl", 61)
    assert fingerprint(config(tmp_path / "there" / "l.jsonl")) != fingerprint(here)
    labelled(tmp_path / "here" / "l.jsonl", 61)
    with pytest.raises(UserError, match=r"quality\.paths.*changed.*run it again"):
        read_labels(here)


@pytest.mark.parametrize(
    ("content", "more", "message"),
    [
        ('{"text": "a b"}\n', {}, r"row 0 of l\.jsonl has no 'label': correct `quality\.label`"),
        ('{"label": 1}\n', {}, "has no 'text': correct `quality.text`"),
        ('{"text": "a b", "label": null}\n', {}, "has no 'label'"),
        ("[1, 2]\n", {}, "has no 'text'"),
        ('{"text": "a b", "la\n', {}, "can't be read"),
        ("", {}, "of 0 texts to train on, 0 have the label '1'.*give more texts"),
        ('{"text": "a b", "label": 1}\n' * 9, {}, "1 have the label|0 have the label"),
    ],
)
def test_a_mistake_in_the_labels_is_one_line(tmp_path: Path, content: str, more: dict[str, Any], message: str) -> None:
    (tmp_path / "l.jsonl").write_text(content)
    with pytest.raises(UserError, match=message) as caught:
        read_labels(config(tmp_path / "l.jsonl", **more))
    assert "\n" not in str(caught.value)


def test_a_line_without_a_label_is_named(tmp_path: Path) -> None:
    (tmp_path / "l.txt").write_text("__label__1 a b\n\nno label here\n")
    with pytest.raises(UserError, match=r"line 3 of l\.txt doesn't begin with __label__"):
        read_labels(config(tmp_path / "l.txt"))


# Training --------------------------------------------------------------------------------------------------------


def test_the_same_labels_give_the_same_bytes_in_whatever_order_and_files(tmp_path: Path) -> None:
    one = labelled(tmp_path / "one" / "l.jsonl")
    lines = one.read_text().splitlines(keepends=True)
    (tmp_path / "two").mkdir()
    (tmp_path / "two" / "a.jsonl").write_text("".join(lines[:20:-1]))
    (tmp_path / "two" / "b.jsonl").write_text("".join(lines[:21]))
    digests = []
    for place in (one, one, tmp_path / "two"):
        small = config(place)
        train(read_labels(small).training, small, tmp_path / "model")
        digests.append(file_digest(str(tmp_path / "model" / MODEL)))
    assert len(set(digests)) == 1
    other = config(one, seed=2)
    train(read_labels(config(one)).training, other, tmp_path / "model")
    assert file_digest(str(tmp_path / "model" / MODEL)) != digests[0]


@pytest.mark.parametrize("word_ngrams", [1, 2])
def test_the_file_says_what_floret_says_of_its_own_model(tmp_path: Path, word_ngrams: int) -> None:
    import floret

    small = config(labelled(tmp_path / "l.jsonl"), word_ngrams=word_ngrams, epochs=20)
    labels = read_labels(small)
    train(labels.training, small, tmp_path / "model")
    model = QualityModel.trained(tmp_path / "model")
    rows = "".join(f"{GOOD if row.good else OTHER} {row.words}\n" for row in labels.training)
    (tmp_path / "rows.txt").write_text(rows)
    own = floret.train_supervised(
        input=str(tmp_path / "rows.txt"), lr=0.5, dim=8, epoch=20, minCount=1, wordNgrams=word_ngrams,
        bucket=500 if word_ngrams > 1 else 0, seed=0, thread=1, verbose=0,
    )  # fmt: skip
    for text in [world.prose(900), shop(901), "an unknown wordlet", *odd_texts()]:
        line = words_of(text, "plain")
        wanted = {name: p for p, name in own.f.predict(f"{line}\n", 2, 0.0, "strict")}
        assert model.score(text, "en") == (pytest.approx(min(wanted[GOOD], 1.0), abs=2e-6) if line else None)
    good = [model.score(row.words, "en") for row in labels.heldout if row.good]
    other = [model.score(row.words, "en") for row in labels.heldout if not row.good]
    assert min(x for x in good if x is not None) > max(x for x in other if x is not None)


def test_a_format_that_is_not_the_known_one_is_refused() -> None:
    with pytest.raises(ValueError, match="another format"):
        as_fasttext(bytes(200))


def test_training_that_diverges_says_what_to_lower(tmp_path: Path) -> None:
    wild = config(labelled(tmp_path / "l.jsonl"), learning_rate=10.0, epochs=1000)
    rows = [Labelled(words_of(shop(n), "plain"), n % 2 == 0) for n in range(50)]
    try:
        train(rows, wild, tmp_path / "model")
    except UserError as error:
        assert "lower `quality.learning_rate`" in str(error)  # noqa: PT017 - it needn't diverge everywhere


# Applying --------------------------------------------------------------------------------------------------------


def test_a_score_is_in_bounds_and_missing_without_words_or_in_another_language(trained: QualityModel) -> None:
    assert trained.language == "en"
    for text in odd_texts():
        score = trained.score(text, "en")
        assert (score is None) == (not words_of(text, "plain"))
        assert score is None or (0 <= score <= 1 and score == round(score, 6))
    assert trained.score(world.prose(1), "zh") is None
    assert trained._replace(language=None).score(world.prose(1), "zh") == trained.score(world.prose(1), "en")


def test_a_line_of_ten_megabytes_is_scored(trained: QualityModel) -> None:
    long = trained.score("river garden letter " * 500_000, "en")
    assert long is not None
    assert long > 0.5


def bundled() -> Path:
    """A fastText classifier that comes with a dependency: lid.176.ftz, in its compressed form."""
    from datalake.text.language import _bundled

    return _bundled()


def test_a_ready_model_is_applied_with_its_label_on_raw_text() -> None:
    predictor = pytest.importorskip("fasttext_pybind").fasttext()
    predictor.loadModel(str(bundled()))
    use = QualityUse(model=str(bundled()), label="de")
    model = QualityModel.ready(use)
    text = "Das ist ein Satz,\nder auf Deutsch geschrieben ist."
    wanted = {name: p for p, name in predictor.predict(text.replace("\n", " ") + "\n", 176, 0.0, "strict")}
    assert model.score(text, "und") == pytest.approx(wanted["__label__de"], abs=1e-6)
    assert model.score("This one is in English.", "en") < 0.1  # type: ignore[operator]
    assert QualityModel.ready(use.model_copy(update={"label": "__label__de"})).score(text, "en") == model.score(
        text, ""
    )


def test_a_ready_model_is_versioned_by_content_and_a_changed_one_refused(tmp_path: Path) -> None:
    shutil.copy(bundled(), tmp_path / "one.ftz")
    shutil.copy(bundled(), tmp_path / "two.ftz")
    one, two = (QualityUse(model=str(tmp_path / name), label="en") for name in ("one.ftz", "two.ftz"))
    assert fingerprint(one) == fingerprint(two)
    (tmp_path / "two.ftz").write_bytes(bytes(1000))
    with pytest.raises(UserError, match=r"two\.ftz has changed"):
        QualityModel.ready(two).score("a text", "en")
    broken = QualityUse(model=str(tmp_path / "two.ftz"), label="en")
    assert fingerprint(broken) != fingerprint(one)
    with pytest.raises(UserError, match=r"no fastText classifier: correct `curate\.quality\.model`"):
        QualityModel.ready(broken).score("a text", "en")
    with pytest.raises(UserError, match=r"no label '__label__hq': correct `curate\.quality\.label`; it has __label__"):
        QualityModel.ready(one.model_copy(update={"label": "hq"})).score("a text", "en")
    (tmp_path / "one.ftz").unlink()
    with pytest.raises(UserError, match=r"curate\.quality\.model: there is no file"):
        QualityModel.ready(one).score("another", "en")


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"model": "gone.bin", "label": "hq"}, "there is no file '.*gone.bin': correct the path"),
        ({"label": "hq"}, "label, words and language are about a ready model"),
        ({"words": "plain", "minimum": 0.5}, "are about a ready model"),
        ({"minimum": 1.5}, "less than or equal to 1"),
    ],
)
def test_a_mistake_about_the_model_is_told(given: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        QualityUse(**given)


def test_a_ready_model_needs_the_name_of_its_good_label() -> None:
    with pytest.raises(ValidationError, match="say which label"):
        QualityUse(model=str(bundled()))


def test_real_labels_train_a_classifier_that_ranks(samples: Path, tmp_path: Path) -> None:
    from models.evaluation.ranking import roc_auc

    real = QualityConfig(paths=[str(samples / "quality" / "dclm-agreement_data.jsonl.gz")], good="1", epochs=25)
    labels = read_labels(real)
    train(labels.training, real, tmp_path / "model")
    model = QualityModel.trained(tmp_path / "model")
    scores = [model.score(row.words, "en") or 0.0 for row in labels.heldout]
    assert roc_auc([row.good for row in labels.heldout], scores) > 0.8
    json.loads((tmp_path / "model" / "quality.json").read_text())
