"""The one training loop: any objective, bit-equal resume.

A step is one or more optimizer updates, an update one or more micro-batches. Gradients of loss *sums* add up over the
micro-batches and are divided once by the number of targets in the whole update, so accumulation, packing and padding
change nothing. Everything that shapes the next step (weights, optimizer, random state, callbacks) is in the saved
state; data order is a pure function of (seed, step) and needs none.
"""

from __future__ import annotations

import gc
import json
import math
import shutil
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from datalake.atomic import whole_folder
from datalake.errors import UserError
from datalake.files import file_digest
from models.network.build import keep_freed_memory
from models.objectives.base import Objective
from models.training.interrupt import Interrupts
from models.training.optimizer import Optimizers, scale_and_clip, set_rate
from models.training.schedule import Schedule

# What a step trains on: its updates in order, each a sequence of micro-batches.
Batches = Callable[[int], Iterable[Sequence[Any]]]


@dataclass
class State:
    """Where a run stands: steps done, targets trained on, and, fresh from disk, what `fit` has yet to put back."""

    step: int = 0
    targets: int = 0
    saved: dict[str, Any] | None = None


@dataclass
class Run:
    """What callbacks see of a run in progress."""

    model: nn.Module
    optimizer: Optimizers
    state: State
    steps: int
    callbacks: Sequence[Callback]

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
) -> State:
    """Trains from `state` until `steps` steps are done, and returns where it stands then.

    `schedule` gives the factor on each group's peak rate; `clip` is the largest gradient norm of a clip unit (0: none).
    The metrics of a step are means over the targets of its accepted updates; `loss` is the objective's own unless it
    reports another. Raises FloatingPointError when no callback refuses a loss or gradient that isn't finite. A Ctrl-C,
    SIGTERM or SIGHUP takes effect after the step that it comes upon.
    """
    keep_freed_memory()
    run = Run(model, optimizer, state, steps, callbacks)
    if state.saved is not None:
        _restore(run, state.saved)
        state.saved = None
    for callback in callbacks:
        callback.on_start(run)
    frozen = False
    model.train()
    interrupts = Interrupts()
    try:
        while state.step < steps:
            started = time.perf_counter()
            rate = set_rate(optimizer, schedule(state.step))
            sums: dict[str, float] = {}
            counted, norms, loss, skipped, updates = 0, 0.0, math.nan, 0, 0
            for update in batches(state.step):
                updates += 1
                totals, targets = _backward(model, objective, update)
                norm = scale_and_clip(optimizer, 1 / max(targets, 1), clip)
                loss = totals["total"] / max(targets, 1)
                # every callback is asked, so that each one's history is complete
                verdicts = [callback.accept(run, loss, norm) for callback in callbacks]
                if all(verdicts):
                    if not (math.isfinite(loss) and math.isfinite(norm)):
                        raise FloatingPointError(
                            f"loss {loss} and gradient norm {norm} at step {state.step + 1}: lower the learning rate"
                        )
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
            row |= {"skipped": float(skipped), "tokens_per_s": counted / (time.perf_counter() - started)}
            for callback in callbacks:
                callback.on_step(run, row)
            if not frozen:
                # What lives now lives to the end: the collector need not look at it again (nanochat: pauses of 0.5 s).
                gc.collect()
                gc.freeze()
                frozen = True
            if interrupts.waiting is not None:
                for callback in callbacks:
                    callback.on_interrupt(run)
                interrupts.deliver()
    finally:
        interrupts.close()
        if frozen:
            gc.unfreeze()
    return state


def _backward(model: nn.Module, objective: Objective, update: Sequence[Any]) -> tuple[dict[str, float], int]:
    """Gradients of the summed loss over the micro-batches; the sums of loss (`total`) and metrics, and the targets."""
    totals: dict[str, Tensor] = {}
    targets = 0
    for batch in update:
        loss = objective(model, batch)
        targets += loss.targets
        if loss.targets:
            loss.total.backward()
        for name, value in {"total": loss.total.detach(), **loss.sums}.items():
            totals[name] = totals[name] + value.double() if name in totals else value.double()
    return {name: float(value) for name, value in totals.items()}, targets


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
    for batch in batches:
        loss = objective(model, batch)
        targets += loss.targets
        for name, value in {"loss": loss.total, **loss.sums}.items():
            totals[name] = totals.get(name, 0.0) + float(value)
    return {name: value / max(targets, 1) for name, value in totals.items()}


def context_of(model: nn.Module, asked: int | None = None) -> int:
    """The tokens a model takes at once, or fewer where fewer are asked for."""
    longest = int(model.config.context)  # type: ignore[union-attr, arg-type]
    return min(asked or longest, longest)


# ---- the saved state -------------------------------------------------------------------------------------------------


def snapshot(run: Run) -> dict[str, Any]:
    """Everything a run needs to go on from here, as tensors and plain values."""
    return {
        "step": run.state.step,
        "targets": run.state.targets,
        "model": run.model.state_dict(),
        "optimizer": run.optimizer.state_dict(),
        "rng": torch.get_rng_state(),
        "cuda_rng": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
        "callbacks": {callback.name: callback.saved() for callback in run.callbacks if callback.name},
    }


def _restore(run: Run, saved: dict[str, Any]) -> None:
    run.model.load_state_dict(saved["model"])
    run.optimizer.load_state_dict(saved["optimizer"])
    torch.set_rng_state(saved["rng"])
    if saved["cuda_rng"] and torch.cuda.is_available():
        torch.cuda.set_rng_state_all(saved["cuda_rng"])
    for callback in run.callbacks:
        if callback.name in saved["callbacks"]:
            callback.load(saved["callbacks"][callback.name])


def save_state(folder: Path, saved: dict[str, Any], identity: str, keep: int = 2) -> Path:
    """Writes a state as `folder/step-N`, whole or not at all. The last `keep` stay."""
    folder.mkdir(parents=True, exist_ok=True)
    target = folder / f"step-{saved['step']:09d}"
    with whole_folder(target) as part:
        torch.save(saved, part / "state.pt")
        note = {"step": saved["step"], "identity": identity, "xxh128": file_digest(str(part / "state.pt"))}
        (part / "state.json").write_text(json.dumps(note), encoding="utf-8")
    for old in _saved_folders(folder)[keep:]:
        shutil.rmtree(old)
    return target


def load_state(folder: Path, identity: str) -> State:
    """The newest whole state in a folder, or a fresh one; leftovers of a kill are cleared.

    A state whose bytes aren't those written is passed over for the one before. Raises UserError where a state belongs
    to another config or other inputs.
    """
    if not folder.is_dir():
        return State()
    for leftover in sorted(folder.glob(".step-*.tmp")):
        shutil.rmtree(leftover, ignore_errors=True)
    for path in _saved_folders(folder):
        try:
            note = json.loads((path / "state.json").read_text(encoding="utf-8"))
            whole = note["xxh128"] == file_digest(str(path / "state.pt"))
        except (OSError, ValueError, KeyError):
            continue
        if note["identity"] != identity:
            raise UserError(
                f"{path} is the state of a run with other settings or inputs: remove {folder} to start anew"
            )
        if whole:
            saved = torch.load(path / "state.pt", map_location="cpu", weights_only=True)
            return State(step=saved["step"], targets=saved["targets"], saved=saved)
    return State()


def _saved_folders(folder: Path) -> list[Path]:
    """The states of a folder, newest first."""
    return sorted((path for path in folder.glob("step-*") if path.is_dir()), reverse=True)
