"""The evaluation stage: every model of a run on held-out documents, dialogues and pairs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa

from datalake.dedup.spans.cut import read_cuts
from datalake.errors import UserError
from datalake.lake.lake import FolderRef, Lake, TableRef
from datalake.lake.records import lineage, read_record
from datalake.lake.tokens import token_indices
from models.evaluation.config import EvaluateConfig
from models.methods import METHODS
from tasks.cluster import run_alone
from tasks.dialogues import HoldOut, dialogues, pairs
from tasks.learning import LEARNING
from tasks.produced import Produced
from tasks.runtime import Runtime
from tasks.stage import stage
from tasks.tokens import selected_texts, split_documents, training_documents

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
        model, tokenizer = load(folder)
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
    **models: FolderRef | None,
) -> Produced:
    """Judge every model that is there on what no stage trained on; each figure comes with its interval."""
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
    return Produced(
        evaluations=rows,
        counts={"documents": len(documents), "dialogues": len(asked), "pairs": len(judged)},
        records_in=len(documents) + len(asked) + len(judged),
        records_out=len(rows),
        report={"results": rows, "answers": answers},
    )


def training_texts(lake: Lake, fingerprint: str) -> Iterator[tuple[str, str]]:
    """What a checkpoint was trained on, (id in hex, text): documents, dialogues and pairs of every stage it rests on,
    each once."""
    record = read_record(lake, fingerprint)
    behind = lineage(lake, record) if record else {}
    seen: set[str] = set()
    for one in behind.values():
        if one is None:
            continue
        tables = {name: [ref for ref in refs if isinstance(ref, TableRef)] for name, refs in one.inputs.items()}
        said = one.payload.get("inputs", {})
        pieces: list[tuple[bytes, str]] = []
        if one.stage == "tokenize":
            seed = int(said.get("repetition_seed") or 0)
            wanted = pa.array(
                [id for ref in tables["mixture"] for id, times in split_documents(lake, ref, seed)[0] if times],
                pa.binary(16),
            )
            cuts = read_cuts([file for ref in tables.get("spans", ()) for file in lake.files(ref)], wanted)
            for file in (file for ref in tables["documents"] for file in lake.files(ref)):
                for ids, texts in selected_texts(file, pa.chunked_array([wanted]), cuts):
                    yield from ((id.hex(), text) for id, text in zip(ids.to_pylist(), texts.to_pylist(), strict=True))
        elif one.stage in METHODS:
            holdout = HoldOut.model_validate(said["holdout"]) if "holdout" in said else HoldOut(seed=0, share=0.0)
            if tables.get("conversations"):
                for talk in dialogues(lake, tables["conversations"], holdout)[0]:
                    pieces.append((talk["id"], "\n".join(str(turn["content"] or "") for turn in talk["messages"])))
            if tables.get("preferences"):
                for pair in pairs(lake, tables["preferences"], holdout, unpaired=True)[0]:
                    turns = [str(turn["content"] or "") for turn in pair["prompt"]]
                    answers = [str(pair[name]) for name in ("chosen", "rejected") if pair.get(name)]
                    pieces.append((pair["id"], "\n".join([*turns, *answers])))
        for id, text in pieces:
            if id.hex() not in seen:
                seen.add(id.hex())
                yield id.hex(), text
