"""What the Prefect UI and the terminal show: progress while shards flow, funnel, curves, evaluations, records.

Everything here is for people: a failure to show something is logged and never fails a stage.
"""

from __future__ import annotations

import re
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

from prefect.artifacts import (
    create_markdown_artifact,
    create_progress_artifact,
    create_table_artifact,
    update_progress_artifact,
)
from prefect.context import FlowRunContext, TaskRunContext
from prefect.logging import get_logger, get_run_logger

from datalake.lake import FolderRef, Lake
from datalake.printable import one_line, write
from datalake.records import StageRecord, record_path
from tasks.curves import curves, svg_image
from tasks.pulse import pulse

if TYPE_CHECKING:
    from datalake.shards import ShardResult

logger = get_logger("headwater")


def _in_run() -> bool:
    return FlowRunContext.get() is not None or TaskRunContext.get() is not None


def _show(action: Callable[[], Any]) -> Any:
    """Do something for the UI; outside a run nothing, and a failure is a warning."""
    if not _in_run():
        return None
    try:
        return action()
    except Exception as error:
        logger.warning("not shown in the UI: %s", error)
        return None


def say(text: str) -> None:
    """Tell something that happens during a run: on the terminal and in the run's log."""
    write(f"  {one_line(text)}", sys.stderr)
    _show(lambda: get_run_logger().info(text))


class Progress:
    """Progress of one stage: a bar in the terminal and one progress artifact, at most one update a second."""

    def __init__(self, title: str, total: int, unit: str = "shards"):
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
        from rich.progress import Progress as Bar

        self.total, self.done, self._last, self._told = total, 0, 0.0, -1
        self.note, self._began = "", time.monotonic()
        self.look: Callable[[], tuple[int, str]] | None = None  # how far the work is, where that must be looked up
        console = Console(stderr=True)
        self._bar = Bar(
            TextColumn("{task.description:<14}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn(unit),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[note]}", markup=False),
            console=console,
            transient=True,
            disable=sys.stderr is None or not sys.stderr.isatty(),
        )
        self._task = self._bar.add_task(title, total=total, note="")
        self._title = title
        key = re.sub(r"[^a-z0-9]+", "-", title.lower()) + "-progress"  # what Prefect takes for a key
        self._artifact = _show(
            lambda: create_progress_artifact(progress=0.0, key=key, description=f"{title}: 0 of {total} {unit}")
        )
        self._unit = unit

    def __call__(self, result: ShardResult) -> None:
        """Count one finished shard."""
        self.at(self.done + 1, note=result.error)

    def at(self, done: int, note: str = "") -> None:
        """Say how far the work is, in shards or steps."""
        self.done, self.note = done, one_line(note)
        self._bar.update(self._task, completed=done, note=self.note)
        if time.monotonic() - self._last >= 1.0 or done >= self.total:
            self._tell(note)

    def status(self) -> str:
        """How far the work is, in one line."""
        done, note = self.look() if self.look else (self.done, self.note)
        seconds = time.monotonic() - self._began
        return f"{self._title}: {done:,} of {self.total:,} {self._unit}, {seconds:.0f} s {note}".rstrip()

    def _tell(self, note: str = "") -> None:
        if self._told == self.done:
            return
        self._last, self._told = time.monotonic(), self.done
        if self._artifact is not None:
            share = 100.0 * self.done / max(self.total, 1)
            text = f"{self._title}: {self.done} of {self.total} {self._unit} {note}".strip()
            _show(lambda: update_progress_artifact(self._artifact, progress=min(share, 100.0), description=text))


@contextmanager
def progress(title: str, total: int, unit: str = "shards") -> Iterator[Progress]:
    """Show the progress of a piece of work with a known number of shards or steps."""
    shown = Progress(title, total, unit)
    with shown._bar, pulse(shown.status):
        yield shown
    shown._tell()


def _key(stage: str, what: str) -> str:
    return f"{stage.replace('_', '-')}-{what}"


def record_markdown(lake: Lake, record: StageRecord) -> str:
    """A record for people: what went in, what came out, and where the record lies."""
    lines = [
        f"**{record.stage}** of `{record.corpus}`: {record.state}, {record.seconds:.1f} s,"
        f" {record.records_in:,} records in, {record.records_out:,} out.",
        "",
        f"Record: [{record_path(record.fingerprint)}](file://{lake.root / record_path(record.fingerprint)})"
        f" (fingerprint `{record.fingerprint[:16]}`, version {record.version},"
        f" commit `{(record.git_commit or 'none')[:12]}`{' with changes' if record.git_dirty else ''})",
        "",
        "| | name | rows | data version | fingerprint |",
        "| --- | --- | ---: | --- | --- |",
    ]
    refs = [("in", ref) for refs in record.inputs.values() for ref in refs]
    refs += [("out", ref) for ref in record.outputs.values()]
    for way, ref in refs:
        name, rows = (ref.name, "") if isinstance(ref, FolderRef) else (ref.table, f"{ref.rows:,}")
        lines.append(f"| {way} | {name} | {rows} | `{ref.data_version[:12]}` | `{ref.fingerprint[:12]}` |")
    return "\n".join(lines)


def link_record(lake: Lake, record: StageRecord) -> None:
    """Link a run's stage to its record."""
    _show(lambda: create_markdown_artifact(record_markdown(lake, record), key=_key(record.stage, "record")))


def publish(
    lake: Lake,
    record: StageRecord,
    funnel: Sequence[dict[str, Any]],
    metrics: Sequence[dict[str, Any]],
    evaluations: Sequence[dict[str, Any]],
    pages: Mapping[str, Callable[[], str]],
) -> None:
    """Show a finished stage in the UI: its record, funnel, curves, evaluation table and pages, whichever it has."""
    link_record(lake, record)
    if funnel:
        _show(
            lambda: create_table_artifact(
                list(funnel), key=_key(record.stage, "funnel"), description="What became of the records"
            )
        )
    drawn = curves(metrics)
    if drawn:
        text = "\n\n".join(f"### {title}\n\n{svg_image(svg, title)}" for title, svg in drawn)
        _show(lambda: create_markdown_artifact(text, key=_key(record.stage, "curves")))
    if evaluations:
        _show(
            lambda: create_table_artifact(
                [
                    {
                        "model": row["checkpoint"],
                        "task": row["task"],
                        "metric": row["metric"],
                        "value": round(row["value"], 4),
                        "interval": f"{row['low']:.3f} to {row['high']:.3f}",
                        "n": row["n"],
                    }
                    for row in evaluations
                ],
                key=_key(record.stage, "table"),
                description="Evaluation, with 95% intervals",
            )
        )
    for name, page in pages.items():
        _show(partial(_publish_page, _key(record.stage, name), page))


def _publish_page(key: str, write: Callable[[], str]) -> None:
    create_markdown_artifact(write(), key=key)
