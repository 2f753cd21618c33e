"""What ranks do in tests of training together; imported once, by the process that ranks are forked from."""

from __future__ import annotations

import hashlib
import os
import signal
from pathlib import Path
from typing import Any

import torch
import torch.distributed as distributed

from models.methods import METHODS
from models.network import checkpoint, decoder, foreign  # noqa: F401  (heavy: imported before the fork)
from models.parallel.ranks import Ranks
from models.rl import iterations  # noqa: F401
from models.training import callbacks, loop, optimizer  # noqa: F401


def train(
    ranks: Ranks, name: str, config: Any, inputs: dict[str, Any], out: Path, stop: tuple[int, int] | None = None
) -> tuple[dict[str, Any], list[list[str]]]:
    """One method, with its report and the micro-batches that this rank took of each update. `stop`: a signal that
    ranks get (the first one alone, but all are killed) when a step is done."""
    taken: list[list[str]] = []
    pids: list[Any] = [None] * ranks.size
    if distributed.is_initialized():
        distributed.all_gather_object(pids, os.getpid())
    share = ranks.share

    def noted(update: Any) -> Any:
        shared = share(update)
        taken.append([digest(batch) for batch, counts in shared if counts])
        return shared

    def ended(row: dict[str, Any]) -> None:
        if stop is not None and row["step"] == stop[1]:
            for pid in pids if stop[0] == signal.SIGKILL else pids[-1:]:
                if pid != os.getpid():
                    os.kill(pid, stop[0])
            if stop[0] == signal.SIGKILL:
                os.kill(os.getpid(), stop[0])

    ranks.share = noted  # type: ignore[method-assign]
    return METHODS[name](config, out=out, ranks=ranks, on_step=ended, **inputs), taken


def digest(batch: Any) -> str:
    """What a micro-batch is known by."""
    values = [getattr(batch, name) for name in batch.__dataclass_fields__]
    return hashlib.sha256(b"".join(v.numpy().tobytes() for v in values if torch.is_tensor(v))).hexdigest()[:12]


def merged(ranks: list[list[list[str]]]) -> list[list[str]]:
    """The micro-batches of each update in their order, from those that each rank took."""
    updates = []
    for parts in zip(*ranks, strict=True):
        longest = max(map(len, parts))
        updates.append([part[place] for place in range(longest) for part in parts if place < len(part)])
    return updates
