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
from flows.checkpoints import choose
from flows.label import items
from flows.label.annotators import annotators
from flows.label.app import application
from flows.label.desk import KINDS, Desk
from flows.label.labels import DOCUMENTS, PREFERENCES, Labels
from flows.label.pairs import Comparison
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


def judge_all(browser: Any, home: str, key: str, pick: Any) -> None:
    """Compare every pair of a queue on the page."""
    context = browser.new_context(viewport={"width": 1280, "height": 900}, locale="en-US", bypass_csp=True)
    context.set_default_timeout(PATIENCE_MS)
    page = context.new_page()
    page.goto(f"{home}/#{key}")
    page.wait_for_selector("#task:not([hidden])")
    for done in range(PAIRS):
        answers = page.locator("#pairs .answer .text").all_inner_texts()
        page.keyboard.press(pick(done, *answers))
        page.keyboard.press("Enter")
        page.wait_for_function("n => document.getElementById('count').textContent.startsWith(`${n} `)", arg=done + 1)
    assert "That was all" in page.locator("#done").inner_text()
    context.close()


def paused(server: PrefectServer, flow: str, over: threading.Event) -> str:
    """The run of a flow that waits for labels, once it does."""
    wanted = {"flow_runs": {"state": {"type": {"any_": ["PAUSED"]}}}, "flows": {"name": {"any_": [flow]}}}
    while not over.is_set():
        for run in server.call("/flow_runs/filter", wanted):
            return str(run["id"])
        over.wait(0.1)
    raise AssertionError("the run has ended before it waited")


@pytest.mark.parametrize("by_hand", [False, True])
def test_a_paused_run_goes_on_when_enough_is_said_or_a_person_says_so(
    prefect_server: PrefectServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, by_hand: bool
) -> None:
    from prefect import flow

    from flows.label import waiting

    monkeypatch.setattr(waiting, "_POLL_S", 0.1)
    labels, over = Labels(tmp_path), threading.Event()
    prompt = [{"role": "user", "content": "What?"}]
    rows = [items.pair(prompt, [f"{n}", f"{n} or more"], [{}, {}]) for n in range(4)]
    for row in rows:
        labels.items("pairs").add(row)
    desk = Desk(labels, KINDS["pairs"], annotators(labels, ["ann", "bob"]), 1)

    def people() -> str:
        run = paused(prefect_server, name, over)
        desk.judge("ann", Comparison(item=rows[0]["id"], choice=2))
        desk.judge("bob", Comparison(item=rows[0]["id"], choice=1))  # the same pair
        desk.judge("ann", Comparison(item=rows[1]["id"], choice=0))  # neither is better
        state = prefect_server.call(f"/flow_runs/{run}")["state"]["type"]
        if by_hand:
            prefect_server.call(f"/flow_runs/{run}/resume", {})
        else:
            desk.judge("bob", Comparison(item=rows[1]["id"], choice=-4))
        return str(state)

    name = f"waits-{by_hand}".lower()
    waits = flow(name=name)(lambda: waiting.wait_for_pairs(labels, 2))
    with ThreadPoolExecutor(1) as pool:
        working = pool.submit(people)
        try:
            assert waits() == (1 if by_hand else 2)
        finally:
            over.set()
        assert working.result() == "PAUSED"


@pytest.fixture(scope="module")
def loop(
    prefect_server: PrefectServer, open_model: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, dict[str, Any]]:
    """A lake whose run waited for 50 pairs that two people compared in a browser, and one more; the run's reports."""
    from flows.flows import label

    folder = tmp_path_factory.mktemp("loop")
    lake = folder / "lake"
    labels = Labels(lake)
    over = threading.Event()

    def people() -> None:
        run = paused(prefect_server, "label", over)
        try:
            prompts = items.sample(items.prompts_of(Lake(lake), "conversations", None), 70, 0)
            sft = items.Checkpoint(choose("sft", lake).folder, {"stage": "sft"})
            config = WriterConfig(model="sft", temperature=1.0, new_tokens=12)
            made = [row for some, _ in items.written(lake, prompts, [sft], config, 0) for row in some]
            *rows, last = made[: PAIRS + 1]
            assert len(rows) == PAIRS
            for row in rows:
                labels.items("pairs").add(row)
            keys = annotators(labels, ["ann", "bob"])
            app = application(Desk(labels, KINDS["pairs"], keys, 1.0), keys)
            with answering(app) as home, browsing() as browser:
                judge_all(browser, home, keys["ann"], lambda _, left, right: "3" if left > right else "7")
                judge_all(browser, home, keys["bob"], lambda n, left, right: "28"[(left > right) ^ (n % 5 > 0)])
            labels.items("pairs").add(last)
            Desk(labels, KINDS["pairs"], keys, 1.0).judge("ann", Comparison(item=last["id"], choice=4))
        except BaseException:
            prefect_server.call(f"/flow_runs/{run}/resume", {})  # or it waits for a month
            raise

    with ThreadPoolExecutor(1) as pool:
        working = pool.submit(people)
        try:
            reports = label(recipe(folder, open_model, lake), pairs=PAIRS + 1, lake=str(lake))
        finally:
            over.set()
        working.result()
    return lake, {report.stage: report for report in reports}


@pytest.mark.slow
def test_the_run_goes_on_by_itself_and_learns_from_what_people_said(loop: tuple[Path, dict[str, Any]]) -> None:
    lake, reports = loop
    assert reports["sft"].state == "cached"
    assert reports["reward"].state == "ran"
    said = Labels(lake).rows(PREFERENCES)
    assert [len(said[name]) for name in ("ann", "bob")] == [PAIRS + 1, PAIRS]
    read = world.rows(lake, "SELECT attributes['annotator'], count(*) FROM people.preferences GROUP BY ALL ORDER BY 1")
    assert read == [("ann", PAIRS + 1), ("bob", PAIRS)]
    marked = "SELECT DISTINCT attributes['margin'], attributes['checkpoint_a.stage'] FROM people.preferences ORDER BY 1"
    assert world.rows(lake, marked) == [("0.3333", "sft"), ("0.6667", "sft"), ("1.0", "sft")]
    assert "ingest" in {row["stage"] for row in Shown(lake).trace("reward")}


@pytest.mark.slow
def test_the_report_tells_labels_agreement_and_the_reward_model(loop: tuple[Path, dict[str, Any]]) -> None:
    lake, _ = loop
    found = Shown(lake).labels()["pairs"]
    assert (found["labels"], found["items"], found["shared"]) == (2 * PAIRS + 1, PAIRS + 1, PAIRS)
    said = Labels(lake).rows(PREFERENCES)
    both = [(said["ann"][id]["winner"], said["bob"][id]["winner"]) for id in said["bob"]]
    [better, grade, harmless] = found["agreement"]
    assert better["alpha"] == pytest.approx(krippendorff_alpha(both))
    equal = sum(a == b for a, b in both)
    assert equal == PAIRS - 10
    by_a = [sum(pair[side] == "a" for pair in both) / PAIRS for side in (0, 1)]
    chance = by_a[0] * by_a[1] + (1 - by_a[0]) * (1 - by_a[1])
    assert better["kappa"][0]["kappa"] == pytest.approx((equal / PAIRS - chance) / (1 - chance))
    assert harmless["alpha"] is None  # nobody found harm: nothing can be said
    text = world.report(lake)
    assert f"Pairs: {2 * PAIRS + 1} labels of {PAIRS + 1}, {PAIRS} by two people or more" in text
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
    kind, keys = KINDS["documents"], annotators(labels, ["ann", "bob"])
    desk = Desk(labels, kind, keys, 0.2)
    for row in asked[5:15]:
        desk.judge("bob", kind.body(item=row["id"], choice="good" if row["verdict"] == "kept" else "bad"))  # type: ignore[call-arg]
    for row in asked:
        desk.judge("ann", kind.body(item=row["id"], choice="good" if row["verdict"] == "kept" else "bad"))  # type: ignore[call-arg]
    assert set(json.loads((labels.path(DOCUMENTS, "ann")).read_text().splitlines()[0])) >= {"text", "label", "rules"}
    quality = {"paths": [str(labels.root / DOCUMENTS)], "good": "good", "dimension": 4, "buckets": 100, "holdout": 0.3}
    reports = world.run(given | {"quality": quality}, lake, "quality")
    assert reports["quality"].state == "ran"
    assert reports["quality"].records_in == 30
    found = Shown(lake).labels()["documents"]
    assert (found["labels"], found["shared"]) == (30, 10)
    assert found["agreement"][0] == {
        "measure": "label",
        "alpha": 1.0,
        "kappa": [{"first": "ann", "second": "bob", "items": 10, "kappa": 1.0}],
    }
    assert "Documents: 30 labels of 20, 10 by two people or more" in world.report(lake)
    assert "ann , bob : 1.000 on 10" in world.report(lake)
