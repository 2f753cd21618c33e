"""`run_ranks`: one piece of training done by several processes, started and started again by Ray Train (V2).

Each of them is a rank with its share of the run's CPUs, or a GPU of its own; they find each other through
torch.distributed (NCCL on GPUs, gloo elsewhere). Where one dies, all begin anew from the last state, in as many as the
cluster has room for; a rank that is given back later makes the group larger again.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from typing import Any

from datalake.atomic import write_atomically
from datalake.errors import UserError
from datalake.places import is_local, make_folder, remove_folder, store_of
from tasks.cluster.alone import wait_for
from tasks.cluster.connect import connect
from tasks.runtime import Runtime, RuntimeConfig

END = "end"  # the file that tells ranks to


def run_ranks(
    work: Callable[..., Any], *arguments: Any, runtime: Runtime, poll: Callable[[], None] | None = None
) -> Any:
    """Call `work(*arguments, ranks=...)` in every rank at once, and return what the leading one did; `poll` is called
    about once a second.

    A rank that dies or fails is tried again `runtime.retries` times, with all others: `work` must go on from a state of
    its own. Where this process is interrupted the ranks save theirs and end.

    Raises:
        UserError: what `work` raised; where the cluster has no room for the ranks, or pandas isn't there.
        ClusterError: where Ray ends before the work does.
    """
    config = runtime.config
    ray = connect(config)
    _require_pandas()
    room = ray.cluster_resources()
    least, gpus = config.least_ranks or config.ranks, int(room.get("GPU", 0))
    if (gpus or int(room.get("CPU", 0))) < least:
        has = f"{gpus} GPUs" if gpus else f"{int(room.get('CPU', 0))} CPUs"
        raise UserError(f"the cluster has {has} for {least} ranks: lower runtime.ranks, or raise runtime.workers")
    cpus = max(1, config.workers // config.ranks)
    folder = runtime.folder / "ranks"
    _remove(folder)
    make_folder(folder)
    # A task of its own, so that it can be waited for, interrupted and left behind as any other.
    task = ray.remote(num_cpus=0, max_retries=0)(_launch)
    try:
        reference = task.remote(work, arguments, config, cpus, bool(gpus), folder)
        return wait_for(reference, ray, poll, lambda: write_atomically(folder / END, b""))
    finally:
        _remove(folder)


def _remove(folder: Path) -> None:
    with suppress(OSError):
        remove_folder(folder)


def _launch(
    work: Callable[..., Any], arguments: tuple[Any, ...], config: RuntimeConfig, cpus: int, on_gpus: bool, folder: Path
) -> Any:
    """Ray Train's own driver: ends with the first UserError of a rank, or with its last failure."""
    train: Any = import_module("ray.train")  # whose types are still those of its first version
    trainers: Any = import_module("ray.train.torch")

    def rank() -> dict[str, Any]:
        from models.parallel import ranks_of

        os.environ["OMP_NUM_THREADS"] = str(cpus)
        torch = sys.modules["torch"]
        torch.set_num_threads(cpus)
        if on_gpus:  # Train chose it in another thread, and a choice is a thread's
            torch.cuda.set_device(import_module("ray.train.torch").get_device())
        try:
            return {"result": work(*arguments, ranks=ranks_of(config.parallel, config.ranks, folder / END))}
        except UserError as error:
            return {"mistake": str(error)}  # trying again wouldn't mend it
        except KeyboardInterrupt:
            return {}  # it was told to end

    memory = int(config.memory_gb * (1 << 30) / config.ranks)
    trainer = trainers.TorchTrainer(
        rank,
        scaling_config=train.ScalingConfig(
            num_workers=config.ranks if config.least_ranks is None else (config.least_ranks, config.ranks),
            use_gpu=on_gpus,
            resources_per_worker={"CPU": cpus, "memory": memory} | ({"GPU": 1} if on_gpus else {}),
        ),
        run_config=train.RunConfig(
            name="train",
            **_storage(folder),
            failure_config=train.FailureConfig(max_failures=config.retries),
            logging_config=train.LoggingConfig(log_level="ERROR"),
        ),
    )
    try:
        answer = trainer.fit().return_value
    except train.WorkerGroupError as error:
        raise next(iter(error.worker_failures.values()), error) from None  # Train's own words are pages
    if "mistake" in answer:
        raise UserError(answer["mistake"])
    return answer.get("result")


def _storage(folder: Path) -> dict[str, Any]:
    """Where Ray Train keeps what it knows of the ranks."""
    if is_local(folder):
        return {"storage_path": str(folder)}
    from pyarrow.fs import FSSpecHandler, PyFileSystem

    store, key = store_of(folder)
    return {"storage_path": key, "storage_filesystem": PyFileSystem(FSSpecHandler(store))}


def _require_pandas() -> None:
    try:
        import pandas  # noqa: F401
    except ImportError:
        raise UserError("several ranks need pandas, as Ray Train does: pip install pandas") from None
