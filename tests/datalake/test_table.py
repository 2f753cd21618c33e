"""Tables give one entry a row; malformed rows are quarantined, rows without text refused."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from datalake.document import Document, Entry, Quarantined, Refused
from datalake.sources.config import Table
from datalake.sources.table import form, read, shards

ROWS = [{"id": "x", "text": "One small text.", "n": 3}, {"id": "y", "text": " "}, {"text": "No id here."}]


def entries(path: Path, **options: object) -> list[Entry]:
    config = Table.model_validate({"paths": [str(path)], **options})
    return [entry for shard in shards(config) for entry in read(shard, config)]


def write(path: Path, form: str) -> Path:
    lines = "\n".join(json.dumps(row) for row in ROWS) + "\n"
    if form == "jsonl":
        path.write_text(lines)
    elif form == "jsonl.gz":
        path.write_bytes(gzip.compress(lines.encode()))
    elif form == "json":
        path.write_text(json.dumps(ROWS, indent=1))
    elif form == "parquet":
        pq.write_table(pa.Table.from_pylist(ROWS), path)
    elif form == "jsonl.zst":
        with pa.CompressedOutputStream(str(path), "zstd") as stream:
            stream.write(lines.encode())
    else:
        path.write_text("id,text,n\nx,One small text.,3\ny, ,\n,No id here.,\n")
    return path


@pytest.mark.parametrize("form", ["jsonl", "jsonl.gz", "jsonl.zst", "json", "parquet", "csv"])
def test_all_forms_of_a_table_give_the_same_entries(tmp_path: Path, form: str) -> None:
    name = f"rows.{form}"
    first, empty, last = entries(write(tmp_path / name, form))
    assert isinstance(first, Document)
    assert (first.text, first.uri, first.attributes["n"]) == ("One small text.", f"{name}#x", "3")
    assert isinstance(empty, Refused)
    assert empty.reason == "empty"
    assert isinstance(last, Document)
    assert last.uri == f"{name}#2"


def test_columns_are_mapped(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text('{"key": 5, "content": "Text.", "when": "2020-01-02"}\n')
    (document,) = entries(path, columns={"id": "key", "text": "content", "created": "when"})
    assert isinstance(document, Document)
    assert (document.text, document.uri) == ("Text.", "rows.jsonl#5")
    assert document.created is not None
    assert document.created.year == 2020


@pytest.mark.parametrize(
    ("content", "kinds"),
    [
        ('{"text": "a"}\n{"text": \n{"text": "b"}\n', ["Document", "Quarantined", "Document"]),
        ('{"text": "a"}\n[1]\n"x"\n', ["Document", "Quarantined", "Quarantined"]),
        ('[{"text": "a"}, {"text": "b"', ["Document", "Quarantined"]),
        ('[{"text": "a"} {"text": "b"}]', ["Document", "Quarantined"]),
        ('[{"text": "a"},\n', ["Document", "Quarantined"]),
        ('{"text": 5}\n', ["Refused"]),
        ('{"other": "a"}\n', ["Refused"]),
        ("[" * 100_000 + "\n", ["Quarantined"]),
        ("\n\n", []),
    ],
)
def test_malformed_rows_are_quarantined_and_reading_goes_on(tmp_path: Path, content: str, kinds: list[str]) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text(content)
    assert [type(entry).__name__ for entry in entries(path)] == kinds


def test_a_quarantined_row_says_where_it_lies(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text('{"text": "a"}\n{broken}\n')
    lost = entries(path)[1]
    assert isinstance(lost, Quarantined)
    assert path.read_bytes()[lost.offset : lost.offset + lost.length] == b"{broken}"


def test_rows_with_one_id_stay_apart(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text('{"id": 1, "text": "a"}\n{"id": 1, "text": "b"}\n')
    assert [entry.uri for entry in entries(path) if isinstance(entry, Document)] == ["rows.jsonl#1", "rows.jsonl#1~1"]


def test_csv_rows_of_another_width_are_quarantined(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_text('id,text\n1,a\n2\n3,"two\nlines"\n')
    found = entries(path)
    assert [type(entry).__name__ for entry in found] == ["Document", "Quarantined", "Document"]
    last = found[2]
    assert isinstance(last, Document)
    assert last.text == "two\nlines"
    assert path.read_bytes()[last.offset :] == b'3,"two\nlines"\n'


def test_a_damaged_parquet_file_is_quarantined(tmp_path: Path) -> None:
    path = write(tmp_path / "rows.parquet", "parquet")
    path.write_bytes(path.read_bytes()[:-20])
    assert [type(entry).__name__ for entry in entries(path)] == ["Quarantined"]


def test_a_truncated_gzip_gives_the_rows_before_the_damage(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl.gz"
    whole = gzip.compress("".join(json.dumps({"text": f"row {n} {n**7}"}) + "\n" for n in range(500)).encode())
    path.write_bytes(whole[: len(whole) // 2])
    found = entries(path)
    assert 100 < sum(isinstance(entry, Document) for entry in found) < 400
    assert any(isinstance(entry, Quarantined) and entry.reason == "truncated" for entry in found)


def test_a_text_file_is_one_document(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("Line one.\nLine two.\n")
    (document,) = entries(path)
    assert isinstance(document, Document)
    assert document.text == "Line one.\nLine two.\n"
    assert form("x/a.JSONL.gz") == "json"


@pytest.mark.parametrize(
    ("name", "column"),
    [("llamafactory-c4_demo.jsonl.gz", "text"), ("llmfoundry-arxiv.jsonl.gz", "text"),
     ("datajuicer-stack_exchange.jsonl.gz", "text"), ("chinesewebtext-2021-43-cleared1.jsonl.gz", "text")],
)  # fmt: skip
def test_every_row_of_the_real_tables_is_accounted_for(samples: Path, name: str, column: str) -> None:
    path = samples / "text" / name
    rows = [json.loads(line) for line in gzip.decompress(path.read_bytes()).split(b"\n") if line.strip()]
    found = entries(path)
    assert len(found) == len(rows)
    assert sum(isinstance(entry, Document) for entry in found) == sum(
        bool(str(r.get(column, "")).strip()) for r in rows
    )
