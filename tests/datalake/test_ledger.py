"""The ledger: one row for each raw or refused record and all that was decided about it, as a run left it."""

from __future__ import annotations

import random
import subprocess
import sys
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from datalake.curate.schema import CURATION
from datalake.dedup.schema import DUPLICATES
from datalake.dedup.spans.cut import cut
from datalake.dedup.spans.schema import SPANS
from datalake.document import Quarantined
from datalake.errors import UserError
from datalake.lake.lake import Lake, Ref
from datalake.lake.ledger import clean_view, connect, kind_of, ledger_view, plain_value, query
from datalake.lake.records import Manifest, StageReport, write_manifest
from datalake.lake.shards import ShardWriter
from datalake.mixture.build import MIXTURE
from datalake.tables import DOCUMENTS, RAW, REFUSED, TABLES

START = datetime(2026, 11, 23, tzinfo=UTC)
FIRST = ["id", "uri", "source", "language", "verdict", "rule", "duplicate_of", "similarity"]


def number(n: int) -> bytes:
    return n.to_bytes(16, "big")


def raw(n: int) -> dict[str, Any]:
    return {
        "id": number(n), "text": f"text {n}", "source": "web", "uri": f"http://x.example/{n}", "language": "en",
        "language_score": 0.9, "archive": "a.warc", "offset": n, "length": 1, "attributes": [("host", "x.example")],
    }  # fmt: skip


def decided(n: int, rule: str | None = None) -> dict[str, Any]:
    verdict = "rejected" if rule else "kept"
    return {
        "id": number(n),
        "source": "web",
        "language": "en",
        "verdict": verdict,
        "rule": rule,
        "rules": [rule] if rule else [],
    }


def refused(n: int) -> dict[str, Any]:
    return {"id": number(n), "source": "web", "uri": f"http://x.example/{n}", "reason": "status", "detail": "404",
            "language": "und", "archive": "a.warc", "offset": n, "length": 1}  # fmt: skip


def commit(lake: Lake, name: str, schema: pa.Schema, rows: Sequence[dict[str, Any]], key: str) -> Ref:
    short = name.split(".")[1]
    with ShardWriter(lake.shard_folder(short, key), key, key, {short: schema}) as out:
        out.write(short, pa.Table.from_pylist(list(rows), schema=schema))
    return lake.commit(name, schema, out.result.files, key)


def finish(lake: Lake, run: str, refs: dict[str, Ref], corpus: str = "small", minute: int = 0) -> None:
    at = START + timedelta(minutes=minute)
    report = StageReport(stage="all", state="ran", seconds=0, outputs=refs)  # type: ignore[arg-type]
    write_manifest(lake, Manifest(run=run, corpus=corpus, recipe={}, started=at, finished=at, stages=[report]))


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    """A finished run: 0 and 1 kept, 2 rejected, 3 a duplicate of 0, 4 refused."""
    lake = Lake(tmp_path / "it's a lake").create()
    refs = {
        "raw": commit(lake, "small.raw", RAW, [raw(n) for n in range(4)], "one"),
        "refused": commit(lake, "small.refused", REFUSED, [refused(4)], "one"),
        "curation": commit(
            lake, "small.curation", CURATION, [decided(0), decided(1), decided(2, "min_words"), decided(3)], "one"
        ),
        "documents": commit(lake, "small.documents", DOCUMENTS, [raw(0), raw(1), raw(3)], "one"),
        "duplicates": commit(
            lake,
            "small.duplicates",
            DUPLICATES,
            [
                {"id": number(0)},
                {"id": number(1)},
                {"id": number(3), "duplicate_of": number(0), "level": "near", "similarity": 0.9},
            ],
            "one",
        ),
    }
    finish(lake, "first", refs)
    return lake


def test_the_ledger_begins_with_what_was_decided_and_metrics_follow(lake: Lake) -> None:
    columns, _ = query(lake, "SELECT * FROM small.ledger")
    assert columns[:8] == FIRST
    metrics = [name for name in CURATION.names if name not in ("id", "source", "language", "verdict", "rule")]
    assert set(columns[8:]) == {*metrics, "archive", "offset"}


def test_each_record_has_one_row_with_its_verdict(lake: Lake) -> None:
    _, rows = query(lake, f"SELECT {', '.join(FIRST)} FROM small.ledger ORDER BY id")
    assert [row[1].rpartition("/")[2] for row in rows] == list("01234")
    assert [row[4] for row in rows] == ["kept", "kept", "rejected", "duplicate", "refused"]
    assert [row[5] for row in rows] == [None, None, "min_words", None, "status"]
    assert [row[6] for row in rows] == [None, None, None, number(0), None]
    assert [row[7] for row in rows] == [None, None, None, 0.9, None]


@pytest.mark.parametrize("corpus", ["memory", "localmemory", "select", "order", "table", "null", "raw", "default", "_"])
def test_a_corpus_may_be_called_as_a_database_or_a_word_of_sql_is(lake: Lake, corpus: str) -> None:
    refs: dict[str, Ref] = {}
    for name in _refs(lake):
        rows = [] if name == "refused" else [raw(0)] if name in ("raw", "documents") else [decided(0)]
        schema = {"raw": RAW, "documents": DOCUMENTS, "curation": CURATION, "refused": REFUSED}.get(name)
        if schema is not None:
            refs[name] = commit(lake, f"{corpus}.{name}", schema, rows, "two")
    finish(lake, "other", refs, corpus)
    assert query(lake, f'SELECT verdict FROM "{corpus}".ledger')[1] == [("kept",)]
    assert query(lake, f'SELECT count(*) FROM "{corpus}".refused')[1] == [(0,)]
    assert query(lake, "SELECT count(*) FROM small.ledger")[1] == [(5,)]
    assert query(lake, "SELECT count(*) FROM memory.raw")[1] == [(1,)] if corpus == "memory" else True


def test_clean_is_what_curation_kept_less_the_duplicates(lake: Lake) -> None:
    columns, rows = query(lake, "SELECT * FROM small.clean ORDER BY id")
    assert columns == DOCUMENTS.names
    assert [row[0] for row in rows] == [number(0), number(1)]


def test_before_deduplication_clean_is_all_that_curation_kept(lake: Lake) -> None:
    refs = {name: ref for name, ref in _refs(lake).items() if name != "duplicates"}
    finish(lake, "second", refs, minute=1)
    assert query(lake, "SELECT count(*) FROM small.clean")[1] == [(3,)]
    assert query(lake, "SELECT verdict, duplicate_of FROM small.ledger WHERE id = '\\x03'::BLOB OR uri LIKE '%/3'")[
        1
    ] == [("kept", None)]


@pytest.mark.parametrize("seed", range(20))
def test_clean_and_the_ledger_cut_as_the_one_function_does(seed: int) -> None:
    draw = random.Random(seed)
    texts = {number(n): "".join(draw.choices("ab \n中🙂é", k=draw.randrange(1, 12))) for n in range(40)}
    spans: dict[bytes, list[tuple[int, int]]] = {}
    for id, text in texts.items():
        for _ in range(draw.choice([0, 1, 2, 5])):
            start, end = sorted(draw.choices(range(len(text) + 1), k=2))
            if start < end:
                spans.setdefault(id, []).append((start, end))
    # Removed for the address, an equal text, a near one.
    gone = {number(0): None, number(1): 1.0, number(2): 0.8}
    rows = [(id, draw.choice(["line", "substring"]), *span) for id, found in spans.items() for span in found]
    draw.shuffle(rows)
    tables = {
        "raw": pa.table(
            {"id": list(texts)} | {name: ["x"] * 40 for name in ("uri", "source", "language", "archive", "offset")}
        ),
        "documents": pa.table({"id": list(texts), "text": list(texts.values())}),
        "duplicates": pa.table(
            {
                "id": list(texts),
                "duplicate_of": pa.array([number(9) if id in gone else None for id in texts], pa.binary()),
                "similarity": pa.array([gone.get(id) for id in texts], pa.float64()),
            }
        ),
        "spans": pa.table(dict(zip(("id", "level", "start", "end"), map(list, zip(*rows, strict=True)), strict=True))),
    }
    with duckdb.connect() as connection:
        connection.execute("CREATE SCHEMA c")
        for name, table in tables.items():
            connection.register(f"given_{name}", table)
            connection.execute(f"CREATE TABLE c.{name} AS SELECT * FROM given_{name}")
        connection.execute(clean_view("c", True, True))
        connection.execute(ledger_view("c", set(tables), []))
        clean = dict(connection.execute("SELECT id, text FROM c.clean").fetchall())
        ledger = {
            row[0]: row[1:] for row in connection.execute("SELECT id, verdict, cut, cut_by FROM c.ledger").fetchall()
        }
    left = {id: cut(text, spans.get(id, [])) for id, text in texts.items()}
    assert clean == {id: text for id, text in left.items() if text and id not in gone}
    assert {id: size for id, (_, size, _) in ledger.items()} == {id: len(texts[id]) - len(left[id]) for id in texts}
    assert all(levels == sorted({row[1] for row in rows if row[0] == id}) for id, (_, _, levels) in ledger.items())
    assert {id for id, (verdict, *_) in ledger.items() if verdict == "duplicate"} == set(gone)


def test_before_curation_a_record_has_no_verdict_yet_but_a_refused_one_has(lake: Lake) -> None:
    refs = {name: ref for name, ref in _refs(lake).items() if name in ("raw", "refused")}
    finish(lake, "second", refs, minute=1)
    columns, rows = query(lake, "SELECT * FROM small.ledger ORDER BY id")
    assert columns[:8] == FIRST
    assert [row[4] for row in rows] == [None, None, None, None, "refused"]


def _refs(lake: Lake) -> dict[str, Ref]:
    from datalake.lake.records import find_manifest

    return find_manifest(lake, "first").refs


def test_a_record_that_curation_has_not_reached_is_there_without_a_verdict(lake: Lake) -> None:
    part = commit(lake, "small.curation", CURATION, [decided(0), decided(2, "min_words")], "two")
    refs = {name: ref for name, ref in _refs(lake).items() if name not in ("documents", "duplicates")}
    finish(lake, "second", refs | {"curation": part}, minute=1)
    _, rows = query(lake, "SELECT verdict FROM small.ledger ORDER BY id")
    assert rows == [("kept",), (None,), ("rejected",), (None,), ("refused",)]


def test_a_table_without_rows_is_an_empty_table(lake: Lake) -> None:
    refs = _refs(lake) | {"refused": commit(lake, "small.refused", REFUSED, [], "two")}
    finish(lake, "second", refs, minute=1)
    columns, rows = query(lake, "SELECT * FROM small.refused")
    assert (columns, rows) == (REFUSED.names, [])
    assert query(lake, "SELECT count(*) FROM small.ledger")[1] == [(4,)]


def test_a_corpus_is_shown_as_its_last_finished_run_left_it_or_as_another_did(lake: Lake) -> None:
    refs = _refs(lake) | {"raw": commit(lake, "small.raw", RAW, [raw(0)], "two")}
    finish(lake, "second", refs, minute=1)
    count = "SELECT count(*) FROM small.raw"
    assert query(lake, count)[1] == [(1,)]
    assert query(lake, count, "first")[1] == [(4,)]
    assert query(lake, count, "fir")[1] == [(4,)]
    assert query(lake, count, "second")[1] == [(1,)]
    finish(lake, "third", _refs(lake), minute=2)  # an earlier recipe again: its own references
    assert query(lake, count)[1] == [(4,)]


def test_two_corpora_are_seen_at_once_and_one_run_shows_its_own_alone(lake: Lake) -> None:
    finish(lake, "other", {"raw": commit(lake, "other.raw", RAW, [raw(7)], "three")}, "other", minute=1)
    both = "SELECT (SELECT count(*) FROM small.raw), (SELECT count(*) FROM other.raw)"
    assert query(lake, both)[1] == [(4, 1)]
    with pytest.raises(UserError, match="the query failed"):
        query(lake, both, "other")


def test_a_corpus_may_be_called_like_a_word_of_sql(lake: Lake) -> None:
    finish(lake, "odd", {"raw": commit(lake, "select.raw", RAW, [raw(7)], "four")}, "select", minute=1)
    assert query(lake, 'SELECT count(*) FROM "select".raw')[1] == [(1,)]


@pytest.mark.parametrize("sql", ["SELEC 1", "SELECT * FROM small.nothing", "SELECT nothing FROM small.raw", "", "'"])
def test_wrong_sql_is_answered_with_duckdbs_words_in_one_line(lake: Lake, sql: str) -> None:
    with pytest.raises(UserError, match="the query") as error:
        query(lake, sql)
    assert "\n" not in str(error.value)


def test_a_table_that_nothing_wrote_is_answered_with_those_there_are(lake: Lake) -> None:
    with pytest.raises(
        UserError, match=r"nothing wrote a table nothing here; there are small\.\w+, .*small\.raw"
    ) as error:
        query(lake, "SELECT * FROM small.nothing")
    assert "runs." not in str(error.value)
    with pytest.raises(UserError, match=r"nothing wrote a table nowhere\.raw here; there are .*small\.ledger"):
        query(lake, "SELECT * FROM nowhere.raw")


def test_a_lost_or_damaged_file_is_told_with_what_to_do(lake: Lake) -> None:
    ref: Any = _refs(lake)["curation"]
    [path] = lake.files(ref)
    for damage in (lambda: Path(path).write_bytes(b"PAR1 no"), Path(path).unlink):
        damage()
        with pytest.raises(UserError, match=r"run first are gone or damaged .*run its recipe again") as error:
            query(lake, "SELECT 1")
        assert "\n" not in str(error.value)


def test_an_unknown_run_is_told_with_those_there_are(lake: Lake) -> None:
    with pytest.raises(UserError, match=r"no finished run 9999 in .*\(finished runs: first\)"):
        query(lake, "SELECT 1", "9999")


def test_times_are_shown_in_utc(lake: Lake) -> None:
    assert query(lake, "SELECT current_setting('TimeZone')")[1] == [("UTC",)]


def test_columns_of_one_name_are_told_apart(lake: Lake) -> None:
    assert query(lake, "SELECT 1 AS id, 2 AS id, 3 AS id_1, 4 AS id")[0] == ["id", "id_1", "id_1_1", "id_2"]


def test_a_query_changes_nothing_in_the_lake(lake: Lake) -> None:
    before = sorted((str(path), path.stat().st_mtime_ns) for path in lake.root.rglob("*") if path.is_file())
    query(lake, "CREATE TABLE small.mine AS SELECT * FROM small.raw")
    connect(lake).execute("DROP VIEW small.raw")
    after = sorted((str(path), path.stat().st_mtime_ns) for path in lake.root.rglob("*") if path.is_file())
    assert after == before


def test_values_are_plain_json_with_ids_in_hex() -> None:
    from decimal import Decimal

    assert plain_value(number(255)) == "00" * 15 + "ff"
    assert plain_value({"a": [number(1)], "b": START}) == {
        "a": ["00" * 15 + "01"],
        "b": "2026-11-23T00:00:00+00:00",
    }
    assert plain_value((1, None, True, 0.5, "x")) == [1, None, True, 0.5, "x"]
    for decimal, number_in_json in (("1.50", 1.5), ("50.0", 50), ("NaN", "NaN")):
        assert plain_value(Decimal(decimal)) == number_in_json
    assert plain_value([{b"\x01": 1}]) == [{"01": 1}]
    assert plain_value(float("nan")) is None
    assert plain_value([float("inf")]) == [None]


@pytest.mark.parametrize("schema", [*(schema for _, schema in TABLES.values()), CURATION, SPANS, DUPLICATES, MIXTURE])
def test_types_have_the_names_that_duckdb_gives_them(schema: pa.Schema, tmp_path: Path) -> None:
    pq.write_table(schema.empty_table(), tmp_path / "empty.parquet")
    told = duckdb.sql(f"DESCRIBE SELECT * FROM read_parquet('{tmp_path}/empty.parquet')").fetchall()
    assert [(field.name, kind_of(field.type)) for field in schema] == [(row[0], row[1]) for row in told]
    assert kind_of(pa.list_(pa.struct([("a b", pa.map_(pa.string(), pa.uint32()))]))) == (
        'STRUCT("a b" MAP(VARCHAR, UINTEGER))[]'
    )


def test_asking_imports_no_pandas(lake: Lake) -> None:
    empty = commit(lake, "small.quarantine", TABLES[Quarantined][1], [], "two")
    finish(lake, "second", {"quarantine": empty}, minute=1)
    code = f"""
import sys
from pathlib import Path
from datalake.lake.lake import Lake
from datalake.lake.ledger import ask
ask(Lake(Path({str(lake.root)!r})), "SELECT count(*) FROM small.quarantine")
assert "pandas" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[2])
