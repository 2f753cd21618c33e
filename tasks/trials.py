"""Trainings beside each other, a shard each, and what is learned from them: `sweep` fits a law of scaling to small
models and foretells a larger one with it; `ablate` says which of two mixtures makes the better model.

A training leaves its loss on every held-out document and the time it took; its checkpoint goes. One that is finished is
taken by every later sweep and ablation that asks for it.
"""

from __future__ import annotations

import shutil
from collections.abc import Collection, Sequence
from typing import Any, NamedTuple

import pyarrow as pa

from datalake.atomic import write_atomically
from datalake.errors import UserError
from datalake.identity import fingerprint
from datalake.lake.copies import near_folder, workplace
from datalake.lake.lake import FolderRef, TableRef
from datalake.lake.parquet import read_table
from datalake.lake.shards import ShardResult, ShardWriter
from datalake.places import is_local, scratch
from datalake.tables import ID
from models.methods.pretrain import PretrainConfig
from models.scaling.config import AblationConfig, SweepConfig
from tasks.cluster import Shard
from tasks.learning import LEARNING
from tasks.material import Material, at_hand, material
from tasks.outputs import Folder
from tasks.produced import Produced
from tasks.runtime import Runtime
from tasks.shards import map_all
from tasks.stage import stage

LOSSES = pa.schema([("id", ID), ("nats", pa.float64()), ("targets", pa.int64()), ("bytes", pa.int64())])
POINTS = "points.csv"


def _train(shard: Shard) -> ShardResult:
    """Train one model, and lose it again: what stays is its loss on each held-out document."""
    from models.evaluation.tasks import losses
    from models.methods import METHODS
    from models.network.checkpoint import load
    from models.text.sampler import heldout
    from models.text.shards import TokenShards

    config, inputs = shard.payload
    assert shard.folder is not None
    folder = (shard.folder if is_local(shard.folder) else scratch() / shard.key) / "training"
    report = METHODS["pretrain"](config, out=folder, **at_hand(inputs))
    tokens = TokenShards(inputs["shards"])
    model, _ = load(folder / "checkpoint")
    documents = inputs["heldout"]
    found = losses(model, heldout(tokens, documents, config.context, config.batch))
    counted = documents[: len(found.nats)]
    sizes = [int(tokens.sizes[tokens.number(document)]) for document in counted]
    with ShardWriter(shard.folder, shard.name, shard.key, {"losses": LOSSES}) as out:
        out.write("losses", pa.table([pa.array(counted, ID), found.nats, found.tokens, sizes], schema=LOSSES))
        out.count("parameters", report["parameters"])
        out.count("tokens", report["steps"] * config.batch * config.context)
        out.count("steps", report["steps"])
    shutil.rmtree(folder)
    return out.result


def _shard(name: str, config: PretrainConfig, made: Material, versions: Any, runtime: Runtime) -> Shard:
    """One training; `versions` are those of the data that it is given."""
    config = config.model_copy(update={"eval_every": 0, "keep_state": False})
    key = runtime.shard_key(config, versions | {"heldout": fingerprint(made.inputs["heldout"])})
    return Shard(name, key, (config, made.inputs), runtime.lake.shard_folder("trials", key))


def _given(
    runtime: Runtime, tokens: FolderRef, mixture: TableRef, tokenizer: FolderRef, seed: int
) -> tuple[Material, dict[str, str]]:
    """What a training is given, and the versions of it. Raises UserError where nothing is held out."""
    from models.methods import METHODS

    refs: dict[str, Any] = {"tokens": tokens, "mixture": mixture, "tokenizer": tokenizer}
    made = material(METHODS["pretrain"], runtime.lake, refs | {"repetition_seed": seed})
    if not made.inputs["heldout"]:
        raise UserError("no document is held out to judge models on: raise mixture.holdout")
    return made, {name: ref.data_version for name, ref in refs.items()} | {"repetition_seed": str(seed)}


def _judge_on(made: Material, documents: Collection[bytes], count: int) -> None:
    """Judge models on so many of these documents. Ids are hashes: the first of them are a sample like any other."""
    made.inputs["heldout"] = sorted(documents)[:count]


def _done(shards: Sequence[Shard], runtime: Runtime, title: str) -> dict[str, ShardResult]:
    """The trainings by their keys: two that are given the same are done once. Raises UserError where one has
    failed, as what is said of them all needs each."""
    once = list({shard.key: shard for shard in shards}.values())
    mapped = map_all(_train, once, runtime, title, on_gpus=True)
    if mapped.failed:
        name, why = next(iter(mapped.failed.items()))
        raise UserError(f"{len(mapped.failed)} of {len(once)} trainings failed; {name}: {why}")
    return {result.key: result for result in mapped.results}


class Swept(NamedTuple):
    """A folder with the trainings as `headwater plan --fit` reads them."""

    sweep: Folder


@stage(Swept, version="1", libraries=(*LEARNING, "scipy"))
def sweep(
    config: SweepConfig,
    runtime: Runtime,
    tokens: FolderRef,
    mixture: TableRef,
    tokenizer: FolderRef,
    repetition_seed: int,
) -> Produced:
    """Train small models, fit Chinchilla's law to them, and say how far it is off for a larger one.

    Batch and rate are Step Law's. Raises UserError where a training fails.
    """
    from models.scaling.fit import fit
    from models.scaling.points import COLUMNS, Points
    from models.text.tokenizer import load, vocabulary_size

    made, versions = _given(runtime, tokens, mixture, tokenizer, repetition_seed)
    _judge_on(made, made.inputs["heldout"], config.documents)
    vocabulary = vocabulary_size(load(near_folder(runtime.lake.path(tokenizer))))
    wanted = [(depth, ratio) for depth in config.depths for ratio in config.ratios]
    wanted.append((config.held_out, sorted(config.ratios)[len(config.ratios) // 2]))
    shards = [
        _shard(
            f"{depth} layers, {ratio:g} tokens a parameter",
            sized(config, depth, ratio, vocabulary),
            made,
            versions,
            runtime,
        )
        for depth, ratio in wanted
    ]
    done = _done(shards, runtime, "sweep")
    rows = []
    for shard in shards:
        result = done[shard.key]
        table = read_table(result.files[0].path)
        loss = sum(table["nats"].to_pylist()) / sum(table["targets"].to_pylist())
        rows.append((result.counts["parameters"], result.counts["tokens"], loss))
    *small, (size, budget, loss) = rows
    law = fit(Points.of(small))
    low, high = law.interval(size, budget)
    expected = law.loss(size, budget)
    lines = [",".join(map(str, row)) for row in (COLUMNS, *small)]
    with workplace(runtime.folder) as here:
        write_atomically(here / POINTS, ("\n".join(lines) + "\n").encode())
    error = expected / loss - 1
    return Produced(
        folders={"sweep": runtime.folder},
        counts={"trainings": len(rows)},
        records_in=made.records,
        records_out=len(rows),
        report={
            "points": [list(row) for row in small],
            "chinchilla": {**law.constants, "objective": law.objective, "intervals": law.intervals},
            "held_out": {
                "parameters": size,
                "tokens": budget,
                "loss": loss,
                "expected": expected,
                "low": low,
                "high": high,
                "error": error,
            },
        },
        note=f"loss of {size:,} parameters: {expected:.3f} expected, {loss:.3f} came out ({error:+.2%})",
    )


def sized(config: SweepConfig, depth: int, ratio: float, vocabulary: int) -> PretrainConfig:
    """The pretraining of one model: its shape, its tokens, and the batch and rate that Step Law has for them."""
    from models.scaling.published import batch_tokens, learning_rate

    shape = {"layers": depth, "width": config.aspect * depth, "heads": depth, "kv_heads": depth, "hidden": None}
    model = config.pretrain.model_copy(update=shape)
    parameters = model.network(vocabulary).parameters
    budget = round(ratio * parameters)
    batch = max(1, round(batch_tokens(budget) / model.context))
    rate = learning_rate(parameters, budget)
    return model.model_copy(update={"tokens": budget, "batch": batch, "learning_rate": rate, "accumulation": 1})


class Ablated(NamedTuple):
    """Nothing to hand on: the comparison is in the record's report."""


@stage(Ablated, version="2", libraries=(*LEARNING, "scipy"))
def ablate(
    config: AblationConfig,
    runtime: Runtime,
    tokens: FolderRef,
    mixture: TableRef,
    other_tokens: FolderRef,
    other_mixture: TableRef,
    tokenizer: FolderRef,
    repetition_seed: int,
) -> Produced:
    """Train a model on each of two mixtures, once for each seed, and compare them by bits per byte of documents that
    both hold out: over all of them and by source.

    Raises UserError where no document is held out by both, or a training fails.
    """
    import numpy as np

    from models.evaluation.ablation import ablation

    sides = [
        _given(runtime, *refs, tokenizer, repetition_seed)
        for refs in ((tokens, mixture), (other_tokens, other_mixture))
    ]
    both = set(sides[0][0].inputs["heldout"]) & set(sides[1][0].inputs["heldout"])
    if not both:
        raise UserError("no document is held out by both mixtures: give them the same mixture.holdout and mixture.seed")
    for made, _ in sides:
        _judge_on(made, both, config.documents)
    seeds = [config.pretrain.seed + number for number in range(config.seeds)]
    shards = [
        [
            _shard(
                f"{side} mixture, seed {seed}",
                pretrain.model_copy(update={"seed": seed}),
                made,
                versions,
                runtime,
            )
            for seed in seeds
        ]
        for side, pretrain, (made, versions) in zip(
            ("first", "second"), (config.pretrain, config.other), sides, strict=True
        )
    ]
    done = _done([shard for side in shards for shard in side], runtime, "ablate")
    tables = [[read_table(done[shard.key].files[0].path) for shard in side] for side in shards]
    nats = [np.array([table["nats"].to_numpy() for table in side]) for side in tables]
    sizes = tables[0][0]["bytes"].to_numpy().astype(np.float64)
    sources = _sources(runtime, mixture)
    of = np.array([sources[id] for id in tables[0][0]["id"].to_pylist()])
    parts = {"all": np.ones(len(of), bool)} | {source: of == source for source in sorted(set(of.tolist()))}
    rows = [
        {"documents of": name, **ablation(nats[0][:, chosen], nats[1][:, chosen], sizes[chosen])}
        for name, chosen in parts.items()
    ]
    whole = rows[0]
    return Produced(
        counts={"trainings": 2 * len(seeds), "documents": len(of)},
        records_in=sides[0][0].records + sides[1][0].records,
        records_out=2 * len(seeds),
        report={"bits_per_byte": rows},
        note=f"the second mixture is {_said(whole)}",
    )


def _said(row: dict[str, Any]) -> str:
    verdict = "no different" if row["verdict"] == "no difference" else row["verdict"]
    return f"{verdict}: {row['difference']:+.4f} bits per byte ({row['low']:+.4f} to {row['high']:+.4f})"


def _sources(runtime: Runtime, mixture: TableRef) -> dict[bytes, str]:
    """The source of each document."""
    rows = [row for file in runtime.lake.files(mixture) for row in read_table(file, ["id", "source"]).to_pylist()]
    return {row["id"]: row["source"] for row in rows}
