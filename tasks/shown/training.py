"""What a stage that trains shows while it does, and pages about it afterwards: curves, findings, figures, answers."""

from __future__ import annotations

import json
import math
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from models.training.diagnosis import findings
from models.training.figures import BEGINNING, FIGURES
from models.training.metrics import SAMPLES, read_metrics
from tasks.shown import events, figures
from tasks.shown.artifacts import Curves, publish_page, say

Row = dict[str, Any]

# What a line about a run in progress says of its last step, those that are there
_TELLING = ("score", "reward", "kl_per_token", "entropy", "loss")


def metric_rows(path: Path) -> list[Row]:
    """Rows (step, name, value) of a method's `metrics.jsonl`, complete lines only."""
    return [
        {"step": row["step"], "name": name, "value": float(value)}
        for row in read_metrics(path)
        for name, value in row.items()
        if name != "step" and value is not None
    ]


class Training:
    """Follows the files that a method writes into a folder."""

    EVERY_S = 30.0  # findings are looked for

    def __init__(self, stage: str, folder: Path) -> None:
        self.stage, self.folder = stage, folder
        self._curves, self._told, self._shown, self._looked = Curves(stage), set[str](), False, -math.inf
        self._told_step = 0

    def progress(self) -> tuple[int, str]:
        """The last step that is done, and a few of its figures; before the first one, what is being prepared."""
        rows = read_metrics(self.folder / "metrics.jsonl")
        if not rows:
            beginning = self.folder / BEGINNING
            return 0, beginning.read_text() if beginning.exists() else ""
        last = rows[-1]
        # a loss says how learning goes where there is no score
        names = [name for name in _TELLING if last.get(name) is not None and (name != "loss" or "score" not in last)]
        return int(last["step"]), ", ".join(f"{name.replace('_', ' ')} {last[name]:.3f}" for name in names)

    def look(self, ended: bool = False) -> None:
        """Show what is new."""
        if not self._shown and (self.folder / FIGURES).exists():
            self._shown = True
            self._figures(json.loads((self.folder / FIGURES).read_bytes()))
        if ended or time.monotonic() - self._looked >= self.EVERY_S:
            self._looked = time.monotonic()
            for finding in findings(read_metrics(self.folder / "metrics.jsonl")):
                if finding.level == "warning" and finding.rule not in self._told:
                    self._told.add(finding.rule)
                    say(f"{self.stage}: {finding}")
        self._step()
        if not ended:
            self._curves.at(metric_rows(self.folder / "metrics.jsonl"))

    def _step(self) -> None:
        """Tell of the last step, where there is a new one."""
        rows = read_metrics(self.folder / "metrics.jsonl")
        if rows and int(rows[-1]["step"]) > self._told_step:
            self._told_step = int(rows[-1]["step"])
            numbers = {name: value for name, value in rows[-1].items() if isinstance(value, int | float)}
            events.tell("step", step=int(numbers.pop("step")), values=numbers)

    def _figures(self, shown: Sequence[figures.Figure]) -> None:
        """Those known before the first step: a page, and lines in the terminal."""
        publish_page(self.stage, "figures", lambda: "\n\n".join(map(figures.markdown, shown)))
        for figure in shown:
            if figure["kind"] == "marked" and sys.stderr is not None and sys.stderr.isatty():
                _coloured(figure)
                continue
            for line in figures.text(figure):
                say(line)


def _coloured(figure: figures.Figure) -> None:
    """Texts with their marked pieces in colour."""
    from rich.console import Console

    console = Console(stderr=True)
    say(f"{figure['title']}: {figure['note']}".removesuffix(": "))
    for pieces in figure["texts"]:
        console.print(figures.coloured(pieces))


def of_record(report: Mapping[str, Any], samples: Sequence[Row]) -> dict[str, Callable[[], str]]:
    """The pages of a finished stage by name, from its report and some of the answers it wrote."""
    pages: dict[str, Callable[[], str]] = {}
    if report.get("findings"):
        pages["findings"] = lambda: "\n".join(f"- {told(finding)}" for finding in report["findings"])
    if report.get("figures"):
        pages["figures"] = lambda: "\n\n".join(map(figures.markdown, report["figures"]))
    if samples:
        pages["samples"] = lambda: samples_markdown(samples)
    return pages


def told(finding: Mapping[str, Any]) -> str:
    """A finding of a record in one line."""
    return f"{finding['what']}: {finding['advice']}" if finding["advice"] else str(finding["what"])


def sample_rows(folder: Path) -> list[Row]:
    """Rows of `runs.samples` from the answers that a method kept."""
    return [row | {"figures": sorted(row["figures"].items())} for row in read_metrics(folder / SAMPLES)]


def chosen(samples: Sequence[Row], steps: int = 4) -> list[Row]:
    """The answers of the first step that has some, of the last, and of some between."""
    there = sorted({row["step"] for row in samples})
    some = there if len(there) <= steps else [there[round(k * (len(there) - 1) / (steps - 1))] for k in range(steps)]
    return [row for row in samples if row["step"] in some]


def samples_markdown(samples: Sequence[Row]) -> str:
    """Some of the answers as a table in markdown."""
    rows = chosen(samples)
    names = list(dict.fromkeys(name for row in rows for name, _ in row["figures"]))
    body = []
    for row in rows:
        values = dict(row["figures"])
        told_of_each = (values.get(name) for name in names)
        body.append([row["step"], row["prompt"], row["answer"], *told_of_each, row["tokens"], row["ended"]])
    return "## What it wrote\n\n" + figures.table(["step", "prompt", "answer", *names, "tokens", "ended"], body)
