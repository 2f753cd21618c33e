"""ARC and Zstandard archives and WAT records: each record has one entry, whatever holds it."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest
import zstandard
from test_common_crawl import archive, page, read, record, response

from datalake.document import Document, Passed, Quarantined, Refused
from datalake.formats import warc
from datalake.formats import zstd as frames


def arc_line(uri: str, length: int, media_type: str = "text/html", version: int = 1) -> bytes:
    second = f" 200 ABCDEFG - 1234 test.arc {length}" if version == 2 else f" {length}"
    return f"{uri} 192.0.2.7 20080430204825 {media_type}{second}\n".encode()


def arc_records(count: int, version: int = 1) -> list[bytes]:
    """A version block, then as many pages and a name look-up."""
    names = {1: "Archive-length", 2: "Result-code Checksum Location Offset Filename Archive-length"}[version]
    block = f"{version} 0 test\nURL IP-address Archive-date Content-type {names}\n\n".encode()
    out = [arc_line("filedesc://test.arc", len(block), "text/plain", version) + block]
    for number in range(count):
        body = response(page(number))
        out.append(arc_line(f"http://example.com/a {number}", len(body), version=version) + body + b"\n")
    out.append(arc_line("dns:example.com", 20, "text/dns", version) + b"example.com. A 1.2.3" + b"\n")
    return out


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize("form", ["plain", "records", "whole"])
def test_arc_archives_are_read_in_every_form(tmp_path: Path, version: int, form: str) -> None:
    made = arc_records(3, version)
    members = [gzip.compress(one, mtime=0) for one in made]
    data = {"plain": b"".join(made), "records": b"".join(members), "whole": gzip.compress(b"".join(made), mtime=0)}
    path = tmp_path / "test.arc"
    path.write_bytes(data[form])
    first, *pages, last = read(path)
    assert first == Passed("warcinfo")
    assert isinstance(last, Refused)
    assert (last.reason, last.detail) == ("media_type", "text/dns")
    assert [one.uri for one in pages if isinstance(one, Document)] == [f"http://example.com/a {n}" for n in range(3)]
    for number, one in enumerate(pages):
        assert isinstance(one, Document)
        assert f"number{number} " in one.text
        assert one.created is not None
        assert one.created.isoformat() == "2008-04-30T20:48:25+00:00"
    if form == "records":
        assert [one.offset for one in pages if isinstance(one, Document)] == [
            sum(map(len, members[: n + 1])) for n in range(3)
        ]
        (tmp_path / "one").write_bytes(members[2])
        (alone,) = read(tmp_path / "one")
        assert isinstance(alone, Document)
        assert "number1 " in alone.text


def test_junk_between_arc_records_is_a_fault(tmp_path: Path) -> None:
    made = arc_records(2)
    path = tmp_path / "test.arc"
    path.write_bytes(made[0] + made[1] + b"not a line\n" + made[2])
    found = list(warc.records(str(path), 1 << 20))
    (fault,) = [one for one in found if isinstance(one, warc.Fault)]
    assert (fault.reason, fault.offset, fault.length) == ("no_header", len(made[0] + made[1]), len(b"not a line\n"))
    assert len(found) == 4


def test_a_wrong_length_of_an_arc_record_costs_that_record(tmp_path: Path) -> None:
    made = arc_records(3)
    body = response(page(0))
    made[1] = arc_line("http://example.com/0", len(body) + 500) + body + b"\n"
    path = tmp_path / "test.arc"
    path.write_bytes(b"".join(made))
    found = read(path)
    assert [one.reason for one in found if isinstance(one, Quarantined)] == ["content_length"]
    assert sum(isinstance(one, Document) for one in found) == 2


def zstd(data: bytes, known: zstandard.ZstdCompressionDict | None = None, checksum: bool = True) -> bytes:
    return zstandard.ZstdCompressor(dict_data=known, write_checksum=checksum).compress(data)


@pytest.mark.parametrize("form", ["records", "whole", "dictionary", "packed dictionary"])
def test_zstandard_archives_are_read_in_every_form(tmp_path: Path, form: str) -> None:
    made = archive(40)
    known, head = None, b""
    if "dictionary" in form:
        known = zstandard.train_dictionary(4096, [*made])
        content = zstd(known.as_bytes()) if "packed" in form else known.as_bytes()
        head = frames.DICTIONARY + len(content).to_bytes(4, "little") + content
    parts = [head, *([zstd(b"".join(made))] if form == "whole" else [zstd(one, known) for one in made])]
    path = tmp_path / "test.warc.zst"
    path.write_bytes(b"".join(parts))
    plain = tmp_path / "plain.warc"
    plain.write_bytes(b"".join(made))
    found, expected = (list(warc.records(str(one), 1 << 20)) for one in (path, plain))
    assert [one.block for one in records_of(found)] == [one.block for one in records_of(expected)]
    assert len(found) == len(made)
    if form != "whole":
        offsets = [sum(map(len, parts[: n + 1])) for n in range(len(made))]
        assert [(one.offset, one.length) for one in records_of(found)] == list(
            zip(offsets, map(len, parts[1:]), strict=True)
        )
    else:
        assert [(one.offset, one.inner) for one in records_of(found)] == [
            (0, sum(map(len, made[:n]))) for n in range(len(made))
        ]


def test_damage_to_a_zstandard_frame_costs_that_frame(tmp_path: Path) -> None:
    parts = [zstd(one) for one in archive(5)]
    spoilt = bytearray(parts[3])
    spoilt[len(spoilt) // 2] ^= 0xFF
    path = tmp_path / "test.warc.zst"
    path.write_bytes(b"".join([*parts[:3], spoilt, *parts[4:]]))
    found = list(warc.records(str(path), 1 << 20))
    (fault,) = [one for one in found if isinstance(one, warc.Fault)]
    assert (fault.offset, fault.length) == (sum(map(len, parts[:3])), len(parts[3]))
    assert len(records_of(found)) == len(parts) - 1


def records_of(found: list[warc.Record | warc.Fault]) -> list[warc.Record]:
    return [one for one in found if isinstance(one, warc.Record)]


def wat_record(kind: str, html: object) -> bytes:
    """A record of a WAT archive about a record of this kind."""
    envelope = {
        "Format": "WARC/1.0",
        "WARC-Header-Metadata": {"WARC-Type": kind},
        "Payload-Metadata": {"HTTP-Response-Metadata": {"Response-Message": {"Status": "200"}, "HTML-Metadata": html}},
    }
    content = {"Container": {"Filename": "a.warc.gz", "Offset": "123"}, "Envelope": envelope}
    return record("metadata", json.dumps(content).encode(), Content_Type="application/json")


def test_a_wat_record_becomes_its_title_description_and_links(tmp_path: Path) -> None:
    head = {"Title": "A  title", "Metas": [{"name": "Description", "content": "What it says"}, {"name": "x"}]}
    html = {"Head": head, "Links": [{"path": "A@/href", "url": "/b", "text": "to b"}, {"url": "/c"}]}
    records = [wat_record("request", html), wat_record("response", html), wat_record("response", {})]
    records.append(record("metadata", b'{"other": 1}', Content_Type="application/json"))
    path = tmp_path / "test.warc.wat.gz"
    path.write_bytes(b"".join(gzip.compress(one, mtime=0) for one in records))
    request, page_, empty, other = read(path)
    assert request == other == Passed("metadata")
    assert isinstance(page_, Document)
    assert page_.text == "A title\nWhat it says\nto b"
    kept = {name: page_.attributes[name] for name in ("status", "links", "container", "container_offset", "media_type")}
    assert list(kept.values()) == ["200", "2", "a.warc.gz", "123", "application/json"]
    assert isinstance(empty, Refused)
    assert empty.reason == "empty"
