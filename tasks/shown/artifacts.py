"""What the Prefect UI and the terminal show: progress while shards flow, funnel, curves, evaluations, records.

Everything here is for people: a failure to show something is logged and never fails a stage. Prefect is imported where
something is shown: in a run, which has it, so that stages can be looked at without.
"""

from __future__ import annotations

import logging
import math
import re
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from functools import partial
from typing import TYPE_CHECKING, Any

from datalake.lake.lake import FolderRef, Lake
from datalake.lake.records import StageRecord, read_record, record_path
from datalake.printable import one_line, write
from tasks.shown import events
from tasks.shown.curves import Drawn, curves, svg_image
from tasks.shown.pulse import pulse

if TYPE_CHECKING:
    from datalake.lake.shards import ShardResult

CORPUS: ContextVar[str] = ContextVar("corpus", default="")


def _in_run() -> bool:
    if "prefect" not in sys.modules:
        return False
    from prefect.context import FlowRunContext, TaskRunContext

    return FlowRunContext.get() is not None or TaskRunContext.get() is not None


def _show(action: Callable[[], Any]) -> Any:
    """Do something for the UI; outside a run nothing, and a failure is a warning."""
    if not _in_run():
        return None
    try:
        return action()
    except Exception as error:
        from prefect.logging import get_logger

        get_logger("headwater").warning("not shown in the UI: %s", error)
        return None


def show(action: Callable[[], object]) -> None:
    """Do something else for the UI or for automations: in a run alone, and never at the expense of it."""
    _show(action)


def say(text: str) -> None:
    """Tell something that happens during a run: on the terminal and in the run's log."""
    if not events.structured():
        write(f"  {one_line(text)}", sys.stderr)
    note(text)


def note(text: str, level: int = logging.INFO) -> None:
    """Write a line to the run's log alone."""

    events.tell("said", logging.getLevelName(level).lower(), message=text)

    def log() -> None:
        from prefect.logging import get_run_logger

        get_run_logger().log(level, text)

    _show(log)


def name_run(name: str) -> None:
    """Give the flow's run in progress a name; the one Prefect gave it says nothing."""
    from prefect.client.orchestration import get_client
    from prefect.context import FlowRunContext

    context = FlowRunContext.get()
    if context and context.flow_run:
        flow_run = context.flow_run
        _show(lambda: get_client(sync_client=True).update_flow_run(flow_run.id, name=name))


class Progress:
    """Progress of one stage: a bar in the terminal and one progress artifact, at most one update a second."""

    def __init__(self, title: str, total: int, unit: str = "shards"):
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
        from rich.progress import Progress as Bar

        self.total, self.done, self._last, self._told, self._unit = total, 0, 0.0, -1, unit
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
        self._artifact = _show(self._create)

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

    def _create(self) -> Any:
        from prefect.artifacts import create_progress_artifact

        text = f"{self._title}: 0 of {self.total} {self._unit}"
        return create_progress_artifact(progress=0.0, key=_key(self._title, "progress"), description=text)

    def _tell(self, note: str = "") -> None:
        if self._told == self.done:
            return
        self._last, self._told = time.monotonic(), self.done
        events.tell("progress", title=self._title, done=self.done, total=self.total, unit=self._unit, note=note)
        if self._artifact is not None:
            from prefect.artifacts import update_progress_artifact

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


def _key(*words: str) -> str:
    """An artifact's key of what Prefect takes for one; it begins with the corpus of the stage in progress."""
    return re.sub(r"[^a-z0-9]+", "-", " ".join(filter(None, (CORPUS.get(), *words))).lower()).strip("-")


class Curves:
    """The curves of a stage: one artifact, drawn anew while the stage trains and once more when it ends."""

    EVERY_S = 30.0

    def __init__(self, stage: str):
        self._stage, self._last, self._rows = stage, -math.inf, 0

    def at(self, metrics: Sequence[dict[str, Any]]) -> None:
        """Draw what there is, unless that was done just now or nothing is new."""
        if len(metrics) > self._rows and time.monotonic() - self._last >= self.EVERY_S:
            self._last, self._rows = time.monotonic(), len(metrics)
            self.draw(metrics)

    def draw(self, metrics: Sequence[dict[str, Any]]) -> None:
        """Draw the metric rows (step, name, value); nothing where none of them is a curve."""
        if metrics:
            _show(lambda: self._publish(curves(metrics)))

    def _publish(self, drawn: Sequence[Drawn]) -> None:
        if not drawn:
            return
        from prefect.artifacts import create_markdown_artifact
        from prefect.client.orchestration import get_client
        from prefect.client.schemas.actions import ArtifactUpdate
        from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterKey, ArtifactFilterTaskRunId
        from prefect.context import TaskRunContext

        key = _key(self._stage, "curves")
        text = "\n\n".join(f"### {title}\n\n{svg_image(svg, title)}" for title, svg, _ in drawn)
        client, context = get_client(sync_client=True), TaskRunContext.get()
        before = (
            client.read_artifacts(
                artifact_filter=ArtifactFilter(
                    key=ArtifactFilterKey(any_=[key]),
                    task_run_id=ArtifactFilterTaskRunId(any_=[context.task_run.id]),
                )
            )
            if context
            else []
        )
        if before:
            client.update_artifact(before[0].id, ArtifactUpdate(data=text))
        else:
            create_markdown_artifact(text, key=key)


@contextmanager
def of_corpus(corpus: str) -> Iterator[None]:
    """Artifacts made inside carry the corpus in their keys."""
    token = CORPUS.set(corpus)
    try:
        yield
    finally:
        CORPUS.reset(token)


def record_markdown(lake: Lake, record: StageRecord) -> str:
    """A record for people: what went in, what came out, where the record lies; links lead to the runs behind it."""
    lines = [
        f"**{record.stage}** of `{record.corpus}`: {record.state}, {record.seconds:.1f} s,"
        f" {record.records_in:,} records in, {record.records_out:,} out.",
        "",
        f"Built by {_link(record.run or 'a run', 'flow-run', record.flow_run)}"
        f" (fingerprint `{record.fingerprint[:16]}`, version {record.version},"
        f" commit `{(record.git_commit or 'none')[:12]}`{' with changes' if record.git_dirty else ''})."
        f" Record: `{lake.root / record_path(record.fingerprint)}`",
        "",
        "| | name | rows | data version | built by |",
        "| --- | --- | ---: | --- | --- |",
    ]
    refs = [("in", ref) for refs in record.inputs.values() for ref in refs]
    refs += [("out", ref) for ref in record.outputs.values()]
    for way, ref in refs:
        name, rows = (ref.name, "") if isinstance(ref, FolderRef) else (ref.table, f"{ref.rows:,}")
        maker = record if way == "out" else read_record(lake, ref.fingerprint)
        built = _link(f"{maker.stage} {ref.fingerprint[:12]}", "task-run", maker.task_run) if maker else "unknown"
        lines.append(f"| {way} | {name} | {rows} | `{ref.data_version[:12]}` | {built} |")
    return "\n".join(lines)


def _link(text: str, kind: str, id: str | None) -> str:
    """A link to a run's page in the UI that shows it: pages of artifacts lie as deep as those of runs in both UIs."""
    return f"[{text}](../../runs/{kind}/{id})" if id else text


def link_record(lake: Lake, record: StageRecord) -> None:
    """Link a run's stage to its record."""
    _show(partial(_publish_page, _key(record.stage, "record"), lambda: record_markdown(lake, record)))


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
        _show(partial(_publish_table, _key(record.stage, "funnel"), "What became of the records", list(funnel)))
    if metrics:
        Curves(record.stage).draw(metrics)
    if evaluations:
        publish_evaluations(record.stage, evaluations)
    for name, page in pages.items():
        _show(partial(_publish_page, _key(record.stage, name), page))


def publish_evaluations(stage: str, evaluations: Sequence[Mapping[str, Any]]) -> None:
    """Show figures with their intervals as a table."""
    rows = [
        {
            "model": row["checkpoint"],
            "task": row["task"],
            "metric": row["metric"],
            "value": round(row["value"], 4),
            "interval": f"{row['low']:.3f} to {row['high']:.3f}",
            "n": row["n"],
        }
        | ({"seen in training": f"{row['seen']:.1%}"} if "seen" in row else {})
        for row in evaluations
    ]
    publish_table(stage, "Evaluation, with 95% intervals", rows)


def publish_table(name: str, description: str, rows: list[dict[str, Any]]) -> None:
    """Show rows as a table."""
    _show(partial(_publish_table, _key(name, "table"), description, rows))


def publish_page(stage: str, name: str, write: Callable[[], str]) -> None:
    """Show a page about a stage, in markdown."""
    _show(partial(_publish_page, _key(stage, name), write))


def _publish_table(key: str, description: str, rows: list[dict[str, Any]]) -> None:
    from prefect.artifacts import create_table_artifact

    create_table_artifact(rows, key=key, description=description)


def _publish_page(key: str, write: Callable[[], str]) -> None:
    from prefect.artifacts import create_markdown_artifact

    create_markdown_artifact(write(), key=key)
