"""A lake at an address: commits, reads, leases and faults, on the S3 double, with SQLite and with a real PostgreSQL."""

from __future__ import annotations

import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
import pytest
from servers import S3Server
from stores import BUCKET, Postgres, pooler, wait_until

from datalake.atomic import folder_list, whole_folder
from datalake.conditional import tag, write_over
from datalake.errors import LostDataError, UserError
from datalake.files import file_digest
from datalake.lake import leases
from datalake.lake.copies import workplace
from datalake.lake.lake import Lake, TableRef
from datalake.lake.leases import lease
from datalake.lake.ledger import query
from datalake.lake.parquet import dataset, open_parquet, read_batches, read_metadata, read_schema, read_table
from datalake.lake.records import CHECKPOINTS, Manifest, StageReport, manifests, write_manifest
from datalake.lake.shards import ShardResult, ShardWriter, find_shard
from datalake.lake.tags import TAGS
from datalake.lake.upkeep.maintain import maintain
from datalake.places import copy_of, place

ROWS = pa.schema([("id", pa.int64()), ("text", pa.string())])
NOW = datetime(2026, 11, 30, tzinfo=UTC)


@pytest.fixture
def lake(s3_server: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Lake:
    monkeypatch.setenv("HEADWATER_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("HEADWATER_CATALOG", f"sqlite:///{tmp_path}/catalog.db")
    return Lake(f"s3://{BUCKET}/{tmp_path.name}").create()


def shard(lake: Lake, key: str, rows: int = 3) -> ShardResult:
    with ShardWriter(lake.shard_folder("ingest", key), key, key, {"raw": ROWS}) as out:
        numbers = list(range(rows))
        out.write("raw", pa.table([numbers, [f"text {n}" for n in numbers]], schema=ROWS))
    return out.result


def raw(lake: Lake, rows: int = 3) -> TableRef:
    return lake.commit("demo.raw", ROWS, shard(lake, "ab12", rows).files, "f" * 64)


def another_machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """From now on this process keeps its copies elsewhere."""
    monkeypatch.setenv("HEADWATER_CACHE", str(tmp_path / "another"))


def test_a_shard_has_the_bytes_of_one_on_a_disk_and_its_mark_comes_last(lake: Lake, s3_server: S3Server) -> None:
    before = len(s3_server.asked)
    made = shard(lake, "ab12")
    put = [path.rpartition("/")[2] for method, path, _ in s3_server.asked[before:] if method == "PUT"]
    assert put == ["raw.parquet", "shard.json"]
    local = shard(Lake(Path(copy_of(lake.root)).parent / "local"), "ab12")
    assert [file.digest for file in made.files] == [file.digest for file in local.files]
    assert find_shard(lake.shard_folder("ingest", "ab12")) == ShardResult(**{**made.__dict__, "state": "found"})
    assert find_shard(lake.shard_folder("ingest", "none")) is None


def test_an_exception_leaves_nothing_in_the_store(lake: Lake) -> None:
    folder = lake.shard_folder("ingest", "cd34")

    def fail() -> None:
        with ShardWriter(folder, "x", "cd34", {"raw": ROWS}):
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert not folder.exists()


def test_another_machine_reads_what_was_committed(lake: Lake, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    ref = raw(lake)
    another_machine(monkeypatch, tmp_path)
    there = Lake(str(lake.root))
    assert there.present(ref)
    [path] = there.files(ref)
    assert read_metadata(path).num_rows == 3
    assert read_schema(path).names == ["id", "text"]
    assert dataset([path]).to_table(columns=["id"])["id"].to_pylist() == [0, 1, 2]
    assert read_table(path, ["id"])["id"].to_pylist() == [0, 1, 2]
    assert not copy_of(place(path)).exists()  # a column of it is no reason to fetch the file
    with open_parquet(path) as file:
        assert file.read().num_rows == 3
    assert copy_of(place(path)).is_file()
    assert sum(batch.num_rows for batch in read_batches(path)) == 3
    [row] = there.catalog.load_table("demo.raw").scan().to_arrow().to_pylist()[:1]
    assert row == {"id": 0, "text": "text 0"}


def test_sql_reads_the_store_and_nothing_else(lake: Lake, tmp_path: Path) -> None:
    ref = lake.commit("demo.things", ROWS, shard(lake, "ab12").files, "f" * 64)
    report = StageReport(stage="ingest", state="ran", seconds=1, fingerprint="f" * 64, outputs={"things": ref})
    write_manifest(
        lake, Manifest(run="run", corpus="demo", recipe={}, started=NOW, finished=NOW, until="ingest", stages=[report])
    )
    assert [one.run for one in manifests(lake)] == ["run"]
    other_name = Lake(str(lake.root).replace("s3://", "s3a://"))
    for same in (lake, other_name):
        assert query(same, "SELECT count(*), max(text) FROM demo.things")[1] == [(3, "text 2")]
    (tmp_path / "secret.csv").write_text("a\n1\n")
    for elsewhere in (f"{tmp_path}/secret.csv", f"s3://{BUCKET}/other.csv"):
        with pytest.raises(UserError, match="reads the lake's tables alone"):
            query(lake, f"SELECT * FROM read_csv('{elsewhere}')")


def test_rows_that_every_stage_appends_are_found(lake: Lake) -> None:
    for name in ("one", "two"):
        row = dict.fromkeys(TAGS.names) | {"tag": name, "created": NOW}
        lake.append_rows("models.tags", TAGS, [row], name)
    files = lake.current_files("models.tags")
    assert sorted(row["tag"] for path in files for row in read_table(path).to_pylist()) == ["one", "two"]
    assert lake.catalog.load_table("models.tags").scan().to_arrow().num_rows == 2


def test_what_is_gone_or_damaged_in_the_store_is_told(
    lake: Lake, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    ref = raw(lake)
    [path] = lake.files(ref)
    whole = place(path).read_bytes()
    place(path).write_bytes(whole[::-1])
    assert [one for one in lake.damaged_files() if "isn't what was written" in one]
    another_machine(monkeypatch, tmp_path)
    with pytest.raises(LostDataError, match="isn't what was written"):
        list(read_batches(path))
    assert find_shard(place(path).parent) is None  # so its stage makes it again
    assert "No such file" in lake.trouble(ref)


@pytest.mark.parametrize("prefix", ["", "a b/文 +%20#1;{x}", "x//y"])
def test_a_lake_may_have_any_prefix(
    s3_server: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, prefix: str
) -> None:
    """Of a bucket that holds other lakes as well, some of whose names begin alike."""
    monkeypatch.setenv("HEADWATER_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("HEADWATER_CATALOG", f"sqlite:///{tmp_path}/catalog.db")
    store = s3_server.client()
    name = f"odd-{tmp_path.name.replace('_', '-')}"
    for bucket_name in (name, f"{name}-2"):
        store.create_bucket(Bucket=bucket_name)
    lake = Lake(f"s3://{name}/{prefix}").create()
    ref = raw(lake)
    with lake.lease("f" * 64):
        assert lake.running() == {"f" * 32: ""}
    assert lake.present(ref)
    assert lake.files(ref) == lake.current_files("demo.raw")
    assert list(lake.damaged_files()) == []
    assert Lake(lake.root).catalog.load_table("demo.raw").scan().to_arrow().num_rows == 3
    inside = prefix.rstrip("/") + "/" if prefix else ""
    keys = [one["Key"] for one in store.list_objects_v2(Bucket=name)["Contents"]]
    assert all(key.startswith(inside) for key in keys)
    assert f"{inside}shards/ingest/ab/ab12/shard.json" in keys
    later = time.time() + 40 * 86_400
    monkeypatch.setattr("datalake.lake.upkeep.maintain.time.time", lambda: later)
    assert {one.kind for one in maintain(lake).found} == {"lists"}  # no record of this test's names it


def test_folders_that_a_console_made_are_no_files(
    lake: Lake, s3_server: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, prefix = s3_server.client(), str(lake.root).removeprefix(f"s3://{BUCKET}/")
    rooms = (
        "shards/ingest/ab/ab12",
        "contents/demo.raw",
        "runs",
        "records",
        "leases",
        "states",
        "results",
        "warehouse",
    )
    for room in (*rooms, "folders/sft/ab", "folders/sft/ab/sub"):
        parts = room.split("/")
        for length in range(len(parts) + 1):
            store.put_object(Bucket=BUCKET, Key="/".join([prefix, *parts[:length], ""]), Body=b"")
    ref = raw(lake)
    assert lake.present(ref)
    assert manifests(lake) == []
    assert list(lake.damaged_files()) == []
    folder = lake.folder("sft", "ab")
    with whole_folder(folder) as part:
        (part / "sub").mkdir()
        (part / "sub" / "weights").write_bytes(b"1")
    store.put_object(Bucket=BUCKET, Key=f"{prefix}/folders/sft/ab/sub/", Body=b"")
    with workplace(folder) as here:
        assert (here / "sub" / "weights").read_bytes() == b"1"
    assert list(folder_list(folder) or {}) == ["sub/weights"]
    later = time.time() + 40 * 86_400
    monkeypatch.setattr("datalake.lake.upkeep.maintain.time.time", lambda: later)
    assert [one.path for one in maintain(lake, abandoned=True).found if one.kind != "lists"] == ["folders/sft/ab"]


def test_a_catalog_that_holds_another_lakes_tables_is_refused(lake: Lake, s3_server: S3Server) -> None:
    raw(lake)
    other = Lake(f"{lake.root}-other").create()
    with pytest.raises(UserError, match="of another lake"):
        raw(other)


def test_a_machines_own_catalog_is_made_anew_from_the_lake(
    lake: Lake, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("HEADWATER_CATALOG")
    raw(Lake(lake.root))
    another_machine(monkeypatch, tmp_path)
    assert Lake(lake.root).catalog.load_table("demo.raw").scan().to_arrow().num_rows == 3


# Leases --------------------------------------------------------------------------------------------------------------


def both(lake: Lake, url: str) -> tuple[AbstractContextManager[bool], threading.Event, AbstractContextManager[bool]]:
    waiting = threading.Event()
    return lease(lake.root, url, "name"), waiting, lease(lake.root, url, "name", waiting.set)


@pytest.fixture(scope="module")
def pooled(database: Postgres) -> Iterator[str]:
    with pooler(database) as url:
        yield url


@pytest.fixture(params=["object", "transaction", "pooled"])
def catalog(request: pytest.FixtureRequest) -> str:
    """Of a lease that is an object; that PostgreSQL holds; that it holds behind a pooler of transactions."""
    match request.param:
        case "object":
            return ""
        case "pooled":
            return str(request.getfixturevalue("pooled"))
        case _:
            return str(request.getfixturevalue("database").url)


def test_a_lease_has_one_holder_and_the_next_gets_it_when_it_is_given_back(lake: Lake, catalog: str) -> None:
    first, waiting, second = both(lake, catalog)
    got: list[bool] = []

    def take() -> None:
        with second as waited:
            got.append(waited)

    with first as waited, lease(lake.root, catalog, "another name"):
        assert not waited
        assert leases.held(lake.root, catalog) == {"name", "another name"}
        thread = threading.Thread(target=take)
        thread.start()
        assert waiting.wait(60)
        assert not got
    thread.join(60)
    assert got == [True]
    assert leases.held(lake.root, catalog) == set()


HOLD = """
import sys, time
from datalake.lake.leases import lease
from datalake.places import place
with lease(place(sys.argv[1]), sys.argv[2], "name"):
    print("held", flush=True)
    time.sleep(600)
"""


def test_a_lease_ends_with_a_holder_that_is_killed(lake: Lake, catalog: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leases, "GONE_S", 2.0)
    holder = subprocess.Popen([sys.executable, "-c", HOLD, str(lake.root), catalog], stdout=subprocess.PIPE, text=True)
    assert holder.stdout is not None
    assert holder.stdout.readline() == "held\n"
    holder.kill()
    holder.wait()
    with lease(lake.root, catalog, "name"):
        pass


def test_an_object_that_is_written_anew_keeps_its_holder(lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leases, "GONE_S", 1.0)
    monkeypatch.setattr(leases, "BEAT_S", 0.1)
    first, waiting, second = both(lake, "")
    got = threading.Event()

    def take() -> None:
        with second:
            got.set()

    with first:
        thread = threading.Thread(target=take)
        thread.start()
        assert waiting.wait(60)
        assert not got.wait(3)  # three times as long as one without a holder would be left alone
    thread.join(60)
    assert got.is_set()


def test_of_two_who_take_over_an_object_one_does(lake: Lake) -> None:
    path = lake.root / "leases" / "name.json"
    path.write_bytes(b"{}")
    seen = tag(path)
    assert [write_over(path, name, seen) for name in (b"one", b"two")] == [True, False]
    assert path.read_bytes() == b"one"


# Faults --------------------------------------------------------------------------------------------------------------


def test_what_keeps_a_lake_from_being_reached_is_one_line(
    lake: Lake, monkeypatch: pytest.MonkeyPatch, s3_server: S3Server
) -> None:
    from s3fs import S3FileSystem

    with pytest.raises(UserError, match="there is no bucket nowhere: make it, or correct --lake"):
        Lake("s3://nowhere/x").create()
    with pytest.raises(UserError, match="no lake at"):
        Lake(f"s3://{BUCKET}/nothing").require()
    with pytest.raises(UserError, match="install fsspec's package"):
        Lake("gs://bucket/x").create()
    for code, message, said in (
        ("ExpiredToken", "The provided token has expired.", "token has expired.*log in again"),
        ("AccessDenied", "Access Denied", "correct the credentials"),
        ("RequestTimeTooSkewed", "The difference between the request time and the server's is too large.", "clock is"),
    ):
        monkeypatch.setattr(s3_server, "fault", ("403 Forbidden", code, message))
        with pytest.raises(UserError, match=said):
            lake.create()
    monkeypatch.setattr(s3_server, "fault", None)
    S3FileSystem.clear_instance_cache()
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/nowhere")
    monkeypatch.setenv("AWS_CONFIG_FILE", "/nowhere")
    with pytest.raises(UserError, match="no credentials: set AWS_ACCESS_KEY_ID"):
        lake.create()
    S3FileSystem.clear_instance_cache()


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("AWS_ENDPOINT_URL", "127.0.0.1:9000", "write AWS_ENDPOINT_URL as https://HOST"),
        ("AWS_ENDPOINT_URL", "https://{host}", "correct AWS_ENDPOINT_URL"),
        ("AWS_ENDPOINT_URL", "{url}/with/a/path", "there is no bucket lake"),
        ("AWS_PROFILE", "nobody", "correct AWS_PROFILE"),
        ("AWS_ENDPOINT_URL", "{url}/", ""),
        ("AWS_ENDPOINT_URL", " {url}", ""),
        ("AWS_ENDPOINT_URL_S3", "{url}", ""),
    ],
)
def test_a_variable_that_is_wrong_is_named(
    lake: Lake, monkeypatch: pytest.MonkeyPatch, s3_server: S3Server, name: str, value: str, said: str
) -> None:
    from s3fs import S3FileSystem

    if name != "AWS_PROFILE":
        monkeypatch.delenv("AWS_ENDPOINT_URL")
    monkeypatch.setenv(name, value.format(url=s3_server.url, host=s3_server.url.removeprefix("http://")))
    S3FileSystem.clear_instance_cache()
    try:
        with pytest.raises(UserError, match=said) if said else nullcontext():
            lake.create()
    finally:
        S3FileSystem.clear_instance_cache()


def test_a_mark_that_is_cut_is_told(lake: Lake) -> None:
    for cut in ("", "{", "[]", "{}", '{"format": null}'):
        (lake.root / "lake.json").write_text(cut)
        with pytest.raises(UserError, match=r"lake\.json can't be read"):
            lake.require()


def test_a_store_that_says_slow_down_for_a_while_is_asked_again(lake: Lake, s3_server: S3Server) -> None:
    s3_server.slow = 3
    made = shard(lake, "ee55")
    assert s3_server.slow == 0
    assert find_shard(lake.shard_folder("ingest", "ee55")) is not None
    assert made.files[0].rows == 3


def test_a_lake_of_a_later_format_is_left_alone(lake: Lake) -> None:
    (lake.root / "lake.json").write_text('{"format": 2}')
    for look in (lake.create, lake.require):
        with pytest.raises(UserError, match="a later Headwater made"):
            look()


def test_commits_outlive_a_database_that_is_started_again(
    lake: Lake, database: Postgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HEADWATER_CATALOG", database.url)
    there = Lake(lake.root)
    raw(there)
    held = threading.Event()
    over = threading.Event()

    def hold() -> None:
        with there.lease("f" * 64):
            held.set()
            over.wait(60)

    thread = threading.Thread(target=hold)
    thread.start()
    assert held.wait(60)
    database.stop()
    started = threading.Thread(target=database.start)
    started.start()
    with there.lease("e" * 64):  # waits for the database
        ref = there.commit("demo.more", ROWS, shard(there, "cc33").files, "e" * 64)
    started.join()
    over.set()
    thread.join(60)  # its session is gone, and it ends all the same
    assert not thread.is_alive()
    assert Lake(lake.root).catalog.load_table("demo.more").current_snapshot() is not None
    assert ref.rows == 3


def test_two_drivers_commit_to_one_table_at_once(
    lake: Lake, database: Postgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HEADWATER_CATALOG", database.url)
    results = [shard(lake, key) for key in ("aa01", "aa02", "aa03")]
    errors: list[BaseException] = []

    def commit(number: int) -> None:
        try:
            Lake(lake.root).commit("both.raw", ROWS, results[number].files, f"{number}" * 64)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=commit, args=(number,)) for number in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    assert not errors
    assert Lake(lake.root).catalog.load_table("both.raw").scan().to_arrow().num_rows == 3


def test_copies_may_be_removed_at_any_time(lake: Lake) -> None:
    ref = raw(lake)
    [path] = lake.files(ref)
    digest = file_digest(str(copy_of(place(path))))
    shutil.rmtree(copy_of(lake.root))
    assert sum(batch.num_rows for batch in read_batches(path)) == 3
    assert file_digest(str(copy_of(place(path)))) == digest
    wait_until(lambda: lake.present(ref))


def test_upkeep_of_a_lake_in_a_store_keeps_what_is_named(lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    row = {"path": "folders/sft/ab", "record": "records/ab.json", "corpus": "c", "ancestors": [], "created": NOW}
    lake.append_rows("models.checkpoints", CHECKPOINTS, [row | {"fingerprint": "ab" * 32, "stage": "sft"}], "ab" * 32)
    folder = lake.shard_folder("ingest", "cd34")
    (folder / "part.parquet").write_bytes(b"cut")  # never finished
    assert maintain(lake).found == []  # it is young
    later = time.time() + 40 * 86_400
    monkeypatch.setattr("datalake.lake.upkeep.maintain.time.time", lambda: later)
    assert [one.path for one in maintain(lake, apply=True).removed] == [lake.relative(folder)]
    assert not folder.exists()
    assert maintain(lake).found == []
    (kept,) = lake.current_files("models.checkpoints")
    assert read_table(kept).num_rows == 1
