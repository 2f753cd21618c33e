"""`headwater query`: SQL over a lake."""

from __future__ import annotations

from typing import Annotated

from cyclopts import Parameter

from flows.commands.common import COMMON, Common
from flows.output import note


def query(
    sql: str,
    *,
    run: Annotated[str | None, Parameter(name="--run")] = None,
    full: Annotated[bool, Parameter(negative="")] = False,
    allow_files: Annotated[
        bool, Parameter(negative="", help="Let SQL read and write files: COPY ... TO, read_csv, ATTACH")
    ] = False,
    common: Common = COMMON,
) -> None:
    """DuckDB over the lake: every corpus as its last finished run left it.

    Parameters
    ----------
    sql
        Such as "SELECT verdict, count(*) FROM demo.ledger GROUP BY ALL"; "SHOW TABLES" lists what there is.
    run
        Show the tables as this run left them: its id, or the beginning of it.
    full
        Print values whole in a terminal too, however long; a pipe and --json always have them whole.
    """
    from datalake.lake.ledger import ask
    from datalake.printable import from_terminal
    from flows.lake import MADE

    # Rows as Python has them, where the method's Arrow table has types of fewer kinds.
    columns, rows, notes = ask(common.open().store, from_terminal(sql), run, allow_files, made=MADE)
    for said in notes:
        note(said)
    answer = [dict(zip(columns, row, strict=True)) for row in rows]
    common.output.answer(answer, lambda console, _: console.table(columns, rows, full))
