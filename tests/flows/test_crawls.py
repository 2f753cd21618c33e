"""Crawl after crawl: a later one is compared with the earlier ones from what they left, and sources may go again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import world


def recipe(folder: Path, *crawls: str, **deduplicate: Any) -> dict[str, Any]:
    sources = [{"kind": "common_crawl", "name": crawl, "paths": [f"{folder}/{crawl}/*.warc.gz"]} for crawl in crawls]
    return {
        "corpus": "small",
        "sources": sources,
        "curate": {"preset": "none"},
        "deduplicate": deduplicate,
        "runtime": world.inline(),
    }


def crawls(folder: Path) -> None:
    """Pages 0 to 11 in January, 6 to 17 at other hosts in February, 4 to 7 again in March at January's addresses."""
    world.warc(folder / "jan/a.warc.gz", {f"http://one{n}.example/page": world.page(n) for n in range(12)})
    world.warc(folder / "feb/b.warc.gz", {f"http://two{n}.example/page": world.page(n) for n in range(6, 18)})
    world.warc(folder / "mar/c.warc.gz", {f"http://one{n}.example/page": world.page(n + 100) for n in range(4, 8)})


FOUND = """SELECT l.uri, l.source, k.uri, k.source, d.level, d.similarity FROM small.duplicates d
    JOIN small.ledger l ON l.id = d.id JOIN small.ledger k ON k.id = d.duplicate_of ORDER BY ALL"""


def test_a_later_crawl_is_compared_with_an_earlier_one_and_a_source_may_go(tmp_path: Path, prefect_server: Any) -> None:
    crawls(tmp_path)
    lake = tmp_path / "lake"
    world.run(recipe(tmp_path, "jan"), lake, "deduplicate")
    signed = world.shard_marks(lake, "deduplicate")
    assert world.rows(lake, FOUND) == []

    world.run(recipe(tmp_path, "jan", "feb"), lake, "deduplicate")
    found = world.rows(lake, FOUND)
    both = world.shard_marks(lake, "deduplicate")
    assert signed.items() <= both.items(), "nothing of the earlier crawl is signed again"
    expected = [
        (f"http://two{n}.example/page", "feb", f"http://one{n}.example/page", "jan", "exact", 1.0) for n in range(6, 12)
    ]
    assert found == sorted(expected), "each repeat names the earlier crawl's page"
    assert world.rows(lake, "SELECT count(*), count(DISTINCT id), min(octet_length(bands)) FROM small.signatures") == [
        (24, 24, 20 * 8)
    ]
    assert world.rows(lake, "SELECT count(*) FROM small.clean") == [(18,)]

    at_once = tmp_path / "at_once"
    world.run(recipe(tmp_path, "jan", "feb"), at_once, "deduplicate")
    assert world.rows(at_once, FOUND) == found

    world.run(recipe(tmp_path, "feb"), lake, "deduplicate")
    assert world.rows(lake, FOUND) == [], "without the earlier crawl its partners stay"
    assert world.rows(lake, "SELECT count(*) FROM small.clean") == [(12,)]
    assert len(world.shard_marks(lake, "deduplicate")) == len(both) + 1, "only the decision is new"


def test_of_the_versions_at_an_address_the_first_crawls_stays(tmp_path: Path, prefect_server: Any) -> None:
    crawls(tmp_path)
    lake = tmp_path / "lake"
    world.run(recipe(tmp_path, "mar", "jan", url=True), lake, "deduplicate")
    found = world.rows(lake, FOUND)
    address = "http://one{}.example/page"
    assert found == [(address.format(n), "jan", address.format(n), "mar", "url", None) for n in range(4, 8)]
    assert world.rows(lake, "SELECT level, count(*) FROM small.duplicates GROUP BY ALL ORDER BY ALL") == [
        ("url", 4),
        (None, 12),
    ]


def test_a_domain_may_go_and_its_partners_are_decided_anew(tmp_path: Path, prefect_server: Any) -> None:
    crawls(tmp_path)
    lake, blocked = tmp_path / "lake", tmp_path / "blocked"
    world.run(recipe(tmp_path, "jan", "feb"), lake, "deduplicate")
    before = world.rows(lake, FOUND)
    gone = {"http://one6.example/page", "http://one7.example/page"}
    blocked.write_text("one6.example\none7.example\n")
    without = recipe(tmp_path, "jan", "feb") | {"curate": {"preset": "none", "block": {"paths": [str(blocked)]}}}
    world.run(without, lake, "deduplicate")
    assert {uri for (uri,) in world.rows(lake, "SELECT uri FROM small.ledger WHERE rule = 'blocked'")} == gone
    assert world.rows(lake, FOUND) == [row for row in before if row[2] not in gone]
    stays = "SELECT uri FROM small.clean WHERE uri IN ('http://two6.example/page', 'http://two7.example/page')"
    assert len(world.rows(lake, stays)) == 2, "what they stood for stands for itself"


def test_how_many_ranges_decide_is_nobodys_business(tmp_path: Path, prefect_server: Any) -> None:
    crawls(tmp_path)
    cut = {"lines": {"minimum": 2}, "substrings": {"minimum": 10}}
    one, over = tmp_path / "one", tmp_path / "over"
    world.run(recipe(tmp_path, "jan", "feb", **cut), one, "deduplicate")
    ranges = recipe(tmp_path, "jan", "feb", **cut)
    ranges["runtime"]["ranges"] = 3
    world.run(ranges, over, "deduplicate")
    assert len(world.parquet(one, ["deduplicate"])) > 5
    assert world.parquet(over, ["deduplicate"]) == world.parquet(one, ["deduplicate"]), "no byte depends on it"
    assert not list(over.rglob("*.arrow")), "what lay between the steps is gone"
    assert world.rows(one, "SELECT count(*) FROM small.spans") == world.rows(over, "SELECT count(*) FROM small.spans")
    assert world.states(world.run(ranges, one, "deduplicate"))["deduplicate"] == "cached", "nor its identity"
