"""Upkeep of a lake: what nothing names is found and goes; what anything names, or a running stage may use, stays."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from functools import partialmethod
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from datalake.errors import UserError
from datalake.files import folder_files
from datalake.lake import tags
from datalake.lake.contents import Contents
from datalake.lake.lake import RUNNING, FolderRef, Lake, Ref, TableRef
from datalake.lake.records import CHECKPOINTS, Manifest, StageRecord, StageReport, write_manifest, write_record
from datalake.lake.shards import ShardFile, ShardWriter, find_shard
from datalake.lake.upkeep import expiry
from datalake.lake.upkeep.maintain import Upkeep, maintain

ROOT = Path(__file__).parents[2]
SCHEMA = pa.schema([("n", pa.int64())])
START = datetime(2026, 11, 23, tzinfo=UTC)
YEAR_S = 365 * 86_400.0


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    return Lake(tmp_path / "lake").create()


def shard(lake: Lake, n: int, stage: str = "ingest") -> ShardFile:
    key = f"{n:02d}-{stage}"
    with ShardWriter(lake.shard_folder(stage, key), key, key, {"raw": SCHEMA}) as out:
        out.write("raw", pa.table({"n": [n]}, schema=SCHEMA))
    return out.result.files[0]


def recorded(lake: Lake, print_: str, stage: str = "ingest", **outputs: Ref) -> StageRecord:
    record = StageRecord(
        stage=stage, version="1", corpus="demo", fingerprint=print_, state="done", payload={}, inputs={},
        outputs=outputs, counts={}, started=START, seconds=1.0,
    )  # fmt: skip
    write_record(lake, record)
    return record


def finished(lake: Lake, run: str, record: StageRecord) -> None:
    report = StageReport(
        stage=record.stage, state="ran", seconds=1, fingerprint=record.fingerprint, outputs=record.outputs
    )
    write_manifest(lake, Manifest(run=run, corpus="demo", recipe={}, started=START, finished=START, stages=[report]))


def trained(lake: Lake, print_: str, identity: str) -> FolderRef:
    folder = lake.folder("pretrain", print_)
    (folder / "checkpoint").mkdir(parents=True)
    (folder / "checkpoint" / "model.safetensors").write_bytes(print_.encode() * 10)
    (folder / "report.json").write_text(json.dumps({"identity": identity, "report": {}}))
    (folder / RUNNING).write_text(json.dumps({"fingerprint": print_, "stage": "pretrain"}))
    row = {"fingerprint": print_, "stage": "pretrain", "path": lake.relative(folder / "checkpoint"), "corpus": "demo",
           "record": f"records/{print_}.json", "ancestors": [], "created": START}  # fmt: skip
    lake.append_rows("models.checkpoints", CHECKPOINTS, [row], print_)
    return lake.commit_folder("model", folder / "checkpoint", print_)


def state(lake: Lake, identity: str) -> Path:
    folder = lake.root / "states" / identity / "step-000000004"
    folder.mkdir(parents=True)
    (folder / "state.pt").write_bytes(b"weights")
    (folder / "state.json").write_text("{}")
    return folder.parent


PRINTS = [letter * 64 for letter in "abcdef"]


@pytest.fixture
def full(lake: Lake) -> tuple[Lake, list[Ref]]:
    """A lake in which every kind of reference names something, and those references."""
    kept = lake.commit("demo.raw", SCHEMA, [shard(lake, 1), shard(lake, 2)], PRINTS[0])
    record = recorded(lake, PRINTS[0], raw=kept)
    finished(lake, "first", record)
    partial = lake.commit("demo.raw", SCHEMA, [shard(lake, 3)], PRINTS[1])  # a manifest alone names it: the stage was
    finished(lake, "second", recorded(lake, PRINTS[1], raw=partial))  # partial, and its next run wrote the record anew
    again = lake.commit("demo.raw", SCHEMA, [shard(lake, 3), shard(lake, 4)], PRINTS[1])
    recorded(lake, PRINTS[1], raw=again)
    model = trained(lake, PRINTS[2], "finished")
    tags.tag(lake, "current", recorded(lake, PRINTS[2], "pretrain", model=model))
    state(lake, "finished")
    return lake, [kept, partial, again, model]


WASTE = {
    "temporary": ("shards/ingest/01/01-ingest/.raw.parquet.999999999.tmp", "catalog.db.aside-20260101-000000-1"),
    "shards": ("shards/ingest/90/90-ingest", "shards/ingest/91/91-ingest"),
    "lists": ("contents/demo.raw/unnamed.json",),
    "results": (f"results/{PRINTS[5]}",),
    "states": ("states/finished",),
    "abandoned": (f"folders/sft/{PRINTS[4][:16]}", "states/unfinished"),
}


def planted(lake: Lake) -> dict[str, set[str]]:
    """What nothing names, of every kind but snapshots, by kind."""
    for path in (*WASTE["temporary"], *WASTE["results"], f"{WASTE['abandoned'][0]}/metrics.jsonl"):
        (lake.root / path).parent.mkdir(parents=True, exist_ok=True)
        (lake.root / path).write_bytes(b"12345")
    unnamed = Contents(name="demo.raw", fingerprint=PRINTS[5], data_version="v", made=START, files=[])
    (lake.root / WASTE["lists"][0]).write_text(unnamed.model_dump_json())
    shard(lake, 90)
    unfinished = lake.root / WASTE["shards"][1]
    unfinished.mkdir(parents=True)
    (unfinished / "raw.parquet").write_bytes(b"half")
    state(lake, "unfinished")
    age(lake)
    return {kind: set(paths) for kind, paths in WASTE.items()}


def age(lake: Lake) -> None:
    """Let everything be a year old."""
    for path in lake.root.rglob("*"):
        os.utime(path, (time.time() - YEAR_S,) * 2)


def by_kind(upkeep: Upkeep) -> dict[str, set[str]]:
    found: dict[str, set[str]] = {}
    for one in upkeep.found:
        found.setdefault(one.kind, set()).add(one.path)
    found.pop("snapshots", None)
    return found


def numbers(lake: Lake, ref: Ref) -> list[int]:
    assert isinstance(ref, TableRef)
    return sorted(n for path in lake.files(ref) for n in pq.read_table(path)["n"].to_pylist())


def whole(lake: Lake, refs: list[Ref]) -> None:
    """Everything that is named is there, byte for byte, and no shard says that it is finished and isn't."""
    assert [ref for ref in refs if lake.trouble(ref)] == []
    assert [numbers(lake, ref) for ref in refs[:3]] == [[1, 2], [3], [3, 4]]
    assert isinstance(refs[3], FolderRef)
    lake.verify(refs[3])
    for mark in (lake.root / "shards").glob("*/*/*/shard.json"):
        assert find_shard(mark.parent) is not None, mark
    assert list(lake.damaged_files()) == []
    assert tags.tags(lake)["current"]["fingerprint"] == PRINTS[2]


def test_a_dry_run_lists_everything_that_nothing_names_and_touches_nothing(full: tuple[Lake, list[Ref]]) -> None:
    lake, refs = full
    expected = planted(lake)
    before = folder_files(lake.root)
    upkeep = maintain(lake, abandoned=True)
    assert by_kind(upkeep) == expected
    assert upkeep.removed == []
    sizes = {one.path: (one.bytes, one.files) for one in upkeep.found}
    assert sizes[WASTE["temporary"][0]] == (5, 1)
    assert sizes[WASTE["shards"][1]] == (4, 1)
    assert sizes["states/finished"] == (len(b"weights") + 2, 2)
    assert [one for one in folder_files(lake.root) if not one[0].startswith("leases/")] == [
        one for one in before if not one[0].startswith("leases/")
    ]
    whole(lake, refs)


def test_what_was_listed_is_removed_and_nothing_else(full: tuple[Lake, list[Ref]]) -> None:
    lake, refs = full
    planted(lake)
    before = {path for path, *_ in folder_files(lake.root)}
    gone = {one.path for one in maintain(lake, apply=True).removed if one.kind != "snapshots"}
    left = {path for path, *_ in folder_files(lake.root)}
    assert {path for path in before - left if not path.startswith("warehouse/")} == {
        path for path in before if any(path == one or path.startswith(f"{one}/") for one in gone)
    }
    assert gone.isdisjoint(WASTE["abandoned"])
    whole(lake, refs)
    assert by_kind(maintain(lake)) == {}
    assert {one.path for one in maintain(lake, abandoned=True, apply=True).removed} == set(WASTE["abandoned"])
    whole(lake, refs)
    assert maintain(lake, abandoned=True).found == []


def test_what_is_younger_stays(full: tuple[Lake, list[Ref]]) -> None:
    lake, _ = full
    planted(lake)
    young = lake.root / WASTE["shards"][1] / "raw.parquet"
    os.utime(young)
    assert WASTE["shards"][1] not in by_kind(maintain(lake))["shards"]
    assert by_kind(maintain(lake, days=400)) == {}
    with pytest.raises(UserError, match="at least 1"):
        maintain(lake, days=0.5)
    with pytest.raises(UserError, match="at least 1"):
        maintain(lake, days=float("nan"))


def test_a_writer_that_lives_keeps_its_temporary_file(full: tuple[Lake, list[Ref]]) -> None:
    lake, _ = full
    mine = lake.root / "records" / f".x.json.{os.getpid()}.tmp"
    mine.write_bytes(b"")
    age(lake)
    assert by_kind(maintain(lake)).get("temporary", set()) == set()


def test_what_is_no_stage_is_kept_by_what_it_answers(full: tuple[Lake, list[Ref]]) -> None:
    lake, _ = full
    shard(lake, 50, "benchmarks")
    age(lake)
    assert by_kind(maintain(lake)) == {"states": {"states/finished"}}


def test_a_checkpoint_whose_record_is_lost_stays(full: tuple[Lake, list[Ref]]) -> None:
    lake, refs = full
    (lake.root / "records" / f"{PRINTS[2]}.json").unlink()
    age(lake)
    found = by_kind(maintain(lake, abandoned=True))
    assert not any(path.startswith("folders/") for path in found.get("abandoned", set()))
    assert lake.path(refs[3]).is_dir()  # type: ignore[arg-type]


@pytest.mark.parametrize("which", ["records", "runs"])
def test_where_a_record_or_manifest_is_cut_every_list_counts(full: tuple[Lake, list[Ref]], which: str) -> None:
    lake, refs = full
    for path in (lake.root / which).glob("*.json"):
        path.write_bytes(path.read_bytes()[:20])
    age(lake)
    upkeep = maintain(lake, apply=True)
    assert any("can't be read" in note for note in upkeep.notes)
    assert by_kind(upkeep).keys() <= {"states"}
    assert [ref for ref in refs if lake.trouble(ref)] == []


def test_a_lost_list_keeps_all_shards_of_its_stage(full: tuple[Lake, list[Ref]]) -> None:
    lake, refs = full
    planted(lake)
    shard(lake, 92, "curate")
    recorded(lake, PRINTS[3], "curate")
    (lake.root / lake.list_of(refs[0])).unlink()
    age(lake)
    upkeep = maintain(lake)
    assert by_kind(upkeep)["shards"] == {"shards/curate/92/92-curate"}
    assert any("can be told" in note for note in upkeep.notes)


HOLDER = """
import sys, time
from datalake.lake.lake import Lake
with Lake(sys.argv[1]).lease(sys.argv[2]):
    print("held", flush=True)
    sys.stdin.read()
"""


def holder(lake: Lake, print_: str) -> Iterator[None]:
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", HOLDER, str(lake.root), print_]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment, text=True)
    assert process.stdin
    assert process.stdout
    assert process.stdout.readline() == "held\n"
    yield
    process.stdin.close()
    assert process.wait(60) == 0


def test_what_a_running_stage_may_use_stays_until_it_has_ended(full: tuple[Lake, list[Ref]]) -> None:
    lake, refs = full
    expected = planted(lake)
    held = holder(lake, PRINTS[3])
    next(held)
    assert lake.running() == {PRINTS[3][:32]: ""}
    upkeep = maintain(lake, abandoned=True, apply=True)
    assert by_kind(upkeep) == {kind: expected[kind] for kind in ("temporary", "lists", "results")}
    assert any(PRINTS[3][:16] in note for note in upkeep.notes)
    assert (lake.root / WASTE["shards"][0] / "shard.json").is_file()
    next(held, None)
    assert lake.running() == {}
    rest = maintain(lake, abandoned=True, apply=True)
    assert by_kind(rest) == {kind: expected[kind] for kind in ("shards", "states", "abandoned")}
    whole(lake, refs)


def test_a_training_that_runs_keeps_states_and_its_folder_but_no_shards_of_others(
    full: tuple[Lake, list[Ref]],
) -> None:
    lake, _ = full
    expected = planted(lake)
    running = lake.root / WASTE["abandoned"][0] / RUNNING
    running.write_text(json.dumps({"fingerprint": PRINTS[4], "stage": "sft"}))
    age(lake)
    held = holder(lake, PRINTS[4])
    next(held)
    assert lake.running() == {PRINTS[4][:32]: "sft"}
    left = {kind: paths for kind, paths in expected.items() if kind not in ("states", "abandoned")}
    assert by_kind(maintain(lake, abandoned=True, apply=True)) == left
    next(held, None)


def test_a_stage_that_would_begin_waits_while_things_are_removed(lake: Lake) -> None:
    began = threading.Event()

    def begin() -> None:
        with lake.lease(PRINTS[0]):
            began.set()

    thread = threading.Thread(target=begin)
    with lake.still():
        thread.start()
        assert not began.wait(0.5)
    thread.join(60)
    assert began.is_set()


class Killed(BaseException):
    pass


def test_a_kill_at_any_moment_leaves_a_whole_lake_and_the_next_one_does_the_rest(
    full: tuple[Lake, list[Ref]], monkeypatch: pytest.MonkeyPatch
) -> None:
    lake, refs = full
    planted(lake)
    kills, left = 0, 0

    def counted(path: Path, *arguments: bool, real: Callable[..., None], **more: bool) -> None:
        nonlocal left
        if lake.root in path.parents:
            left -= 1
            if left < 0:
                raise Killed
        real(path, *arguments, **more)

    for name in ("unlink", "rmdir"):
        monkeypatch.setattr(Path, name, partialmethod(counted, real=getattr(Path, name)))
    while True:
        left = 1
        try:
            maintain(lake, abandoned=True, apply=True)
            break
        except Killed:
            kills += 1
        left = 1_000
        whole(lake, refs)
        age(lake)
    left = 1_000
    assert kills > 15
    assert maintain(lake, abandoned=True).found == []
    whole(lake, refs)


class TestSnapshots:
    def commits(self, lake: Lake, count: int) -> list[TableRef]:
        refs = []
        for n in range(count):
            refs.append(lake.commit("demo.raw", SCHEMA, [shard(lake, n)], f"{n:064d}"))
            recorded(lake, f"{n:064d}", raw=refs[-1])
        return refs

    @pytest.fixture(autouse=True)
    def _later(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """A year on: times inside of Iceberg's metadata can't be set back."""
        later = SimpleNamespace(time=lambda: time.time() + YEAR_S)
        monkeypatch.setattr("datalake.lake.upkeep.maintain.time", later)

    def test_all_but_the_last_go_with_their_files_and_the_tables_stay(self, lake: Lake) -> None:
        refs = self.commits(lake, 6)
        folder = lake.root / "warehouse" / "demo" / "raw" / "metadata"
        before, size = len(list(folder.iterdir())), sum(path.stat().st_size for path in folder.iterdir())
        (dry,) = [one for one in maintain(lake).found if one.path == "warehouse/demo/raw"]
        assert len(list(folder.iterdir())) == before
        assert dry.files > 0
        assert dry.bytes < size
        maintain(lake, apply=True)
        table = lake.catalog.load_table("demo.raw")
        assert [one.snapshot_id for one in table.metadata.snapshots] == [refs[-1].snapshot]
        assert table.scan().to_arrow()["n"].to_pylist() == [5]
        assert len(list(folder.iterdir())) < before / 2
        assert [numbers(lake, ref) for ref in refs] == [[n] for n in range(6)]
        assert [one for one in maintain(lake).found if one.kind == "snapshots"] == []
        more = lake.commit("demo.raw", SCHEMA, [shard(lake, 20)], "f" * 64)
        assert numbers(Lake(lake.root), more) == [20]
        assert len(lake.catalog.load_table("runs.stages").scan().to_arrow()) == 6, "appended rows are in the last one"

    def test_one_that_a_tag_names_stays_and_one_of_a_reference_without_a_list(self, lake: Lake) -> None:
        refs = self.commits(lake, 5)
        table = lake.catalog.load_table("demo.raw")
        table.manage_snapshots().create_tag(refs[1].snapshot, "v1").commit()
        (lake.root / lake.list_of(refs[2])).unlink()
        maintain(lake, apply=True)
        table = lake.catalog.load_table("demo.raw")
        assert {one.snapshot_id for one in table.metadata.snapshots} == {refs[n].snapshot for n in (1, 2, 4)}
        assert numbers(lake, refs[2]) == [2], "an older lake's reference is read by its snapshot"
        assert table.scan(snapshot_id=refs[1].snapshot).to_arrow()["n"].to_pylist() == [1]

    def test_a_kill_between_the_commit_and_the_files_is_made_up_for(
        self, lake: Lake, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        refs = self.commits(lake, 4)

        def killed(path: str) -> None:
            raise Killed

        with monkeypatch.context() as patch:
            patch.setattr(lake, "remove", killed)
            with pytest.raises(Killed):
                maintain(lake, apply=True)
        folder = lake.root / "warehouse" / "demo" / "raw" / "metadata"
        lists = len(list(folder.glob("snap-*")))
        maintain(lake, apply=True)
        assert len(list(folder.glob("snap-*"))) < lists
        assert [numbers(lake, ref) for ref in refs] == [[n] for n in range(4)]

    def test_a_lake_without_a_catalog_has_none(self, lake: Lake) -> None:
        assert maintain(lake).found == []
        assert not (lake.root / "catalog.db").exists()


def test_commits_beside_it_lose_nothing_and_stop_nothing(lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another process is first, twice."""
    from pyiceberg.catalog.sql import SqlCatalog
    from pyiceberg.exceptions import CommitFailedException

    for n in range(4):
        lake.append_rows("runs.notes", SCHEMA, [{"n": n}], "before")
    commit, late = SqlCatalog.commit_table, [4, 5]

    def beside(self: SqlCatalog, table: Any, *arguments: Any) -> Any:
        if not late:
            return commit(self, table, *arguments)
        with monkeypatch.context() as patch:
            patch.setattr(SqlCatalog, "commit_table", commit)
            Lake(lake.root).append_rows("runs.notes", SCHEMA, [{"n": late.pop()}], "beside")
        raise CommitFailedException("the table has been updated by another process")

    monkeypatch.setattr(SqlCatalog, "commit_table", beside)
    expiry.expire(lake, "runs.notes", time.time() + YEAR_S, {})
    table = Lake(lake.root).catalog.load_table("runs.notes")
    assert sorted(table.scan().to_arrow()["n"].to_pylist()) == list(range(6))
    assert len(table.metadata.snapshots) == 1


def test_the_report_of_a_training_is_called_as_methods_call_it() -> None:
    from datalake.lake.lake import MARKS
    from datalake.lake.upkeep import waste
    from models.training.method import REPORT

    assert REPORT == waste._REPORT
    assert REPORT in MARKS
