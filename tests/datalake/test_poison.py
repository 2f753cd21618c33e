"""A record that is poison costs itself: the records before and behind it are there, whatever it is made of."""

from __future__ import annotations

import gzip
import io
import json
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from test_common_crawl import record, response

from datalake.document import Conversation, Document, Entry, Passed, Preference, Quarantined
from datalake.errors import UserError
from datalake.origin import REASON, Origin
from datalake.sources import config_of, reader
from datalake.tables import TABLES, storable, to_table

TEXT = "The quiet river crossed the old stone bridge near the village. " * 10
DIGITS = "9" * 5_000


def read(kind: str, path: Path, **options: Any) -> list[Entry]:
    """What a source makes of a path; everything of it goes into its table."""
    config = config_of(kind)(paths=[str(path)], **options)
    module = reader(kind)
    found = [entry for shard in module.archives(config) for entry in module.read(shard, config)]
    for entry in found:
        if not isinstance(entry, Passed):
            to_table([entry], TABLES[type(entry)][1]).to_pylist()
    return found


def taken(found: list[Entry]) -> list[Any]:
    return [entry for entry in found if isinstance(entry, Document | Conversation | Preference)]


def page(title: str, text: str, stamp: str = "2014-07-23T10:35:56Z") -> str:
    return (
        f"<page><title>{title}</title><ns>0</ns><id>5</id><revision><id>1</id><timestamp>{stamp}</timestamp>"
        f"<model>wikitext</model><text>{text}</text></revision></page>\n"
    )


def dump(path: Path, *pages: str, lang: str = "en", head: str = "") -> Path:
    file = path / "dump.xml"
    opening = f'<mediawiki xml:lang="{lang}"><siteinfo><dbname>{lang}wiki</dbname>{head}</siteinfo>\n'
    around = [page("First", TEXT), *pages, page("Last", TEXT)]
    file.write_text(f"{opening}{''.join(around)}</mediawiki>", "utf-8", "surrogatepass")
    return file


def crawl(path: Path, *records: bytes) -> Path:
    file = path / "a.warc.gz"
    html = response(f"<html><p>{TEXT}</p></html>".encode())
    good = [record("response", html, f"http://{name}.example/") for name in ("first", "last")]
    file.write_bytes(b"".join(gzip.compress(one) for one in (good[0], *records, good[1])))
    return file


GOOD_ROWS = {
    "table": {"text": TEXT},
    "conversations": {"prompt": "What is it?", "response": "A river."},
    "preferences": {"prompt": "What is it?", "chosen": "A river.", "rejected": "A stone."},
}


def rows(path: Path, kind: str, *lines: Any) -> Path:
    file = path / "rows.jsonl"
    good = json.dumps(GOOD_ROWS[kind])
    texts = [line if isinstance(line, str) else json.dumps(line) for line in lines]
    file.write_text("\n".join([good, *texts, good, ""]), "utf-8")
    return file


# The net -----------------------------------------------------------------------------------------------------------


ORIGIN = Origin("source", "kind", "archive")


class Cut:
    def __init__(self, number: int) -> None:
        self.offset, self.length, self.name = 10 * number, 10, f"record {number}"


def made(record: Cut) -> Document:
    return Document(id=bytes(16), text="x", source="s", uri=record.name)


@pytest.mark.parametrize(
    "error",
    [ValueError("odd"), RecursionError("deep"), MemoryError(), StopIteration(), AssertionError(), OSError("odd")],
)
def test_what_one_record_raises_costs_that_record(error: Exception) -> None:
    def make(record: Cut) -> Iterator[Document]:
        yield made(record)
        if record.offset == 10:
            raise error

    found = list(ORIGIN.entries([Cut(0), Cut(1), Cut(2)], make))
    assert [entry.uri for entry in taken(found)] == ["record 0", "record 2"]
    lost = found[1]
    assert isinstance(lost, Quarantined)
    assert (lost.source, lost.archive, lost.reason, lost.offset, lost.length) == (
        "source",
        "archive",
        REASON,
        10,
        10,
    )
    assert lost.detail.startswith("record 1: ")


def test_what_the_cutting_raises_costs_what_is_left() -> None:
    def cut() -> Iterator[Cut]:
        yield Cut(0)
        raise KeyError("damage")

    found = list(ORIGIN.entries(cut(), made))
    assert [type(entry) for entry in found] == [Document, Quarantined]
    assert "KeyError" in found[1].detail  # type: ignore[union-attr]


@pytest.mark.parametrize("error", [UserError("correct it"), OSError(5, "the disk"), ImportError("no such library")])
def test_what_is_not_the_records_goes_up(error: Exception) -> None:
    def fail(*_: object) -> Any:
        raise error

    with pytest.raises(type(error)):
        list(ORIGIN.entries([Cut(0)], fail))
    with pytest.raises(type(error)):
        list(ORIGIN.framed(map(fail, [1])))


def test_an_entry_that_no_table_holds_is_quarantined_and_its_neighbours_are_stored() -> None:
    good = Document(id=bytes(16), text="x", source="s", uri="u")
    odd = Document(id=bytes(16), text="x", source="s", uri=3, offset=7)  # type: ignore[arg-type]
    kept, table, lost = storable([good, odd, good], TABLES[Document][1])
    assert (len(kept), table.num_rows, len(lost)) == (2, 2, 1)
    assert (lost[0].reason, lost[0].offset) == ("unexpected", 7)


# Every reader ------------------------------------------------------------------------------------------------------

ODD_TEMPLATES = [
    "{{convert|" + "9" * 400 + "|km|mi}}",
    "{{convert|" + DIGITS + "|km|mi}}",
    "{{convert|" + "9" * 400 + "/3|km|mi}}",
    "{{convert|" + DIGITS + "/" + DIGITS + "|km|mi}}",
    "{{convert|"
    + "9" * 309
    + "|m|ftin}} {{convert|5|ft|"
    + "9" * 400
    + "|in}} {{convert|9e99|km|mi}} {{convert|.|km}}",
    "{{convert|9e99|ly|in}} {{convert|0|C|F}} {{convert|-273.15|C|F}} {{convert|9e-99|km|mi}} {{convert|1/0|km}}",
    "{{convert|" + "9" * 308 + "|C|F|sigfig=3}} {{convert|1|m|ft|" + DIGITS + "}}",
    "{{cvt|"
    + DIGITS
    + "|m}} {{height|m="
    + DIGITS
    + "}} {{height|ft="
    + DIGITS
    + "|in=1}} {{weight|kg="
    + DIGITS
    + "}}",
    "{{formatnum:" + DIGITS + "}} {{val|" + DIGITS + "}} {{val|-" + DIGITS + ".5}} {{US patent|" + DIGITS + "}}",
    "{{birth date|1990|" + DIGITS + "|3}} {{birth date|1990|5|" + DIGITS + "}} {{date|1|" + DIGITS + "|2000}}",
    "{{age|1|2|3|" + DIGITS + "|1|1}} {{birth date and age|" + DIGITS + "|1|1}} {{as of|" + DIGITS + "}}",
    "{{sigfig|1.5|99999999}} {{sigfig|1e999|3}} {{sigfig|nan|3}} {{sigfig|1.5|2000000000}} {{sigfig|1|" + DIGITS + "}}",
    "{{pop density|1e308|1e-308|km2}} {{pop density|nan|1|km2}} {{pop density|inf|inf|km2}} {{pop density|1|0|km2}}",
    "{{birth date|1990|\u0665|\u00b2}} {{convert|\u0665|km}} {{ubl|\u00b2=a|1=b|" + DIGITS + "=c}}",
    "a &amp;#57344;" + DIGITS + "&amp;#57345; b &amp;#xe000;7&amp;#xe001; &amp;#xe004;",
    "&amp;#55296; &amp;#x110000; &amp;#0; &amp;#" + DIGITS + "; &amp;#x" + DIGITS + "; &amp;#" + "0" * 5_000 + "65;",
    "<nowiki>&amp;amp;#" + DIGITS + ";</nowiki> <math>" + DIGITS + "</math>".replace("<", "&lt;"),
]


@pytest.mark.parametrize("lang", ["en", "zh", "fr", "ko"])
@pytest.mark.parametrize("template", ODD_TEMPLATES, ids=range(len(ODD_TEMPLATES)))
def test_a_page_with_odd_numbers_is_read(tmp_path: Path, template: str, lang: str) -> None:
    text = template.replace("<nowiki>", "&lt;nowiki&gt;").replace("</nowiki>", "&lt;/nowiki&gt;")
    found = read("wikipedia", dump(tmp_path, page("Odd", f"It is {text.replace('<math>', '')}. {TEXT}"), lang=lang))
    assert [entry.attributes["title"] for entry in taken(found)] == ["First", "Odd", "Last"]
    assert not any("\ue000" <= character <= "\ue005" for entry in taken(found) for character in entry.text)


def test_numbers_of_sentences_are_written_as_before(tmp_path: Path) -> None:
    text = "{{convert|10|km|mi}}, {{convert|5|ft|10|in}}, {{formatnum:1234567}}, {{birth date|1990|05|03}}, "
    text += "&amp;eacute;&amp;#233;"
    found = read("wikipedia", dump(tmp_path, page("Some", f"{text} {TEXT}")))
    said = "10 kilometres (6.2 mi), 5 ft 10 in (1.78 m), 1,234,567, May 3, 1990, éé"
    assert taken(found)[1].text.startswith(said)


@pytest.mark.parametrize("head", ['<namespace key="' + DIGITS + '">A</namespace>', "<base>&#" + DIGITS + ";/x</base>"])
def test_an_odd_head_costs_no_page(tmp_path: Path, head: str) -> None:
    assert len(taken(read("wikipedia", dump(tmp_path, head=head)))) == 2


STAMPS = {
    "0001-01-01T00:00:00+14:00": None,
    "9999-12-31T23:59:59-14:00": None,
    "0001-01-01T00:00:00Z": 1,
    "2014-W05": 2014,
    "20140723": 2014,
    "9" * 5_000: None,
}


@pytest.mark.parametrize(("stamp", "year"), STAMPS.items(), ids=[stamp[:30] for stamp in STAMPS])
def test_a_time_that_overflows_is_null(tmp_path: Path, stamp: str, year: int | None) -> None:
    block = response(f"<html><p>{TEXT}</p></html>".encode())
    odd = record("response", block, "http://odd.example/").replace(
        b"\r\n\r\n", f"\r\nWARC-Date: {stamp}\r\n\r\n".encode(), 1
    )
    web = taken(read("common_crawl", crawl(tmp_path, odd)))
    wiki = taken(read("wikipedia", dump(tmp_path, page("Odd", TEXT, stamp))))
    row = taken(read("table", rows(tmp_path, "table", {"text": TEXT, "at": stamp}), columns={"created": "at"}))
    for found in (web, wiki, row):
        assert len(found) == 3
    for created in (wiki[1].created, row[1].created):
        assert (created and created.year) == year


LONE = '"\\ud800"'
NESTED = "[" * 100_000 + "]" * 100_000
ODD_ROWS: dict[str, list[tuple[str, Any]]] = {
    "table": [
        ("a surrogate as key", '{"text": "river", "\\ud800": "x", "\\ud801": "y"}'),
        ("a NUL in a key", '{"text": "river", "a\\u0000b": "x"}'),
        ("surrogates in values", f'{{"id": {LONE}, "text": "river \\ud800", "url": {LONE}, "language": {LONE}}}'),
        ("a surrogate in a nested key", '{"text": "river", "meta": {"\\ud800": {"\\ud800": 1}, "b": "\\udfff"}}'),
        ("times", '{"text": "river", "created": 1e400, "timestamp": -1e18, "date": 253402300800}'),
        ("an address", '{"text": "river", "url": "http://[::1"}'),
        ("a port", '{"text": "river", "url": "http://a:99999999/\\u2100"}'),
        ("a literal", json.dumps({"text": "river", "meta": "{1:" + "(" * 5_000 + ")" * 5_000 + "}"})),
        ("a literal's power", json.dumps({"text": "river", "meta": "{1: 9**9**9}"})),
        ("a literal's number", json.dumps({"text": "river", "meta": "{1: " + DIGITS + "}"})),
        ("licences", json.dumps({"text": "river", "license": ["MIT", None, {"a": 1}]})),
        ("many keys", json.dumps({"text": "river", **{f"k{number}": number for number in range(10_000)}})),
        ("a list as text", '{"text": ["a", "\\ud800"]}'),
        ("an object as text", '{"text": {"a": 1}}'),
        ("no object", "[1]"),
        ("null", "null"),
        ("a number", DIGITS),
        ("a number of 5,000 digits in a field", '{"text": "a", "n": ' + DIGITS + "}"),
        ("brackets", '{"text": "a", "x": ' + NESTED + "}"),
        ("objects", '{"text":' + '{"a":' * 5_000 + "1" + "}" * 5_000 + "}"),
        ("bytes that are no UTF-8", '{"text": "caf\udce9"}'),
    ],
    "conversations": [
        ("a surrogate as key", '{"prompt": "a", "response": "b", "\\ud800": "c"}'),
        ("surrogates in values", f'{{"prompt": {LONE}, "response": {LONE}, "id": {LONE}, "language": {LONE}}}'),
        *[
            (f"types {number}", row)
            for number, row in enumerate(
                [
                    {"messages": "x"}, {"messages": [1, None]}, {"messages": [{"role": {"a": 1}, "content": 3}]},
                    {"conversations": [{"from": "human", "value": {"a": 1}}]}, {"instruction": None, "output": None},
                    {"instruction": ["a"], "output": "b"}, {"instruction": {"a": 1}, "instances": 3},
                    {"instruction": "a", "instances": [1, None, {}]}, {"prompt": {"a": 1}, "replies": 2},
                    {"prompt": {"text": "a", "replies": [{"text": 3, "rank": "x", "replies": {}}], "role": "prompter"}},
                    {"prompt": {"text": "a", "replies": [{"text": "b", "rank": 10**400, "role": "assistant"}],
                                "role": "prompter"}},
                    {"chat": 5}, {"history": 5, "instruction": "a", "output": "b"},
                    {"history": {"a": 1}, "instruction": "a", "output": "b"}, {"data": [["a"]]}, {"data": 3},
                    {"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "", "tool_calls": [
                        {"function": {"name": "x", "arguments": "{" * 5_000}}]}]},
                    {"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}], "tools": 7},
                    {"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}],
                     "tools": [[[]]], "license": {"a": 1}, "language": ["x"], "id": {"a": [1]}},
                    {"prompt": "a", "response": "b", "system": 3, "input": [1]},
                ]
            )
        ],
        ("a message", {"message_id": None, "parent_id": {"a": 1}, "text": "x", "role": "prompter"}),
        ("a list as id", {"message_id": ["a"], "parent_id": None, "text": "x", "role": "prompter"}),
        ("its own parent", {"message_id": "a", "parent_id": "a", "text": "x", "role": "assistant"}),
        ("a rank", {"message_id": "b", "parent_id": "c", "text": None, "role": 3, "rank": True}),
        ("a tree", {"message_id": "c", "parent_id": "b", "text": "x", "role": "x", "message_tree_id": {"x": 1}}),
    ],
    "preferences": [
        ("a surrogate as key", '{"prompt": "a", "chosen": "b", "rejected": "c", "\\ud800": "c"}'),
        ("surrogates in values", f'{{"prompt": {LONE}, "chosen": {LONE}, "rejected": "b"}}'),
        *[
            (f"types {number}", row)
            for number, row in enumerate(
                [
                    {"chosen": 1, "rejected": 2}, {"chosen": [1], "rejected": [2]}, {"chosen": "", "rejected": ""},
                    {"chosen": {"role": "assistant"}, "rejected": None, "prompt": "a"},
                    {"prompt": [{"role": "x"}], "chosen": "a", "rejected": "b"},
                    {"prompt": [], "chosen": [], "rejected": []},
                    {"prompt": "a", "completion": "b", "label": "x"}, {"prompt": [], "label": True},
                    {"conversations": 3, "chosen": {"value": "a"}, "rejected": {"value": "b"}},
                    {"question": "a", "response_chosen": None},
                    {"prompt": "a", "completions": [1, None, {"score": "x"}]},
                    {"prompt": "a", "completions": [{"response": 3, "score": 1}, {"response": "b", "score": 10**400}]},
                    {"prompt": "a", "completions": [{"response": "x", "score": 1e308}, {"response": "b", "score": -1}]},
                    {"history": "a", "human_ref_A": "b", "human_ref_B": "c", "labels": [1], "score_ratio": "x"},
                    {"history": 1, "human_ref_A": "b", "human_ref_B": "c", "labels": 1.0, "score_ratio": 10**400},
                    {"prompt": "a", "response_0": 1, "response_1": None, "better_response_id": {"a": 1}},
                ]
            )
        ],
    ],
}  # fmt: skip
CASES = [pytest.param(kind, row, id=f"{kind}: {name}") for kind, cases in ODD_ROWS.items() for name, row in cases]


@pytest.mark.parametrize(("kind", "row"), CASES)
def test_an_odd_row_leaves_its_neighbours(tmp_path: Path, kind: str, row: Any) -> None:
    file = tmp_path / "rows.jsonl"
    good = json.dumps(GOOD_ROWS[kind])
    text = row if isinstance(row, str) else json.dumps(row)
    file.write_bytes(f"{good}\n{text}\n{good}\n".encode("utf-8", "surrogateescape"))
    found = [entry for entry in read(kind, file) if not isinstance(entry, Passed)]
    assert len(found) >= 3, "each row is an entry"
    assert taken(found)[0].offset == 0
    assert taken(found)[-1].offset == len(f"{good}\n{text}\n".encode("utf-8", "surrogateescape"))
    assert not any(isinstance(entry, Quarantined) and entry.reason == REASON for entry in found), "mended at its root"


def test_a_surrogate_in_a_key_is_replaced() -> None:
    entry = Document(id=bytes(16), text="x", source="s", uri="u", attributes={"\ud800": "\udfff", "a": "b"})
    assert to_table([entry], TABLES[Document][1]).to_pylist()[0]["attributes"] == [("?", "?"), ("a", "b")]


def test_a_number_that_no_column_holds_is_unknown() -> None:
    entry = Quarantined("s", "a", "damaged", "", offset=1 << 70, length=-5)
    row = to_table([entry], TABLES[Quarantined][1]).to_pylist()[0]
    assert (row["offset"], row["length"]) == (-1, -1)


@pytest.mark.parametrize(
    "name", ["undefined", "idna", "punycode", "unicode_escape", "raw-unicode-escape", "rot13", "zip", "-"]
)
def test_a_declared_encoding_that_is_none_is_not_used(tmp_path: Path, name: str) -> None:
    words = b"caf\xe9 \\ud800 river bridge\n" * 50
    (tmp_path / "a.txt").write_bytes(b"Character set encoding: " + name.encode() + b"\n\n" + words)
    (book,) = read("books", tmp_path / "a.txt")
    assert isinstance(book, Document)
    assert "café \\ud800 river" in book.text
    folder = tmp_path / "code"
    folder.mkdir()
    (folder / "odd.py").write_bytes(b"# coding: " + name.encode() + b"\nx = '\xe9\\ud800'\n")
    (folder / "good.py").write_text("x = 1\n")
    good, odd = read("code", folder)
    assert isinstance(good, Document)
    assert isinstance(odd, Document)
    assert odd.text.endswith("x = 'é\\ud800'\n")


ODD_PAGES: list[Callable[[], bytes]] = [
    lambda: record("response", response(b"<title>a\0b\xed\xa0\x80</title><p>river</p>"), "http://odd.example/"),
    lambda: record("response", response(b"<p>river</p>"), "http://odd.example:99999999999/["),
    lambda: record("response", response(b"<p>river</p>"), "http://[::1"),
    lambda: record("response", response(b"<p>river</p>"), "http://odd.example/" + "a" * 60_000),
    lambda: record("response", response(b"<meta charset=undefined><p>\xff\xfe\x80 abc</p>" * 30)),
    lambda: record("response", b"HTTP/1.1 \xb2\xb2\xb2 OK\r\nContent-Type: text/html\r\n\r\n<p>river</p>"),
    lambda: b"WARC/1.0\r\nWARC-Type: response\r\nContent-Length: " + DIGITS.encode() + b"\r\n\r\nabc",
    lambda: record(
        "response",
        b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Encoding: "
        + b", ".join([b"gzip", b"br", b"zstd"] * 500)
        + b"\r\n\r\n<p>river</p>",
    ),
]


@pytest.mark.parametrize("odd", ODD_PAGES, ids=range(len(ODD_PAGES)))
def test_an_odd_record_of_a_crawl_leaves_its_neighbours(tmp_path: Path, odd: Callable[[], bytes]) -> None:
    found = read("common_crawl", crawl(tmp_path, odd()))
    uris = [entry.uri for entry in taken(found)]
    assert uris[0] == "http://first.example/"
    assert uris[-1] == "http://last.example/"
    assert len(found) == 3


def _tar(path: Path, *members: tuple[str, bytes]) -> Path:
    file = path / "a.tar"
    with tarfile.open(file, "w") as archive:
        for name, content in members:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return file


def _zip(path: Path, *members: tuple[str, bytes]) -> Path:
    file = path / "a.zip"
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members:
            archive.writestr(name, content)
    return file


def _folder(path: Path, *members: tuple[str, bytes]) -> Path:
    root = path / "folder"
    for name, content in members:
        file = root / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)
    return root


ODD_CODE = [
    ("caf\udce9.py", b"x = 1\n"),
    ("a\nb.py", b"y = 1\n"),
    ("pyproject.toml", b"a = " + b"[" * 100_000),
    ("package.json", b"[" * 100_000),
    ("sub/pyproject.toml", b"[project]\nlicense = {text = 3}\nclassifiers = {a=1}\n"),
    ("sub/package.json", b'{"license": ["\\ud800"]}'),
    ("PKG-INFO", b"License: \xff\xfe\n"),
    ("spdx.py", b"# SPDX-License-Identifier: " + b"(" * 3_000 + b"MIT" + b")" * 3_000 + b"\n"),
    ("spdx.py", b"# SPDX-License-Identifier: MIT AND not MIT or __import__('os')\n"),
    ("deep.py", b"(" * 100_000),
    ("imports.py", b"from " + b"." * 5_000 + b" import a\n" + b"import a\n" * 5_000),
]


@pytest.mark.parametrize("pack", [_tar, _zip, _folder])
@pytest.mark.parametrize(
    ("name", "content"), ODD_CODE, ids=[f"{n} {name[:12]!r}" for n, (name, _) in enumerate(ODD_CODE)]
)
def test_an_odd_file_leaves_its_neighbours(
    tmp_path: Path, name: str, content: bytes, pack: Callable[..., Path]
) -> None:
    if pack is _zip and "\udce9" in name:
        pytest.skip("a zip's names are UTF-8")
    file = pack(tmp_path, ("a.py", b"x = 1\n"), (name, content), ("z.py", b"y = 2\n"))
    for options in ({}, {"permissive_only": True, "licence": "MIT"}, {"concatenate": "repository"}):
        found = read("code", file, **options)
        assert not any(isinstance(entry, Quarantined) for entry in found)
        if not options:
            assert {entry.attributes["path"] for entry in taken(found)} >= {"a.py", "z.py"}


def test_odd_columns_of_parquet_leave_their_rows(tmp_path: Path) -> None:
    table = pa.table(
        {
            "text": ["river"] * 3,
            "created": pa.array([0, 2**62, -(2**62)], pa.timestamp("us")),
            "n": pa.array([1, 2, 3], pa.decimal128(38, 0)),
            "d": pa.array([b"\xff", b"a", None], pa.binary()),
            "dur": pa.array([1, 2, 2**62], pa.duration("s")),
        }
    )
    pq.write_table(table, tmp_path / "a.parquet")
    found = read("table", tmp_path / "a.parquet", columns={"created": "created"})
    assert [(type(entry), entry.created is None) for entry in taken(found)] == [  # type: ignore[comparison-overlap]
        (Document, False),
        (Document, True),
        (Document, True),
    ]


class PoisonError(Exception):
    """Something that no reader foresees."""


DETECT = "datalake.origin.detect"
UNFORESEEN = {
    "common_crawl": (DETECT, partial(crawl)),
    "wikipedia": (DETECT, partial(dump)),
    "table": (DETECT, lambda path: rows(path, "table")),
    "conversations": (DETECT, lambda path: rows(path, "conversations")),
    "preferences": (DETECT, lambda path: rows(path, "preferences")),
    "books": (
        DETECT,
        lambda path: _zip(path, ("a.txt", b"river"), ("b.txt", b"bridge")),
    ),
    "code": (
        "datalake.sources.code.files.header_licence",
        lambda path: _folder(path, ("a.py", b"x=1"), ("b.py", b"y=1")),
    ),
    "code in a tar": (
        "datalake.sources.code.files.header_licence",
        lambda path: _tar(path, ("a.py", b"x=1"), ("b.py", b"y=1")),
    ),
}


@pytest.mark.parametrize("kind", UNFORESEEN)
def test_what_no_reader_foresees_costs_one_record(tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    place, build = UNFORESEEN[kind]
    module, _, name = place.rpartition(".")
    real = getattr(__import__(module, fromlist=[name]), name)
    asked: list[object] = []

    def once(*args: Any, **options: Any) -> Any:
        asked.append(args)
        if len(asked) == 1:
            raise PoisonError("never seen before")
        return real(*args, **options)

    monkeypatch.setattr(place, once)
    found = [entry for entry in read(kind.partition(" ")[0], build(tmp_path)) if not isinstance(entry, Passed)]
    assert [type(entry) is Quarantined for entry in found] == [True, False]
    lost = found[0]
    assert isinstance(lost, Quarantined)
    assert (lost.reason, "PoisonError: never seen before" in lost.detail) == (REASON, True)
