"""Making what a stage produced the lake's: its sums checked, its tables committed, its record built."""

from __future__ import annotations

import importlib.metadata
import json
import subprocess
import time
from collections.abc import Mapping
from datetime import datetime
from functools import cache
from pathlib import Path
from typing import Any

from datalake.identity import plain
from datalake.lake.lake import Ref
from datalake.lake.records import (
    CHECKPOINTS,
    EVALUATIONS,
    LEFT_OUT,
    METRICS,
    StageRecord,
    lineage,
    now,
    record_path,
)
from datalake.secrets import masked
from tasks.produced import Produced
from tasks.runtime import Runtime
from tasks.stage import Stage, refs_of


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


def check(stage: str, produced: Produced) -> None:
    """Make sure that no record is lost: each equation's sides are equal. Raises AssertionError where they aren't."""
    for name, left, right in produced.equations:
        if left != right:
            raise AssertionError(f"{stage}: records don't add up: {name} ({left} against {right})")


def commit(produced: Produced, runtime: Runtime) -> dict[str, Ref]:
    """Make tables and folders the lake's; their references by name."""
    outputs: dict[str, Ref] = {}
    for name, (schema, files) in produced.tables.items():
        outputs[name] = runtime.lake.commit(f"{runtime.corpus}.{name}", schema, files, runtime.fingerprint)
    for name, folder in produced.folders.items():
        outputs[name] = runtime.lake.commit_folder(name, folder, runtime.fingerprint, produced.named.get(name, ()))
    return outputs


def record_of(
    stage: Stage[Any, Any, Any],
    payload: Mapping[str, Any],
    inputs: Mapping[str, Any],
    produced: Produced,
    outputs: dict[str, Ref],
    runtime: Runtime,
    started: tuple[datetime, float],
    flow_run: str | None,
    task_run: str | None,
) -> StageRecord:
    """What went in, what shaped it, what came out. `started`: when, by the calendar and by `time.perf_counter`."""
    git_commit, dirty = git_state()
    return StageRecord(
        stage=stage.name,
        version=stage.version,
        corpus=runtime.corpus,
        fingerprint=runtime.fingerprint,
        state="partial" if produced.unfinished else "done",
        payload=masked(json.loads(json.dumps(plain(payload)))),  # the fingerprint is that of what is meant
        inputs={name: refs for name, value in inputs.items() if (refs := refs_of(value))},
        outputs=outputs,
        counts=produced.counts,
        report=masked(produced.report),
        unfinished=masked(produced.unfinished),
        note=masked(produced.note),
        records_in=produced.records_in,
        records_out=produced.records_out,
        started=started[0],
        seconds=time.perf_counter() - started[1],
        git_commit=git_commit,
        git_dirty=dirty,
        versions={name: importlib.metadata.version(name) for name in ("prefect", "ray", *stage.libraries)},
        run=runtime.run,
        flow_run=flow_run,
        task_run=task_run,
    )


def append_rows(record: StageRecord, produced: Produced, runtime: Runtime) -> None:
    """Add a stage's metrics, evaluations, what it left out and its checkpoint to the tables of all runs, once."""
    lake, shared = runtime.lake, {"fingerprint": record.fingerprint, "stage": record.stage}
    for table, schema, rows in (
        ("runs.metrics", METRICS, produced.metrics),
        ("runs.evaluations", EVALUATIONS, produced.evaluations),
        ("runs.left_out", LEFT_OUT, produced.left_out),
    ):
        lake.append_rows(table, schema, [shared | row for row in rows], record.fingerprint, once=True)
    if produced.checkpoint:
        row = shared | {
            "path": lake.relative(produced.folders[produced.checkpoint]),
            "corpus": record.corpus,
            "record": record_path(record.fingerprint),
            "ancestors": list(lineage(lake, record))[1:],
            "created": now(),
        }
        lake.append_rows("models.checkpoints", CHECKPOINTS, [row], record.fingerprint, once=True)
