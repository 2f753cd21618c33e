"""Records and manifests: what a lake remembers of stages and runs, and how a run is found again."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from datalake.errors import UserError
from datalake.lake.lake import FolderRef, Lake, TableRef
from datalake.lake.ledger import query
from datalake.lake.records import (
    Manifest,
    StageRecord,
    StageReport,
    find_manifest,
    manifests,
    read_record,
    record_path,
    write_manifest,
    write_record,
)

START = datetime(2026, 11, 23, tzinfo=UTC)
PRINT = "ab" * 32


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    return Lake(tmp_path / "lake").create()


def record(**changes: Any) -> StageRecord:
    table = TableRef(table="small.raw", snapshot=7, fingerprint=PRINT, data_version="v", rows=3)
    folder = FolderRef(name="tokenizer", path="folders/tokenizer/x", fingerprint=PRINT, data_version="w")
    values: dict[str, Any] = {
        "stage": "ingest", "version": "1", "corpus": "small", "fingerprint": PRINT, "state": "done",
        "payload": {"config": {"a": 1}}, "inputs": {"many": [table, folder]}, "outputs": {"raw": table, "t": folder},
        "counts": {"records": 3}, "records_in": 3, "records_out": 3, "started": START, "seconds": 1.5,
    }  # fmt: skip
    return StageRecord(**values | changes)


def manifest(run: str, minute: int = 0, corpus: str = "small", **more: Any) -> Manifest:
    at = START + timedelta(minutes=minute)
    return Manifest(run=run, corpus=corpus, recipe={}, started=START, finished=at, stages=[], **more)


def test_a_record_is_read_as_it_was_written(lake: Lake) -> None:
    write_record(lake, record())
    assert read_record(lake, PRINT) == record()
    assert (lake.root / record_path(PRINT)).is_file()


def test_a_record_is_one_row_of_runs_stages(lake: Lake) -> None:
    write_record(lake, record())
    write_record(lake, record(fingerprint="cd" * 32, stage="curate", git_dirty=True))
    write_manifest(lake, manifest("first"))
    _, rows = query(
        lake, "SELECT stage, seconds, records_in, payload->>'$.config.a', git_dirty FROM runs.stages ORDER BY stage"
    )
    assert rows == [("curate", 1.5, 3, "1", True), ("ingest", 1.5, 3, "1", None)]


def test_the_same_stage_built_twice_is_two_rows_and_the_later_record(lake: Lake) -> None:
    write_record(lake, record(state="partial", unfinished={"b": "OSError: no"}))
    write_record(lake, record())
    write_manifest(lake, manifest("first"))
    assert sorted(query(lake, "SELECT state FROM runs.stages")[1]) == [("done",), ("partial",)]
    found = read_record(lake, PRINT)
    assert found is not None
    assert (found.state, found.unfinished) == ("done", {})


def test_what_was_never_built_or_was_cut_off_has_no_record(lake: Lake) -> None:
    assert read_record(lake, PRINT) is None
    write_record(lake, record())
    path = lake.root / record_path(PRINT)
    path.write_bytes(path.read_bytes()[:100])
    assert read_record(lake, PRINT) is None
    path.write_bytes(b"")
    assert read_record(lake, PRINT) is None


def test_runs_are_in_the_order_they_finished(lake: Lake) -> None:
    for name, minute in (("b", 2), ("a", 3), ("c", 1)):
        write_manifest(lake, manifest(name, minute))
    assert [one.run for one in manifests(lake)] == ["c", "b", "a"]


def test_a_run_is_found_by_its_name_its_beginning_or_as_the_last(lake: Lake) -> None:
    write_manifest(lake, manifest("20261123-101010-aaaa", 1))
    write_manifest(lake, manifest("20261123-111111-bbbb", 2))
    write_manifest(lake, manifest("20261123-121212-cccc", 3, corpus="other"))
    assert find_manifest(lake).run.endswith("cccc")
    assert find_manifest(lake, "last").run.endswith("cccc")
    assert find_manifest(lake, corpus="small").run.endswith("bbbb")
    assert find_manifest(lake, "20261123-10").run.endswith("aaaa")


@pytest.mark.parametrize("run", ["2026", "none", None])
def test_a_run_that_is_not_there_is_told_in_one_line(lake: Lake, run: str | None) -> None:
    with pytest.raises(UserError, match=r"no finished run .*none yet") as error:
        find_manifest(lake, run)
    assert "\n" not in str(error.value)
    assert "  " not in str(error.value)


def test_a_manifest_being_written_is_no_run_yet(lake: Lake) -> None:
    write_manifest(lake, manifest("first"))
    (lake.root / "runs" / ".second.json.123.tmp").write_text("{")
    assert [one.run for one in manifests(lake)] == ["first"]


def test_a_manifests_refs_are_all_its_stages_outputs(lake: Lake) -> None:
    stages = [
        StageReport(stage="ingest", state="cached", seconds=0, outputs={"raw": record().outputs["raw"]}),
        StageReport(stage="curate", state="skipped", seconds=0),
        StageReport(stage="tokenizer", state="ran", seconds=0, outputs={"tokenizer": record().outputs["t"]}),
    ]
    one = manifest("first").model_copy(update={"stages": stages})
    write_manifest(lake, one)
    found = find_manifest(lake, "first")
    assert found == one
    assert list(found.refs) == ["raw", "tokenizer"]
    assert isinstance(found.refs["tokenizer"], FolderRef)
