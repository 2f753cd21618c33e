"""Flow `pipeline`: from raw records to an evaluated chat model, one tracked stage after the other.

ingest (-> quality) -> curate (-> thresholds) -> deduplicate -> mixture
-> tokenizer -> tokenize -> pretrain -> sft -> reward -> ppo -> evaluate
"""

from __future__ import annotations

from prefect import flow

import flows.align
import flows.curate
import flows.evaluate
import flows.ingest
import flows.train
from datalake.lake.records import StageReport
from flows.parameters import DEMO, LAST, NONE, LakeFolder, Overrides, RecipeOrPath, StageName
from flows.run import in_one_line, running


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
    with running(recipe, set, lake, until) as run:
        for phase in (flows.ingest, flows.curate, flows.train, flows.align, flows.evaluate):
            phase.stages(run)
    return run.log.reports
