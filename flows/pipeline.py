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
from datalake.records import StageReport
from flows.recipe import Recipe, StageName
from flows.run import running


@flow(name="pipeline", flow_run_name="pipeline {recipe.corpus}")
def pipeline(recipe: Recipe, until: StageName | None = None, lake: str = "") -> list[StageReport]:
    """Run a recipe from its sources to an evaluated chat model.

    Args:
        recipe: what to read, how to clean it, what to train and to ask.
        until: the last stage to run; all of them when empty.
        lake: folder of the lake; HEADWATER_LAKE or ./lake when empty.
    """
    with running(recipe, lake, until) as run:
        for phase in (flows.ingest, flows.curate, flows.train, flows.align, flows.evaluate):
            phase.stages(run)
    return run.log.reports
