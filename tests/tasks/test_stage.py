"""A stage: what is its identity, when it is taken from the cache, what it leaves when it ends well, partly or not."""

from __future__ import annotations

import contextlib
import contextvars
import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pydantic import BaseModel

from datalake.errors import UserError
from datalake.identity import fingerprint
from datalake.lake.lake import FolderRef, Lake, TableRef
from datalake.lake.ledger import query
from datalake.lake.records import Manifest, lineage, now, read_record, write_manifest
from datalake.lake.shards import ShardWriter, find_shard
from tasks.log import RunLog
from tasks.outputs import Folder, Missing, Table
from tasks.produced import Produced
from tasks.runtime import Runtime, RuntimeConfig
from tasks.stage import Stage, stage
from tasks.tracked import RUN_LOG, StageError, tracked

ROOT = Path(__file__).parents[2]
SCHEMA = pa.schema([("n", pa.int64())])
TABLE = TableRef(table="t.raw", snapshot=1, fingerprint="f" * 64, data_version="d" * 64, rows=3)


class Config(BaseModel):
    """What the toy stages are told."""

    factor: int = 2
    names: frozenset[str] = frozenset()


class Odd(BaseModel):
    """A config nobody can tell apart from another."""

    thing: Any = None


class Numbers(NamedTuple):
    """Numbers."""

    numbers: Table


class Sum(NamedTuple):
    """A sum."""

    sum: Folder


class Nothing(NamedTuple):
    """Nothing."""


@stage(Numbers, version="1", libraries=("pyarrow",))
def double(config: Config, runtime: Runtime, rows: int = 3) -> Produced:
    """Writes numbers times the factor, one shard."""
    key = runtime.shard_key(config, rows)
    folder = runtime.lake.shard_folder("double", key)
    made = find_shard(folder)
    if made is None:
        with ShardWriter(folder, "all", key, {"numbers": SCHEMA}) as out:
            out.write("numbers", pa.table({"n": [n * config.factor for n in range(rows)]}, schema=SCHEMA))
        made = out.result
    return Produced(tables={"numbers": (SCHEMA, made.files)}, records_in=rows, records_out=rows, counts={"n": rows})


@stage(Sum, version="1")
def add_up(config: Config, runtime: Runtime, numbers: TableRef) -> Produced:
    """Writes the sum of a table into a folder."""
    runtime.folder.mkdir(parents=True, exist_ok=True)
    total = sum(sum(pq.read_table(path)["n"].to_pylist()) for path in runtime.lake.files(numbers))
    (runtime.folder / "sum.txt").write_text(str(total))
    return Produced(
        folders={"sum": runtime.folder},
        records_in=numbers.rows,
        records_out=1,
        metrics=[{"step": 0, "name": "sum", "value": float(total)}],
        evaluations=[{"checkpoint": "x", "task": "t", "metric": "m", "value": 1.0, "low": 0.0, "high": 2.0, "n": 3}],
        checkpoint="sum",
    )


def made_by(
    fn: Callable[..., Produced], name: str = "made", version: str = "1", outputs: Any = Numbers
) -> Stage[Any, Any, Any]:
    return stage(outputs, version=version, name=name)(fn)


@pytest.fixture
def runtime(prefect_server: Any, tmp_path: Path) -> Runtime:
    lake = Lake(tmp_path / "lake").create()
    return Runtime(RuntimeConfig(workers=1, cluster="inline", retries=0), lake.root, "toy", "run-1")


@pytest.fixture
def log() -> Iterator[RunLog]:
    log = RunLog("run-1")
    token = RUN_LOG.set(log)
    yield log
    RUN_LOG.reset(token)


def states(log: RunLog) -> list[tuple[str, str]]:
    return [(report.stage, report.state) for report in log.reports]


def names_of_prefects_states(log: RunLog) -> list[str | None]:
    return [state.name for state in log.states.values()]


# Identity ------------------------------------------------------------------------------------------------------------


def identity(config: BaseModel | None = None, what: Stage[Any, Any, Any] = double, **inputs: Any) -> str:
    return fingerprint(what.payload(config or Config(), inputs))


def test_a_fingerprint_is_equal_in_every_process() -> None:
    code = (
        f"import sys; sys.path[:0] = [{str(ROOT)!r}, {str(Path(__file__).parent)!r}]\n"
        "from test_stage import Config, TABLE, double, identity\n"
        "print(identity(Config(names=frozenset('abcdefgh')), numbers=TABLE, rows=3))"
    )
    here = identity(Config(names=frozenset("hgfedcba")), numbers=TABLE, rows=3)
    for seed in ("1", "2"):
        done = subprocess.run(
            [sys.executable, "-c", code],
            capture_output=True,
            text=True,
            env={"PYTHONHASHSEED": seed, "PATH": "", "HOME": "/tmp", "PREFECT_HOME": "/tmp"},
        )
        assert done.stdout.strip() == here, done.stderr


def test_config_inputs_version_and_libraries_are_identity() -> None:
    base = identity(rows=3)
    assert identity(Config(factor=3), rows=3) != base
    assert identity(rows=4) != base
    assert identity(what=Stage(double.fn, Numbers, "double", "2", ("pyarrow",)), rows=3) != base
    assert identity(what=Stage(double.fn, Numbers, "triple", "1", ("pyarrow",)), rows=3) != base
    assert identity(what=Stage(double.fn, Numbers, "double", "1", ("pyarrow", "numpy")), rows=3) != base
    libraries = double.payload(Config(), {})["libraries"]
    assert libraries["pyarrow"] == pa.__version__
    assert libraries["python"] == f"{sys.version_info.major}.{sys.version_info.minor}"


def test_of_a_reference_only_the_data_version_is_identity() -> None:
    other = TABLE.model_copy(update={"table": "x.raw", "snapshot": 99, "fingerprint": "a" * 64, "rows": 7})
    assert identity(numbers=TABLE) == identity(numbers=other)
    changed = TABLE.model_copy(update={"data_version": "e" * 64})
    assert identity(numbers=TABLE) != identity(numbers=changed)
    assert identity(numbers=[TABLE, changed]) != identity(numbers=[changed, TABLE])


def test_what_has_no_identity_is_told_before_anything_runs(runtime: Runtime) -> None:
    for thing in (object(), 1 + 2j, float("nan"), RuntimeConfig):
        with pytest.raises(TypeError):
            tracked(double, Odd(thing=thing), runtime)
    assert not (runtime.lake_root / "records").exists()


def test_a_runtime_is_no_part_of_identity(runtime: Runtime, log: RunLog) -> None:
    tracked(double, Config(), runtime)
    wider = Runtime(RuntimeConfig(workers=5, cluster="inline", memory_gb=9), runtime.lake_root, "toy", "run-2")
    tracked(double, Config(), wider)
    assert states(log) == [("double", "ran"), ("double", "cached")]


# Cache ---------------------------------------------------------------------------------------------------------------


def test_a_finished_stage_is_cached_and_prefect_says_so(runtime: Runtime, log: RunLog) -> None:
    first = tracked(double, Config(), runtime)
    again = tracked(double, Config(), runtime)
    assert first == again
    assert states(log) == [("double", "ran"), ("double", "cached")]
    assert names_of_prefects_states(log) == ["Cached"]  # the last state of the one fingerprint
    assert log.reports[1].outputs == log.reports[0].outputs
    assert (log.reports[1].records_in, log.reports[1].records_out) == (3, 3)
    tracked(double, Config(factor=3), runtime)
    assert states(log)[-1] == ("double", "ran")


def test_results_are_json_inside_the_lake_and_two_lakes_never_share(
    runtime: Runtime, tmp_path: Path, log: RunLog
) -> None:
    tracked(double, Config(), runtime)
    results = list((runtime.lake_root / "results").iterdir())
    assert len(results) == 1
    assert "double" in json.dumps(json.loads(results[0].read_text())) or json.loads(results[0].read_text())
    other = Runtime(runtime.config, Lake(tmp_path / "other").create().root, "toy", "run-2")
    tracked(double, Config(), other)
    assert states(log) == [("double", "ran"), ("double", "ran")]


def test_a_raised_version_runs_again(runtime: Runtime, log: RunLog) -> None:
    tracked(made_by(double.fn, "double", "1"), Config(), runtime)
    tracked(made_by(double.fn, "double", "2"), Config(), runtime)
    assert states(log) == [("double", "ran"), ("double", "ran")]


@pytest.mark.parametrize("lost", ["files", "folder", "record", "result"])
def test_where_something_of_an_output_is_gone_it_is_made_again(runtime: Runtime, log: RunLog, lost: str) -> None:
    import shutil

    numbers: Any = tracked(double, Config(), runtime).numbers
    total: Any = tracked(add_up, Config(), runtime, numbers=numbers).sum
    if lost == "files":
        Path(runtime.lake.files(numbers)[0]).unlink()
    elif lost == "folder":
        shutil.rmtree(runtime.lake.path(total))
    elif lost == "record":
        (runtime.lake_root / "records" / f"{total.fingerprint}.json").write_text("{")
    else:
        shutil.rmtree(runtime.lake_root / "results")
    again: Any = tracked(double, Config(), runtime).numbers
    once_more = tracked(add_up, Config(), runtime, numbers=again).sum
    expected = {
        "files": ["ran", "cached"],
        "folder": ["cached", "ran"],
        "record": ["cached", "ran"],
        "result": ["cached", "cached"],  # the record says it; Prefect's copy is written from it
    }
    assert [state for _, state in states(log)[2:]] == expected[lost]
    assert (again.data_version, once_more.data_version) == (numbers.data_version, total.data_version)
    assert (runtime.lake.path(total) / "sum.txt").read_text() == "6"
    write_manifest(runtime.lake, Manifest(run="r", corpus="toy", recipe={}, started=now(), finished=now(), stages=[]))
    for table in ("runs.metrics", "runs.evaluations", "models.checkpoints"):  # told once, though done twice
        assert query(runtime.lake, f"SELECT count(*) FROM {table}")[1] == [(1,)], table


# Ends ----------------------------------------------------------------------------------------------------------------


def test_a_stage_that_fails_is_told_leaves_no_record_and_is_tried_again(runtime: Runtime, log: RunLog) -> None:
    broken = [True]

    def fragile(config: Config, runtime: Runtime) -> Produced:
        if broken[0]:
            raise OSError("no space\nleft on device")
        return double.fn(config, runtime)

    made = made_by(fragile, "fragile")
    with pytest.raises(StageError, match=r"^fragile failed: OSError: no space$") as failure:
        tracked(made, Config(), runtime)
    assert isinstance(failure.value.__cause__, OSError)
    assert states(log) == [("fragile", "failed")]
    assert not list((runtime.lake_root).glob("records/*"))
    broken[0] = False
    tracked(made, Config(), runtime)
    assert states(log)[1:] == [("fragile", "ran")]


def test_a_users_mistake_stays_the_cause(runtime: Runtime) -> None:
    def mistaken(config: Config, runtime: Runtime) -> Produced:
        raise UserError("lower the threshold")

    with pytest.raises(StageError) as failure:
        tracked(made_by(mistaken), Config(), runtime)
    assert isinstance(failure.value.__cause__, UserError)


def test_a_partial_stage_is_not_cached_and_says_how_to_go_on(runtime: Runtime, log: RunLog) -> None:
    left = [{"shard 2": "OSError: no"}, {}]

    def partly(config: Config, runtime: Runtime) -> Produced:
        produced = double.fn(config, runtime)
        produced.unfinished = left.pop(0)
        return produced

    made = made_by(partly)
    for _ in range(3):
        tracked(made, Config(), runtime)
    assert states(log) == [("made", "partial"), ("made", "ran"), ("made", "cached")]
    assert log.reports[0].note == "1 shard unfinished (shard 2: OSError: no); run again to do just this one"
    record = read_record(runtime.lake, str(log.reports[0].fingerprint))
    assert record is not None
    assert (record.state, record.unfinished) == ("done", {})


def test_sums_that_differ_fail_the_stage_before_its_commit(runtime: Runtime, log: RunLog) -> None:
    def wrong(config: Config, runtime: Runtime) -> Produced:
        produced = double.fn(config, runtime)
        produced.equations = [("in = out", 3, 3), ("records = raw + refused", 3, 2)]
        return produced

    with pytest.raises(StageError, match=r"made failed: .*records = raw \+ refused \(3 against 2\)"):
        tracked(made_by(wrong), Config(), runtime)
    assert runtime.lake.current_files("toy.numbers") == []
    assert not list((runtime.lake_root).glob("records/*"))


def test_a_stage_being_built_elsewhere_is_waited_for_and_taken_as_cached(runtime: Runtime) -> None:
    calls: list[float] = []

    def slow(config: Config, runtime: Runtime) -> Produced:
        calls.append(time.monotonic())
        time.sleep(1.0)
        return double.fn(config, runtime)

    made, logs, outputs = made_by(slow), [RunLog("a"), RunLog("b")], list[Numbers]()

    def one(log: RunLog) -> None:
        RUN_LOG.set(log)
        outputs.append(tracked(made, Config(), runtime))

    # Each thread in a copy of this context: the suite's Prefect server is a setting of it.
    threads = [threading.Thread(target=contextvars.copy_context().run, args=(one, log)) for log in logs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    assert len(calls) == 1
    assert sorted(state for log in logs for _, state in states(log)) == ["cached", "ran"]
    assert outputs[0] == outputs[1]


# Records -------------------------------------------------------------------------------------------------------------


def test_a_record_says_what_went_in_what_shaped_it_and_what_came_out(runtime: Runtime, log: RunLog) -> None:
    numbers: Any = tracked(double, Config(names=frozenset({"b", "a"})), runtime, rows=4).numbers
    tracked(add_up, Config(), runtime, numbers=numbers)
    first, second = (read_record(runtime.lake, str(report.fingerprint)) for report in log.reports)
    assert first is not None
    assert second is not None
    assert fingerprint(first.payload) == first.fingerprint == numbers.fingerprint
    assert first.payload["config"] == {"factor": 2, "names": ["a", "b"]}
    assert first.payload["inputs"] == {"rows": 4}
    assert (first.records_in, first.records_out, first.counts) == (4, 4, {"n": 4})
    assert second.inputs == {"numbers": [numbers]}
    assert second.payload["inputs"] == {"numbers": numbers.data_version}
    assert isinstance(second.outputs["sum"], FolderRef)
    assert second.versions.keys() >= {"prefect", "ray"}
    assert first.versions["pyarrow"] == pa.__version__
    assert second.seconds >= 0
    assert second.started.tzinfo is not None
    assert second.run == "run-1"
    assert second.task_run
    if second.git_commit is not None:
        head = subprocess.run(["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, text=True).stdout.strip()
        assert len(second.git_commit) == len(head)
        assert second.git_dirty in (True, False)
    assert list(lineage(runtime.lake, second)) == [second.fingerprint, first.fingerprint]


def test_why_did_this_rerun_is_the_difference_of_two_payloads(runtime: Runtime, log: RunLog) -> None:
    tracked(double, Config(), runtime)
    tracked(double, Config(factor=5), runtime)
    one, two = (read_record(runtime.lake, str(report.fingerprint)) for report in log.reports)
    assert one is not None
    assert two is not None
    differ = {name for name in one.payload if one.payload[name] != two.payload[name]}
    assert differ == {"config"}


def test_a_snapshot_carries_the_fingerprint_and_the_data_version(runtime: Runtime) -> None:
    ref: Any = tracked(double, Config(), runtime).numbers
    snapshot = runtime.lake.catalog.load_table("toy.numbers").snapshot_by_id(ref.snapshot)
    assert snapshot is not None
    assert snapshot.summary is not None
    properties = snapshot.summary.additional_properties
    assert properties["headwater.fingerprint"] == ref.fingerprint
    assert properties["headwater.data-version"] == ref.data_version


def test_equal_output_has_an_equal_data_version_whatever_made_it(runtime: Runtime) -> None:
    one: Any = tracked(double, Config(names=frozenset({"a"})), runtime).numbers
    two: Any = tracked(double, Config(names=frozenset({"b"})), runtime).numbers
    other: Any = tracked(double, Config(factor=3), runtime).numbers
    assert one.fingerprint != two.fingerprint
    assert one.data_version == two.data_version != other.data_version


# Damage, and lakes from elsewhere --------------------------------------------------------------------------------


def twice(runtime: Runtime) -> tuple[TableRef, FolderRef]:
    numbers: Any = tracked(double, Config(), runtime).numbers
    total: Any = tracked(add_up, Config(), runtime, numbers=numbers).sum
    return numbers, total


@pytest.mark.parametrize("cut", ["table", "folder", "list"])
def test_what_is_cut_short_is_made_again(runtime: Runtime, log: RunLog, cut: str) -> None:
    numbers, total = twice(runtime)
    lists = runtime.lake_root / "contents" / numbers.table
    path = {
        "table": Path(runtime.lake.files(numbers)[0]),
        "folder": runtime.lake.path(total) / "sum.txt",
        "list": next(lists.iterdir()),
    }[cut]
    whole = path.read_bytes()
    path.write_bytes(whole[:-1])
    if cut == "list":
        (runtime.lake_root / "catalog.db").unlink()
    assert twice(runtime)[0].data_version == numbers.data_version
    expected = ["cached", "ran"] if cut == "folder" else ["ran", "cached"]
    assert [state for _, state in states(log)[2:]] == expected
    assert cut == "list" or path.read_bytes() == whole


def test_a_flipped_bit_fails_who_reads_it_and_the_next_run_makes_the_file_anew(runtime: Runtime, log: RunLog) -> None:
    numbers, _ = twice(runtime)
    path = Path(runtime.lake.files(numbers)[0])
    whole = path.read_bytes()
    path.write_bytes(whole[:-5] + bytes([whole[-5] ^ 1]) + whole[-4:])

    def reads(config: Config, runtime: Runtime, numbers: TableRef) -> Produced:
        from datalake.lake.parquet import read_table

        rows = sum(read_table(file).num_rows for file in runtime.lake.files(numbers))
        return Produced(records_in=rows, records_out=rows)

    again: Any = tracked(double, Config(), runtime).numbers
    with pytest.raises(StageError, match=r"isn't what was written\): run its recipe again to make it anew"):
        tracked(made_by(reads, outputs=Nothing), Config(), runtime, numbers=again)
    again = tracked(double, Config(), runtime).numbers
    tracked(made_by(reads, outputs=Nothing), Config(), runtime, numbers=again)
    assert [state for _, state in states(log)[2:]] == ["cached", "failed", "ran", "ran"]
    assert path.read_bytes() == whole


def test_a_flipped_bit_in_a_folder_is_found_before_it_is_used(runtime: Runtime, log: RunLog) -> None:
    _, total = twice(runtime)
    path = runtime.lake.path(total) / "sum.txt"
    path.write_text("7")

    def reads(config: Config, runtime: Runtime, total: FolderRef) -> Produced:
        raise AssertionError("not reached")

    with pytest.raises(StageError, match="isn't what was written"):
        tracked(made_by(reads, outputs=Nothing), Config(), runtime, total=total)
    again = twice(runtime)[1]
    assert [state for _, state in states(log)[2:]] == ["failed", "cached", "ran"]
    assert (again.data_version, path.read_text()) == (total.data_version, "6")


class Bomb:
    """What writes a file when it is unpickled."""

    def __init__(self, path: Path):
        self.path = path

    def __reduce__(self) -> Any:
        return Path.write_text, (self.path, "")


@pytest.mark.parametrize("cached", [True, False])
@pytest.mark.parametrize("kind", ["pickle", "compressed", "json with a class", "bare"])
def test_no_result_that_lies_in_a_lake_is_decoded(
    runtime: Runtime, log: RunLog, tmp_path: Path, kind: str, cached: bool
) -> None:
    import cloudpickle
    from prefect.filesystems import LocalFileSystem
    from prefect.results import ResultStore
    from prefect.serializers import CompressedPickleSerializer, JSONSerializer, PickleSerializer

    numbers: Any = tracked(double, Config(), runtime).numbers
    exploded, results = tmp_path / "exploded", runtime.lake_root / "results"
    (stored,) = [path for path in results.iterdir() if path.is_file()]
    serializer: Any = {"pickle": PickleSerializer(), "compressed": CompressedPickleSerializer()}.get(kind)
    if serializer is not None:
        store = ResultStore(result_storage=LocalFileSystem(basepath=str(results)), serializer=serializer)
        store.write(Bomb(exploded), key=stored.name)
    elif kind == "bare":
        stored.write_bytes(cloudpickle.dumps(Bomb(exploded)))
    else:
        store = ResultStore(
            result_storage=LocalFileSystem(basepath=str(results)),
            serializer=JSONSerializer(object_decoder="prefect.utilities.importtools.load_module"),
        )
        store.write({"module": "antigravity"}, key=stored.name)
    if not cached:
        (runtime.lake_root / "records" / f"{numbers.fingerprint}.json").unlink()
    again: Any = tracked(double, Config(), runtime).numbers
    assert again.data_version == numbers.data_version
    assert [state for _, state in states(log)] == ["ran", "cached" if cached else "ran"]
    assert not exploded.exists()
    assert json.loads(stored.read_bytes())["metadata"]["serializer"]["type"] == "json"
    assert "antigravity" not in sys.modules


# Outputs -------------------------------------------------------------------------------------------------------------


class Both(NamedTuple):
    """A table that a config may not ask for, and a model."""

    numbers: Table
    model: Folder


@stage(Both, version="1", absent=lambda config: {} if config.factor else {"numbers": "`factor` is 0"})
def learn(config: Config, runtime: Runtime) -> Produced:
    """Writes numbers and what it learnt from them."""
    runtime.folder.mkdir(parents=True, exist_ok=True)
    (runtime.folder / "weights").write_text(str(config.factor))
    produced = double.fn(config, runtime) if config.factor else Produced()
    produced.folders = {"learn": runtime.folder}
    return produced


def test_outputs_have_the_names_that_their_stage_gives_them_and_a_model_its_own(runtime: Runtime, log: RunLog) -> None:
    made: Any = tracked(learn, Config(), runtime)
    assert {"learn": made.model, "numbers": made.numbers} == log.reports[0].outputs
    none: Any = tracked(learn, Config(factor=0), runtime)
    assert none.numbers == Missing("`factor` is 0")
    assert {"learn": none.model} == log.reports[1].outputs


def test_of_a_stage_that_isnt_run_data_passes_the_reason_on_and_a_model_names_it() -> None:
    assert learn.skipped("no source") == Both(Missing("no source"), Missing("it needs learn"))


# Tried again --------------------------------------------------------------------------------------------------------


def tries(runtime: Runtime, errors: list[Exception], monkeypatch: pytest.MonkeyPatch, unwatched: bool = True) -> int:
    """How often a stage is begun that raises these errors, one after the other, before it ends well."""
    from tasks import tracked as module

    monkeypatch.setattr(module, "_unwatched", lambda: unwatched)
    monkeypatch.setattr(module, "FIRST_S", 0.01)
    begun = 0

    def shaky(config: Config, runtime: Runtime, rows: int = 3) -> Produced:
        nonlocal begun
        begun += 1
        if errors:
            raise errors.pop(0)
        return double.fn(config, runtime, rows)

    with contextlib.suppress(StageError):
        tracked(made_by(shaky, "double"), Config(), runtime)
    return begun


def test_a_stage_that_nobody_watches_is_begun_again_where_that_may_help(
    runtime: Runtime, log: RunLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert tries(runtime, [OSError("no space"), ConnectionError("reset")], monkeypatch) == 3
    assert states(log) == [("double", "ran")]


@pytest.mark.parametrize("error", [UserError("no such file"), AssertionError("sums"), TypeError("ours")])
def test_what_is_written_wrong_is_not_tried_again(
    error: Exception, runtime: Runtime, log: RunLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert tries(runtime, [error], monkeypatch) == 1
    assert states(log) == [("double", "failed")]


def test_a_stage_that_goes_on_failing_ends_and_one_that_is_watched_at_once(
    runtime: Runtime, log: RunLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert tries(runtime, [OSError("gone")] * 9, monkeypatch) == 3
    assert tries(runtime, [OSError("gone")] * 9, monkeypatch, unwatched=False) == 1
    assert states(log) == [("double", "failed")] * 2
