"""An end before the last step, where a run's own metrics say that it goes wrong (`stop_when`).

Whether a run stops is a function of its rows alone, so a killed run that is resumed stops where it would have. The
weights it ends with are those of its last good step, before what was found began.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from models.training.callbacks import Checkpoints, Metrics
from models.training.diagnosis import LEAST, RULES, Curves, Finding
from models.training.loop import Callback, Run
from models.training.metrics import Row


class Stops(Callback):
    """Ends the run after the step at which one of these rules of `diagnosis` warns of the steps before.

    Stands before whatever does something at the last step. `metrics` has the rows; `kept`, where there is one, saves
    the state at the end for a run without these rules, which goes on from there.
    """

    name = "stops"

    def __init__(self, rules: Sequence[str], metrics: Metrics, kept: Checkpoints | None = None) -> None:
        self.rules, self.metrics, self.kept = rules, metrics, kept
        self.finding: Finding | None = None
        self._curves, self._read = Curves(), 0

    def on_start(self, run: Run) -> None:
        """A run that had stopped takes no more steps."""
        self._curves, self._read = Curves(), 0
        if self.finding is not None:
            run.steps = run.state.step

    def on_step(self, run: Run, row: Row) -> None:
        """Judges the rows before this one, which is still being written."""
        if not self.rules:
            return
        for line in self.metrics.rows[self._read :]:
            self._curves.add(json.loads(line))
        self._read = len(self.metrics.rows)
        found = (RULES[rule](self._curves) for rule in self.rules)
        self.finding = next((one for one in found if one is not None and one.level == "warning"), None)
        if self.finding is not None:
            run.steps = run.state.step

    def on_end(self, run: Run) -> None:
        """Keeps where it stopped."""
        if self.finding is not None and self.kept is not None:
            self.kept.on_interrupt(run)

    def told(self, step: int) -> dict[str, Any] | None:
        """Of a run that stopped after `step`: that step, the last good one, the rule and why; None where it didn't.

        What was wrong from the first steps on has no good one before it: then it is `step` itself.
        """
        if self.finding is None:
            return None
        good = self.finding.first - 1 if self.finding.first > LEAST else step
        return {"step": step, "good": min(good, step), "rule": self.finding.rule, "why": str(self.finding)}

    def saved(self) -> dict[str, Any]:
        """What was found."""
        return {"finding": None if self.finding is None else list(self.finding)}

    def load(self, saved: dict[str, Any]) -> None:
        """Puts it back, for a run with rules: one without goes on."""
        self.finding = Finding(*saved["finding"]) if self.rules and saved["finding"] is not None else None
