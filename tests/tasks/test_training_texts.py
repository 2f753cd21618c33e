"""What trained a checkpoint is what its stages read: documents that aren't held out, without cuts, dialogues, pairs."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa

from datalake.dedup.spans.schema import SPANS
from datalake.document import Conversation, Document, Preference
from datalake.identity import fingerprint
from datalake.lake.lake import Lake, TableRef
from datalake.lake.records import StageRecord, write_record
from datalake.lake.shards import ShardWriter
from datalake.mixture.build import MIXTURE
from datalake.tables import CONVERSATIONS, DOCUMENTS, PREFERENCES, to_table
from tasks.training_texts import training_texts


def test_training_texts_are_those_of_every_stage_that_a_checkpoint_rests_on(tmp_path: Path) -> None:
    lake = Lake(tmp_path / "lake").create()
    prints = {name: fingerprint(name) for name in ("ingest", "mixture", "spans", "tokenize", "sft", "dpo")}

    def commit(name: str, schema: pa.Schema, rows: list[Any], stage: str) -> TableRef:
        table = pa.Table.from_pylist(rows, schema=schema) if isinstance(rows[0], dict) else to_table(rows, schema)
        with ShardWriter(lake.shard_folder("test", fingerprint(name)), name, fingerprint(name), {name: schema}) as out:
            out.write(name, table)
        return lake.commit(f"toy.{name}", schema, out.result.files, prints[stage])

    def record(stage: str, inputs: dict[str, list[Any]], **payload: Any) -> None:
        told = {"stage": stage, "version": "1", "corpus": "toy", "fingerprint": prints[stage], "state": "done"}
        told |= {"payload": {"config": {}, "inputs": payload}, "outputs": {}, "counts": {}, "seconds": 1.0}
        write_record(lake, StageRecord.model_validate(told | {"inputs": inputs, "started": datetime.now(UTC)}))

    ids = [bytes([n]) * 16 for n in range(6)]
    texts = ["It trains.", "It is held out.", "Kept, cut away."]
    documents = [Document(id, text, "web", "u") for id, text in zip(ids, texts, strict=False)]
    mixed = [
        {
            "id": id,
            "source": "web",
            "language": "en",
            "split": split,
            "weight": 1.0,
            "epochs": 1.0,
            "words": 2,
            "copies": 1,
        }
        for id, split in zip(ids, ("train", "heldout", "train"), strict=False)
    ]
    cut = dict.fromkeys(SPANS.names) | {"id": ids[2], "start": 4, "end": 14}
    said = [{"role": "user", "content": "Who?"}, {"role": "assistant", "content": "I."}]
    talk = Conversation(ids[3], "talk", "u", said)
    pair = Preference(ids[4], "pairs", "u", said[:1], "You.", None)
    record(
        "tokenize",
        {
            "documents": [commit("documents", DOCUMENTS, documents, "ingest")],
            "mixture": [commit("mixture", MIXTURE, mixed, "mixture")],
            "spans": [commit("spans", SPANS, [cut], "spans")],
        },
        repetition_seed=0,
    )
    tokens = {
        "name": "tokens",
        "path": "x",
        "fingerprint": prints["tokenize"],
        "data_version": prints["tokenize"],
        "kind": "folder",
    }
    held = {"seed": 0, "share": 0.0}
    record(
        "sft",
        {"conversations": [commit("conversations", CONVERSATIONS, [talk], "ingest")], "base": [tokens]},
        holdout=held,
    )
    model = tokens | {"fingerprint": prints["sft"]}
    record(
        "dpo", {"preferences": [commit("preferences", PREFERENCES, [pair], "ingest")], "base": [model]}, holdout=held
    )
    assert dict(training_texts(lake, prints["dpo"])) == {
        ids[0].hex(): "It trains.",
        ids[2].hex(): "Kept.",
        ids[3].hex(): "Who?\nI.",
        ids[4].hex(): "Who?\nYou.",
    }
    assert ids[4].hex() not in dict(training_texts(lake, prints["sft"]))
