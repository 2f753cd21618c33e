"""Finished trainings as a scaling law is fitted to them: parameters, tokens and the loss that each ended with."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from datalake.errors import UserError

Floats = npt.NDArray[np.float64]
COLUMNS = ("parameters", "tokens", "loss")
RANGES = {"parameters": (1.0, 1e30), "tokens": (1.0, 1e30), "loss": (1e-6, 1e6)}  # what a training can have
_DELIMITERS = (",", ";", "\t", "|")
LEAST = 3  # different sizes, and budgets: a power law above a floor has three constants in each


@dataclass(frozen=True)
class Points:
    """One training a place: parameters, tokens and loss (nats a token), n each."""

    parameters: Floats
    tokens: Floats
    loss: Floats

    @classmethod
    def of(cls, rows: Sequence[Sequence[float]]) -> Points:
        """From rows of (parameters, tokens, loss)."""
        table = np.array(rows, np.float64).reshape(-1, 3)
        return cls(*table.T)

    def __len__(self) -> int:
        return len(self.loss)

    def without_largest(self, count: int) -> Points:
        """Without the so many trainings that ended with the largest losses."""
        kept = np.sort(np.argsort(self.loss, kind="stable")[: len(self) - count])
        return Points(self.parameters[kept], self.tokens[kept], self.loss[kept])


def read_points(path: Path) -> Points:
    """The rows of a CSV file that has the columns `parameters`, `tokens` and `loss`, in any order and in capitals or
    not, beside any others. Cells are parted as its first line shows: by commas, semicolons, tabs or bars. Rows without
    a value are none.

    Raises UserError where it can't be read, a column is missing or there twice, a row has more values than there are
    columns, a value is no number that a training can have, or too few differ.
    """
    try:
        text = path.read_bytes().decode("utf-8-sig")
        head = next((line for line in text.splitlines() if line.strip()), "")
        delimiter = max(_DELIMITERS, key=lambda each: len(set(COLUMNS).intersection(_names(head, each))))
        reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter)
        table = [(reader.line_num, row) for row in reader if any(cell.strip() for cell in row)]
    except OSError as error:
        raise UserError(f"{path} can't be read ({error.strerror}): correct the path") from None
    except (csv.Error, UnicodeDecodeError) as error:
        raise UserError(f"{path} is no CSV file ({str(error).splitlines()[0]}): give one in UTF-8") from None
    names = _names(head, delimiter)
    for wrong, what in (([name for name in COLUMNS if name not in names], "no column"), (_twice(names), "two columns")):
        if wrong:
            raise UserError(
                f"{path} has {what} {f' and {what} '.join(wrong)}: its first line must name"
                f" {','.join(COLUMNS)}, once each"
            )
    places = [names.index(name) for name in COLUMNS]
    rows = [_values(path, line, row, len(names), places) for line, row in table[1:]]
    points = Points.of(rows)
    for name, values in (("parameters", points.parameters), ("tokens", points.tokens)):
        different = len(np.unique(values))
        if different < LEAST:
            raise UserError(
                f"{path} has {len(points)} rows with {different} different {name}: a law needs at least {LEAST}"
            )
    return points


def _names(head: str, delimiter: str) -> list[str]:
    """The columns that a line names."""
    return [cell.strip().lower() for cell in next(csv.reader([head], delimiter=delimiter), [])]


def _twice(names: Sequence[str]) -> list[str]:
    return [name for name in COLUMNS if names.count(name) > 1]


def _values(path: Path, line: int, row: Sequence[str], columns: int, places: Sequence[int]) -> list[float]:
    """The values of a row in the order of `COLUMNS`."""
    if any(cell.strip() for cell in row[columns:]):
        raise UserError(
            f"{path}, line {line}: {len(row)} values under {columns} columns: write numbers without separators"
            " between thousands, and texts in quotes"
        )
    values = []
    for name, place in zip(COLUMNS, places, strict=True):
        text = row[place] if place < len(row) else ""
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        low, high = RANGES[name]
        if not low <= value <= high:
            raise UserError(
                f"{path}, line {line}: {name} is {text!r}, where a number from {low:g} to {high:g} is wanted: mend or"
                " drop it"
            )
        values.append(value)
    return values
