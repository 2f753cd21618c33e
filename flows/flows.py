"""The Prefect flows: the pipeline, and parts of it up to a stage that schedules and people ask for by themselves.

Each runs `flows.pipeline` tracked, and leaves the run's manifest at its end. Stages done before come from the cache.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from functools import wraps
from inspect import signature
from pathlib import Path
from typing import Any, ParamSpec, TypeVar, cast, get_type_hints

import tasks.apart  # noqa: F401

# isort: split
from prefect import Flow, flow
from prefect.context import FlowRunContext
from prefect.exceptions import TerminationSignal
from prefect.states import Cancelled, Failed

from datalake.curate.metrics.user import load as load_metrics
from datalake.errors import UserError
from datalake.lake.lake import Lake
from datalake.lake.records import StageReport, now
from datalake.places import root_of
from datalake.secrets import masked, scrub
from flows import announcements, ending
from flows.output import command
from flows.parameters import DEMO, LAST, NONE, LakeFolder, Overrides, RecipeOrPath, StageName, TrainingStage, resolve
from flows.pipeline import pipeline as stages
from flows.recipe import Recipe
from flows.run import Run, leave_manifest, new_run_id
from flows.schedules import successor
from flows.service.environment import enter
from tasks.cluster.connect import disconnect
from tasks.log import RunLog
from tasks.runtime import Runtime
from tasks.shown import artifacts, events
from tasks.stage import C, O, Stage
from tasks.tracked import RUN_LOG, StageError, tracked

P = ParamSpec("P")
R = TypeVar("R")


def lake_folder(lake: str | Path | None = None) -> Path:
    """The lake's folder or address: as given, else HEADWATER_LAKE, else ./lake."""
    return root_of(lake or os.environ.get("HEADWATER_LAKE") or "lake")


class TrackedRun(Run):
    """A run whose stages are Prefect tasks, and which leaves a manifest."""

    def __init__(self, recipe: Recipe, lake: Lake, until: StageName | None, log: RunLog):
        super().__init__(recipe, lake, until)
        self.log = log
        self.runtime = Runtime(recipe.runtime, lake.root, recipe.corpus, log.run)

    def do(self, stage: Stage[C, Any, O], config: C, inputs: Mapping[str, Any]) -> O:
        """Run a stage, or take it from the cache."""
        return tracked(stage, config, self.runtime, **inputs)

    def report(self, report: StageReport) -> None:
        """Tell whoever watches the run."""
        self.log.add(report)


# The recipe that a command has read and validated already: a flow takes it for the one that its parameters name.
RECIPE: ContextVar[Recipe | None] = ContextVar("recipe", default=None)


@contextmanager
def surroundings(lake: Lake) -> Iterator[None]:
    """What every flow needs around its work: the lake's settings, an orderly end, errors without secrets."""
    enter(lake.root)
    events.listen()
    ending.listen()  # Prefect's flow has just put a handler of its own there
    try:
        yield
    except (KeyboardInterrupt, TerminationSignal):
        disconnect()  # a process that is told to end may have no other moment for it
        raise
    except Exception as error:
        scrub(error)  # Prefect keeps its message
        raise


def run_recipe(
    recipe: str | dict[str, Any],
    overrides: Sequence[str],
    until: StageName,
    lake: str,
    then: Callable[[TrackedRun], object] | None = None,
) -> list[StageReport]:
    """Open the lake, run the pipeline up to a stage, do what comes `then`, and write the manifest once all of it has
    ended well."""
    chosen = RECIPE.get() or resolve(recipe, overrides)
    load_metrics(chosen.curate)  # what can't be imported is said before any work
    opened = Lake(lake_folder(lake)).create()
    with surroundings(opened):
        started = now()
        log = RUN_LOG.get() or RunLog(new_run_id(started))
        context = FlowRunContext.get()
        flow_run = str(context.flow_run.id) if context and context.flow_run else None
        log.on_report = _to_the_log(log.on_report)
        artifacts.name_run(f"{chosen.corpus} {log.run}")
        token = RUN_LOG.set(log)
        try:
            with events.within(run=log.run, corpus=chosen.corpus):
                run = TrackedRun(chosen, opened, until, log)
                stages(run)
                if then is not None:
                    then(run)
        finally:
            RUN_LOG.reset(token)
    manifest = leave_manifest(chosen, opened, until, log, started, flow_run)
    announcements.tell(opened, manifest, recipe, overrides)
    return log.reports


def _to_the_log(then: Callable[[StageReport], None] | None) -> Callable[[StageReport], None]:
    """Write a stage's line to the log of the flow's run, and tell whoever else listens."""

    def report(stage: StageReport) -> None:
        if stage.asked_for:
            artifacts.note(" ".join(stage.line.split()), logging.ERROR if stage.state == "failed" else logging.INFO)
        if then:
            then(stage)

    return report


def _untold(record: logging.LogRecord) -> bool:
    """Whether a line of Prefect's tells something new: at the end of a run it repeats, with a traceback, the error that
    the run's state and log have in one line."""
    return not (record.exc_info and isinstance(record.exc_info[1], (UserError, StageError)))


for _name in ("prefect.engine", "prefect.flow_runs"):
    logging.getLogger(_name).addFilter(_untold)


def in_one_line(body: Callable[P, R]) -> Callable[P, R]:
    """Make what a user can mend end the flow's run as failed, with that one line as its message and in its log.

    A scheduled run that a later one makes needless is cancelled. Called as a function, the flow raises errors as ever.
    """

    @wraps(body)
    def run(*arguments: P.args, **named: P.kwargs) -> R:
        later = successor()
        if later is not None:
            return cast(R, Cancelled(message=f"its time has passed: {later.name} was due later and does the same work"))
        try:
            return body(*arguments, **named)
        except (UserError, StageError) as error:
            cause = error.__cause__ if isinstance(error.__cause__, UserError) else error
            return cast(R, Failed(message=masked(" ".join(str(cause).split())), data=error))

    # Prefect reads the parameters here, where the names in the body's own annotations mean nothing.
    run.__signature__ = signature(body, eval_str=True)  # type: ignore[attr-defined]
    run.__annotations__ = get_type_hints(body, include_extras=True)
    return run


@flow(name="pipeline")
@in_one_line
def pipeline(
    recipe: RecipeOrPath = DEMO, set: Overrides = NONE, until: StageName = LAST, lake: LakeFolder = ""
) -> list[StageReport]:
    """Run a recipe from its sources to an evaluated chat model.

    Args:
        recipe: what to read, how to clean it, what to train; relative paths begin at the repository's root.
        set: values to override, such as `deduplicate.threshold=0.7`.
        until: the last stage to run.
        lake: folder of the lake; the server's own when empty.
    """
    return run_recipe(recipe, set, until, lake)


def _up_to(last: StageName, name: str, says: str) -> Flow[..., list[StageReport]]:
    """The pipeline up to a stage, as a flow of its own."""

    def part(recipe: RecipeOrPath = DEMO, set: Overrides = NONE, lake: LakeFolder = "") -> list[StageReport]:
        return run_recipe(recipe, set, last, lake)

    part.__doc__ = f"""{says}

    Args:
        recipe: what to read, how to clean it, what to train; relative paths begin at the repository's root.
        set: values to override, such as `deduplicate.threshold=0.7`.
        lake: folder of the lake; the server's own when empty.
    """
    part.__name__ = part.__qualname__ = name
    return flow(name=name)(in_one_line(part))


ingest = _up_to("ingest", "ingest", "Read every source of the recipe.")
curate = _up_to("mixture", "curate", "Clean, deduplicate and mix the documents of the recipe's sources.")
evaluate = _up_to("evaluate", "evaluate", "Evaluate the recipe's models; what isn't built yet is built first.")


@flow(name="train")
@in_one_line
def train(
    recipe: RecipeOrPath = DEMO,
    stage: TrainingStage = "pretrain",
    steps: int | None = None,
    set: Overrides = NONE,
    lake: LakeFolder = "",
) -> list[StageReport]:
    """Train a model of the recipe; what comes before it and isn't there is made first.

    Args:
        recipe: what to train on; relative paths begin at the repository's root.
        stage: the last stage to train: `pretrain`, or a later one that makes the model answer.
        steps: of that stage; as the recipe has it when empty.
        set: other values to override, such as `pretrain.learning_rate=0.001`.
        lake: folder of the lake; the server's own when empty.
    """
    return run_recipe(recipe, [*set, *([f"{stage}.steps={steps}"] if steps else [])], stage, lake)


@flow(name="label")
@in_one_line
def label(
    recipe: RecipeOrPath = DEMO,
    set: Overrides = NONE,
    judged: StageName = "sft",
    pairs: int = 50,
    lake: LakeFolder = "",
) -> list[StageReport]:
    """Make a model, wait until people have compared enough of its answers, and go on with what they said.

    The recipe has the lake's `labels/preferences` as a source of preferences, and `labels/conversations` if it likes.

    Args:
        recipe: what to read, how to clean it, what to train; relative paths begin at the repository's root.
        set: values to override, such as `reward.steps=100`.
        judged: the last stage before the wait, whose answers people compare on the page of `headwater label`.
        pairs: how many they are to compare; whoever resumes the run before goes on with fewer.
        lake: folder of the lake; the server's own when empty.
    """
    from flows.label.labels import Labels
    from flows.label.waiting import wait_for_pairs

    folder = lake_folder(lake)
    labels = Labels(Lake(folder).create().root)
    labels.prepare()
    run_recipe(recipe, set, judged, lake)
    if (RECIPE.get() or resolve(recipe, set)).runtime.cluster != "inline":
        disconnect()  # nobody needs Ray meanwhile
    artifacts.note(f"waiting for {pairs:,} pairs: {command('label', judged, lake=folder)} shows the page")
    artifacts.note(f"{wait_for_pairs(labels, pairs):,} pairs are compared: the run goes on")
    return run_recipe(recipe, set, LAST, lake)
