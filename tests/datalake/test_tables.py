"""Tables as other programs write them, damaged in one place or read as broken by others: after public bug reports.

The inputs are in `tables/`, with what is right in `table_cases`.
"""

from __future__ import annotations

import datetime as dt
import io
import json
import random
import shutil
import subprocess
import tarfile
import zipfile
from collections import Counter
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.feather as feather
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from table_cases import CASES, RIVER, TABLES

from datalake.curate.checks.pii import find
from datalake.curate.checks.pii_config import KINDS
from datalake.document import Conversation, Document, Entry, Preference, Quarantined, Refused
from datalake.errors import UserError
from datalake.formats.rows.arrow import arrow_rows
from datalake.formats.rows.csv import csv_rows
from datalake.formats.rows.json import Locators, Row, rows_of_json
from datalake.formats.rows.parquet import parquet_rows
from datalake.origin import Origin
from datalake.paths import expand
from datalake.sources import reader
from datalake.sources.books.config import Books
from datalake.sources.code.config import Code
from datalake.sources.dialogues.config import Conversations, Preferences
from datalake.sources.tables.config import Table

ORIGIN = Origin("s", "s", "a")


def entries(*paths: Path, kind: type[Any] = Table, **options: object) -> list[Entry]:
    config = kind.model_validate({"paths": [str(path) for path in paths], **options})
    source = reader(config.kind)
    return [entry for shard in source.archives(config) for entry in source.read(shard, config)]


def texts(found: list[Entry]) -> list[str]:
    return [entry.text for entry in found if isinstance(entry, Document)]


def reasons(found: list[Entry]) -> list[str]:
    return sorted(entry.reason for entry in found if isinstance(entry, Refused | Quarantined))


def ids(found: list[Entry]) -> list[bytes]:
    return [entry.id for entry in found if isinstance(entry, Document | Refused)]


@pytest.mark.parametrize("name", CASES)
def test_a_table_of_a_report_is_read_right(name: str) -> None:
    found = entries(TABLES / name)
    assert (texts(found), reasons(found)) == (CASES[name][0], sorted(CASES[name][1]))
    assert len(set(ids(found))) == len(ids(found))
    addresses = [entry.uri for entry in found if isinstance(entry, Document | Refused)]
    assert len(set(addresses)) == len(addresses)


def test_every_table_is_a_case() -> None:
    assert {path.name for path in TABLES.iterdir() if path.is_file()} == {*CASES, "pii-precision.jsonl"}


# Ids


def test_files_of_one_name_in_two_folders_are_called_by_the_folder_that_differs() -> None:
    found = entries(
        *(TABLES / "same_name" / name / "data" for name in ("alpha", "beta")), columns={"text": "text|content"}
    )
    names = [entry.archive for entry in found if isinstance(entry, Document)]
    assert names == ["beta/data/train-00000-of-00001.jsonl", "train-00000-of-00001.jsonl"]
    assert len(set(ids(found))) == 2


def test_of_many_files_of_one_name_none_is_lost(tmp_path: Path) -> None:
    paths = [tmp_path / first / second / "x.jsonl" for first in "ab" for second in "cd"]
    for path in paths:
        path.parent.mkdir(parents=True)
        path.touch()
    assert [name for name, _ in expand([str(path) for path in paths])] == [
        "b/c/x.jsonl", "b/d/x.jsonl", "d/x.jsonl", "x.jsonl",
    ]  # fmt: skip


ROW_IDS = st.one_of(
    st.none(), st.integers(-2, 12), st.floats(0, 9), st.booleans(), st.sampled_from(["", "1", "1~1", "~1", "1.0"])
)


@given(st.lists(ROW_IDS, max_size=14))
def test_no_two_rows_have_one_locator(given_ids: list[Any]) -> None:
    locators = Locators()
    found = [locators.of(own, number) for number, own in enumerate(given_ids)]
    assert len(set(found)) == len(found)
    if len({str(own) for own in given_ids}) == len(given_ids) and all(
        isinstance(own, str) and own for own in given_ids
    ):
        assert found == given_ids


def test_rows_without_ids_cost_no_memory() -> None:
    locators = Locators()
    assert [locators.of(None, number) for number in range(1_000)] == [str(number) for number in range(1_000)]
    assert (len(locators._seen), len(locators._numbered)) == (0, 1)


def test_a_file_twice_in_an_archive_is_two(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive, pytest.warns(UserWarning, match="Duplicate"):
        _ = [archive.writestr(name, '{"text": "One."}\n') for name in ("x.jsonl", "x.jsonl", "x.jsonl")]
    found = entries(tmp_path / "a.zip")
    assert len(set(ids(found))) == len(texts(found)) == 3


def test_a_source_file_and_a_book_twice_in_an_archive_are_two(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        for name in ("a.py", "a.py", "b.txt", "b.txt"):
            member = tarfile.TarInfo(name)
            member.size = 6
            archive.addfile(member, io.BytesIO(b"x = 1\n"))
    for kind, count in ((Code, 4), (Books, 4)):
        found = entries(tmp_path / "a.tar", kind=kind)
        assert len(set(ids(found))) == len(ids(found)) == count


def test_a_part_of_a_row_isnt_another_rows_id(tmp_path: Path) -> None:
    instance = {"input": "a", "output": "b"}
    rows = [
        {"id": "s", "instruction": "Do.", "instances": [instance, instance]},
        {"id": "s/instance 1", "instruction": "Do.", "instances": [instance]},
    ]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    found = entries(tmp_path / "a.jsonl", kind=Conversations)
    assert len({entry.id for entry in found if isinstance(entry, Conversation)}) == 3


# The unit of hold-out


def test_no_two_texts_without_an_address_are_held_out_together(tmp_path: Path) -> None:
    for name in "ab":
        (tmp_path / f"{name}.txt").write_text("A text.\n")
        (tmp_path / f"{name}.jsonl").write_text('{"text": "One."}\n{"text": "Two."}\n')
    found = [entry.attributes["group"] for entry in entries(tmp_path) if isinstance(entry, Document)]
    assert len(set(found)) == len(found) == 6


def test_pages_of_a_host_are_held_out_together(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"text": "One.", "uri": "http://a.example/1"}\n')
    (tmp_path / "b.jsonl").write_text('{"text": "Two.", "uri": "http://a.example/2"}\n')
    assert {entry.attributes["group"] for entry in entries(tmp_path) if isinstance(entry, Document)} == {"a.example"}


def test_source_files_of_one_name_and_rows_of_unknown_repositories_are_held_out_apart(tmp_path: Path) -> None:
    for folder in "ab":
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "main.py").write_text(f"x = '{folder}'\n")
    (tmp_path / "rows.jsonl").write_text("".join(f'{{"content": "x = {n}", "path": "a.py"}}\n' for n in range(3)))
    for pattern, count in (("*/main.py", 2), ("rows.jsonl", 3)):
        found = [e.attributes["group"] for e in entries(tmp_path / pattern, kind=Code) if isinstance(e, Document)]
        assert len(set(found)) == len(found) == count


# Parquet


def with_bytes(values: list[bytes | None], kind: pa.DataType | None = None) -> pa.Array:
    """A column of text whose bytes nobody has checked."""
    raw = pa.array(values, pa.large_binary() if kind == pa.large_string() else pa.binary())
    return pa.Array.from_buffers(kind or pa.string(), len(values), raw.buffers())


def test_a_bad_byte_costs_one_row_of_twenty_thousand(tmp_path: Path) -> None:
    words = [f"Row {n} says that the river was measured at the dam.".encode() for n in range(20_000)]
    words[5_000] = b"Row 5000 \xff"
    pq.write_table(pa.table({"text": with_bytes(words)}), tmp_path / "a.parquet", row_group_size=20_000)
    assert Counter(type(entry).__name__ for entry in entries(tmp_path / "a.parquet")) == {
        "Document": 19_999, "Quarantined": 1,
    }  # fmt: skip


BAD = with_bytes([b"fine", b"\xffz", None])
BAD_COLUMNS: dict[str, pa.Array] = {
    "string": BAD,
    "large_string": with_bytes([b"fine", b"\xffz", None], pa.large_string()),
    "list": pa.ListArray.from_arrays(pa.array([0, 1, 2, 3]), BAD),
    "struct": pa.StructArray.from_arrays([BAD], ["inner"]),
    "map": pa.MapArray.from_arrays(pa.array([0, 1, 2, 3]), pa.array(["k", "l", "m"]), BAD),
    "date past 9999": pa.array([0, 5_000_000, 0], pa.int32()).cast(pa.date32()),
    "time past 9999": pa.array([0, 400_000_000_000, 0], pa.int64()).cast(pa.timestamp("s")),
    "nanoseconds": pa.array([0, 10**18 + 7, 0], pa.int64()).cast(pa.timestamp("ns")),
    "nanoseconds of a day": pa.array([0, 7, 0], pa.int64()).cast(pa.time64("ns")),
    "nanoseconds that last": pa.array([0, 7, 0], pa.int64()).cast(pa.duration("ns")),
    "a list of nanoseconds": pa.array([[], [7], []], pa.list_(pa.int64())).cast(pa.list_(pa.timestamp("ns"))),
    "an unknown zone": pa.array([0, 1, 2], pa.int64()).cast(pa.timestamp("us", "Mars/Phobos")),
}


@pytest.mark.parametrize("form", ["parquet", "arrow"])
@pytest.mark.parametrize("name", BAD_COLUMNS)
def test_a_bad_cell_in_a_column_nobody_asked_for_costs_nothing(tmp_path: Path, name: str, form: str) -> None:
    table = pa.table({"text": RIVER[:3], "more": BAD_COLUMNS[name]})
    if form == "parquet":
        pq.write_table(table, tmp_path / "a.parquet")
    else:
        feather.write_feather(table, tmp_path / "a.arrow")
    assert texts(entries(tmp_path / f"a.{form}")) == RIVER[:3]


def test_what_python_has_no_time_for_is_kept_as_text_and_nanoseconds_to_the_microsecond(tmp_path: Path) -> None:
    table = pa.table({name: BAD_COLUMNS[name] for name in ("date past 9999", "time past 9999", "nanoseconds")})
    pq.write_table(table, tmp_path / "a.parquet")
    (_, row, _) = parquet_rows(str(tmp_path / "a.parquet"), ORIGIN)
    assert isinstance(row, Row)
    late, later, fine = row.value.values()
    assert (late, later[:10]) == ("15659-07-15", "14645-06-3")
    assert fine == dt.datetime(2001, 9, 9, 1, 46, 40)


def test_a_bad_byte_in_a_dialogue_costs_the_row_and_beside_it_nothing(tmp_path: Path) -> None:
    asked = with_bytes([b"One?", b"Two\xff?", b"Three?"])
    note = with_bytes([b"x", b"y", b"\xff"])
    table = pa.table({"instruction": asked, "output": ["1", "2", "3"], "note": note})
    pq.write_table(table, tmp_path / "a.parquet")
    found = entries(tmp_path / "a.parquet", kind=Conversations)
    assert [type(entry) for entry in found] == [Conversation, Quarantined, Conversation]
    table = pa.table({"prompt": asked, "chosen": ["1", "2", "3"], "rejected": ["a", "b", "c"], "note": note})
    pq.write_table(table, tmp_path / "a.parquet")
    found = entries(tmp_path / "a.parquet", kind=Preferences)
    assert [type(entry) for entry in found] == [Preference, Quarantined, Preference]


@pytest.mark.parametrize("column", ["text", "other"])
@pytest.mark.parametrize("compression", ["snappy", "none"])
def test_a_damaged_column_costs_its_rows_if_they_need_it(tmp_path: Path, column: str, compression: str) -> None:
    rows = 6_000
    table = pa.table(
        {
            "id": list(range(rows)),
            "text": [f"Row {n} of the table, " + f"word{n * 7919 % 1000} " * 5 for n in range(rows)],
            "other": [f"o{n * 31 % 977}" for n in range(rows)],
        }
    )
    path = tmp_path / "a.parquet"
    pq.write_table(table, path, compression=compression, data_page_size=5_000, use_dictionary=False)
    about = pq.read_metadata(path).row_group(0).column(table.column_names.index(column))
    content = bytearray(path.read_bytes())
    middle = about.data_page_offset + about.total_compressed_size // 2
    content[middle : middle + 300] = random.Random(1).randbytes(300)
    path.write_bytes(content)
    found = entries(path)
    assert len(found) == rows, "each row is a record"
    kept = [entry for entry in found if isinstance(entry, Document)]
    assert [entry.text for entry in kept] == table["text"].to_pylist()[: len(kept)]
    if column == "other":
        assert len(kept) == rows
        assert kept[-1].attributes["lost"] == "other"
        assert "lost" not in kept[0].attributes
    else:
        assert rows // 4 < len(kept) < 3 * rows // 4
        assert reasons(found) == ["parquet"] * (rows - len(kept))


def test_spark_and_impala_write_times_of_96_bits(tmp_path: Path) -> None:
    when = [dt.datetime(9999, 12, 31), dt.datetime(1500, 1, 1), dt.datetime(2024, 5, 6, 7, 8, 9, 123456)]
    table = pa.table({"text": RIVER[:3], "when": pa.array(when, pa.timestamp("us"))})
    pq.write_table(table.slice(2), tmp_path / "a.parquet", use_deprecated_int96_timestamps=True)
    (document,) = entries(tmp_path / "a.parquet", columns={"created": "when"})
    assert isinstance(document, Document)
    assert document.created == dt.datetime(2024, 5, 6, 7, 8, 9, 123456, dt.UTC)


def test_every_type_of_duckdb_is_read(tmp_path: Path) -> None:
    duckdb.sql(
        f"""COPY (SELECT 'a text' AS text, INTERVAL 1 MONTH AS i, '4ac7a9e9-607c-4c8a-84f3-843f0191e3fd'::UUID AS u,
        {{'a': [1, 2]}} AS s, MAP {{'k': 'v'}} AS m, 12.5::DECIMAL(38, 2) AS d, 'x'::BLOB AS b,
        TIMESTAMP_NS '2024-01-01 00:00:00.123456789' AS ns, TIME '10:00:01' AS t, DATE '9999-12-31' + 5 AS late,
        'b'::ENUM ('a', 'b') AS e, [[1], [2, 3]] AS ll, TIMESTAMPTZ '2024-01-01 00:00:00+00' AS z)
        TO '{tmp_path / "a.parquet"}'"""
    )
    (document,) = entries(tmp_path / "a.parquet")
    assert isinstance(document, Document)
    kept = {name: document.attributes[name] for name in ("u", "m.k", "d", "ns", "t", "late", "e", "z")}
    assert kept == {
        "u": "4ac7a9e9-607c-4c8a-84f3-843f0191e3fd", "m.k": "v", "d": "12.50", "ns": "2024-01-01T00:00:00.123456",
        "t": "10:00:01", "late": "10000-01-05", "e": "b", "z": "2024-01-01T00:00:00+00:00",
    }  # fmt: skip


def test_two_columns_of_one_name_stay_two(tmp_path: Path) -> None:
    pq.write_table(pa.table([pa.array(["a"]), pa.array(["b"])], names=["text", "text"]), tmp_path / "a.parquet")
    (tmp_path / "b.csv").write_text("text,text,text.1\na,b,c\n")
    found = [(entry.text, entry.attributes["text.1"]) for entry in entries(tmp_path) if isinstance(entry, Document)]
    assert found == [("a", "b"), ("a", "b")]


# Arrow


def arrow(path: Path, table: pa.Table, footer: bool, compression: str | None = None, rows: int = 2) -> Path:
    """A table as batches of so many rows."""
    options = pa.ipc.IpcWriteOptions(compression=compression)
    opened = pa.ipc.new_file if footer else pa.ipc.new_stream
    with pa.OSFile(str(path), "wb") as file, opened(file, table.schema, options=options) as writer:
        writer.write_table(table, max_chunksize=rows)
    return path


@pytest.mark.parametrize("compression", [None, "zstd", "lz4"])
@pytest.mark.parametrize("footer", [True, False])
def test_arrow_files_and_streams_are_read(tmp_path: Path, footer: bool, compression: str | None) -> None:
    table = pa.table(
        {
            "text": pa.array(RIVER, pa.string_view()),  # as polars writes it
            "kind": pa.array(["a", "b", "a", None]).dictionary_encode(),
            "runs": pa.RunEndEncodedArray.from_arrays(pa.array([2, 4], pa.int32()), pa.array(["x", "y"])),
        }
    )
    path = arrow(tmp_path / "a.arrow", table, footer, compression)
    found = entries(path)
    assert texts(found) == RIVER
    assert [(e.attributes.get("kind"), e.attributes["runs"]) for e in found if isinstance(e, Document)] == [
        ("a", "x"), ("b", "x"), ("a", "y"), (None, "y"),
    ]  # fmt: skip
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.write(path, "inner/a.feather")
    assert texts(entries(tmp_path / "a.zip")) == RIVER


@pytest.mark.parametrize("footer", [True, False])
@pytest.mark.parametrize("compression", [None, "zstd"])
def test_damaged_arrow_never_raises_and_gives_no_wrong_row(
    tmp_path: Path, footer: bool, compression: str | None
) -> None:
    table = pa.table({"text": RIVER * 3, "n": list(range(12)), "l": [["a", "b"]] * 12})
    whole = arrow(tmp_path / "whole.arrow", table, footer, compression).read_bytes()
    rng = random.Random(3)
    for place in range(0, len(whole), 61):
        content = bytearray(whole)
        content[place : place + 8] = rng.randbytes(8)
        (tmp_path / "a.arrow").write_bytes(content)
        found = list(arrow_rows(str(tmp_path / "a.arrow"), ORIGIN))
        rows = [row.number for row in found if isinstance(row, Row)]
        assert rows == sorted(set(rows))
        assert set(rows) <= set(range(12))
        (tmp_path / "a.arrow").write_bytes(whole[:place])
        assert len(list(arrow_rows(str(tmp_path / "a.arrow"), ORIGIN))) <= 13


def test_an_arrow_file_that_unpacks_to_more_than_it_may_is_a_bomb(tmp_path: Path) -> None:
    table = pa.table({"text": ["x" * 300_000_000]})
    path = arrow(tmp_path / "a.arrow", table, True, "zstd")
    assert path.stat().st_size < 100_000
    (bomb,) = entries(path)
    assert isinstance(bomb, Quarantined)
    assert bomb.reason == "bomb"


def test_an_old_feather_file_says_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "a.feather").write_bytes(b"FEA1" + bytes(60) + b"FEA1")
    (found,) = entries(tmp_path / "a.feather")
    assert isinstance(found, Quarantined)
    assert "write it anew" in found.detail


# JSON


@pytest.mark.parametrize("size", [1, 7, 10_000])
@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b'{"a":1,\n "t":"x"}\n{"a":2,\n "t":"y"}\n', [{"a": 1, "t": "x"}, {"a": 2, "t": "y"}]),
        (b'{"a": {"b":1,\n"c":2}}\n{"a":5}', [{"a": {"b": 1, "c": 2}}, {"a": 5}]),
        (b'{"a":1,\n "b":x}\n{"a":2,\n "b":3}\n', ["json", {"a": 2, "b": 3}]),
        (b'{"a":1},\n{"a":2},\n', [{"a": 1}, {"a": 2}]),
        (b'{"a":1},{"a":2},\n{"a":3}', [{"a": 1}, {"a": 2}, {"a": 3}]),
        (b'{"a":1}{"a":2}{"a":3}', [{"a": 1}, {"a": 2}, {"a": 3}]),
        (b'{"a":0}\n{"a":1}{"a":2}\n', [{"a": 0}, {"a": 1}, {"a": 2}]),
        (b'\x1e{"a":1}\n\x1e{"a":2}\n', [{"a": 1}, {"a": 2}]),
        (b'{"a":1}\r{"a":2}\r', [{"a": 1}, {"a": 2}]),
        (b'{"a":1,\n"b":2\n},\n{"a":3}', [{"a": 1, "b": 2}, {"a": 3}]),
        (b'{"t": \n{"t": "b"}\n', ["json", {"t": "b"}]),  # a line that breaks off, not a row of two
        (b'{"t": "x\n{"t": "b"}\n', ["json", {"t": "b"}]),
        (b'{"t": 1}x\n{"t": 2}\n', ["json", {"t": 2}]),
    ],
)
def test_objects_in_other_lines_than_one_each(content: bytes, expected: list[Any], size: int) -> None:
    chunks: Any = iter([content[place : place + size] for place in range(0, len(content), size)])
    found = list(rows_of_json(chunks, ORIGIN, 1_000))
    assert [row.value if isinstance(row, Row) else row.reason for row in found] == expected
    for row in found:
        if isinstance(row, Row):
            assert json.loads(content[row.offset : row.offset + row.length].strip(b"\x1e")) == row.value


NESTED = {
    "under a key": {"version": 1, "data": [{"text": "One."}, {"text": "Two."}]},
    "by split": {"train": [{"text": "One."}], "test": [{"text": "Two."}]},
    "of a viewer": {"features": [{"name": "text"}], "rows": [{"row_idx": 0, "row": {"text": "One."}},
                                                             {"row_idx": 1, "row": {"text": "Two."}}]},
    "by columns": {"id": {"0": "a", "1": "b"}, "text": {"0": "One.", "1": "Two."}},
    "by ids": {"a": {"text": "One."}, "b": {"text": "Two."}},
    "names apart": {"columns": ["id", "text"], "index": [0, 1], "data": [["a", "One."], ["b", "Two."]]},
}  # fmt: skip


@pytest.mark.parametrize("indent", [None, 1])
@pytest.mark.parametrize("name", NESTED)
def test_rows_within_one_object_are_rows(tmp_path: Path, name: str, indent: int | None) -> None:
    (tmp_path / "a.json").write_text(json.dumps(NESTED[name], indent=indent))
    found = entries(tmp_path / "a.json")
    assert [text for text in texts(found) if text != "text"] == ["One.", "Two."]
    assert len(set(ids(found))) == len(found)


def test_rows_within_one_object_are_dialogues_and_pairs(tmp_path: Path) -> None:
    dialogue = {"messages": [{"role": "user", "content": "A?"}, {"role": "assistant", "content": "B."}]}
    pair = {"prompt": "A?", "chosen": "B.", "rejected": "C."}
    for name, row in (("a", dialogue), ("b", pair)):
        (tmp_path / f"{name}.json").write_text(json.dumps({"data": [row, row]}))
    found = entries(tmp_path / "a.json", kind=Conversations)
    assert [type(entry) for entry in found] == [Conversation, Conversation]
    found = entries(tmp_path / "b.json", kind=Preferences)
    assert [type(entry) for entry in found] == [Preference, Preference]
    (tmp_path / "a.json").write_text(json.dumps(dialogue))
    assert len(entries(tmp_path / "a.json", kind=Conversations)) == 1


def test_a_row_with_lists_of_objects_stays_a_row(tmp_path: Path) -> None:
    row = {"text": None, "comments": [{"text": "One."}]}
    (tmp_path / "a.jsonl").write_text(json.dumps(row) + "\n" + json.dumps(row | {"text": "Two."}) + "\n")
    found = entries(tmp_path / "a.jsonl")
    assert (texts(found), reasons(found)) == (["Two."], ["empty"])


# CSV


def csv_of(content: str, delimiter: str = ",", **options: Any) -> list[Any]:
    rows = csv_rows(iter([content.encode()]), ORIGIN, 1_000, delimiter, **options)
    return [row.value if isinstance(row, Row) else row.reason for row in rows]


@pytest.mark.parametrize(
    ("cell", "text"),
    [
        (r'"say \"hi\""', 'say "hi"'), (r'"a \" b, c"', 'a " b, c'), ('"two \\"\nlines\\" here"', 'two "\nlines" here'),
        (r'"ends in one \\"', "ends in one \\"), (r"plain\n", r"plain\n"), (r'"C:\new"', r"C:\new"),
        (r'"\\\"both\\\""', r'\"both\"'),
    ],
)  # fmt: skip
def test_quotes_behind_backslashes_are_read_as_spark_writes_them(cell: str, text: str) -> None:
    content = f'id,text\n1,{cell}\n2,"other \\"x\\" y"\n'
    assert csv_of(content) == [{"id": "1", "text": text}, {"id": "2", "text": 'other "x" y'}]


def test_a_backslash_in_a_file_with_doubled_quotes_is_one() -> None:
    content = 'id,text\n1,"C:\\"\n2,"a ""b"" \\"\n'
    assert csv_of(content) == [{"id": "1", "text": "C:\\"}, {"id": "2", "text": 'a "b" \\'}]


def test_quotes_mean_nothing_in_tabs_without_them() -> None:
    content = 'id\ttext\n1\t"Hello" he said\n2\tfive " inches\n3\t"open\n'
    assert [row["text"] for row in csv_of(content, "\t")] == ['"Hello" he said', 'five " inches', '"open']
    assert csv_of('id\ttext\n1\t"a\tb"\n', "\t") == [{"id": "1", "text": "a\tb"}]


def test_a_null_of_a_database_is_empty() -> None:
    assert csv_of("id,text\n\\N,a\n") == [{"id": "", "text": "a"}]


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
def test_the_header_tells_what_parts_the_cells(tmp_path: Path, delimiter: str) -> None:
    (tmp_path / "a.csv").write_text(f"id{delimiter}text\n1{delimiter}One; two, three.\n".replace(f"{delimiter} ", " "))
    assert len(texts(entries(tmp_path / "a.csv"))) == 1 or delimiter in ",;"
    (tmp_path / "b.csv").write_text(f'id{delimiter}text\n1{delimiter}"One{delimiter} two."\n')
    assert texts(entries(tmp_path / "b.csv")) == [f"One{delimiter} two."]


def test_a_file_without_a_header_loses_no_row(tmp_path: Path) -> None:
    told = next(entry for entry in entries(TABLES / "csv-headerless.csv") if isinstance(entry, Quarantined))
    assert "`header`" in told.detail
    found = entries(TABLES / "csv-headerless.csv", header=["id", "text"])
    assert (len(texts(found)), reasons(found)) == (2, [])
    (tmp_path / "a.csv").write_text("What is it?,A mill.\nAnd that?,A river.\n")
    found = entries(tmp_path / "a.csv", kind=Conversations)
    assert reasons(found) == ["format", "header"]
    found = entries(tmp_path / "a.csv", kind=Conversations, header=["instruction", "output"])
    assert [type(entry) for entry in found] == [Conversation, Conversation]


# Other files, other reports


def test_a_line_of_excel_names_the_delimiter(tmp_path: Path) -> None:
    content = "sep=;\r\nid;text\r\n1;One, two.\r\n"
    (tmp_path / "a.csv").write_bytes(content.encode())
    (document,) = entries(tmp_path / "a.csv")
    assert isinstance(document, Document)
    assert document.text == "One, two."
    assert content.encode()[document.offset :] == b"1;One, two.\r\n"


@pytest.mark.parametrize("name", ["a.parquet", "a.jsonl", "a.csv", "a.arrow"])
def test_what_holds_no_rows_is_one_clear_line(tmp_path: Path, name: str) -> None:
    pointer = f"version https://git-lfs.github.com/spec/v1\noid sha256:{'0' * 64}\nsize 123\n"
    (tmp_path / name).write_text(pointer)
    (found,) = entries(tmp_path / name)
    assert isinstance(found, Quarantined)
    assert "git lfs pull" in found.detail
    for magic in (b"Obj\x01", b"ORC", b"SQLite format 3\0", b"\x04\x22\x4d\x18"):
        (tmp_path / "a.jsonl").write_bytes(magic + b"\n\0\n" * 100)
        (found,) = entries(tmp_path / "a.jsonl")
        assert "convert it" in found.detail  # type: ignore[union-attr]


def test_a_text_column_that_its_writer_marked_as_bytes_is_read_if_it_is_text(tmp_path: Path) -> None:
    cells = ["Ein Fluß.".encode(), "Der Fluß ist tief, und die Mühle steht still.".encode("latin-1"), bytes(range(256))]
    pq.write_table(pa.table({"text": pa.array(cells, pa.binary())}), tmp_path / "a.parquet")
    found = entries(tmp_path / "a.parquet")
    assert texts(found) == ["Ein Fluß.", "Der Fluß ist tief, und die Mühle steht still."]
    assert reasons(found) == ["encoding"]


def test_nul_in_a_cell_costs_nothing(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_bytes(b"id,text\n1,a\x00b\n2,c\n")
    assert texts(entries(tmp_path / "a.csv")) == ["a\0b", "c"]


# Repositories, personal data


@pytest.mark.skipif(shutil.which("git") is None, reason="git isn't there")
def test_repositories_with_names_of_sha256_are_read_working_bare_packed_and_with_submodules(tmp_path: Path) -> None:
    def git(*command: str, at: Path = tmp_path) -> None:
        settings = (
            "-c",
            "user.name=someone",
            "-c",
            "user.email=someone@example.org",
            "-c",
            "protocol.file.allow=always",
        )
        subprocess.run(["git", *settings, *command], cwd=at, check=True, capture_output=True)

    try:
        for name in ("inner", "repo"):
            git("init", "-q", "--object-format=sha256", name)
            (tmp_path / name / f"{name}.py").write_text("x = 1\n")
            git("add", ".", at=tmp_path / name)
            git("commit", "-qm", "one", at=tmp_path / name)
    except subprocess.CalledProcessError:
        pytest.skip("a git without sha256")
    git("submodule", "add", "-q", str(tmp_path / "inner"), "sub", at=tmp_path / "repo")
    git("commit", "-qm", "two", at=tmp_path / "repo")
    git("clone", "-q", "--bare", "repo", "bare.git")
    git("gc", "-q", at=tmp_path / "bare.git")
    (tmp_path / "repo" / "notes.py").write_text("x = 2\n")
    bare = entries(tmp_path / "bare.git", kind=Code)
    assert texts(bare) == ["x = 1\n"]
    assert reasons(bare) == ["language"], ".gitmodules is told"
    working = entries(tmp_path / "repo", kind=Code)
    assert sorted(entry.uri.rpartition("/")[2] for entry in working if isinstance(entry, Document)) == [
        "inner.py", "repo.py",
    ]  # fmt: skip
    assert reasons(working) == ["language", "untracked"]


def test_versions_and_numbers_are_no_personal_data() -> None:
    for line in (TABLES / "pii-precision.jsonl").read_text().splitlines():
        row = json.loads(line)
        found = find(row["text"], KINDS)
        assert bool(found) == row["id"].startswith("y"), (row, found)


def test_an_address_that_cant_be_told_apart_is_an_error() -> None:
    with pytest.raises(UserError, match="nothing matches"):
        expand([str(TABLES / "*.none")])


@pytest.mark.parametrize("form", ["jsonl", "parquet", "csv"])
def test_folders_of_a_partitioned_table_are_columns(tmp_path: Path, form: str) -> None:
    """As Spark writes them: what no name may hold is encoded, nothing at all has a name of its own."""
    folder = (
        tmp_path / "run=9" / "t" / "language=zh" / "topic=a%2Fb c" / "none=__HIVE_DEFAULT_PARTITION__" / "n=7" / "no"
    )
    folder.mkdir(parents=True)
    table, path = pa.table({"text": ["One small text."], "n": ["3"]}), folder / f"part-0.{form}"
    if form == "parquet":
        pq.write_table(table, path)
    else:
        path.write_text('{"text": "One small text.", "n": "3"}\n' if form == "jsonl" else "text,n\nOne small text.,3\n")
    (found,) = entries(tmp_path / "run=9" / "t")
    assert isinstance(found, Document)
    assert (found.language, found.language_score, found.attributes["topic"]) == ("zh", 1.0, "a/b c")
    assert found.attributes["n"] == "3", "the row's own"
    assert not {"none", "no", "run"} & found.attributes.keys(), "folders above the table are none of it"


def test_texts_dialogues_and_members_of_archives_may_be_partitioned(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "texts.zip", "w") as archive:
        archive.writestr("=x/1=2/a b=c/d.txt", "Another.")
        archive.writestr("lang=yue/a.txt", "One text.")
    other, one = entries(tmp_path / "texts.zip", columns={"language": "lang"})
    assert isinstance(one, Document)
    assert one.language == "yue"
    assert isinstance(other, Document)
    assert other.attributes.keys() == {"group"}
    (tmp_path / "talks" / "topic=birds").mkdir(parents=True)
    (tmp_path / "talks" / "topic=birds" / "a.jsonl").write_text('{"instruction": "Who sings?", "output": "A lark."}\n')
    (talk,) = entries(tmp_path / "talks", kind=Conversations)
    assert isinstance(talk, Conversation)
    assert talk.attributes["topic"] == "birds"
