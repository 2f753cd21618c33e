"""Promotion: a candidate is judged beside the current model, a person agrees in a form, and the tag moves."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import toys
import world
from browser import Browser
from harness import Command, PrefectServer

from datalake.document import Conversation
from datalake.errors import UserError
from datalake.identity import fingerprint
from datalake.lake.lake import Lake
from datalake.lake.records import Manifest, StageRecord, StageReport, read_record, write_manifest, write_record
from datalake.lake.shards import ShardWriter
from datalake.lake.tags import tag
from datalake.tables import CONVERSATIONS, to_table
from flows import lake as shown
from flows.checkpoints import choose

LONG = "the cat sees the bird and the dog eats the tree and the cow likes the"
ROWS = [
    *({"q": f"the {a} {b} the", "c": ["bird", "tree"], "g": 0} for a in ("cat", "dog") for b in ("sees", "eats")),
    {"q": LONG, "c": ["milk", "bird"], "g": 0},
]


def lake_with_models(folder: Path) -> Path:
    """A lake with two models, `sft` and `dpo`, of one finished run; `sft` was trained on the task's long item."""
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    task = {"kind": "choice", "source": "rows.jsonl", "prompt": "{{ q }}", "choices": "c", "gold": "g"}
    (folder / "mine.yaml").write_text(json.dumps(task))
    lake = Lake(folder / "lake").create()
    words = toys.words(folder / "words")
    said = [{"role": "user", "content": LONG.upper()}, {"role": "assistant", "content": "Milk!"}]
    key = fingerprint("talks")
    with ShardWriter(lake.shard_folder("test", key), "talks", key, {"conversations": CONVERSATIONS}) as out:
        out.write("conversations", to_table([Conversation(b"1" * 16, "talk", "u", said)], CONVERSATIONS))
    talks = lake.commit("toy.conversations", CONVERSATIONS, out.result.files, key)
    reports = []
    for number, (stage, inputs) in enumerate({"sft": {"conversations": [talks]}, "dpo": {}}.items()):
        made = fingerprint(stage)
        ref = lake.commit_folder(stage, toys.base(lake.folder(stage, made), words, context=64, seed=number), made)
        at = datetime(2026, 1, 1, tzinfo=UTC) + timedelta(minutes=number)
        told: dict[str, Any] = {"stage": stage, "version": "1", "corpus": "toy", "fingerprint": made, "state": "done"}
        told |= {"payload": {"config": {}, "inputs": {"holdout": {"seed": 0, "share": 0.0}}}, "counts": {}}
        told |= {"inputs": inputs, "outputs": {stage: ref}, "started": at, "seconds": 1.0}
        write_record(lake, StageRecord.model_validate(told))
        reports.append(StageReport(stage=stage, state="ran", seconds=1, fingerprint=made, outputs={stage: ref}))
    at = datetime(2026, 1, 1, tzinfo=UTC)
    write_manifest(lake, Manifest(run="r1", corpus="toy", recipe={}, started=at, finished=at, stages=reports))
    return lake.root


@pytest.fixture
def lake(tmp_path: Path) -> Path:
    return lake_with_models(tmp_path)


# Tags -----------------------------------------------------------------------------------------------------------------


def test_a_tag_names_a_checkpoint_for_every_command(lake: Path, headwater: Command) -> None:
    row = headwater("tag", "sft", "current", "--note", "good", "--lake", lake, "--json").json
    assert (row["tag"], row["stage"], row["before"], row["note"]) == ("current", "sft", None, "good")
    assert choose("current", lake).fingerprint == fingerprint("sft")
    assert headwater("trace", "current", "--lake", lake, "--json").json[0]["stage"] == "sft"
    assert "is a tag already" in headwater("tag", "dpo", "current", "--lake", lake).mistake()
    assert headwater("tag", "dpo", "current", "--move", "--lake", lake).status == 0
    assert headwater("tag", "current", "v1.0-rc", "--lake", lake).status == 0  # a tag of what a tag names
    told = headwater("tag", "--lake", lake, "--json").json
    assert [(one["tag"], one["stage"], one["before"]) for one in told] == [
        ("current", "dpo", fingerprint("sft")),
        ("v1.0-rc", "dpo", None),
    ]
    assert world.rows(lake, "SELECT count(*) FROM models.tags") == [(3,)]
    assert choose("newest", lake).stage == "dpo"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["sft", "ppo"], "it is a stage"),
        (["sft", "last"], "it is a stage, or means one"),
        (["sft", "abc123"], "not hex digits alone"),
        (["sft", "../x"], "can't be a tag"),
        (["sft"], "what is it to be called"),
        (["nothing", "current"], "not a checkpoint"),
    ],
)
def test_what_can_not_be_a_tag_is_one_line(arguments: list[str], said: str, lake: Path, headwater: Command) -> None:
    assert said in headwater("tag", *arguments, "--lake", lake).mistake()


# Promotion ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def asked(prefect_server: PrefectServer) -> Iterator[list[dict[str, Any]]]:
    """Answers forms of paused runs as a person does: the first answer is given to the first run, and so on."""
    answers: list[dict[str, Any]] = []
    over = threading.Event()

    def answer() -> None:
        known: set[str] = set()
        while not over.wait(0.2):
            wanted = {"flow_runs": {"state": {"type": {"any_": ["PAUSED"]}}}}
            for run in prefect_server.call("/flow_runs/filter", wanted):
                if run["id"] not in known and answers:
                    known.add(run["id"])
                    prefect_server.call(f"/flow_runs/{run['id']}/resume", {"run_input": answers.pop(0)})

    thread = threading.Thread(target=answer, daemon=True)
    thread.start()
    yield answers
    over.set()
    thread.join()


def test_a_person_agrees_and_the_tag_moves(
    lake: Path, prefect_server: PrefectServer, asked: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    from flows import promotion

    monkeypatch.setattr(promotion, "_POLL_S", 1)
    task, where = str(lake.parent / "mine.yaml"), {"lake": str(lake), "cluster": "inline"}
    asked += [{"approve": True, "note": "the first"}, {"approve": False, "note": "no"}, {"approve": True, "note": ""}]
    first = promotion.promote("sft", benchmarks=[task], **where)
    assert (first["approved"], first["current"], first["compared"]) == (True, None, [])
    assert choose("current", lake).stage == "sft"

    second = promotion.promote("dpo", benchmarks=[task], losses=True, **where)
    assert (second["approved"], second["note"]) == (False, "no")
    assert choose("current", lake).stage == "sft"
    assert {(row["checkpoint"], row["with"], row["n"]) for row in second["compared"]} == {("candidate", "current", 5)}
    seen = {(row["checkpoint"], row["seen"]) for row in second["results"]}
    assert seen == {("current", 1 / 5), ("candidate", 0.0)}

    state = promotion.promote("dpo", benchmarks=[task], losses=True, return_state=True, **where)
    assert choose("current", lake).stage == "dpo"
    wanted = {"artifacts": {"flow_run_id": {"any_": [str(state.state_details.flow_run_id)]}}}
    pages = {one["key"]: one["data"] for one in prefect_server.call("/artifacts/filter", wanted)}
    assert "Differences" in pages["promote-comparison"]
    assert "20.0%" in pages["promote-comparison"]
    rows = world.rows(lake, "SELECT tag, stage, note FROM models.tags ORDER BY created")
    assert rows == [("current", "sft", "the first"), ("current", "dpo", "")]
    answers = world.rows(lake, "SELECT checkpoint, count(*) FROM runs.answers GROUP BY ALL ORDER BY ALL")
    assert answers == [("dpo", 5), ("sft", 5)]  # judged once, and kept once
    (found,) = (row for row in first["results"] if row["metric"] == "accuracy")
    cells = f"{found['value']:.4g} | {found['low']:.4g} to {found['high']:.4g} | 5 | 20.0% | {found['without']:.4g} |"
    assert f"| mine | accuracy | {cells}" in shown.Lake(lake).card("sft", "tuned")  # what is judged is on the card
    assert "| mine | accuracy | " in (untouched := shown.Lake(lake).card("dpo", "tuned"))
    assert "20.0%" not in untouched
    assert "were not searched" not in untouched

    for arguments, said in (
        ({"candidate": "dpo"}, "is current already"),
        ({"candidate": "sft", "contamination": 0.1}, "hold 20.0% of mine's items, more than 10.0%"),
        ({"candidate": "sft", "tag": "sft"}, "can't be a tag"),
        ({"candidate": str(lake.parent / "foreign")}, "is not a checkpoint"),
        ({"candidate": str(choose("dpo", lake).folder)}, "is current already"),
        ({"candidate": "sft", "benchmarks": ["arc_esay"]}, "did you mean arc_easy"),
        ({"candidate": "sft", "benchmarks": []}, "no benchmark is named"),
        ({"candidate": "sft", "limit": 0}, "at least one item"),
    ):
        ended = promotion.promote(**{"benchmarks": [task], "losses": True, **where, **arguments}, return_state=True)
        assert ended.is_failed()
        assert said in str(ended.message)


def test_the_newest_checkpoint_is_judged_once(lake: Path, prefect_server: PrefectServer) -> None:
    from flows.promotion import judge

    task = str(lake.parent / "mine.yaml")
    told = judge(benchmarks=[task], shots=[0, 1], lake=str(lake), cluster="inline")
    assert {(row["checkpoint"], row["shots"]) for row in told["results"]} == {("dpo", 0), ("dpo", 1)}
    marks = world.shard_marks(lake, "benchmarks")
    assert judge(benchmarks=[task], shots=[0, 1], lake=str(lake), cluster="inline") == told
    assert world.shard_marks(lake, "benchmarks") == marks
    figures = world.rows(lake, "SELECT task, count(*) FROM runs.evaluations GROUP BY ALL ORDER BY ALL")
    assert figures == [("mine (0 shots)", 2), ("mine (1 shots)", 2)]


# What forbids it ------------------------------------------------------------------------------------------------------


def test_a_real_loss_and_what_was_seen_in_training_forbid_a_promotion() -> None:
    from flows.promotion import objections

    def row(metric: str, difference: float, real: bool = True) -> dict[str, Any]:
        return {"task": "t", "metric": metric, "first": 1.0, "second": 1 + difference, "difference": difference,
                "p": 0.01, "real": real}  # fmt: skip

    compared = [row("accuracy", -0.1), row("accuracy", 0.1), row("accuracy", -0.1, real=False), row("ended", -0.5),
                row("perplexity", 0.1), row("perplexity", -0.1)]  # fmt: skip
    figures = {"compared": compared, "contamination": [], "results": []}
    assert objections(figures, None, losses=True) == []
    assert [one.split(":")[0] for one in objections(figures, None, losses=False)] == [
        "t accuracy is worse",
        "t perplexity is worse",
    ]
    assert objections(figures | {"compared": []}, 0.5, False) == [
        "its training documents aren't known, and contamination is limited"
    ]
    dirty = [
        {"checkpoint": name, "task": "t", "share": share} for name, share in (("current", 0.9), ("candidate", 0.5))
    ]
    assert objections({"compared": [], "contamination": dirty}, 0.5, losses=False) == []
    (said,) = objections({"compared": [], "contamination": dirty}, 0.49, losses=False)
    assert said == "its training documents hold 50.0% of t's items, more than 49.0%"


def test_names_in_the_comparison_are_no_markup() -> None:
    from tasks.shown.comparison import comparison, differences

    row = {"checkpoint": "candidate", "task": "a|b <img src=x>", "metric": "accuracy", "value": 0.5, "low": 0.1}
    row |= {"high": 0.9, "n": 5, "seen": 0.2, "without": None, "share": 0.2, "shots": 1, "reasons": True}
    held = [{"item": "7", "documents": ["ab"]}] * 6
    figures: dict[str, Any] = {"results": [row], "compared": [], "contamination": [row | {"items": held}]}
    short = differences("**x**", None, "current", figures, ["it is [worse](http://evil)"])
    page = comparison(short, figures)
    assert page.startswith(short)
    assert "against it: it is \\[worse\\](http://evil)" in short
    (line,) = [line for line in page.splitlines() if line.startswith("| candidate")]
    assert line.count("|") - line.count("\\|") == 9
    assert "\\<img" in line
    assert "(1 shots, reasons)" in line
    assert page.endswith("and 1 more")
    assert "nothing is `current` yet" in page


def test_a_tag_that_moved_while_a_person_was_asked_stays(lake: Path) -> None:
    from flows.promotion import _give

    with pytest.raises(UserError, match="promote again"):
        _give(Lake(lake), "current", fingerprint("sft"), fingerprint("dpo"), "")


# In a browser ---------------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("ui", ["v1", "v2"])
def test_a_person_fills_in_the_form_of_a_waiting_run(
    lake: Path, prefect_server: PrefectServer, browser: Browser, monkeypatch: pytest.MonkeyPatch, ui: str
) -> None:
    from flows import promotion

    monkeypatch.setattr(promotion, "_POLL_S", 1)
    asked = {"candidate": "dpo", "benchmarks": [str(lake.parent / "mine.yaml")], "losses": True, "lake": str(lake)}
    record = read_record(Lake(lake), fingerprint("sft"))
    assert record
    tag(Lake(lake), "current", record)

    def waiting() -> list[dict[str, Any]]:
        wanted = {"flow_runs": {"state": {"type": {"any_": ["PAUSED"]}}}}
        return list(prefect_server.call("/flow_runs/filter", wanted))

    def person() -> str:
        (run,) = browser.wait(waiting)
        try:
            wanted = {"artifacts": {"flow_run_id": {"any_": [run["id"]]}, "key": {"any_": ["promote-comparison"]}}}
            (page,) = prefect_server.call("/artifacts/filter", wanted)
            browser.open(f"/artifacts/artifact/{page['id']}", ui)
            browser.see("Differences", "seen in training", "accuracy", "20.0%")
            browser.shot(f"comparison-{ui}")
            browser.open(f"/runs/flow-run/{run['id']}", ui)
            browser.see("promote dpo", "Paused")
            if ui == "v1":
                browser.press("Resume")
            else:
                browser.find("//button[@aria-haspopup='menu']").click()
                browser.find("//*[@role='menuitem' and normalize-space(.)='Resume']").click()
            browser.see("Approve", "Note", "Differences")
            browser.shot(f"approval-{ui}")
            browser.toggle("Approve")
            browser.fill("Note", "read and found good")
            browser.shot(f"approved-{ui}")
            browser.press("Submit" if ui == "v1" else "Resume")
            browser.wait(lambda: not waiting())
        except BaseException:
            browser.shot(f"approval-failed-{ui}")
            if waiting():
                prefect_server.call(f"/flow_runs/{run['id']}/resume", {"run_input": {}})
            raise
        return str(run["id"])

    with ThreadPoolExecutor(1) as threads:
        done = threads.submit(person)
        answer = promotion.promote(**asked, cluster="inline")
        browser.open(f"/runs/flow-run/{done.result()}", ui)
    assert (answer["approved"], answer["note"]) == (True, "read and found good")
    assert choose("current", lake).stage == "dpo"
