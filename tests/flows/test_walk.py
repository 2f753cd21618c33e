"""What a new stage takes: all that is written for one stands in this file, and what a stage has comes with it."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Any, Literal, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc
import pytest
import world
from pydantic import BaseModel

from datalake.lake.lake import Lake, TableRef
from datalake.lake.parquet import read_table
from datalake.lake.shards import ShardResult, ShardWriter
from flows.dry import DryRun
from flows.parameters import resolve
from flows.run import Run
from tasks.cluster import Shard
from tasks.curate import curate
from tasks.ingest import IngestConfig, ingest
from tasks.outputs import Table
from tasks.produced import Produced
from tasks.runtime import Runtime
from tasks.shards import map_table
from tasks.stage import stage

# The file in tasks/ ---------------------------------------------------------------------------------------------------

SCHEMA = pa.schema([("id", pa.binary(16)), ("length", pa.int64())])


class LengthsConfig(BaseModel):
    """The section of the recipe."""

    unit: Literal["characters", "bytes"] = "characters"


class Lengths(NamedTuple):
    """How long each document is."""

    lengths: Table


def _measure(config: LengthsConfig, shard: Shard) -> ShardResult:
    """The lengths of the documents of one file."""
    assert shard.folder is not None
    rows = read_table(shard.payload, ["id", "text"])
    size = pc.utf8_length if config.unit == "characters" else pc.binary_length
    with ShardWriter(shard.folder, shard.name, shard.key, {"lengths": SCHEMA}) as out:
        out.write("lengths", pa.table([rows["id"], pc.cast(size(rows["text"]), pa.int64())], schema=SCHEMA))
    return out.result


@stage(Lengths, version="1", libraries=("pyarrow",))
def lengths(config: LengthsConfig, runtime: Runtime, documents: TableRef) -> Produced:
    """Measure every document."""
    done = map_table(partial(_measure, config), documents, config, runtime, "lengths")
    rows = done.rows("lengths")
    return Produced(
        tables={"lengths": (SCHEMA, done.files("lengths"))},
        records_in=documents.rows,
        records_out=rows,
        equations=[] if done.failed else [("a length for each document", documents.rows, rows)],
        unfinished=done.failed,
    )


# The row in flows/pipeline.py -----------------------------------------------------------------------------------------


def pipeline(run: Run, section: LengthsConfig | None) -> None:
    read = run(ingest, IngestConfig(sources=run.recipe.sources), archives=run.archives(run.recipe.sources))
    kept = run(curate, run.recipe.curate_by_kind, raw=read.raw)
    run(lengths, section, documents=kept.documents)


# What it has then -----------------------------------------------------------------------------------------------------


@pytest.fixture
def files(prefect_server: Any, tmp_path: Path) -> list[Path]:
    return [world.texts(tmp_path / f"{n}.jsonl", range(10 * n, 10 * n + 3)) for n in range(2)]


def track(recipe: dict[str, Any], lake: Path, section: LengthsConfig | None) -> dict[str, Any]:
    from flows.flows import TrackedRun
    from tasks.log import RunLog
    from tasks.tracked import RUN_LOG

    log = RunLog("walk")
    token = RUN_LOG.set(log)
    try:
        pipeline(TrackedRun(resolve(recipe, []), Lake(lake).create(), "evaluate", log), section)
    finally:
        RUN_LOG.reset(token)
    return {report.stage: report for report in log.reports}


def look(recipe: dict[str, Any], lake: Path, section: LengthsConfig | None) -> dict[str, str]:
    run = DryRun(resolve(recipe, []), Lake(lake))
    pipeline(run, section)
    return {report.stage: report.state for report in run.reports}


def test_a_stage_has_a_table_a_cache_shards_of_its_own_and_a_reason(files: list[Path], tmp_path: Path) -> None:
    recipe, lake = world.tables(tmp_path, files), tmp_path / "lake"
    assert world.states(track(recipe, lake, LengthsConfig())) == dict.fromkeys(("ingest", "curate", "lengths"), "ran")
    current = [read_table(path) for path in Lake(lake).current_files("small.lengths")]
    rows = [json.loads(line) for path in files for line in path.read_text().splitlines()]
    measured = pa.concat_tables(current)["length"].to_pylist()
    assert sorted(measured) == sorted(len(row["text"]) for row in rows)
    assert track(recipe, lake, LengthsConfig())["lengths"].state == "cached"
    assert look(recipe, lake, LengthsConfig())["lengths"] == "cached"
    assert look(recipe, lake, LengthsConfig(unit="bytes"))["lengths"] == "would run"
    before = world.shard_marks(lake, "lengths")
    more = world.tables(tmp_path, [*files, world.texts(tmp_path / "more.jsonl", range(50, 53))])
    assert track(more, lake, LengthsConfig())["lengths"].state == "ran"
    assert before.items() < world.shard_marks(lake, "lengths").items()
    assert track(recipe, lake, None)["lengths"].note == "`lengths` is null in the recipe"
    dialogues = recipe | {"sources": [{"kind": "conversations", "paths": [str(world.dialogues(tmp_path / "d.jsonl"))]}]}
    assert track(dialogues, lake, LengthsConfig())["lengths"].note == "no source of documents"
