"""People in the loop, whole: a run makes a model and waits, two people compare its answers, it goes on with them."""

from __future__ import annotations

import json
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import world
from harness import Command, PrefectServer, answering, browsing

from datalake.lake.lake import Lake
from flows.label import items
from flows.label.annotators import annotators
from flows.label.app import application
from flows.label.desk import KINDS, Desk
from flows.label.labels import DOCUMENTS, PREFERENCES, Labels
from flows.lake import Lake as Shown
from models.evaluation.agreement import krippendorff_alpha
from models.synthesis.config import WriterConfig

PAIRS = 50
PATIENCE_MS = 120_000


def recipe(folder: Path, base: Path, lake: Path) -> dict[str, Any]:
    """A recipe that tunes an open model on dialogues, and learns from labels which answers people prefer."""
    talks = world.dialogues(folder / "dialogues.jsonl", 70)
    models = {name: section for name, section in world.tiny_models().items() if name in ("sft", "reward")}
    left_out = dict.fromkeys(("pretrain", "dpo", "kto", "ppo", "evaluate"))
    sources = [{"kind": "conversations", "paths": [str(talks)]}]
    sources += [{"kind": "preferences", "paths": [str(lake / "labels" / "preferences")], "name": "people"}]
    mixture = {"mixture": {"holdout": 0.2}}
    return {"corpus": "people", "base": str(base), "sources": sources, **models, **left_out, **mixture} | {
        "runtime": world.inline()
    }


def judge_all(browser: Any, home: str, key: str, choose: Any) -> None:
    """Compare every pair of a queue on the page."""
    context = browser.new_context(viewport={"width": 1280, "height": 900}, locale="en-US", bypass_csp=True)
    context.set_default_timeout(PATIENCE_MS)
    page = context.new_page()
    page.goto(f"{home}/#{key}")
    page.wait_for_selector("#task:not([hidden])")
    for done in range(PAIRS):
        answers = page.locator("#pairs .answer .text").all_inner_texts()
        page.keyboard.press(choose(done, *map(len, answers)))
        page.keyboard.press("Enter")
        page.wait_for_function("n => document.getElementById('count').textContent.startsWith(`${n} `)", arg=done + 1)
    assert "That was all" in page.locator("#done").inner_text()
    context.close()


@pytest.fixture(scope="module")
def loop(
    prefect_server: PrefectServer, open_model: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, dict[str, Any]]:
    """A lake whose run waited for 50 pairs that two people compared in a browser, and the run's reports."""
    from flows.flows import label

    folder = tmp_path_factory.mktemp("loop")
    lake = folder / "lake"
    labels = Labels(lake)
    over = threading.Event()

    def paused() -> str:
        """The run that waits for labels, once it does."""
        wanted = {"flow_runs": {"state": {"type": {"any_": ["PAUSED"]}}}, "flows": {"name": {"any_": ["label"]}}}
        while not over.is_set():
            for run in prefect_server.call("/flow_runs/filter", wanted):
                return str(run["id"])
            over.wait(0.2)
        raise AssertionError("the run has ended before it waited")

    def people() -> None:
        run = paused()
        try:
            made = Lake(lake)
            chosen = Shown(lake).trace("sft")[0]
            prompts = items.sample(items.prompts_of(made, "conversations", None), 70, 0)
            sft = items.Checkpoint(made.folder("sft", chosen["fingerprint"]) / "checkpoint", {"stage": "sft"})
            if not sft.folder.is_dir():
                sft = sft._replace(folder=made.folder("sft", chosen["fingerprint"]))
            config = WriterConfig(model="sft", temperature=1.0, new_tokens=12)
            rows = [row for some, _ in items.written(lake, prompts, [sft], config, 0) for row in some][:PAIRS]
            assert len(rows) == PAIRS
            for row in rows:
                labels.items("pairs").add(row)
            keys = annotators(labels, ["ann", "bob"])
            app = application(Desk(labels, KINDS["pairs"], keys, 1.0), keys)
            with answering(app) as home, browsing() as browser:
                judge_all(browser, home, keys["ann"], lambda _, left, right: "3" if left > right else "7")
                judge_all(
                    browser, home, keys["bob"], lambda n, left, right: "2" if (left > right) ^ (n % 5 == 0) else "8"
                )
        except BaseException:
            prefect_server.call(f"/flow_runs/{run}/resume", {})  # or it waits for a month
            raise

    with ThreadPoolExecutor(1) as pool:
        working = pool.submit(people)
        try:
            reports = label(recipe(folder, open_model, lake), pairs=PAIRS, lake=str(lake))
        finally:
            over.set()
        working.result()
    return lake, {report.stage: report for report in reports}


def test_the_run_goes_on_by_itself_and_learns_from_what_people_said(loop: tuple[Path, dict[str, Any]]) -> None:
    lake, reports = loop
    assert reports["sft"].state == "cached"
    assert reports["reward"].state == "ran"
    said = Labels(lake).rows(PREFERENCES)
    assert [len(said[name]) for name in ("ann", "bob")] == [PAIRS, PAIRS]
    read = world.rows(lake, "SELECT attributes['annotator'], count(*) FROM people.preferences GROUP BY ALL ORDER BY 1")
    assert read == [("ann", PAIRS), ("bob", PAIRS)]
    marked = "SELECT DISTINCT attributes['margin'], attributes['checkpoint_a.stage'] FROM people.preferences ORDER BY 1"
    assert world.rows(lake, marked) == [("0.3333", "sft"), ("0.6667", "sft")]
    assert "ingest" in {row["stage"] for row in Shown(lake).trace("reward")}


def test_the_report_tells_labels_agreement_and_the_reward_model(loop: tuple[Path, dict[str, Any]]) -> None:
    lake, _ = loop
    found = Shown(lake).labels()["pairs"]
    assert (found["labels"], found["items"], found["shared"]) == (2 * PAIRS, PAIRS, PAIRS)
    said = Labels(lake).rows(PREFERENCES)
    both = [(said["ann"][id]["winner"], said["bob"][id]["winner"]) for id in said["ann"]]
    [better, grade, harmless] = found["agreement"]
    assert better["alpha"] == pytest.approx(krippendorff_alpha(both))
    equal = sum(a == b for a, b in both)
    assert equal == PAIRS - 10
    by_a = [sum(pair[side] == "a" for pair in both) / PAIRS for side in (0, 1)]
    chance = by_a[0] * by_a[1] + (1 - by_a[0]) * (1 - by_a[1])
    assert better["kappa"][0]["kappa"] == pytest.approx((equal / PAIRS - chance) / (1 - chance))
    assert harmless["alpha"] is None  # nobody found harm: nothing can be said
    text = world.report(lake)
    assert f"Pairs: {2 * PAIRS} labels of {PAIRS}, {PAIRS} by two people or more" in text
    assert f"{better['alpha']:.3f}" in text
    assert f"{grade['alpha']:.3f}" in text
    assert f"ann , bob : {better['kappa'][0]['kappa']:.3f} on {PAIRS}" in text
    assert "reward" in text
    assert "of held-out pairs" in text


def test_documents_of_a_rule_are_judged_and_teach_the_classifier(
    prefect_server: PrefectServer, tmp_path: Path, headwater: Command
) -> None:
    rows = [{"id": f"g{n}", "text": world.prose(n)} for n in range(12)]
    rows += [{"id": f"s{n}", "text": world.prose(100 + n, 3)} for n in range(12)]
    lake = tmp_path / "lake"
    given = world.tables(tmp_path, [world.jsonl(tmp_path / "in.jsonl", rows)], curate={"preset": "gopher"})
    world.run(given, lake, "curate")
    assert "min_words" in headwater("label", "--documents", "--rule", "nothing", "--lake", lake).mistake()
    from flows.browse.documents import both_sides

    asked = both_sides(Lake(lake), None, "min_words", 20, 0)
    assert [row["verdict"] for row in asked] == ["rejected"] * 10 + ["kept"] * 10
    assert all("min_words" in row["rules"] for row in asked[:10])
    assert asked == both_sides(Lake(lake), None, "min_words", 20, 0)
    labels = Labels(lake)
    for row in asked:
        labels.items("documents").add(row)
    kind, keys = KINDS["documents"], annotators(labels, ["ann"])
    desk = Desk(labels, kind, keys, 0.2)
    for row in asked:
        desk.judge("ann", kind.body(item=row["id"], choice="good" if row["verdict"] == "kept" else "bad"))  # type: ignore[call-arg]
    assert set(json.loads((labels.path(DOCUMENTS, "ann")).read_text().splitlines()[0])) >= {"text", "label", "rules"}
    quality = {"paths": [str(labels.root / DOCUMENTS)], "good": "good", "dimension": 4, "buckets": 100, "holdout": 0.3}
    reports = world.run(given | {"quality": quality}, lake, "quality")
    assert reports["quality"].state == "ran"
    assert reports["quality"].records_in == 20
    assert Shown(lake).labels()["documents"]["labels"] == 20
    assert "Documents: 20 labels of 20" in world.report(lake)
