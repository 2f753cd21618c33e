"""Flow `evaluate`: judge every model of a recipe. Stages done before are taken from the cache."""

from __future__ import annotations

from prefect import flow

import flows.align
import flows.curate
import flows.ingest
import flows.train
from datalake.records import StageReport
from flows.recipe import Recipe
from flows.run import Run, running
from tasks import alignment, evaluation


def stages(run: Run) -> None:
    """Evaluate the models that are there on held-out documents and dialogues."""
    run.do(
        evaluation.evaluate,
        run.recipe.evaluate,
        tokens="tokens",
        mixture="mixture",
        pretrain="pretrain",
        sft="sft?",
        reward="reward?",
        ppo="ppo?",
        conversations="conversations?",
        preferences="preferences?",
        holdout=alignment.HoldOut.of(run.recipe.mixture),
    )


@flow(name="evaluate", flow_run_name="evaluate {recipe.corpus}")
def evaluate(recipe: Recipe, lake: str = "") -> list[StageReport]:
    """Evaluate the recipe's models; what isn't built yet is built first.

    Args:
        recipe: what to read, how to clean it, what to train and to ask.
        lake: folder of the lake; HEADWATER_LAKE or ./lake when empty.
    """
    with running(recipe, lake) as run:
        for phase in (flows.ingest, flows.curate, flows.train, flows.align):
            phase.stages(run)
        stages(run)
    return run.log.reports
