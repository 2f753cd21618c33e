"""Tables give one entry a row; malformed rows are quarantined, rows without text refused."""

from __future__ import annotations

import gzip
import io
import json
import lzma
import tarfile
import zipfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from datalake.document import Document, Entry, Passed, Quarantined, Refused
from datalake.formats.rows import files as row_files
from datalake.sources.tables.config import Table
from datalake.sources.tables.table import archives, form, read
from datalake.text.charsets import streamed

ROWS = [{"id": "x", "text": "One small text.", "n": 3}, {"id": "y", "text": " "}, {"text": "No id here."}]


def entries(path: Path, **options: object) -> list[Entry]:
    config = Table.model_validate({"paths": [str(path)], **options})
    return [entry for shard in archives(config) for entry in read(shard, config)]


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
     ("datajuicer-stack_exchange.jsonl.gz", "text"), ("chinesewebtext-2021-43-cleared1.jsonl.gz", "raw_content")],
)  # fmt: skip
def test_every_row_of_the_real_tables_is_accounted_for(samples: Path, name: str, column: str) -> None:
    path = samples / "text" / name
    rows = [json.loads(line) for line in gzip.decompress(path.read_bytes()).split(b"\n") if line.strip()]
    found = entries(path, format="auto")
    assert [entry.text for entry in found if isinstance(entry, Document)] == [row[column] for row in rows]


def packed(folder: Path) -> list[Path]:
    """The same three files of rows in archives of all kinds, also within each other."""
    lines = "".join(json.dumps(row) + "\n" for row in ROWS).encode()
    parquet = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(ROWS), parquet)
    members = {"a/x.jsonl": lines, "a/y.jsonl.gz": gzip.compress(lines), "b/z.parquet": parquet.getvalue(),
               "README": b"about", "b/.hidden.jsonl": b"{}"}  # fmt: skip

    def tar(mode: str) -> bytes:
        out = io.BytesIO()
        with tarfile.open(fileobj=out, mode=mode) as archive:  # type: ignore[call-overload]
            for name, content in members.items():
                info = tarfile.TarInfo(name)
                info.size = len(content)
                archive.addfile(info, io.BytesIO(content))
            for name, kind in (("link.jsonl", tarfile.SYMTYPE), ("pipe.jsonl", tarfile.FIFOTYPE)):
                info = tarfile.TarInfo(name)
                info.type, info.linkname = kind, "/etc/passwd"
                archive.addfile(info)
        return out.getvalue()

    def archive(files: dict[str, bytes]) -> bytes:
        out = io.BytesIO()
        with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as target:
            for name, content in files.items():
                target.writestr(name, content)
        return out.getvalue()

    made = {"rows.zip": archive(members), "rows.tar": tar("w"), "rows.tar.gz": tar("w:gz"), "rows.tar.xz": tar("w:xz"),
            "outer.zip": archive({"inner.tar.bz2": tar("w:bz2")}),
            "subset_data.xz": lzma.compress(tar("w"))}  # fmt: skip
    for name, content in made.items():
        (folder / name).write_bytes(content)
    return sorted(folder / name for name in made)


def test_archives_of_all_kinds_give_the_rows_of_their_files(tmp_path: Path) -> None:
    for path in packed(tmp_path):
        found = entries(path)
        documents = [entry for entry in found if isinstance(entry, Document)]
        assert [entry.text for entry in documents] == ["One small text.", "No id here."] * 3, path.name
        prefix = f"{path.name}/inner.tar.bz2" if path.name == "outer.zip" else path.name
        assert documents[0].uri == f"{prefix}/a/x.jsonl#x"
        assert documents[5].uri == f"{prefix}/b/z.parquet#2"
        assert len({entry.id for entry in documents}) == 6
        assert {entry.type for entry in found if isinstance(entry, Passed)} <= {"other_file", "link", "special"}
        assert not any(isinstance(entry, Quarantined) for entry in found)


def test_names_that_leave_an_archive_are_quarantined(tmp_path: Path) -> None:
    members = {"../out.jsonl": b"{}", "/tmp/out.jsonl": b"{}", "in.jsonl": b'{"text": "a"}'}
    with zipfile.ZipFile(tmp_path / "rows.zip", "w") as target, tarfile.open(tmp_path / "rows.tar", "w") as tar:
        for name, content in members.items():
            target.writestr(name, content)
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    for name in ("rows.tar", "rows.zip"):
        *bad, good = entries(tmp_path / name)
        assert [entry.reason for entry in bad if isinstance(entry, Quarantined)] == ["path_traversal"] * 2
        assert isinstance(good, Document)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["rows.tar", "rows.zip"]


@pytest.mark.parametrize("name", ["rows.tar.gz", "rows.tar", "rows.zip", "outer.zip", "subset_data.xz"])
def test_an_archive_cut_anywhere_gives_what_is_before_the_cut(tmp_path: Path, name: str) -> None:
    packed(tmp_path)
    content = (tmp_path / name).read_bytes()
    whole = [entry.id for entry in entries(tmp_path / name) if isinstance(entry, Document)]
    for cut in range(1, len(content) - 1, max(1, len(content) // 25)):
        path = tmp_path / "cut" / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(content[:cut])
        found = entries(path)
        ids = [entry.id for entry in found if isinstance(entry, Document)]
        assert ids == whole[: len(ids)]
        if len(ids) < len(whole):
            assert any(isinstance(entry, Quarantined) for entry in found), cut


def test_a_packed_member_beyond_the_limit_costs_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(row_files, "MAX_SPOOL", 10_000)
    with zipfile.ZipFile(tmp_path / "bomb.zip", "w", zipfile.ZIP_DEFLATED) as target:
        target.writestr("bomb.jsonl.gz", bytes(100_000_000))
        target.writestr("in.jsonl.gz", gzip.compress(b'{"text": "a"}'))
    bomb, good = entries(tmp_path / "bomb.zip")
    assert isinstance(bomb, Quarantined)
    assert bomb.reason == "too_large"
    assert isinstance(good, Document)


def test_archives_within_archives_have_an_end(tmp_path: Path) -> None:
    content = b'{"text": "a"}'
    for depth in range(8):
        out = io.BytesIO()
        with zipfile.ZipFile(out, "w") as target:
            target.writestr("a.zip" if depth else "a.jsonl", content)
        content = out.getvalue()
    (tmp_path / "deep.zip").write_bytes(content)
    (entry,) = entries(tmp_path / "deep.zip")
    assert isinstance(entry, Quarantined)
    assert entry.reason == "nested"


def test_what_stands_behind_an_archive_is_told(tmp_path: Path) -> None:
    packed(tmp_path)
    content = (tmp_path / "rows.tar").read_bytes()
    (tmp_path / "rows.tar").write_bytes(content * 2)
    assert [entry.reason for entry in entries(tmp_path / "rows.tar") if isinstance(entry, Quarantined)] == ["damaged"]


def test_an_extended_header_beyond_reason_is_damage(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "a.tar.gz", "w:gz", format=tarfile.PAX_FORMAT) as archive:
        info = tarfile.TarInfo("a.jsonl")
        info.pax_headers = {"comment": "x" * (1 << 21)}
        archive.addfile(info)
    (entry,) = entries(tmp_path / "a.tar.gz")
    assert isinstance(entry, Quarantined)
    assert entry.reason == "damaged"


def test_a_text_file_can_be_lines_or_blocks(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("One.\nTwo.\n\n\nThree.\n")
    for unit, texts in (("line", ["One.", "Two.", "Three."]), ("block", ["One.\nTwo.", "Three."])):
        found = [entry for entry in entries(path, text_unit=unit) if isinstance(entry, Document)]
        assert [entry.text for entry in found] == texts
        assert [path.read_bytes()[e.offset : e.offset + e.length].decode() for e in found] == texts
        assert len({entry.id for entry in found}) == len(texts)


def test_a_block_beyond_the_limit_or_in_no_encoding_costs_itself(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes("Öl, größer, schön.\n\n".encode() + b"x\n" * 600_000 + b"\n\xff\n\nTwo.\n")
    found = entries(path, text_unit="block", max_bytes=1_000)
    assert [getattr(entry, "reason", "") for entry in found] == ["", "too_large", "encoding", ""]


def test_cells_can_be_parted_by_another_character(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("id;text\n1;a,b\n")
    (document,) = entries(path, delimiter=";")
    assert isinstance(document, Document)
    assert document.text == "a,b"


def test_a_poem_in_lines_is_one_text(samples: Path) -> None:
    path = samples / "text" / "chinese-poetry.tar.xz"
    found = entries(path, columns={"text": "paragraphs"})
    poems = [entry for entry in found if isinstance(entry, Document)]
    assert len(poems) > 1_000
    assert sum("\n" in poem.text for poem in poems) > 0.9 * len(poems)
    assert not any(isinstance(entry, Quarantined) and entry.reason != "row" for entry in found)


def test_texts_in_real_archives_are_accounted_for(samples: Path) -> None:
    path = samples / "text" / "inaugural.zip"
    with zipfile.ZipFile(path) as archive:
        texts = [info for info in archive.infolist() if info.filename.endswith(".txt")]
    found = entries(path)
    assert sum(isinstance(entry, Document) for entry in found) + sum(
        isinstance(entry, Quarantined) and entry.reason == "encoding" for entry in found
    ) == len(texts)


CHINESE = "河水在春天上涨，磨坊的轮子又开始转动。\n老人坐在桥边，看着水流过石头。\n"


@pytest.mark.parametrize(
    ("text", "encoding", "charset"),
    [
        ("Der Fluß an der Mühle ist tief.\n", "latin-1", "windows-1252"),
        (CHINESE, "gbk", "gb18030"),
        ("川の水は春に増え、水車がまた回り始めた。\n", "shift_jis", "shift_jis"),
        ("Вода в реке поднялась весной.\n", "cp1251", "windows-1251"),
        (CHINESE, "utf-8", None),
        (CHINESE, "utf-16", None),
    ],
)
@pytest.mark.parametrize("before", [0, 200])
def test_text_in_another_character_set_is_read_and_says_which(
    tmp_path: Path, text: str, encoding: str, charset: str | None, before: int
) -> None:
    lines = ["plain " * 200 + "\n"] * before + text.splitlines(keepends=True)
    (tmp_path / "a.txt").write_bytes("".join(lines).encode(encoding))
    cells = "".join(f'{number},"{line[:-1]}"\n' for number, line in enumerate(lines))
    (tmp_path / "a.csv").write_bytes(f"id,text\n{cells}".encode(encoding))
    (document,) = entries(tmp_path / "a.txt")
    assert isinstance(document, Document)
    assert (document.text, document.attributes.get("charset")) == ("".join(lines), charset)
    *_, row = entries(tmp_path / "a.csv")
    assert isinstance(row, Document)
    assert (row.text, row.attributes.get("charset")) == (lines[-1][:-1], charset)


@given(st.lists(st.integers(1, 9), max_size=60), st.sampled_from(["gbk", "shift_jis", "cp1251", "utf-8"]))
def test_where_a_stream_is_cut_changes_nothing(cuts: list[int], encoding: str) -> None:
    text = {"cp1251": "Вода в реке\nподнялась\n", "shift_jis": "川の水は\n春に増え\n"}.get(encoding, CHINESE)
    content = b"plain\n" * 3 + text.encode(encoding) * 3
    chunks, at = [], 0
    for cut in cuts:
        chunks.append(content[at : at + cut])
        at += cut
    names: list[str] = []
    out = b"".join(streamed(iter([*chunks, content[at:]]), names.append))
    assert out.decode() == "plain\n" * 3 + text * 3
    assert len(names) == (encoding != "utf-8")
