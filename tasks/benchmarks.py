"""Checkpoints judged by benchmarks through the cluster: a grid of checkpoints and exams, no cell judged twice.

A shard is some questions put to one checkpoint; its key is what is asked and the checkpoint's content, so every run of
the lake, schedules and promotions included, takes answers that are there. No answer depends on its neighbours.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import pyarrow as pa

from datalake.identity import fingerprint
from datalake.lake.copies import near_folder
from datalake.lake.lake import Lake
from datalake.lake.parquet import read_table
from datalake.lake.records import ANSWERS, EVALUATIONS, lineage, read_record
from datalake.lake.shards import ShardResult, ShardWriter
from datalake.places import place
from models.evaluation.compare import compare
from models.evaluation.contamination import contaminated
from models.evaluation.exam import Exam
from models.evaluation.judged import Judged, as_row, beside, contamination, figures_of, named, tell_documents
from tasks.cluster import Shard, map_shards
from tasks.learning import LEARNING
from tasks.runtime import Runtime, StageKey
from tasks.shown.artifacts import progress
from tasks.stage import library_versions
from tasks.training_texts import READING, texts_of

if TYPE_CHECKING:
    from torch import nn
    from transformers import PreTrainedTokenizerBase

ITEMS = 64  # in one shard: what a kill may lose
# The version rises where answers, or how they are scored, change: rewards that answers are checked by included.
_KEYS = StageKey("benchmarks", "2", library_versions(LEARNING))
_JUDGED = pa.schema(
    [
        *(field for field in ANSWERS if field.name not in ("fingerprint", "checkpoint", "documents")),
        ("figures", pa.map_(pa.string(), pa.list_(pa.float64()))),
    ]
)
_OVERLAPS = pa.schema([("text", pa.int64()), ("document", pa.string())])


class Judgeable(NamedTuple):
    """A checkpoint: what it is called, its folder, its content's version, and its record where this lake made it."""

    name: str
    folder: Path
    version: str
    record: str | None = None


class Grid(NamedTuple):
    """What checkpoints said, by their names; the cells that couldn't be judged, with why; the checkpoints in whose
    training documents the items were looked for."""

    judged: dict[str, list[Judged]]
    unfinished: dict[str, str]
    searched: set[str]

    def figures(self, confidence: float = 0.95, resamples: int = 1000) -> dict[str, list[dict[str, Any]]]:
        """`results`, `compared` (every checkpoint with the first) and `contamination`, as `headwater eval` prints them.

        Beside a result stand `seen`, the share of its items that documents which trained the checkpoint hold, and its
        value `without` them; where no documents are known neither does.
        """
        options: dict[str, Any] = {"confidence": confidence, "resamples": resamples}
        results: list[dict[str, Any]] = []
        compared: list[dict[str, Any]] = []
        dirty: list[dict[str, Any]] = []
        first, *others = self.judged
        for name, rows in self.judged.items():
            mine = {"checkpoint": name}
            held = contamination(rows, **options) if name in self.searched else []
            dirty += [mine | row for row in held]
            results += [mine | row for row in beside(figures_of(rows, **options), held)]
        for name in others:
            pair = {"checkpoint": name, "with": first}
            compared += [pair | row for row in compare(self.judged[first], self.judged[name], **options)]
        return {"results": results, "compared": compared, "contamination": dirty}


def grid(checkpoints: Sequence[Judgeable], exams: Sequence[Exam], runtime: Runtime, trust: bool = False) -> Grid:
    """Put every exam to every checkpoint; rows are told the documents that trained their checkpoint and hold their
    items. An exam of which a part couldn't be judged gives no rows, and is among the unfinished."""
    parts = [part for exam in exams for part in exam.parts(ITEMS)]
    identities = [part.identity for part in parts]
    runtime = Runtime(runtime.config, runtime.lake_root, runtime.corpus, runtime.run, _KEYS)
    shards: dict[str, Shard] = {}
    cells: list[tuple[Judgeable, Exam, str]] = []
    for one in checkpoints:
        for part, identity in zip(parts, identities, strict=True):
            key = runtime.shard_key(identity, one.version)
            name = f"{one.name} {part.benchmark.name}"
            folder = runtime.lake.shard_folder(_KEYS.name, key)
            shards[key] = Shard(name, key, (str(one.folder), part, trust), folder)
            cells.append((one, part, key))
    done = _done(_judge, list(shards.values()), runtime, "benchmarks", on_gpus=True)
    _loaded.cache_clear()  # where this process judged itself
    judged: dict[str, list[Judged]] = {one.name: [] for one in checkpoints}
    unfinished: dict[str, str] = {}
    for one, part, key in cells:
        if done[key].state == "failed":
            unfinished[f"{one.name} {part.benchmark.name}"] = done[key].error
        else:
            judged[one.name] += _read(done[key])
    for one in checkpoints:
        judged[one.name] = [row for row in judged[one.name] if f"{one.name} {row.task}" not in unfinished]
        if one.record is not None:
            tell_documents(judged[one.name], exams, partial(_documents, runtime, one.record))
    return Grid(judged, unfinished, {one.name for one in checkpoints if one.record is not None})


def _done(
    work: Any, shards: Sequence[Shard], runtime: Runtime, title: str, on_gpus: bool = False
) -> dict[str, ShardResult]:
    with progress(title, len(shards)) as tell:
        return {result.key: result for result in map_shards(work, shards, runtime, tell, on_gpus)}


@lru_cache(maxsize=1)  # a worker is given cells of one checkpoint after another
def _loaded(folder: str, trust: bool) -> tuple[nn.Module, PreTrainedTokenizerBase]:
    import torch

    from models.network.build import keep_freed_memory
    from models.network.checkpoint import load

    keep_freed_memory()
    model, tokenizer = load(near_folder(place(folder)), trust)
    return model.to("cuda") if torch.cuda.is_available() else model, tokenizer


def _judge(shard: Shard) -> ShardResult:
    """Put some questions to a checkpoint."""
    from models.evaluation.judge import answered

    folder, part, trust = shard.payload
    assert shard.folder is not None, "answers are kept"
    rows = []
    for row in answered(*_loaded(folder, trust), part):
        told = {name: getattr(row, name) for name in _JUDGED.names}
        rows.append(told | {"figures": {name: list(parts) for name, parts in row.figures.items()}})
    with ShardWriter(shard.folder, shard.name, shard.key, {"answers": _JUDGED}) as out:
        out.write("answers", pa.Table.from_pylist(rows, schema=_JUDGED))
    return out.result


def _read(result: ShardResult) -> Iterator[Judged]:
    for file in result.files:
        for row in read_table(file.path).to_pylist(maps_as_pydicts="strict"):
            figures = {name: (above, below) for name, (above, below) in row.pop("figures").items()}
            yield Judged(**row, figures=figures)


# Documents ------------------------------------------------------------------------------------------------------------


def _documents(runtime: Runtime, record: str, texts: list[str]) -> list[list[str]]:
    """For each text the training documents of a checkpoint that contain it: those of each stage it rests on, which are
    looked through once."""
    made = read_record(runtime.lake, record)
    behind = [one for one in lineage(runtime.lake, made).values() if one and one.stage in READING] if made else []
    shards = {}
    for one in behind:
        key = runtime.shard_key({"texts": texts}, one.fingerprint)
        payload = str(runtime.lake.root), one.fingerprint, texts
        shards[key] = Shard(f"{one.stage}'s documents", key, payload, runtime.lake.shard_folder("overlaps", key))
    found: list[dict[str, None]] = [{} for _ in texts]
    for result in _done(_overlaps, list(shards.values()), runtime, "contamination").values():
        if result.state == "failed":
            raise RuntimeError(f"{result.name} can't be searched: {result.error}")
        for file in result.files:
            for row in read_table(file.path).to_pylist():
                found[row["text"]][row["document"]] = None
    return [list(names) for names in found]


def _overlaps(shard: Shard) -> ShardResult:
    """Look for texts in what one stage trained on."""
    root, print_, texts = shard.payload
    lake = Lake(root)
    record = read_record(lake, print_)
    assert record is not None, "it was read before"
    assert shard.folder is not None, "overlaps are kept"
    found = contaminated(texts, texts_of(lake, record))
    rows = [{"text": number, "document": name} for number, names in enumerate(found) for name in names]
    with ShardWriter(shard.folder, shard.name, shard.key, {"overlaps": _OVERLAPS}) as out:
        out.write("overlaps", pa.Table.from_pylist(rows, schema=_OVERLAPS))
    return out.result


# The ledger -----------------------------------------------------------------------------------------------------------


def ledger_rows(version: str, name: str, judged: Sequence[Judged]) -> list[dict[str, Any]]:
    """Rows of `runs.answers` of a checkpoint, known by its fingerprint or its content's version."""
    return [{"fingerprint": version, "checkpoint": name} | as_row(one) for one in judged]


def keep(lake: Lake, rows: Sequence[Mapping[str, Any]], figures: Sequence[Mapping[str, Any]] = ()) -> None:
    """Append answers of one checkpoint, and figures over them, to the lake; those that it has stand."""
    if not rows:
        return
    owner = fingerprint({"stage": "eval", "rows": rows})
    lake.append_rows("runs.answers", ANSWERS, rows, owner, once=True)
    shared = {name: rows[0][name] for name in ("fingerprint", "checkpoint")}
    lake.append_rows("runs.evaluations", EVALUATIONS, [named(dict(row)) | shared for row in figures], owner, once=True)
