"""The evaluation stage: every model of a run on held-out documents, dialogues and pairs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from datalake.errors import UserError
from datalake.lake.copies import near_folder
from datalake.lake.lake import FolderRef, TableRef
from datalake.lake.tokens import token_indices
from models.evaluation.config import EvaluateConfig
from models.evaluation.exam import Exam
from models.evaluation.judged import named
from models.methods import METHODS
from tasks.benchmarks import Judgeable, grid, keep, ledger_rows
from tasks.cluster import run_alone
from tasks.dialogues import HoldOut, dialogues, pairs
from tasks.learning import LEARNING
from tasks.produced import Produced
from tasks.runtime import Runtime
from tasks.stage import stage
from tasks.tokens import training_documents

SHOWN, LONG = 4, 2_000  # answers of each model kept to be read, characters of each

# What each model is asked. A reward model scores pairs; what was pretrained alone answers nobody; everything else that
# writes text is asked all there is.
_WRITING: tuple[str, ...] = ("perplexity", "multiple_choice", "generation")
ASKED = {"base": _WRITING} | {
    name: _WRITING if method.writes else ("reward_accuracy",) for name, method in METHODS.items()
}
ASKED["pretrain"] = _WRITING[:2]


def _evaluate(
    config: EvaluateConfig,
    models: dict[str, Path],
    indices: list[Path],
    train: list[tuple[bytes, int]],
    documents: list[bytes],
    conversations: list[dict[str, Any]],
    preferences: list[dict[str, Any]],
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Rows of `runs.evaluations`, model after model, and the first of the answers that each wrote."""
    from models.evaluation.evaluate import Held, evaluate
    from models.evaluation.heldout import token_counts
    from models.evaluation.tasks import drawn
    from models.network.build import keep_freed_memory
    from models.network.checkpoint import load
    from models.text.sampler import heldout
    from models.text.shards import TokenShards

    keep_freed_memory()
    chosen = [documents[number] for number in drawn(len(documents), config.limit, config.seed)]
    sizes, counts = [], None
    if chosen:
        shards = TokenShards(indices)
        sizes = [int(shards.sizes[shards.number(document)]) for document in chosen]
        counts = token_counts(shards, train, shards.vocabulary)
    rows: list[dict[str, Any]] = []
    answers: list[dict[str, Any]] = []
    for name, folder in models.items():
        model, tokenizer = load(near_folder(folder))
        context = int(model.config.context)  # type: ignore[union-attr, arg-type]
        windows = list(heldout(shards, chosen, context, config.batch)) if chosen else []
        held = Held(windows, sizes, counts, conversations, preferences)
        asked = config.model_copy(update={"tasks": [task for task in config.tasks if task in ASKED[name]]})
        scorer = model if name == "reward" else None
        for result in evaluate(model, tokenizer, held, asked, scorer, partial(_keep, answers, name)):
            rows.append({"checkpoint": name, **asdict(result)})
    return rows, answers


def _keep(answers: list[dict[str, Any]], name: str, asked: Sequence[dict[str, Any]], written: Sequence[Any]) -> None:
    """Note the first answers of a model, with what was asked and what the dialogue's own answer is."""
    for dialogue, answer in list(zip(asked, written, strict=True))[:SHOWN]:
        turns = [turn["content"] for turn in dialogue["messages"] if turn["role"] == "user"]
        texts = {"question": turns[-1] if turns else "", "reference": answer.reference, "answer": answer.text}
        answers.append({"checkpoint": name, "ended": answer.ended} | {key: text[:LONG] for key, text in texts.items()})


class Evaluated(NamedTuple):
    """Nothing to hand on: figures are rows of `runs.evaluations`."""


@stage(Evaluated, version="4", libraries=LEARNING)
def evaluate(
    config: EvaluateConfig,
    runtime: Runtime,
    holdout: HoldOut,
    tokens: FolderRef | None = None,
    mixture: TableRef | None = None,
    conversations: TableRef | None = None,
    preferences: TableRef | None = None,
    exams: list[Exam] | None = None,
    **models: FolderRef | None,
) -> Produced:
    """Judge every model that is there on what no stage trained on, and by benchmarks: each figure comes with its
    interval, those of benchmarks with what of them is among the documents that trained the model."""
    lake = runtime.lake
    there = {name: model for name, model in models.items() if model is not None}
    if not there:
        raise UserError("no model was made to be judged: name one in `base`, or give documents to pretrain on")
    train: list[tuple[bytes, int]] = []
    documents: list[bytes] = []
    if tokens is not None and mixture is not None:
        train, documents = training_documents(lake, mixture, tokens, holdout.seed)
    asked = dialogues(lake, conversations, holdout)[1] if conversations else []
    judged = pairs(lake, preferences, holdout)[1] if preferences else []
    rows, answers = run_alone(
        _evaluate,
        config,
        {name: lake.path(there[name]) for name in ASKED if name in there},
        token_indices(lake, tokens) if tokens is not None else [],
        train,
        documents,
        asked,
        judged,
        runtime=runtime,
    )
    put = _benchmarks(config, runtime, exams, {name: there[name] for name in ASKED if name in there})
    return Produced(
        evaluations=rows + list(map(named, put["results"])),
        unfinished=put.pop("unfinished"),
        counts={"documents": len(documents), "dialogues": len(asked), "pairs": len(judged)},
        records_in=len(documents) + len(asked) + len(judged),
        records_out=len(rows) + len(put["results"]),
        report={"results": rows + list(map(named, put.pop("results"))), "answers": answers} | put,
    )


def _benchmarks(
    config: EvaluateConfig, runtime: Runtime, exams: list[Exam] | None, models: dict[str, FolderRef]
) -> dict[str, Any]:
    """What the models that write say of benchmarks: `results`, how each `compared` with the first, `contamination`."""
    lake = runtime.lake
    judgeable = [
        Judgeable(name, lake.path(ref), ref.data_version, ref.fingerprint)
        for name, ref in models.items()
        if "perplexity" in ASKED[name]
    ]
    if not exams or not judgeable:
        return {"results": [], "unfinished": {}}
    found = grid(judgeable, exams, runtime)
    for one in judgeable:
        keep(lake, ledger_rows(one.record or one.version, one.name, found.judged[one.name]))
    return found.figures(config.confidence, config.resamples) | {"unfinished": found.unfinished}
