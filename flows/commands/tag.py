"""`headwater tag`: names of checkpoints that every command takes, such as `current`."""

from __future__ import annotations

from typing import Annotated, Any

from cyclopts import Parameter

from datalake.errors import UserError
from flows.commands.common import COMMON, Common
from flows.output import Console


def tag(
    checkpoint: str | None = None,
    name: str | None = None,
    *,
    note: str = "",
    move: Annotated[bool, Parameter(negative="")] = False,
    common: Common = COMMON,
) -> None:
    """Give a checkpoint a name, or list the names that there are.

    Parameters
    ----------
    checkpoint
        A stage of the last run (`sft`), a folder of the lake, a fingerprint, another tag.
    name
        What it is to be called: lower-case letters, digits, dots and dashes.
    note
        Why, for whoever asks.
    move
        Take the name from the checkpoint that has it.
    """
    lake = common.open()
    if checkpoint is None:
        common.output.answer(lake.tags(), _draw)
    elif name is None:
        raise UserError(f"{checkpoint}: what is it to be called? headwater tag {checkpoint} NAME")
    else:
        common.output.answer(lake.tag(checkpoint, name, note, move), lambda console, row: _draw(console, [row]))


def _draw(console: Console, rows: list[dict[str, Any]]) -> None:
    columns = ("tag", "stage", "corpus", "fingerprint", "created", "note")
    console.table(list(columns), [[str(row[column] or "")[:40] for column in columns] for row in rows])
