"""Whole ingests over the network: nothing is lost, what was unreachable comes later, a new snapshot alone is new."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import world
from harness import PrefectServer
from servers import Fault, RangeServer, serving

from datalake.lake.lake import Lake
from datalake.lake.records import StageReport, read_record

QUICK = {"backoff_seconds": 0.001, "longest_wait_seconds": 0.2, "requests_per_second": 5_000, "retries": 3}


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


@pytest.fixture
def server() -> Iterator[RangeServer]:
    with serving() as one:
        yield one


def recipe(*sources: dict[str, Any], **remote: Any) -> dict[str, Any]:
    return {"corpus": "far", "sources": list(sources), "runtime": world.inline() | {"remote": QUICK | remote}}


def ingest(made: dict[str, Any], lake: Path) -> StageReport:
    return world.run(made, lake, until="ingest")["ingest"]


def put(server: RangeServer, folder: Path, name: str, first: int, **more: Any) -> None:
    server.put(f"/cc/{name}", world.crawl(folder / name, first, **more).read_bytes())


def uris(lake: Path) -> list[str]:
    return [uri for (uri,) in world.rows(lake, "SELECT uri FROM far.raw ORDER BY uri")]


def test_an_archive_that_stays_unreachable_is_read_by_a_later_run(
    prefect_server: PrefectServer, server: RangeServer, tmp_path: Path
) -> None:
    for number in range(3):
        put(server, tmp_path, f"{number}.warc.gz", 10 * number, missing=["http://gone.example/"])
    made = recipe({"kind": "common_crawl", "paths": [f"{server.url}/cc/*.warc.gz"]})
    lake = tmp_path / "lake"
    for fault, why in (
        (Fault(status=503, methods=("HEAD", "GET")), "status 503"),  # not even its version is known
        (Fault(status=503, methods=("GET",)), "status 503"),
        (Fault(claim=9), "says"),
    ):
        server.always["/cc/1.warc.gz"] = fault
        report = ingest(made, lake)
        assert report.state == "partial"
        assert report.records_out == 12
        record = read_record(Lake(lake), report.fingerprint)  # an earlier round's record stays beside this one's
        assert record is not None
        (told,) = record.unfinished.values()
        assert why in told
    marks = world.shard_marks(lake, "ingest")
    server.always.clear()
    report = ingest(made, lake)
    assert report.state == "ran"
    assert (report.records_in, report.records_out) == (21, 18)
    assert len(uris(lake)) == 18
    after = world.shard_marks(lake, "ingest")
    assert {key: after[key] for key in marks} == marks
    assert len(after) == len(marks) + 1 == 3
    assert ingest(made, lake).state == "cached"


def test_a_changed_archive_is_read_again_and_others_are_not(
    prefect_server: PrefectServer, server: RangeServer, tmp_path: Path
) -> None:
    put(server, tmp_path, "a.warc.gz", 0)
    put(server, tmp_path, "b.warc.gz", 10)
    made = recipe({"kind": "common_crawl", "paths": [f"{server.url}/cc/"]})
    lake = tmp_path / "lake"
    ingest(made, lake)
    marks = world.shard_marks(lake, "ingest")
    put(server, tmp_path, "b.warc.gz", 20)
    report = ingest(made, lake)
    assert report.state == "ran"
    assert set(uris(lake)) == {f"http://host{n}.example/page" for n in (*range(6), *range(20, 26))}
    after = world.shard_marks(lake, "ingest")
    assert {key: after[key] for key in marks} == marks
    assert len(after) == 3


def test_faults_on_the_way_lose_nothing_and_are_counted(
    prefect_server: PrefectServer, server: RangeServer, tmp_path: Path
) -> None:
    put(server, tmp_path, "a.warc.gz", 0)
    whole = (tmp_path / "a.warc.gz").read_bytes()
    server.put("/cc/cut.warc.gz", whole[: len(whole) * 2 // 3])  # damaged where it lies
    server.put("/rows.jsonl", (json.dumps({"id": "1", "text": world.prose(1)}) + "\n").encode())
    server.once["/cc/a.warc.gz"] = [Fault(status=503), Fault(cut=500), Fault(status=429), Fault(cut=100)]
    made = recipe(
        {"kind": "common_crawl", "paths": [f"{server.url}/cc/*.gz"]},
        {"kind": "table", "paths": [f"{server.url}/rows.jsonl"]},
    )
    report = ingest(made, tmp_path / "lake")
    assert report.state == "ran"
    record = read_record(Lake(tmp_path / "lake"), report.fingerprint)
    assert record is not None
    counts = record.counts
    assert counts["remote:retries"] == 4
    assert counts["records"] == counts["raw"] + counts.get("refused", 0) + counts["quarantined"]
    assert counts["quarantined"] == 1
    quarantine = world.rows(tmp_path / "lake", "SELECT archive, reason FROM far.quarantine")
    assert quarantine == [("cut.warc.gz", "truncated")]
    near = {"kind": "common_crawl", "paths": [f"{tmp_path}/*.warc.gz"]}
    ingest(recipe(near), tmp_path / "near")
    both = [
        world.rows(tmp_path / lake, "SELECT id, text FROM far.raw WHERE archive = 'a.warc.gz' ORDER BY id")
        for lake in ("lake", "near")
    ]
    assert both[0] == both[1]
    assert len(both[0]) == 6


def test_credentials_stay_out_of_the_lake(prefect_server: PrefectServer, server: RangeServer, tmp_path: Path) -> None:
    put(server, tmp_path, "a.warc.gz", 0)
    put(server, tmp_path, "b.warc.gz", 10)
    server.always["/cc/b.warc.gz"] = Fault(status=503)
    base = server.url.replace("http://", "http://me:open-sesame@")
    paths = [f"{base}/cc/{name}.warc.gz?X-Amz-Signature=open-sesame" for name in "ab"]
    assert ingest(recipe({"kind": "common_crawl", "paths": paths}), tmp_path / "lake").state == "partial"
    assert all(one.headers["authorization"] for one in server.requests("GET"))
    found = [
        path
        for path in (tmp_path / "lake").rglob("*")
        if path.is_file() and (b"open-sesame" in path.read_bytes() or "open-sesame" in path.name)
    ]
    assert found == []


def publish(server: RangeServer, folder: Path, *snapshots: str) -> None:
    """Two archives of each snapshot, their list, and the list of snapshots."""
    for position, snapshot in enumerate(snapshots):
        names = [f"crawl-data/{snapshot}/segments/1/warc/{n}.warc.gz" for n in range(2)]
        for number, name in enumerate(names):
            if f"/{name}" not in server.files:
                made = world.crawl(folder / name, 100 * position + 10 * number)
                server.put(f"/{name}", made.read_bytes())
        if f"/crawl-data/{snapshot}/warc.paths.gz" not in server.files:
            server.put(f"/crawl-data/{snapshot}/warc.paths.gz", gzip.compress("\n".join(names).encode()))
    server.put("/collinfo.json", json.dumps([{"id": name} for name in reversed(snapshots)]).encode())


@pytest.mark.parametrize("trusted", [0, 24])
def test_an_open_range_reads_just_the_new_snapshot_each_time(
    prefect_server: PrefectServer, server: RangeServer, tmp_path: Path, trusted: int
) -> None:
    source = {
        "kind": "common_crawl",
        "snapshots": ["CC-MAIN-2024-10.."],
        "base": server.url,
        "collinfo": f"{server.url}/collinfo.json",
    }
    made, lake = recipe(source, recheck_hours=trusted), tmp_path / "lake"
    publish(server, tmp_path, "CC-MAIN-2023-50", "CC-MAIN-2024-10")
    assert ingest(made, lake).records_out == 12
    marks = world.shard_marks(lake, "ingest")
    assert len(marks) == 2
    assert ingest(made, lake).state == "cached"
    publish(server, tmp_path, "CC-MAIN-2023-50", "CC-MAIN-2024-10", "CC-MAIN-2024-18")
    server.asked.clear()
    report = ingest(made, lake)
    assert (report.state, report.records_out) == ("ran", 24)
    after = world.shard_marks(lake, "ingest")
    assert {key: after[key] for key in marks} == marks
    assert len(after) == 4
    assert all("2024-18" in one.path for one in server.requests("GET") if one.path.endswith(".warc.gz"))
    asked_again = [one for one in server.requests("HEAD") if "2024-10" in one.path]
    assert len(asked_again) == (0 if trusted else 2)
