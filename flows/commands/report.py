"""`headwater report`: one HTML page about a run."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from flows.commands.common import COMMON, Common


def report(
    run: str = "last",
    *,
    out: Annotated[Path | None, Parameter(name=("--out", "-o"), help="Where to write it")] = None,
    common: Common = COMMON,
) -> None:
    """One HTML page about a run: funnel, what was dropped, curves, evaluations.

    Parameters
    ----------
    run
        A run's id or its beginning; `last` for the last one.
    """
    common.output.answer(common.open().report(run, out), lambda console, made: console.line(made["report"]))
