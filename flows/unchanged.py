"""A recipe run once again as it is: where nothing of it has changed, nothing needs to be started to say so.

Prefect's server takes longer to start than a look at the lake. So where the last run of the corpus was this recipe's,
and no server is up to show another one, the lake is looked at first.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from datalake.archive import Archive
from datalake.errors import UserError
from datalake.lake.lake import Lake
from datalake.lake.records import find_manifest, now
from datalake.secrets import masked
from datalake.sources import Source
from flows.dry import DryRun
from flows.pipeline import pipeline
from flows.recipe import Recipe
from flows.run import Run, leave_manifest, new_run_id
from flows.stages import STAGES, StageName
from tasks.log import RunLog


class Look(DryRun):
    """A dry run that remembers what it learns of the archives, for the run that may follow."""

    def archives(self, sources: Sequence[Source]) -> list[Archive]:
        """Every archive with the version of its content."""
        return Run.archives(self, sources)


def report_unchanged(recipe: Recipe, lake: Lake, until: StageName | None, follow: Callable[[RunLog], object]) -> bool:
    """Whether all stages of a run are cached: then it is reported and written down as a run, with nothing started.

    `follow` gets the run's log before the first report. Of another recipe than the last run's it can't be expected, and
    looking would only cost time.
    """
    started = now()
    try:
        last = find_manifest(lake, corpus=recipe.corpus)
    except UserError:
        return False
    whole = None if until == STAGES[-1] else until
    settings = masked(recipe.model_dump(mode="json"))
    if last.until != whole or any(last.recipe.get(name) != settings[name] for name in settings if name != "runtime"):
        return False
    look = Look(recipe, lake, until)
    pipeline(look)
    if any(report.state not in ("cached", "skipped") for report in look.reports):
        return False
    follow(log := RunLog(new_run_id(started)))
    for report in look.reports:
        log.add(report)
    leave_manifest(recipe, lake, until, log, started)
    return True
