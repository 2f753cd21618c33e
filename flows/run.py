"""Calling the stages of a recipe one after the other: which of them this run does, and why it skips the others."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from pydantic import BaseModel

from datalake.archive import Archive
from datalake.lake.lake import Lake
from datalake.lake.records import Manifest, StageReport, now, write_manifest
from datalake.secrets import masked
from datalake.sources import Source
from datalake.sources.listing import list_archives
from flows.recipe import Recipe
from flows.stages import STAGES, StageName
from tasks.log import RunLog
from tasks.outputs import Missing
from tasks.stage import C, O, P, Stage

if TYPE_CHECKING:
    from models.evaluation.exam import Exam


class Run(ABC):
    """A run of a recipe up to a stage. Called with a stage, its config and its inputs, it gives the stage's outputs.

    A stage is skipped where its config is None, where a reference that it needs is missing, and after `until`; its
    outputs are then missing as well, for a reason that whoever needs them can tell.
    """

    def __init__(self, recipe: Recipe, lake: Lake, until: StageName | None = None):
        if until is not None and until not in STAGES:
            raise ValueError(f"no stage {until!r}: choose one of {', '.join(STAGES)}")
        self.recipe, self.lake, self.until = recipe, lake, until
        self._closed = ""

    def __call__(self, stage: Stage[C, P, O], config: C | Missing | None, /, *nothing: P.args, **inputs: P.kwargs) -> O:
        """Run a stage, or skip it, which is reported with the reason."""
        reason = self._closed or _why_not(stage.name, config, inputs)
        if self.until == stage.name:
            self._closed = f"after --until {self.until}"
        if config is None or isinstance(config, Missing) or reason:
            self.report(StageReport(stage=stage.name, state="skipped", seconds=0.0, note=reason))
            return stage.skipped(reason)
        return self.do(stage, config, {name: value for name, value in inputs.items() if value is not None})

    def archives(self, sources: Sequence[Source]) -> list[Archive]:
        """Every archive of the sources with the version of its content."""
        return list_archives(sources, self.lake, self.recipe.runtime.remote)

    def exams(self) -> list[Exam] | None:
        """The benchmarks of the recipe, if this run goes on to them: what is wrong with one is said before any work."""
        config = self.recipe.evaluate
        if config is None or not config.benchmarks or self.until not in (None, "evaluate"):
            return None
        from models.evaluation.exam import exams_of

        return exams_of(config, self.lake.root)

    @abstractmethod
    def do(self, stage: Stage[C, Any, O], config: C, inputs: Mapping[str, Any]) -> O:
        """Do a stage whose inputs are all there."""

    @abstractmethod
    def report(self, report: StageReport) -> None:
        """Say what became of a stage."""


def _why_not(stage: str, config: BaseModel | Missing | None, inputs: Mapping[str, Any]) -> str:
    """Why a stage can't be done; empty where it can."""
    if config is None:
        return f"`{stage}` is null in the recipe"
    return next((value.reason for value in (config, *inputs.values()) if isinstance(value, Missing)), "")


def new_run_id(started: datetime) -> str:
    """A readable name for a run that sorts by time."""
    return f"{started:%Y%m%d-%H%M%S}-{uuid4().hex[:4]}"


def leave_manifest(
    recipe: Recipe, lake: Lake, until: StageName | None, log: RunLog, started: datetime, flow_run: str | None = None
) -> Manifest:
    """Write down that a run has ended well: from now on the lake shows the tables that it ended with."""
    manifest = Manifest(
        run=log.run,
        corpus=recipe.corpus,
        recipe=masked(recipe.model_dump(mode="json")),
        started=started,
        finished=now(),
        flow_run=flow_run,
        until=None if until == STAGES[-1] else until,
        stages=log.reports,
    )
    write_manifest(lake, manifest)
    return manifest
