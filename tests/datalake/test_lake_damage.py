"""Damage inside a lake and lakes that strangers made: never other data without a word, never code or other files."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pydantic import ValidationError
from test_lake_places import SCHEMA, commit, filled, finish

from datalake.errors import LostDataError, UserError
from datalake.lake.lake import FolderRef, Lake, TableRef
from datalake.lake.ledger import query
from datalake.lake.parquet import dataset, read_batches, read_metadata, read_table
from datalake.lake.records import find_manifest, manifests, read_record
from datalake.lake.shards import ShardWriter, find_shard


def test_no_flipped_bit_is_read_as_other_data(tmp_path: Path) -> None:
    """Wherever it is: pages, their headers, statistics, the footer, which checksums of pages say nothing of."""
    lake = Lake(tmp_path / "lake").create()
    folder = lake.shard_folder("ingest", "one")
    rng = random.Random(0)
    table = pa.table({"n": [rng.randrange(10**6) for _ in range(2000)], "language": ["en", "zh"] * 1000}, schema=SCHEMA)
    with ShardWriter(folder, "one", "one", {"numbers": SCHEMA}) as out:
        out.write("numbers", table)
    path = Path(out.result.files[0].path)
    whole = path.read_bytes()
    for _ in range(200):
        place = rng.randrange(len(whole))
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1 << rng.randrange(8)]) + whole[place + 1 :])
        for read in (read_table, read_metadata, lambda path: list(read_batches(path))):
            if not path.exists():
                path.with_name("numbers.parquet.damaged").rename(path)
            with pytest.raises(LostDataError, match="isn't what was written"):
                read(path)
        assert find_shard(folder) is None, "it is made anew"
    path.write_bytes(whole)
    assert read_table(path).equals(table)


def test_pages_have_checksums_and_whoever_looks_at_little_checks_them(tmp_path: Path) -> None:
    lake = Lake(tmp_path / "lake").create()
    [path] = lake.files(commit(lake, list(range(3000)), "one"))
    whole = Path(path).read_bytes()
    found = pq.read_metadata(path).row_group(0).column(0)
    place = found.data_page_offset + found.total_compressed_size // 2
    Path(path).write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
    with pytest.raises(OSError, match=r"(?i)crc|checksum|integrity|corrupt"):
        dataset([path]).to_table()


def test_a_look_at_all_digests_names_what_is_damaged(tmp_path: Path) -> None:
    lake, old, _ = filled(tmp_path / "lake")
    assert list(lake.damaged_files()) == []
    flipped, cut = lake.files(old)
    whole = Path(flipped).read_bytes()
    Path(flipped).write_bytes(whole[:-1] + b"2")
    Path(cut).write_bytes(Path(cut).read_bytes()[:-1])
    mark = next((lake.root / "shards" / "runs.metrics").rglob("shard.json"))
    mark.write_text("{")
    told = sorted(lake.damaged_files())
    assert len(told) == 3
    assert any(f"{flipped} isn't what was written" in line for line in told)
    assert any(line.startswith(f"{cut} has") for line in told)
    assert any(line.startswith(f"{mark} can't be read") for line in told)


@pytest.mark.parametrize("damage", [b"", b"{", b"\xff\xfe", b"[]", b'{"run": 1}'])
def test_a_manifest_that_cannot_be_read_hides_no_other(
    tmp_path: Path, damage: bytes, capsys: pytest.CaptureFixture[str]
) -> None:
    lake, _, _ = filled(tmp_path / "lake")
    (lake.root / "runs" / "second.json").write_bytes(damage)
    assert [manifest.run for manifest in manifests(lake)] == ["first"]
    assert query(lake, "SELECT count(*) FROM demo.numbers")[1] == [(3,)]
    told = capsys.readouterr().err.splitlines()
    assert len(told) == 1
    assert "second.json can't be read" in told[0]


def test_a_corpus_whose_tables_are_gone_hides_no_other(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lake, _, new = filled(tmp_path / "lake")
    body = json.loads((lake.root / "runs" / "first.json").read_bytes())
    (lake.root / "runs" / "other.json").write_text(json.dumps(body | {"run": "other", "corpus": "other"}))
    finish(lake, "last", numbers=new)
    Path(lake.files(find_manifest(lake, "first").refs["numbers"])[0]).unlink()  # type: ignore[arg-type]
    assert query(lake, "SELECT count(*) FROM demo.numbers")[1] == [(1,)]
    assert "tables of run other are gone or damaged" in capsys.readouterr().err
    with pytest.raises(UserError, match="tables of run other are gone or damaged"):
        query(lake, "SELECT 1", run="other")


def test_a_document_is_explained_by_the_corpora_that_are_whole(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from datalake.explain import explain

    lake, _, _ = filled(tmp_path / "lake")
    body = json.loads((lake.root / "runs" / "first.json").read_bytes())
    body["stages"][0]["outputs"]["numbers"] |= {"fingerprint": "gone", "snapshot": 1}
    (lake.root / "runs" / "other.json").write_text(json.dumps(body | {"run": "other", "corpus": "other"}))
    with pytest.raises(UserError, match="tables of run other are gone or damaged"):
        explain(lake, "http://x.example")
    assert "tables of run other" in capsys.readouterr().err


# Lakes that strangers made ------------------------------------------------------------------------------------------


def forged(lake: Lake, **changes: Any) -> None:
    path = lake.root / "runs" / "first.json"
    body = json.loads(path.read_bytes())
    for name, value in changes.items():
        if name in body:
            body[name] = value
        elif name == "output":
            body["stages"][0]["outputs"] = {value: body["stages"][0]["outputs"]["numbers"]}
        else:
            body["stages"][0]["outputs"]["numbers"][name] = value
    path.write_text(json.dumps(body))


@pytest.mark.parametrize("place", ["corpus", "output", "table", "fingerprint", "data_version", "run"])
def test_names_of_a_manifest_are_identifiers_and_no_sql_nor_paths(
    tmp_path: Path, place: str, capsys: pytest.CaptureFixture[str]
) -> None:
    for attack in (f"x\"; COPY (SELECT 1) TO '{tmp_path}/out'; --", "../../etc/passwd", "/etc/passwd", "a b", ""):
        lake, _, _ = filled(tmp_path / f"lake{abs(hash(attack))}")
        forged(lake, **{place: f"demo.{attack}" if place == "table" else attack})
        assert manifests(lake) == []
        assert "first.json can't be read" in capsys.readouterr().err
        query(lake, "SELECT 1")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("path", ["/etc", "../outside", "folders/../../outside", "a\0b"])
def test_paths_of_records_do_not_leave_the_lake(tmp_path: Path, path: str) -> None:
    with pytest.raises(ValidationError):
        FolderRef(name="sft", path=path, fingerprint="f", data_version="d")
    with pytest.raises(UserError, match="leads out of the lake"):
        Lake(tmp_path).inside(path)


def test_files_that_lists_and_shards_name_lie_in_the_lake(tmp_path: Path) -> None:
    lake, old, _ = filled(tmp_path / "lake")
    outside = tmp_path / "secret.parquet"
    pq.write_table(pa.table({"n": [1, 2, 3], "language": ["x"] * 3}, schema=SCHEMA), outside)
    for path in (lake.root / "contents").rglob("old-*.json"):
        body = json.loads(path.read_bytes())
        for file in body["files"]:
            file["path"] = "../secret.parquet"
        path.write_text(json.dumps(body))
    (lake.root / "catalog.db").unlink()
    assert not Lake(lake.root).present(old)
    folder = lake.shard_folder("ingest", "new-0")
    mark = json.loads((folder / "shard.json").read_bytes())
    mark["files"][0] |= {"path": str(outside), "bytes": outside.stat().st_size}
    (folder / "shard.json").write_text(json.dumps(mark))
    assert find_shard(folder) is None


ATTACKS = [
    "COPY (SELECT 1) TO '{out}'",
    "EXPLAIN ANALYZE COPY (SELECT 1) TO '{out}'",
    "PREPARE p AS COPY (SELECT 1) TO '{out}'; EXECUTE p",
    "EXPORT DATABASE '{out}'",
    "ATTACH '{out}'",
    "SELECT * FROM read_csv('/etc/passwd', header = false)",
    "SELECT * FROM read_text('{lake}/shards/../runs/first.json')",
    "SELECT * FROM glob('/etc/*')",
    "SELECT * FROM '/etc/passwd'",
    "SET enable_external_access = true",
    "SET allowed_directories = ['/']",
    "INSTALL httpfs",
    "LOAD '{out}'",
    "COPY (SELECT 1) TO '{lake}/shards/x.csv'",
    "EXPLAIN ANALYZE COPY (SELECT 1) TO '{lake}/shards/x.csv'",
    "ATTACH '{lake}/shards/x.db'",
]


@pytest.mark.parametrize("attack", ATTACKS)
def test_a_query_reads_the_lakes_tables_and_no_other_file(tmp_path: Path, attack: str) -> None:
    lake, _, _ = filled(tmp_path / "lake")
    out = tmp_path / "out"
    before = set(tmp_path.rglob("*"))
    with pytest.raises(UserError, match="the query failed") as error:
        query(lake, attack.format(out=out, lake=lake.root))
    assert "\n" not in str(error.value)
    assert set(tmp_path.rglob("*")) == before


def test_whoever_asks_for_it_may_write_and_join_files(tmp_path: Path) -> None:
    lake, _, _ = filled(tmp_path / "lake")
    out = tmp_path / "out.csv"
    with pytest.raises(UserError, match="give --allow-files"):
        query(lake, f"COPY demo.numbers TO '{out}'")
    query(lake, f"COPY demo.numbers TO '{out}'", allow_files=True)
    assert query(lake, f"SELECT sum(n) FROM read_csv('{out}')", allow_files=True)[1] == [(6,)]


def test_a_record_that_is_forged_or_cut_is_none(tmp_path: Path) -> None:
    lake = Lake(tmp_path / "lake").create()
    (lake.root / "records").mkdir()
    for body in (b"", b"{", b'{"stage": "ingest"}', b"\xff"):
        (lake.root / "records" / "f.json").write_bytes(body)
        assert read_record(lake, "f") is None
    (lake.root / "records" / "f.json").unlink()
    (lake.root / "records" / "f.json").mkdir()
    assert read_record(lake, "f") is None


def test_a_reference_with_rows_is_checked_against_its_list(tmp_path: Path) -> None:
    lake = Lake(tmp_path / "lake").create()
    ref = commit(lake, [1, 2], "one")
    (lake.root / "catalog.db").unlink()
    for wrong in ({"rows": 5}, {"table": "demo.other"}, {"fingerprint": "two"}):
        assert not lake.present(TableRef(**{**ref.model_dump(), **wrong}))
