"""Rows of JSON, CSV and Parquet: as the libraries read them, damaged or not, in bounded memory."""

from __future__ import annotations

import csv
import gzip
import io
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from datalake.document import Quarantined
from datalake.formats.rows.csv import csv_rows
from datalake.formats.rows.json import Row, json_rows, rows_of_json, split_lines
from datalake.formats.rows.parquet import parquet_rows
from datalake.origin import Origin

ORIGIN = Origin("s", "s", "a")
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner, max_size=4),
    max_leaves=8,
)


def pieces(content: bytes, size: int) -> Iterator[bytes | Quarantined]:
    return iter([content[place : place + size] for place in range(0, len(content), size)])


def read(content: bytes, size: int = 7, longest: int = 1_000) -> list[Row | Quarantined]:
    return list(rows_of_json(pieces(content, size), ORIGIN, longest))


def brief(found: list[Row | Quarantined]) -> list[Any]:
    """Values of rows, reasons of spans."""
    return [entry.reason if isinstance(entry, Quarantined) else entry.value for entry in found]


def values(content: bytes, size: int = 7, longest: int = 1_000) -> list[Any]:
    return brief(read(content, size, longest))


@given(st.lists(VALUES, max_size=6), st.sampled_from([None, 1]), st.integers(1, 40), st.booleans())
def test_an_array_is_read_as_json_reads_it(rows: list[Any], indent: int | None, size: int, ascii: bool) -> None:
    text = json.dumps(rows, indent=indent, ensure_ascii=ascii)
    try:
        content = text.encode("utf-8")
    except UnicodeEncodeError:
        return
    found = read(content, size, 1 << 20)
    assert brief(found) == rows
    for row in found:  # each says where it lies
        assert json.loads(content[row.offset : row.offset + row.length]) == row.value  # type: ignore[union-attr]


@given(st.lists(st.dictionaries(st.text(max_size=4), VALUES, max_size=4), max_size=6), st.integers(1, 40))
def test_lines_are_read_as_json_reads_them(rows: list[Any], size: int) -> None:
    content = "".join(f"{json.dumps(row)}\r\n" for row in rows).encode()
    found = read(content, size, 1 << 20)
    assert brief(found) == rows
    for row in found:
        assert json.loads(content[row.offset : row.offset + row.length]) == row.value  # type: ignore[union-attr]


@pytest.mark.parametrize("size", [1, 7, 10_000])
@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b'[{"a":1},{"a":02},{"a":3}]', [{"a": 1}, "json", {"a": 3}]),
        (b'[{"a":1},{oops},{"a":3}]', [{"a": 1}, "json", {"a": 3}]),
        (b'[{"a":1,"t":"x"},{"a":2,"t":"x},{"a":3,"t":"y"}]', [{"a": 1, "t": "x"}, "json", {"a": 3, "t": "y"}]),
        (b'[{"a":1},{"a":2]},{"a":3}]', [{"a": 1}, "json", "json", {"a": 3}]),
        (b'[{"a":1},{"a":{"b":2},{"a":3},{"a":4}]', [{"a": 1}, "json", {"a": 3}, {"a": 4}]),
        (b'[{"a":1,"r":[{"a":2}]},{"a":0x},{"a":4,"r":[]}]', [{"a": 1, "r": [{"a": 2}]}, "json", {"a": 4, "r": []}]),
        (b'[{"a":1,"r":[{"a":2}]},{"a":"x,"r":[{"a":3},{"a":5}]},{"a":4}]', [{"a": 1, "r": [{"a": 2}]}, "truncated"]),
        (b'[{"a":1,"r":[{"a":2}]},{"a":3},{"a":"x,"r":[0,{"a":4}]},{"a":5}]',
         [{"a": 1, "r": [{"a": 2}]}, {"a": 3}, "truncated"]),
        (b'[{"a":1} {"a":2},{"a":3}]', [{"a": 1}, "json", {"a": 3}]),
        (b'[{"a":"' + b'x\\"' * 900 + b'"},{"a":3}]', ["too_large", {"a": 3}]),
        (b'[{"a":1},"' + b"x" * 3_000 + b'",{"a":3}]', [{"a": 1}, "too_large", {"a": 3}]),
        (b"[" + b"1" * 3_000 + b',{"a":1}]', ["too_large", {"a": 1}]),
        (b'[{"a":[' + b"[]," * 900 + b'0]},{"a":3}]', ["too_large", {"a": 3}]),
        (b'{"a":1}\n{"a":"' + b"x" * 2_000 + b'"}\n{"a":2}', [{"a": 1}, "too_large", {"a": 2}]),
        (b'{"a":1}\n' + b"x" * 1_001, [{"a": 1}, "too_large"]),
        (b'[{"a":1},\n', [{"a": 1}, "truncated"]),
        (b'[{"a":1},{"a":', [{"a": 1}, "truncated"]),
        (b'[{"a":"\xff"},{"a":1}]', ["json", {"a": 1}]),
        (b'{"a":"\xff"}\n{"a":1}', ["json", {"a": 1}]),
        (b'[1,2]\n[3,4]\n', [[1, 2], [3, 4]]),
        (b'[[1,2],[3]]', [[1, 2], [3]]),
        (b'{\n"a":1\n}\n{\n"a":2\n}\n', [{"a": 1}, {"a": 2}]),
        (b'[{"a":1}]\n[{"a":2}]', [{"a": 1}, {"a": 2}]),
        (b'[{"a":1}]junk', [{"a": 1}, "json"]),
        (b'{"a":"\\u0000\\ud800"}\n', [{"a": "\0\ud800"}]),
        (b'{"a":1,"a":2}\n', [{"a": 2}]),
        (b'{"a":Infinity}\n', [{"a": float("inf")}]),
        (b'{"a":' + b"9" * 5_000 + b"}\n", ["too_large"]),
        (b"", []), (b" \n\r\n", []), (b"[]", []), (b"[", ["truncated"]), (b"]", ["json"]), (b'"', ["json"]),
    ],
)  # fmt: skip
def test_damage_costs_a_row_and_no_more(content: bytes, expected: list[Any], size: int) -> None:
    assert values(content, size) == expected


def test_nesting_of_any_depth_is_a_quarantined_row() -> None:
    deep = b'{"a":' + b"[" * 50_000 + b"]" * 50_000 + b"}"
    assert values(deep + b'\n{"a":1}\n', 4096, 1 << 20) == ["json", {"a": 1}]
    assert values(b"[" + deep + b',{"a":1}]', 4096, 1 << 20) == ["json", {"a": 1}]


def test_a_row_at_the_limit_is_kept_and_one_beyond_it_is_not() -> None:
    for frame in (b"%s\n", b"[%s]"):
        assert values(frame % b'"12345678"', longest=10) == ["12345678"]
        assert values(frame % b'"123456789"', longest=10) == ["too_large"]


def test_damage_inside_an_array_costs_the_row_it_is_in() -> None:
    hole = Quarantined("s", "a", "damaged")
    chunks = iter([b'[{"a":1},{"a":2},{"a', hole, b'":9}],"x":[{"b":1}]},{"a":5},', b'{"a":6}]'])
    found = list(rows_of_json(chunks, ORIGIN, 1_000))
    assert brief(found) == [{"a": 1}, {"a": 2}, "truncated", "damaged", "json", {"a": 5}, {"a": 6}]


@given(st.binary(max_size=200) | st.text(alphabet='[]{},:"\\ \na1', max_size=200).map(str.encode), st.integers(1, 50))
@settings(max_examples=300)
def test_no_bytes_raise_and_each_lies_in_one_entry(content: bytes, size: int) -> None:
    found = read(content, size, 40)
    place = 0
    for entry in found:
        assert entry.offset >= place
        assert not content[place : entry.offset].strip(b" \t\r\n,[]")  # between entries is only what parts them
        place = entry.offset + entry.length
    assert not content[place:].strip(b" \t\r\n,[]")


@given(st.binary(max_size=200), st.integers(1, 50))
def test_lines_are_all_there(content: bytes, size: int) -> None:
    found = list(split_lines(pieces(content, size), ORIGIN, 1_000))
    assert b"\n".join(line for _, line in found) == content.removesuffix(b"\n")  # type: ignore[misc]


def cells(content: bytes, longest: int = 1_000, delimiter: str = ",") -> list[Any]:
    return brief(list(csv_rows(pieces(content, 7), ORIGIN, longest, delimiter)))


TEXTS = st.text(st.characters(codec="utf-8", exclude_characters="\r"), max_size=6)


@given(st.lists(st.lists(TEXTS, min_size=2, max_size=2), max_size=6), st.sampled_from([",", "\t", ";"]))
def test_csv_is_read_as_csv_reads_it(rows: list[list[str]], delimiter: str) -> None:
    out = io.StringIO()
    csv.writer(out, delimiter=delimiter, lineterminator="\r\n").writerows([["a", "b"], *rows])
    assert cells(out.getvalue().encode(), 10_000, delimiter) == [dict(zip("ab", row, strict=True)) for row in rows]


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b'a,b\n1,"x\n2,y\n3,z\n', ["csv", {"a": "2", "b": "y"}, {"a": "3", "b": "z"}]),  # a quote never closed
        (b'a,b\n1,"x\n2,y\n3,"z"\n', ["csv", {"a": "2", "b": "y"}, {"a": "3", "b": "z"}]),  # closed by another's
        (b'a,b\n1,"x\ny"\n2,z\n', [{"a": "1", "b": "x\ny"}, {"a": "2", "b": "z"}]),
        (b'a,b\n1,"x""\ny"\n', [{"a": "1", "b": 'x"\ny'}]),
        (b'a,b\n1,5" pipe\n2,z\n', [{"a": "1", "b": '5" pipe'}, {"a": "2", "b": "z"}]),
        (b"a,b\n1\n2,y\n", ["csv", {"a": "2", "b": "y"}]),
        (b"a,b\n1,\xff\n2,y\n", ["encoding", {"a": "2", "b": "y"}]),
        (b"a,b\n1," + b"x" * 2_000 + b"\n2,y\n", ["too_large", {"a": "2", "b": "y"}]),
        (b'a,b\n1,"x\n' + b"y" * 2_000 + b"\n2,y\n", ["csv", "too_large", {"a": "2", "b": "y"}]),
        (b'a,b\r\n1,"x\r\ny"\r\n', [{"a": "1", "b": "x\r\ny"}]),
        (b"a,b\n\n1,\0\n", [{"a": "1", "b": "\0"}]),
        (b"", []), (b"a,b", []),
    ],
)  # fmt: skip
def test_csv_damage_costs_a_row_and_no_more(content: bytes, expected: list[Any]) -> None:
    assert cells(content) == expected


@given(st.text(alphabet='a",\n\r', max_size=80))
@settings(max_examples=300)
def test_no_csv_raises(text: str) -> None:
    cells(text.encode(), 20)


def test_parquet_is_read_as_arrow_reads_it(tmp_path: Path) -> None:
    table = pa.table(
        {
            "text": ["a", None, "b" * 5_000, "a"] * 700,
            "meta": [{"url": "u", "tags": ["x", "y"]}, None, {"url": None, "tags": []}, {"url": "v", "tags": None}]
            * 700,
            "raw": [b"x", b"", None, b"\xff"] * 700,
        }
    )
    pq.write_table(table, tmp_path / "a.parquet", row_group_size=1_000)
    found = list(parquet_rows(str(tmp_path / "a.parquet"), ORIGIN))
    assert brief(found) == table.to_pylist()
    assert [entry.offset for entry in found] == list(range(2_800))


def test_a_cell_beyond_the_limit_costs_its_row(tmp_path: Path) -> None:
    rows = [{"id": n, "text": "x" * (5_000 if n == 1_500 else 5)} for n in range(3_000)]
    for dictionary in (True, False):
        pq.write_table(pa.Table.from_pylist(rows), tmp_path / "a.parquet", use_dictionary=dictionary)
        found = list(parquet_rows(str(tmp_path / "a.parquet"), ORIGIN, 1_000))
        lost = [entry for entry in found if isinstance(entry, Quarantined)]
        assert [(entry.reason, entry.offset) for entry in lost] == [("too_large", 1_500)]
        assert brief(found)[:1_500] + brief(found)[1_501:] == rows[:1_500] + rows[1_501:]


def test_a_value_that_many_rows_share_is_not_held_for_each(tmp_path: Path) -> None:
    pq.write_table(pa.table({"text": ["x" * 900_000] * 300}), tmp_path / "a.parquet")  # 270 MB, in 1 MB
    before = pa.total_allocated_bytes()
    count = 0
    for entry in parquet_rows(str(tmp_path / "a.parquet"), ORIGIN):
        assert isinstance(entry, Row)
        assert pa.total_allocated_bytes() - before < 100_000_000
        count += 1
    assert count == 300


@pytest.mark.parametrize("place", range(0, 4_000, 97))
def test_damaged_parquet_never_raises(tmp_path: Path, place: int) -> None:
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"text": [f"row {n} {n**5}" for n in range(500)]}), path, row_group_size=100)
    content = bytearray(path.read_bytes())
    place %= len(content)
    content[place] ^= 0x55
    path.write_bytes(content)
    found = list(parquet_rows(str(path), ORIGIN))
    spans = sum(entry.length for entry in found)
    assert spans == 500 or [entry.length for entry in found if isinstance(entry, Quarantined)] == [-1]


CHILD = """
import resource, sys
from datalake.document import Document, Quarantined
from datalake.origin import Origin
from datalake.sources.tables.config import Table
from datalake.sources.tables.table import read, archives
def peak():  # a child inherits its parent's ru_maxrss, but not its high-water mark
    try:
        with open("/proc/self/status") as status:
            return next(int(line.split()[1]) for line in status if line.startswith("VmHWM")) / 1024
    except OSError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
small, large = (Table(paths=[path]) for path in sys.argv[1:])
list(read(archives(small)[0], small))  # models and libraries are loaded now
before = peak()
found = list(read(archives(large)[0], large))
print([getattr(entry, "reason", "document") for entry in found], int(peak() - before))
"""
SIZE = 300_000_000


def peak_of(tmp_path: Path, name: str, parts: tuple[bytes, bytes]) -> tuple[list[str], int]:
    """What a file with 300 MB in one row gives, and by how many MiB reading it raised a process's peak of memory."""
    first, last = parts
    small = tmp_path / f"small.{name}"
    small.write_bytes(first + b"x" + last)
    path = tmp_path / f"large.{name}"
    with path.open("wb") as stream:
        stream.write(first)
        for _ in range(SIZE // 1_000_000):
            stream.write(b"x" * 1_000_000)
        stream.write(last)
    command = [sys.executable, "-c", CHILD, str(small), str(path)]
    root = Path(__file__).parents[2]
    out = subprocess.run(command, capture_output=True, text=True, check=True, cwd=root).stdout
    path.unlink()
    found, _, size = out.rpartition("] ")
    return json.loads((found + "]").replace("'", '"')), int(size)


@pytest.mark.parametrize(
    ("name", "parts", "expected", "bound"),
    [
        ("jsonl", (b'{"text": "a"}\n{"text": "', b'"}\n{"text": "b"}\n'), ["document", "too_large", "document"], 120),
        ("json", (b'[{"text": "a"}, {"text": "', b'"}, {"text": "b"}]'), ["document", "too_large", "document"], 250),
        ("csv", (b"id,text\n1,a\n2,", b"\n3,b\n"), ["document", "too_large", "document"], 120),
        ("csv", (b'id,text\n1,a\n2,"', b'"\n3,b\n'), ["document", "too_large", "document"], 120),
        ("txt", (b"a", b"b"), ["too_large"], 60),
    ],
)  # fmt: skip
def test_a_row_of_300_mb_is_one_entry_in_bounded_memory(
    tmp_path: Path, name: str, parts: tuple[bytes, bytes], expected: list[str], bound: int
) -> None:
    """MiB above the libraries': a row's limit is 80 MB here; an array holds it twice while it reads on."""
    found, size = peak_of(tmp_path, name, parts)
    assert found == expected
    assert size < bound


@pytest.mark.slow
def test_a_cell_of_300_mb_is_one_entry_in_six_times_its_memory(tmp_path: Path) -> None:
    for name, size in (("small", 1), ("large", SIZE)):
        table = pa.table({"id": [1, 2, 3], "text": ["a", "x" * size, "b"]})
        pq.write_table(table, tmp_path / f"{name}.parquet", compression="zstd")
    command = [sys.executable, "-c", CHILD, str(tmp_path / "small.parquet"), str(tmp_path / "large.parquet")]
    root = Path(__file__).parents[2]
    out = subprocess.run(command, capture_output=True, text=True, check=True, cwd=root).stdout
    found, _, size_MiB = out.rpartition("] ")
    assert found == "['document', 'too_large', 'document'"
    assert int(size_MiB) < 6 * SIZE / 2**20


def test_an_array_larger_than_its_window_is_streamed(tmp_path: Path) -> None:
    row = json.dumps({"text": "x" * 900}).encode()
    with gzip.open(tmp_path / "a.json.gz", "wb", compresslevel=1) as stream:
        stream.write(b"[" + b", ".join([row] * 50_000) + b"]")
    largest = 0
    count = 0
    for entry in json_rows(str(tmp_path / "a.json.gz"), ORIGIN):
        assert isinstance(entry, Row)
        count += 1
        largest = max(largest, entry.length)
    assert (count, largest) == (50_000, len(row))
