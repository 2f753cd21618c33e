"""What the Prefect UI shows of curation: funnel, some dropped texts for each rule, how metrics are spread.

Drawn from the stage's own tables when it ends, from a bounded part of them: whole shards in an order that their names'
digests give, up to `ROWS` documents, and interrupted after `SECONDS`. Nothing of it enters a table or an identity.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from datalake.curate.config import CurateConfig
from datalake.curate.histograms import Histogram, bars, histograms
from datalake.curate.judge import explain
from datalake.curate.rules import BLOCKED
from datalake.lake.parquet import attach, read_metadata, scan

if TYPE_CHECKING:
    import duckdb

SEED = "headwater"
ROWS = 500_000  # documents looked at; a shard more than these only where the first alone has more
SECONDS = 30.0
TEXTS_PER_RULE = 2
CHARACTERS = 300  # of each text
# Of the same block of Unicode as the bars: a font has all of them or none, so that rows stay in line.
_NOTHING, _MARK = "░", "█"


def drawn(files: Mapping[str, str], limit: int = ROWS) -> tuple[dict[str, str], int]:
    """Some of the pairs {curation file: raw file}, whole, in a seeded order; and how many documents they hold."""

    def place(path: str) -> str:
        return hashlib.sha256((SEED + Path(path).parent.name + Path(path).name).encode()).hexdigest()

    chosen: dict[str, str] = {}
    total = 0
    for path in sorted(files, key=place):
        rows = read_metadata(path).num_rows
        if chosen and total + rows > limit:
            break
        if rows:
            chosen[path] = files[path]
            total += rows
    return chosen, total


def page(
    funnel: Sequence[Mapping[str, Any]],
    files: Mapping[str, str],
    config: CurateConfig,
    rows: int = ROWS,
    seconds: float = SECONDS,
) -> str:
    """The page in markdown, as far as it is drawn in time; `files`: each curation file and the raw file it judges."""
    import duckdb

    lines = ["## Funnel", "", "| | documents |", "| --- | ---: |"]
    lines += [f"| {row['what']} | {row['records']:,} |" for row in funnel]
    chosen, seen = drawn(files, rows)
    if not chosen:
        return "\n".join(lines)
    connection = duckdb.connect()
    connection.execute("SET threads = 2")
    attach(connection, next(iter(chosen)))
    timer = threading.Timer(seconds, connection.interrupt)
    timer.daemon = True
    timer.start()
    try:
        connection.execute(f"CREATE TEMP VIEW curation AS SELECT * FROM {scan(list(chosen))}")
        total = sum(row["records"] for row in funnel if row["what"] == "documents in")
        part = f"From {seen:,} of {total:,} documents." if seen < total else ""
        spread = histograms(connection, "curation", config)
        if spread:
            told = "Kept, rejected, and the bin of the threshold; shaded: none. Each row has its own scale."
            lines += ["", "## Metrics", "", f"{told} {part}".rstrip()]
            lines += metrics_table(spread)
        lines += ["", "## Some dropped texts", "", f"By the first rule that each failed. {part}".rstrip()]
        lines += _dropped(connection, list(chosen.values()), config)
    except duckdb.InterruptException:
        lines += ["", f"What is not here took more than {seconds:g} s: `headwater report` has it."]
    finally:
        timer.cancel()
        connection.close()
    return "\n".join(lines)


def metrics_table(spread: Sequence[Histogram]) -> list[str]:
    """A table of histograms as markdown lines, the threshold's bin marked below the bars."""
    lines = [
        "",
        "| rules | metric | from | kept / rejected / threshold | to |",
        "| --- | --- | ---: | --- | --- |",
    ]
    for one in spread:
        marks = [_NOTHING] * len(one.kept)
        for rule in one.rules:
            marks[min(int(one.place(rule.threshold) * len(marks)), len(marks) - 1)] = _MARK
        rows = (bars(one.kept, _NOTHING), bars(one.rejected, _NOTHING), "".join(marks))
        drawing = "<br>".join(f"`{row}`" for row in rows)
        asked = ", ".join(f"{rule.op} {rule.threshold:g}" for rule in one.rules)
        group = f"{one.rule_set}<br>{', '.join(one.languages[:3])}{', …' if len(one.languages) > 3 else ''}"
        first, last = (f"{edge:,.4g}" for edge in (one.edges[0], one.edges[-1]))
        lines.append(f"| {group} | {one.metric}<br>{asked} | {first} | {drawing} | {last} |")
    return lines


def asked(row: Mapping[str, Any], config: CurateConfig | None) -> str:
    """What the first rule that a row of the curation table failed asked for, and what it found; empty if not known."""
    if config is None or not row.get("rule") or row.get("source") is None:
        return ""
    if row["rule"] == BLOCKED:
        return f"on the list {row.get('blocked_by')}"
    for rule in explain(row, config):
        if rule["rule"] == row["rule"] and rule["value"] is not None:
            asked = f"{rule['operator']} {rule['threshold']:g} ({rule['source']})"
            return f"{rule['metric']} {rule['value']:.4g}, asked {asked}"
    return ""


def _dropped(connection: duckdb.DuckDBPyConnection, raw: Sequence[str], config: CurateConfig) -> list[str]:
    """Markdown lines about some texts that each rule dropped, by the digest of their ids."""
    connection.execute(
        """CREATE TEMP TABLE dropped AS SELECT * FROM curation WHERE verdict = 'rejected'
           QUALIFY row_number() OVER (PARTITION BY rule ORDER BY md5(hex(id) || ?)) <= ?""",
        [SEED, TEXTS_PER_RULE],
    )
    found = connection.execute(
        f"""SELECT d.*, r.uri, left(r.text, {CHARACTERS + 1}) AS text
            FROM dropped d JOIN {scan(raw)} r ON r.id = d.id
            WHERE r.id IN (SELECT id FROM dropped) ORDER BY d.rule, md5(hex(d.id) || ?)""",
        [SEED],
    )
    names = [column[0] for column in found.description or []]
    lines: list[str] = []
    last = None
    for values in found.fetchall():
        row = dict(zip(names, values, strict=True))
        if row["rule"] != last:
            lines += ["", f"### {row['rule']}"]
            last = row["rule"]
        why = asked(row, config)
        about = " · ".join(filter(None, (row["source"], row["language"], f"`{row['uri'].replace('`', '%60')}`", why)))
        text = row["text"] if len(row["text"]) <= CHARACTERS else row["text"][:CHARACTERS].rstrip() + " …"
        # Indented by four: a block of code, in which nothing is markup whatever the text holds.
        lines += ["", about, "", *(f"    {line}" for line in text.splitlines())]
    return lines
