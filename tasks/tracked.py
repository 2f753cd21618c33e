"""Running a stage tracked: one Prefect task around its function, with lease, cache, commit, record and the UI's pages.

Caching is Prefect's own, keyed by the stage's fingerprint, so the UI shows `Cached`.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Mapping
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tasks.apart  # noqa: F401

# isort: split
from prefect import task
from prefect.cache_policies import CachePolicy
from prefect.context import FlowRunContext, TaskRunContext
from prefect.filesystems import LocalFileSystem
from prefect.results import ResultStore
from prefect.serializers import JSONSerializer
from prefect.tasks import exponential_backoff
from pydantic import TypeAdapter

from datalake.identity import fingerprint
from datalake.lake.lake import FolderRef, TableRef
from datalake.lake.records import StageRecord, StageReport, now, read_record, write_record
from datalake.places import home
from datalake.secrets import masked, scrub
from tasks.cluster.connect import ClusterError, disconnect
from tasks.log import RunLog
from tasks.record import commit
from tasks.runtime import Runtime
from tasks.shown import artifacts, events
from tasks.stage import C, O, Stage, refs_of

_OUTPUTS = TypeAdapter(dict[str, TableRef | FolderRef])


RETRIES, FIRST_S = 2, 30.0  # of a stage that nobody watches: how often, and about how long the first is waited for
# A UserError is a ValueError.
_WRONG = (ValueError, TypeError, LookupError, AttributeError, NameError, ArithmeticError, AssertionError)

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


def tracked(stage: Stage[C, Any, O], config: C, runtime: Runtime, **inputs: Any) -> O:
    """Run a stage as a Prefect task, or take it from the cache; returns its outputs.

    Raises:
        StageError: when the function fails.
    """
    payload = stage.payload(config, inputs)
    print_of_payload = fingerprint(payload)
    runtime = Runtime(runtime.config, runtime.lake_root, runtime.corpus, runtime.run, stage.key, print_of_payload)
    log = RUN_LOG.get() or RunLog(runtime.run)
    start = time.perf_counter()
    waiting = f"{stage.name}: another run is building this; waiting for it"
    with (
        events.within(run=log.run, corpus=runtime.corpus, stage=stage.name),
        artifacts.of_corpus(runtime.corpus),
        runtime.lake.lease(print_of_payload, lambda: artifacts.say(waiting)),
    ):
        built = stage.built(runtime.lake, print_of_payload)
        results = home(runtime.lake.root) / "results"  # what the records say, in Prefect's words
        _keep_result(results, print_of_payload, built)
        ran, failed = False, list[Exception]()

        def body() -> dict[str, Any]:
            nonlocal ran
            ran = True
            try:
                done = _build(stage, payload, config, runtime, inputs)
            except Exception as error:
                scrub(error)  # Prefect keeps it, in its logs and its states
                failed.append(error)
                raise
            return _OUTPUTS.dump_python(done.outputs, mode="json")

        run = task(
            name=stage.name,
            task_run_name=f"{stage.name} {runtime.corpus}",
            tags=["headwater"],
            cache_policy=ByFingerprint(value=print_of_payload),
            persist_result=True,
            result_storage=results,
            result_serializer="json",
            refresh_cache=built is None,
            retries=RETRIES if _unwatched() else 0,
            retry_delay_seconds=exponential_backoff(backoff_factor=FIRST_S),
            retry_jitter_factor=1.0,  # runs that one fault has stopped don't all come back at once
            retry_condition_fn=lambda *_: bool(failed) and _may_mend(failed[-1]),
        )(body)
        upstream = [log.states[ref.fingerprint] for ref in refs_of(inputs) if ref.fingerprint in log.states]
        state = run(return_state=True, wait_for=list({id(s): s for s in upstream}.values()))
        seconds = time.perf_counter() - start
        if not state.is_completed():
            report = StageReport(stage=stage.name, state="failed", seconds=seconds, fingerprint=print_of_payload)
            _tell(report)
            log.add(report)
            error = state.result(raise_on_failure=False)
            raise StageError(f"{stage.name} failed: {_first_line(error)}") from (
                error if isinstance(error, BaseException) else None
            )
        record = read_record(runtime.lake, print_of_payload)
        assert record is not None, "a finished stage has a record"
        if not ran:
            artifacts.link_record(runtime.lake, record)
        report = record.reported("ran" if ran else "cached", seconds)
        _tell(report)
    log.states[print_of_payload] = state
    log.add(report)
    return stage.typed(config, record.outputs.__getitem__)


def _unwatched() -> bool:
    """Whether a deployment began this run: nobody sits before it who would begin it again."""
    context = FlowRunContext.get()
    return bool(context and context.flow_run and context.flow_run.deployment_id)


def _may_mend(error: Exception) -> bool:
    """Whether a stage that failed so may end well if it is begun again: the store, the network, the database or Ray was
    in the way, and not what a person, or we, have written. A local Ray that has ended is started anew."""
    if isinstance(error, _WRONG):
        return False
    if isinstance(error, ClusterError):
        disconnect()
    return True


def _build(
    stage: Stage[C, Any, O], payload: dict[str, Any], config: C, runtime: Runtime, inputs: Mapping[str, Any]
) -> StageRecord:
    """Run the function, check its equations, commit what it produced and record it."""
    started, start = now(), time.perf_counter()
    for ref in refs_of(inputs):
        if isinstance(ref, FolderRef):  # files of tables are looked at by whoever reads them
            runtime.lake.verify(ref)
    produced = stage.fn(config, runtime, **inputs)
    record = commit(stage, payload, inputs, produced, runtime, started, start)
    flow_run, task_run = FlowRunContext.get(), TaskRunContext.get()
    record.flow_run = str(flow_run.flow_run.id) if flow_run and flow_run.flow_run else None
    record.task_run = str(task_run.task_run.id) if task_run else None
    artifacts.publish(runtime.lake, record, produced.funnel, produced.metrics, produced.evaluations, produced.pages)
    write_record(runtime.lake, record)
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


def _tell(report: StageReport) -> None:
    """Tell the stage's end as an event."""
    level = {"failed": "error", "partial": "warning"}.get(report.state, "info")
    known = report.model_dump(mode="json", include={"state", "records_in", "records_out", "fingerprint", "note"})
    events.tell("stage", level, seconds=round(report.seconds, 3), **known)


def _first_line(error: Any) -> str:
    text = str(error).strip()
    return masked(f"{type(error).__name__}: {text.splitlines()[0] if text else 'no message'}")
