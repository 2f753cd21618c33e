"""The metrics of stages that have no record yet: those that train now, and those that were ended too early."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from datalake.lake.lake import RUNNING, Lake
from datalake.lake.records import record_path


def running_metrics(lake: Lake) -> list[dict[str, Any]]:
    """Rows as `runs.metrics` has them of all stages that have begun to train and have no record."""
    rows = []
    for mark in sorted((lake.root / "folders").glob(f"*/*/{RUNNING}")):
        try:
            stage = json.loads(mark.read_bytes())
        except (OSError, ValueError):
            continue
        if not (lake.root / record_path(stage["fingerprint"])).exists():
            for row in _lines(mark.with_name("metrics.jsonl")):
                named = {"fingerprint": stage["fingerprint"], "stage": stage["stage"], "step": row.pop("step")}
                rows += [named | {"name": name, "value": value} for name, value in row.items() if value is not None]
    return rows


def _lines(path: Path) -> Iterator[dict[str, Any]]:
    """The whole lines of a file that is being written."""
    try:
        text = path.read_text(encoding="utf-8")
    except OSError:
        return
    for line in text.split("\n"):
        try:
            yield json.loads(line)
        except ValueError:
            return
