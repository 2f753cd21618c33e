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
from datalake.lake.lake import Lake, Ref
from datalake.lake.records import (
    CHECKPOINTS,
    EVALUATIONS,
    LEFT_OUT,
    METRICS,
    SAMPLES,
    SPIKES,
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


def commit(
    stage: Stage[Any, Any, Any],
    payload: Mapping[str, Any],
    inputs: Mapping[str, Any],
    produced: Produced,
    runtime: Runtime,
    started: datetime,
    start: float,
) -> StageRecord:
    """Check the sums, commit tables and folders, tell the tables of all runs; the record, which isn't written yet.

    `start` is the time at which the stage began, as `time.perf_counter` has it.

    Raises:
        AssertionError: where the sides of an equation differ, before anything is committed.
    """
    lake, key = runtime.lake, runtime.fingerprint
    for name, left, right in produced.equations:
        if left != right:
            raise AssertionError(f"{stage.name}: records don't add up: {name} ({left} against {right})")
    outputs: dict[str, Ref] = {}
    for name, (schema, files) in produced.tables.items():
        outputs[name] = lake.commit(f"{runtime.corpus}.{name}", schema, files, key)
    for name, folder in produced.folders.items():
        outputs[name] = lake.commit_folder(name, folder, key, produced.named.get(name, ()))
    git_commit, dirty = git_state()
    record = StageRecord(
        stage=stage.name,
        version=stage.version,
        corpus=runtime.corpus,
        fingerprint=key,
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
        started=started,
        seconds=time.perf_counter() - start,
        git_commit=git_commit,
        git_dirty=dirty,
        versions={name: importlib.metadata.version(name) for name in ("prefect", "ray", *stage.libraries)},
        run=runtime.run,
    )
    _append(record, produced, lake)
    return record


def _append(record: StageRecord, produced: Produced, lake: Lake) -> None:
    """Add what a stage tells of itself (metrics, evaluations, samples...) to the tables of all runs, once."""
    checkpoints = []
    if produced.checkpoint:
        checkpoints.append(
            {
                "path": lake.relative(produced.folders[produced.checkpoint]),
                "corpus": record.corpus,
                "record": record_path(record.fingerprint),
                "ancestors": list(lineage(lake, record))[1:],
                "created": now(),
            }
        )
    for table, schema, rows in (
        ("runs.metrics", METRICS, produced.metrics),
        ("runs.evaluations", EVALUATIONS, produced.evaluations),
        ("runs.left_out", LEFT_OUT, produced.left_out),
        ("runs.samples", SAMPLES, produced.samples),
        ("runs.spikes", SPIKES, [row | {"run": record.run} for row in produced.spikes]),
        ("models.checkpoints", CHECKPOINTS, checkpoints),
    ):
        shared = {"fingerprint": record.fingerprint, "stage": record.stage}
        lake.append_rows(table, schema, [shared | row for row in rows], record.fingerprint, once=True)
