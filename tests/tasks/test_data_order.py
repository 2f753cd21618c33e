"""What pretraining says of its data, from documents to a model in this process: shares beside what was asked, which
document stood where, and the one that made the loss spike."""

from __future__ import annotations

import random
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import world

from datalake.document import Document
from datalake.explain import explain
from datalake.identity import fingerprint
from datalake.lake.lake import Lake, TableRef
from datalake.lake.ledger import ask, query
from datalake.lake.records import Manifest, StageRecord, StageReport, now, write_manifest
from datalake.lake.shards import ShardWriter
from datalake.mixture.config import MixtureConfig, Shares
from datalake.tables import DOCUMENTS, to_table
from flows.lake import MADE
from models.methods.pretrain import PhaseConfig, PretrainConfig
from models.text.config import TokenizerConfig
from tasks.learning import learning, rows_of_step
from tasks.mixture import mixture
from tasks.runtime import Runtime, RuntimeConfig
from tasks.stage import Stage
from tasks.tokenize import TokenizeConfig, tokenize
from tasks.tokenizer import tokenizer
from tasks.tracked import _build

POISON = "https://broken.example/"
WEIGHTS = {"web": 0.7, "code": 0.3}
SHAPE = {"layers": 1, "width": 32, "heads": 2, "kv_heads": 1, "context": 32, "batch": 8, "eval_every": 0}


def documents(lake: Lake, table: str) -> TableRef:
    chance = random.Random(0)
    rows = [
        Document(number.to_bytes(16, "big"), world.prose(number, 6), source, f"https://a.example/{number}", language)
        for number, (source, language) in enumerate([("web", "en"), ("code", "en"), ("web", "zh")] * 40)
    ]
    noise = "".join(chance.choice("QXZJKVW%$#@!{}<>") for _ in range(400))
    rows.append(Document(b"p" * 16, noise, "web", POISON, "en"))
    with ShardWriter(lake.shard_folder(table, "d"), table, "d", {table: DOCUMENTS}) as out:
        out.write(table, to_table(rows, DOCUMENTS))
    return lake.commit(f"tiny.{table}", DOCUMENTS, out.result.files, "d" * 64)


class Built:
    """A lake with stages built one after the other, as a run does, without Prefect's server."""

    def __init__(self, root: Path) -> None:
        self.lake = Lake(root).create()
        self.reports: list[StageReport] = []
        self.records: dict[str, StageRecord] = {}

    def __call__(self, stage: Stage[Any, Any, Any], config: Any, **inputs: Any) -> Any:
        payload = stage.payload(config, inputs)
        runtime = Runtime(
            RuntimeConfig(workers=1, cluster="inline"), self.lake.root, "tiny", "run", stage.key, fingerprint(payload)
        )
        record = _build(stage, payload, config, runtime, inputs)
        self.records[stage.name] = record
        self.reports.append(record.reported("ran", 1.0))
        return stage.typed(config, record.outputs.__getitem__)


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Built:
    made = Built(tmp_path_factory.mktemp("order") / "lake")
    raw, kept = documents(made.lake, "raw"), documents(made.lake, "documents")
    made.reports.append(StageReport(stage="ingest", state="ran", seconds=1.0, outputs={"raw": raw, "documents": kept}))
    decided = TableRef(table="tiny.duplicates", snapshot=None, fingerprint="e" * 64, data_version="e" * 64, rows=0)
    mixed = made(mixture, MixtureConfig(holdout=0.0), documents=kept, duplicates=decided)
    words = made(tokenizer, TokenizerConfig(vocabulary=400), documents=kept, mixture=mixed.mixture)
    inputs = {"documents": kept, "mixture": mixed.mixture, "tokenizer": words.tokenizer, "repetition_seed": 0}
    tokens = made(tokenize, TokenizeConfig(), **inputs)
    phases = (PhaseConfig(share=1, mixture=Shares(weights=WEIGHTS)),)
    config = PretrainConfig(**SHAPE, steps=140, phases=phases, spike_window=4, spike_sigma=2.5)
    inputs |= {"tokens": tokens.tokens}
    inputs.pop("documents")
    made(learning("pretrain"), config, **inputs)
    manifest = Manifest(
        run="run", corpus="tiny", recipe={}, started=now(), finished=now(), stages=made.reports, until=None
    )
    write_manifest(made.lake, manifest)
    return made


def test_the_shares_that_trained_are_those_asked(built: Built) -> None:
    report = built.records["pretrain"].report
    shares = report["shares"]
    sql = "SELECT source, language, sum(tokens)::BIGINT FROM tiny.order JOIN tiny.mixture USING (id) GROUP BY ALL"
    by_source: Counter[str] = Counter()
    by_language: Counter[str] = Counter()
    for source, language, tokens in ask(built.lake, sql, made=MADE)[1]:
        by_source[source] += tokens
        by_language[language] += tokens
    assert {row["source"]: row["tokens"] for row in shares["sources"]} == by_source
    assert {row["language"]: row["tokens"] for row in shares["languages"]} == by_language
    for row in shares["sources"]:
        assert row["asked"] == pytest.approx(WEIGHTS[row["source"]])
        assert row["share"] == pytest.approx(row["asked"], rel=0.01) or row["why"]
    assert "Tokens that trained, by source and language" in [figure["title"] for figure in report["figures"]]


def test_the_order_is_what_each_step_saw(built: Built) -> None:
    record = built.records["pretrain"]
    columns, rows, _ = ask(built.lake, "SELECT * FROM tiny.order ORDER BY step, position", made=MADE)
    assert columns == ["step", "position", "id", "first_token", "tokens"]
    left_out = {step for first, last in record.report.get("left_out_steps", ()) for step in range(first, last + 1)}
    assert {row[0] for row in rows} == set(range(1, record.report["steps"] + 1)) - left_out
    last = max(row[0] for row in rows)
    for step in (1, last):
        seen = [(row["id"], row["first_token"], row["tokens"]) for row in rows_of_step(built.lake, record, step)[1]]
        assert [tuple(row[2:]) for row in rows if row[0] == step] == seen


def test_the_document_that_made_the_loss_spike_is_named_everywhere(built: Built) -> None:
    record = built.records["pretrain"]
    _, rows = query(built.lake, "SELECT DISTINCT uri FROM runs.spikes WHERE rank = 1")
    assert rows == [(POISON,)]
    assert POISON in record.note
    assert any(POISON in finding["what"] for finding in record.report["findings"])
    assert {culprit["uri"] for culprit in record.report["spike_culprits"]} == {POISON}
    _, told = query(built.lake, "SELECT spike, step, loss, run FROM runs.spikes WHERE rank = 1 ORDER BY spike")
    assert all(run == "run" and loss > 4 for _, _, loss, run in told)
    assert b"p" * 16 in [row["id"] for row in rows_of_step(built.lake, record, told[0][1])[1]]
    (story,) = explain(built.lake, POISON)
    assert {spike["rank"] for spike in story["spikes"]} == {1}
    _, ranks = query(built.lake, "SELECT uri FROM tiny.ledger WHERE spike_rank = 1 ORDER BY spike_loss DESC LIMIT 1")
    assert ranks == [(POISON,)]
