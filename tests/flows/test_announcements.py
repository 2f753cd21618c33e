"""What a run tells Prefect for automations: raw has grown, a model was trained; and only what is true."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import world
from harness import PrefectServer

from datalake.lake.records import StageReport
from flows import announcements
from flows.flows import ingest
from flows.parameters import resolve

Told = list[tuple[str, str, dict[str, Any]]]


@pytest.fixture
def told(prefect_server: PrefectServer, monkeypatch: pytest.MonkeyPatch) -> Told:
    """Events as they are emitted: name, corpus, payload."""
    found: Told = []

    def emit(event: str, resource: dict[str, str], payload: dict[str, Any]) -> None:
        found.append((event, resource["prefect.resource.id"], payload))

    monkeypatch.setattr("prefect.events.emit_event", emit)
    return found


def test_an_ingest_tells_of_documents_that_no_curation_has_read(told: Told, tmp_path: Path) -> None:
    lake, first, second = tmp_path / "lake", tmp_path / "a.jsonl", tmp_path / "b.jsonl"
    world.jsonl(first, [{"text": world.prose(n)} for n in range(4)])
    world.jsonl(second, [{"text": world.prose(n)} for n in range(4, 6)])
    recipe, more = world.tables(tmp_path, [first]), world.tables(tmp_path, [first, second])

    ingest(recipe=recipe, set=["corpus=mine"], lake=str(lake))
    ((event, corpus, payload),) = told
    assert (event, corpus) == (announcements.GROWN, "headwater.corpus.mine")
    assert (payload["rows"], payload["before"]) == (4, 0)
    assert resolve(payload["recipe"], payload["set"]).corpus == "mine", "it is enough to curate the same"
    assert payload["lake"] == str(lake)

    ingest(recipe=recipe, set=["corpus=mine"], lake=str(lake))
    assert len(told) == 2, "as long as no curation has read them"
    world.run(recipe | {"corpus": "mine"}, lake, "mixture")
    ingest(recipe=recipe, set=["corpus=mine"], lake=str(lake))
    assert len(told) == 2, "the curation has read them, and a run that goes on to it needs no other"
    ingest(recipe=more, set=["corpus=mine"], lake=str(lake))
    assert [(payload["rows"], payload["before"]) for _, _, payload in told[2:]] == [(6, 4)]
    world.run(more | {"corpus": "mine"}, lake, "mixture")
    ingest(recipe=recipe, set=["corpus=mine"], lake=str(lake))
    assert len(told) == 3, "fewer documents are no growth"


def test_a_secret_goes_into_no_event(told: Told, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    world.jsonl(tmp_path / "a.jsonl", [{"text": world.prose(1)}])
    recipe = world.tables(tmp_path, [tmp_path / "a.jsonl"])
    ingest(recipe=recipe, set=["vars.token=s3cr3t-value"], lake=str(tmp_path / "lake"))
    ingest(recipe=recipe, set=["vars.token=***"], lake=str(tmp_path / "lake"))
    assert "s3cr3t-value" not in str(told)


def test_outside_of_a_flow_nothing_is_told(told: Told, tmp_path: Path) -> None:
    announcements._emit("x", "y", {})
    assert told == []


def test_a_model_is_told_of_where_the_run_made_it() -> None:
    def report(stage: str, state: str) -> StageReport:
        return StageReport(stage=stage, state=state, seconds=1, fingerprint=stage)

    cases = {
        "sft": [report("pretrain", "ran"), report("sft", "ran"), report("evaluate", "ran")],
        "pretrain": [report("pretrain", "ran"), report("sft", "cached"), report("reward", "ran")],
        None: [report("ingest", "ran"), report("pretrain", "cached"), report("sft", "skipped")],
    }
    for stage, stages in cases.items():
        made = announcements.trained_by(stages)
        assert (made.stage if made else None) == stage
