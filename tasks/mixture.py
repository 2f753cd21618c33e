"""The stage `mixture`: what trains, how often, and what is held out."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from datalake.holdout import one_sided
from datalake.lake.funnel import tally
from datalake.lake.lake import TableRef
from datalake.lake.shards import ShardResult, ShardWriter, find_shard
from datalake.mixture.config import MixtureConfig
from tasks.cluster import run_alone
from tasks.outputs import Table
from tasks.produced import Produced
from tasks.runtime import Runtime
from tasks.stage import stage


def _mix(
    documents: list[str], duplicates: list[str], spans: list[str], config: MixtureConfig, folder: Path, key: str
) -> ShardResult:
    """The mixture over all clean documents."""
    from datalake.mixture.build import MIXTURE, build

    table = build(documents, duplicates, config, spans)
    with ShardWriter(folder, "mixture", key, {"mixture": MIXTURE}) as out:
        out.write("mixture", table)
        groups = table.group_by(["source", "split"]).aggregate([("id", "count"), ("words", "sum")])
        for row in groups.to_pylist():
            out.count(f"{row['split']} documents of {row['source']}", row["id_count"])
            out.count(f"{row['split']} words of {row['source']}", row["words_sum"])
    return out.result


class Mixed(NamedTuple):
    """What trains and what is held out."""

    mixture: Table


@stage(Mixed, version="3", libraries=("pyarrow", "numpy", "numba", "xxhash"))
def mixture(
    config: MixtureConfig,
    runtime: Runtime,
    documents: TableRef,
    duplicates: TableRef,
    spans: TableRef | None = None,
) -> Produced:
    """Choose what trains, how often, and which groups are held out, among documents that are no duplicates.

    Texts are read without `spans`; a document of which nothing is left is not in the mixture.
    """
    from datalake.mixture.build import MIXTURE, missed_shares

    lake = runtime.lake
    folder = lake.shard_folder("mixture", runtime.fingerprint)
    made = find_shard(folder)
    if made is None:
        inputs = lake.files(documents), lake.files(duplicates), lake.files(spans) if spans else []
        made = run_alone(_mix, *inputs, config, folder, runtime.fingerprint, runtime=runtime)
    rows = sum(file.rows for file in made.files)
    splits = tally([file.path for file in made.files if file.rows], "source", "split")
    sides = {source: (splits[source, "train"], splits[source, "heldout"]) for source, _ in sorted(splits)}
    words = {source: float(made.counts.get(f"train words of {source}", 0)) for source in sides}
    warnings = one_sided(sides, config.holdout) + missed_shares(words, config)
    return Produced(
        tables={"mixture": (MIXTURE, made.files)},
        counts=made.counts,
        records_in=documents.rows,
        records_out=rows,
        funnel=[{"what": name, "number": amount} for name, amount in sorted(made.counts.items())],
        report={"warnings": warnings} if warnings else {},
    )
