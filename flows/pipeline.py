"""The pipeline: which stage feeds which, from raw records to an evaluated chat model.

The same function is every flow: `run` does the stages (`flows.flows`) or only looks at them (`flows.dry`), up to the
last one that is asked for. A stage that isn't run gives `Missing`, and those that need what it would have given aren't
run either. A new stage is a file in `tasks/`, a row here, its section in the recipe and its name in `flows.stages`; a
new method of training is a file in `models/methods/` and a row here.
"""

from __future__ import annotations

from typing import Any

from datalake.lake.lake import FolderRef
from flows.run import Run
from tasks.base import base
from tasks.curate import curate
from tasks.deduplicate import deduplicate
from tasks.dialogues import HoldOut
from tasks.evaluate import evaluate
from tasks.feedback import feedback
from tasks.ingest import IngestConfig, ingest
from tasks.instruct import instruct
from tasks.learning import Trained, learning
from tasks.mixture import mixture
from tasks.outputs import first, given, maybe, together
from tasks.quality import quality
from tasks.thresholds import thresholds
from tasks.tokenize import TokenizeConfig, tokenize
from tasks.tokenizer import tokenizer


def pipeline(run: Run) -> None:
    """Call every stage with what it takes of those before it."""
    recipe = run.recipe
    split, seed = HoldOut.of(recipe.mixture), recipe.mixture.seed
    exams = run.exams()

    models: dict[str, FolderRef | None] = {}

    def train(method: str, **inputs: Any) -> Trained:
        trained = run(learning(method), recipe.method(method), **inputs)
        models[method] = maybe(trained.model)
        return trained

    # Documents, dialogues and pairs, each record in one table.
    sources = [source.at_home(run.lake.root) for source in recipe.sources]
    read = run(ingest, IngestConfig(sources=sources), archives=run.archives(sources))

    # Documents worth training on, each of them once, and how often each source is seen.
    good = run(quality, given(read.raw, recipe.quality))
    kept = run(curate, recipe.curate_by_kind, raw=read.raw, quality=maybe(good.model))
    run(thresholds, recipe.thresholds_of_preset, curation=kept.curation)
    # Only where it decides: what else changes in curation's table changes no duplicate.
    judged = kept.curation if "quality" in recipe.deduplicate.precedence else None
    once = run(deduplicate, recipe.dedup_in_order, documents=kept.documents, curation=judged)
    spans = maybe(once.spans)
    mixed = run(mixture, recipe.mixture, documents=kept.documents, duplicates=once.duplicates, spans=spans)

    # A decoder that continues texts: from nothing, or on from an open model with that model's tokenizer.
    start = run(base, recipe.base) if recipe.base else base.skipped("`base` is null in the recipe")
    words = run(
        tokenizer,
        recipe.tokenizer,
        documents=kept.documents,
        mixture=mixed.mixture,
        spans=spans,
        base=maybe(start.model),
    )
    shards = run(
        tokenize,
        TokenizeConfig(),
        documents=kept.documents,
        mixture=mixed.mixture,
        tokenizer=words.tokenizer,
        repetition_seed=seed,
        spans=spans,
    )
    grown = train(
        "pretrain",
        base=maybe(start.model),
        tokens=shards.tokens,
        mixture=mixed.mixture,
        tokenizer=words.tokenizer,
        repetition_seed=seed,
    )

    # One that answers, and answers as people like. An open model may answer already.
    model = first(grown.model, start.model)
    own = model if recipe.instruct and recipe.instruct.own else None
    written = run(instruct, recipe.instruct, conversations=maybe(read.conversations), model=own, holdout=split)
    dialogues = together(read.conversations, written.instructions)
    tuned = train("sft", conversations=dialogues, base=model, holdout=split)
    answering = tuned.model if recipe.base is None else first(tuned.model, model)
    own = answering if recipe.feedback and recipe.feedback.own else None
    preferred = run(feedback, recipe.feedback, conversations=dialogues, model=own, holdout=split)
    pairs = together(read.preferences, preferred.feedback)
    train("dpo", preferences=pairs, base=answering, holdout=split)
    train("kto", preferences=pairs, base=answering, holdout=split)
    judge = train("reward", preferences=pairs, base=answering, holdout=split)
    for method in ("ppo", "grpo"):
        section = recipe.method(method)
        asked = judge.model if getattr(section, "judged", True) else None
        searched = {"documents": kept.documents, "duplicates": once.duplicates, "spans": spans}
        tools = searched if getattr(section, "searches", False) else {}
        train(method, reward_model=asked, policy=answering, conversations=read.conversations, holdout=split, **tools)

    run(
        evaluate,
        given(model, recipe.evaluate),
        base=maybe(start.model),
        tokens=maybe(shards.tokens),
        mixture=maybe(mixed.mixture),
        conversations=maybe(read.conversations),
        preferences=maybe(read.preferences),
        holdout=split,
        exams=exams,
        **models,
    )
