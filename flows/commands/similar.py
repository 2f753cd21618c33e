"""`headwater similar`: near duplicates of a text."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from datalake.errors import UserError
from datalake.printable import from_terminal
from flows.commands.common import COMMON, Common
from flows.output import Console


def similar(
    text: Annotated[str | None, Parameter(allow_leading_hyphen=True)] = None,
    *,
    file: Annotated[Path | None, Parameter(help="Take the text from this file")] = None,
    corpus: Annotated[str | None, Parameter(help="Look in this corpus, where the lake has several")] = None,
    threshold: Annotated[
        float | None, Parameter(help="Least Jaccard similarity of the shingles; the corpus' own where not given")
    ] = None,
    common: Common = COMMON,
) -> None:
    """Near duplicates of a text in the lake.

    Parameters
    ----------
    text
        The text itself, or `-` to read it from stdin.
    """
    answer = common.open().similar(_text(text, file), corpus, threshold)
    common.output.answer(answer, _print)


def _text(text: str | None, file: Path | None) -> str:
    if (text is None) == (file is None):
        raise UserError("give one text: as an argument, as --file, or - for what comes in at stdin")
    if file is not None:
        try:
            content = file.read_bytes()
        except OSError as error:
            raise UserError(f"{file} can't be read ({error.strerror}): correct the path") from None
    elif text == "-":
        if sys.stdin is None:
            raise UserError("there is nothing to read from: give the text as an argument")
        content = sys.stdin.buffer.read()
    else:
        return from_terminal(text or "")
    return content.decode("utf-8-sig", "replace")


def _print(console: Console, rows: Sequence[dict[str, Any]]) -> None:
    names = ["similarity", "verdict", "uri", "id"]
    console.table(names, [[row[name] for name in names] for row in rows])
