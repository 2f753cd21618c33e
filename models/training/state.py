"""The state of a run on disk, so that a killed one goes on where it stood: bit-equal, or not at all.

A state belongs to an identity (what is trained on what, by which settings) and to the learning rates of the steps
behind it. The number of steps is in neither: where a longer run's rates begin like a shorter one's (constant, or
warm-up, stable and decay up to where the shorter begins to fall), it goes on from the shorter one's state and ends with
the weights of a run that was never stopped. A cosine's rates depend on its length from the first step on.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import struct
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from datalake.atomic import take, whole_file, whole_folder
from datalake.errors import UserError
from datalake.files import file_digest
from datalake.lake.copies import near_folder
from datalake.places import is_local, make_folder, remove_folder
from models.parallel.ranks import ALONE, Ranks
from models.training.schedule import Schedule

_FILE = "state.pt"


@dataclass
class State:
    """Where a run stands: steps done, targets trained on, and, fresh from disk, what `fit` has yet to put back."""

    step: int = 0
    targets: int = 0
    saved: dict[str, Any] | None = None


def rates_digest(schedule: Schedule, steps: int) -> str:
    """What the learning rates of the first `steps` steps were."""
    return hashlib.sha256(b"".join(struct.pack("<d", schedule(step)) for step in range(steps))).hexdigest()


def save_state(
    folder: Path,
    saved: dict[str, Any],
    identity: str,
    keep: int = 2,
    rates: str = "",
    branch: int = -1,
    ranks: Ranks = ALONE,
) -> Path:
    """Writes a state as `folder/step-N`, whole or not at all, with what other ranks wrote by `save_part`. The last
    `keep` stay, and that of step `branch`."""
    make_folder(folder)
    target = _folder(folder, saved["step"])
    with whole_folder(target) as part:
        torch.save(saved, part / _FILE)
        ranks.written()
        others = [] if ranks.whole_model else [f"rank-{rank}.pt" for rank in range(1, ranks.size)]
        for name in others:
            take(_leftover(target, name), part / name)
        note = {
            "step": saved["step"],
            "identity": identity,
            "rates": rates,
            "xxh128": {name: file_digest(str(part / name)) for name in (_FILE, *others)},
        }
        (part / "state.json").write_text(json.dumps(note), encoding="utf-8")
    for old in _saved_folders(folder)[keep:]:
        if old != _folder(folder, branch):
            remove_folder(old)
    return target


def save_part(folder: Path, saved: dict[str, Any], ranks: Ranks) -> None:
    """Writes what a rank that doesn't lead holds of a state, for the leading one to put in its place."""
    make_folder(folder)
    with whole_file(_leftover(_folder(folder, saved["step"]), f"rank-{ranks.rank}.pt")) as stream:
        torch.save(saved, stream)
    ranks.written()


def joined(held: Sequence[Any]) -> Any:
    """A state from what ranks hold of it, each with the same entries (see `Ranks.held`)."""
    first = held[0]
    if isinstance(first, dict):
        if first.keys() == {"part", "dim"}:
            return torch.cat([one["part"] for one in held if one["part"].numel()], first["dim"])
        return {name: joined([one[name] for one in held]) for name in first}
    if isinstance(first, list):
        return [joined(parts) for parts in zip(*held, strict=True)]
    return first


def load_state(folder: Path, identity: str, schedule: Schedule | None = None, steps: int | None = None) -> State:
    """The newest whole state in a folder that a run with this schedule and so many steps can go on from, or a fresh
    one; leftovers of a kill are cleared.

    A state whose bytes aren't those written is passed over for the one before. Raises UserError where a state belongs
    to another config or other inputs.
    """
    if not folder.is_dir():
        return State()
    for leftover in sorted(folder.glob(".step-*.tmp")):
        with contextlib.suppress(OSError):
            remove_folder(leftover)
        with contextlib.suppress(OSError):
            leftover.unlink()
    for path in _saved_folders(folder):
        try:
            here = near_folder(path)
            note = json.loads((here / "state.json").read_text(encoding="utf-8"))
            whole = all(digest == file_digest(str(here / name)) for name, digest in note["xxh128"].items())
        except (OSError, ValueError, KeyError, AttributeError):  # LostDataError is a ValueError
            continue
        if note["identity"] != identity:
            raise UserError(
                f"{path} is the state of a run with other settings or inputs: remove {folder} to start anew"
            )
        if steps is not None and note["step"] > steps:
            continue
        if whole and (schedule is None or note["rates"] == rates_digest(schedule, note["step"])):
            files = [here / name for name in note["xxh128"]]
            saved = joined([torch.load(file, map_location="cpu", weights_only=True) for file in files])
            return State(step=saved["step"], targets=saved["targets"], saved=saved)
    return State()


def clear_states(folder: Path, but: int | None = None) -> None:
    """Removes the states of a folder, but for that of a step."""
    for path in _saved_folders(folder):
        if but is None or path != _folder(folder, but):
            remove_folder(path)
    if is_local(folder) and folder.is_dir() and not any(folder.iterdir()):
        folder.rmdir()


def drop_states(folder: Path, first: int) -> None:
    """Removes the states of a folder from step `first` on: what they hold was undone."""
    for path in _saved_folders(folder):
        if path.name >= _folder(folder, first).name:
            remove_folder(path)


def copied(value: Any) -> Any:
    """A copy on the CPU of everything in a state: what is written while training goes on."""
    if isinstance(value, Tensor):
        return value.detach().to("cpu", copy=True)
    if isinstance(value, dict):
        return {key: copied(item) for key, item in value.items()}
    return [copied(item) for item in value] if isinstance(value, list | tuple) else value


class Background:
    """Calls in a thread, one at a time, in order; the next waits for the last, and `wait` for all. Errors are raised
    where the next call or `wait` stands."""

    def __init__(self) -> None:
        self._pool: ThreadPoolExecutor | None = None
        self._last: Future[Any] | None = None

    def __call__(self, work: Any, *arguments: Any) -> None:
        """Begin a call; the one before it is done by then."""
        self.wait()
        if self._pool is None:
            self._pool = ThreadPoolExecutor(1, "state")
        self._last = self._pool.submit(work, *arguments)

    def wait(self) -> None:
        """Until what was begun is done."""
        last, self._last = self._last, None
        if last is not None:
            last.result()

    def settle(self) -> None:
        """Until what was begun is done or has failed, which is not raised."""
        if self._last is not None:
            wait((self._last,))


def _leftover(target: Path, name: str) -> Path:
    return target.with_name(f".{target.name}.{name}.tmp")


def _folder(folder: Path, step: int) -> Path:
    return folder / f"step-{step:09d}"


def _saved_folders(folder: Path) -> list[Path]:
    """The states of a folder, newest first."""
    return sorted((path for path in folder.glob("step-*") if path.is_dir()), key=lambda path: path.name, reverse=True)
