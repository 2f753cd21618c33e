"""`headwater mask`: which tokens of a recipe's dialogues would train."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter, validators

from flows.commands.common import COMMON, Common
from flows.output import Console, note


def mask(
    recipe: Path,
    *,
    rows: Annotated[int, Parameter(validator=validators.Number(gte=1), help="Dialogues to show")] = 3,
    set: Annotated[
        tuple[str, ...], Parameter(name="--set", negative="", help="Override a value: --set sft.template=chatml")
    ] = (),
    color: Annotated[bool, Parameter(help="Mark what trains by colour in a terminal, else by ⟦ ⟧")] = True,
    common: Common = COMMON,
) -> None:
    """Which tokens of a recipe's dialogues would train, before any does.

    Parameters
    ----------
    recipe
        A YAML file; its dialogues are those of the lake, or are read from their sources.
    """
    from flows.mask import mask as look

    answer = look(recipe, common.folder, set, rows)
    for said in answer["notes"]:
        note(said)
    common.output.answer(answer, lambda console, found: _print(console, found, color))


def _print(console: Console, answer: Mapping[str, Any], color: bool) -> None:
    from models.text.mask import visible

    for one in answer["shown"]:
        console.line(f"{one['source']} {one['id']}: {one['trained']:,} of {one['tokens']:,} tokens train")
        console.marked(visible(one["pieces"]), color)
        console.line()
    more = [f"{answer[name]:,} {said}" for name, said in (("cut", "cut"), ("left_out", "left out")) if answer[name]]
    console.line(
        f"{answer['corpus']}: {answer['trained']:,} of {answer['tokens']:,} tokens train ({answer['share']:.1%}) in"
        f" {answer['dialogues']:,} dialogues of at most {answer['context']:,} tokens"
        + (f" ({', '.join(more)})" if more else "")
    )
