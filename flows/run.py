"""One run of a recipe: which stages it does, what they hand on, and the manifest it leaves at its end."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any
from uuid import uuid4

from prefect.context import FlowRunContext
from pydantic import BaseModel

from datalake.lake import Lake, Ref
from datalake.records import Manifest, StageReport, now, write_manifest
from datalake.remote.address import without_credentials
from flows.environment import enter
from flows.recipe import STAGES, Recipe
from tasks.runtime import Runtime
from tasks.stage import RUN_LOG, RunLog, Stage


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


@contextmanager
def running(recipe: Recipe, lake: str | Path | None = None, until: str | None = None) -> Iterator[Run]:
    """Open the lake, run what is inside, and write the manifest once all of it has ended well."""
    if until is not None and until not in STAGES:
        raise ValueError(f"no stage {until!r}: choose one of {', '.join(STAGES)}")
    opened = Lake(lake_folder(lake)).create()
    enter(opened.root)
    started = now()
    log = RUN_LOG.get() or RunLog(new_run_id(started))
    token = RUN_LOG.set(log)
    try:
        yield Run(recipe, opened, until, log)
    finally:
        RUN_LOG.reset(token)
    context = FlowRunContext.get()
    write_manifest(
        opened,
        Manifest(
            run=log.run,
            corpus=recipe.corpus,
            recipe=without_credentials(recipe.model_dump(mode="json")),
            started=started,
            finished=now(),
            flow_run=str(context.flow_run.id) if context and context.flow_run else None,
            until=None if until == STAGES[-1] else until,
            stages=log.reports,
        ),
    )


def new_run_id(started: datetime) -> str:
    """A readable name for a run that sorts by time."""
    return f"{started:%Y%m%d-%H%M%S}-{uuid4().hex[:4]}"
