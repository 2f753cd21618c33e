"""Readers under inputs that are changed at random: they never raise, and every record is accounted for.

Valid input is changed as disks, crawlers and people change it: bytes flipped, cut out, put in twice; values of rows
replaced by others of any type. What comes out goes into its tables, as a run would store it.
"""

from __future__ import annotations

import bz2
import gzip
import io
import json
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import py7zr
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from test_common_crawl import record, response
from test_poison import TEXT, dump, page, read

from datalake.document import Passed, Quarantined

BRIEF = settings(
    max_examples=1200, deadline=None, database=None, suppress_health_check=list(HealthCheck)
)
WORDS = "The {{convert|10|km|mi}} river [[Bridge|bridge]] was '''old'''. {{birth date|1990|5|3}} {{val|1234567}} " * 3
DIALOGUES = [
    {"messages": [{"role": "user", "content": "What?"}, {"role": "assistant", "content": "A river."}]},
    {"instruction": "Say", "input": "it", "output": "A bridge.", "history": [["a", "b"]]},
    {"message_id": "a", "parent_id": None, "text": "What?", "role": "prompter", "rank": 0, "lang": "en"},
    {"message_id": "b", "parent_id": "a", "text": "A river.", "role": "assistant", "rank": 0, "lang": "en"},
]
PAIRS = [
    {"prompt": "What?", "chosen": "A river.", "rejected": "No."},
    {"chosen": "\n\nHuman: a\n\nAssistant: b", "rejected": "\n\nHuman: a\n\nAssistant: c"},
    {"prompt": "a", "completions": [{"response": "b", "score": 1}, {"response": "c", "score": 2}]},
    {"history": "a", "human_ref_A": "b", "human_ref_B": "c", "labels": 1, "score_ratio": 2.0},
]
ROWS = [
    {"id": 1, "text": TEXT, "url": "http://a.example/", "language": "en", "created": "2014-07-23", "meta": {"a": [1]}},
    {"id": "b", "text": "river", "meta": "{'pile_set_name': 'x'}", "license": ["MIT"]},
]
STACK = [
    {"content": "x = 1\n", "max_stars_repo_path": "a.py", "max_stars_repo_licenses": ["MIT"], "lang": "Python"},
    {"repo_name": "a/b", "files": [{"content": "y = 1\n", "path": "b.py"}, {"content": "z", "path": "c.py"}]},
]


def lines(rows: list[Any]) -> bytes:
    return b"".join(json.dumps(row).encode() + b"\n" for row in rows)


def crawl() -> bytes:
    html = response(f"<html><title>a</title><p>{TEXT}</p></html>".encode())
    return b"".join(record("response", html, f"http://{name}.example/") for name in "abc")


def wiki(folder: Path) -> bytes:
    return dump(folder, page("Odd", WORDS)).read_bytes()


def tarred(folder: Path) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        for name in ("a.py", "b.txt", "LICENSE"):
            info = tarfile.TarInfo(name)
            info.size = len(WORDS)
            archive.addfile(info, io.BytesIO(WORDS.encode()))
    return out.getvalue()


def zipped(folder: Path) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in ("a.py", "b.txt", "c.jsonl"):
            archive.writestr(name, lines(ROWS))
    return out.getvalue()


def seven(folder: Path) -> bytes:
    out = io.BytesIO()
    with py7zr.SevenZipFile(out, "w") as archive:
        archive.writestr(wiki(folder), "dump.xml")
    return out.getvalue()


def parquet(folder: Path) -> bytes:
    out = io.BytesIO()
    pq.write_table(pa.table({"text": [TEXT, "b"] * 9, "n": range(18), "list": [[1, 2]] * 18}), out, row_group_size=4)
    return out.getvalue()


BOOK = b"Title: A\nCharacter set encoding: ISO-8859-1\n*** START OF THE PROJECT GUTENBERG EBOOK ***\ncaf\xe9 " * 3
INPUTS: dict[str, tuple[str, str, Callable[[Path], bytes]]] = {
    "warc": ("common_crawl", "a.warc", lambda _: crawl()),
    "warc.gz": ("common_crawl", "a.warc.gz", lambda _: b"".join(map(gzip.compress, crawl().split(b"WARC/1.0")))),
    "warc.zst": ("common_crawl", "a.warc.zst", lambda _: zstandard.ZstdCompressor().compress(crawl())),
    "wiki": ("wikipedia", "a.xml", wiki),
    "wiki.bz2": ("wikipedia", "a.xml.bz2", lambda folder: bz2.compress(wiki(folder))),
    "wiki.7z": ("wikipedia", "a.xml.7z", seven),
    "jsonl": ("table", "a.jsonl", lambda _: lines(ROWS)),
    "json": ("table", "a.json", lambda _: json.dumps(ROWS, indent=1).encode()),
    "csv": ("table", "a.csv", lambda _: b'id,text\n1,"a ""quoted"" cell"\n2,bridge\n'),
    "parquet": ("table", "a.parquet", parquet),
    "zip of rows": ("table", "a.zip", zipped),
    "conversations": ("conversations", "a.jsonl", lambda _: lines(DIALOGUES)),
    "preferences": ("preferences", "a.jsonl", lambda _: lines(PAIRS)),
    "book": ("books", "a.txt", lambda _: BOOK),
    "books": ("books", "a.zip", zipped),
    "code": ("code", "a.zip", zipped),
    "code in a tar": ("code", "a.tar", tarred),
    "code in tar.gz": ("code", "a.tar.gz", lambda folder: gzip.compress(tarred(folder))),
    "stack": ("code", "a.jsonl", lambda _: lines(STACK)),
}
BUILT: dict[str, bytes] = {}
PLACE = st.floats(0, 1, exclude_max=True)
CHANGES = st.lists(
    st.tuples(st.sampled_from(["flip", "cut", "twice", "end", "put"]), PLACE, PLACE, st.binary(max_size=9))
)


def changed(content: bytes, changes: list[tuple[str, float, float, bytes]]) -> bytes:
    for kind, first, second, put in changes:
        begin = int(first * len(content))
        end = min(len(content), begin + 1 + int(second * 60))
        if kind == "flip" and content:
            content = content[:begin] + bytes([content[begin] ^ 1 << int(second * 8)]) + content[begin + 1 :]
        elif kind == "cut":
            content = content[:begin] + content[end:]
        elif kind == "twice":
            content = content[:end] + content[begin:]
        elif kind == "end":
            content = content[:begin]
        else:
            content = content[:begin] + put + content[begin:]
    return content


@pytest.mark.parametrize("name", INPUTS)
@BRIEF
@given(changes=CHANGES)
def test_damaged_bytes_never_raise(
    tmp_path_factory: pytest.TempPathFactory, name: str, changes: list[tuple[str, float, float, bytes]]
) -> None:
    kind, file, build = INPUTS[name]
    path = tmp_path_factory.mktemp("fuzz")
    if name not in BUILT:
        BUILT[name] = build(tmp_path_factory.mktemp("built"))
    (path / file).write_bytes(changed(BUILT[name], changes))
    found = read(kind, path / file)  # stores each of them
    for entry in found:
        if isinstance(entry, Quarantined):
            assert entry.reason != "unexpected", entry.detail


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(), max_size=9)
    | st.sampled_from(["\ud800", "\0", "9" * 400, 10**400, 1e308, -1, "1e999", "2014-07-23", "user", "assistant", ""]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)  # fmt: skip
VALUES = {"table": ROWS, "conversations": DIALOGUES, "preferences": PAIRS, "code": STACK}


@pytest.mark.parametrize("kind", VALUES)
@BRIEF
@given(data=st.data())
def test_rows_of_any_values_are_one_entry_or_more(
    tmp_path_factory: pytest.TempPathFactory, kind: str, data: st.DataObject
) -> None:
    good = VALUES[kind]
    row = dict(data.draw(st.sampled_from(good)))
    for key in data.draw(st.lists(st.sampled_from(sorted(row)), min_size=1, max_size=3)):
        row[key] = data.draw(JSON)
    if data.draw(st.booleans()):
        row[data.draw(st.text(st.characters(), max_size=5))] = data.draw(JSON)
    path = tmp_path_factory.mktemp("fuzz") / "a.jsonl"
    path.write_bytes(lines([good[0], row, good[0]]))
    found = [entry for entry in read(kind, path) if not isinstance(entry, Passed)]
    assert len(found) >= 3 or kind == "code"  # a row of the latter may list no file
    assert not any(isinstance(entry, Quarantined) and entry.reason == "unexpected" for entry in found), found
    assert type(found[0]) is type(found[-1])
    assert not isinstance(found[0], Quarantined)
