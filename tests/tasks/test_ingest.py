"""What ingest says of sources that give nothing, and of entries that no table holds."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import world
from pydantic import TypeAdapter
from table_cases import CASES, TABLES

from datalake import origin
from datalake.archive import Archive
from datalake.lake.lake import Lake
from datalake.sources import Source
from datalake.sources.listing import list_archives
from tasks.ingest import NothingReadError

SOURCE: TypeAdapter[Source] = TypeAdapter(Source)


def test_a_run_whose_sources_give_nothing_fails_with_the_reason(tmp_path: Path, read: Any) -> None:
    readme = tmp_path / "README.md"
    readme.write_text("# Not a crawl\n")
    with pytest.raises(NothingReadError) as failure:
        read({"kind": "common_crawl", "paths": [str(readme)]})
    assert str(failure.value) == (
        "nothing could be read: common_crawl gives nothing: README.md: not_an_archive (no WARC or ARC header): "
        "correct `sources`"
    )


def test_a_source_that_gives_nothing_among_others_is_told(tmp_path: Path, read: Any) -> None:
    crawl = world.warc(tmp_path / "a.warc.gz", {"http://one.example/": world.page(1)})
    empty = tmp_path / "code"
    empty.mkdir()
    refused = world.jsonl(tmp_path / "b.jsonl", [{"text": ""}, {"text": ""}, {"id": 3}])
    produced = read(
        {"kind": "common_crawl", "paths": [str(crawl)]},
        {"kind": "wikipedia", "name": "wiki", "paths": [str(crawl)]},
        {"kind": "code", "paths": [str(empty)]},
        {"kind": "table", "paths": [str(refused)]},
    )
    first, second, third = produced.report["warnings"]
    assert first.startswith("wiki gives nothing: a.warc.gz: no_page (no <page>: not a MediaWiki XML export)")
    assert second == "code gives nothing: no record in its 1 archives"
    assert third == "table gives nothing: all its records are refused (2 empty, 1 column)"
    assert all(left == right for _, left, right in produced.equations)
    good = world.texts(tmp_path / "c.jsonl", range(2))  # of the same name as the one that gives nothing
    produced = read({"kind": "table", "paths": [str(refused)]}, {"kind": "table", "paths": [str(good)]})
    assert produced.report["warnings"] == ["table gives nothing: all its records are refused (2 empty, 1 column)"]
    assert [(row["source"], row["archives"], row["raw"]) for row in produced.funnel] == [("table", 2, 2)]


def test_what_no_table_holds_is_counted_as_quarantined(
    tmp_path: Path, read: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = origin.document_id

    def odd(kind: str, archive: str, locator: str) -> Any:
        return "no id" if archive == "b.txt" else real(kind, archive, locator)

    monkeypatch.setattr(origin, "document_id", odd)
    for name in "ab":
        (tmp_path / f"{name}.txt").write_text(world.prose(1))
    produced = read({"kind": "books", "paths": [str(tmp_path / "*.txt")]})
    assert produced.counts == {"quarantined": 1, "quarantined:unexpected": 1, "raw": 1, "records": 2}
    assert all(left == right for _, left, right in produced.equations)


def test_a_poisoned_row_keeps_the_sums(tmp_path: Path, read: Any) -> None:
    path = tmp_path / "a.jsonl"
    good = json.dumps({"text": world.prose(1)})
    path.write_text(f'{good}\n{{"text": "a", "\\ud800": "x"}}\n{{"text": {"9" * 5_000}}}\n{good}\n')
    produced = read({"kind": "table", "paths": [str(path)]})
    assert produced.counts["records"] == 4
    assert (produced.counts["raw"], produced.counts["quarantined"]) == (3, 1)
    assert all(left == right for _, left, right in produced.equations)


def test_every_record_of_every_table_is_accounted_for(read: Any) -> None:
    sources = [{"kind": "table", "name": name, "paths": [str(TABLES / name)]} for name in CASES]
    produced = read(*sources)
    assert all(left == right for _, left, right in produced.equations)
    for row in produced.funnel:
        texts, reasons = CASES[row["source"]]
        assert (row["raw"], row["refused"] + row["quarantined"]) == (len(texts), len(reasons)), row["source"]
    _, files = produced.tables["raw"]
    ids = [id for file in files for id in pq.read_table(file.path, columns=["id"])["id"].to_pylist()]
    assert len(set(ids)) == len(ids) == produced.counts["raw"]


def test_files_of_one_name_in_two_sources_are_two_archives(tmp_path: Path, read: Any) -> None:
    folder = TABLES / "same_name"
    sources: list[dict[str, Any]] = [
        {"kind": "table", "name": "alpha", "paths": [f"{folder}/alpha/data/*.jsonl"], "columns": {"text": "content"}},
        {"kind": "table", "name": "beta", "paths": [f"{folder}/beta/data/*.jsonl"]},
    ]
    produced = read(*sources)
    rows = [row for file in produced.tables["raw"][1] for row in pq.read_table(file.path).to_pylist()]
    assert {row["archive"]: row["source"] for row in rows} == {
        "train-00000-of-00001.jsonl": "alpha", "beta/train-00000-of-00001.jsonl": "beta",
    }  # fmt: skip
    assert len({row["id"] for row in rows}) == 2
    alone = read(sources[0])
    (file,) = alone.tables["raw"][1]
    assert pq.read_table(file.path)["id"].to_pylist() == [row["id"] for row in rows if row["source"] == "alpha"]
    for source in sources:
        del source["name"]
    archives = [archive.name for archive in named(sources, tmp_path)]
    assert archives == ["train-00000-of-00001.jsonl", "table/train-00000-of-00001.jsonl"]
    archives = [
        archive.name for archive in named([*sources, {"kind": "table", "paths": [str(tmp_path / "x")]}], tmp_path)
    ]
    assert archives[2] == "x/train-00000-of-00001.jsonl"


def named(sources: list[dict[str, Any]], folder: Path) -> list[Archive]:
    (folder / "x").mkdir(exist_ok=True)
    (folder / "x" / "train-00000-of-00001.jsonl").touch()
    lake = Lake(folder / "lake")
    lake.create()
    return list_archives([SOURCE.validate_python(source) for source in sources], lake)
