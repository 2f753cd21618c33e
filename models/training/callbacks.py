"""What watches a run: metrics on disk, states to resume from, the spike guard, held-out evaluation, progress.

Callbacks carry saved state, as in OLMo-core: after a resume the spike guard remembers its history and the metrics file
holds every step once. Order matters: those that add to a step's row come first, then `Metrics`, then `Checkpoints`.
"""

from __future__ import annotations

import json
import math
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


class SpikeGuard(Callback):
    """Refuses an update whose loss lies more than `sigma` deviations above the recent mean, or isn't finite.

    The history is the last `window` accepted losses and judges from `least` on; their deviation counts as at least
    `smallest` of the mean, so that a flat stretch doesn't make every wobble a spike. Raises FloatingPointError after
    `patience` refusals in a row: that is no spike but the end of learning. `sigma` 0 refuses only what isn't finite.
    """

    name = "spike_guard"

    def __init__(
        self, sigma: float, window: int = 128, least: int = 16, smallest: float = 0.01, patience: int = 20
    ) -> None:
        self.sigma, self.window, self.least, self.smallest, self.patience = sigma, window, least, smallest, patience
        self.history: list[float] = []
        self.events: list[dict[str, float]] = []
        self.in_a_row = 0

    def accept(self, run: Run, loss: float, norm: float) -> bool:
        """Judges a loss (nats) and a gradient norm; what is accepted becomes history."""
        limit = math.inf
        if self.sigma and len(self.history) >= self.least:
            mean = sum(self.history) / len(self.history)
            variance = sum((value - mean) ** 2 for value in self.history) / len(self.history)
            limit = mean + self.sigma * max(math.sqrt(variance), self.smallest * abs(mean))
        if math.isfinite(loss) and math.isfinite(norm) and loss <= limit:
            self.history = [*self.history, loss][-self.window :]
            self.in_a_row = 0
            return True
        self.events.append({"step": run.state.step + 1, "loss": loss, "grad_norm": norm, "limit": limit})
        self.in_a_row += 1
        if self.in_a_row >= self.patience:
            raise FloatingPointError(
                f"{self.in_a_row} updates in a row were refused, the last for loss {loss:.4g} at step "
                f"{run.state.step + 1}: lower the learning rate"
            )
        return False

    def on_end(self, run: Run) -> None:
        """Raises FloatingPointError where no update was ever taken: what would be written is the model as it came."""
        if self.events and not self.history:
            last = self.events[-1]
            raise FloatingPointError(
                f"none of {len(self.events)} updates could be taken, the last for loss {last['loss']:.4g} and gradient"
                f" norm {last['grad_norm']:.4g}: lower the learning rate, or look at the data"
            )

    def saved(self) -> dict[str, Any]:
        """History and events."""
        return {"history": self.history, "events": self.events, "in_a_row": self.in_a_row}

    def load(self, saved: dict[str, Any]) -> None:
        """Puts them back."""
        self.history, self.in_a_row = list(saved["history"]), saved["in_a_row"]
        self.events = [dict(event) for event in saved["events"]]


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
