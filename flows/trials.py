"""The flows that train small models beside each other before a large one is paid for: a sweep, an ablation.

Each goes on from where the pipeline of a recipe has its tokens. What they find is the report of their stage's record.
"""

from __future__ import annotations

from typing import Any

import tasks.apart  # noqa: F401

# isort: split
from prefect import flow

from datalake.errors import UserError
from datalake.lake.lake import Lake, Ref
from datalake.lake.records import read_record
from flows.flows import TrackedRun, in_one_line, lake_folder, run_recipe
from flows.parameters import DEMO, NONE, LakeFolder, Overrides, RecipeOrPath, resolve
from flows.pipeline import pipeline
from flows.recipe import Recipe
from models.methods.pretrain import PretrainConfig
from models.scaling.config import AblationConfig, SweepConfig
from tasks import trials
from tasks.log import RunLog
from tasks.tokenize import TokenizeConfig, tokenize
from tasks.tracked import RUN_LOG


@flow(name="sweep")
@in_one_line
def sweep(
    recipe: RecipeOrPath = DEMO, set: Overrides = NONE, lake: LakeFolder = "", sizes: SweepConfig | None = None
) -> dict[str, Any]:
    """Fit a law of scaling to small models that are trained beside each other, and foretell a larger one.

    Args:
        recipe: what to train on; its `pretrain` says what the models have in common.
        set: values to override, such as `deduplicate.threshold=0.7`.
        lake: folder of the lake; the server's own when empty.
        sizes: depths of the models and tokens per parameter.
    """
    return _found(lake, run_recipe(recipe, set, "tokenize", lake, lambda run: swept(run, sizes or SweepConfig())))


@flow(name="ablate")
@in_one_line
def ablate(
    recipe: RecipeOrPath = DEMO,
    set: Overrides = NONE,
    lake: LakeFolder = "",
    against: Overrides = NONE,
    seeds: int = 5,
) -> dict[str, Any]:
    """Train the same small model on two mixtures, and say which is better.

    Args:
        recipe: the first mixture, and the model.
        set: values to override, such as `deduplicate.threshold=0.7`.
        lake: folder of the lake; the server's own when empty.
        against: what the second mixture has otherwise, such as `mixture.weights.code=0`.
        seeds: trainings of each mixture.
    """
    other = resolve(recipe, [*set, *against])

    def then(run: TrackedRun) -> None:
        log = RunLog(run.log.run, on_report=run.log.on_report)
        ablated(run, TrackedRun(other, run.lake, "mixture", log), seeds)

    return _found(lake, run_recipe(recipe, set, "tokenize", lake, then))


def swept(run: TrackedRun, sizes: SweepConfig) -> None:
    """The sweep of a run that has its tokens."""
    refs = _refs(run)
    inputs = {name: refs[name] for name in ("tokens", "mixture", "tokenizer")}
    config = sizes.model_copy(update={"pretrain": _pretrain(run.recipe)})
    run.do(trials.sweep, config, inputs | {"repetition_seed": run.recipe.mixture.seed})


def ablated(run: TrackedRun, other: TrackedRun, seeds: int) -> None:
    """The ablation of a run that has its tokens against another recipe's mixture, whose run has yet to begin: it is one
    of its own, of which the lake shows nothing. Both mixtures are in the tokens of the first one's tokenizer."""
    refs, seed = _refs(run), {"repetition_seed": run.recipe.mixture.seed}
    token = RUN_LOG.set(other.log)
    try:
        pipeline(other)
        mixed = _refs(other)
        given = {name: mixed[name] for name in ("documents", "mixture", "spans") if name in mixed}
        tokens = other.do(tokenize, TokenizeConfig(), given | {"tokenizer": refs["tokenizer"]} | seed).tokens
    finally:
        RUN_LOG.reset(token)
    inputs = {name: refs[name] for name in ("tokens", "mixture", "tokenizer")}
    inputs |= {"other_tokens": tokens, "other_mixture": mixed["mixture"]}
    run.do(trials.ablate, AblationConfig(pretrain=_pretrain(run.recipe), seeds=seeds), inputs | seed)


def _refs(run: TrackedRun) -> dict[str, Ref]:
    """What the stages of a run have left, by name. Raises UserError where there is nothing to train on."""
    refs = {name: ref for report in run.log.reports for name, ref in report.outputs.items()}
    if "mixture" not in refs:
        raise UserError("the recipe has no documents to train on: give it a source of documents")
    return refs


def _pretrain(recipe: Recipe) -> PretrainConfig:
    """What a recipe pretrains; where it doesn't, what is usual."""
    config = recipe.method("pretrain")
    return config if isinstance(config, PretrainConfig) else PretrainConfig()


def _found(lake: str, reports: list[Any]) -> dict[str, Any]:
    """The report of the last stage."""
    record = read_record(Lake(lake_folder(lake)), reports[-1].fingerprint)
    assert record is not None, "a finished stage has a record"
    return dict(record.report)
