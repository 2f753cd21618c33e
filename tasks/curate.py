"""The stage `curate`: every document's metrics and verdict, and the text of those that are kept."""

from __future__ import annotations

from collections import Counter
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from datalake.curate.checks.decontaminate_config import DecontaminateConfig
from datalake.curate.config import CurateConfig
from datalake.identity import fingerprint
from datalake.lake.copies import near_folder
from datalake.lake.funnel import funnel, tally, whole
from datalake.lake.lake import FolderRef, TableRef
from datalake.lake.shards import ShardResult, ShardWriter
from datalake.places import place
from tasks.cluster import Shard
from tasks.outputs import Table
from tasks.produced import Produced
from tasks.runtime import Runtime
from tasks.shards import Mapped, files_of, map_all, shards_of
from tasks.stage import stage


class _Sets(NamedTuple):
    """What a report says of evaluation sets: a row for each file, and the file that each set is in."""

    rows: list[dict[str, Any]]
    files: dict[str, str]


def _evaluation_sets(config: DecontaminateConfig) -> _Sets:
    """What is in the sets. Raises UserError, before any work is done, where one can't be read."""
    from datalake.curate.checks.decontaminate import index_of

    index = index_of(config)
    return _Sets([counts._asdict() for counts in index.sets], index.files)


def _block_lists(config: CurateConfig) -> list[dict[str, Any]]:
    """What is in block lists. Raises UserError, before any work is done, where one, or one of words, can't be read."""
    from datalake.curate.checks.lists import block_lists_of
    from datalake.curate.checks.toxic import toxic_words_of

    if config.toxic is not None:
        toxic_words_of(config.toxic)
    return [] if config.block is None else [counts._asdict() for counts in block_lists_of(config.block).counts]


def _checked(
    config: CurateConfig, decisions: list[str], sets: _Sets | None, lists: list[dict[str, Any]]
) -> tuple[dict[str, int], dict[str, Any]]:
    """What the checks found that a recipe asks for, by the table of curation: counts, and what the report says."""
    counts: dict[str, int] = {}
    report: dict[str, Any] = {}
    if sets is not None:
        found = Counter[str]()
        for (row,), n in tally(decisions, "contaminated_set").items():
            if row is not None:
                found[sets.files[row.rpartition("#")[0]]] += n
        cuts = {characters: n for (characters,), n in tally(decisions, "contaminated_cut").items() if characters}
        report["evaluation_sets"] = [row | {"documents": found[row["set"]]} for row in sets.rows]
        report["cut"] = {"documents": sum(cuts.values()), "characters": sum(c * n for c, n in cuts.items())}
        counts |= {f"with words of {row['set']}": found[row["set"]] for row in sets.rows if found[row["set"]]}
        counts["kept with words of evaluation sets cut"] = report["cut"]["documents"]
    if lists:
        on = Counter[str]()
        for (entry,), n in tally(decisions, "blocked_by").items():
            if entry is not None:
                on[entry.partition(": ")[0]] += n
        report["block_lists"] = [row | {"documents": on[row["list"]]} for row in lists]
        counts |= {f"on the list {name}": n for name, n in sorted(on.items())}
    if config.pii is not None:
        finds = {pieces: n for (pieces,), n in tally(decisions, "pii").items() if pieces}
        counts["with personal data"] = sum(finds.values())
        counts["pieces of personal data"] = sum(pieces * n for pieces, n in finds.items())
    return counts, report


def _curate_shard(config: CurateConfig, trained: Path | None, lake: Path, made_by: Any, shard: Shard) -> ShardResult:
    """Metrics, verdict and kept text for one file of raw documents; what an earlier run has measured isn't again."""
    from datalake.curate.again import Measured, curate_again
    from datalake.curate.curate import curate_file
    from datalake.curate.metrics.user import Meter, counts_of, names
    from datalake.curate.schema import schema_with
    from datalake.tables import DOCUMENTS

    assert shard.folder is not None
    trained = trained and near_folder(trained)
    schemas = {"curation": schema_with(names(config)), "documents": DOCUMENTS}
    measured = Measured(lake, made_by, config)
    stored = measured.find(place(shard.payload))
    meter = Meter(config, but=stored.own if stored else ())
    if stored is None:
        batches = curate_file(shard.payload, config, trained, meter)
    else:
        batches = curate_again(shard.payload, stored, config, trained, meter)
    with ShardWriter(shard.folder, shard.name, shard.key, schemas) as out:
        for decisions, documents in batches:
            out.write("curation", decisions)
            out.write("documents", documents)
            out.count("raw", decisions.num_rows)
            out.count("documents", documents.num_rows)
        for name, n in (meter.counts | (counts_of(stored.own, stored.counts) if stored else {})).items():
            out.count(name, n)
    measured.remember(place(shard.payload), out.result, shard.folder)
    return out.result


class Curated(NamedTuple):
    """A verdict on every raw document, and those that are kept."""

    curation: Table
    documents: Table


def _columns() -> str:
    """Which metrics there are: one more makes another table, under the same version."""
    from datalake.curate.metrics.catalog import METRICS

    return fingerprint([[metric.name, metric.whole] for metric in METRICS])[:32]


def _shards(config: CurateConfig, runtime: Runtime, raw: TableRef, quality: FolderRef | None = None) -> list[Shard]:
    """A shard for each file of raw documents."""
    return shards_of(raw, runtime, [config, _columns(), quality and quality.data_version])


@stage(
    Curated,
    version="8",
    libraries=(
        *("pyarrow", "numpy", "numba", "rjieba", "OpenCC", "resiliparse", "idna"),
        *("ahocorasick-rs", "phonenumbers", "python-stdnum"),
    ),
    shards=_shards,
    columns=_columns,
)
def curate(config: CurateConfig, runtime: Runtime, raw: TableRef, quality: FolderRef | None = None) -> Produced:
    """Compute every document's metrics, decide by the preset's rules, clean what is kept.

    `quality` is the classifier that the recipe trains, where it does.
    """
    from datalake.curate.metrics.user import cost, load, names
    from datalake.curate.schema import schema_with
    from datalake.tables import DOCUMENTS

    load(config)
    sets = None if config.decontaminate is None else _evaluation_sets(config.decontaminate)
    lists = _block_lists(config)
    trained = None if quality is None else runtime.lake.path(quality)
    assert runtime.stage is not None
    made_by = [runtime.stage.version, runtime.stage.libraries, _columns(), quality and quality.data_version]
    work = partial(_curate_shard, config, trained, runtime.lake.root, made_by)
    shards, on_gpus = _shards(config, runtime, raw, quality), bool(config.classifiers)
    done = map_all(work, shards, runtime, "curate", on_gpus)
    decisions, counts = done.paths("curation"), done.counts
    fates = funnel({"curation": decisions})
    every = whole(fates.values())
    taken, kept, rejected = counts.get("raw", 0), counts.get("documents", 0), every.rejected.total()
    rules = dict(sorted(every.rejected.items()))
    dropped = {f"rejected by {rule}": n for rule, n in sorted(rules.items(), key=lambda row: -row[1])}
    stayed = {f"kept of {source}": fate.kept for source, fate in fates.items()}
    checks, report = _checked(config, decisions, sets, lists)
    costs = [cost(name, counts) for name in names(config)]
    if costs:
        report["own_metrics"] = [one._asdict() for one in costs]
        report["warnings"] = [one.warning for one in costs if one.warning]
    steps = {"documents in": taken} | dropped | {"kept": kept} | stayed | checks
    rows = [{"what": what, "records": n} for what, n in steps.items()]
    schemas = {"curation": schema_with(names(config)), "documents": DOCUMENTS}
    return Produced(
        tables={name: (schema, done.files(name)) for name, schema in schemas.items()},
        counts=counts | {"rejected": rejected} | dropped | stayed | checks,
        records_in=taken,
        records_out=kept,
        equations=[
            ("raw = documents + rejected", taken, kept + rejected),
            ("one decision for each raw document", every.decided, taken),
            ("one text for each document that is kept", done.rows("documents"), every.kept),
        ]
        + ([] if done.failed else [("every raw document is decided", raw.rows, taken)]),
        unfinished=done.failed,
        funnel=rows,
        report={"rejected": rules} | report,
        note="; ".join(map(str, costs)),
        pages={"page": partial(_curation_page, rows, done, config)},
    )


def _curation_page(rows: list[dict[str, Any]], done: Mapped, config: CurateConfig) -> str:
    """What the UI shows of curation; imported and drawn when the stage is done."""
    from tasks.shown.curation import page

    inputs = done.inputs()
    return page(rows, {file.path: raw for raw, one in inputs.items() for file in files_of([one], "curation")}, config)
