"""The stage `deduplicate`: signed shard by shard, decided over all of them at once; then what is cut from the rest."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

import pyarrow as pa

from datalake.dedup.config import DedupConfig, SemanticConfig
from datalake.dedup.spans_config import LineMarking, SubstringMarking
from datalake.lake.lake import TableRef
from datalake.lake.parquet import read_batches
from datalake.lake.shards import ShardResult, ShardWriter, find_shard
from datalake.places import room_beside
from tasks.cluster import Shard, run_alone
from tasks.outputs import Table
from tasks.produced import Produced
from tasks.runtime import Runtime
from tasks.shards import Mapped, files_of, map_table
from tasks.shown.artifacts import progress
from tasks.stage import stage


def _sign_shard(config: DedupConfig, shard: Shard) -> ShardResult:
    """Signatures, buckets and shingles of one file of documents."""
    from datalake.dedup.texts.sign import COLUMNS, sign_batches, signature_schema

    assert shard.folder is not None
    schema = signature_schema(config.signing)
    with ShardWriter(shard.folder, shard.name, shard.key, {"signatures": schema}) as out:
        for batch in sign_batches(read_batches(shard.payload, COLUMNS), config.signing):
            out.write("signatures", pa.Table.from_batches([batch], schema))
    return out.result


def _embed_shard(config: SemanticConfig, shard: Shard) -> ShardResult:
    """Embeddings of one file of documents."""
    from datalake.dedup.meaning.embed import COLUMNS, embed_batches, embedding_schema

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
    outputs: list[tuple[Path, str]],
) -> list[ShardResult]:
    """Pairs and duplicates over all signatures, and embeddings where there are any; in parts, a folder and key each."""
    from datalake.dedup.decide import decide
    from datalake.dedup.schema import DUPLICATES, PAIRS

    made = []
    with TemporaryDirectory(prefix=".spill-", dir=room_beside(outputs[0][0])) as spill:
        decision = decide(files, config, threads, int(memory_gb * (1 << 30)), spill, curation, embeddings)
        for part, (folder, key) in enumerate(outputs):
            with ShardWriter(folder, "decide", key, {"pairs": PAIRS, "duplicates": DUPLICATES}) as out:
                for rows in decision.pairs_by_id(part, len(outputs)):
                    out.write("pairs", rows)
                for rows in decision.duplicates_by_id(part, len(outputs)):
                    out.write("duplicates", rows)
                for name, amount in decision.report.items() if part == 0 else ():
                    out.count(name, amount)
            made.append(out.result)
    return made


def _bands_page(config: DedupConfig) -> str:
    """What the UI shows of deduplication's bands: how likely a pair is compared, by its similarity."""
    from tasks.shown.curves import bands_svg, svg_image

    title = "How likely a pair of documents is compared, by its similarity"
    return (
        f"## {title}\n\n{config.signing.bands} bands of {config.signing.rows} rows. Every pair found is then verified"
        f" exactly.\n\n{svg_image(bands_svg(config.s_curve(), config.threshold), title)}"
    )


class Deduplicated(NamedTuple):
    """A decision on every document and what it rests on; what is cut from those that stay."""

    pairs: Table
    duplicates: Table
    signatures: Table
    embeddings: Table
    spans: Table


def _absent(config: DedupConfig) -> dict[str, str]:
    """The tables of searches that a recipe doesn't ask for."""
    absent = {} if config.semantic is not None else {"embeddings": "`deduplicate.semantic` is null in the recipe"}
    if config.lines is None and config.substrings is None:
        absent["spans"] = "`deduplicate.lines` and `deduplicate.substrings` are null in the recipe"
    return absent


@stage(Deduplicated, version="3", libraries=("pyarrow", "numpy", "numba", "xxhash"), absent=_absent)
def deduplicate(
    config: DedupConfig, runtime: Runtime, documents: TableRef, curation: TableRef | None = None
) -> Produced:
    """Find exact and near duplicates, and like ones in meaning, over all documents.

    Each one removed names the kept document it repeats. `curation` is asked for where the order of precedence goes by
    quality.
    """
    from datalake.dedup.schema import DUPLICATES, EMBEDDINGS, PAIRS, SIGNATURES
    from datalake.dedup.tables import parts_of
    from tasks.ranges import decide_over_ranges, ranges_of

    semantic, files = config.semantic, len(runtime.lake.files(documents))
    embedded = Mapped((), [], {})
    with progress("deduplicate", (files if semantic is None else 2 * files) + 1) as tell:
        signed = map_table(partial(_sign_shard, config), documents, config.signing, runtime, tell)
        if semantic is not None:
            embed = partial(_embed_shard, semantic)
            embedded = map_table(embed, documents, semantic.embedding, runtime, tell, on_gpus=True)
        failed = signed.failed | embedded.failed
        # Decisions belong to these signatures: over part of the documents they are that part's, and what is cut from
        # documents that stay leaves them as they are.
        known = [] if curation is None else runtime.lake.files(curation)
        source = signed.keys + embedded.keys
        source += [] if curation is None else [curation.data_version]
        parts = parts_of(signed.rows("signatures"))
        keys = [runtime.shard_key(config.without_spans, source + ([k] if k else [])) for k in range(parts)]
        outputs = [(runtime.lake.shard_folder("deduplicate", key), key) for key in keys]
        found = [find_shard(folder) for folder, _ in outputs]
        decided = [part for part in found if part is not None]
        ranges = ranges_of(signed.rows("signatures"), runtime.config, one_process=semantic is not None)
        if len(decided) < parts and ranges == 1:
            inputs, width = (signed.paths("signatures"), known, embedded.paths("embeddings")), runtime.config
            decided = run_alone(_decide, *inputs, config, width.workers, width.memory_gb, outputs, runtime=runtime)
        if decided:
            tell(decided[0])
    if len(decided) < parts:
        scratch = runtime.folder / "ranges"
        decided = decide_over_ranges(signed.files("signatures"), known, config, ranges, outputs, scratch, runtime)
    counts, rows = decided[0].counts, sum(file.rows for file in files_of(decided, "duplicates"))
    produced = Produced(
        tables={
            "pairs": (PAIRS, files_of(decided, "pairs")),
            "duplicates": (DUPLICATES, files_of(decided, "duplicates")),
            "signatures": (SIGNATURES, signed.files("signatures")),
            **({} if semantic is None else {"embeddings": (EMBEDDINGS, embedded.files("embeddings"))}),
        },
        counts=counts,
        records_in=documents.rows,
        records_out=counts["kept"],
        equations=[] if failed else [("one decision for each document", documents.rows, rows)],
        unfinished=failed,
        funnel=[{"what": name.replace("_", " "), "number": n} for name, n in counts.items()],
        report={"s_curve": config.s_curve(), "bands": config.signing.bands, "rows": config.signing.rows},
        pages={"bands": partial(_bands_page, config)},
    )
    if config.lines is not None or config.substrings is not None:
        _add_spans(produced, documents, list(signed.inputs()), decided, config, runtime)
    return produced


def _mark_shard(marking: LineMarking | SubstringMarking, shard: Shard) -> ShardResult:
    """Hashes of the lines, or fingerprints of the word runs, of one file of documents."""
    from datalake.dedup.spans.marks import COLUMNS, mark
    from datalake.dedup.spans.schema import FINGERPRINTS, MEMBERS, UNITS

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
    from datalake.dedup.spans.decide import MarkedShard, Spans
    from datalake.dedup.spans.schema import SPANS

    with ShardWriter(folder, "spans", key, {"spans": SPANS}) as out:
        with TemporaryDirectory(prefix=".spill-", dir=room_beside(folder)) as spill:
            spans = Spans([MarkedShard(**shard) for shard in marked], duplicates, config, Path(spill))
            for table in spans.tables():
                out.write("spans", table)
        for name, amount in spans.report.items():
            out.count(name, amount)
    return out.result


def _add_spans(
    produced: Produced,
    documents: TableRef,
    files: list[str],
    decided: list[ShardResult],
    config: DedupConfig,
    runtime: Runtime,
) -> None:
    """Add the table of spans to what deduplication produced, with its counts and equations.

    `files`: the documents that `decided` is about. Marks are made by shard, each level under keys of its own.
    """
    from datalake.dedup.spans.decide import MarkedShard
    from datalake.dedup.spans.schema import SPANS
    from tasks.ranges import cut_over_ranges, ranges_of

    marked: dict[str, dict[str, str]] = {file: {"documents": file} for file in files}
    keys: list[str] = []
    rows: dict[str, int] = {}
    for section in (config.lines, config.substrings):
        if section is None:
            continue
        title = f"deduplicate: {type(section).__name__.removesuffix('Config').lower()}"
        work = partial(_mark_shard, section.marking)
        done = map_table(work, documents, section.marking, runtime, title, only=marked)
        produced.unfinished |= done.failed
        keys += done.keys
        for file, result in done.inputs().items():
            marked[file] |= {made.table: made.path for made in result.files}
            rows |= {made.path: made.rows for made in result.files}
    # A document is cut by all levels or by none: what couldn't be marked is left as it is, and the stage is partial.
    levels = [name for name, on in (("units", config.lines), ("fingerprints", config.substrings)) if on is not None]
    whole = [shard for shard in marked.values() if all(level in shard for level in levels)]
    duplicates = [file.path for file in files_of(decided, "duplicates")]
    sections = {"lines": config.lines, "substrings": config.substrings}
    order = {"precedence": config.precedence, "sources": config.sources}
    key = runtime.shard_key(
        sections | order, {"decided": [file.digest for part in decided for file in part.files], "marks": keys}
    )
    folder = runtime.lake.shard_folder("deduplicate", key)
    spans = find_shard(folder)
    ranges = ranges_of(produced.records_in, runtime.config)
    if spans is None and ranges == 1:
        spans = run_alone(_cut, whole, duplicates, config, folder, key, runtime=runtime)
    elif spans is None:
        shards, scratch = [MarkedShard(**shard) for shard in whole], runtime.folder / "ranges"
        amounts = [rows[shard["members"]] for shard in whole]
        spans = cut_over_ranges(shards, amounts, duplicates, config, ranges, folder, key, scratch, runtime)
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
    cut = sum(n for name, n in counts.items() if name.endswith("_spans"))
    produced.equations.append(("rows of spans", sum(file.rows for file in spans.files), cut))
    produced.funnel += [{"what": name.replace("_", " "), "number": n} for name, n in counts.items()]
