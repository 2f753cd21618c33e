"""Spikes: updates whose loss or gradient norm leaves what was usual, what is done about them, which documents did it.

An update that spikes is refused: the weights stay as they were. Where that goes on (`CONFIRMED` refusals in a row) it
is the weights that are ill, not the batch: with `back`, training goes back to before so many steps ahead of the spike
and leaves out their data and the spike's, as Chowdhery et al. 2022 (PaLM, section 5.1) did by hand. Either way the
documents of the steps left out are ranked by their own loss under the last good weights.

What is decided is a function of the updates alone, and part of a state: a killed run decides the same.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from itertools import pairwise
from statistics import median
from typing import Any, NamedTuple

import torch
from torch import nn

from models.training.loop import Batches, Callback, Run
from models.training.metrics import Row

CONFIRMED = 3  # refusals in a row: a batch may be bad by itself, three one after the other aren't
PRIOR = 4  # a mean over few tokens says little: a document ranks as if it had so many more, of the mean loss of all
KEPT = 1000  # ranked documents of a spike
RETURNS = 3  # a run that spikes again right behind what it left out, so often, doesn't learn

# What a step saw and how it did: (document id in hex, or number of the item; targets; their loss in nats, summed)
Own = tuple[str | int, int, float]
Blame = Callable[[nn.Module, int], Iterable[Own]]


class Window(NamedTuple):
    """Steps that were undone and are left out, `first` to `last`, for what was judged at `spike`."""

    first: int
    last: int
    spike: int
    loss: float
    grad_norm: float
    limit: float


class SpikeGuard(Callback):
    """Refuses an update whose loss lies more than `sigma` deviations above the recent mean, or isn't finite.

    The history is the last `window` accepted updates and judges from `least` on; the deviation counts as at least
    `smallest` of the mean, so that a flat stretch doesn't make every wobble a spike. Raises FloatingPointError after
    `patience` refusals in a row, where there is no going back: that is no spike but the end of learning. `sigma` 0
    refuses only what isn't finite.

    `back`: so many steps ahead of a spike that lasts are undone with it (0: none). Losses and the logarithms of
    gradient norms are then judged by what knows a trend (see `_usual`), the deviation of the latter at
    least `smallest_log`: at 6 deviations a norm of eleven times the usual, since norms double or treble of themselves
    where a model begins to learn, and stay so for as long as updates are refused. `blame` tells what a step (from 0)
    saw and how each document did under a model; `windows` are what was left out before.
    """

    name = "spike_guard"

    def __init__(
        self,
        sigma: float,
        window: int = 128,
        least: int = 16,
        smallest: float = 0.01,
        patience: int = 20,
        back: int = 0,
        blame: Blame | None = None,
        windows: Sequence[Window] = (),
        smallest_log: float = 0.4,
    ) -> None:
        self.sigma, self.window, self.least, self.smallest, self.patience = sigma, window, least, smallest, patience
        self.back, self.blame, self.smallest_log = back, blame, smallest_log
        self.history: list[float] = []
        self.log_norms: list[float] = []
        self.events: list[dict[str, float]] = []
        self.in_a_row = 0
        self.windows = list(windows)
        self._given = bool(windows)
        self.blamed: dict[int, list[list[Any]]] = {}  # by the step of the spike: ranked (step, who, targets, loss)
        self.found: Window | None = None  # what is to be undone

    # Judging ------------------------------------------------------------------------------------------------------

    def accept(self, run: Run, loss: float, norm: float) -> bool:
        """Judges a loss (nats) and a gradient norm; what is accepted becomes history."""
        limit, most = self._limits()
        if math.isfinite(loss) and math.isfinite(norm) and loss <= limit and _log(norm) <= most:
            self.history = [*self.history, loss][-self.window :]
            if self.back:
                self.log_norms = [*self.log_norms, _log(norm)][-self.window :]
            self.in_a_row = 0
            return True
        event = {"step": run.state.step + 1, "loss": loss, "grad_norm": norm, "limit": limit}
        self.events.append(event | ({"norm_limit": math.exp(min(most, 700.0))} if self.back else {}))
        self.in_a_row += 1
        if self.in_a_row >= self.patience and not self.back:
            raise FloatingPointError(
                f"{self.in_a_row} updates in a row were refused, the last for loss {loss:.4g} at step "
                f"{run.state.step + 1}: lower the learning rate"
            )
        return False

    def _limits(self) -> tuple[float, float]:
        """The largest loss that is taken, and the largest log norm."""
        if not self.sigma or len(self.history) < self.least:
            return math.inf, math.inf
        level, deviation = _usual(self.history) if self.back else _moments(self.history)
        limit = level + self.sigma * max(deviation, self.smallest * abs(level))
        if not self.back:
            return limit, math.inf
        level, deviation = _usual(self.log_norms)
        return limit, level + self.sigma * max(deviation, self.smallest_log)

    # Going back ---------------------------------------------------------------------------------------------------

    def but_those(self, batches: Batches) -> Batches:
        """The same batches without those of the steps that are left out: they have no update."""
        return lambda step: [] if self._out(step + 1) else batches(step)

    def _out(self, step: int) -> bool:
        return any(window.first <= step <= window.last for window in self.windows)

    def on_start(self, run: Run) -> None:
        """Of a run that was ended between its finding and its going back, finds it again."""
        self._rank_windows(run)
        self._confirm(run)

    def on_step(self, run: Run, row: Row) -> None:
        """Ranks what was refused, and ends the run where it has to go back."""
        step = run.state.step
        if self._out(step):
            row.pop("loss", None)  # it took none: a loss of 0 would be a lie
            row.pop("grad_norm", None)
            row["skipped"] = 1.0
        elif self.events and self.events[-1]["step"] == step:
            self._rank(run, step, [step])
            self._confirm(run)
        self._rank_windows(run)

    def _confirm(self, run: Run) -> None:
        if not self.back or self.in_a_row < CONFIRMED:
            return
        event = self.events[-self.in_a_row]
        spike, last = int(event["step"]), run.state.step
        first = max(spike - self.back, 1)
        windows = self.windows[-RETURNS:]
        joined = zip(windows, [*(window.first for window in windows[1:]), first], strict=True)
        if len(windows) == RETURNS and all(following <= window.last + 1 for window, following in joined):
            raise FloatingPointError(
                f"the loss spikes again at step {last}, after {RETURNS} returns to good weights: lower the learning"
                " rate"
            )
        self.found = Window(first, last, spike, event["loss"], event["grad_norm"], event["limit"])
        run.steps = last

    def on_end(self, run: Run) -> None:
        """Raises FloatingPointError where no update was ever taken: what would be written is the model as it came."""
        if self.events and not self.history and self.found is None:
            last = self.events[-1]
            raise FloatingPointError(
                f"none of {len(self.events)} updates could be taken, the last for loss {last['loss']:.4g} and gradient"
                f" norm {last['grad_norm']:.4g}: lower the learning rate, or look at the data"
            )

    # Blaming ------------------------------------------------------------------------------------------------------

    def _rank_windows(self, run: Run) -> None:
        """Ranks what lies in each window that begins with the next step: these are the last good weights."""
        for window in self.windows:
            if run.state.step == window.first - 1 and window.spike not in self.blamed:
                self._rank(run, window.spike, range(window.first, window.last + 1))

    def _rank(self, run: Run, spike: int, steps: Iterable[int]) -> None:
        """Ranks the documents of these steps by their own loss a target; each stands at the step it lost most in."""
        if self.blame is None:
            return
        run.model.eval()
        sums: dict[str | int, dict[int, tuple[int, float]]] = {}
        with torch.no_grad(), run.device.computing():
            for step in steps:
                for who, targets, nats in self.blame(run.model, step - 1):
                    before = sums.setdefault(who, {}).get(step, (0, 0.0))
                    sums[who][step] = before[0] + targets, before[1] + nats
        run.model.train()
        rows: list[list[Any]] = []
        for who, by_step in sums.items():
            targets = sum(count for count, _ in by_step.values())
            if targets:
                nats = sum(loss for _, loss in by_step.values())
                rows.append([max(by_step, key=lambda step: by_step[step][1]), who, targets, nats / targets])
        finite = [row for row in rows if math.isfinite(row[3])]
        usual = sum(row[2] * row[3] for row in finite) / max(sum(row[2] for row in finite), 1)

        def own(row: list[Any]) -> float:
            return (row[2] * row[3] + PRIOR * usual) / (row[2] + PRIOR) if math.isfinite(row[3]) else math.inf

        rows.sort(key=lambda row: (-own(row), row[0]))
        self.blamed[spike] = rows[:KEPT]

    @property
    def skipped(self) -> int:
        """Updates that were refused, and steps that were undone or left out."""
        return len(self.events) + len(self.left_out)

    @property
    def left_out(self) -> list[int]:
        """The steps whose data are left out, each once though windows may overlap."""
        return sorted({step for window in self.windows for step in range(window.first, window.last + 1)})

    def report(self) -> dict[str, Any]:
        """What to say of spikes: the steps left out, and the documents, best ranked first, of each spike."""
        found: dict[str, Any] = {}
        if self.windows:
            found["left_out_steps"] = [[window.first, window.last] for window in self.windows]
        if self.blamed:
            found["spikes"] = [
                [spike, *row, rank] for spike, rows in self.blamed.items() for rank, row in enumerate(rows, 1)
            ]
        return found

    def saved(self) -> dict[str, Any]:
        """History, events, what was left out and who is to blame."""
        return {
            "history": self.history,
            "log_norms": self.log_norms,
            "events": self.events,
            "in_a_row": self.in_a_row,
            "windows": [list(window) for window in self.windows],
            "blamed": [[spike, rows] for spike, rows in self.blamed.items()],
        }

    def load(self, saved: dict[str, Any]) -> None:
        """Puts them back; windows that were given stay, since they are what a state from before them doesn't know."""
        self.history, self.log_norms = list(saved["history"]), list(saved["log_norms"])
        self.in_a_row = saved["in_a_row"]
        self.events = [dict(event) for event in saved["events"]]
        if not self._given:
            self.windows = [Window(*window) for window in saved["windows"]]
        self.blamed = {spike: [list(row) for row in rows] for spike, rows in saved["blamed"]}


def _moments(values: Sequence[float]) -> tuple[float, float]:
    """Mean and deviation."""
    mean = sum(values) / len(values)
    return mean, math.sqrt(sum((value - mean) ** 2 for value in values) / len(values))


def _usual(values: Sequence[float]) -> tuple[float, float]:
    """Where values stand now, and their deviation from one to the next: the median of the last 16; the mean absolute
    deviation of differences times 1.2533 (a normal distribution's deviation) and 1 / sqrt 2 (each difference has the
    noise of two). A loss that falls makes neither larger, as it does a plain deviation; heavy tails do, and are known
    more exactly than by a median."""
    steps = [after - before for before, after in pairwise(values)]
    middle = median(steps)
    return median(values[-16:]), 1.2533 * sum(abs(step - middle) for step in steps) / len(steps) / math.sqrt(2)


def _log(norm: float) -> float:
    return math.log(max(norm, 1e-12))
