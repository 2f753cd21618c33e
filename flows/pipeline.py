"""The pipeline: which stage feeds which, from raw records to an evaluated chat model.

The same function is every flow: `run` does the stages (`flows.flows`) or only looks at them (`flows.dry`), up to the
last one that is asked for. A stage that isn't run gives `Missing`, and those that need what it would have given aren't
run either. A new stage is a file in `tasks/`, a row here, its section in the recipe and its name in `flows.stages`.
"""

from __future__ import annotations

from flows.run import Run
from tasks.curate import curate
from tasks.deduplicate import deduplicate
from tasks.dialogues import HoldOut
from tasks.evaluate import evaluate
from tasks.ingest import IngestConfig, ingest
from tasks.mixture import mixture
from tasks.outputs import given, maybe
from tasks.ppo import ppo
from tasks.pretrain import pretrain
from tasks.quality import quality
from tasks.reward import reward
from tasks.sft import sft
from tasks.thresholds import thresholds
from tasks.tokenize import TokenizeConfig, tokenize
from tasks.tokenizer import tokenizer


def pipeline(run: Run) -> None:
    """Call every stage with what it takes of those before it."""
    recipe = run.recipe
    split, seed = HoldOut.of(recipe.mixture), recipe.mixture.seed

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

    # A decoder that continues texts.
    words = run(tokenizer, recipe.tokenizer, documents=kept.documents, mixture=mixed.mixture, spans=spans)
    shards = run(
        tokenize,
        TokenizeConfig(),
        documents=kept.documents,
        mixture=mixed.mixture,
        tokenizer=words.tokenizer,
        repetition_seed=seed,
        spans=spans,
    )
    base = run(
        pretrain,
        recipe.pretrain,
        tokens=shards.tokens,
        mixture=mixed.mixture,
        tokenizer=words.tokenizer,
        repetition_seed=seed,
    )

    # One that answers, and answers as people like.
    tuned = run(sft, recipe.sft, conversations=read.conversations, base=base.model, holdout=split)
    judge = run(reward, recipe.reward, preferences=read.preferences, base=tuned.model, holdout=split)
    liked = run(
        ppo,
        recipe.ppo,
        reward_model=judge.model,
        policy=tuned.model,
        conversations=read.conversations,
        holdout=split,
    )

    run(
        evaluate,
        recipe.evaluate,
        pretrain=base.model,
        sft=maybe(tuned.model),
        reward=maybe(judge.model),
        ppo=maybe(liked.model),
        tokens=shards.tokens,
        mixture=mixed.mixture,
        conversations=maybe(read.conversations),
        preferences=maybe(read.preferences),
        holdout=split,
    )
