"""A lake whose catalog is a server of Iceberg's REST: tables, two writers at once, a server that is down or ill."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pytest
from harness import answering, free_port
from rest_catalog import Server
from servers import S3Server
from stores import BUCKET

from datalake.errors import UserError
from datalake.lake import iceberg
from datalake.lake.lake import Lake
from datalake.lake.shards import ShardResult, ShardWriter

ROWS = pa.schema([("id", pa.int64()), ("text", pa.string())])


def shard(lake: Lake, key: str, rows: int = 3) -> ShardResult:
    with ShardWriter(lake.shard_folder("ingest", key), key, key, {"raw": ROWS}) as out:
        numbers = list(range(rows))
        out.write("raw", pa.table([numbers, [f"text {n}" for n in numbers]], schema=ROWS))
    return out.result


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    made = Server(tmp_path)
    with answering(made.app) as url:
        monkeypatch.setenv("HEADWATER_CATALOG", url)
        yield made


@pytest.fixture(params=["folder", "store"])
def lake(request: pytest.FixtureRequest, server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Lake:
    monkeypatch.setenv("HEADWATER_CACHE", str(tmp_path / "cache"))
    if request.param == "folder":
        return Lake(tmp_path / "lake").create()
    request.getfixturevalue("s3_server")
    return Lake(f"s3://{BUCKET}/{tmp_path.name}").create()


def rows(lake: Lake, name: str) -> int:
    """As another tool reads a table."""
    return int(Lake(lake.root).catalog.load_table(name).scan().to_arrow().num_rows)


def test_tables_are_committed_replaced_and_widened(lake: Lake, server: Server) -> None:
    lake.commit("demo.raw", ROWS, shard(lake, "aa01", 3).files, "1" * 64)
    assert rows(lake, "demo.raw") == 3
    lake.commit("demo.raw", ROWS, shard(lake, "aa02", 5).files, "2" * 64)
    assert rows(lake, "demo.raw") == 5
    before = server.commits
    lake.commit("demo.raw", ROWS, shard(lake, "aa02", 5).files, "2" * 64)
    assert server.commits == before, "a table that holds this content isn't committed again"
    wide = ROWS.append(pa.field("more", pa.int64()))
    lake.commit("demo.raw", wide, shard(lake, "aa03", 2).files, "3" * 64)
    assert Lake(lake.root).catalog.load_table("demo.raw").schema().as_arrow().names == ["id", "text", "more"]
    for owner in ("one", "two"):
        lake.append_rows("runs.notes", ROWS, [{"id": 1, "text": owner}], owner)
    assert rows(lake, "runs.notes") == 2
    location = server.catalog.load_table("demo.raw").metadata_location
    assert location.startswith(f"{lake.root}/warehouse/demo/raw/"), "in the lake, wherever the server keeps its own"


def test_writers_at_once_lose_nothing(lake: Lake, server: Server) -> None:
    results = [shard(lake, f"bb{number:02d}", number + 1) for number in range(3)]
    errors: list[BaseException] = []

    def write(number: int) -> None:
        try:
            mine = Lake(lake.root)
            mine.append_rows("runs.notes", ROWS, [{"id": number, "text": ""}], f"{number}")
            mine.commit("both.raw", ROWS, results[number].files, f"{number}" * 64)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=write, args=(number,)) for number in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    assert not errors
    assert sorted(Lake(lake.root).catalog.load_table("runs.notes").scan().to_arrow()["id"].to_pylist()) == [0, 1, 2]
    last = Lake(lake.root).catalog.load_table("both.raw")
    made = int(last.current_snapshot().summary.additional_properties["headwater.fingerprint"][0])
    assert last.scan().to_arrow().num_rows == made + 1, "one writer's content, not a mixture"


def test_another_lakes_tables_are_refused(server: Server, tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
    one, two = Lake(tmp_path / "one"), Lake(tmp_path / "two")
    one.commit("demo.raw", ROWS, shard(one, "aa01").files, "1" * 64)
    with pytest.raises(UserError, match="of another lake"):
        two.commit("demo.raw", ROWS, shard(two, "aa01").files, "1" * 64)
    assert rows(one, "demo.raw") == 3


def test_a_server_that_is_ill_for_a_while_is_asked_again_and_no_table_is_made_anew(lake: Lake, server: Server) -> None:
    lake.commit("demo.raw", ROWS, shard(lake, "aa01").files, "1" * 64)
    table = server.catalog.load_table("demo.raw").metadata.table_uuid
    server.broken = True
    well = threading.Timer(2, lambda: setattr(server, "broken", False))
    well.start()
    lake.commit("demo.raw", ROWS, shard(lake, "aa02", 5).files, "2" * 64)
    well.join()
    assert rows(lake, "demo.raw") == 5
    assert server.catalog.load_table("demo.raw").metadata.table_uuid == table


def test_a_server_that_is_down_is_one_line(
    server: Server, s3_server: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lake = Lake(tmp_path / "lake").create()
    lake.commit("demo.raw", ROWS, shard(lake, "aa01").files, "1" * 64)
    monkeypatch.setattr(iceberg, "_TRIES", 2)
    urls = {"server": f"http://127.0.0.1:{free_port()}", "database": f"postgresql://lake@127.0.0.1:{free_port()}/lake"}
    for what, url in urls.items():
        monkeypatch.setenv("HEADWATER_CATALOG", url)
        for begun in (Lake(tmp_path / "lake"), Lake(f"s3://{BUCKET}/{tmp_path.name}")):
            with pytest.raises(UserError, match=rf"the catalog's {what} doesn't answer \(.+\): start it, or "):
                begun.create()
        with pytest.raises(UserError, match=f"the catalog's {what} doesn't answer") as told:
            Lake(tmp_path / "lake").commit("demo.raw", ROWS, shard(lake, "aa02").files, "2" * 64)
        assert "\n" not in str(told.value)
