"""The flows that say what a large model is worth before it is paid for: a sweep and an ablation, which train small
models beside each other, and a plan.

The first two go on from where the pipeline of a recipe has its tokens. What they find is the report of their stage's
record.
"""

from __future__ import annotations

from typing import Annotated, Any

import tasks.apart  # noqa: F401

# isort: split
from prefect import flow
from pydantic import Field, ValidationError

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
from tasks.shown import artifacts
from tasks.tokenize import TokenizeConfig, tokenize
from tasks.tracked import RUN_LOG

DEPTHS = [1, 2, 3]
RATIOS = [2.5, 5.0, 10.0]


@flow(name="sweep")
@in_one_line
def sweep(
    recipe: RecipeOrPath = DEMO,
    depths: list[int] = DEPTHS,
    ratios: list[float] = RATIOS,
    held_out: Annotated[int, Field(ge=1, le=256)] = 4,
    aspect: Annotated[int, Field(ge=2, le=1024, multiple_of=2)] = 64,
    set: Overrides = NONE,
    lake: LakeFolder = "",
) -> dict[str, Any]:
    """Fit a law of scaling to small models that are trained beside each other, and foretell a larger one.

    Args:
        recipe: what to train on; its `pretrain` says what the models have in common.
        depths: of the small models, in layers; three different ones at least.
        ratios: tokens per parameter that each of them is trained on; three different ones at least.
        held_out: depth of the larger model, at the middle ratio.
        aspect: width per layer, of all models.
        set: values to override, such as `deduplicate.threshold=0.7`.
        lake: folder of the lake; the server's own when empty.
    """
    try:
        sizes = SweepConfig(depths=tuple(depths), ratios=tuple(ratios), held_out=held_out, aspect=aspect)
    except ValidationError as error:
        raise UserError(f"depths {depths}, ratios {ratios}: {error.errors()[0]['msg']}") from None
    return _found(lake, run_recipe(recipe, set, "tokenize", lake, lambda run: swept(run, sizes)))


@flow(name="ablate")
@in_one_line
def ablate(
    recipe: RecipeOrPath = DEMO,
    against: Overrides = NONE,
    seeds: Annotated[int, Field(ge=2, le=1000)] = 5,
    set: Overrides = NONE,
    lake: LakeFolder = "",
) -> dict[str, Any]:
    """Train the same small model on two mixtures, and say which is better.

    Args:
        recipe: the first mixture, and the model.
        against: what the second mixture has otherwise, such as `mixture.weights.code=0`.
        seeds: trainings of each mixture.
        set: values to override, such as `deduplicate.threshold=0.7`.
        lake: folder of the lake; the server's own when empty.
    """
    if not against:
        raise UserError("against: say what the second mixture has otherwise, such as mixture.weights.code=0")
    other = resolve(recipe, [*set, *against])

    def then(run: TrackedRun) -> None:
        log = RunLog(run.log.run, on_report=run.log.on_report)
        ablated(run, TrackedRun(other, run.lake, "mixture", log), seeds)

    return _found(lake, run_recipe(recipe, set, "tokenize", lake, then))


@flow(name="plan")
@in_one_line
def plan(
    gpu: str = "H100",
    gpu_hours: Annotated[float, Field(gt=0)] = 100.0,
    gpus: Annotated[int, Field(ge=1)] = 1,
    corpus: str = "",
    lake: LakeFolder = "",
) -> dict[str, Any]:
    """Say what to train on a corpus for a budget: parameters, tokens, batch, learning rate, loss, memory, time.

    Args:
        gpu: such as H100, A100-40GB, 4090; or cpu, for the worker's processor.
        gpu_hours: the budget, of all of them together.
        gpus: so many share the model.
        corpus: of the lake; where it has only one, that one.
        lake: folder of the lake; the server's own when empty.
    """
    from flows.commands.plan import FIELDS, USUAL, section
    from flows.lake import Lake as Asked
    from models.scaling.plan import Planner, Text, machine
    from models.scaling.published import chinchilla

    there = Asked(lake_folder(lake)).tokens(corpus or None)
    text, devices = Text(there["corpus"], there["tokens"], 4.0), machine(gpu, gpus, 0.4)
    words, context = there["vocabulary"] or USUAL[0], there["context"] or USUAL[1]
    made = Planner(chinchilla(), devices, text, words, context).of_hours(gpu_hours)
    figures = {name: getattr(made, name) for name in FIELDS}
    artifacts.name_run(f"plan {there['corpus']}, {gpu_hours:g} hours of {gpu}")
    rows = [{"what": name, "value": value} for name, value in figures.items()]
    artifacts.publish_table("plan", "By Chinchilla's law at 40% of the peak", rows)
    artifacts.publish_page(
        "plan", "recipe", lambda: f"As a section of the recipe:\n\n```yaml\n{section(made, gpus)}\n```"
    )
    return figures


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
    config = AblationConfig(pretrain=_pretrain(run.recipe), other=_pretrain(other.recipe), seeds=seeds)
    run.do(trials.ablate, config, inputs | seed)


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
