"""The training stages: tokenizer, token shards, pretraining. `models` does the learning; here it meets the lake.

A training function takes local paths and plain values, runs alone on the cluster and keeps its state for resuming in
the stage's folder, so a killed run goes on from its last checkpoint. It appends to `metrics.jsonl`, which is what the
progress bar, the curves and `runs.metrics` are made from.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pydantic import BaseModel, ConfigDict

from datalake.dedup.cut import Cuts, cut_texts, read_cuts
from datalake.errors import LostDataError, UserError, first_line
from datalake.identity import file_digest, fingerprint
from datalake.lake import FolderRef, Lake, TableRef
from datalake.mixture.holdout import repetitions
from datalake.parquet import read_batches, read_table
from datalake.shards import ShardFile, ShardResult, finish_shard, remove_leftovers, write_atomically
from models.text.config import TokenizerConfig
from models.training.config import PretrainConfig, RewardConfig, SftConfig
from tasks.artifacts import Curves, progress
from tasks.cluster import Shard, map_shards, run_alone
from tasks.data import gather, shards_of, total
from tasks.runtime import Runtime
from tasks.stage import Produced, stage

# What shapes a checkpoint beside our own code: the arithmetic, the text as tokens, the files it is written to.
LEARNING = ("torch", "numpy", "tokenizers", "transformers", "safetensors")


def mixture_ids(files: list[str], split: str | None = None) -> pa.ChunkedArray:
    """Ids of the documents in the mixture, or in one split of it."""
    filters = None if split is None else [("split", "=", split)]
    tables = [read_table(file, ["id"], filters) for file in files]
    return pa.concat_tables(tables)["id"] if tables else pa.chunked_array([], pa.binary(16))


def selected_texts(documents: str, wanted: pa.ChunkedArray, cuts: Cuts) -> Iterator[tuple[pa.Array, pa.Array]]:
    """Columns (ids, texts) of the documents of one file whose id is wanted, in its order, without what is cut."""
    for batch in read_batches(documents, ["id", "text"]):
        kept = batch.filter(pc.is_in(batch["id"], wanted))
        yield kept["id"], cut_texts(kept["id"], kept["text"], cuts)


def _pairs(columns: Iterable[tuple[pa.Array, pa.Array]]) -> Iterator[tuple[bytes, str]]:
    """Rows (id, text) of such columns."""
    for ids, texts in columns:
        yield from zip(ids.to_pylist(), texts.to_pylist(), strict=True)


def _train_tokenizer(
    documents: list[str], mixture: list[str], spans: list[str], config: TokenizerConfig, folder: Path
) -> None:
    """Train on the documents of the train split, an even sample of them where they exceed the config's cap."""
    from models.text.tokenizer import train

    wanted = mixture_ids(mixture, "train")

    def columns() -> Iterator[tuple[pa.Array, pa.Array]]:
        for file in documents:
            ids = read_table(file, ["id"])["id"] if spans else wanted[:0]
            yield from selected_texts(file, wanted, read_cuts(spans, ids.filter(pc.is_in(ids, wanted))))

    size = sum(pc.sum(pc.binary_length(texts)).as_py() or 0 for _, texts in columns())
    share = min(1.0, config.sample_bytes / max(size, 1))
    texts = (text for id, text in _pairs(columns()) if int.from_bytes(id[:8], "big") < share * 2**64)
    train(texts, config, folder)


@stage(version="2", libraries=("tokenizers", "transformers"))
def tokenizer(
    documents: TableRef,
    mixture: TableRef,
    config: TokenizerConfig,
    runtime: Runtime,
    spans: TableRef | None = None,
) -> Produced:
    """Train a byte-level BPE tokenizer on the mixture's training documents."""
    lake = runtime.lake
    folder = runtime.folder
    files = [shard.payload for shard in shards_of(documents, runtime, config)]
    cuts = lake.files(spans) if spans else []
    run_alone(_train_tokenizer, files, lake.files(mixture), cuts, config, folder, runtime=runtime)
    size = len(json.loads((folder / "tokenizer.json").read_bytes())["model"]["vocab"])
    return Produced(
        folders={"tokenizer": folder},
        counts={"vocabulary": size},
        records_in=mixture.rows,
        records_out=size,
        report={"vocabulary": size},
    )


class TokenizeConfig(BaseModel):
    """Nothing to set: the tokenizer and the documents say it all."""

    model_config = ConfigDict(extra="forbid", frozen=True)


def _left_out_file(folder: Path, failed: Sequence[tuple[bytes, str]]) -> ShardFile:
    """Documents without tokens, and why, beside the tokens of the others."""
    path = folder / "left_out.parquet"
    rows = [{"id": id, "reason": reason} for id, reason in failed]
    sink = pa.BufferOutputStream()
    schema = pa.schema([("id", pa.binary(16)), ("reason", pa.string())])
    pq.write_table(pa.Table.from_pylist(rows, schema), sink, write_page_checksum=True)
    write_atomically(path, sink.getvalue().to_pybytes())
    return ShardFile("left_out", str(path), len(rows), file_digest(str(path)), path.stat().st_size)


def _tokenize_shard(shard: Shard) -> ShardResult:
    """The tokens of the documents chosen from one file."""
    from models.text.shards import write_shard
    from models.text.tokenizer import load

    documents, chosen, cuts, tokenizer_folder = shard.payload
    assert shard.folder is not None
    remove_leftovers(shard.folder)
    wanted = pa.chunked_array([pa.array(chosen, pa.binary(16))])
    texts = _pairs(selected_texts(documents, wanted, cuts))
    written = write_shard(texts, load(tokenizer_folder), shard.folder, "tokens")
    result = ShardResult(shard.name, shard.key)
    for table, path in (("index", written.index_path), ("tokens", written.tokens_path)):
        digest, size = file_digest(str(path)), path.stat().st_size
        result.files.append(ShardFile(table, str(path), written.documents, digest, size))
    result.counts = {"documents": written.documents, "tokens": written.tokens, "bytes": written.bytes}
    if written.left_out:
        result.counts["left_out"] = len(written.left_out)
        result.files.append(_left_out_file(shard.folder, written.left_out))
    finish_shard(shard.folder, result)
    return result


@stage(version="2", libraries=("tokenizers", "transformers", "numpy"))
def tokenize(
    documents: TableRef,
    mixture: TableRef,
    tokenizer: FolderRef,
    repetition_seed: int,
    config: TokenizeConfig,
    runtime: Runtime,
    spans: TableRef | None = None,
) -> Produced:
    """Encode every document that trains or is held out into memory-mapped token shards with an index."""
    lake = runtime.lake
    train, heldout = split_documents(lake, mixture, repetition_seed)
    wanted = pa.array([*(id for id, times in train if times), *heldout], pa.binary(16))
    files = lake.files(spans) if spans else []
    shards = []
    for shard in shards_of(documents, runtime, config):
        # A shard's tokens change with the documents chosen in its file and what is cut from these, not with what is
        # chosen and cut elsewhere.
        ids = read_table(shard.payload, ["id"])["id"]
        chosen = ids.filter(pc.is_in(ids, wanted)).to_pylist()
        if not chosen:
            continue
        source = {"file": shard.key, "ids": fingerprint(chosen), "tokenizer": tokenizer.data_version}
        cuts = read_cuts(files, pa.array(chosen, pa.binary(16)))
        if cuts:
            source["cut"] = fingerprint({id.hex(): spans for id, spans in cuts.items()})
        key = runtime.shard_key(config, source)
        payload = (shard.payload, chosen, cuts, lake.path(tokenizer))
        shards.append(Shard(shard.name, key, payload, lake.shard_folder("tokenize", key)))
    with progress("tokenize", len(shards)) as tell:
        results, failed = gather(map_shards(_tokenize_shard, shards, runtime, tell))
    counts = total(results)
    listed = [
        {"index": lake.relative(Path(r.files[0].path)), "digests": [f.digest for f in r.files], **r.counts}
        for r in results
    ]
    write_atomically(runtime.folder / "tokens.json", json.dumps({"shards": listed}, indent=1).encode())
    return Produced(
        folders={"tokens": runtime.folder},
        named={"tokens": [file for result in results for file in result.files]},
        counts=counts,
        records_in=mixture.rows,
        records_out=counts.get("documents", 0),
        equations=[]
        if failed
        else [
            (
                "documents chosen = with tokens + left out",
                len(wanted),
                counts.get("documents", 0) + counts.get("left_out", 0),
            )
        ],
        unfinished=failed,
        left_out=[
            row for r in results for f in r.files if f.table == "left_out" for row in read_table(f.path).to_pylist()
        ],
        note=f"{counts['left_out']:,} documents left out: the tokenizer failed on them" if "left_out" in counts else "",
    )


def token_indices(lake: Lake, tokens: FolderRef) -> list[Path]:
    """The index files of token shards, in their fixed order."""
    path = lake.path(tokens) / "tokens.json"
    try:
        listed = [shard["index"] for shard in json.loads(path.read_bytes())["shards"]]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise LostDataError(str(path), first_line(error)) from None
    return [lake.inside(index) for index in listed]


def split_documents(lake: Lake, mixture: TableRef, seed: int) -> tuple[list[tuple[bytes, int]], list[bytes]]:
    """(id, repetitions) of what may train, and the ids that are held out, both in the mixture's order."""
    train: list[tuple[bytes, int]] = []
    heldout: list[bytes] = []
    for file in lake.files(mixture):
        for row in read_table(file, ["id", "split", "epochs"]).to_pylist():
            if row["split"] == "heldout":
                heldout.append(row["id"])
            else:
                train.append((row["id"], repetitions(row["epochs"], row["id"], seed)))
    return train, heldout


def training_documents(
    lake: Lake, mixture: TableRef, tokens: FolderRef, seed: int
) -> tuple[list[tuple[bytes, int]], list[bytes]]:
    """(id, repetitions) of what trains, and the ids that are held out: those that have tokens.

    Where tokenize was partial, documents of its unfinished shards are missing here, and its data version says so.
    """
    have = {id for index in token_indices(lake, tokens) for id in read_table(index, ["id"])["id"].to_pylist()}
    train, heldout = split_documents(lake, mixture, seed)
    return [(id, times) for id, times in train if times and id in have], [id for id in heldout if id in have]


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """Rows (step, name, value) of a trainer's `metrics.jsonl`, complete lines only."""
    rows = []
    if path.exists():
        for line in path.read_text().splitlines():
            try:
                values = json.loads(line)
            except json.JSONDecodeError:  # the line being written just now
                continue
            step = values.pop("step")
            rows += [
                {"step": step, "name": name, "value": float(value)}
                for name, value in values.items()
                if isinstance(value, int | float)
            ]
    return rows


def planned_steps(config: SftConfig | RewardConfig, items: int) -> int:
    """About how many steps a stage will take, for its progress bar."""
    return config.steps or max(1, math.ceil(config.epochs * math.ceil(items / config.batch)))


def train_alone(
    title: str, work: Callable[..., dict[str, Any]], steps: int, runtime: Runtime, *arguments: Any
) -> dict[str, Any]:
    """Run a training function alone on the cluster while its metrics drive the progress bar; returns its report."""
    out = runtime.folder
    out.mkdir(parents=True, exist_ok=True)

    drawn = Curves(title)
    with progress(title, steps, "steps") as bar:

        def rows() -> list[dict[str, Any]]:
            return read_metrics(out / "metrics.jsonl")

        def progressed(rows: list[dict[str, Any]]) -> tuple[int, str]:
            if not rows:
                return 0, ""
            last = {row["name"]: row["value"] for row in rows[-12:]}
            note = next((f"{name} {last[name]:.3f}" for name in ("loss", "reward") if name in last), "")
            return min(int(rows[-1]["step"]), steps), note

        def poll() -> None:
            read = rows()
            drawn.at(read)
            bar.at(*progressed(read))

        bar.look = lambda: progressed(rows())
        return dict(run_alone(work, *arguments, out, runtime=runtime, poll=poll))


def _pretrain(config: PretrainConfig, indices: list[Path], documents: Any, tokenizer: Path, out: Path) -> Any:
    from models.training.pretrain import pretrain as run

    train, heldout = documents
    return run(config, indices, train, heldout, tokenizer, out)


@stage(version="1", libraries=LEARNING)
def pretrain(
    tokens: FolderRef,
    mixture: TableRef,
    tokenizer: FolderRef,
    repetition_seed: int,
    config: PretrainConfig,
    runtime: Runtime,
) -> Produced:
    """Train a decoder from nothing on the mixture's token shards."""
    lake = runtime.lake
    documents = training_documents(lake, mixture, tokens, repetition_seed)
    if not documents[0]:
        raise UserError("no document is left to train on: lower mixture.holdout, or choose a milder curate.preset")
    report = train_alone(
        "pretrain",
        _pretrain,
        config.total_steps,
        runtime,
        config,
        token_indices(lake, tokens),
        documents,
        lake.path(tokenizer),
    )
    return trained("pretrain", report, runtime, records_in=len(documents[0]))


def left_out(report: dict[str, Any], items: Sequence[dict[str, Any]], noun: str) -> tuple[list[dict[str, Any]], str]:
    """Rows of `runs.left_out` from what a training function says it couldn't use, and a line about them.

    `report["left_out"]`, lists of [number in `items`, reason, tokens, room], is taken out of the report.
    """
    rows = [
        {"id": items[number]["id"], "reason": reason, "tokens": tokens, "room": room}
        for number, reason, tokens, room in report.pop("left_out")
    ]
    parts = [f"{count:,} {reason}" for reason, count in Counter(row["reason"] for row in rows).most_common()]
    said = [f"{len(rows):,} of {len(items):,} {noun} left out ({'; '.join(parts)})"] if rows else []
    if report.get("cut"):
        said.append(f"{report['cut']:,} of {len(items):,} {noun} cut to fit the context")
    return rows, ", ".join(said)


def trained(name: str, report: dict[str, Any], runtime: Runtime, records_in: int, **more: Any) -> Produced:
    """What every training stage produces: a checkpoint, metrics, a report."""
    return Produced(
        folders={name: runtime.folder / "checkpoint"},
        counts={key: value for key, value in report.items() if isinstance(value, int) and not isinstance(value, bool)},
        records_in=records_in,
        records_out=int(report.get("steps", 0)),
        report=report,
        metrics=read_metrics(runtime.folder / "metrics.jsonl"),
        checkpoint=name,
        **more,
    )
