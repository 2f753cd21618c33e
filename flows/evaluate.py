"""Flow `evaluate`: judge every model of a recipe. Stages done before are taken from the cache."""

from __future__ import annotations

from prefect import flow

import flows.align
import flows.curate
import flows.ingest
import flows.train
from datalake.lake.records import StageReport
from flows.parameters import DEMO, NONE, LakeFolder, Overrides, RecipeOrPath
from flows.run import Run, in_one_line, running
from tasks.dialogues import HoldOut
from tasks.evaluate import evaluate as evaluate_stage


def stages(run: Run) -> None:
    """Evaluate the models that are there on held-out documents and dialogues."""
    run.do(
        evaluate_stage,
        run.recipe.evaluate,
        tokens="tokens",
        mixture="mixture",
        pretrain="pretrain",
        sft="sft?",
        reward="reward?",
        ppo="ppo?",
        conversations="conversations?",
        preferences="preferences?",
        holdout=HoldOut.of(run.recipe.mixture),
    )


@flow(name="evaluate")
@in_one_line
def evaluate(recipe: RecipeOrPath = DEMO, set: Overrides = NONE, lake: LakeFolder = "") -> list[StageReport]:
    """Evaluate the recipe's models; what isn't built yet is built first.

    Args:
        recipe: what to read, how to clean it, what to train; relative paths begin at the repository's root.
        set: values to override, such as `deduplicate.threshold=0.7`.
        lake: folder of the lake; the server's own when empty.
    """
    with running(recipe, set, lake) as run:
        for phase in (flows.ingest, flows.curate, flows.train, flows.align):
            phase.stages(run)
        stages(run)
    return run.log.reports
