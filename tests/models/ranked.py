"""Work done by several ranks: real processes that talk through gloo, forked from one that has torch imported."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import tempfile
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

_SERVER = multiprocessing.get_context("forkserver")
_SERVER.set_forkserver_preload(["ranked_work"])


class DiedError(Exception):
    """A rank ended without an answer; `signals` are those that ended each."""

    def __init__(self, signals: list[int | None]) -> None:
        super().__init__(str(signals))
        self.signals = signals


def together(work: Callable[..., Any], *arguments: Any, size: int = 2, kind: str = "data") -> list[Any]:
    """What `work(ranks, *arguments)` returns on each of `size` ranks. Raises what a rank raised, the leading one's
    first, as RuntimeError, and DiedError where they were killed."""
    path = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = os.pathsep.join(sys.path)
    with tempfile.TemporaryDirectory() as folder:
        pipes, processes = [], []
        for rank in range(size):
            ours, theirs = _SERVER.Pipe()
            process = _SERVER.Process(target=_rank, args=(theirs, folder, rank, size, kind, work, arguments))
            process.start()
            theirs.close()
            pipes.append(ours)
            processes.append(process)
        if path is None:
            del os.environ["PYTHONPATH"]
        else:
            os.environ["PYTHONPATH"] = path
        answers: list[Any] = []
        try:
            for pipe in pipes:
                try:
                    answers.append(pipe.recv() if pipe.poll(120) else ("error", "no answer in 120 s"))
                except EOFError:
                    answers.append(("died", None))
        finally:
            failed = any(answer[0] != "ok" for answer in answers) or len(answers) < size
            for process in processes:
                process.join(10 if not failed else 1)
                if process.is_alive():
                    process.kill()
                    process.join()
    if any(kind == "died" for kind, _ in answers):
        raise DiedError([process.exitcode for process in processes])
    for kind, value in answers:
        if kind == "error":
            raise RuntimeError(value)
    return [value for _, value in answers]


def _rank(
    pipe: Any, folder: str, rank: int, size: int, kind: str, work: Callable[..., Any], arguments: tuple[Any, ...]
) -> None:
    import torch
    import torch.distributed as distributed

    from models.parallel import ranks_of

    def terminate(number: int, frame: Any) -> None:
        raise SystemExit(128 + number)

    signal.signal(signal.SIGTERM, terminate)
    torch.set_num_threads(1)
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    distributed.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=size)
    try:
        pipe.send(("ok", work(ranks_of(kind), *arguments)))
    except BaseException as error:
        pipe.send(("error", "".join(traceback.format_exception(error)) + repr(error)))
    distributed.destroy_process_group()


def losses(out: Path) -> list[float]:
    """The loss of every step of a run."""
    from models.training.metrics import read_metrics

    return [row["loss"] for row in read_metrics(out / "metrics.jsonl")]
