"""What a checkpoint was trained on: documents, dialogues and pairs of every stage that it rests on, as texts."""

from __future__ import annotations

from collections.abc import Iterator

import pyarrow as pa

from datalake.dedup.spans.cut import read_cuts
from datalake.lake.lake import Lake, TableRef
from datalake.lake.records import StageRecord, lineage, read_record
from models.methods import METHODS
from tasks.dialogues import HoldOut, dialogues, pairs
from tasks.tokens import selected_texts, split_documents

READING = ("tokenize", *METHODS)  # the stages that read what trains a model


def training_texts(lake: Lake, fingerprint: str) -> Iterator[tuple[str, str]]:
    """What a checkpoint was trained on, (id in hex, text), each once."""
    record = read_record(lake, fingerprint)
    seen: set[str] = set()
    for one in lineage(lake, record).values() if record else ():
        for id, text in texts_of(lake, one) if one else ():
            if id not in seen:
                seen.add(id)
                yield id, text


def texts_of(lake: Lake, record: StageRecord) -> Iterator[tuple[str, str]]:
    """What one stage was given to train on, (id in hex, text); nothing where it doesn't train."""
    tables = {name: [ref for ref in refs if isinstance(ref, TableRef)] for name, refs in record.inputs.items()}
    said = record.payload.get("inputs", {})
    if record.stage == "tokenize":
        seed = int(said.get("repetition_seed") or 0)
        wanted = pa.array(
            [id for ref in tables["mixture"] for id, times in split_documents(lake, ref, seed)[0] if times],
            pa.binary(16),
        )
        cuts = read_cuts([file for ref in tables.get("spans", ()) for file in lake.files(ref)], wanted)
        for file in (file for ref in tables["documents"] for file in lake.files(ref)):
            for ids, texts in selected_texts(file, pa.chunked_array([wanted]), cuts):
                yield from ((id.hex(), text) for id, text in zip(ids.to_pylist(), texts.to_pylist(), strict=True))
    elif record.stage in METHODS:
        holdout = HoldOut.model_validate(said["holdout"]) if "holdout" in said else HoldOut(seed=0, share=0.0)
        if tables.get("conversations"):
            for talk in dialogues(lake, tables["conversations"], holdout)[0]:
                yield talk["id"].hex(), "\n".join(str(turn["content"] or "") for turn in talk["messages"])
        if tables.get("preferences"):
            for pair in pairs(lake, tables["preferences"], holdout, unpaired=True)[0]:
                turns = [str(turn["content"] or "") for turn in pair["prompt"]]
                answers = [str(pair[name]) for name in ("chosen", "rejected") if pair.get(name)]
                yield pair["id"].hex(), "\n".join([*turns, *answers])
