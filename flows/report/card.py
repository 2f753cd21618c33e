"""A model card from the lineage: what a checkpoint learned from, what was left out, how it was trained, how it does.

Everything is read from the records of the stages that the checkpoint rests on and from their tables, as the report of a
run is; what the lake doesn't know the card says it doesn't. The head is the hub's own metadata.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from datalake.errors import LostDataError
from datalake.lake.export import GROUPS, Exported, is_table
from datalake.lake.funnel import Fate, funnel_of, whole
from datalake.lake.lake import Lake, Ref, TableRef
from datalake.lake.records import Manifest, StageRecord, find_manifest, lineage, read_record
from flows.report import headlines
from flows.report.shares import composition
from flows.report.words import number, seconds, share
from flows.stages import TRAINING

Row = dict[str, Any]
UNKNOWN = "unknown"
_TASKS = {"masked_tokens": "fill-mask", "span_corruption": "text2text-generation"}  # by the objective of pretraining
_CLASSES = {"fill-mask": "AutoModelForMaskedLM", "text2text-generation": "AutoModelForSeq2SeqLM"}
_AUTO = "AutoModelForCausalLM"
# Settings of a training stage that a reader asks for first, as far as it has them.
_SETTINGS = (
    "objective", "optimizer", "learning_rate", "schedule", "warmup", "weight_decay", "batch", "accumulation", "context",
    "epochs", "seed", "kl_coefficient", "temperature", "group", "lora",
)  # fmt: skip
# The hub's words for licences (its documentation, "Licenses"), and for some SPDX identifiers that it spells otherwise.
_HUB = """
apache-2.0 mit openrail bigscience-openrail-m creativeml-openrail-m bigscience-bloom-rail-1.0 bigcode-openrail-m
afl-3.0 artistic-2.0 bsl-1.0 bsd bsd-2-clause bsd-3-clause bsd-3-clause-clear c-uda cc cc0-1.0 cc-by-2.0 cc-by-2.5
cc-by-3.0 cc-by-4.0 cc-by-sa-3.0 cc-by-sa-4.0 cc-by-nc-2.0 cc-by-nc-3.0 cc-by-nc-4.0 cc-by-nd-4.0 cc-by-nc-nd-3.0
cc-by-nc-nd-4.0 cc-by-nc-sa-2.0 cc-by-nc-sa-3.0 cc-by-nc-sa-4.0 cdla-sharing-1.0 cdla-permissive-1.0
cdla-permissive-2.0 wtfpl ecl-2.0 epl-1.0 epl-2.0 etalab-2.0 eupl-1.1 eupl-1.2 agpl-3.0 gfdl gpl gpl-2.0 gpl-3.0 lgpl
lgpl-2.1 lgpl-3.0 isc h-research intel-research lppl-1.3c ms-pl apple-ascl apple-amlr mpl-2.0 odc-by odbl openmdw-1.0
openrail++ osl-3.0 postgresql ofl-1.1 ncsa unlicense zlib pddl lgpl-lr deepfloyd-if-license
fair-noncommercial-research-license llama2 llama3 llama3.1 llama3.2 llama3.3 llama4 grok2-community gemma unknown
other
"""
_HUB_LICENCES = frozenset(_HUB.split())
_HUB_WORDS = {"odc-by-1.0": "odc-by", "odbl-1.0": "odbl", "pddl-1.0": "pddl", "lgpllr": "lgpl-lr"}
_SEEN = {"pretrain": "documents", "sft": "dialogues", "dpo": "pairs", "kto": "judgements", "reward": "pairs",
         "ppo": "prompts", "grpo": "prompts"}  # fmt: skip


def model_card(lake: Lake, record: StageRecord, manifest: Manifest, name: str, licence: str | None = None) -> str:
    """The README.md of a checkpoint that the lake made, by the record of its stage and the run that used it."""
    said = facts(lake, record, manifest)
    return render("model_card.md.j2", said | {"name": name, "auto": _CLASSES.get(said["task"], _AUTO)}, licence)


def bare_card(name: str, licence: str | None = None, base: str = "") -> str:
    """The card of a folder that no lake knows: it says so. `base`: what its adapters were added to."""
    return render("model_card.md.j2", {"name": name, "stage": None, "base": Path(base).name or None}, licence)


def facts(lake: Lake, record: StageRecord, manifest: Manifest) -> Row:
    """What a card says of a checkpoint, as plain values."""
    known = lineage(lake, record)
    records = {one.stage: one for one in known.values() if one}
    trained = [one for one in known.values() if one and one.stage in TRAINING][::-1]
    refs = {name: ref for one in records.values() for name, ref in one.outputs.items()}
    read = {short_name(ref): ref for one in known.values() if one for refs in one.inputs.values() for ref in refs}
    try:
        data, every = composition(lake, read), whole(funnel_of(lake, refs).values())
    except LostDataError:
        data, every = [], Fate()
    judged = [report.fingerprint for report in manifest.stages if report.stage == "evaluate" and report.fingerprint]
    base = records["base"].report.get("from") if "base" in records else None
    return {
        "stage": record.stage,
        "task": _TASKS.get(trained[0].payload["config"].get("objective"), "text-generation") if trained else None,
        "fingerprint": record.fingerprint,
        "run": manifest.run,
        "corpus": record.corpus,
        "commit": (record.git_commit or UNKNOWN)[:12] + (" with changes" if record.git_dirty else ""),
        "base": Path(base).name if base else None,
        "lost": sum(one is None for one in known.values()),
        "data": data,
        "languages": [row["language"] for row in _by(data, "language") if row["language"] not in ("und", UNKNOWN)],
        "licences": [row["licence"] for row in _by(data, "licence")],
        "sources": [row["source"] for row in _by(data, "source")],
        "funnel": every,
        "rejected": by_count(every.rejected),
        "rules": _rules(records),
        "deduplicated": records.get("deduplicate"),
        "trained": [_training(one) for one in trained],
        "hours": sum(one.seconds for one in trained) / 3600,
        "results": _results(lake, judged[0] if judged else None, record),
        "contamination": records["curate"].report.get("evaluation_sets") if "curate" in records else None,
        "findings": [
            (one.stage, finding["what"])
            for one in trained
            for finding in one.report.get("findings", ())
            if finding["level"] == "warning"
        ],
        "versions": record.versions,
    }


def dataset_card(
    lake: Lake, asked: str, exported: Exported, name: str, run: str | None = None, licence: str | None = None
) -> str:
    """The README.md of rows that were exported: a table by its name, or a query's."""
    corpus = asked.split(".")[0] if is_table(asked) else None
    manifest = None
    if run or (corpus and corpus not in ("runs", "models")):
        manifest = find_manifest(lake, run, corpus)
    groups = [dict(zip(GROUPS, values, strict=True)) | {"rows": rows} for values, rows in by_count(exported.groups)]
    funnel = whole(funnel_of(lake, manifest.refs).values()) if manifest else Fate()
    said = {
        "name": name,
        "table": asked if is_table(asked) else None,
        "sql": asked,
        "run": manifest.run if manifest else None,
        "rows": exported.rows,
        "files": exported.files,
        "columns": exported.columns,
        "groups": groups,
        "languages": [row["language"] for row in _by(groups, "language") if row["language"] not in ("und", UNKNOWN)],
        "licences": [row["licence"] for row in _by(groups, "licence")],
        "funnel": funnel,
        "rejected": by_count(funnel.rejected),
    }
    return render("dataset_card.md.j2", said, licence)


def by_count(counts: Mapping[Any, int]) -> list[tuple[Any, int]]:
    """Names with their counts, the largest first."""
    return sorted(counts.items(), key=lambda item: (-item[1], str(item[0])))


def short_name(ref: Ref) -> str:
    """What a reference is called within its run."""
    return ref.table.split(".")[-1] if isinstance(ref, TableRef) else ref.name


def render(template: str, facts: Mapping[str, Any], licence: str | None) -> str:
    """A card's text. What comes from data stands in cells of tables and can't leave them."""
    from jinja2 import Environment, FileSystemLoader

    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent), trim_blocks=True, lstrip_blocks=True, autoescape=False
    )  # Markdown, not HTML: `cell` does the escaping
    environment.filters |= {"number": number, "share": share, "seconds": seconds, "cell": cell}
    head = {"model_card.md.j2": _model_head, "dataset_card.md.j2": _dataset_head}[template](facts, licence)
    body = environment.get_template(template).render({**facts, "licence": licence})
    return f"---\n{head}\n---\n\n{body.strip()}\n"


def cell(value: Any) -> str:
    """A value inside a cell of a table in Markdown: one line, with nothing in it that is markup."""
    text = " ".join(str(UNKNOWN if value is None else value).split())
    return re.sub(r"([\\`*_\[\]<>|#!])", r"\\\1", text)


def hub_licences(names: Sequence[str], asked: str | None) -> dict[str, Any]:
    """Licences as the hub has them: one as it is, several as a list; `license_name` of those that it has no word for,
    which it refuses as they stand (`other`)."""
    given = [asked] if asked else sorted({name for name in names if name})
    found = sorted({_hub_licence(name) for name in given})
    more = sorted(name for name in given if _hub_licence(name) == "other" and name.lower() != "other")
    said: dict[str, Any] = {"license": found[0] if len(found) == 1 else found or UNKNOWN}
    return said | ({"license_name": ", ".join(more)} if more else {})


def _hub_licence(name: str) -> str:
    """The hub's word for a licence by its SPDX identifier, which for GNU's says which versions besides."""
    word = re.sub(r"^((?:a|l)?gpl-[\d.]+)-(only|or-later)$|^(gfdl)-.*$", r"\1\3", name.strip().lower())
    word = _HUB_WORDS.get(word, word)
    return word if word in _HUB_LICENCES else "other"


def _model_head(facts: Mapping[str, Any], licence: str | None) -> str:
    from huggingface_hub import EvalResult, ModelCardData

    results = [
        EvalResult(
            task_type=facts.get("task") or "text-generation",
            dataset_type=row["task"],
            dataset_name=row["task"],
            metric_type=row["metric"],
            metric_value=round(row["value"], 6),
            metric_name=f"{row['metric']} ({row['low']:.4g} to {row['high']:.4g}, n = {row['n']})",
        )
        for row in facts.get("results") or ()
        if math.isfinite(row["value"])  # YAML of another number is none to the hub
    ]
    data = ModelCardData(
        language=facts.get("languages") or None,
        **hub_licences(facts.get("licences") or (), licence),
        library_name="transformers",
        pipeline_tag=facts.get("task") or "text-generation",
        tags=["headwater"],
        datasets=[name for name in facts.get("sources") or () if _is_hub_id(name)] or None,
        base_model=base if (base := facts.get("base")) and _is_hub_id(base) else None,
        model_name=facts["name"] if results else None,
        eval_results=results or None,
    )
    return str(data.to_yaml()).strip()


def _is_hub_id(name: str) -> bool:
    """Whether a name may be one of a repository: the hub refuses a card with another."""
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id

    try:
        validate_repo_id(name)
    except HFValidationError:
        return False
    return True


def _dataset_head(facts: Mapping[str, Any], licence: str | None) -> str:
    from huggingface_hub import DatasetCardData

    data = DatasetCardData(
        language=facts.get("languages") or None,
        **hub_licences(facts.get("licences") or (), licence),
        pretty_name=facts["name"],
        tags=["headwater"],
        size_categories=_size(facts["rows"]),
        configs=[{"config_name": "default", "data_files": [{"split": "train", "path": "data/*.parquet"}]}],
    )
    return str(data.to_yaml()).strip()


def _size(rows: int) -> str:
    """The hub's names of sizes."""
    edges = ((10**3, "n<1K"), (10**4, "1K<n<10K"), (10**5, "10K<n<100K"), (10**6, "100K<n<1M"), (10**7, "1M<n<10M"))
    return next((name for edge, name in edges if rows < edge), "10M<n<100M" if rows < 10**8 else "100M<n<1B")


def _by(data: Sequence[Row], column: str) -> list[Row]:
    """The values of a column, those with most rows first."""
    sums: dict[str, int] = {}
    for row in data:
        if row[column] is not None:
            sums[row[column]] = sums.get(row[column], 0) + row["rows"]
    return [{column: name, "rows": rows} for name, rows in sorted(sums.items(), key=lambda item: (-item[1], item[0]))]


def _results(lake: Lake, evaluation: str | None, checkpoint: StageRecord) -> list[Row]:
    """Every figure of a checkpoint: those of the run's stage `evaluate`, and what `headwater eval` or a promotion found
    later. Of one task and metric the figure over most items stands, and of these the run's own."""
    from datalake.lake.ledger import connect

    record = read_record(lake, evaluation) if evaluation else None
    rows = [
        row for row in (record.report.get("results", []) if record else []) if row["checkpoint"] == checkpoint.stage
    ]
    if lake.current_files("runs.evaluations"):
        found = connect(lake, shown=[]).execute(
            "SELECT DISTINCT * FROM runs.evaluations WHERE fingerprint = ? ORDER BY ALL", [checkpoint.fingerprint]
        )
        names = [column[0] for column in found.description or []]
        rows += [dict(zip(names, row, strict=True)) for row in found.fetchall()]
    best: dict[tuple[str, str], Row] = {}
    for row in rows:
        best.setdefault((row["task"], row["metric"]), row)
        if row["n"] > best[row["task"], row["metric"]]["n"]:
            best[row["task"], row["metric"]] = row
    return [best[key] for key in sorted(best)]


def _rules(records: Mapping[str, StageRecord]) -> Row:
    """What curation was told: the preset, and thresholds that the recipe moved."""
    config = records["curate"].payload["config"] if "curate" in records else {}
    return {"preset": config.get("preset"), "thresholds": config.get("thresholds") or {}}


def _training(record: StageRecord) -> Row:
    config, report = record.payload["config"], record.report
    computed = report.get("computed") or {}
    return {
        "stage": record.stage,
        "steps": report.get("steps"),
        "tokens": report.get("target_tokens"),
        "seen": f"{number(report[_SEEN[record.stage]])} {_SEEN[record.stage]}"
        if _SEEN.get(record.stage) in report
        else "",
        "parameters": report.get("parameters"),
        "settings": {name: config[name] for name in _SETTINGS if config.get(name) is not None},
        "device": computed.get("device"),
        "ranks": computed.get("ranks"),
        "seconds": record.seconds,
        "figures": headlines.models({record.stage: record}),
    }
