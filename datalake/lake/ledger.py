"""Reading a lake with SQL: every corpus as its last finished run left it, and the ledger that joins what is known.

Tables are views over the Parquet files a run's manifest names, so going back to an earlier recipe shows its tables
again. Views are made here: `clean` (documents that are no duplicates, without what is cut from them), `ledger` (one row
for every record that was read and everything decided about it), and `tokens` (see `datalake.lake.tokens`).
"""

from __future__ import annotations

import math
import re
import shutil
import tempfile
import weakref
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from datalake.errors import LostDataError, UserError, first_line, note
from datalake.lake.corpora import Corpus, corpora
from datalake.lake.lake import FolderRef, Lake
from datalake.lake.parquet import attach, distinct, quoted, scan, spellings
from datalake.lake.records import METRICS
from datalake.lake.running import running_metrics
from datalake.lake.tokens import add_tokens_view, token_indices

if TYPE_CHECKING:
    import duckdb
    import pyarrow as pa

    from datalake.lake.records import Manifest

# Columns of `curation` that the ledger shows elsewhere or under another name.
_DECIDED = ("id", "source", "language", "verdict", "rule")
RECORDS = ("raw", "conversations", "preferences", "refused")  # the tables whose rows the ledger has
SHARED = (
    "runs.stages",
    "runs.metrics",
    "runs.evaluations",
    "runs.answers",
    "runs.left_out",
    "runs.samples",
    "runs.spikes",
    "models.checkpoints",
    "models.tags",
)


def connect(
    lake: Lake, run: str | None = None, allow_files: bool = False, shown: Sequence[Corpus] | None = None
) -> duckdb.DuckDBPyConnection:
    """A DuckDB connection with a view for every table: each corpus by its last finished run, or by `run` alone.

    Unless `allow_files`, SQL reads no file but the lake's shards, attaches nothing and loads no extension. Files are
    there at their sizes; DuckDB compares no checksums, which `headwater doctor --deep` does. Where one corpus is shown
    its tables need no namespace. `shown`: what `corpora` gave, where it has been asked.

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
    attach(connection, lake.root)
    for name in SHARED:
        files = lake.current_files(name)
        if files:
            _view(connection, name, files, by_name=True)
    _add_running(connection, lake)
    shown = corpora(lake, run) if shown is None else shown
    for corpus in shown:
        try:
            _corpus_views(connection, lake, corpus)
        except (LostDataError, duckdb.Error, OSError) as error:
            why = error.why if isinstance(error, LostDataError) else first_line(error)
            lost = LostDataError(f"tables of run {corpus.manifest.run}", why, several=True)
            if len(shown) == 1:
                raise lost from None
            note(str(lost))
    schemas = {row[0] for row in connection.execute("SELECT schema FROM (SHOW ALL TABLES)").fetchall()}
    path = [name for name in (*(c.name for c in shown if len(shown) == 1), "runs", "models") if name in schemas]
    if path:
        names = ",".join(map(_name, path)).replace("'", "''")
        connection.execute(f"SET search_path = '{names}'")
    if not allow_files:
        connection.execute(f"SET allowed_directories = {quoted(spellings(lake.root / 'shards'))}")
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


_KINDS = {
    "string": "VARCHAR", "large_string": "VARCHAR", "binary": "BLOB", "bool": "BOOLEAN", "float": "FLOAT",
    "double": "DOUBLE", "int8": "TINYINT", "int16": "SMALLINT", "int32": "INTEGER", "int64": "BIGINT",
    "uint8": "UTINYINT", "uint16": "USMALLINT", "uint32": "UINTEGER", "uint64": "UBIGINT",
}  # fmt: skip


def kind_of(type: pa.DataType) -> str:
    """DuckDB's name of a type. It would tell it itself, but imports pandas for that, which takes a second."""
    from pyarrow import types

    if types.is_map(type):
        return f"MAP({kind_of(type.key_type)}, {kind_of(type.item_type)})"
    if types.is_list(type):
        return f"{kind_of(type.value_type)}[]"
    if types.is_struct(type):
        return f"STRUCT({', '.join(f'{_name(field.name)} {kind_of(field.type)}' for field in type)})"
    if types.is_fixed_size_binary(type):
        return "BLOB"
    if types.is_timestamp(type):
        return "TIMESTAMP WITH TIME ZONE" if type.tz else "TIMESTAMP"
    return _KINDS[str(type)]


def _corpus_views(connection: duckdb.DuckDBPyConnection, lake: Lake, shown: Corpus) -> None:
    corpus = shown.name
    for name, ref in shown.tables.items():
        files = lake.files(ref)
        if files:
            _view(connection, f"{corpus}.{name}", files)
        else:
            connection.execute(f"CREATE SCHEMA IF NOT EXISTS {_name(corpus)}")
            columns = ", ".join(f"NULL::{kind_of(field.type)} AS {_name(field.name)}" for field in lake.schema(ref))
            connection.execute(f"CREATE VIEW {_name(corpus)}.{_name(name)} AS SELECT {columns} WHERE false")
    cleaned = shown.joined("documents")
    if cleaned:
        connection.execute(clean_view(corpus, "duplicates" in cleaned, "spans" in cleaned))
    recorded = {name for base in RECORDS for name in shown.joined(base)}
    if recorded & set(RECORDS):
        metrics: list[str] = []
        if "curation" in recorded:
            rows = connection.execute(f"DESCRIBE {_name(corpus)}.curation").fetchall()
            metrics = [row[0] for row in rows if row[0] not in _DECIDED]
        connection.execute(ledger_view(corpus, recorded, metrics, _spiked(connection, shown)))
    _tokens_view(connection, lake, shown)


def _add_running(connection: duckdb.DuckDBPyConnection, lake: Lake) -> None:
    """Puts the rows of stages that still train into `runs.metrics`, as they are now."""
    rows = running_metrics(lake)
    if not rows:
        return
    import pyarrow as pa

    connection.register("running", pa.Table.from_pylist(rows, METRICS))
    connection.execute("CREATE SCHEMA IF NOT EXISTS runs")
    both = "SELECT * FROM running"
    if ("runs", "metrics") in connection.execute("SELECT schema, name FROM (SHOW ALL TABLES)").fetchall():
        told = "SELECT fingerprint FROM runs.metrics"  # by a stage that is being recorded
        both = f"SELECT * FROM runs.metrics UNION ALL BY NAME {both} WHERE fingerprint NOT IN ({told})"
    connection.execute(f"CREATE TABLE runs.both AS {both}")
    connection.unregister("running")
    connection.execute("DROP VIEW IF EXISTS runs.metrics")
    connection.execute("ALTER TABLE runs.both RENAME TO metrics")


def _spiked(connection: duckdb.DuckDBPyConnection, shown: Corpus) -> list[str]:
    """The stages of the run that is shown, by their fingerprints, in which a loss spiked."""
    there = connection.execute("SELECT schema, name FROM (SHOW ALL TABLES)").fetchall()
    if ("runs", "spikes") not in there:
        return []
    known = {row[0] for row in connection.execute("SELECT DISTINCT fingerprint FROM runs.spikes").fetchall()}
    return sorted(known.intersection(report.fingerprint for report in shown.manifest.stages))


def _tokens_view(connection: duckdb.DuckDBPyConnection, lake: Lake, shown: Corpus) -> None:
    """`<corpus>.tokens`, where the token shards are there that were made of the mixture that is shown."""
    tokens = shown.manifest.refs.get("tokens")
    if not isinstance(tokens, FolderRef) or "mixture" not in shown.continued:
        return
    with suppress(LostDataError):
        indices = token_indices(lake, tokens)
        if indices and all(index.is_file() for index in indices):
            seed = int((shown.manifest.recipe.get("mixture") or {}).get("seed", 0))
            add_tokens_view(connection, shown.name, indices, seed)


def clean_view(corpus: str, deduplicated: bool, spans: bool = False) -> str:
    """SQL that makes `<corpus>.clean`: documents kept by curation that are no duplicate, without their spans.

    Texts are those of `datalake.dedup.spans.cut`; a document of which nothing is left is not there.
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


def ledger_view(corpus: str, tables: set[str], metrics: list[str], spiked: Sequence[str] = ()) -> str:
    """SQL that makes `<corpus>.ledger`: one row per record that was read, with the decisions known so far.

    It begins with id, uri, source, language, verdict, rule, duplicate_of, similarity; metrics follow. `verdict` is
    `kept`, `rejected` (by a rule of curation), `duplicate` or `refused` (when it was read: `rule` is the reason); null
    for a document that no stage has decided about yet. Dialogues and preference pairs are kept as they are read. Where
    there are spans, `cut` is how many characters of a kept document they take, and `cut_by` at which levels. Where a
    loss spiked in the stages `spiked`, `spike_rank` is a document's best rank among those of a spike, by their own loss
    in nats a token, and `spike_loss` the largest such loss.
    """
    parts = []
    if "raw" in tables:
        parts.append(_raw_rows(corpus, tables, metrics, spiked))
    for name, verdict, rule in (
        ("conversations", "kept", "NULL::VARCHAR"),
        ("preferences", "kept", "NULL::VARCHAR"),
        ("refused", "refused", "reason"),
    ):
        if name in tables:
            undecided = "" if parts else ", NULL::BLOB AS duplicate_of, NULL::DOUBLE AS similarity"
            parts.append(f"""
        SELECT id, uri, source, language, '{verdict}' AS verdict, {rule} AS rule{undecided}, archive, "offset"
        FROM "{corpus}".{name}""")
    return f'CREATE VIEW "{corpus}".ledger AS {" UNION ALL BY NAME ".join(parts)}'


def _raw_rows(corpus: str, tables: set[str], metrics: list[str], spiked: Sequence[str]) -> str:
    """SQL: the ledger's rows of documents."""
    ranked = f"""SELECT id, min(rank) AS spike_rank, max(loss) AS spike_loss FROM runs.spikes
                 WHERE fingerprint IN {quoted(spiked)} GROUP BY id"""
    curated, deduplicated, spans = "curation" in tables, "duplicates" in tables, "spans" in tables
    verdict = "c.verdict" if curated else "NULL"
    if deduplicated:
        verdict = f"CASE WHEN d.duplicate_of IS NOT NULL THEN 'duplicate' ELSE {verdict} END"
    more = "".join(f", c.{_name(name)}" for name in metrics)
    return f"""
        SELECT r.id, r.uri, r.source, r.language,
               {verdict}::VARCHAR AS verdict,
               {"c.rule" if curated else "NULL::VARCHAR"} AS rule,
               {"d.duplicate_of" if deduplicated else "NULL::BLOB"} AS duplicate_of,
               {"d.similarity" if deduplicated else "NULL::DOUBLE"} AS similarity,
               r.archive, r."offset"
               {", coalesce(s.size, 0)::BIGINT AS cut, coalesce(s.levels, []) AS cut_by" if spans else ""}
               {", k.spike_rank, k.spike_loss" if spiked else ""} {more}
        FROM "{corpus}".raw r
        {f'LEFT JOIN "{corpus}".curation c ON c.id = r.id' if curated else ""}
        {f'LEFT JOIN "{corpus}".duplicates d ON d.id = r.id' if deduplicated else ""}
        {f"LEFT JOIN ({_gaps(corpus)}) s ON s.id = r.id" if spans else ""}
        {f"LEFT JOIN ({ranked}) k ON k.id = r.id" if spiked else ""}"""


# Statements that write files or open other databases, which DuckDB would still do among the lake's own files.
_WRITES = {"COPY", "EXPORT", "ATTACH", "COPY_DATABASE", "PREPARE", "EXECUTE"}
_FILES = "query reads the lake's tables alone: give --allow-files to write files or read others"


def query(
    lake: Lake, sql: str, run: str | None = None, allow_files: bool = False
) -> tuple[list[str], list[tuple[Any, ...]]]:
    """Column names and rows of a query. Raises UserError with DuckDB's own words where the SQL is wrong.

    `allow_files`: SQL may read and write files of this machine (`COPY ... TO`, `read_csv`, `ATTACH`).
    """
    columns, rows, _ = ask(lake, sql, run, allow_files)
    return columns, rows


def ask(
    lake: Lake,
    sql: str,
    run: str | None = None,
    allow_files: bool = False,
    fetch: Callable[[duckdb.DuckDBPyConnection], Any] = lambda result: result.fetchall(),
    made: Mapping[str, Callable[[Lake, Manifest], pa.Table | None]] | None = None,
) -> tuple[list[str], Any, list[str]]:
    """What `query` gives, and what has to be said of the tables in it: which of them an earlier run left.

    `fetch` takes the rows from DuckDB's result, as tuples or as an Arrow table. `made`: tables of a corpus that are
    worked out where a query names them, from the run that it is shown by.
    """
    import duckdb

    shown = corpora(lake, run)
    connection = connect(lake, run, allow_files, shown)
    try:
        if not allow_files:
            for statement in connection.extract_statements(sql):
                explained = statement.type.name == "EXPLAIN" and re.search(r"(?i)\b(copy|export)\b", statement.query)
                if statement.type.name in _WRITES or explained:
                    raise UserError(f"the query failed: {_FILES}")
        asked = _asked(sql)
        for corpus in shown:
            for name, make in (made or {}).items():
                if {name, f"{corpus.name}.{name}"} & asked and (table := make(lake, corpus.manifest)) is not None:
                    connection.register("made", table)
                    connection.execute(f"CREATE TABLE {_name(corpus.name)}.{_name(name)} AS SELECT * FROM made")
                    connection.unregister("made")
        result = connection.execute(_TABLES if _SHOW_TABLES.fullmatch(sql) else sql)
        if result is None:
            raise UserError("the query is empty: give one, such as 'SHOW TABLES'")
        columns = distinct([column[0] for column in result.description or []], "_")
        return columns, fetch(result), _notes(shown, sql)
    except duckdb.PermissionException as error:
        raise UserError(f"the query failed: {' '.join(str(error).split())}; {_FILES}") from None
    except duckdb.CatalogException as error:
        missing = re.search(r'Table with name "?([\w.]+)"? does not exist', str(error))
        if not missing:
            raise UserError(f"the query failed: {' '.join(str(error).split())}") from None
        there = connection.execute("SELECT schema, name FROM (SHOW ALL TABLES) ORDER BY ALL").fetchall()
        near = [row for row in there if f"{row[0]}." in sql] or there
        names = ", ".join(f"{schema}.{table}" for schema, table in near) or "none"
        raise UserError(f"the query failed: nothing wrote a table {missing[1]} here; there are {names}") from None
    except duckdb.Error as error:
        raise UserError(f"the query failed: {' '.join(str(error).split())}") from None


# DuckDB's own SHOW TABLES leaves out the namespace.
_SHOW_TABLES = re.compile(r"\s*+show\s++tables\s*+(?:;\s*+)?", re.IGNORECASE)
_TABLES = """
    SELECT schema || '.' || name AS "table", len(column_names) AS columns, column_names AS names
    FROM (SHOW ALL TABLES) ORDER BY ALL"""


def _asked(sql: str) -> set[str]:
    """The tables that a query names, as it writes them."""
    import duckdb

    try:
        # Asked where nothing is: names as they are written, those of common table expressions left out.
        with duckdb.connect() as nowhere:
            return {name.replace('"', "").lower() for name in nowhere.get_table_names(sql, qualified=True)}
    except duckdb.Error:  # several statements
        return set(re.findall(r"[\w.]+", sql.lower()))


def _notes(shown: Sequence[Corpus], sql: str) -> list[str]:
    """For the tables that a query names, which of them (or of what their views join) an earlier run left."""
    asked = _asked(sql)
    notes = []
    for corpus in shown:
        parts = [name.rpartition(".") for name in asked]
        names = {name for schema, _, name in parts if schema in ("", corpus.name)}
        if "ledger" in names:
            names |= {name for base in RECORDS for name in corpus.joined(base)}
        if "tokens" in names:
            names.add("mixture")
        if "clean" in names:
            names |= corpus.joined("documents").keys() & {"documents", "duplicates", "spans"}
        notes += corpus.notes(names)
    return notes


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
