"""The funnel counts what became of every record, by the tables' rows alone."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from datalake.lake.funnel import Fate, by_source, funnel, tally, whole


def table(path: Path, rows: list[dict[str, Any]], **columns: pa.DataType) -> str:
    pq.write_table(pa.Table.from_pylist(rows, pa.schema(list(columns.items()))), path)
    return str(path)


TEXT = {"source": pa.string(), "reason": pa.string(), "verdict": pa.string(), "rule": pa.string(), "text": pa.string()}


def files(folder: Path) -> dict[str, list[str]]:
    def made(name: str, columns: str, *rows: str) -> str:
        names = columns.split()
        values = [dict(zip(names, (v if v != "-" else None for v in row.split()), strict=True)) for row in rows]
        return table(folder / f"{name}.parquet", values, **{name: TEXT[name] for name in names})

    return {
        "raw": [made("raw1", "source text", "web a", "web b", "wiki c"), made("raw2", "source text", "web d")],
        "conversations": [made("conversations", "source", "talk", "talk")],
        "refused": [made("refused", "source reason", "web status", "wiki empty", "web empty", "web status")],
        "quarantine": [made("quarantine", "source reason", "lost truncated")],
        "curation": [
            made(
                "curation",
                "source verdict rule",
                "web kept -",
                "web rejected c4/lines",
                "web rejected c4/lines",
                "wiki kept -",
            )
        ],
    }


def test_every_record_has_one_fate(tmp_path: Path) -> None:
    fates = funnel(files(tmp_path))
    assert fates == {
        "lost": Fate(quarantined=Counter(truncated=1)),
        "talk": Fate(taken=2),
        "web": Fate(3, Counter(status=2, empty=1), kept=1, rejected=Counter({"c4/lines": 2})),
        "wiki": Fate(1, Counter(empty=1), kept=1),
    }
    every = whole(fates.values())
    assert (every.records, every.taken, every.decided) == (11, 6, 4)
    assert every.refused == Counter(status=2, empty=2)
    assert fates["web"].decided == fates["web"].taken


def test_a_source_without_a_record_has_a_row_too(tmp_path: Path) -> None:
    rows = by_source(funnel(files(tmp_path)), {"web": 2, "empty": 1, "lost": 1})
    assert [list(row.values()) for row in rows] == [
        ["web", 2, 6, 3, 3, 0, "empty 1, status 2"],
        ["empty", 1, 0, 0, 0, 0, ""],
        ["lost", 1, 1, 0, 0, 1, "truncated 1"],
    ]


def test_tables_that_a_run_doesnt_have_count_nothing(tmp_path: Path) -> None:
    assert funnel({}) == {}
    assert funnel({"refused": files(tmp_path)["refused"]})["web"].records == 3
    assert tally([], "source") == Counter()


def test_values_are_counted_over_all_batches(tmp_path: Path) -> None:
    rows = [{"source": f"s{n % 3}" if n % 5 else None} for n in range(200_000)]
    path = table(tmp_path / "many.parquet", rows, source=pa.string())
    assert tally([path, path], "source") == Counter({(row["source"],): 0 for row in rows}) + Counter(
        (row["source"],) for row in rows * 2
    )
