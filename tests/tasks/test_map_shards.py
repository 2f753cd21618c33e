"""`map_shards` on a real Ray: what happens to shards that finish, were finished, fail, die or take too long."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from ray import cloudpickle

from datalake.errors import UserError
from datalake.files import file_digest
from datalake.lake.shards import ShardResult, ShardWriter, find_shard
from tasks.cluster import Shard, map_shards, run_alone
from tasks.runtime import Runtime

# Ray's workers can't import a test module: its functions travel by value.
cloudpickle.register_pickle_by_value(sys.modules[__name__])

RuntimeOf = Callable[..., Runtime]
SCHEMA = pa.schema([("number", pa.int64()), ("text", pa.large_string())])


def write(shard: Shard) -> ShardResult:
    """Writes a table that depends on the payload alone."""
    assert shard.folder is not None
    with ShardWriter(shard.folder, shard.name, shard.key, {"raw": SCHEMA}) as out:
        numbers = list(range(shard.payload, shard.payload + 100))
        out.write("raw", pa.table({"number": numbers, "text": [f"row {n}" for n in numbers]}, schema=SCHEMA))
        out.count("records", len(numbers))
    return out.result


def note(folder: Path, name: str) -> int:
    """Leaves one file per call; how many calls there were, this one included."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{name}-{time.time_ns()}-{os.getpid()}").touch()
    return len(list(folder.glob(f"{name}-*")))


def shards_in(folder: Path, amount: int) -> list[Shard]:
    return [Shard(f"shard {i}", f"{i:064x}", i * 100, folder / str(i)) for i in range(amount)]


def states(results: Any) -> dict[str, str]:
    return {result.name: result.state for result in results}


def digests(folder: Path) -> dict[str, str]:
    return {str(path.relative_to(folder)): file_digest(str(path)) for path in sorted(folder.rglob("*.parquet"))}


@pytest.fixture(params=["ray", "inline"])
def runtime_of(request: pytest.FixtureRequest) -> RuntimeOf:
    """Both ways of working, one after the other: what a shard comes to may not depend on which."""
    return request.getfixturevalue("on_ray" if request.param == "ray" else "inline")


def test_every_shard_is_worked_on_once_and_told_to_progress(runtime_of: RuntimeOf, tmp_path: Path) -> None:
    seen: list[ShardResult] = []
    results = list(map_shards(write, shards_in(tmp_path / "s", 20), runtime_of(), progress=seen.append))
    assert states(results) == {f"shard {i}": "ran" for i in range(20)}
    assert len(results) == len(seen) == 20
    assert all(result.counts == {"records": 100} and result.files[0].rows == 100 for result in results)


def test_no_more_shards_are_asked_for_than_the_window_holds(runtime_of: RuntimeOf, tmp_path: Path) -> None:
    ahead, done = [0], 0

    def shards() -> Iterator[Shard]:
        for shard in shards_in(tmp_path / "s", 30):
            ahead[0] += 1
            yield shard

    write(shards_in(tmp_path / "s", 30)[7])
    for _ in map_shards(write, shards(), runtime_of(window=2)):
        done += 1
        assert ahead[0] - done <= 2 * 2 + 1
    assert done == 30


def test_a_finished_shard_is_found_and_only_the_others_run(runtime_of: RuntimeOf, tmp_path: Path) -> None:
    shards, calls = shards_in(tmp_path / "s", 6), tmp_path / "calls"
    write(shards[1])
    write(shards[4])

    def work(shard: Shard) -> ShardResult:
        note(calls, shard.folder.name)
        return write(shard)

    got = states(map_shards(work, shards, runtime_of()))
    assert got == {f"shard {i}": "found" if i in (1, 4) else "ran" for i in range(6)}
    assert sorted(path.name[0] for path in calls.iterdir()) == ["0", "2", "3", "5"]


def test_a_shard_whose_file_was_cut_is_worked_on_again(runtime_of: RuntimeOf, tmp_path: Path) -> None:
    (shard,) = shards_in(tmp_path / "s", 1)
    path = Path(write(shard).files[0].path)
    whole = path.read_bytes()
    path.write_bytes(whole[:-1])
    assert states(map_shards(write, [shard], runtime_of())) == {"shard 0": "ran"}
    assert path.read_bytes() == whole


def test_a_failing_shard_is_tried_again_then_failed_and_the_others_go_on(runtime_of: RuntimeOf, tmp_path: Path) -> None:
    def work(shard: Shard) -> None:
        tries = note(tmp_path / "calls", shard.name)
        if shard.payload == 100:
            raise OSError("disk on fire")
        if shard.payload == 200 and tries == 1:
            raise OSError("only once")

    results = {result.name: result for result in map_shards(work, shards_in(tmp_path, 4), runtime_of(retries=2))}
    assert states(results.values()) == {"shard 0": "ran", "shard 1": "failed", "shard 2": "ran", "shard 3": "ran"}
    assert results["shard 1"].error == "OSError: disk on fire"
    tries = [len(list((tmp_path / "calls").glob(f"shard {i}-*"))) for i in range(4)]
    assert tries == [1, 3, 2, 1]


def test_without_retries_a_failure_is_final(runtime_of: RuntimeOf, tmp_path: Path) -> None:
    def work(shard: Shard) -> None:
        note(tmp_path / "calls", "x")
        raise ValueError("no")

    (result,) = map_shards(work, shards_in(tmp_path, 1), runtime_of(retries=0))
    assert (result.state, result.error) == ("failed", "ValueError: no")
    assert len(list((tmp_path / "calls").iterdir())) == 1


def test_a_user_error_ends_the_map_at_once(runtime_of: RuntimeOf, tmp_path: Path) -> None:
    def work(shard: Shard) -> None:
        note(tmp_path / "calls", shard.name)
        if shard.payload == 0:
            raise UserError("the file isn't there: correct `paths`")
        time.sleep(0.2)

    with pytest.raises(UserError, match=r"^the file isn't there: correct `paths`$"):
        list(map_shards(work, shards_in(tmp_path, 40), runtime_of(window=1)))
    assert len(list((tmp_path / "calls").iterdir())) < 40
    assert len(list((tmp_path / "calls").glob("shard 0-*"))) == 1, "what a user must put right isn't tried again"


def test_one_worker_two_workers_and_no_ray_write_the_same_bytes(
    on_ray: RuntimeOf, inline: RuntimeOf, tmp_path: Path
) -> None:
    runs = {"one": on_ray(workers=1, window=1), "two": on_ray(workers=2), "inline": inline()}
    for name, runtime in runs.items():
        assert set(states(map_shards(write, shards_in(tmp_path / name, 9), runtime)).values()) == {"ran"}
    assert len(digests(tmp_path / "one")) == 9
    assert digests(tmp_path / "one") == digests(tmp_path / "two") == digests(tmp_path / "inline")


def test_a_worker_that_dies_is_replaced_and_its_shard_tried_again(on_ray: RuntimeOf, tmp_path: Path) -> None:
    def work(shard: Shard) -> ShardResult:
        if shard.payload == 100 and note(tmp_path / "calls", shard.name) == 1:
            os._exit(9)
        return write(shard)

    assert set(states(map_shards(work, shards_in(tmp_path / "s", 4), on_ray())).values()) == {"ran"}
    assert len(list((tmp_path / "calls").iterdir())) == 2


def test_a_worker_that_always_dies_fails_its_shard_alone(on_ray: RuntimeOf, tmp_path: Path) -> None:
    def work(shard: Shard) -> ShardResult:
        if shard.payload == 100:
            os._exit(9)
        return write(shard)

    results = {result.name: result for result in map_shards(work, shards_in(tmp_path / "s", 3), on_ray())}
    assert states(results.values()) == {"shard 0": "ran", "shard 1": "failed", "shard 2": "ran"}
    assert results["shard 1"].error.startswith("its worker died")
    assert find_shard(tmp_path / "s" / "1") is None


def test_a_time_limit_ends_even_native_code_and_leaves_nothing_finished(on_ray: RuntimeOf, tmp_path: Path) -> None:
    def work(shard: Shard) -> ShardResult:
        if shard.payload == 100:
            assert shard.folder is not None
            with ShardWriter(shard.folder, shard.name, shard.key, {"raw": SCHEMA}):
                ctypes.PyDLL(None).sleep(120)  # holds the interpreter's lock: no Python code could interrupt it
        return write(shard)

    start = time.perf_counter()
    runtime = on_ray(shard_seconds=4, retries=0)
    results = {result.name: result for result in map_shards(work, shards_in(tmp_path / "s", 3), runtime)}
    assert time.perf_counter() - start < 60
    assert states(results.values()) == {"shard 0": "ran", "shard 1": "failed", "shard 2": "ran"}
    assert results["shard 1"].error == "over its time limit of 4 s"
    assert find_shard(tmp_path / "s" / "1") is None


def test_a_shard_within_its_time_limit_doesnt_shorten_the_next_ones(on_ray: RuntimeOf, tmp_path: Path) -> None:
    def work(shard: Shard) -> None:
        time.sleep(1)

    runtime = on_ray(shard_seconds=4, retries=0)
    assert set(states(map_shards(work, shards_in(tmp_path, 10), runtime)).values()) == {"ran"}


def test_stopping_early_cancels_what_is_under_way(on_ray: RuntimeOf, tmp_path: Path) -> None:
    def work(shard: Shard) -> None:
        note(tmp_path / "calls", shard.name)
        time.sleep(0 if shard.payload == 0 else 30)

    results = map_shards(work, shards_in(tmp_path, 50), on_ray())
    assert next(results).name == "shard 0"
    results.close()
    start = time.perf_counter()
    assert set(states(map_shards(write, shards_in(tmp_path / "s", 4), on_ray())).values()) == {"ran"}
    assert time.perf_counter() - start < 25, "the cancelled shards no longer hold the workers"
    assert len(list((tmp_path / "calls").iterdir())) < 50


def test_alone_gives_the_result_and_passes_errors_on(runtime_of: RuntimeOf) -> None:
    def divide(a: int, b: int) -> float:
        if b == 0:
            raise UserError("b is zero: choose another")
        return a / b

    assert run_alone(divide, 6, 4, runtime=runtime_of()) == 1.5
    with pytest.raises(UserError, match=r"^b is zero: choose another$"):
        run_alone(divide, 1, 0, runtime=runtime_of())


def test_alone_polls_while_it_waits(on_ray: RuntimeOf) -> None:
    polls: list[float] = []
    run_alone(time.sleep, 2.5, runtime=on_ray(), poll=lambda: polls.append(time.perf_counter()))
    assert len(polls) >= 2


@pytest.fixture
def soon(told: type[BaseException]) -> Callable[[], None]:
    """Sends this process the signal that raises `told`, in a moment."""
    return threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGUSR2)).start


def naps() -> None:
    """Works until it is interrupted; Ray can't interrupt one long sleep."""
    while True:
        time.sleep(0.1)


def test_what_a_signal_raises_is_no_fault_of_the_work(
    on_ray: RuntimeOf, told: type[BaseException], soon: Callable[[], None]
) -> None:
    begun: list[None] = []
    with pytest.raises(told):
        run_alone(naps, runtime=on_ray(), poll=lambda: begun or begun.append(soon()))
    assert begun
    assert run_alone(abs, -1, runtime=on_ray()) == 1, "the work that was interrupted no longer holds the CPUs"


def sleeps(shard: Shard) -> None:
    time.sleep(shard.payload)


def test_what_a_signal_raises_fails_no_shard(
    on_ray: RuntimeOf, told: type[BaseException], soon: Callable[[], None]
) -> None:
    shards = [Shard("short", "a", 0.0), Shard("long", "b", 60.0)]
    found = map_shards(sleeps, shards, on_ray())
    assert next(found).name == "short"
    soon()
    with pytest.raises(told):
        next(found)


def threads(shard: Shard | None = None) -> int:
    import torch

    return torch.get_num_threads()


def loads_torch(shard: Shard) -> None:
    threads()


def test_work_alone_has_the_threads_of_all_its_cpus_whatever_its_process_did_before(on_ray: RuntimeOf) -> None:
    runtime = on_ray()
    list(map_shards(loads_torch, [Shard(f"shard {k}", f"{k}") for k in range(4)], runtime))
    assert run_alone(threads, runtime=runtime) == runtime.config.workers


def test_workers_share_what_gpus_there_are() -> None:
    from tasks.cluster.map import gpu_share

    assert [gpu_share(gpus, 16) for gpus in (0, 1, 4, 16, 64)] == [0, 0.0625, 0.25, 1, 1]
    for gpus in range(1, 9):
        for workers in range(1, 200):
            assert gpu_share(gpus, workers) * workers <= gpus + 1e-9 or gpu_share(gpus, workers) == 1
            assert gpu_share(gpus, workers) > 0
