"""`headwater plan`: what to train for a budget, and the law of scaling that says so."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from datalake.errors import UserError
from flows.commands.common import COMMON, Common
from flows.output import Console


def plan(
    *,
    fit: Annotated[Path | None, Parameter(help="Trainings as CSV: parameters,tokens,loss")] = None,
    common: Common = COMMON,
) -> None:
    """What to train for a budget."""
    from models.scaling.fit import fit as fitted
    from models.scaling.laws import Chinchilla, Kaplan
    from models.scaling.points import read_points

    if fit is None:
        raise UserError("say what there is to spend: --flops, --gpu-hours, --money or --loss")
    points = read_points(fit)
    laws = {"chinchilla": fitted(points, Chinchilla()), "kaplan": fitted(points, Kaplan())}
    answer = {
        name: {**law.constants, "objective": law.objective, "intervals": law.intervals} for name, law in laws.items()
    }
    common.output.answer(answer, _print_laws)


def _print_laws(console: Console, laws: dict[str, Any]) -> None:
    """Each constant with its interval, a table a law."""
    for name, law in laws.items():
        console.line(f"{name}, objective {law['objective']:.6g}")
        rows = [[constant, law[constant], *ends] for constant, ends in law["intervals"].items()]
        console.table(["constant", "value", "low", "high"], rows)
