"""Small files that unpack to large ones: what they cost is bounded by their size, and what is left out is told.

The allowance is made small here, so that what is tested is that it holds, not how long 256 MiB take.
"""

from __future__ import annotations

import bz2
import gzip
import io
import json
import lzma
import random
import struct
import tarfile
import zipfile
from pathlib import Path

import py7zr
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard
from test_archives import zstd
from test_common_crawl import record, response
from test_poison import TEXT, dump, page, read, taken

from datalake.document import Document, Entry, Passed, Quarantined, Refused
from datalake.formats import allowance, multistream
from datalake.formats.allowance import BOMB, Allowance, BombError
from datalake.formats.http import BodyError, BodyTooLargeError, decode_body
from datalake.formats.streams import decompressed
from datalake.origin import Origin

FREE = 1 << 20
LARGE = 8 << 20


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(allowance, "FREE", FREE)
    monkeypatch.setattr(allowance, "RATIO", 10)


def reasons(found: list[Entry]) -> list[str]:
    return [entry.reason for entry in found if isinstance(entry, Quarantined)]


def test_an_allowance_ends_once_and_for_all() -> None:
    left = Allowance(100)
    left.take(FREE + 1_000)
    for _ in range(2):
        with pytest.raises(BombError, match="100 bytes unpack to more than 1049576"):
            left.take(1)


PACKERS = {
    "gz": gzip.compress,
    "bz2": bz2.compress,
    "xz": lzma.compress,
    "zst": zstandard.ZstdCompressor().compress,
}


@pytest.mark.parametrize("kind", PACKERS)
def test_a_stream_is_read_up_to_its_allowance(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "file"
    path.write_bytes(PACKERS[kind](bytes(LARGE)))  # type: ignore[operator]
    found = list(decompressed(path, Origin("s", "s", "file")))
    done = sum(len(one) for one in found if isinstance(one, bytes))
    assert done <= FREE + 10 * path.stat().st_size
    last = found[-1]
    assert isinstance(last, Quarantined)
    assert (last.reason, last.offset) == (BOMB, 0)
    assert "unpack to more than" in last.detail


@pytest.mark.parametrize("kind", PACKERS)
def test_rows_before_a_bomb_are_read(tmp_path: Path, kind: str) -> None:
    good = json.dumps({"text": TEXT}).encode() + b"\n"
    path = tmp_path / f"rows.jsonl.{kind}"
    path.write_bytes(PACKERS[kind](good + bytes(LARGE)))  # type: ignore[operator]
    found = read("table", path)
    assert len(taken(found)) == (0 if kind == "zst" else 1)  # of that the next 512 bytes come at once
    assert BOMB in reasons(found)


@pytest.mark.parametrize("kind", ["bz2", "gz", "7z"])
def test_pages_before_a_bomb_are_read(tmp_path: Path, kind: str) -> None:
    plain = dump(tmp_path, page("Odd", "x" * LARGE)).read_bytes()
    path = tmp_path / f"dump.xml.{kind}"
    if kind == "7z":
        with py7zr.SevenZipFile(path, "w") as archive:
            archive.writestr(plain, "dump.xml")
    else:
        path.write_bytes(PACKERS[kind](plain))  # type: ignore[operator]
    found = read("wikipedia", path)
    assert [entry.attributes["title"] for entry in taken(found)] in (["First"], [])  # 7z is decoded at once
    assert BOMB in reasons(found)


def test_streams_of_a_multistream_share_an_allowance(tmp_path: Path) -> None:
    path = tmp_path / "many.bz2"
    path.write_bytes(bz2.compress(bytes(FREE // 2)) * 20)
    found = list(multistream.streams(path, None, Origin("s", "s", "many")))
    assert sum(len(one) for one in found if isinstance(one, bytes)) <= FREE + 10 * path.stat().st_size
    assert isinstance(found[-1], Quarantined)
    assert found[-1].reason == BOMB


@pytest.mark.parametrize("method", [zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_files_of_a_zip_share_an_allowance(tmp_path: Path, method: int) -> None:
    for kind, ending, text in (("code", "py", "x = 1\n"), ("table", "jsonl", json.dumps({"text": TEXT}))):
        path = tmp_path / f"{kind}.zip"
        with zipfile.ZipFile(path, "w", method) as archive:
            archive.writestr(f"good.{ending}", text)
            for number in range(4):
                archive.writestr(f"{number}.{ending}", bytes(1 << 20))
        found = read(kind, path)
        assert len(taken(found)) == 1
        assert BOMB in reasons(found)


def overlapping(path: Path, members: int) -> Path:
    """Every member of a zip is the same bytes."""
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.py", "x = 1\n" * 10)
    raw = data.getvalue()
    directory, end = raw.index(b"PK\x01\x02"), raw.index(b"PK\x05\x06")
    entry = raw[directory:end]
    tail = struct.pack("<4sHHHHIIH", b"PK\x05\x06", 0, 0, members, members, len(entry) * members, directory, 0)
    file = path / "overlap.zip"
    file.write_bytes(raw[:directory] + entry * members + tail)
    return file


def test_files_of_a_zip_that_share_bytes_are_read_once(tmp_path: Path) -> None:
    found = read("code", overlapping(tmp_path, 5_000))
    assert len(taken(found)) == 1
    assert reasons(found) == ["overlap"] * 4_999
    told = read("table", overlapping(tmp_path, 5))
    assert reasons(told) == ["overlap"] * 4


def test_files_of_a_zip_in_any_order_are_no_overlap(tmp_path: Path) -> None:
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        for number in range(5):
            archive.writestr(f"{number}.py", f"x = {number}\n" * (number + 1))
        archive.filelist.reverse()
    found = read("code", path)
    assert [type(entry) for entry in found] == [Document] * 5


def test_zips_within_zips_share_an_allowance(tmp_path: Path) -> None:
    content = json.dumps({"text": "x" * 400_000}).encode()
    for depth in range(3):
        data = io.BytesIO()
        with zipfile.ZipFile(data, "w", zipfile.ZIP_DEFLATED) as archive:
            for number in range(4):
                archive.writestr(f"{number}.{'zip' if depth else 'jsonl'}", content)
        content = data.getvalue()
    path = tmp_path / "a.zip"
    path.write_bytes(content)
    found = read("table", path)
    assert 1 <= len(taken(found)) < 10
    assert BOMB in reasons(found)


@pytest.mark.parametrize("kind", ["gz", "bz2", "xz"])
def test_what_is_passed_over_in_a_tar_counts(tmp_path: Path, kind: str) -> None:
    path = tmp_path / f"a.tar.{kind}"
    with tarfile.open(path, f"w:{kind}") as archive:  # type: ignore[call-overload]
        for name, size in (("good.py", 6), ("huge.bin", LARGE), ("last.py", 6)):
            info = tarfile.TarInfo(name)
            info.size = size
            archive.addfile(info, io.BytesIO(b"x = 1\n" if size == 6 else bytes(size)))
    found = read("code", path)
    assert [entry.attributes["path"] for entry in taken(found)] == ["good.py"]
    assert reasons(found) == [BOMB]


def test_rows_that_a_dictionary_repeats_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(allowance, "FREE", 20 << 20)
    path = tmp_path / "a.parquet"
    column = pa.DictionaryArray.from_arrays(pa.array([0] * 50_000, pa.int32()), pa.array(["a" * 100_000]))
    pq.write_table(pa.table({"text": column}), path, compression="zstd")
    found = read("table", path)
    assert 1 <= len(taken(found)) <= 200
    (bomb,) = (entry for entry in found if isinstance(entry, Quarantined))
    assert bomb.reason == BOMB
    assert bomb.offset + bomb.length == 50_000
    assert len(found) - 1 == bomb.offset


def test_rows_that_run_lengths_repeat_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(allowance, "FREE", 1 << 16)
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"n": pa.array([1] * 500_000)}), path, compression="zstd")
    found = read("table", path)
    assert len(found) < 20_000
    assert BOMB in reasons(found)


def test_a_list_that_a_row_repeats_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"text": ["river"], "n": [[1] * 1_000_000]}), path, compression="zstd")
    assert reasons(read("table", path)) == [BOMB]


def test_frames_of_a_crawl_share_an_allowance(tmp_path: Path) -> None:
    good = record("response", response(f"<p>{TEXT}</p>".encode()), "http://good.example/")
    big = record("response", response(bytes(FREE - 1_000)), "http://big.example/")
    path = tmp_path / "a.warc.zst"
    path.write_bytes(zstd(good) + zstd(big) * 40)
    found = read("common_crawl", path)
    assert [entry.uri for entry in taken(found)] == ["http://good.example/"]
    assert reasons(found)
    assert set(reasons(found)) == {"too_large"}


def test_a_body_of_many_encodings_is_bounded() -> None:
    body = b"<p>river</p>"
    for _ in range(8):
        body = gzip.compress(body)
    assert decode_body(body, [], ["gzip, " * 7 + "gzip"], 1 << 20) == b"<p>river</p>"
    with pytest.raises(BodyError, match="more than 8 times"):
        decode_body(gzip.compress(body), [], ["gzip, " * 8 + "gzip"], 1 << 20)
    with pytest.raises(BodyTooLargeError):
        decode_body(gzip.compress(bytes(LARGE)), [], ["gzip"], 1 << 20)


def test_members_of_a_body_are_joined_and_what_follows_them_is_left() -> None:
    body = b"".join(gzip.compress(b"%d " % number) for number in range(1_000))
    whole = b"".join(b"%d " % number for number in range(1_000))
    assert decode_body(body, [], ["gzip"], 1 << 20) == whole
    assert decode_body(body + b"behind", [], ["gzip"], 1 << 20) == whole
    assert decode_body(body + b"\x1f\x8bbehind", [], ["gzip"], 1 << 20) == whole
    with pytest.raises(BodyError):
        decode_body(gzip.compress(random.Random(1).randbytes(5_000))[:900], [], ["gzip"], 1 << 20)


def test_rows_and_pages_beyond_the_limit_are_one_entry(tmp_path: Path) -> None:
    rows = tmp_path / "a.csv"
    rows.write_bytes(b"text,n\nriver,1\n" + b'"' + b"x" * (3 << 20) + b'",2\nbridge,3\n')
    found = read("table", rows, max_bytes=1 << 17)
    assert [type(entry) for entry in found] == [Document, Quarantined, Document]
    pages = read("wikipedia", dump(tmp_path, page("Odd", "x" * (3 << 20))), max_bytes=1 << 17)
    assert [type(entry) for entry in pages if not isinstance(entry, Passed)] == [Document, Quarantined, Document]
    nested = read("wikipedia", dump(tmp_path, f"<page>{'<a>' * 20_000}{'</a>' * 20_000}</page>"))
    assert len(taken(nested)) == 2
    assert not any(isinstance(entry, Refused) for entry in nested)
