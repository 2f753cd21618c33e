"""What watches a run: metrics on disk, states to resume from, held-out evaluation, progress; `spikes` has the guard.

Callbacks carry saved state, as in OLMo-core: after a resume the spike guard remembers its history and the metrics file
holds every step once. Order matters: those that add to a step's row come first, then `Metrics`, then `Checkpoints`.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn

from datalake.atomic import write_atomically
from models.training.loop import Callback, Run, snapshot
from models.training.metrics import Row, plain_row
from models.training.state import Background, clear_states, copied, rates_digest, save_part, save_state


class Metrics(Callback):
    """Appends one JSON object a step to a file, for whoever follows the run.

    A state remembers the rows up to it, so that after a resume, also in another folder, every step is in the file once.
    """

    name = "metrics"

    def __init__(self, path: Path) -> None:
        self.path = path
        self.rows: list[str] = []  # as lines of JSON
        self.last: Row = {}
        self.totals = {"seconds": 0.0, "tokens": 0.0, "mfu": 0.0}
        self._begun = False

    def on_start(self, run: Run) -> None:
        """Writes the rows up to the state's step, whatever a killed run left."""
        if run.ranks.leads:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(self.path, "".join(self.rows).encode())

    def on_step(self, run: Run, row: Row) -> None:
        """Appends the row."""
        self.last = dict(row)
        if self._begun or (run.last and not self.totals["seconds"]):
            seconds = row["tokens"] / row["tokens_per_s"] if row["tokens_per_s"] else 0.0
            self.totals["seconds"] += seconds
            self.totals["tokens"] += row["tokens"]
            self.totals["mfu"] += row["mfu"] * seconds
        self._begun = True
        self.rows.append(json.dumps(plain_row(row)) + "\n")
        if run.ranks.leads:
            with self.path.open("a", encoding="utf-8") as stream:
                stream.write(self.rows[-1])

    def mean(self, name: str) -> float:
        """`tokens` a second, or `mfu`, over all steps but the first of each process, in which things are made ready and
        compiled; evaluation and saving left out."""
        return self.totals[name] / self.totals["seconds"] if self.totals["seconds"] else 0.0

    def saved(self) -> dict[str, Any]:
        """All rows and the clock."""
        return {"rows": "".join(self.rows), "last": self.last, "totals": self.totals}

    def load(self, saved: dict[str, Any]) -> None:
        """Puts them back."""
        self.rows = saved["rows"].splitlines(keepends=True)
        self.last, self.totals = dict(saved["last"]), dict(saved["totals"])


class Checkpoints(Callback):
    """Saves a state every so many steps, at the end, and before an end that comes too early.

    Stands last, so that it sees what the others remember. What is saved is copied at once and written while training
    goes on. The state of step `branch` outlives the run (see `Prepared`): the one that a longer run can begin with.
    """

    def __init__(self, folder: Path, every: int, identity: str, keep: int = 2, branch: int | None = None) -> None:
        self.folder, self.every, self.identity, self.keep, self.branch = folder, every, identity, keep, branch
        self._background = Background()

    def on_step(self, run: Run, row: Row) -> None:
        """Saves when it is time."""
        if run.last or run.state.step % self.every == 0 or run.state.step == self.branch:
            self._save(run)

    def on_interrupt(self, run: Run) -> None:
        """Saves, whenever it is."""
        self._save(run)
        self._background.wait()

    def on_end(self, run: Run) -> None:
        """The last state is on disk."""
        self._background.wait()

    def close(self, run: Run) -> None:
        """A state half written would be no state to whoever begins at once where this run ended. One that other ranks
        write too isn't waited for: they may be what failed."""
        if run.ranks.whole_model:
            self._background.settle()

    def clear(self) -> None:
        """After the checkpoint is written no state is needed, but that of `branch`."""
        clear_states(self.folder, self.branch)

    def _save(self, run: Run) -> None:
        saved = snapshot(run)
        rates = rates_digest(run.schedule, run.state.step)
        branch = -1 if self.branch is None else self.branch
        if run.ranks.leads:
            self._background(save_state, self.folder, copied(saved), self.identity, self.keep, rates, branch, run.ranks)
        elif not run.ranks.whole_model:
            self._background(save_part, self.folder, copied(saved), run.ranks)


class Evaluation(Callback):
    """Measures the model on held-out data every so many steps and at the end, and adds it to the row.

    `measure` takes the model, in evaluation mode and without gradients, and gives named figures. It must draw no random
    numbers from torch's global state, or how often one evaluates would shape the weights.
    """

    name = "evaluation"

    def __init__(self, measure: Callable[[nn.Module], Row], every: int, prefix: str = "heldout_") -> None:
        self.measure, self.every, self.prefix = measure, every, prefix
        self.history: list[dict[str, float]] = []
        self.first: Row = {}

    def on_start(self, run: Run) -> None:
        """Evaluates before the first step."""
        if run.state.step == 0:
            self.first = self._measured(run)

    def on_step(self, run: Run, row: Row) -> None:
        """Evaluates when it is time."""
        if not run.last and (self.every == 0 or run.state.step % self.every):
            return
        figures = {self.prefix + name: value for name, value in self._measured(run).items()}
        row |= figures
        self.history.append({"step": run.state.step, **figures})

    def _measured(self, run: Run) -> Row:
        run.model.eval()
        with torch.no_grad(), run.device.computing():
            figures = self.measure(run.model)
        run.model.train()
        return figures

    @property
    def last(self) -> Row:
        """The latest figures, without the prefix; empty before the first."""
        if not self.history:
            return {}
        return {name.removeprefix(self.prefix): value for name, value in self.history[-1].items() if name != "step"}

    def saved(self) -> dict[str, Any]:
        """All figures so far."""
        return {"history": self.history, "first": self.first}

    def load(self, saved: dict[str, Any]) -> None:
        """Puts them back."""
        self.history, self.first = [dict(figures) for figures in saved["history"]], dict(saved["first"])


class Progress(Callback):
    """Hands each step's row, with the total of steps, to a function; what it raises ends the run."""

    def __init__(self, on_step: Callable[[dict[str, Any]], None] | None) -> None:
        self.report = on_step

    def on_step(self, run: Run, row: Row) -> None:
        """Hands the row on."""
        if self.report is not None:
            self.report({**plain_row(row), "steps": run.steps})
