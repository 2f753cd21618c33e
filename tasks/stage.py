"""A stage: a plain function, wrapped once with identity, cache, lease, commit, record and what the UI shows.

    @stage(version="1", libraries=("pyarrow",))
    def curate(raw: TableRef, config: CurateConfig, runtime: Runtime) -> Produced: ...

    outputs = curate(raw=ref, config=config, runtime=runtime)      # inside a Prefect flow

The function gets references, a config and a `Runtime`, and returns which files it produced; the wrapper makes them the
lake's. Identity is sha256 over stage, version, libraries, config and the data versions of the inputs, never over
where or how fast. Caching is Prefect's own, keyed by that fingerprint, so the UI shows `Cached`.
"""

from __future__ import annotations

import importlib.metadata
import json
import platform
import shutil
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field
from functools import cache, update_wrapper
from pathlib import Path
from typing import Any

import tasks.apart  # noqa: F401

# isort: split
import pyarrow as pa
from prefect import task
from prefect.cache_policies import CachePolicy
from prefect.context import FlowRunContext, TaskRunContext
from prefect.filesystems import LocalFileSystem
from prefect.results import ResultStore
from prefect.serializers import JSONSerializer
from prefect.states import State
from pydantic import BaseModel, TypeAdapter

from datalake.identity import fingerprint
from datalake.lake.lake import FolderRef, Lake, Ref, TableRef
from datalake.lake.records import (
    CHECKPOINTS,
    EVALUATIONS,
    LEFT_OUT,
    METRICS,
    StageRecord,
    StageReport,
    lineage,
    now,
    read_record,
    record_path,
    write_record,
)
from datalake.lake.shards import ShardFile
from datalake.secrets import masked, scrub
from tasks.runtime import Runtime, StageKey
from tasks.shown import artifacts

_OUTPUTS = TypeAdapter(dict[str, TableRef | FolderRef])


@dataclass
class Produced:
    """What a stage function produced: files for tables, folders, and what it has to say.

    `tables` maps a short name (`raw`) to its schema and files; `folders` a name to a finished folder, and `named` that
    name to the files of shards that the folder speaks of. `unfinished`
    names shards that failed: the stage is then `partial`. `equations` are sums that must be equal, checked before
    the commit. `left_out` are rows of `runs.left_out`: what the stage was given and couldn't use, and why. `note` is
    one line that a person should read. `pages` are texts for the UI in markdown, by name: written only where there is a
    UI, after the commit.
    """

    tables: dict[str, tuple[pa.Schema, list[ShardFile]]] = field(default_factory=dict)
    folders: dict[str, Path] = field(default_factory=dict)
    named: dict[str, list[ShardFile]] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)
    records_in: int = 0
    records_out: int = 0
    equations: list[tuple[str, int, int]] = field(default_factory=list)
    unfinished: dict[str, str] = field(default_factory=dict)
    report: dict[str, Any] = field(default_factory=dict)
    funnel: list[dict[str, Any]] = field(default_factory=list)
    metrics: list[dict[str, Any]] = field(default_factory=list)
    evaluations: list[dict[str, Any]] = field(default_factory=list)
    left_out: list[dict[str, Any]] = field(default_factory=list)
    note: str = ""
    checkpoint: str | None = None
    pages: dict[str, Callable[[], str]] = field(default_factory=dict)


Outputs = dict[str, Ref]


@dataclass
class RunLog:
    """What one run has done so far: a report per stage, and Prefect's states, so that the UI draws the graph."""

    run: str
    reports: list[StageReport] = field(default_factory=list)
    states: dict[str, State[Any]] = field(default_factory=dict)
    on_report: Callable[[StageReport], None] | None = None

    def add(self, report: StageReport) -> None:
        """Append a report and tell whoever listens."""
        self.reports.append(report)
        if self.on_report:
            self.on_report(report)


RUN_LOG: ContextVar[RunLog | None] = ContextVar("run_log", default=None)


class StageError(RuntimeError):
    """A stage failed; the message names it and its cause."""


@dataclass
class ByFingerprint(CachePolicy):
    """Prefect's cache key is the stage's fingerprint, computed before the task is called."""

    value: str = ""

    def compute_key(self, *_: Any, **__: Any) -> str:
        """The fingerprint."""
        return self.value


@cache
def library_versions(names: tuple[str, ...]) -> dict[str, str]:
    """Versions of the libraries that shape an output, Python's own included."""
    versions = {name: importlib.metadata.version(name).split("+")[0] for name in names}
    return {"python": ".".join(platform.python_version_tuple()[:2]), **versions}


@cache
def git_state() -> tuple[str | None, bool | None]:
    """Commit and dirty flag of Headwater's own working tree; None outside one."""
    folder = Path(__file__).parent

    def git(*arguments: str) -> str:
        return subprocess.run(
            ["git", "-C", str(folder), *arguments], capture_output=True, text=True, check=True, timeout=10
        ).stdout.strip()

    try:
        return git("rev-parse", "HEAD"), bool(git("status", "--porcelain", "--untracked-files=no"))
    except (OSError, subprocess.SubprocessError):
        return None, None


def _identity_of(value: Any) -> Any:
    """What of an input enters the fingerprint: content, never place or time."""
    if isinstance(value, TableRef | FolderRef):
        return value.data_version
    if isinstance(value, Mapping):
        return {name: _identity_of(item) for name, item in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str | bytes):
        return [_identity_of(item) for item in value]
    if hasattr(value, "identity"):
        return value.identity
    return value


def _refs_of(value: Any) -> list[Ref]:
    """All references inside an input."""
    if isinstance(value, TableRef | FolderRef):
        return [value]
    if isinstance(value, Mapping):
        value = list(value.values())
    if isinstance(value, Sequence) and not isinstance(value, str | bytes):
        return [ref for item in value for ref in _refs_of(item)]
    return []


@dataclass
class Stage:
    """A wrapped stage function. `fn` is the function itself, for tests and notebooks."""

    fn: Callable[..., Produced]
    name: str
    version: str
    libraries: tuple[str, ...]
    columns: Callable[[], Any] | None = None

    def payload(self, config: BaseModel, inputs: Mapping[str, Any]) -> dict[str, Any]:
        """Everything that shapes the output: what the fingerprint is computed from."""
        return {
            "stage": self.name,
            "version": self.version,
            "libraries": library_versions(self.libraries),
            "config": config,
            "inputs": {name: _identity_of(value) for name, value in inputs.items()},
            **({} if self.columns is None else {"columns": self.columns()}),
        }

    def __call__(self, *, config: BaseModel, runtime: Runtime, **inputs: Any) -> Outputs:
        """Run the stage as a Prefect task, or take it from the cache; returns its references by name.

        Raises:
            StageError: when the function fails.
        """
        payload = self.payload(config, inputs)
        print_of_payload = fingerprint(payload)
        runtime = Runtime(
            runtime.config,
            runtime.lake_root,
            runtime.corpus,
            runtime.run,
            StageKey(self.name, self.version, library_versions(self.libraries)),
            print_of_payload,
        )
        log = RUN_LOG.get() or RunLog(runtime.run)
        start = time.perf_counter()
        waiting = f"{self.name}: another run is building this; waiting for it"
        with (
            artifacts.of_corpus(runtime.corpus),
            runtime.lake.lease(print_of_payload, lambda: artifacts.say(waiting)),
        ):
            record = read_record(runtime.lake, print_of_payload)
            whole = record is not None and record.state == "done" and _all_present(runtime.lake, record)
            results = runtime.lake.root / "results"
            _keep_result(results, print_of_payload, record if whole else None)
            ran = False

            def body() -> dict[str, Any]:
                nonlocal ran
                ran = True
                try:
                    done = self._build(payload, config, runtime, inputs)
                except Exception as error:
                    scrub(error)  # Prefect keeps it, in its logs and its states
                    raise
                return _OUTPUTS.dump_python(done.outputs, mode="json")

            run = task(
                name=self.name,
                task_run_name=f"{self.name} {runtime.corpus}",
                tags=["headwater"],
                cache_policy=ByFingerprint(value=print_of_payload),
                persist_result=True,
                result_storage=results,
                result_serializer="json",
                refresh_cache=not whole,
            )(body)
            upstream = [log.states[ref.fingerprint] for ref in _refs_of(inputs) if ref.fingerprint in log.states]
            state = run(return_state=True, wait_for=list({id(s): s for s in upstream}.values()))
            seconds = time.perf_counter() - start
            if not state.is_completed():
                log.add(StageReport(stage=self.name, state="failed", seconds=seconds, fingerprint=print_of_payload))
                error = state.result(raise_on_failure=False)
                raise StageError(f"{self.name} failed: {_first_line(error)}") from (
                    error if isinstance(error, BaseException) else None
                )
            record = read_record(runtime.lake, print_of_payload)
            assert record is not None, "a finished stage has a record"
            if not ran:
                artifacts.link_record(runtime.lake, record)
        log.states[print_of_payload] = state
        partial = record.state == "partial"
        missing = _unfinished(record) if partial else ""
        log.add(
            StageReport(
                stage=self.name,
                state="partial" if partial else "ran" if ran else "cached",
                seconds=seconds,
                records_in=record.records_in,
                records_out=record.records_out,
                fingerprint=print_of_payload,
                outputs=record.outputs,
                note="; ".join(filter(None, (missing, *record.report.get("warnings", ()), record.note))),
            )
        )
        return dict(record.outputs)

    def _build(
        self, payload: dict[str, Any], config: BaseModel, runtime: Runtime, inputs: Mapping[str, Any]
    ) -> StageRecord:
        """Run the function, check its equations, commit what it produced and record it."""
        from datalake.identity import plain

        lake, started, start = runtime.lake, now(), time.perf_counter()
        for ref in _refs_of(inputs):
            if isinstance(ref, FolderRef):  # files of tables are looked at by whoever reads them
                lake.verify(ref)
        produced = self.fn(config=config, runtime=runtime, **inputs)
        for name, left, right in produced.equations:
            if left != right:
                raise AssertionError(f"{self.name}: records don't add up: {name} ({left} against {right})")
        outputs: Outputs = {}
        for name, (schema, files) in produced.tables.items():
            outputs[name] = lake.commit(f"{runtime.corpus}.{name}", schema, files, runtime.fingerprint)
        for name, folder in produced.folders.items():
            outputs[name] = lake.commit_folder(name, folder, runtime.fingerprint, produced.named.get(name, ()))
        commit, dirty = git_state()
        flow_context, task_context = FlowRunContext.get(), TaskRunContext.get()
        record = StageRecord(
            stage=self.name,
            version=self.version,
            corpus=runtime.corpus,
            fingerprint=runtime.fingerprint,
            state="partial" if produced.unfinished else "done",
            payload=masked(json.loads(json.dumps(plain(payload)))),  # the fingerprint is that of what is meant
            inputs={name: _refs_of(value) for name, value in inputs.items() if _refs_of(value)},
            outputs=outputs,
            counts=produced.counts,
            report=masked(produced.report),
            unfinished=masked(produced.unfinished),
            note=masked(produced.note),
            records_in=produced.records_in,
            records_out=produced.records_out,
            started=started,
            seconds=time.perf_counter() - start,
            git_commit=commit,
            git_dirty=dirty,
            versions={name: importlib.metadata.version(name) for name in ("prefect", "ray", *self.libraries)},
            run=runtime.run,
            flow_run=str(flow_context.flow_run.id) if flow_context and flow_context.flow_run else None,
            task_run=str(task_context.task_run.id) if task_context else None,
        )
        for table, schema, rows in (
            ("runs.metrics", METRICS, produced.metrics),
            ("runs.evaluations", EVALUATIONS, produced.evaluations),
            ("runs.left_out", LEFT_OUT, produced.left_out),
        ):
            shared = {"fingerprint": runtime.fingerprint, "stage": self.name}
            lake.append_rows(table, schema, [shared | row for row in rows], runtime.fingerprint, once=True)
        if produced.checkpoint:
            lake.append_rows(
                "models.checkpoints",
                CHECKPOINTS,
                [
                    {
                        "fingerprint": runtime.fingerprint,
                        "stage": self.name,
                        "path": lake.relative(produced.folders[produced.checkpoint]),
                        "corpus": runtime.corpus,
                        "record": record_path(runtime.fingerprint),
                        "ancestors": list(lineage(lake, record))[1:],
                        "created": now(),
                    }
                ],
                runtime.fingerprint,
                once=True,
            )
        artifacts.publish(lake, record, produced.funnel, produced.metrics, produced.evaluations, produced.pages)
        write_record(lake, record)
        return record


def _keep_result(folder: Path, key: str, record: StageRecord | None) -> None:
    """Write the result that Prefect takes for a cached stage, from its record; without one there is none.

    Prefect decodes a stored result the way the file itself asks for, and unpickles it, or calls classes, where it says
    so. Files of a lake may come from anywhere, so none is read that wasn't written by this process.
    """
    path = folder / key
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    path.unlink(missing_ok=True)
    if record is not None:
        store = ResultStore(result_storage=LocalFileSystem(basepath=str(folder)), serializer=JSONSerializer())
        store.write(_OUTPUTS.dump_python(record.outputs, mode="json"), key=key)


def _all_present(lake: Lake, record: StageRecord) -> bool:
    return all(lake.present(ref) for ref in record.outputs.values())


def _unfinished(record: StageRecord) -> str:
    """How many shards failed, the first one's reason, and what to do."""
    count = len(record.unfinished)
    name, reason = next(iter(record.unfinished.items()))
    shards = "1 shard" if count == 1 else f"{count} shards"
    return f"{shards} unfinished ({name}: {reason}); run again to do just {'this one' if count == 1 else 'these'}"


def _first_line(error: Any) -> str:
    text = str(error).strip()
    return masked(f"{type(error).__name__}: {text.splitlines()[0] if text else 'no message'}")


def stage(
    version: str,
    libraries: Sequence[str] = (),
    name: str | None = None,
    columns: Callable[[], Any] | None = None,
) -> Callable[..., Stage]:
    """Make a plain function `(inputs..., config, runtime) -> Produced` a tracked stage.

    Args:
        version: raise it whenever the code gives another output for the same input; part of the identity.
        libraries: distributions whose version shapes the output; part of the identity.
        name: the stage's name, the function's unless given.
        columns: tells which columns it writes, where those can be added to; part of the identity.
    """

    def wrap(fn: Callable[..., Produced]) -> Stage:
        wrapped = Stage(fn, name or fn.__name__, version, tuple(libraries), columns)
        update_wrapper(wrapped, fn)
        return wrapped

    return wrap
