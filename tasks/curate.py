"""The stage `curate`: every document's metrics and verdict, and the text of those that are kept."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from datalake.curate.checks.decontaminate_config import DecontaminateConfig
from datalake.curate.config import CurateConfig
from datalake.lake.lake import FolderRef, TableRef
from datalake.lake.shards import ShardResult, ShardWriter
from tasks.cluster import Shard, map_shards
from tasks.runtime import Runtime
from tasks.shards import files_of, gather, shards_of, total
from tasks.shown.artifacts import progress
from tasks.stage import Produced, stage


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
            if config.decontaminate is not None:
                cut = [characters for characters in decisions["contaminated_cut"].to_pylist() if characters]
                out.count("cut", len(cut))
                out.count("characters cut", sum(cut))
            for found in decisions["blocked_by"].drop_null().to_pylist():
                out.count(f"blocked by list:{found.partition(': ')[0]}")
            if config.pii is not None:
                spans = decisions["pii"].to_pylist()
                out.count("personal data", sum(spans))
                out.count("with personal data", sum(n > 0 for n in spans))
    return out.result


@stage(
    version="8",
    libraries=(
        *("pyarrow", "numpy", "numba", "rjieba", "OpenCC", "resiliparse", "fasttext-predict", "idna"),
        *("ahocorasick-rs", "phonenumbers", "python-stdnum"),
    ),
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
        funnel += [{"what": "kept with words of evaluation sets cut", "records": counts.get("cut", 0)}]
        report["cut"] = {"documents": counts.get("cut", 0), "characters": counts.get("characters cut", 0)}
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
    from tasks.shown.curation import page

    raw = {shard.key: str(shard.payload) for shard in shards}
    return page(funnel, {f.path: raw[r.key] for r in results for f in r.files if f.table == "curation"}, config)
