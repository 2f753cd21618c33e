"""The rows of a run's metrics, one JSON object a step, as they are written and read."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

Row = dict[str, float]
SAMPLES = "samples.jsonl"  # beside `metrics.jsonl`: some of what a model wrote while it learned


def plain_row(row: Row) -> dict[str, float | int | None]:
    """A row as JSON has it: whole numbers as integers, what isn't finite as null."""
    whole = {"step", "targets", "tokens", "skipped"}
    return {
        name: None if not math.isfinite(value) else int(value) if name in whole else float(value)
        for name, value in row.items()
    }


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """The rows of a metrics file, or of one like it; a last line cut short by a kill, or a missing file, gives none."""
    if not path.exists():
        return []
    rows = []
    for line in path.read_text(encoding="utf-8").split("\n"):  # and at no other end of line, which a text may hold
        try:
            rows.append(json.loads(line))
        except ValueError:
            break
    return rows
