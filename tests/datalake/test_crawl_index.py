"""Records picked by an index are those of a whole read; snapshots and lists name what they say."""

from __future__ import annotations

import gzip
import hashlib
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import world
from servers import Fault, RangeServer, serving

from datalake.archive import Span
from datalake.document import Document, Entry, Passed, Quarantined, Refused
from datalake.errors import UserError
from datalake.formats import warc
from datalake.identity import fingerprint
from datalake.remote.config import RemoteConfig
from datalake.remote.session import Session, current, using
from datalake.sources.web import common_crawl, crawl_index, snapshots
from datalake.sources.web.config import CommonCrawl, Where

QUICK = {"backoff_seconds": 0.001, "longest_wait_seconds": 0.3, "requests_per_second": 5_000, "retries": 3}
NEW, OLD = "CC-MAIN-2024-22", "CC-MAIN-2024-10"


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


@pytest.fixture
def server() -> Iterator[RangeServer]:
    with serving() as one:
        yield one


@pytest.fixture(autouse=True)
def here(tmp_path: Path) -> Iterator[Session]:
    with using(RemoteConfig(**QUICK), tmp_path / "cache"):  # type: ignore[arg-type]
        yield current()


def name_of(snapshot: str, number: int) -> str:
    return f"crawl-data/{snapshot}/segments/1/warc/{snapshot}-{number:05d}.warc.gz"


@pytest.fixture
def crawl(tmp_path: Path) -> Path:
    """Three archives of two snapshots with five pages and a 404 each."""
    for snapshot, number in ((OLD, 0), (NEW, 0), (NEW, 1)):
        first = 10 * number + (100 if snapshot == NEW else 0)
        path = tmp_path / "base" / name_of(snapshot, number)
        world.crawl(path, first, 5, missing=[f"http://gone{first}.example/"])
    return tmp_path / "base"


def rows_of(base: Path, snapshot: str = "") -> list[dict[str, Any]]:
    """The columnar index of archives, in Common Crawl's schema, from their records as the reader finds them."""
    rows = []
    for path in sorted(base.rglob("*.warc.gz")):
        name = path.relative_to(base).as_posix()
        for number, one in enumerate(warc.records(str(path), 10**7)):
            assert isinstance(one, warc.Record)
            if one.type != "response" or snapshot not in name:
                continue
            uri = one.headers["warc-target-uri"]
            host = uri.split("/")[2]
            status = int((one.block or b"").split()[1])
            rows.append(
                {
                    "url_surtkey": ",".join(reversed(host.split("."))) + ")/",
                    "url": uri,
                    "url_host_name": host,
                    "url_host_tld": host.rpartition(".")[2],
                    "url_host_registered_domain": host,
                    "fetch_status": status,
                    "content_digest": f"{number:032d}",
                    "content_mime_type": "text/html",
                    "content_mime_detected": "text/html" if status == 200 else "text/plain",
                    "content_languages": "eng,deu" if number // 2 % 2 else "zho",
                    "warc_filename": name,
                    "warc_record_offset": one.offset,
                    "warc_record_length": one.length,
                }
            )
    return rows


SCHEMA = pa.schema(
    [
        *((name, pa.string()) for name in ("url_surtkey", "url", "url_host_name", "url_host_tld")),
        ("url_host_registered_domain", pa.string()),
        ("fetch_status", pa.int16()),
        *((name, pa.string()) for name in ("content_digest", "content_mime_type", "content_mime_detected")),
        ("content_languages", pa.string()),
        ("warc_filename", pa.string()),
        ("warc_record_offset", pa.int32()),
        ("warc_record_length", pa.int32()),
    ]
)


def write_index(path: Path, rows: list[dict[str, Any]], **options: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = sorted(rows, key=lambda row: str(row["url_surtkey"]))
    pq.write_table(pa.Table.from_pylist(rows, SCHEMA), path, **options)
    return path


@pytest.fixture
def index(crawl: Path, tmp_path: Path) -> Path:
    return write_index(tmp_path / "index.parquet", rows_of(crawl))


def read_all(config: CommonCrawl) -> list[Entry]:
    return [entry for shard in common_crawl.archives(config) for entry in common_crawl.read(shard, config)]


def entries(found: list[Entry]) -> list[Entry]:
    """What isn't passed by, in an order of its own."""
    kept = [one for one in found if not isinstance(one, Passed)]
    return sorted(kept, key=lambda one: (one.archive, one.offset))


def picked(index: Path | str, base: Path | str, **more: Any) -> CommonCrawl:
    return CommonCrawl(index=[str(index)], base=str(base), **more)


# The same records --------------------------------------------------------------------------------------------------


def test_picked_records_are_those_of_a_whole_read_with_their_ids(crawl: Path, index: Path) -> None:
    whole = entries(read_all(CommonCrawl(paths=[f"{crawl}/**/*.warc.gz"])))
    names = {one.archive for one in whole}
    assert len(whole) == 18
    found = entries(read_all(picked(index, crawl)))
    # Named from another root: the base is above `crawl-data` in both.
    assert names == {one.archive for one in found}
    assert found == whole
    assert sum(isinstance(one, Document) for one in found) == 15
    assert sum(isinstance(one, Refused) for one in found) == 3


@pytest.mark.parametrize("form", ["cdx", "cdxj", "cdx.gz", "zipnum"])
def test_the_sample_index_finds_what_a_whole_read_finds(samples: Path, tmp_path: Path, form: str) -> None:
    (tmp_path / "base").mkdir()
    shutil.copy(samples / "cc" / "warc" / "pywb-iana.warc.gz", tmp_path / "base" / "iana.warc.gz")
    source = samples / "cc" / "index" / f"pywb-iana.{form.partition('.')[0].replace('zipnum', 'cdxj')}"
    lines = source.read_bytes().splitlines(keepends=True)
    place = tmp_path / f"index.{form}"
    if form == "zipnum":  # blocks of lines, the last of each without its newline
        blocks = [b"".join(lines[at : at + 10]).rstrip(b"\n") for at in range(0, len(lines), 10)]
        place.write_bytes(b"".join(map(gzip.compress, blocks)))
    else:
        place.write_bytes(gzip.compress(b"".join(lines)) if form.endswith("gz") else b"".join(lines))
    whole = read_all(CommonCrawl(paths=[str(tmp_path / "base" / "iana.warc.gz")]))
    found = read_all(picked(place, tmp_path / "base"))
    assert entries(found) == entries(whole)
    assert len(entries(found)) > 40
    revisits = sum(isinstance(one, Passed) and one.type == "revisit" for one in whole)
    assert sum(isinstance(one, Passed) and one.type == "revisit" for one in found) == revisits
    assert len(found) == sum(line.strip() != b"" and not line.startswith(b" CDX") for line in lines)


def test_the_sample_zipnum_index_is_read_to_its_last_line(samples: Path, tmp_path: Path) -> None:
    path = samples / "cc" / "index" / "pywb-zipnum-sample.cdx.gz"
    selected = crawl_index.select(picked(path, tmp_path))
    text = gzip.decompress(path.read_bytes()).decode()
    assert selected.rows == len([*__import__("re").finditer(r"\S+ \d{14} http", text)])
    assert {span.archive for span in selected.spans} >= {"iana.warc.gz", "dupes.warc.gz", "example.warc.gz"}


def test_records_of_a_plain_archive_are_picked_too(crawl: Path, tmp_path: Path) -> None:
    plain = tmp_path / "plain"
    plain.mkdir()
    source = next(crawl.rglob("*-00001.warc.gz"))
    (plain / "x.warc").write_bytes(gzip.decompress(source.read_bytes()))
    records = [one for one in warc.records(str(plain / "x.warc"), 10**7) if isinstance(one, warc.Record)]
    lines = []
    for one in records:
        if one.type == "response":
            found = {"url": one.headers["warc-target-uri"], "filename": "x.warc"}
            found |= {"offset": str(one.offset), "length": str(one.length)}
            lines.append(f"x)/ 20240520100000 {json.dumps(found)}")
    (tmp_path / "x.cdxj").write_text("\n".join(lines))
    whole = entries(read_all(CommonCrawl(paths=[str(plain / "x.warc")])))
    assert entries(read_all(picked(tmp_path / "x.cdxj", plain))) == whole


# Conditions --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("where", "holds"),
    [
        ({"hosts": ["HOST101.example"]}, lambda row: row["url_host_name"] == "host101.example"),
        ({"domains": ["host1.example", "host2.example"]}, lambda row: row["url"][7:12] in ("host1.", "host2")),
        ({"tlds": ["example"]}, lambda row: True),
        ({"status": [404]}, lambda row: row["fetch_status"] == 404),
        ({"mime": ["text/html"]}, lambda row: row["content_mime_detected"] == "text/html"),
        ({"languages": ["zho"]}, lambda row: row["content_languages"] == "zho"),
        (
            {"languages": ["deu", "eng"], "status": [200]},
            lambda row: row["content_languages"][0] == "e" and row["fetch_status"] == 200,
        ),
        ({"url": r"host1\d\d\."}, lambda row: "host1" in row["url"] and row["url"][12:14].isdigit()),
    ],
)
def test_conditions_pick_the_rows_for_which_they_hold(crawl: Path, index: Path, where: Any, holds: Any) -> None:
    expected = [
        (row["warc_filename"], row["warc_record_offset"])
        for row in rows_of(crawl)
        if (holds(row) if "domains" not in where else row["url_host_name"] in where["domains"])
    ]
    found = crawl_index.select(picked(index, crawl, where=Where(**where))).spans
    assert [(span.archive, span.offset) for span in found] == sorted(expected)
    assert expected


def test_a_cdx_index_knows_the_hosts_of_a_domain(tmp_path: Path) -> None:
    urls = ["http://example.org/", "https://www.example.org/x", "http://notexample.org/", "http://a.b.example.org:80/"]
    lines = [f"k 20240101000000 {url} text/html 200 D{n} - - 10 {n}0 a.warc.gz" for n, url in enumerate(urls)]
    (tmp_path / "a.cdx").write_text("\n".join(lines))

    def offsets(**where: Any) -> list[int]:
        return [s.offset for s in crawl_index.select(picked(tmp_path / "a.cdx", tmp_path, where=Where(**where))).spans]

    assert offsets(domains=["example.org"]) == [0, 10, 30]
    assert offsets(hosts=["www.example.org"]) == [10]
    assert offsets(url="^https") == [10]
    with pytest.raises(UserError, match="no record"):
        offsets(languages=["eng"])


def test_what_picks_nothing_or_cannot_be_asked_is_one_clear_line(crawl: Path, index: Path, tmp_path: Path) -> None:
    def error(place: Path, **where: Any) -> str:
        with pytest.raises(UserError) as found:
            crawl_index.select(picked(place, crawl, where=Where(**where)))
        assert "\n" not in str(found.value)
        return str(found.value)

    assert "no record" in error(index, hosts=["none.example"])
    assert "where.url" in error(index, url="(")
    table = pq.read_table(index)
    pq.write_table(table.drop_columns(["content_languages"]), tmp_path / "less.parquet")
    assert "no column 'content_languages'" in error(tmp_path / "less.parquet", languages=["eng"])
    (tmp_path / "bad.cdx").write_text("org,x)/ 20240101000000 http://x.org/ text/html 200 D - - 10\n")
    assert "bad.cdx, line 1: 9 fields" in error(tmp_path / "bad.cdx")
    (tmp_path / "bad.cdxj").write_text('org,x)/ 20240101000000 {"url": "http://x.org/", "offset": "1"}\n')
    assert "file, offset and length" in error(tmp_path / "bad.cdxj")
    (tmp_path / "cut.parquet").write_bytes(index.read_bytes()[100:])
    assert "cut.parquet can't be read" in error(tmp_path / "cut.parquet")
    line = b"k 20240101000000 http://x.org/ text/html 200 D - - 10 0 a.warc.gz\n"
    whole = gzip.compress(line * 100, mtime=0)
    for name, data in (("cut", whole[:-20]), ("bad", whole[:30] + b"\xff\xff\xff" + whole[33:])):
        (tmp_path / f"{name}.cdx.gz").write_bytes(data)
        assert "fetch it again" in error(tmp_path / f"{name}.cdx.gz")


def test_a_cdx_header_says_which_field_is_which(tmp_path: Path) -> None:
    (tmp_path / "a.cdx").write_text(
        " CDX a b g V S k s m\nhttp://x.org/ 20240101000000 a.warc.gz 7 9 DIG 200 text/html\n"
    )
    (span,) = crawl_index.select(picked(tmp_path / "a.cdx", tmp_path)).spans
    assert span == Span("a.warc.gz", 7, 9, "DIG")


def test_the_subset_of_successful_pages_is_the_default(crawl: Path, tmp_path: Path) -> None:
    rows = rows_of(crawl)
    write_index(tmp_path / "t" / "crawl=X" / "subset=warc" / "a.parquet", rows[:3])
    write_index(tmp_path / "t" / "crawl=X" / "subset=robotstxt" / "a.parquet", rows[3:5])
    assert len(crawl_index.select(picked(tmp_path / "t", crawl)).spans) == 3
    where = Where(subsets=["robotstxt"])
    assert len(crawl_index.select(picked(tmp_path / "t", crawl, where=where)).spans) == 2


def test_first_and_sample_are_of_each_snapshot_and_draw_the_same_again(crawl: Path, index: Path) -> None:
    def chosen(**more: Any) -> list[Span]:
        return crawl_index.select(picked(index, crawl, **more)).spans

    everything = chosen()
    per = [[s for s in everything if snapshots.snapshot_of(s.archive) == name] for name in (OLD, NEW)]
    assert chosen(limit=2) == per[0][:2] + per[1][:2]
    sample = chosen(sample=3)
    assert sample == chosen(sample=3)
    assert len(sample) == 6
    assert set(sample) <= set(chosen(sample=4))
    assert any(chosen(sample=3, seed=seed) != sample for seed in (1, 2))
    assert chosen(snapshots=[OLD]) == per[0]


def test_a_record_that_two_index_files_name_is_picked_once(crawl: Path, index: Path, tmp_path: Path) -> None:
    shutil.copy(index, tmp_path / "again.parquet")
    config = CommonCrawl(index=[str(index), str(tmp_path / "again.parquet")], base=str(crawl))
    assert len(crawl_index.select(config).spans) == 18


# Shards ------------------------------------------------------------------------------------------------------------


def test_archives_with_few_records_share_shards_that_others_leave_alone() -> None:
    spans = [Span(name_of(NEW, n), 10 * k, 5) for n in range(900) for k in range(2)]
    groups = list(crawl_index._groups(spans, 100))
    assert [span for group in groups for span in group] == spans
    assert 9 <= len(groups) <= 36  # 18 if all were as large as asked for
    assert max(map(len, groups)) <= 400
    fewer = [span for span in spans if span.archive != name_of(NEW, 450)]
    kept = set(groups) & set(crawl_index._groups(fewer, 100))
    assert len(kept) >= len(groups) - 2
    many = [Span(name_of(NEW, 0), k, 1) for k in range(500)]
    assert list(crawl_index._groups(many, 100)) == [tuple(many)]  # an archive isn't split
    two = [Span(name_of(OLD, 0), 0, 1), Span(name_of(NEW, 0), 0, 1)]
    assert list(crawl_index._groups(two, 100)) == [(two[0],), (two[1],)]


def test_places_and_choices_have_no_part_in_identity(crawl: Path, index: Path) -> None:
    one = picked(index, crawl, where=Where(status=[200]), limit=3, seed=4)
    assert fingerprint(one) == fingerprint(CommonCrawl(paths=["x"])) == fingerprint(CommonCrawl(snapshots=["newest"]))
    few, all_ = (common_crawl.archives(picked(index, crawl, where=w)) for w in (Where(status=[404]), None))
    assert {shard.part for shard in few}.isdisjoint(shard.part for shard in all_)
    again = common_crawl.archives(picked(index, crawl, shard_records=1))
    assert len(again) == 3
    assert [s.name for s in again] == sorted(name_of(a, b) for a, b in ((OLD, 0), (NEW, 0), (NEW, 1)))


def test_stretches_merge_what_is_near() -> None:
    spans = [Span("a", 0, 10), Span("a", 15, 10), Span("a", 40, 10), Span("b", 50, 10), Span("b", 60, 100)]
    found = crawl_index.stretches(spans, 5, 1_000)
    assert [(s.archive, s.begin, s.end, len(s.spans)) for s in found] == [
        ("a", 0, 25, 2), ("a", 40, 50, 1), ("b", 50, 160, 2),
    ]  # fmt: skip
    assert [(s.begin, s.end) for s in crawl_index.stretches(spans, 100, 30)] == [(0, 25), (40, 50), (50, 60), (60, 160)]
    assert [s for one in crawl_index.stretches(spans, 7, 30) for s in one.spans] == spans


# Over HTTP ---------------------------------------------------------------------------------------------------------


def test_ranges_over_http_give_the_same_records(crawl: Path, index: Path, server: RangeServer, here: Session) -> None:
    server.put_folder(crawl)
    local = entries(read_all(picked(index, crawl)))
    for name in list(server.files):
        server.once[name] = [Fault(status=503), Fault(cut=300), Fault(status=429, headers={"Retry-After": "0"})]
    assert entries(read_all(picked(index, server.url))) == local
    assert here.client.counts["retries"] == 9
    assert all("range" in one.headers for one in server.requests("GET"))
    server.asked.clear()
    assert entries(read_all(picked(index, server.url))) == local
    assert not server.requests()  # every range is in the cache


def test_far_records_are_fetched_by_themselves(crawl: Path, index: Path, server: RangeServer, tmp_path: Path) -> None:
    server.put_folder(crawl)
    local = entries(read_all(picked(index, crawl)))
    with using(RemoteConfig(**QUICK, gap_bytes=0, keep=False, connections_per_host=2), tmp_path / "c2"):  # type: ignore[arg-type]
        server.delay = 0.005
        assert entries(read_all(picked(index, server.url))) == local
        assert not list((tmp_path / "c2" / "ranges").iterdir())
    assert len(server.requests("GET")) > 9
    assert server.most <= 2
    assert server.sent < sum(map(len, server.files.values()))


def test_a_broken_shard_goes_on_with_the_ranges_it_has(crawl: Path, index: Path, server: RangeServer) -> None:
    server.put_folder(crawl)
    config = picked(index, server.url)
    server.always[f"/{name_of(NEW, 1)}"] = Fault(status=503)
    with pytest.raises(OSError, match="503"):
        read_all(config)
    server.always.clear()
    server.asked.clear()
    assert len(entries(read_all(config))) == 18
    assert [one.path for one in server.requests("GET")] == [f"/{name_of(NEW, 1)}"]


def test_a_server_without_ranges_sends_the_archive_once(crawl: Path, index: Path, server: RangeServer) -> None:
    server.put_folder(crawl)
    for name in server.files:
        server.always[name] = Fault(ignore_range=True)
    local = entries(read_all(picked(index, crawl)))
    rows = [row for row in rows_of(crawl) if row["fetch_status"] == 200][1:]  # not the whole of any archive
    write_index(index, rows)
    with using(RemoteConfig(**QUICK, gap_bytes=0), current().cache.folder):  # type: ignore[arg-type]
        found = entries(read_all(picked(index, server.url)))
    assert found == [one for one in local if isinstance(one, Document)][1:]


def test_bytes_spoilt_on_the_way_are_fetched_again(
    crawl: Path, index: Path, server: RangeServer, here: Session
) -> None:
    server.put_folder(crawl)
    local = entries(read_all(picked(index, crawl)))
    name = f"/{name_of(OLD, 0)}"
    server.once[name] = [Fault(spoil=400)]
    assert entries(read_all(picked(index, server.url))) == local
    assert len(server.requests("GET", name)) == 2
    for kept in (here.cache.folder / "ranges").iterdir():  # and what a crash spoilt in the cache
        kept.write_bytes(kept.read_bytes()[:-50])
    server.asked.clear()
    assert entries(read_all(picked(index, server.url))) == local
    assert len(server.requests("GET")) == 3


def test_each_picked_record_gives_one_entry_whatever_its_bytes_are(
    crawl: Path, tmp_path: Path, server: RangeServer
) -> None:
    rows = [row for row in rows_of(crawl, OLD) if row["fetch_status"] == 200]
    size = (crawl / name_of(OLD, 0)).stat().st_size
    rows[0]["warc_record_length"] -= 20
    rows[1]["warc_record_offset"] += 3
    rows[1]["warc_record_length"] -= 3
    rows[2]["warc_record_offset"] = size - 30
    rows[2]["warc_record_length"] = 300
    rows[3] |= {"warc_record_offset": size + 5_000}
    index = write_index(tmp_path / "wrong.parquet", rows)
    server.put_folder(crawl)
    for base in (crawl, server.url):
        found = read_all(picked(index, base))
        assert len(found) == 5
        faults = {one.offset: one for one in found if isinstance(one, Quarantined)}
        expected = {row["warc_record_offset"]: row["warc_record_length"] for row in rows[:4]}
        assert {offset: one.length for offset, one in faults.items()} == expected
        assert [faults[row["warc_record_offset"]].reason for row in rows[:4]] == [
            "truncated", "not_an_archive", "truncated", "truncated",
        ]  # fmt: skip
        assert sum(isinstance(one, Document) for one in found) == 1


def test_a_range_of_two_records_is_not_one(crawl: Path, tmp_path: Path) -> None:
    first, second = rows_of(crawl, OLD)[:2]
    first["warc_record_length"] = (
        second["warc_record_offset"] + second["warc_record_length"] - first["warc_record_offset"]
    )
    (found,) = read_all(picked(write_index(tmp_path / "two.parquet", [first]), crawl))
    assert isinstance(found, Quarantined)
    assert found.reason == "range"


def test_a_record_that_is_not_the_one_the_index_means_is_quarantined(tmp_path: Path) -> None:
    block = b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\n\r\n<p>Some text that is long enough to be kept."
    head = (
        f"WARC/1.0\r\nWARC-Type: response\r\nWARC-Target-URI: http://x.org/\r\nWARC-Payload-Digest: sha1:{'A' * 32}\r\n"
    )
    record = head.encode() + b"Content-Length: %d\r\n\r\n" % len(block) + block + b"\r\n\r\n"
    data = gzip.compress(record, mtime=0)
    (tmp_path / "a.warc.gz").write_bytes(data)
    for digest, kind in (("A" * 32, Document), ("a" * 32, Document), ("B" * 32, Quarantined), ("-", Document)):
        line = f"org,x)/ 20240101000000 http://x.org/ text/html 200 {digest} - - {len(data)} 0 a.warc.gz"
        (tmp_path / "a.cdx").write_text(line)
        (found,) = read_all(picked(tmp_path / "a.cdx", tmp_path))
        assert isinstance(found, kind), digest


def test_an_archive_that_changes_between_ranges_is_told(
    crawl: Path, index: Path, server: RangeServer, tmp_path: Path
) -> None:
    server.put_folder(crawl)
    real = server.fault

    def change(method: str, path: str) -> Fault:
        server.put(path, server.files[path])
        return real(method, path)

    server.fault = change  # type: ignore[method-assign]
    config = RemoteConfig(**QUICK, gap_bytes=0, range_bytes=1_024)  # type: ignore[arg-type]
    with using(config, tmp_path / "c3"), pytest.raises(OSError, match="changed while it was read"):
        read_all(picked(index, server.url))


def test_of_a_remote_index_only_what_may_match_is_read(crawl: Path, tmp_path: Path, server: RangeServer) -> None:
    rows = rows_of(crawl)
    row = rows[0]
    for number in range(20_000):  # many hosts that don't match, in row groups of their own
        host = f"host{number:06d}.other"
        rows.append(
            row
            | {
                "url_surtkey": f"other,host{number:06d})/",
                "url_host_name": host,
                "url": f"http://{host}/{number * 7919}",
            }
        )
    path = write_index(tmp_path / "big.parquet", rows, row_group_size=1_000)
    server.put("/big.parquet", path.read_bytes())
    config = picked(f"{server.url}/big.parquet", crawl, where=Where(hosts=["host101.example", "host102.example"]))
    found = crawl_index.select(config)
    assert len(found.spans) == 2
    assert found.rows == 20_018
    assert found.bytes == path.stat().st_size
    assert found.bytes_read < found.bytes / 4
    server.always["/big.parquet"] = Fault(ignore_range=True)  # then it is fetched whole
    assert crawl_index.select(config).spans == found.spans


def test_a_remote_cdx_is_fetched_whole_and_an_unreachable_index_is_one_line(
    crawl: Path, tmp_path: Path, server: RangeServer
) -> None:
    line = b"k 20240101000000 http://x.org/ text/html 200 D - - 10 0 a.warc.gz\n"
    server.put("/a.cdx.gz", gzip.compress(line))
    assert len(crawl_index.select(picked(f"{server.url}/a.cdx.gz", crawl)).spans) == 1
    server.put("/b.cdx.gz", gzip.compress(line))
    server.always["/b.cdx.gz"] = Fault(status=503)
    with pytest.raises(UserError, match="run again later"):
        crawl_index.select(picked(f"{server.url}/b.cdx.gz", crawl))


# Snapshots and lists -----------------------------------------------------------------------------------------------


def publish(base: Path, *published: str) -> Path:
    """What Common Crawl publishes beside its archives: the snapshots there are, lists, and their index."""
    base.mkdir(parents=True, exist_ok=True)
    (base / "collinfo.json").write_text(json.dumps([{"id": name, "name": name} for name in reversed(published)]))
    for name in published:
        folder = base / "crawl-data" / name
        archives = sorted(path.relative_to(base).as_posix() for path in folder.rglob("*.warc.gz"))
        (folder / "warc.paths.gz").write_bytes(gzip.compress("\n".join([*archives, ""]).encode()))
        tables = []
        for subset in ("warc", "robotstxt"):
            table = f"cc-index/table/cc-main/warc/crawl={name}/subset={subset}/part-0.gz.parquet"
            write_index(base / table, rows_of(base, name) if subset == "warc" else [])
            tables.append(table)
        (folder / "cc-index-table.paths.gz").write_bytes(gzip.compress("\n".join(tables).encode()))
    return base


def test_snapshots_are_names_ranges_or_the_newest(tmp_path: Path) -> None:
    names = [f"CC-MAIN-2023-{week:02d}" for week in (6, 14, 23)] + [OLD, NEW]
    place = tmp_path / "collinfo.json"
    place.write_text(json.dumps([{"id": name} for name in reversed(names)]))

    def found(*wanted: str) -> list[str]:
        return snapshots.resolve(wanted, str(place))

    assert found("newest") == [NEW]
    assert found(f"{OLD}..") == [OLD, NEW]
    assert found("..CC-MAIN-2023-14") == names[:2]
    assert found("CC-MAIN-2023-14..CC-MAIN-2023-23", NEW, "newest") == [names[1], names[2], NEW]
    assert snapshots.resolve([OLD], str(tmp_path / "none.json")) == [OLD]  # nothing to ask for
    for wrong in ("latest", "CC-MAIN-2030-01..", f"{NEW}..{OLD}", "2024-22"):
        with pytest.raises(UserError):
            found(wrong)
    with pytest.raises(UserError, match="there is no"):
        snapshots.resolve(["newest"], str(tmp_path / "none.json"))
    place.write_text('{"a": 1}')
    with pytest.raises(UserError, match="no list of snapshots"):
        found("newest")


def test_a_snapshot_is_its_archives_or_what_its_index_picks(crawl: Path, server: RangeServer) -> None:
    publish(crawl, OLD, NEW)
    server.put_folder(crawl)
    for base in (str(crawl), server.url):
        where = {"base": base, "collinfo": f"{base}/collinfo.json"}
        whole = CommonCrawl(snapshots=[f"{OLD}.."], **where)
        assert [shard.name for shard in common_crawl.archives(whole)] == sorted(
            name_of(a, b) for a, b in ((OLD, 0), (NEW, 0), (NEW, 1))
        )
        newest = CommonCrawl(snapshots=["newest"], where=Where(status=[200]), **where)
        found = entries(read_all(newest))
        assert len(found) == 10
        assert {snapshots.snapshot_of(one.archive) for one in found} == {NEW}
    with pytest.raises(UserError, match="there is no"):
        common_crawl.archives(CommonCrawl(snapshots=["CC-MAIN-2024-26"], base=str(crawl)))


def test_a_list_names_archives_and_a_part_of_it_can_be_taken(crawl: Path, tmp_path: Path, server: RangeServer) -> None:
    names = [name_of(OLD, 0), name_of(NEW, 1), name_of(NEW, 0)]
    text = ("\n".join(names) + "\n").encode()
    (tmp_path / "warc.paths").write_bytes(text)
    (tmp_path / "warc.paths.gz").write_bytes(gzip.compress(text))
    (tmp_path / "mine.txt").write_bytes(text)
    server.put("/lists/warc.paths.gz", gzip.compress(text))
    server.put("/lists/mine.txt", text)

    def listed(path: object, **more: Any) -> list[tuple[str, str]]:
        shards = common_crawl.archives(CommonCrawl(paths=[str(path)], base=str(crawl), **more))
        return [(shard.name, shard.path) for shard in shards]

    expected = sorted((name, f"{crawl}/{name}") for name in names)
    for path in ("warc.paths", "warc.paths.gz", "mine.txt"):
        assert listed(tmp_path / path) == expected
    for path in ("warc.paths.gz", "mine.txt"):
        assert listed(f"{server.url}/lists/{path}") == expected
    assert [name for name, _ in listed(tmp_path / "warc.paths", limit=2)] == sorted(names[:2])
    sampled = {seed: tuple(listed(tmp_path / "warc.paths", sample=1, seed=seed)) for seed in range(9)}
    assert all(len(one) == 1 for one in sampled.values())
    assert len(set(sampled.values())) > 1
    assert sampled[0] == tuple(listed(tmp_path / "mine.txt", sample=1))
    (found,) = listed(tmp_path / "warc.paths", limit=1)
    assert found[0] == names[0]


def test_a_part_of_a_folder_can_be_taken(crawl: Path) -> None:
    def names(**more: Any) -> list[str]:
        return [shard.name for shard in common_crawl.archives(CommonCrawl(paths=[str(crawl)], **more))]

    assert names(limit=2) == names()[:2]
    assert len(names(sample=2)) == 2


def test_checksums_of_lists_and_indexes_are_compared(crawl: Path, index: Path, server: RangeServer) -> None:
    text = f"{name_of(OLD, 0)}\n".encode()
    for path, data, read in (
        ("/warc.paths", text, lambda address: CommonCrawl(paths=[address], base=str(crawl))),
        ("/index.parquet", index.read_bytes(), lambda address: picked(address, crawl)),
    ):
        address = server.put(path, data)
        assert common_crawl.archives(read(f"{address}#sha256={hashlib.sha256(data).hexdigest()}"))
        with pytest.raises(UserError, match="sha256"):
            common_crawl.archives(read(f"{address}#sha256={'0' * 64}"))


def test_a_sample_stays_when_a_list_grows() -> None:
    names = [f"a/{n}" for n in range(1_000)]
    before = snapshots.part(names, None, 50, 7)
    after = snapshots.part([*names, "b/1", "b/2"], None, 50, 7)
    assert len(before) == len(after) == 50
    assert len(set(before) & set(after)) >= 48
    assert before == [name for name in names if name in set(before)]


def test_a_text_that_lists_nothing_is_an_archive(crawl: Path, tmp_path: Path, samples: Path) -> None:
    wet = samples / "cc" / "commoncrawl" / "ccnet-sample.warc.wet.txt"
    assert [shard.name for shard in common_crawl.archives(CommonCrawl(paths=[str(wet)]))] == [wet.name]
    listed = common_crawl.archives(
        CommonCrawl(paths=[str(samples / "cc" / "commoncrawl" / "CC-MAIN-2024-22.warc.paths.gz")])
    )
    assert len(listed) == 300
    assert listed[0].path == f"https://data.commoncrawl.org/{listed[0].name}"


@pytest.mark.parametrize(
    ("data", "told"),
    [
        (gzip.compress(b"a/x.warc.gz\n" * 1_000, mtime=0)[:-12], "damaged"),
        (b"", "empty"),
        (b"a/../../x.warc.gz\n", "below `base`"),
        (b"/etc/x.warc.gz\n", "below `base`"),
        (b"https://u:secret@h/x.warc.gz\n", "below `base`"),
        (b"\xff\xfe\xfd", "no list"),
    ],
)
def test_a_list_that_cannot_be_taken_whole_is_refused(tmp_path: Path, data: bytes, told: str) -> None:
    (tmp_path / "x.paths").write_bytes(data)
    with pytest.raises(UserError, match=told) as error:
        common_crawl.archives(CommonCrawl(paths=[str(tmp_path / "x.paths")], base=str(tmp_path)))
    assert "secret" not in str(error.value)


@pytest.mark.parametrize(
    "wrong",
    [
        {},
        {"paths": ["x"], "index": ["y"]},
        {"paths": ["x"], "where": {}},
        {"where": {"hosts": ["x"]}},
        {"paths": ["x"], "limit": 1, "sample": 1},
        {"index": ["x"], "where": {"languages": ["en"]}},
    ],
)
def test_contradictions_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"\w"):
        CommonCrawl(**wrong)
