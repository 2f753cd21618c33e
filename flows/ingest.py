"""Flow `ingest`: read every source of a recipe into raw, refused, quarantine, conversations and preferences."""

from __future__ import annotations

from prefect import flow

from datalake.lake.records import StageReport
from datalake.sources.listing import list_archives
from flows.parameters import DEMO, NONE, LakeFolder, Overrides, RecipeOrPath
from flows.run import Run, in_one_line, running
from tasks.ingest import IngestConfig
from tasks.ingest import ingest as ingest_stage


def stages(run: Run) -> None:
    """List every archive with its content version and read those that no run has read yet."""
    sources = [source.at_home(run.runtime.lake.root) for source in run.recipe.sources]
    archives = list_archives(sources, run.runtime.lake, run.runtime.config.remote)
    run.do(ingest_stage, IngestConfig(sources=sources), archives=archives)


@flow(name="ingest")
@in_one_line
def ingest(recipe: RecipeOrPath = DEMO, set: Overrides = NONE, lake: LakeFolder = "") -> list[StageReport]:
    """Read every source of the recipe.

    Args:
        recipe: what to read, how to clean it, what to train; relative paths begin at the repository's root.
        set: values to override, such as `deduplicate.threshold=0.7`.
        lake: folder of the lake; the server's own when empty.
    """
    with running(recipe, set, lake, until="ingest") as run:
        stages(run)
    return run.log.reports
