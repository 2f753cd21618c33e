"""Flow `align`: SFT, reward model and PPO. Stages done before are taken from the cache."""

from __future__ import annotations

from prefect import flow

import flows.curate
import flows.ingest
import flows.train
from datalake.lake.records import StageReport
from flows.parameters import DEMO, NONE, LakeFolder, Overrides, RecipeOrPath
from flows.run import Run, in_one_line, running
from tasks.dialogues import HoldOut
from tasks.ppo import ppo
from tasks.reward import reward
from tasks.sft import sft


def stages(run: Run) -> None:
    """Tune on dialogues, learn a reward from preferences, optimise the policy against it."""
    recipe = run.recipe
    split = HoldOut.of(recipe.mixture)
    dialogues = {"conversations": "conversations", "holdout": split}
    run.do(sft, recipe.sft, base="pretrain", **dialogues)
    run.do(reward, recipe.reward, base="sft", preferences="preferences", holdout=split)
    run.do(ppo, recipe.ppo, policy="sft", reward_model="reward", **dialogues)


@flow(name="align")
@in_one_line
def align(recipe: RecipeOrPath = DEMO, set: Overrides = NONE, lake: LakeFolder = "") -> list[StageReport]:
    """Make the pretrained decoder a chat model.

    Args:
        recipe: what to read, how to clean it, what to train; relative paths begin at the repository's root.
        set: values to override, such as `deduplicate.threshold=0.7`.
        lake: folder of the lake; the server's own when empty.
    """
    with running(recipe, set, lake, until="ppo") as run:
        flows.ingest.stages(run)
        flows.curate.stages(run)
        flows.train.stages(run)
        stages(run)
    return run.log.reports
