"""A quality classifier in a run: trained, judged, applied by curation, cached, and trained anew for other labels."""

from __future__ import annotations

import json
import random
import shutil
from pathlib import Path
from typing import Any

import pytest
import world
import yaml
from harness import PrefectServer, headwater

from datalake.curate.scores.quality import QualityModel
from datalake.errors import UserError
from datalake.lake.lake import Lake
from datalake.lake.records import read_record

SHOP = ["buy", "now", "cheap", "click", "here", "offer", "sale", "cart", "price", "discount", "login", "the", "of"]
SMALL: dict[str, Any] = {"good": "hq", "buckets": 500, "dimension": 8, "epochs": 20}


def shop(seed: int) -> str:
    return " ".join(random.Random(seed).choices(SHOP, k=120))


def labels(path: Path, first: int = 100, amount: int = 60) -> Path:
    rows = [
        {"text": world.prose(n) if n % 2 else shop(n), "label": "hq" if n % 2 else "cc"}
        for n in range(first, first + amount)
    ]
    return world.jsonl(path, rows)


@pytest.fixture
def recipe(prefect_server: PrefectServer, tmp_path: Path) -> dict[str, Any]:
    """Three pages of prose, three of a shop, and a Chinese one."""
    rows = [{"id": f"good{n}", "text": world.prose(n)} for n in range(3)]
    rows += [{"id": f"shop{n}", "text": shop(n)} for n in range(3)]
    rows += [{"id": "zh", "text": world.CHINESE}]
    labels(tmp_path / "labels" / "one.jsonl")
    return world.tables(
        tmp_path,
        [world.jsonl(tmp_path / "documents.jsonl", rows)],
        quality=SMALL | {"paths": [str(tmp_path / "labels")]},
        curate={"preset": "none", "quality": {"minimum": 0.5}},
    )


def found(lake: Path) -> dict[str, tuple[str, str | None, float | None]]:
    """Verdict, rule and quality by the row's id."""
    sql = """SELECT split_part(r.uri, '#', 2), c.verdict, c.rule, c.quality
             FROM small.raw r JOIN small.curation c USING (id)"""
    return {name: (verdict, rule, score) for name, verdict, rule, score in world.rows(lake, sql)}


def test_curation_rejects_what_the_classifier_finds_bad_and_stores_its_score(
    recipe: dict[str, Any], tmp_path: Path
) -> None:
    lake = tmp_path / "lake"
    reports = world.run(recipe, lake, "curate")
    assert world.states(reports) == {"ingest": "ran", "quality": "ran", "curate": "ran"}
    model = QualityModel.trained(world.folder_of(lake, reports["quality"], "quality"))
    rows = found(lake)
    assert {name: row[:2] for name, row in rows.items()} == {
        **{f"good{n}": ("kept", None) for n in range(3)},
        **{f"shop{n}": ("rejected", "quality") for n in range(3)},
        "zh": ("kept", None),
    }
    assert rows["zh"][2] is None
    assert [rows[f"good{n}"][2] for n in range(3)] == [model.score(world.prose(n), "en") for n in range(3)]
    record = read_record(Lake(lake), reports["curate"].fingerprint or "")
    assert record is not None
    assert record.inputs["quality"] == [reports["quality"].outputs["quality"]]


def test_its_report_has_figures_with_intervals_distribution_and_minima(recipe: dict[str, Any], tmp_path: Path) -> None:
    lake = tmp_path / "lake"
    report = world.run(recipe, lake, "quality")["quality"]
    record = read_record(Lake(lake), report.fingerprint or "")
    assert record is not None
    held, counts = record.counts["held out"], record.counts
    assert counts["rows"] == 60 == counts["training"] + held
    figures = record.report["figures"]
    assert {name: value["value"] for name, value in figures.items()} == {
        "accuracy": 1.0,
        "roc_auc": 1.0,
        "average_precision": 1.0,
    }
    assert figures["accuracy"]["low"] < 1.0 == figures["accuracy"]["high"]
    rows = record.report["distribution"]
    assert sum(row["good"] for row in rows) == counts["held out good"] == sum(row["good"] for row in rows[10:])
    assert sum(row["others"] for row in rows) == held - counts["held out good"]
    half = next(row for row in record.report["minima"] if row["minimum"] == 0.5)
    assert (half["keeps of the good"], half["keeps of the others"], half["good among the kept"]) == (1.0, 0.0, 1.0)
    text = world.report(lake)
    assert "0.5 1 0 1" in text, "the minimum's row"
    assert "Quality classifier What each minimum" in text
    sql = "SELECT metric, value, n FROM runs.evaluations WHERE task = 'quality' ORDER BY metric"
    assert world.rows(lake, sql) == [("accuracy", 1.0, held), ("average_precision", 1.0, held), ("roc_auc", 1.0, held)]


def test_labels_that_moved_are_cached_and_labels_that_changed_train_and_curate_anew(
    recipe: dict[str, Any], tmp_path: Path
) -> None:
    lake = tmp_path / "lake"
    first = world.run(recipe, lake, "curate")
    shutil.move(tmp_path / "labels", tmp_path / "elsewhere")
    recipe["quality"]["paths"] = [str(tmp_path / "elsewhere")]
    assert set(world.states(world.run(recipe, lake, "curate")).values()) == {"cached"}
    labels(tmp_path / "elsewhere" / "two.jsonl", 300)
    again = world.run(recipe, lake, "curate")
    assert world.states(again) == {"ingest": "cached", "quality": "ran", "curate": "ran"}
    assert again["quality"].outputs["quality"].data_version != first["quality"].outputs["quality"].data_version
    # One more label file that says nothing new: trained anew to the same bytes, so curation stops there.
    labels(tmp_path / "elsewhere" / "three.jsonl", 300)
    assert world.states(world.run(recipe, lake, "curate")) == {
        "ingest": "cached",
        "quality": "ran",
        "curate": "cached",
    }


def test_a_ready_model_gives_the_scores_of_the_one_it_is_a_copy_of(recipe: dict[str, Any], tmp_path: Path) -> None:
    trained = world.run(recipe, tmp_path / "lake", "curate")
    folder = world.folder_of(tmp_path / "lake", trained["quality"], "quality")
    shutil.copy(folder / "model.bin", tmp_path / "ready.bin")
    ready = {"model": str(tmp_path / "ready.bin"), "label": "good", "words": "plain", "language": "en", "minimum": 0.5}
    other = recipe | {"quality": None, "curate": {"preset": "none", "quality": ready}}
    lake = tmp_path / "other"
    reports = world.run(other, lake, "curate")
    assert reports["quality"].state == "skipped"
    assert found(lake) == found(tmp_path / "lake")
    shutil.move(tmp_path / "ready.bin", tmp_path / "moved.bin")
    ready["model"] = str(tmp_path / "moved.bin")
    assert world.states(world.run(other, lake, "curate")) == {"ingest": "cached", "curate": "cached"}


def test_without_a_classifier_no_document_has_a_quality(recipe: dict[str, Any], tmp_path: Path) -> None:
    reports = world.run(recipe | {"quality": None, "curate": {"preset": "none"}}, tmp_path / "lake", "curate")
    assert reports["quality"].note == "`quality` is null in the recipe"
    assert {row[2] for row in found(tmp_path / "lake").values()} == {None}


def test_what_if_answers_for_another_minimum_and_not_for_another_model(recipe: dict[str, Any], tmp_path: Path) -> None:
    lake = tmp_path / "lake"
    world.run(recipe, lake, "curate")
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump(recipe))
    scores = sorted(score for _, _, score in found(lake).values() if score is not None)
    for minimum in (None, 0.0, scores[1], 1.0):
        changed = ["--set", f"curate.quality.minimum={'null' if minimum is None else minimum}"]
        done = headwater("what-if", str(path), *changed, "--lake", str(lake), "--json")
        assert done.returncode == 0, done.stderr
        answer = json.loads(done.stdout)
        assert answer["before"] == 4
        assert answer["after"] == 1 + sum(minimum is None or score >= minimum for score in scores)
    ready = f"curate.quality={{model: {world.folder_of(lake, world.run(recipe, lake, 'quality')['quality'], 'quality')}"
    done = headwater("what-if", str(path), "--set", f"{ready}/model.bin, label: good}}", "--set", "quality=null",
                     "--lake", str(lake))  # fmt: skip
    assert done.returncode == 2
    done = headwater("what-if", str(path), "--set", "quality.epochs=3", "--lake", str(lake))
    assert done.returncode == 2
    assert "`quality` is not asked about" in done.stderr


def test_a_mistake_in_the_labels_ends_the_run_with_one_line(recipe: dict[str, Any], tmp_path: Path) -> None:
    recipe["quality"]["good"] = "excellent"
    with pytest.raises(Exception, match="0 have the label 'excellent'"):
        world.run(recipe, tmp_path / "lake", "curate")
    recipe["quality"]["paths"] = [str(tmp_path / "gone")]
    with pytest.raises(UserError, match=r"quality\.paths: there is no .*gone.*correct the path"):
        world.run(recipe, tmp_path / "lake", "curate")


def test_where_quality_decides_which_duplicate_stays_another_classifier_decides_anew(
    recipe: dict[str, Any], tmp_path: Path
) -> None:
    page = world.prose(1, 30)
    rows = [{"id": "prose", "text": page}, {"id": "mixed", "text": f"{page} {' '.join(shop(1).split()[:30])}"}]
    recipe["sources"][0]["paths"] = [str(world.jsonl(tmp_path / "pages.jsonl", rows))]
    recipe["curate"] = {"preset": "none"}
    recipe["deduplicate"] = {"precedence": ["quality"], "threshold": 0.6}
    lake, stays = tmp_path / "lake", []
    for good in ("hq", "cc"):
        recipe["quality"]["good"] = good
        world.run(recipe, lake, "deduplicate")
        stays += world.rows(lake, "SELECT split_part(uri, '#', 2) FROM small.clean")
    assert stays == [("prose",), ("mixed",)]
