"""`headwater runs`: every run of a lake in a row, and what two of them differ in."""

from __future__ import annotations

import hashlib
import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from harness import Command

from datalake.atomic import write_atomically
from datalake.lake.lake import Lake, TableRef
from datalake.lake.records import Manifest, StageRecord, StageReport, find_manifest, record_path, write_manifest
from flows import what_if
from flows.recipe import validate
from flows.report import page as report
from flows.report.runs import compare

START = datetime(2026, 11, 23, 8, 30, tzinfo=UTC)
SOURCE = {"kind": "table", "paths": ["/in.jsonl"]}


def digest(*parts: Any) -> str:
    return hashlib.sha256(repr(parts).encode()).hexdigest()


def build(lake: Lake, stage: str, run: str, counts: dict[str, int], said: Any = None) -> StageReport:
    """A stage that ran, as far as listing it goes."""
    key, version = digest(stage, run, counts), digest(stage, counts)
    ref = TableRef(table=f"small.{stage}", snapshot=1, fingerprint=key, data_version=version, rows=1)
    record = StageRecord(
        stage=stage, version="1", corpus="small", fingerprint=key, state="done", payload={}, inputs={},
        outputs={stage: ref}, counts=counts, report=said or {}, records_in=9, records_out=counts.get("out", 5),
        started=START, seconds=90, run=run,
    )  # fmt: skip
    write_atomically(lake.root / record_path(key), record.model_dump_json().encode())
    return StageReport(
        stage=stage, state="ran", seconds=90, records_in=9, records_out=5, fingerprint=key, outputs={stage: ref}
    )


def finish(lake: Lake, run: str, minute: int, stages: list[StageReport], until: str | None = None, **more: Any) -> None:
    recipe = validate({"corpus": "small", "sources": [SOURCE], **more}, "recipe").model_dump(mode="json")
    at = START + timedelta(minutes=minute)
    write_manifest(
        lake,
        Manifest(
            run=run, corpus="small", recipe=recipe, started=at, finished=at + timedelta(seconds=95), until=until,
            stages=stages,
        ),
    )  # fmt: skip


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    """A whole run, one with another threshold that ended early, and one that was killed."""
    lake = Lake(tmp_path / "lake").create()
    read = build(lake, "ingest", "2026-a", {"records": 12, "raw": 10})
    kept = build(lake, "curate", "2026-a", {"documents": 8})
    judged = {"results": [{"checkpoint": "sft", "task": "choices", "metric": "accuracy", "value": 0.5}]}
    finish(
        lake,
        "2026-a",
        0,
        [
            read,
            kept,
            build(lake, "pretrain", "2026-a", {}, {"heldout_loss": 4.25}),
            build(lake, "evaluate", "2026-a", {}, judged),
        ],
    )
    fewer = build(lake, "curate", "2026-b", {"documents": 6})
    finish(
        lake,
        "2026-b",
        5,
        [read.model_copy(update={"state": "cached"}), fewer],
        until="curate",
        curate={"preset": "gopher"},
        runtime={"workers": 1},
    )
    build(lake, "ingest", "2026-killed", {"records": 3, "raw": 3})
    return lake


def test_runs_are_listed_with_their_state_and_figures(lake: Lake, headwater: Command) -> None:
    status, out, _ = headwater("runs", "--lake", lake.root, "--json")
    assert status == 0
    rows = {row["run"]: row for row in json.loads(out)}
    assert {run: row["state"] for run, row in rows.items()} == {
        "2026-a": "complete",
        "2026-b": "until curate",
        "2026-killed": "unfinished",
    }
    assert rows["2026-a"]["figures"] == {"records": 12, "raw": 10, "kept": 8, "pretrain loss": 4.25}
    assert rows["2026-b"]["stages"] == {"cached": 1, "ran": 1}
    assert rows["2026-b"]["seconds"] == 95
    assert rows["2026-a"]["started"] == "2026-11-23T08:30:00+00:00"
    status, out, _ = headwater("runs", "--lake", lake.root)
    assert status == 0
    assert len(out.splitlines()) == 4
    assert "2026-b\tsmall\t2026-11-23 08:35\t0:01:35\tuntil curate" in out


def test_two_runs_are_compared(lake: Lake, headwater: Command) -> None:
    status, out, _ = headwater("runs", "2026-a", "2026-b", "--lake", lake.root, "--json")
    assert status == 0
    told = json.loads(out)
    assert told["recipe"] == {"curate.preset": ["auto", "gopher"]}  # and nothing of `runtime`, which shapes nothing
    assert told["counts"]["curate: documents"] == [8, 6]
    assert "ingest: raw" not in told["counts"]
    assert told["figures"] == {"kept": [8, 6], "pretrain loss": [4.25, None]}
    assert told["evaluations"] == {"sft choices.accuracy": [0.5, None]}
    assert [row["stage"] for row in told["stages"]] == ["curate", "pretrain", "evaluate"]
    status, out, _ = headwater("runs", "2026-a", "2026-b", "--lake", lake.root)
    assert "curate.preset\tauto\tgopher" in out
    assert "stages with another output: curate, pretrain, evaluate" in out
    status, out, _ = headwater("runs", "2026-a", "2026-a", "--lake", lake.root)
    assert out.count("no difference") == 4


def test_one_rule_more_and_another_text_of_a_metric_are_one_line_each(lake: Lake, tmp_path: Path) -> None:
    file = tmp_path / "own.py"
    rules = [{"name": name, "metric": "own", "op": ">", "threshold": 1, "source": "mine"} for name in ("one", "two")]
    for run, chosen in (("2026-c", rules[1:]), ("2026-d", rules)):
        file.write_text(f"def own(text, language):\n    return 1  # {run}{' ' * 999}\n")
        finish(lake, run, 9, [], curate={"metrics": [f"{file}:own"], "extra_rules": chosen})
    told = compare(lake, find_manifest(lake, "2026-c"), find_manifest(lake, "2026-d"))["recipe"]
    before, after = told.pop("curate.metric_functions[own].content")
    assert before.startswith("1,04")
    assert before != after
    assert told.keys() == {f"curate.extra_rules[one].{field}" for field in rules[0]}


def test_runs_that_cannot_be_told_apart_or_compared_are_one_line(lake: Lake, headwater: Command) -> None:
    for names, said in (
        (("2026-a",), "name two runs"),
        (("2026", "2026-a"), "name one of 2026-a, 2026-b"),
        (("2027", "2026-a"), "no finished run 2027"),
    ):
        assert said in headwater("runs", *names, "--lake", lake.root).mistake()


def test_a_report_of_the_last_run_is_of_the_last_that_went_to_its_end(
    lake: Lake, capsys: pytest.CaptureFixture[str]
) -> None:
    assert report.last_complete(lake).run == "2026-a"
    err = capsys.readouterr().err
    assert "2026-b, ended after curate" in err
    assert f"headwater report 2026-b --lake {lake.root}" in err
    finish(lake, "2026-c", 9, [])
    assert report.last_complete(lake).run == "2026-c"
    assert capsys.readouterr().err == ""


def test_what_if_says_which_run_it_is_about_where_that_is_not_the_last(lake: Lake) -> None:
    from datalake.lake.records import find_manifest

    base = validate({"corpus": "small", "sources": [SOURCE]}, "recipe")
    assert what_if._notes(lake, find_manifest(lake, "2026-b"), base) == []
    [said] = what_if._notes(lake, find_manifest(lake, "2026-a"), base)
    assert "about run 2026-a: the last one, 2026-b," in said
