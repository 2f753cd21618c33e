"""Flow `curate`: from raw documents to the mixture that trains. Stages done before are taken from the cache."""

from __future__ import annotations

from prefect import flow

import flows.ingest
from datalake.lake.records import StageReport
from flows.parameters import DEMO, NONE, LakeFolder, Overrides, RecipeOrPath
from flows.run import Run, in_one_line, running
from tasks.curate import curate as curate_stage
from tasks.deduplicate import deduplicate
from tasks.mixture import mixture
from tasks.quality import quality
from tasks.thresholds import thresholds


def stages(run: Run) -> None:
    """Train a quality classifier where asked to, curate, propose thresholds where asked to, deduplicate, mix."""
    recipe = run.recipe
    run.do(quality, recipe.quality)
    run.do(curate_stage, recipe.curate_by_kind, raw="raw", quality="quality?")
    run.do(thresholds, recipe.thresholds_of_preset, curation="curation")
    # Only where it decides: what else changes in curation's table changes no duplicate.
    judged = {"curation": "curation"} if "quality" in recipe.deduplicate.precedence else {}
    run.do(deduplicate, recipe.dedup_in_order, documents="documents", **judged)
    run.do(mixture, recipe.mixture, documents="documents", duplicates="duplicates", spans="spans?")


@flow(name="curate")
@in_one_line
def curate(recipe: RecipeOrPath = DEMO, set: Overrides = NONE, lake: LakeFolder = "") -> list[StageReport]:
    """Clean, deduplicate and mix the documents of the recipe's sources.

    Args:
        recipe: what to read, how to clean it, what to train; relative paths begin at the repository's root.
        set: values to override, such as `deduplicate.threshold=0.7`.
        lake: folder of the lake; the server's own when empty.
    """
    with running(recipe, set, lake, until="mixture") as run:
        flows.ingest.stages(run)
        stages(run)
    return run.log.reports
