"""Reading a lake with SQL: every corpus as its last finished run left it, and the ledger that joins what is known.

Tables are views over the Parquet files a run's manifest names, so going back to an earlier recipe shows its tables
again. Two views are made here: `clean` (documents that are no duplicates, without what is cut from them) and `ledger`
(one row for every raw or refused record and everything decided about it).
"""

from __future__ import annotations

import math
import re
import shutil
import tempfile
import weakref
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from datalake.errors import LostDataError, UserError, first_line, note
from datalake.lake import Lake, TableRef
from datalake.parquet import literal, quoted, scan
from datalake.records import Manifest, find_manifest, manifests

if TYPE_CHECKING:
    import duckdb

# Columns of `curation` that the ledger shows elsewhere or under another name.
_DECIDED = ("id", "source", "language", "verdict", "rule")
SHARED = ("runs.stages", "runs.metrics", "runs.evaluations", "runs.left_out", "models.checkpoints")


def connect(lake: Lake, run: str | None = None, allow_files: bool = False) -> duckdb.DuckDBPyConnection:
    """A DuckDB connection with a view for every table: each corpus by its last finished run, or by `run` alone.

    Unless `allow_files`, SQL reads no file but the lake's shards, attaches nothing and loads no extension. Files are
    there at their sizes; DuckDB compares no checksums, which `headwater doctor --deep` does.

    Raises:
        UserError: when there is no such run, or its tables are gone; of several corpora those that are whole are shown.
    """
    import duckdb

    # In memory; what doesn't fit there goes where temporary files do, and not where the user happens to be.
    spill = tempfile.mkdtemp(prefix="headwater-")
    connection = duckdb.connect(config={"temp_directory": spill})
    weakref.finalize(connection, shutil.rmtree, spill, ignore_errors=True)
    # DuckDB takes a schema called as a database is for that database, so this one has a name that no corpus can have.
    connection.execute("ATTACH ':memory:' AS \"lake's\"; USE \"lake's\"; DETACH memory")
    connection.execute("SET TimeZone = 'UTC'")
    if run:
        shown = [find_manifest(lake, run)]
    else:
        shown = list({manifest.corpus: manifest for manifest in manifests(lake)}.values())
    for manifest in shown:
        try:
            _corpus_views(connection, lake, manifest)
        except (LostDataError, duckdb.Error, OSError) as error:
            why = error.why if isinstance(error, LostDataError) else first_line(error)
            lost = LostDataError(f"tables of run {manifest.run}", why, several=True)
            if len(shown) == 1:
                raise lost from None
            note(str(lost))
    for name in SHARED:
        files = lake.current_files(name)
        if files:
            _view(connection, name, files, by_name=True)
    if not allow_files:
        shards = str(lake.root / "shards")
        connection.execute(f"SET allowed_directories = {quoted(list(dict.fromkeys([shards, literal(shards)])))}")
        connection.execute("SET enable_external_access = false")
        connection.execute("SET lock_configuration = true")
    return connection


def _name(text: str) -> str:
    """An identifier in SQL, whatever it holds."""
    return '"' + text.replace('"', '""') + '"'


def _view(connection: duckdb.DuckDBPyConnection, name: str, files: list[str], by_name: bool = False) -> None:
    corpus, table = name.split(".")
    connection.execute(f"CREATE SCHEMA IF NOT EXISTS {_name(corpus)}")
    connection.execute(f"CREATE VIEW {_name(corpus)}.{_name(table)} AS SELECT * FROM {scan(files, by_name)}")


def _corpus_views(connection: duckdb.DuckDBPyConnection, lake: Lake, manifest: Manifest) -> None:
    tables = {name: ref for name, ref in manifest.refs.items() if isinstance(ref, TableRef)}
    corpus = manifest.corpus
    for name, ref in tables.items():
        files = lake.files(ref)
        if files:
            _view(connection, f"{corpus}.{name}", files)
        else:
            empty = lake.schema(ref).empty_table()
            connection.execute(f"CREATE SCHEMA IF NOT EXISTS {_name(corpus)}")
            connection.register(f"empty_{corpus}_{name}", empty)
            view = f"CREATE VIEW {_name(corpus)}.{_name(name)} AS SELECT * FROM"
            connection.execute(f"{view} {_name(f'empty_{corpus}_{name}')}")
    if "documents" in tables:
        connection.execute(clean_view(corpus, "duplicates" in tables, "spans" in tables))
    if "raw" in tables:
        columns: list[str] = []
        if "curation" in tables:
            rows = connection.execute(f"DESCRIBE {_name(corpus)}.curation").fetchall()
            columns = [row[0] for row in rows if row[0] not in _DECIDED]
        connection.execute(ledger_view(corpus, set(tables), columns))


def clean_view(corpus: str, deduplicated: bool, spans: bool = False) -> str:
    """SQL that makes `<corpus>.clean`: documents kept by curation that are no duplicate, without their spans.

    Texts are those of `datalake.dedup.cut`; a document of which nothing is left is not there.
    """
    anti = (
        f'WHERE id NOT IN (SELECT id FROM "{corpus}".duplicates WHERE duplicate_of IS NOT NULL)' if deduplicated else ""
    )
    whole = f'SELECT * FROM "{corpus}".documents {anti}'
    if not spans:
        return f'CREATE VIEW "{corpus}".clean AS {whole}'
    return f"""
        CREATE VIEW "{corpus}".clean AS
        SELECT d.* REPLACE (CASE WHEN c.upto IS NULL THEN d.text ELSE array_to_string(
                   [substr(d.text, gap.start + 1, gap.size) for gap in c.gaps], '') || substr(d.text, c.upto + 1)
               END AS text)
        FROM ({whole}) d LEFT JOIN ({_gaps(corpus)}) c ON c.id = d.id
        WHERE c.upto IS NULL OR c.size < length(d.text)"""


def _gaps(corpus: str) -> str:
    """SQL: for each document with spans what stands between them, where the last one ends, and characters cut."""
    return f"""
        SELECT id, coalesce(list({{'start': before, 'size': "start" - before}} ORDER BY "start")
                            FILTER ("start" > before), []) AS gaps,
               max("end") AS upto,
               sum(greatest("end" - greatest("start", before), 0)) AS size,
               list_sort(list(DISTINCT level)) AS levels
        FROM (SELECT id, level, "start", "end",
                     coalesce(max("end") OVER (PARTITION BY id ORDER BY "start", "end"
                                               ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING), 0) AS before
              FROM "{corpus}".spans)
        GROUP BY id"""


def ledger_view(corpus: str, tables: set[str], metrics: list[str]) -> str:
    """SQL that makes `<corpus>.ledger`: one row per raw or refused record, with the decisions known so far.

    It begins with id, uri, source, language, verdict, rule, duplicate_of, similarity; metrics follow. `verdict` is null
    for a document that no stage has decided about yet. Where there are spans, `cut` is how many characters of a kept
    document they take, and `cut_by` at which levels.
    """
    curated, deduplicated, spans = "curation" in tables, "duplicates" in tables, "spans" in tables
    verdict = "c.verdict" if curated else "NULL"
    if deduplicated:
        verdict = f"CASE WHEN d.duplicate_of IS NOT NULL THEN 'duplicate' ELSE {verdict} END"
    more = "".join(f", c.{_name(name)}" for name in metrics)
    raw = f"""
        SELECT r.id, r.uri, r.source, r.language,
               {verdict}::VARCHAR AS verdict,
               {"c.rule" if curated else "NULL::VARCHAR"} AS rule,
               {"d.duplicate_of" if deduplicated else "NULL::BLOB"} AS duplicate_of,
               {"d.similarity" if deduplicated else "NULL::DOUBLE"} AS similarity,
               r.archive, r."offset"
               {", coalesce(s.size, 0)::BIGINT AS cut, coalesce(s.levels, []) AS cut_by" if spans else ""} {more}
        FROM "{corpus}".raw r
        {f'LEFT JOIN "{corpus}".curation c ON c.id = r.id' if curated else ""}
        {f'LEFT JOIN "{corpus}".duplicates d ON d.id = r.id' if deduplicated else ""}
        {f"LEFT JOIN ({_gaps(corpus)}) s ON s.id = r.id" if spans else ""}"""
    refused = f"""
        SELECT id, uri, source, language, 'rejected' AS verdict, reason AS rule, archive, "offset"
        FROM "{corpus}".refused"""
    both = f"{raw} UNION ALL BY NAME {refused}" if "refused" in tables else raw
    return f'CREATE VIEW "{corpus}".ledger AS {both}'


# Statements that write files or open other databases, which DuckDB would still do among the lake's own files.
_WRITES = {"COPY", "EXPORT", "ATTACH", "COPY_DATABASE", "PREPARE", "EXECUTE"}
_FILES = "query reads the lake's tables alone: give --allow-files to write files or read others"


def query(
    lake: Lake, sql: str, run: str | None = None, allow_files: bool = False
) -> tuple[list[str], list[tuple[Any, ...]]]:
    """Column names and rows of a query. Raises UserError with DuckDB's own words where the SQL is wrong.

    `allow_files`: SQL may read and write files of this machine (`COPY ... TO`, `read_csv`, `ATTACH`).
    """
    import duckdb

    connection = connect(lake, run, allow_files)
    try:
        if not allow_files:
            for statement in connection.extract_statements(sql):
                explained = statement.type.name == "EXPLAIN" and re.search(r"(?i)\b(copy|export)\b", statement.query)
                if statement.type.name in _WRITES or explained:
                    raise UserError(f"the query failed: {_FILES}")
        result = connection.execute(sql)
        if result is None:
            raise UserError("the query is empty: give one, such as 'SHOW ALL TABLES'")
        return _each_once([column[0] for column in result.description or []]), result.fetchall()
    except duckdb.PermissionException as error:
        raise UserError(f"the query failed: {' '.join(str(error).split())}; {_FILES}") from None
    except duckdb.CatalogException as error:
        missing = re.search(r'Table with name "?([\w.]+)"? does not exist', str(error))
        if not missing:
            raise UserError(f"the query failed: {' '.join(str(error).split())}") from None
        sql_of_all = "SELECT schema, name FROM (SHOW ALL TABLES) WHERE schema <> 'main' ORDER BY ALL"
        there = connection.execute(sql_of_all).fetchall()
        near = [row for row in there if f"{row[0]}." in sql] or there
        names = ", ".join(f"{schema}.{table}" for schema, table in near)
        raise UserError(f"the query failed: nothing wrote a table {missing[1]} here; there are {names}") from None
    except duckdb.Error as error:
        raise UserError(f"the query failed: {' '.join(str(error).split())}") from None


def _each_once(names: list[str]) -> list[str]:
    """Names of which none comes twice: a second `id` is `id_1`, so that a row as a mapping loses nothing."""
    found: list[str] = []
    for name in names:
        number, fresh = 0, name
        while fresh in found:
            number += 1
            fresh = f"{name}_{number}"
        found.append(fresh)
    return found


def plain_value(value: Any) -> Any:
    """A value of a query's result as JSON: ids in hex, times in ISO 8601."""
    if isinstance(value, bytes | bytearray | memoryview):
        return bytes(value).hex()
    if isinstance(value, dict):
        return {str(plain_value(key)): plain_value(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain_value(item) for item in value]
    if isinstance(value, Decimal) and value.is_finite():
        return int(value) if value == value.to_integral_value() else float(value)
    if isinstance(value, float) and not math.isfinite(value):
        return None  # JSON has no such numbers
    if value is None or isinstance(value, bool | int | float | str):
        return value
    return value.isoformat() if hasattr(value, "isoformat") else str(value)
