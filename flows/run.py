"""One run of a recipe: which stages it does, what they hand on, and the manifest it leaves at its end."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import datetime
from functools import wraps
from inspect import signature
from pathlib import Path
from typing import Any, ParamSpec, TypeVar, cast, get_type_hints
from uuid import uuid4

from prefect.context import FlowRunContext
from prefect.exceptions import TerminationSignal
from prefect.states import Failed
from pydantic import BaseModel

from datalake.curate.metrics.user import load as load_metrics
from datalake.errors import UserError
from datalake.lake.lake import Lake, Ref
from datalake.lake.records import Manifest, StageReport, now, write_manifest
from datalake.secrets import masked, scrub
from flows import ending
from flows.parameters import resolve
from flows.recipe import STAGES, Recipe
from flows.service.environment import enter
from flows.stages import StageName
from tasks.cluster.connect import disconnect
from tasks.runtime import Runtime
from tasks.shown import artifacts
from tasks.stage import RUN_LOG, RunLog, Stage, StageError

P = ParamSpec("P")
R = TypeVar("R")


def lake_folder(lake: str | Path | None = None) -> Path:
    """The lake's folder: as given, else HEADWATER_LAKE, else ./lake."""
    return Path(os.path.realpath(Path(lake or os.environ.get("HEADWATER_LAKE") or "lake").expanduser()))


class Run:
    """A run in progress. `do` runs one stage with references by name; what it yields is found under `refs`."""

    def __init__(self, recipe: Recipe, lake: Lake, until: str | None, log: RunLog):
        self.recipe = recipe
        self.refs: dict[str, Ref] = {}
        self.log = log
        self.runtime = Runtime(recipe.runtime, lake.root, recipe.corpus, log.run)
        self._skipped = recipe.skipped(until)

    def wants(self, stage: str) -> bool:
        """Whether this run does a stage; one it doesn't do is reported as skipped, with the reason."""
        if stage not in self._skipped:
            return True
        if all(report.stage != stage for report in self.log.reports):
            self.log.add(StageReport(stage=stage, state="skipped", seconds=0.0, note=self._skipped[stage]))
        return False

    def do(self, stage: Stage, config: BaseModel | None, **inputs: Any) -> None:
        """Run a stage. An input given as text is the reference of that name; `name?` may be missing."""
        if not self.wants(stage.name):
            return
        assert config is not None, "a stage without a config is skipped"
        given = {}
        for name, value in inputs.items():
            if isinstance(value, str):
                value = self.refs.get(value[:-1]) if value.endswith("?") else self.refs[value]
                if value is None:
                    continue
            given[name] = value
        self.refs |= stage(config=config, runtime=self.runtime, **given)


# The recipe that a command has read and validated already: a flow takes it for the one that its parameters name.
RECIPE: ContextVar[Recipe | None] = ContextVar("recipe", default=None)


@contextmanager
def running(
    recipe: str | dict[str, Any],
    overrides: Sequence[str] = (),
    lake: str | Path | None = None,
    until: StageName | None = None,
) -> Iterator[Run]:
    """Open the lake, run what is inside, and write the manifest once all of it has ended well."""
    if until is not None and until not in STAGES:
        raise ValueError(f"no stage {until!r}: choose one of {', '.join(STAGES)}")
    chosen = RECIPE.get() or resolve(recipe, overrides)
    load_metrics(chosen.curate)  # what can't be imported is said before any work
    opened = Lake(lake_folder(lake)).create()
    enter(opened.root)
    ending.listen()  # Prefect's flow has just put a handler of its own there
    started = now()
    log = RUN_LOG.get() or RunLog(new_run_id(started))
    context = FlowRunContext.get()
    flow_run = str(context.flow_run.id) if context and context.flow_run else None
    log.on_report = _to_the_log(log.on_report)
    artifacts.name_run(f"{chosen.corpus} {log.run}")
    token = RUN_LOG.set(log)
    try:
        yield Run(chosen, opened, until, log)
    except (KeyboardInterrupt, TerminationSignal):
        disconnect()  # a process that is told to end may have no other moment for it
        raise
    except Exception as error:
        scrub(error)  # Prefect keeps its message
        raise
    finally:
        RUN_LOG.reset(token)
    write_manifest(
        opened,
        Manifest(
            run=log.run,
            corpus=chosen.corpus,
            recipe=masked(chosen.model_dump(mode="json")),
            started=started,
            finished=now(),
            flow_run=flow_run,
            until=None if until == STAGES[-1] else until,
            stages=log.reports,
        ),
    )


def _to_the_log(then: Callable[[StageReport], None] | None) -> Callable[[StageReport], None]:
    """Write a stage's line to the log of the flow's run, and tell whoever else listens."""

    def report(stage: StageReport) -> None:
        if stage.asked_for:
            artifacts.note(" ".join(stage.line.split()), logging.ERROR if stage.state == "failed" else logging.INFO)
        if then:
            then(stage)

    return report


def in_one_line(body: Callable[P, R]) -> Callable[P, R]:
    """Make what a user can mend end the flow's run as failed, with that one line as its message and in its log.

    Called as a function, the flow raises the error as ever.
    """

    @wraps(body)
    def run(*arguments: P.args, **named: P.kwargs) -> R:
        try:
            return body(*arguments, **named)
        except (UserError, StageError) as error:
            cause = error.__cause__ if isinstance(error.__cause__, UserError) else error
            return cast(R, Failed(message=masked(" ".join(str(cause).split())), data=error))

    # Prefect reads the parameters here, where the names in the body's own annotations mean nothing.
    run.__signature__ = signature(body, eval_str=True)  # type: ignore[attr-defined]
    run.__annotations__ = get_type_hints(body, include_extras=True)
    return run


def new_run_id(started: datetime) -> str:
    """A readable name for a run that sorts by time."""
    return f"{started:%Y%m%d-%H%M%S}-{uuid4().hex[:4]}"
