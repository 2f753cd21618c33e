"""The lake: whole tables in one commit, old references that stay readable, leases that end with their holder."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import textwrap
import threading
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from datalake.errors import UserError
from datalake.files import folder_version
from datalake.lake.lake import FolderRef, Lake, TableRef
from datalake.lake.records import (
    Manifest,
    StageRecord,
    StageReport,
    find_manifest,
    manifests,
    read_record,
    write_manifest,
    write_record,
)
from datalake.lake.shards import ShardFile, ShardWriter

SCHEMA = pa.schema([("n", pa.int64()), ("id", pa.binary(16)), ("text", pa.large_string())])
ROOT = Path(__file__).parents[2]
START = datetime(2026, 11, 23, tzinfo=UTC)


def shard(lake: Lake, numbers: list[int], key: str | None = None) -> ShardFile:
    key = key or f"{numbers[0] if numbers else 0:02d}-{len(numbers)}"
    with ShardWriter(lake.shard_folder("ingest", key), key, key, {"raw": SCHEMA}) as out:
        table = {"n": numbers, "id": [n.to_bytes(16, "big") for n in numbers], "text": [str(n) for n in numbers]}
        out.write("raw", pa.table(table, schema=SCHEMA))
    return out.result.files[0]


def numbers(lake: Lake, ref: TableRef) -> list[int]:
    return sorted(n for path in lake.files(ref) for n in pq.read_table(path)["n"].to_pylist())


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    return Lake(tmp_path / "lake").create()


def child(code: str, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(code), *arguments],
        env={**os.environ, "PYTHONPATH": f"{ROOT}:{Path(__file__).parent}"},
        stdout=subprocess.PIPE,
        text=True,
    )


class TestCommit:
    def test_a_commit_replaces_the_whole_table_and_the_older_reference_stays_readable(self, lake: Lake) -> None:
        first = lake.commit("demo.raw", SCHEMA, [shard(lake, [1, 2]), shard(lake, [3])], "f1")
        second = lake.commit("demo.raw", SCHEMA, [shard(lake, [4])], "f2")
        assert (numbers(lake, first), numbers(lake, second)) == ([1, 2, 3], [4])
        assert (first.rows, second.rows) == (3, 1)
        assert lake.current_files("demo.raw") == lake.files(second)
        assert lake.present(first)
        assert lake.present(second)

    def test_the_snapshot_says_what_it_holds(self, lake: Lake) -> None:
        ref = lake.commit("demo.raw", SCHEMA, [shard(lake, [1])], "f1")
        snapshot = lake.catalog.load_table("demo.raw").current_snapshot()
        assert snapshot.snapshot_id == ref.snapshot
        assert snapshot.summary.additional_properties["headwater.fingerprint"] == "f1"
        assert snapshot.summary.additional_properties["headwater.data-version"] == ref.data_version

    def test_the_data_version_is_of_the_content_alone(self, lake: Lake, tmp_path: Path) -> None:
        elsewhere = Lake(tmp_path / "elsewhere").create()
        one = lake.commit("demo.raw", SCHEMA, [shard(lake, [1]), shard(lake, [2])], "f1")
        two = elsewhere.commit("other.raw", SCHEMA, [shard(elsewhere, [2], "b"), shard(elsewhere, [1], "a")], "f2")
        assert one.data_version == two.data_version
        assert one.snapshot != two.snapshot

    def test_the_same_content_again_makes_no_new_snapshot(self, lake: Lake) -> None:
        files = [shard(lake, [1])]
        assert lake.commit("demo.raw", SCHEMA, files, "f1") == lake.commit("demo.raw", SCHEMA, files, "f1")
        assert len(lake.catalog.load_table("demo.raw").history()) == 1

    def test_no_rows_are_a_table_too(self, lake: Lake) -> None:
        empty = lake.commit("demo.refused", SCHEMA, [shard(lake, [])], "f1")
        assert (empty.rows, lake.files(empty), lake.present(empty)) == (0, [], True)
        full = lake.commit("demo.refused", SCHEMA, [shard(lake, [5])], "f2")
        emptied = lake.commit("demo.refused", SCHEMA, [shard(lake, [])], "f3")
        assert numbers(lake, full) == [5]
        assert (emptied.rows, lake.files(emptied), lake.current_files("demo.refused")) == (0, [], [])

    def test_a_new_column_joins_an_older_table(self, lake: Lake) -> None:
        old = lake.commit("demo.raw", SCHEMA, [shard(lake, [1])], "f1")
        wider = SCHEMA.append(pa.field("score", pa.float64()))
        with ShardWriter(lake.shard_folder("ingest", "wide"), "wide", "wide", {"raw": wider}) as out:
            out.write("raw", pa.table({"n": [2], "id": [b"x" * 16], "text": ["t"], "score": [0.5]}, schema=wider))
        new = lake.commit("demo.raw", wider, out.result.files, "f2")
        assert (numbers(lake, old), numbers(lake, new)) == ([1], [2])

    def test_a_reference_whose_file_is_gone_is_not_present(self, lake: Lake) -> None:
        ref = lake.commit("demo.raw", SCHEMA, [shard(lake, [1])], "f1")
        Path(lake.files(ref)[0]).unlink()
        assert not lake.present(ref)

    def test_a_lake_that_was_moved_takes_its_tables_up_again_at_the_new_place(self, lake: Lake) -> None:
        old = lake.commit("demo.raw", SCHEMA, [shard(lake, [1, 2])], "f1")
        moved = Lake(lake.root.rename(lake.root.with_name("elsewhere")))
        assert moved.present(old)
        assert numbers(moved, old) == [1, 2]
        new = moved.commit("demo.raw", SCHEMA, [shard(moved, [3])], "f2")
        assert (numbers(moved, old), numbers(moved, new)) == ([1, 2], [3])

    def test_a_table_that_never_was_is_not_present(self, lake: Lake) -> None:
        assert not lake.present(TableRef(table="a.b", snapshot=1, fingerprint="f", data_version="d", rows=1))
        assert lake.current_files("a.b") == []

    def test_rows_are_appended_and_nothing_is_lost_when_the_same_is_said_twice(self, lake: Lake) -> None:
        for _ in range(2):
            lake.append_rows("runs.notes", SCHEMA, [{"n": 1, "id": b"x" * 16, "text": "t"}], "owner")
        lake.append_rows("runs.notes", SCHEMA, [], "owner")
        files = lake.current_files("runs.notes")
        assert [pq.read_table(path)["n"].to_pylist() for path in files] == [[1], [1]]

    def test_readers_of_iceberg_find_each_row_once_from_the_first_on(self, lake: Lake) -> None:
        for n in (1, 2):
            lake.append_rows("runs.notes", SCHEMA, [{"n": n, "id": b"x" * 16, "text": "t"}], "owner")
        assert sorted(lake.catalog.load_table("runs.notes").scan().to_arrow()["n"].to_pylist()) == [1, 2]

    def test_a_commit_that_was_made_though_it_failed_is_not_made_twice(
        self, lake: Lake, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        from pyiceberg.catalog.sql import SqlCatalog
        from pyiceberg.exceptions import CommitStateUnknownException

        commit, failures = SqlCatalog.commit_table, []

        def unanswered(self: SqlCatalog, table: Any, *arguments: Any) -> Any:
            done = commit(self, table, *arguments)
            if not failures and done.metadata.snapshots:
                failures.append(table)
                raise CommitStateUnknownException("the connection was cut before the answer")
            return done

        monkeypatch.setattr(SqlCatalog, "commit_table", unanswered)
        lake.append_rows("runs.notes", SCHEMA, [{"n": 1, "id": b"x" * 16, "text": "t"}], "owner")
        assert failures
        assert lake.catalog.load_table("runs.notes").scan().to_arrow()["n"].to_pylist() == [1]


WRITER = """
    import sys, time
    from datalake.lake.lake import Lake
    from test_lake import SCHEMA, shard
    lake, name, start = Lake(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3])
    time.sleep(max(0, start - time.time()))
    for i in range(4):
        lake.append_rows("runs.notes", SCHEMA, [{"n": name * 10 + i, "id": b"x" * 16, "text": ""}], f"{name}")
        ref = lake.commit("demo.raw", SCHEMA, [shard(lake, [name * 10 + i])], f"{name}-{i}")
        print(ref.model_dump_json(), flush=True)
"""


class TestSeveralProcesses:
    def test_commits_made_at_once_all_land_and_each_reference_reads_its_own_rows(self, lake: Lake) -> None:
        """Three processes on a lake that none of them has seen: they make catalog, namespace and tables at once too."""
        at = str(time.time() + 4)
        writers = [child(WRITER, str(lake.root), str(name), at) for name in (1, 2, 3)]
        outs = [writer.communicate(timeout=120)[0] for writer in writers]
        assert [writer.returncode for writer in writers] == [0, 0, 0]
        refs = [TableRef.model_validate_json(line) for out in outs for line in out.splitlines()]
        wrote = [name * 10 + i for name in (1, 2, 3) for i in range(4)]
        assert [numbers(lake, ref) for ref in refs] == [[n] for n in wrote]
        noted = [n for path in lake.current_files("runs.notes") for n in pq.read_table(path)["n"].to_pylist()]
        assert sorted(noted) == wrote
        assert len(lake.current_files("demo.raw")) == 1, "the last commit's content, not a mixture"

    def test_of_two_first_commits_the_later_is_the_table(self, lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
        """Both find no table content; another's commit lands just before one's own."""
        from pyiceberg.table import Table

        land, other, made = Table._do_commit, Lake(lake.root), list[str]()

        def late(table: Table, *arguments: Any, **named: Any) -> None:
            monkeypatch.setattr(Table, "_do_commit", land)
            other.commit("demo.raw", SCHEMA, [shard(other, [1, 2])], "f1")
            made.append(str(other.catalog.load_table("demo.raw").metadata.table_uuid))
            land(table, *arguments, **named)

        lake.catalog.create_namespace("demo")
        other.commit("demo.others", SCHEMA, [shard(other, [3])], "f0")
        monkeypatch.setattr(Table, "_do_commit", late)
        lake.commit("demo.raw", SCHEMA, [shard(lake, [4])], "f2")
        table = lake.catalog.load_table("demo.raw")
        assert table.scan().to_arrow()["n"].to_pylist() == [4]
        assert [str(table.metadata.table_uuid)] == made, "the table wasn't made anew"


HOLDER = """
    import sys, time
    from datalake.lake.lake import Lake
    with Lake(sys.argv[1]).lease("f" * 64):
        print("held", flush=True)
        time.sleep(600)
"""


class TestLease:
    def test_nobody_waits_for_a_free_lease(self, lake: Lake) -> None:
        with lake.lease("a" * 64) as waited:
            assert not waited
        with lake.lease("a" * 64) as waited:
            assert not waited

    def test_another_fingerprint_is_another_lease(self, lake: Lake) -> None:
        with lake.lease("a" * 64), lake.lease("b" * 64) as waited:
            assert not waited

    def test_the_second_waits_until_the_first_is_done(self, lake: Lake) -> None:
        order: list[str] = []

        def second() -> None:
            with Lake(lake.root).lease("a" * 64) as waited:
                order.append(f"second, waited {waited}")

        thread = threading.Thread(target=second)
        with lake.lease("a" * 64):
            thread.start()
            time.sleep(1.5)  # long enough for the second to have begun to wait, on a busy machine too
            order.append("first")
        thread.join(timeout=30)
        assert order == ["first", "second, waited True"]

    def test_a_lease_ends_when_its_holder_fails(self, lake: Lake) -> None:
        def fail() -> None:
            with lake.lease("a" * 64):
                raise ValueError

        with pytest.raises(ValueError):  # noqa: PT011 - its own
            fail()
        with lake.lease("a" * 64) as waited:
            assert not waited

    def test_a_lease_ends_when_its_holder_is_killed(self, lake: Lake) -> None:
        holder = child(HOLDER, str(lake.root))
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        killer = threading.Timer(1.5, holder.send_signal, [signal.SIGKILL])
        killer.start()
        start = time.perf_counter()
        with lake.lease("f" * 64) as waited:
            assert waited
            assert time.perf_counter() - start < 60
        assert holder.wait(timeout=10) == -signal.SIGKILL


class TestPlaces:
    def test_a_lake_that_cannot_be_written_is_one_clear_line(self, tmp_path: Path) -> None:
        (tmp_path / "file").write_text("in the way")
        with pytest.raises(UserError, match=r"can't be written .*choose another folder with --lake$"):
            Lake(tmp_path / "file" / "lake").create()
        with pytest.raises(UserError, match="choose another folder with --lake"):
            Lake(tmp_path / "file").create()

    def test_reading_where_no_lake_is_is_one_clear_line_and_makes_nothing(self, tmp_path: Path) -> None:
        with pytest.raises(UserError, match="run a recipe first"):
            Lake(tmp_path / "none").require()
        assert list(tmp_path.iterdir()) == []

    def test_a_folders_version_is_of_names_and_contents(self, tmp_path: Path) -> None:
        def make(name: str, files: dict[str, str]) -> str:
            for path, text in files.items():
                (tmp_path / name / path).parent.mkdir(parents=True, exist_ok=True)
                (tmp_path / name / path).write_text(text)
            return folder_version(tmp_path / name)

        base = make("a", {"x": "1", "deep/y": "2"})
        assert make("b", {"deep/y": "2", "x": "1"}) == base
        assert len({base, make("c", {"x": "2", "deep/y": "1"}), make("d", {"x": "1", "y": "2"})}) == 3

    def test_a_temporary_file_that_a_kill_left_is_no_part_of_a_folders_version(self, tmp_path: Path) -> None:
        (tmp_path / "tokens.json").write_text("{}")
        before = folder_version(tmp_path)
        (tmp_path / ".tokens.json.17.tmp").write_text("{")
        assert folder_version(tmp_path) == before

    def test_a_folder_reference_is_present_while_its_folder_holds_something(self, lake: Lake) -> None:
        folder = lake.folder("tokenizer", "f" * 64)
        ref = FolderRef(name="tokenizer", path=lake.relative(folder), fingerprint="f" * 64, data_version="d")
        assert not lake.present(ref)
        folder.mkdir(parents=True)
        assert not lake.present(ref)
        (folder / "tokenizer.json").write_text("{}")
        assert lake.present(ref)

    def test_the_catalog_is_one_file_inside_the_lake(self, lake: Lake) -> None:
        lake.commit("demo.raw", SCHEMA, [shard(lake, [1])], "f1")
        with sqlite3.connect(lake.root / "catalog.db") as connection:
            names = connection.execute("select table_namespace, table_name from iceberg_tables").fetchall()
        assert names == [("demo", "raw")]


def record(fingerprint: str = "a" * 64) -> StageRecord:
    return StageRecord(
        stage="ingest",
        version="1",
        corpus="demo",
        fingerprint=fingerprint,
        state="done",
        payload={"stage": "ingest"},
        inputs={},
        outputs={"raw": TableRef(table="demo.raw", snapshot=7, fingerprint=fingerprint, data_version="d", rows=3)},
        counts={"records": 3},
        started=START,
        seconds=1.5,
    )


def manifest(run: str, hours: int, corpus: str = "demo") -> Manifest:
    outputs = dict(record().outputs)
    report = StageReport(stage="ingest", state="ran", seconds=1, outputs=outputs)
    return Manifest(
        run=run, corpus=corpus, recipe={}, started=START, finished=START + timedelta(hours=hours), stages=[report]
    )


class TestRecords:
    def test_a_record_is_read_back_equal_and_is_one_row_of_the_stages_table(self, lake: Lake) -> None:
        write_record(lake, record())
        assert read_record(lake, "a" * 64) == record()
        (path,) = lake.current_files("runs.stages")
        (row,) = pq.read_table(path).to_pylist()
        assert (row["stage"], row["seconds"], row["started"]) == ("ingest", 1.5, START)
        assert row["counts"] == '{"records": 3}'

    def test_what_was_never_built_or_was_cut_has_no_record(self, lake: Lake) -> None:
        assert read_record(lake, "b" * 64) is None
        write_record(lake, record())
        path = lake.root / "records" / f"{'a' * 64}.json"
        path.write_bytes(path.read_bytes()[:-20])
        assert read_record(lake, "a" * 64) is None

    def test_runs_are_found_by_prefix_by_corpus_and_as_the_last(self, lake: Lake) -> None:
        for run, hours, corpus in (("run-b", 1, "demo"), ("run-a", 2, "demo"), ("other", 3, "samples")):
            write_manifest(lake, manifest(run, hours, corpus))
        assert [m.run for m in manifests(lake)] == ["run-b", "run-a", "other"]
        assert find_manifest(lake).run == find_manifest(lake, "last").run == "other"
        assert find_manifest(lake, corpus="demo").run == "run-a"
        assert find_manifest(lake, "run-b").refs == record().outputs

    def test_a_run_that_is_not_there_is_one_clear_line_naming_those_that_are(self, lake: Lake) -> None:
        write_manifest(lake, manifest("run-a", 1))
        with pytest.raises(UserError, match=r"^no finished run nope in .* \(finished runs: run-a\)$"):
            find_manifest(lake, "nope")
