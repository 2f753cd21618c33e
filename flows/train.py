"""Flow `train`: tokenizer, token shards and a pretrained decoder. Stages done before are taken from the cache."""

from __future__ import annotations

from prefect import flow

import flows.curate
import flows.ingest
from datalake.lake.records import StageReport
from flows.parameters import DEMO, NONE, LakeFolder, Overrides, RecipeOrPath
from flows.run import Run, in_one_line, running
from tasks.pretrain import pretrain
from tasks.tokenize import TokenizeConfig, tokenize
from tasks.tokenizer import tokenizer


def stages(run: Run) -> None:
    """Train the tokenizer, encode the mixture, pretrain."""
    recipe = run.recipe
    texts = {"documents": "documents", "mixture": "mixture", "spans": "spans?"}
    run.do(tokenizer, recipe.tokenizer, **texts)
    words = {"tokenizer": "tokenizer", "repetition_seed": recipe.mixture.seed}
    run.do(tokenize, TokenizeConfig(), **texts, **words)
    run.do(pretrain, recipe.pretrain, tokens="tokens", mixture="mixture", **words)


@flow(name="train")
@in_one_line
def train(recipe: RecipeOrPath = DEMO, set: Overrides = NONE, lake: LakeFolder = "") -> list[StageReport]:
    """Pretrain a decoder on the recipe's mixture.

    Args:
        recipe: what to read, how to clean it, what to train; relative paths begin at the repository's root.
        set: values to override, such as `deduplicate.threshold=0.7`.
        lake: folder of the lake; the server's own when empty.
    """
    with running(recipe, set, lake, until="pretrain") as run:
        flows.ingest.stages(run)
        flows.curate.stages(run)
        stages(run)
    return run.log.reports
