"""WARC and WET archives: every record has one entry, damage costs what it touches and nothing else."""

from __future__ import annotations

import base64
import gzip
import hashlib
import json
import re
import zlib
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest
from fastwarc.warc import ArchiveIterator
from hypothesis import given, settings
from hypothesis import strategies as st

from datalake.document import Document, Entry, Passed, Quarantined, Refused
from datalake.formats import warc
from datalake.sources.web import common_crawl
from datalake.sources.web.config import CommonCrawl

WORDS = [*re.findall(r"\w+", "the quick brown fox jumps over the lazy dog and the people watch it with great interest")]
RECORD_TYPES = ("response", "resource", "conversion")


def record(kind: str, block: bytes, uri: str = "http://example.com/", **headers: str) -> bytes:
    """One WARC record, with a block digest."""
    fields = {
        "WARC-Type": kind,
        "WARC-Target-URI": uri,
        "WARC-Date": "2024-05-18T01:58:10Z",
        "WARC-Block-Digest": "sha1:" + base64.b32encode(hashlib.sha1(block).digest()).decode(),
        "Content-Type": "application/http; msgtype=response" if kind == "response" else "text/plain",
        "Content-Length": str(len(block)),
    } | {name.replace("_", "-"): value for name, value in headers.items()}
    head = "WARC/1.0\r\n" + "".join(f"{name}: {value}\r\n" for name, value in fields.items())
    return head.encode() + b"\r\n" + block + b"\r\n\r\n"


def response(body: bytes, status: str = "200 OK", media_type: str = "text/html", extra: str = "") -> bytes:
    return f"HTTP/1.1 {status}\r\nContent-Type: {media_type}\r\n{extra}\r\n".encode() + body


def page(number: int) -> bytes:
    text = " ".join(WORDS[(number + at) % len(WORDS)] for at in range(60))
    return f"<html><head><title>Page {number}</title></head><body><p>number{number} {text}.</p></body></html>".encode()


def archive(count: int) -> list[bytes]:
    """A warcinfo record and as many responses, a request after each."""
    out = [record("warcinfo", b"software: test\r\n")]
    for number in range(count):
        out.append(record("response", response(page(number)), f"http://example.com/{number}"))
        out.append(record("request", b"GET / HTTP/1.1\r\n\r\n", f"http://example.com/{number}"))
    return out


def members(records: list[bytes]) -> list[bytes]:
    return [gzip.compress(one, mtime=0) for one in records]


def read(path: Path, **options: object) -> list[Entry]:
    config = CommonCrawl(paths=[str(path)], **options)  # type: ignore[arg-type]
    (shard,) = common_crawl.archives(config)
    return list(common_crawl.read(shard, config))


def write(folder: Path, data: bytes, name: str = "x.warc.gz") -> Path:
    (folder / name).write_bytes(data)
    return folder / name


def documents(entries: list[Entry]) -> list[Document]:
    return [entry for entry in entries if isinstance(entry, Document)]


def quarantined(entries: list[Entry]) -> list[Quarantined]:
    return [entry for entry in entries if isinstance(entry, Quarantined)]


def numbers(entries: list[Entry]) -> list[int]:
    """Which of the test's pages are there, whole."""
    out = []
    for entry in documents(entries):
        match = re.match(r"number(\d+) ", entry.text)
        assert match is not None
        assert len(entry.text.split()) == 61
        out.append(int(match[1]))
    return out


def blocks(data: bytes, size: int) -> bytes:
    """A file compressed in blocks that know nothing of records, as bgzip does."""
    return b"".join(gzip.compress(data[at : at + size], mtime=0) for at in range(0, len(data), size))


PACKINGS: dict[str, Callable[[list[bytes]], bytes]] = {
    "plain": b"".join,
    "a member each": lambda records: b"".join(members(records)),
    "one member": lambda records: gzip.compress(b"".join(records), mtime=0),
    "blocks": lambda records: blocks(b"".join(records), 1_000),
}


@pytest.mark.parametrize("packing", PACKINGS)
def test_every_packing_gives_the_same_pages(tmp_path: Path, packing: str) -> None:
    entries = read(write(tmp_path, PACKINGS[packing](archive(20))))
    assert numbers(entries) == list(range(20))
    assert Counter(e.type for e in entries if isinstance(e, Passed)) == {"warcinfo": 1, "request": 20}
    assert not quarantined(entries)
    assert len({document.id for document in documents(entries)}) == 20
    assert read(tmp_path / "x.warc.gz") == entries


def test_a_document_says_where_it_comes_from(tmp_path: Path) -> None:
    document = documents(read(write(tmp_path, b"".join(members(archive(3)))), licence="CC0-1.0", name="mine"))[2]
    assert document.uri == "http://example.com/2"
    assert document.created == datetime(2024, 5, 18, 1, 58, 10, tzinfo=UTC)
    assert (document.language, document.source, document.licence) == ("en", "mine", "CC0-1.0")
    assert document.archive == "x.warc.gz"
    assert document.attributes == {
        "charset": "windows-1252", "group": "example.com", "media_type": "text/html", "status": "200",
        "title": "Page 2",
    }  # fmt: skip
    data = (tmp_path / "x.warc.gz").read_bytes()
    own = gzip.decompress(data[document.offset : document.offset + document.length])
    assert page(2) in own
    assert own.count(b"WARC/1.0") == 1


def test_the_id_depends_on_name_and_offset_not_on_place_or_options(tmp_path: Path) -> None:
    (tmp_path / "moved").mkdir()
    data = b"".join(members(archive(2)))
    here, moved = read(write(tmp_path, data)), read(write(tmp_path / "moved", data), name="other", main_content=False)
    assert [d.id for d in documents(here)] == [d.id for d in documents(moved)]


def test_conversion_records_are_text_as_it_is(tmp_path: Path) -> None:
    text = "一个网页的内容，第一段。\n\n第二段也在这里。"
    (document,) = documents(read(write(tmp_path, record("conversion", text.encode()))))
    assert document.text == text
    assert document.language == "zh"


@pytest.mark.parametrize(
    ("block", "reason", "detail"),
    [
        (response(page(1), "404 Not Found"), "status", "404"),
        (response(page(1), "206 Partial Content"), "status", "206"),
        (response(page(1), "301 Moved"), "redirect", "301"),
        (response(b"%PDF-1.4", media_type="application/pdf"), "media_type", "application/pdf"),
        (response(b"%PDF-1.4"), "media_type", "application/pdf"),
        (response(b"plain", media_type="text/plain"), "media_type", "text/plain"),
        (response(b""), "empty", ""),
        (response(b"<html><script>var x</script></html>"), "empty", ""),
        (response(b"<p>" + b"x" * 3_000), "too_large", "3047"),
        (response(gzip.compress(b"<p>" + b"x" * 9_000), extra="Content-Encoding: gzip\r\n"), "too_large",
         "decodes to more than 2000"),
    ],
)  # fmt: skip
def test_records_that_are_read_and_not_taken(tmp_path: Path, block: bytes, reason: str, detail: str) -> None:
    (entry,) = read(write(tmp_path, record("response", block)), max_bytes=2_000)
    assert isinstance(entry, Refused)
    assert (entry.reason, entry.detail, entry.uri) == (reason, detail, "http://example.com/")


def test_a_name_lookup_is_no_page(tmp_path: Path) -> None:
    (entry,) = read(write(tmp_path, record("response", b"20240518\nhost A 1.2.3.4", **{"Content_Type": "text/dns"})))
    assert isinstance(entry, Refused)
    assert (entry.reason, entry.detail) == ("media_type", "text/dns")


@pytest.mark.parametrize(
    "block",
    [
        response(page(1), media_type="TEXT/HTML;charset=utf-8"),
        response(page(1), media_type="application/xhtml+xml"),
        response(page(1), media_type=""),
        response(page(1)).replace(b"\r\n", b"\n"),
        response(page(1), extra="no colon here\r\n"),
        response(page(1), "200"),
        response(b"%x\r\n%s\r\n0\r\n\r\n" % (len(page(1)), page(1)), extra="Transfer-Encoding: chunked\r\n"),
        response(gzip.compress(page(1)), extra="Content-Encoding: gzip\r\n"),
    ],
)
def test_odd_but_readable_responses(tmp_path: Path, block: bytes) -> None:
    assert numbers(read(write(tmp_path, record("response", block)))) == [1]


@pytest.mark.parametrize(
    ("block", "reason"),
    [
        (b"", "http_header"),
        (b"<html>no header</html>", "http_header"),
        (b"HTTP/1.1 abc\r\n\r\nx", "http_header"),
        (response(b"5\r\n<p>ab\r\nzz\r\n", extra="Transfer-Encoding: chunked\r\n"), "chunking"),
        (response(gzip.compress(page(1))[:50], extra="Content-Encoding: gzip\r\n"), "content_encoding"),
    ],
)
def test_unreadable_responses_leave_the_rest(tmp_path: Path, block: bytes, reason: str) -> None:
    records = archive(3)
    records[3:3] = [record("response", block)]
    entries = read(write(tmp_path, b"".join(members(records))))
    assert numbers(entries) == [0, 1, 2]
    (fault,) = quarantined(entries)
    assert fault.reason == reason
    assert fault.offset == sum(map(len, members(records[:3])))


@pytest.mark.parametrize("packing", PACKINGS)
@pytest.mark.parametrize("change", [-7, 9, 400, 10**15])
def test_a_wrong_length_costs_its_record_at_most(tmp_path: Path, packing: str, change: int) -> None:
    records = archive(4)
    length = int(re.search(rb"Content-Length: (\d+)", records[3])[1])  # type: ignore[index]
    records[3] = records[3].replace(b"Content-Length: %d" % length, b"Content-Length: %d" % (length + change))
    entries = read(write(tmp_path, PACKINGS[packing](records)))
    assert {0, 2, 3} <= {int(d.uri.rpartition("/")[2]) for d in documents(entries)}
    assert len(quarantined(entries)) == 1
    assert sum(isinstance(e, Passed) for e in entries) == 5


@pytest.mark.parametrize(
    ("between", "reason"),
    [(b"garbage", "garbage"), (gzip.compress(b"no record", mtime=0), "no_header"), (b"\0" * 99, "garbage")],
)
def test_what_lies_between_members_is_told(tmp_path: Path, between: bytes, reason: str) -> None:
    parts = members(archive(2))
    entries = read(write(tmp_path, parts[0] + between + b"".join(parts[1:])))
    assert numbers(entries) == [0, 1]
    assert [fault.reason for fault in quarantined(entries)] == [reason]


def test_padding_at_the_end_is_no_damage(tmp_path: Path) -> None:
    assert not quarantined(read(write(tmp_path, b"".join(members(archive(2))) + b"\0" * 512)))


@pytest.mark.parametrize(
    "data",
    [b"", b"just text\n" * 1_000, b'{"a": 1}\n', gzip.compress(b"just text", mtime=0), gzip.compress(b"", mtime=0),
     b"\x04\x22\x4d\x181234", bytes(range(256)) * 300],
)  # fmt: skip
def test_a_file_that_is_no_archive_is_one_entry(tmp_path: Path, data: bytes) -> None:
    (entry,) = read(write(tmp_path, data))
    assert isinstance(entry, Quarantined)
    assert (entry.reason, entry.offset, entry.length) == ("not_an_archive", 0, len(data))


ARCHIVE = archive(6)
MEMBERS = members(ARCHIVE)
ENDS = [sum(map(len, MEMBERS[: at + 1])) for at in range(len(MEMBERS))]


@given(st.integers(1, ENDS[-1] - 1))
@settings(max_examples=60)
def test_a_cut_archive_gives_all_records_before_the_cut(tmp_path_factory: pytest.TempPathFactory, cut: int) -> None:
    entries = read(write(tmp_path_factory.mktemp("cut"), b"".join(MEMBERS)[:cut]))
    whole = sum(end <= cut for end in ENDS)
    kept = [entry for entry in entries if not isinstance(entry, Quarantined)]
    # A member that lacks nothing but its trailer has its record.
    assert len(kept) in (whole, whole + 1)
    assert len(quarantined(entries)) == (cut not in ENDS)


@given(st.integers(0, ENDS[-1] - 1), st.integers(1, 255))
@settings(max_examples=150)
def test_a_changed_byte_costs_no_other_record(
    tmp_path_factory: pytest.TempPathFactory, at: int, difference: int
) -> None:
    data = bytearray(b"".join(MEMBERS))
    data[at] ^= difference
    entries = read(write(tmp_path_factory.mktemp("flip"), bytes(data)))
    hit = next(index for index, end in enumerate(ENDS) if at < end)
    expected = [number for number in range(6) if 1 + 2 * number != hit]
    assert [n for n in numbers(entries) if n in expected] == expected
    # Either the change is without effect (a time, a system in gzip's header), or it is told.
    assert quarantined(entries) or len(entries) == len(ARCHIVE)


@given(st.binary(max_size=300), st.integers(0, 2_000))
@settings(max_examples=100)
def test_noise_never_raises(tmp_path_factory: pytest.TempPathFactory, noise: bytes, at: int) -> None:
    for packing in PACKINGS.values():
        data = packing(ARCHIVE[:4])
        path = write(tmp_path_factory.mktemp("noise"), data[:at] + noise + data[at:])
        entries = read(path)
        assert entries == read(path)
        assert "unexpected" not in {fault.reason for fault in quarantined(entries)}


def test_damage_inside_one_large_member_keeps_what_came_before(tmp_path: Path) -> None:
    # Incompressible padding keeps the damage local to one place of the stream.
    records = []
    for number in range(40):
        noise = base64.b64encode(hashlib.shake_256(bytes([number])).digest(3_000)).decode()
        records.append(
            record("response", response(page(number) + f"<!--{noise}-->".encode()), f"http://e.com/{number}")
        )
    data = bytearray(gzip.compress(b"".join(records), mtime=0))
    middle = len(data) // 2
    data[middle : middle + 8] = b"\xff" * 8
    entries = read(write(tmp_path, bytes(data)))
    found = numbers(entries)
    assert found[:18] == list(range(18))
    assert quarantined(entries)


def test_in_a_member_with_a_wrong_checksum_block_digests_tell_which_record_is_damaged(tmp_path: Path) -> None:
    data = bytearray(gzip.compress(b"".join(ARCHIVE), compresslevel=0, mtime=0))  # stored: a changed byte stays alone
    at = data.index(b"number2 ") + 12
    data[at] ^= 1
    entries = read(write(tmp_path, bytes(data)))
    assert numbers(entries) == [0, 1, 3, 4, 5]
    # The damaged record, and the last one, of which the checksum at the end leaves nothing certain.
    assert [fault.reason for fault in quarantined(entries)] == ["checksum", "checksum"]


def test_a_bomb_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(warc, "MAX_SEGMENT", 4 << 20)
    monkeypatch.setattr(warc, "IN_MEMORY", 1 << 20)
    bomb = record("response", response(b"\0" * (30 << 20)))
    parts = members(archive(1))
    entries = read(write(tmp_path, parts[0] + gzip.compress(bomb) + b"".join(parts[1:])))
    assert numbers(entries) == [0]
    assert [fault.reason for fault in quarantined(entries)] == ["too_large"]


def test_large_segments_go_to_disk_and_read_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path, gzip.compress(b"".join(archive(30))))
    entries = read(path)
    monkeypatch.setattr(warc, "IN_MEMORY", 1_000)
    assert read(path) == entries


# Real archives ------------------------------------------------------------------------------------------------------


def inflated(path: Path) -> bytes:
    """All that gzip(1) would give, by another way than the reader's."""
    data, out = path.read_bytes(), b""
    if not data.startswith(b"\x1f\x8b"):
        return data
    while data.startswith(b"\x1f\x8b"):
        inflater = zlib.decompressobj(31)
        out += inflater.decompress(data)
        data = inflater.unused_data
    return out


def headers(path: Path) -> Counter[str]:
    """Record headers by type, found by their first line alone."""
    found = re.findall(rb"(?:^|\n)WARC/\d\.\d+\r?\n(.*?)\r?\n\r?\n", inflated(path), re.DOTALL)
    kinds = [re.search(rb"(?im)^WARC-Type:[ \t]*(\S+)", header) for header in found]
    return Counter(kind[1].decode().lower() for kind in kinds if kind)


@pytest.mark.parametrize("folder", ["broken", "commoncrawl", "warc", "wet"])
def test_every_record_of_the_samples_is_accounted_for(samples: Path, folder: str) -> None:
    for path in sorted((samples / "cc" / folder).iterdir()):
        if ".paths" in path.name:
            continue  # a list of archives, not one
        expected = headers(path)
        entries = read(path)
        passed = Counter(entry.type for entry in entries if isinstance(entry, Passed))
        taken = sum(isinstance(entry, Document | Refused) for entry in entries)
        faults = quarantined(entries)
        pages = sum(expected[kind] for kind in RECORD_TYPES)
        spans = sum(fault.reason in ("no_header", "not_an_archive") for fault in faults)
        # Each header is one entry; spans without a header come on top.
        assert taken + sum(passed.values()) + len(faults) - spans == expected.total(), path.name
        if not faults:
            assert taken == pages, path.name
            assert passed == expected - Counter({kind: expected[kind] for kind in RECORD_TYPES}), path.name


def test_damaged_samples_say_what_is_wrong(samples: Path) -> None:
    def reasons(name: str) -> list[str]:
        return [fault.reason for fault in quarantined(read(samples / "cc" / name))]

    assert reasons("broken/resiliparse-clipped.warc.gz") == ["truncated"]
    assert reasons("broken/warcio-example-trunc.warc") == ["content_encoding", "no_header"]
    assert reasons("wet/harwell-appended_zip_fragment_unexpected_eof.wet.gz") == ["truncated"]
    assert reasons("wet/harwell-fragment2_no_header.wet.gz") == ["no_header", "truncated"]
    assert reasons("wet/harwell-fragment1_asthma_incomplete_last.wet.gz") == ["content_length", "truncated"]
    assert reasons("commoncrawl/CC-MAIN-2024-22*.gz") == ["not_an_archive"]  # named itself it is a list of archives
    assert reasons("wet/harwell-filter_test_1.wet.gz") == []


def test_whole_archives_agree_with_fastwarc(samples: Path) -> None:
    for path in [*sorted((samples / "cc" / "warc").iterdir()), samples / "cc" / "commoncrawl" / "whirlwind.warc"]:
        ours = [(one.offset, one.headers.get("warc-record-id")) for one in warc.records(str(path), 10**7)
                if isinstance(one, warc.Record)]  # fmt: skip
        theirs = [
            (one.stream_pos, one.headers.get("WARC-Record-ID")) for one in ArchiveIterator(str(path), parse_http=False)
        ]
        assert ours == theirs, path.name


def test_original_crawls_give_their_pages(samples: Path) -> None:
    entries = [entry for path in sorted((samples / "cc" / "warc").iterdir()) for entry in read(path)]
    assert len(documents(entries)) == 199  # HTML responses of status 200, as the samples' list says
    assert not quarantined(entries)


def test_whole_and_member_compression_of_one_page_agree(samples: Path) -> None:
    folder = samples / "cc" / "commoncrawl"
    (plain,), (packed,) = documents(read(folder / "whirlwind.warc")), documents(read(folder / "whirlwind.warc.gz"))
    assert plain.text == packed.text
    assert plain.uri == packed.uri


def test_real_pages_are_extracted_in_their_languages(samples: Path) -> None:
    entries = read(samples / "cc" / "pages" / "pages-dev-00000.warc.gz")
    found = documents(entries)
    assert len(found) == 328
    assert not quarantined(entries)
    with gzip.open(samples / "cc" / "pages" / "pages-dev.jsonl.gz", "rt", encoding="utf-8") as lines:
        gold = {row["url"]: row for row in map(json.loads, lines)}
    judged = [
        (gold[d.uri]["lang"], d.language) for d in found if gold[d.uri]["lang"] in ("en", "zh", "de", "pl", "ru", "el")
    ]
    assert sum(a == b for a, b in judged) / len(judged) >= 0.97
    assert all(b == "zh" for a, b in judged if a == "zh")
    scores = []
    for document in found:
        if text := gold[document.uri].get("gold_text"):
            got, want = (Counter(re.findall(r"[\u3400-\u9fff]|[^\W_]+", t.lower())) for t in (document.text, text))
            scores.append(2 * (got & want).total() / (got.total() + want.total()))
    assert sum(scores) / len(scores) >= 0.75
