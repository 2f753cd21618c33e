"""Shards: complete or absent, the same bytes every time, and never taken for finished when they aren't."""

from __future__ import annotations

import itertools
import json
import os
import shutil
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from datalake.files import file_digest
from datalake.lake import shards
from datalake.lake.parquet import read_batches
from datalake.lake.shards import ShardResult, ShardWriter, find_shard, shard_key

SCHEMA = pa.schema([("n", pa.int64()), ("text", pa.large_string())])
ROOT = Path(__file__).parents[2]


def rows(start: int, stop: int) -> pa.Table:
    return pa.table({"n": range(start, stop), "text": [f"row {n}" for n in range(start, stop)]}, schema=SCHEMA)


def write(folder: Path, steps: list[int]) -> ShardResult:
    with ShardWriter(folder, "name", "key", {"raw": SCHEMA, "refused": SCHEMA}) as out:
        for start, stop in itertools.pairwise(steps):
            out.write("raw", rows(start, stop))
            out.count("records", stop - start)
    return out.result


def test_what_was_written_is_read_back_in_order(tmp_path: Path) -> None:
    result = write(tmp_path, [0, 10, 10, 2000])
    raw, refused = result.files
    assert (raw.table, raw.rows, refused.table, refused.rows) == ("raw", 2000, "refused", 0)
    assert raw.digest == file_digest(raw.path)
    assert raw.bytes == Path(raw.path).stat().st_size
    assert result.counts == {"records": 2000}
    batches = list(read_batches(raw.path, rows=300))
    assert all(batch.num_rows <= 300 for batch in batches)
    assert pa.Table.from_batches(batches).equals(rows(0, 2000))
    assert pq.read_schema(refused.path).equals(SCHEMA), "a table without rows has its columns"


def test_a_finished_shard_is_found_as_it_was(tmp_path: Path) -> None:
    result = write(tmp_path / "a", [0, 10])
    found = find_shard(tmp_path / "a")
    assert found is not None
    assert found.state == "found"
    assert (found.files, found.counts, found.name, found.key) == (result.files, result.counts, "name", "key")


def test_a_lake_that_moved_still_finds_its_shards(tmp_path: Path) -> None:
    write(tmp_path / "a", [0, 10])
    shutil.move(tmp_path / "a", tmp_path / "b")
    found = find_shard(tmp_path / "b")
    assert found is not None
    assert found.files[0].path == str(tmp_path / "b" / "raw.parquet")


def test_the_same_rows_in_the_same_pieces_give_the_same_bytes(tmp_path: Path) -> None:
    first, second = (write(tmp_path / name, [0, 10_000, 40_000]) for name in ("a", "b"))
    assert [file.digest for file in first.files] == [file.digest for file in second.files]


def test_row_groups_stay_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shards, "ROW_GROUP_ROWS", 100)
    path = write(tmp_path, list(range(0, 1001, 7))).files[0].path
    with pq.ParquetFile(path) as file:
        sizes = [file.metadata.row_group(i).num_rows for i in range(file.num_row_groups)]
    assert max(sizes) <= 100
    assert sum(sizes) == 994


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit])
def test_an_exception_leaves_nothing_at_all(tmp_path: Path, error: type[BaseException]) -> None:
    def cut_short() -> None:
        with ShardWriter(tmp_path, "name", "key", {"raw": SCHEMA}) as out:
            out.write("raw", rows(0, 20_000))
            raise error

    with pytest.raises(error):
        cut_short()
    assert find_shard(tmp_path) is None
    assert list(tmp_path.iterdir()) == []


def test_a_kill_leaves_nothing_finished_and_the_next_try_gives_the_undisturbed_bytes(tmp_path: Path) -> None:
    code = textwrap.dedent(
        """
        import os, signal, sys
        from pathlib import Path
        import pyarrow as pa
        from datalake.lake import shards
        schema = pa.schema([("n", pa.int64()), ("text", pa.large_string())])
        if sys.argv[2] == "renaming":  # all tables are in place, `shard.json` isn't
            shards.finish_shard = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
        with shards.ShardWriter(Path(sys.argv[1]), "name", "key", {"raw": schema, "refused": schema}) as out:
            out.write("raw", pa.table({"n": range(20_000), "text": ["x"] * 20_000}, schema=schema))
            if sys.argv[2] == "writing":
                os.kill(os.getpid(), signal.SIGKILL)
        """
    )
    undisturbed = write(tmp_path / "undisturbed", [0, 50])
    for moment in ("writing", "renaming"):
        folder = tmp_path / moment
        child = subprocess.run(
            [sys.executable, "-c", code, str(folder), moment], env={**os.environ, "PYTHONPATH": str(ROOT)}
        )
        assert child.returncode == -signal.SIGKILL
        assert any(folder.iterdir())
        assert find_shard(folder) is None
        assert [file.digest for file in write(folder, [0, 50]).files] == [file.digest for file in undisturbed.files]


@pytest.mark.parametrize("damage", ["missing file", "cut file", "cut mark", "not json", "other json"])
def test_a_damaged_folder_is_not_finished(tmp_path: Path, damage: str) -> None:
    path, mark = Path(write(tmp_path, [0, 10]).files[0].path), tmp_path / "shard.json"
    if damage == "missing file":
        path.unlink()
    elif damage == "cut file":
        path.write_bytes(path.read_bytes()[:-1])
    elif damage == "cut mark":
        mark.write_bytes(mark.read_bytes()[:40])
    elif damage == "not json":
        mark.write_bytes(b"\xff\xfe\x00")
    else:
        mark.write_text(json.dumps([1, 2]))
    assert find_shard(tmp_path) is None


def test_a_folder_that_isnt_there_is_not_finished(tmp_path: Path) -> None:
    assert find_shard(tmp_path / "none") is None


def test_a_shards_key_depends_on_stage_version_config_and_its_own_input() -> None:
    base = ("ingest", "1", {"a": 1}, "digest")
    others = [("curate", *base[1:]), ("ingest", "2", *base[2:]), ("ingest", "1", {"a": 2}, "digest"), (*base[:3], "x")]
    assert len({shard_key(*values) for values in [base, *others]}) == 5
    assert shard_key(*base) == shard_key(*base)
