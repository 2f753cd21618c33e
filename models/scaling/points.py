"""Finished trainings as a scaling law is fitted to them: parameters, tokens and the loss that each ended with."""

from __future__ import annotations

import csv
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from datalake.errors import UserError

Floats = npt.NDArray[np.float64]
COLUMNS = ("parameters", "tokens", "loss")
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
    """The rows of a CSV file that has the columns `parameters`, `tokens` and `loss`, in any order, beside any others.

    Raises UserError where it can't be read, a column is missing, a value is no number above 0, or too few differ.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as lines:
            reader = csv.DictReader(lines)
            names = [(name or "").strip() for name in reader.fieldnames or ()]
            reader.fieldnames = names
            missing = [name for name in COLUMNS if name not in names]
            if missing:
                raise UserError(
                    f"{path} has no column {' and no column '.join(missing)}: its first line must name "
                    f"{','.join(COLUMNS)}"
                )
            rows = [[_number(path, reader.line_num, name, row[name]) for name in COLUMNS] for row in reader]
    except OSError as error:
        raise UserError(f"{path} can't be read ({error.strerror}): correct the path") from None
    except (csv.Error, UnicodeDecodeError) as error:
        raise UserError(f"{path} is no CSV file ({str(error).splitlines()[0]}): give one in UTF-8") from None
    points = Points.of(rows)
    for name, values in (("parameters", points.parameters), ("tokens", points.tokens)):
        different = len(np.unique(values))
        if different < LEAST:
            raise UserError(
                f"{path} has {len(points)} rows with {different} different {name}: a law needs at least {LEAST}"
            )
    return points


def _number(path: Path, line: int, name: str, text: str | None) -> float:
    try:
        value = float(text or "")
    except ValueError:
        value = math.nan
    if not 0 < value < math.inf:
        raise UserError(f"{path}, line {line}: {name} is {text!r}, where a number above 0 is wanted: mend or drop it")
    return value
