"""The one training loop: any objective, bit-equal resume.

A step is one or more optimizer updates, an update one or more micro-batches. Gradients of loss *sums* add up over the
micro-batches and are divided once by the number of targets in the whole update, so accumulation, packing and padding
change nothing. Everything that shapes the next step (weights, optimizer, random state, callbacks) is in the saved
state; data order is a pure function of (seed, step) and needs none.
"""

from __future__ import annotations

import gc
import math
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from models.network.build import keep_freed_memory
from models.objectives.base import Objective
from models.parallel.ranks import ALONE, Ranks
from models.training.device import Device, choose, moved, peak_memory_mb
from models.training.flops import Work, device_peak
from models.training.interrupt import Interrupts
from models.training.optimizer import Optimizers, gradient_norms, scale_and_clip, set_rate, whole_norm
from models.training.schedule import Schedule
from models.training.state import State

# What a step trains on: its updates in order, each a sequence of micro-batches.
Batches = Callable[[int], Iterable[Sequence[Any]]]


@dataclass
class Run:
    """What callbacks see of a run in progress."""

    model: nn.Module
    optimizer: Optimizers
    schedule: Schedule
    state: State
    steps: int
    callbacks: Sequence[Callback]
    device: Device
    ranks: Ranks
    work: Work | None = None

    @property
    def last(self) -> bool:
        """Whether the step just taken was the last."""
        return self.state.step == self.steps


class Callback:
    """Something that watches a run. A subclass overrides what it needs; `name` keys its saved state."""

    name = ""

    def accept(self, run: Run, loss: float, norm: float) -> bool:
        """Before each update: whether to take it. A refused update leaves the weights as they are."""
        return True

    def on_step(self, run: Run, row: dict[str, float]) -> None:
        """After each step, with its metrics, to which it may add. `run.state.step` counts the step already."""

    def saved(self) -> dict[str, Any]:
        """What must survive a resume: numbers, strings, lists, tensors."""
        return {}

    def load(self, saved: dict[str, Any]) -> None:
        """Puts back what `saved` gave."""

    def on_start(self, run: Run) -> None:
        """Once, after a state was put back and before the first step."""

    def on_interrupt(self, run: Run) -> None:
        """Between two steps, where the run is told to end before its time."""

    def on_end(self, run: Run) -> None:
        """Once, after the last step."""

    def close(self, run: Run) -> None:
        """Once, however the run ends, also by an error: what was begun beside it is done, without a word."""


def fit(
    model: nn.Module,
    objective: Objective,
    batches: Batches,
    optimizer: Optimizers,
    schedule: Schedule,
    callbacks: Sequence[Callback],
    state: State,
    *,
    steps: int,
    clip: float = 1.0,
    device: Device | None = None,
    ranks: Ranks = ALONE,
) -> State:
    """Trains from `state` until `steps` steps are done, and returns where it stands then.

    `schedule` gives the factor on each group's peak rate; `clip` is the largest gradient norm of a clip unit (0: none).
    The metrics of a step are means over the targets of its accepted updates; `loss` is the objective's own unless it
    reports another. `tokens` are all that the network read, padding and all; `data_s` the seconds that a step waited
    for its batches, rollouts included; `memory_mb` the most that was in use; `mfu` as in `flops.py`, where it is known.
    On a GPU the host waits for the device once an update, for all figures together. Raises FloatingPointError when no
    callback refuses a loss or gradient that isn't finite. A Ctrl-C, SIGTERM or SIGHUP takes effect after the step that
    it comes upon.
    """
    keep_freed_memory()
    device = device or choose("float32", _place(model))
    run = Run(model, optimizer, schedule, state, steps, callbacks, device, ranks, Work.of(model))
    if state.saved is not None:
        _restore(run, state.saved)
        state.saved = None
    for callback in callbacks:
        callback.on_start(run)
    frozen, others = False, bool(gc.get_freeze_count())  # a caller who froze what was his has left little to look at
    model.train()
    interrupts = Interrupts()
    try:
        while state.step < run.steps:  # which a callback may bring forward
            row = _step(run, objective, batches, clip)
            for callback in callbacks:
                callback.on_step(run, row)
            if not (frozen or others):
                # What lives now lives to the end: the collector need not look at it again (nanochat: pauses of 0.5 s).
                gc.collect()
                gc.freeze()
                frozen = True
            if ranks.end(interrupts.waiting is not None):
                for callback in callbacks:
                    callback.on_interrupt(run)
                interrupts.deliver()
        for callback in callbacks:
            callback.on_end(run)
    finally:
        for callback in callbacks:
            callback.close(run)
        interrupts.close()
        if frozen:
            gc.unfreeze()
    return state


def _step(run: Run, objective: Objective, batches: Batches, clip: float) -> dict[str, float]:
    """Take one step and return its row of metrics."""
    state, optimizer = run.state, run.optimizer
    started = time.perf_counter()
    rate = set_rate(optimizer, run.schedule(state.step))
    sums: dict[str, float] = {}
    counted, norms, loss, skipped, updates, waited = 0, 0.0, 0.0, 0, 0, 0.0  # no update: nothing to pay
    tokens = flops = 0.0
    following = iter(batches(state.step))
    while True:
        before = time.perf_counter()
        update = next(following, None)
        waited += time.perf_counter() - before
        if update is None:
            break
        updates += 1
        totals, lengths = _backward(run, objective, update)
        targets, tokens = int(totals.pop("targets")), tokens + totals.pop("tokens")
        flops += totals.pop("flops")
        scale = 1 / max(targets, 1)
        loss, norm = totals["total"] * scale, whole_norm(lengths, scale)
        # every callback is asked, so that each one's history is complete
        verdicts = [callback.accept(run, loss, norm) for callback in run.callbacks]
        if all(verdicts):
            if not (math.isfinite(loss) and math.isfinite(norm)):
                raise FloatingPointError(
                    f"loss {loss} and gradient norm {norm} at step {state.step + 1}: lower the learning rate"
                )
            scale_and_clip(optimizer, scale, clip, lengths)
            optimizer.step()
            norms += norm
            counted += targets
            for name, value in totals.items():
                sums[name] = sums.get(name, 0.0) + value
        else:
            skipped += 1
        optimizer.zero_grad()
    state.step += 1
    state.targets += counted
    # of a step that was refused whole, the loss it was refused for is worth knowing
    row = {"step": float(state.step), "loss": sums.pop("total") / counted if counted else loss}
    row |= {name: value / max(counted, 1) for name, value in sums.items()}
    row |= {"lr": rate, "grad_norm": norms / max(updates - skipped, 1), "targets": float(counted)}
    seconds, peak = time.perf_counter() - started, device_peak(run.device.device)
    used = flops / seconds / (peak * run.ranks.size) if peak and run.work else math.nan
    row |= {"skipped": float(skipped), "tokens": tokens, "tokens_per_s": tokens / seconds, "data_s": waited}
    return row | {"memory_mb": peak_memory_mb(run.device.device), "mfu": used}


def _place(model: nn.Module) -> str:
    return str(next(model.parameters()).device)


def _backward(run: Run, objective: Objective, update: Sequence[Any]) -> tuple[dict[str, float], dict[str, float]]:
    """Gradients of the summed loss over the micro-batches of all ranks; the sums of loss (`total`), `targets`, metrics,
    `tokens` read and `flops`, and the gradient norm of each clip unit, all unscaled."""
    sums: dict[str, Any] = {}
    for batch, counts in run.ranks.share(update):
        with run.device.computing():
            loss = objective(run.model, moved(batch, run.device.device))
        (loss.total * counts).backward()
        figures: dict[str, Any] = {"total": loss.total.detach(), "targets": loss.targets, **loss.sums}
        figures["tokens"] = sum(math.prod(shape) for shape in loss.read) if loss.read else loss.targets
        figures["flops"] = sum(run.work.flops(*shape) for shape in loss.read) if run.work else 0.0
        for name, value in figures.items():
            sums[name] = sums.get(name, 0.0) + (value.double() if isinstance(value, Tensor) else value) * counts
    if run.ranks.size > 1:
        run.ranks.add_gradients(p for group in run.optimizer.param_groups for p in group["params"])
        place = run.device.device
        each = [torch.as_tensor(value, dtype=torch.float64, device=place) for value in sums.values()]
        sums = dict(zip(sums, run.ranks.total(torch.stack(each)), strict=True))
    lengths = gradient_norms(run.optimizer, run.ranks)
    # what the device knows comes as one list: the host waits for it here and nowhere else
    known = [name for name, value in sums.items() if isinstance(value, Tensor)]
    told = torch.stack([sums[name] for name in known] + [value.double() for value in lengths.values()]).tolist()
    sums |= dict(zip(known, told, strict=False))
    return sums, dict(zip(lengths, told[len(known) :], strict=True))


def split(batch: Any, parts: int) -> list[Any]:
    """A batch whose fields are tensors with rows first, as `parts` micro-batches in order (fewer when rows are few)."""
    fields = [(name, getattr(batch, name)) for name in batch.__dataclass_fields__]
    chunks = {name: value.chunk(parts) for name, value in fields}
    count = min(len(chunk) for chunk in chunks.values())
    return [type(batch)(**{name: chunk[part] for name, chunk in chunks.items()}) for part in range(count)]


def mean_loss(model: nn.Module, batches: Sequence[Any], objective: Objective) -> dict[str, float]:
    """An objective's metrics as means over all targets of these batches."""
    totals: dict[str, float] = {}
    targets = 0
    device = next(model.parameters()).device
    for batch in batches:
        loss = objective(model, moved(batch, device))
        targets += int(loss.targets)
        for name, value in {"loss": loss.total, **loss.sums}.items():
            totals[name] = totals.get(name, 0.0) + float(value)
    return {name: value / max(targets, 1) for name, value in totals.items()}


def snapshot(run: Run) -> dict[str, Any]:
    """Everything a run needs to go on from here, as tensors and plain values."""
    weights, optimizer = run.ranks.held(run.model, run.optimizer)
    return {
        "step": run.state.step,
        "targets": run.state.targets,
        "model": weights,
        "optimizer": optimizer,
        "rng": torch.get_rng_state(),
        "cuda_rng": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
        "callbacks": {callback.name: callback.saved() for callback in run.callbacks if callback.name},
    }


def _restore(run: Run, saved: dict[str, Any]) -> None:
    run.ranks.put_back(run.model, run.optimizer, saved["model"], saved["optimizer"])
    torch.set_rng_state(saved["rng"])
    if saved["cuda_rng"] and torch.cuda.is_available():
        torch.cuda.set_rng_state_all(saved["cuda_rng"])
    for callback in run.callbacks:
        if callback.name in saved["callbacks"]:
            callback.load(saved["callbacks"][callback.name])
