"""A lake in a store that isn't S3: what Azure's and Google's have of their own.

HEADWATER_STORES names an empty container of each that is to be tried, such as `az://lake gs://lake`, which the
libraries' own variables lead to. Microsoft's emulator is one of npm's packages:

    pip install adlfs; npx azurite-blob --inMemoryPersistence --skipApiVersionCheck
    AZURE_STORAGE_CONNECTION_STRING=... HEADWATER_STORES=az://lake pytest tests/datalake/test_other_stores.py
"""

from __future__ import annotations

import os
import uuid
from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
import pytest

from datalake.atomic import folder_list, whole_folder
from datalake.conditional import holds_conditions, tag, write_first, write_over
from datalake.errors import UserError
from datalake.lake import leases
from datalake.lake.lake import Lake
from datalake.lake.ledger import query
from datalake.lake.records import Manifest, StageReport, write_manifest
from datalake.lake.shards import ShardWriter

ROWS = pa.schema([("id", pa.int64()), ("text", pa.large_string())])
NOW = datetime(2026, 11, 23, tzinfo=UTC)
STORES = os.environ.get("HEADWATER_STORES", "").split()

pytestmark = pytest.mark.skipif(not STORES, reason="HEADWATER_STORES names no store to try")


@pytest.fixture(params=STORES or [""])
def lake(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Lake:
    monkeypatch.setenv("HEADWATER_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("HEADWATER_CATALOG", raising=False)
    return Lake(f"{request.param}/{uuid.uuid4().hex}").create()


def test_tables_are_committed_and_sql_reads_them_and_nothing_else(lake: Lake) -> None:
    with ShardWriter(lake.shard_folder("ingest", "ab12"), "ab12", "ab12", {"things": ROWS}) as out:
        out.write("things", pa.table({"id": [0, 1], "text": ["a", "b"]}, schema=ROWS))
    ref = lake.commit("demo.things", ROWS, out.result.files, "f" * 64)
    report = StageReport(stage="ingest", state="ran", seconds=1, fingerprint="f" * 64, outputs={"things": ref})
    write_manifest(
        lake, Manifest(run="run", corpus="demo", recipe={}, started=NOW, finished=NOW, until="ingest", stages=[report])
    )
    assert query(lake, "SELECT count(*), max(text) FROM demo.things")[1] == [(2, "b")]
    with pytest.raises(UserError, match="reads the lake's tables alone"):
        query(lake, f"SELECT * FROM read_csv('{lake.root.parent}/other.csv')")
    assert lake.catalog.load_table("demo.things").scan().to_arrow()["id"].to_pylist() == [0, 1]


def test_a_folder_is_whole_or_not_there(lake: Lake) -> None:
    folder = lake.root / "folders" / "sft"
    with whole_folder(folder) as part:
        (part / "a").mkdir()
        (part / "a" / "b.txt").write_text("b")
    assert list(folder_list(folder) or ()) == ["a/b.txt"]
    assert (folder / "a" / "b.txt").read_text() == "b"


def test_an_object_is_written_first_once_and_over_another_if_it_was_seen(lake: Lake) -> None:
    assert holds_conditions(lake.root)
    path = lake.root / "leases" / "one.json"
    assert [write_first(path, name) for name in (b"one", b"two")] == [True, False]
    seen = tag(path)
    assert [write_over(path, name, seen) for name in (b"three", b"four")] == [True, False]
    assert path.read_bytes() == b"three"
    path.unlink()
    assert tag(path) == ""
    assert not write_over(path, b"five", seen)


def test_a_lease_whose_holder_was_killed_is_taken_over(lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leases, "GONE_S", 1.0)
    write_first(lake.root / "leases" / f"{'a' * 32}.json", b'{"holder": "one that was killed", "beat": 3}')
    with lake.lease("a" * 64) as waited:
        assert waited


def test_a_container_that_there_is_not_is_one_line(lake: Lake) -> None:
    protocol = str(lake.root).partition("://")[0]
    with pytest.raises(UserError, match="there is no bucket nowhere: make it, or correct --lake"):
        Lake(f"{protocol}://nowhere/x").create()
