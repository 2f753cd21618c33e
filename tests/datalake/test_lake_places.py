"""A lake is where it lies: moved, copied, behind a link that goes away, under any name, with or without its catalog."""

from __future__ import annotations

import datetime as dt
import os
import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from datalake.errors import LostDataError, UserError
from datalake.lake.lake import FolderRef, Lake, TableRef
from datalake.lake.ledger import query
from datalake.lake.parquet import dataset, read_table, scan
from datalake.lake.records import METRICS, Manifest, StageReport, now, write_manifest
from datalake.lake.shards import ShardWriter, find_shard

SCHEMA = pa.schema([("n", pa.int64()), ("language", pa.string())])


def commit(lake: Lake, numbers: list[int], fingerprint: str, files: int = 1) -> TableRef:
    made = []
    for part in range(files):
        key = f"{fingerprint}-{part}"
        with ShardWriter(lake.shard_folder("ingest", key), key, key, {"numbers": SCHEMA}) as out:
            some = numbers[part::files]
            out.write("numbers", pa.table({"n": some, "language": ["en"] * len(some)}, schema=SCHEMA))
        made += out.result.files
    return lake.commit("demo.numbers", SCHEMA, made, fingerprint)


def finish(lake: Lake, run: str, **outputs: TableRef | FolderRef) -> None:
    report = StageReport(stage="ingest", state="ran", seconds=0, outputs=dict(outputs))
    write_manifest(lake, Manifest(run=run, corpus="demo", recipe={}, started=now(), finished=now(), stages=[report]))


def filled(root: Path) -> tuple[Lake, TableRef, TableRef]:
    """A lake with two states of a table, two rows of metrics and a finished run that shows the older state."""
    lake = Lake(root).create()
    old = commit(lake, [1, 2, 3], "old", files=2)
    new = commit(lake, [7], "new")
    for name in ("a", "b"):
        row = {"fingerprint": name, "stage": "sft", "step": 0, "name": "loss", "value": 1.0}
        lake.append_rows("runs.metrics", METRICS, [row], name, once=True)
    finish(lake, "first", numbers=old)
    return lake, old, new


def numbers(lake: Lake, ref: TableRef) -> list[int]:
    return sorted(n for path in lake.files(ref) for n in read_table(path)["n"].to_pylist())


def shown(lake: Lake) -> tuple[list[int], int]:
    """What a person sees: numbers of the run's table, rows of metrics."""
    (row,) = query(lake, "SELECT (SELECT list(n ORDER BY n) FROM demo.numbers), (SELECT count(*) FROM runs.metrics)")[1]
    return row


def by_iceberg(lake: Lake) -> dict[str, int]:
    """Rows of each table as others read it: by the catalog and Iceberg's metadata, from files inside the lake."""
    found = {}
    for name in ("demo.numbers", "runs.metrics"):
        files = [task.file for task in lake.catalog.load_table(name).scan().plan_files()]
        assert all(lake.root in Path(file.file_path).parents for file in files)
        found[name] = sum(file.record_count for file in files)
    return found


def expire(lake: Lake) -> None:
    table = lake.catalog.load_table("demo.numbers")
    with table.maintenance.expire_snapshots() as expired:
        expired.older_than(dt.datetime.now() + dt.timedelta(days=1))
    assert len(lake.catalog.load_table("demo.numbers").metadata.snapshots) == 1


def garbage(path: Path) -> None:
    path.write_bytes(b"this is no database" * 100)


def half(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def every(lake: Lake, pattern: str, damage: Callable[[Path], Any]) -> None:
    paths = list((lake.root / "warehouse").rglob(pattern))
    assert paths
    for path in paths:
        damage(path)


ACCIDENTS: dict[str, Callable[[Lake], Any]] = {
    "snapshots expired": expire,
    "catalog deleted": lambda lake: (lake.root / "catalog.db").unlink(),
    "catalog garbage": lambda lake: garbage(lake.root / "catalog.db"),
    "catalog cut": lambda lake: half(lake.root / "catalog.db"),
    "catalog empty": lambda lake: (lake.root / "catalog.db").write_bytes(b""),
    "warehouse deleted": lambda lake: shutil.rmtree(lake.root / "warehouse"),
    "metadata garbage": lambda lake: every(lake, "*.metadata.json", garbage),
    "metadata cut": lambda lake: every(lake, "*.metadata.json", half),
    "manifests cut": lambda lake: every(lake, "*.avro", half),
    "manifests deleted": lambda lake: every(lake, "*.avro", Path.unlink),
}


@pytest.mark.parametrize("accident", ACCIDENTS)
def test_what_befalls_the_catalog_changes_no_table(
    tmp_path: Path, accident: str, capsys: pytest.CaptureFixture[str]
) -> None:
    lake, old, new = filled(tmp_path / "lake")
    ACCIDENTS[accident](lake)
    again = Lake(lake.root)
    assert (numbers(again, old), numbers(again, new)) == ([1, 2, 3], [7])
    assert again.present(old)
    assert shown(again) == ([1, 2, 3], 2)
    assert capsys.readouterr().err == "", "reading asks no catalog"
    third = commit(again, [8, 9], "third")
    row = {"fingerprint": "c", "stage": "sft", "step": 0, "name": "loss", "value": 1.0}
    again.append_rows("runs.metrics", METRICS, [row], "c", once=True)
    assert (numbers(again, old), numbers(again, third)) == ([1, 2, 3], [8, 9])
    assert by_iceberg(Lake(lake.root)) == {"demo.numbers": 2, "runs.metrics": 3}
    told = capsys.readouterr().err
    assert all(line.startswith("headwater: ") for line in told.splitlines())
    if accident not in ("snapshots expired", "catalog deleted", "catalog empty"):
        assert "made anew" in told


def test_a_damaged_catalog_is_kept_beside_the_new_one(tmp_path: Path) -> None:
    lake, _, _ = filled(tmp_path / "lake")
    garbage(lake.root / "catalog.db")
    commit(Lake(lake.root), [8], "third")
    (aside,) = lake.root.glob("catalog.db.aside-*")
    assert aside.read_bytes().startswith(b"this is no database")
    with sqlite3.connect(lake.root / "catalog.db") as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)


def test_a_lake_that_was_moved_loses_nothing(tmp_path: Path) -> None:
    lake, old, new = filled(tmp_path / "lake")
    moved = Lake(lake.root.rename(tmp_path / "elsewhere"))
    assert (numbers(moved, old), numbers(moved, new), shown(moved)) == ([1, 2, 3], [7], ([1, 2, 3], 2))
    commit(moved, [8, 9], "third")
    assert by_iceberg(moved) == {"demo.numbers": 2, "runs.metrics": 2}
    assert not (tmp_path / "lake").exists()


@pytest.mark.parametrize("original", ["there", "gone"])
def test_a_copy_is_a_lake_of_its_own(tmp_path: Path, original: str) -> None:
    lake, old, new = filled(tmp_path / "lake")
    copy = Lake(shutil.copytree(lake.root, tmp_path / "copy"))
    if original == "gone":
        shutil.rmtree(lake.root)
    else:
        for path in lake.root.rglob("*.parquet"):  # what is read by mistake is read as another size
            path.write_bytes(b"")
        shutil.rmtree(lake.root / "warehouse")
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "lake").rglob("*")}
    assert (numbers(copy, old), numbers(copy, new), shown(copy)) == ([1, 2, 3], [7], ([1, 2, 3], 2))
    commit(copy, [8, 9], "third")
    copy.append_rows("runs.metrics", METRICS, [], "c")
    assert by_iceberg(copy) == {"demo.numbers": 2, "runs.metrics": 2}
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "lake").rglob("*")} == before


def test_a_symbolic_link_to_a_lake_may_go_away(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    lake, old, _ = filled(tmp_path / "link" / "lake")
    assert lake.root == tmp_path / "real" / "lake"
    (tmp_path / "link").unlink()
    again = Lake(tmp_path / "real" / "lake")
    assert (numbers(again, old), shown(again), by_iceberg(again)["demo.numbers"]) == ([1, 2, 3], ([1, 2, 3], 2), 1)


def test_a_database_elsewhere_serves_one_lake_and_a_lake_that_moves_with_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HEADWATER_CATALOG", f"sqlite:///{tmp_path}/shared.db")
    lake, old, _ = filled(tmp_path / "lake")
    other = Lake(tmp_path / "other").create()
    with pytest.raises(UserError, match="give each lake a database of its own"):
        commit(other, [1], "old")
    moved = Lake(lake.root.rename(tmp_path / "elsewhere"))
    commit(moved, [8, 9], "third")
    assert numbers(moved, old) == [1, 2, 3]
    assert by_iceberg(moved) == {"demo.numbers": 2, "runs.metrics": 2}


# Nothing is never an empty table -----------------------------------------------------------------------------------


def lose_list(lake: Lake) -> None:
    shutil.rmtree(lake.root / "contents")
    (lake.root / "catalog.db").unlink()


LOSSES: dict[str, Callable[[Lake], Any]] = {
    "files": lambda lake: shutil.rmtree(lake.root / "shards" / "ingest"),
    "one file": lambda lake: next((lake.root / "shards" / "ingest").rglob("*.parquet")).unlink(),
    "end of a file": lambda lake: half(next((lake.root / "shards" / "ingest").rglob("*.parquet"))),
    "list and catalog": lose_list,
    "end of the list": lambda lake: [*map(half, (lake.root / "contents").rglob("*.json")), lose_list(lake)],
}


@pytest.mark.parametrize("loss", LOSSES)
def test_rows_without_files_are_an_error_and_no_empty_table(tmp_path: Path, loss: str) -> None:
    lake = Lake(tmp_path / "lake").create()
    ref = commit(lake, [1, 2], "one")
    finish(lake, "first", numbers=ref)
    LOSSES[loss](lake)
    again = Lake(lake.root)
    assert not again.present(ref)
    with pytest.raises(LostDataError, match=r"^demo\.numbers is gone or damaged \(.*\): run its recipe again"):
        again.files(ref)
    with pytest.raises(UserError, match=r"^tables of run first are gone or damaged \(.*\): run its recipe again"):
        query(again, "SELECT count(*) FROM demo.numbers")


def test_a_lake_from_before_there_were_lists_is_read_by_its_snapshots(tmp_path: Path) -> None:
    lake, old, new = filled(tmp_path / "lake")
    shutil.rmtree(lake.root / "contents")
    again = Lake(lake.root)
    assert (numbers(again, old), numbers(again, new)) == ([1, 2, 3], [7])
    assert shown(again) == ([1, 2, 3], 2)
    assert again.schema(old).names == SCHEMA.names
    expire(again)
    assert not again.present(old), "its snapshot is gone, and nothing else tells its files"
    with pytest.raises(LostDataError):
        again.files(old)


def test_a_folder_is_whole_while_each_of_its_files_has_its_size(tmp_path: Path) -> None:
    lake = Lake(tmp_path / "lake").create()
    folder = lake.folder("tokenize", "f" * 64)
    folder.mkdir(parents=True)
    (folder / "tokens.json").write_text("{}")
    commit(lake, [1], "one")
    made = find_shard(lake.shard_folder("ingest", "one-0"))
    assert made is not None
    ref = lake.commit_folder("tokens", folder, "f" * 64, made.files)
    assert lake.present(ref)
    for path in (folder / "tokens.json", Path(made.files[0].path)):
        whole = path.read_bytes()
        path.write_bytes(whole[:-1])
        assert not lake.present(ref)
        path.write_bytes(whole)
    assert lake.present(ref)


def test_rows_of_damaged_files_are_missed_aloud(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lake, _, _ = filled(tmp_path / "lake")
    half(next((lake.root / "shards" / "runs.metrics").rglob("*.parquet")))
    assert shown(lake) == ([1, 2, 3], 1)
    assert "lacks the rows of 1 damaged file" in capsys.readouterr().err


# Any legal name ---------------------------------------------------------------------------------------------------

NASTY = [
    "a b", "a%20b", "a#b", "a?b", "a*b", "v[1]", "[!x]", "language=fr", "n=5/language=fr", "it's", 'say "x"', "水 é",
    "a;b",    "a&b=c", "~x", "$HOME", "{1,2}", "a\\b", "new\nline", "-x", "a:b", "file:", "%", "...",
]  # fmt: skip


def holds(root: Path, beside: Path | None = None) -> None:
    """A lake there commits, reads and queries its own rows, by its own columns, and leaves nothing elsewhere."""
    lake = Lake(root).create()
    old, new = commit(lake, [1, 2], "old", files=2), commit(lake, [5], "new")
    finish(lake, "first", numbers=old)
    again = Lake(root)
    assert (numbers(again, old), numbers(again, new)) == ([1, 2], [5])
    assert query(again, "SELECT n, language FROM demo.numbers ORDER BY n")[1] == [(1, "en"), (2, "en")]
    assert dataset(again.files(old)).to_table().column_names == SCHEMA.names
    with duckdb.connect() as connection:
        rows = connection.execute(f"SELECT * FROM {scan(again.files(old))} ORDER BY n").fetchall()
    assert rows == [(1, "en"), (2, "en")]
    files = [task.file.file_path for task in again.catalog.load_table("demo.numbers").scan().plan_files()]
    assert files == again.files(new)
    assert (root / "catalog.db").is_file()


@pytest.mark.parametrize("name", NASTY)
def test_a_lake_may_lie_under_any_name(tmp_path: Path, name: str) -> None:
    for near in ("a1b", "a[1]b", "axb", "v1"):  # what the name would mean as a pattern
        commit(Lake(tmp_path / near / "lake").create(), [100], "old", files=2)
    before = {path.name for path in tmp_path.iterdir()}
    holds(tmp_path / name / "lake")
    assert {path.name for path in tmp_path.iterdir()} - before <= {name.split("/")[0]}


@pytest.mark.slow
@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.text(st.characters(exclude_characters="/\0", exclude_categories=["Cs"]), min_size=1, max_size=12))
def test_a_lake_may_lie_under_any_name_at_all(tmp_path_factory: pytest.TempPathFactory, name: str) -> None:
    if name in (".", "..") or len(name.encode()) > 200:
        return
    root = tmp_path_factory.mktemp("any")
    holds(root / name / "lake")
    assert [path.name for path in root.iterdir()] == [name]


def test_a_name_that_is_no_text_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="choose another folder"):
        Lake(tmp_path / os.fsdecode(b"\xff")).create()
