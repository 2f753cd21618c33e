"""`query`, `explain` and `trace`: reading what a lake knows."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from datalake.errors import LostDataError, UserError, note
from datalake.lake import FolderRef, Lake, TableRef
from datalake.ledger import connect, query
from datalake.records import Manifest, StageRecord, find_manifest, lineage, manifests, read_record
from flows.commands.show import as_json, as_table, text

if TYPE_CHECKING:
    from datalake.curate.config import CurateConfig

_DATA_STAGES = ("ingest", "curate", "deduplicate", "mixture")  # what decides about a document
_COPIES_SHOWN = 5


def query_lake(sql: str, lake: Path, run: str | None, json: bool, allow_files: bool = False) -> int:
    """Run SQL over the lake and print the rows."""
    columns, rows = query(Lake(lake).require(), sql, run, allow_files)
    if json:
        as_json([dict(zip(columns, row, strict=True)) for row in rows])
    else:
        as_table(columns, rows)
    return 0


# Explain --------------------------------------------------------------------------------------------------------


def explain_document(document: str, lake_folder: Path, json: bool) -> int:
    """Print what became of every record with this address or id, in each corpus."""
    lake = Lake(lake_folder).require()
    stories: list[dict[str, Any]] = []
    lost: LostDataError | None = None
    for manifest in {manifest.corpus: manifest for manifest in manifests(lake)}.values():
        try:
            stories += stories_of(lake, manifest, document)
        except LostDataError as error:  # another corpus may still know the document
            note(str(error))
            lost = error
    if not stories and lost is not None:
        raise lost
    if not stories:
        raise UserError(
            f"no record {document!r} in {lake.root}: give an address as in the `uri` column, or an id in hex"
        )
    if json:
        as_json(stories)
        return 0
    for story in stories:
        # All values of a document's metrics are the longest part and the last that people look for.
        for name, value in sorted(story.items(), key=lambda part: part[0] == "curation"):
            if isinstance(value, dict):
                print(f"{name}:")
                for key, item in value.items():
                    print(f"  {key:<22} {text(item)}")
            elif name == "judged":
                print("rules:")
                for rule in value:
                    print(f"  {rule_line(rule)}")
            else:
                print(f"{name:<24} {text(value)}")
        print()
    return 0


def rule_line(rule: Mapping[str, Any]) -> str:
    """A rule and how a document stood to it, for people: its name, value, what was asked, and by whom."""
    if rule["metric"] is None:
        return f"{rule['outcome']:<9} {rule['rule']:<22} ({rule['source']})"
    found = "missing" if rule["value"] is None else text(rule["value"])
    return (
        f"{rule['outcome']:<9} {rule['rule']:<22} {rule['metric']} {found}"
        f" (asked {rule['operator']} {rule['threshold']:g}; {rule['source']})"
    )


def stories_of(lake: Lake, manifest: Manifest, document: str) -> list[dict[str, Any]]:
    """Everything a run knows of the records with this address or id."""
    connection = connect(lake, manifest.run)
    corpus, tables = manifest.corpus, set(manifest.refs)
    try:
        id = bytes.fromhex(document)
    except ValueError:
        id = b""

    def rows(table: str, condition: str, *values: Any) -> list[dict[str, Any]]:
        if table.split(".")[-1] not in tables | {"ledger"}:
            return []
        cursor = connection.execute(f'SELECT * FROM "{corpus}"."{table}" WHERE {condition}', list(values))
        names = [column[0] for column in cursor.description or []]
        return [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]

    stories: list[dict[str, Any]] = []
    if "raw" in tables:
        config = curated_by(lake, manifest) if "curation" in tables else None
        for row in rows("ledger", "uri = ? OR id = ?", document, id):
            stories.append(_document_story(manifest, row, rows, config))
    if not stories:
        for row in rows("quarantine", "archive = ?", document):
            stories.append({"corpus": corpus, "run": manifest.run, "table": "quarantine", **row})
    for table in ("conversations", "preferences"):
        for row in rows(table, "uri = ? OR id = ?", document, id):
            stories.append({"corpus": corpus, "run": manifest.run, "table": table, **row})
    return stories


def curated_by(lake: Lake, manifest: Manifest) -> CurateConfig | None:
    """The config of a run's curation; None where it is not one of this version."""
    from pydantic import ValidationError

    from datalake.curate.config import CurateConfig
    from flows.recipe import Recipe

    try:
        return Recipe.stored(manifest.recipe).curate_by_kind
    except ValidationError:
        pass
    for report in manifest.stages:
        record = read_record(lake, report.fingerprint) if report.stage == "curate" and report.fingerprint else None
        if record is not None:
            try:
                return CurateConfig.model_validate(record.payload["config"])
            except (KeyError, ValidationError):
                return None
    return None


def _judged(curation: Mapping[str, Any], config: CurateConfig) -> list[dict[str, Any]]:
    """Every rule that a document was held to: its metric's value, what was asked of it, by whom, and the outcome.

    The outcome is what curation decided: `failed`, `passed`, or `no value` where the metric is missing. Rules for other
    languages are left out.
    """
    from datalake.curate.curate import EMPTY, LANGUAGE
    from datalake.curate.held import BLOCKED, rules_for
    from datalake.curate.rules import applies
    from datalake.curate.schema import value_of

    source, language = curation["source"], curation["language"]
    try:
        chosen = rules_for(config, config.kinds.get(source, source), language)
    except UserError:  # a file of rules that has gone or changed since
        return []
    failed = set(curation["rules"] or ())
    judged: list[dict[str, Any]] = []
    for rule in chosen.rules:
        if applies(rule, language):
            value = value_of(curation, rule.metric)
            outcome = "failed" if rule.name in failed else "no value" if value is None else "passed"
            judged.append(
                {
                    "rule": rule.name,
                    "metric": rule.metric,
                    "value": value,
                    "operator": rule.op,
                    "threshold": rule.threshold,
                    "source": curation.get(f"{BLOCKED}_by") or rule.source if rule.name == BLOCKED else rule.source,
                    "outcome": outcome,
                }
            )
    # Rules without a number of their own.
    others = {LANGUAGE: "languages kept", EMPTY: "text left by the edits"}
    for name in curation["rules"] or ():
        if name in others:
            judged.append(
                dict.fromkeys(("metric", "value", "operator", "threshold"))
                | {"rule": name, "source": others[name], "outcome": "failed"}
            )
    return judged


def _repaired(text: str, curation: Mapping[str, Any], config: CurateConfig | None) -> str | None:
    """A text as it was measured; None where the rules it was held to are not known."""
    from datalake.curate.edits import repair
    from datalake.curate.held import rules_for

    if config is None:
        return None
    try:
        kind = config.kinds.get(curation["source"], curation["source"])
        return repair(text, rules_for(config, kind, curation["language"]).repair)
    except UserError:
        return None


def changed_lines(before: str, after: str) -> dict[str, int]:
    """What edits changed: characters and lines before and after, and how many lines are gone or new.

    Lines are compared as a set with counts: a line that only moved is neither.
    """
    old, new = before.split("\n") if before else [], after.split("\n") if after else []
    counted, recounted = Counter(old), Counter(new)
    return {
        "characters_before": len(before),
        "characters_after": len(after),
        "lines_before": len(old),
        "lines_after": len(new),
        "lines_removed": (counted - recounted).total(),
        "lines_added": (recounted - counted).total(),
    }


def cut_story(text: str, spans: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """How much of a text is cut, at which levels, and which documents hold what stays of it elsewhere."""
    from datalake.dedup.cut import cut

    def characters(some: Sequence[Mapping[str, Any]]) -> int:
        return len(text) - len(cut(text, [(span["start"], span["end"]) for span in some]))

    whole = characters(spans)
    levels = {level: [span for span in spans if span["level"] == level] for level in (s["level"] for s in spans)}
    first = Counter(span["first"].hex() for span in spans if span["first"] is not None)
    return {
        "characters": whole,
        "of": len(text),
        "left": len(text) - whole,
        **{f"by {level}": characters(some) for level, some in sorted(levels.items())},
        "spans": len(spans),
        "stays in": [id for id, _ in first.most_common(_COPIES_SHOWN)],
    }


def _document_story(
    manifest: Manifest, ledger: dict[str, Any], rows: Any, config: CurateConfig | None
) -> dict[str, Any]:
    id = ledger["id"]
    story: dict[str, Any] = {"corpus": manifest.corpus, "run": manifest.run}
    decided = ("id", "uri", "source", "language", "verdict", "rule", "duplicate_of", "similarity", "archive", "offset")
    story |= {name: ledger[name] for name in decided}
    raw = rows("raw", "id = ?", id)
    if raw:
        story["provenance"] = {
            name: value for name, value in raw[0].items() if name not in (*decided, "text", "attributes")
        } | {"characters": len(raw[0]["text"])}
        story["attributes"] = dict(raw[0]["attributes"] or {})
    else:
        refused = rows("refused", "id = ?", id)
        story["refused"] = {"reason": refused[0]["reason"], "detail": refused[0]["detail"]} if refused else {}
    curation = rows("curation", "id = ?", id)
    if curation:
        story["curation"] = {
            name: value for name, value in curation[0].items() if name not in decided and value is not None
        }
        if config is not None:
            story["judged"] = _judged(curation[0], config)
    documents = rows("documents", "id = ?", id)
    if raw and curation:
        text_before = raw[0]["text"] or ""
        # What was rejected has no text of its own: the text that was judged is the repaired one.
        text_after = documents[0]["text"] if documents else _repaired(text_before, curation[0], config)
        if text_after is not None:
            story["edits"] = changed_lines(text_before, text_after)
    if ledger["duplicate_of"] is not None:
        kept = rows("raw", "id = ?", ledger["duplicate_of"])
        story["kept instead"] = {"id": ledger["duplicate_of"], "uri": kept[0]["uri"] if kept else None}
    decision = rows("duplicates", "id = ?", id)
    copies = rows("duplicates", "duplicate_of = ? ORDER BY similarity DESC, id", id)
    if decision:
        story["duplicates"] = {
            "level": decision[0]["level"],
            "similarity": decision[0]["similarity"],
            "copies": len(copies),
            "some copies": [copy["id"].hex() for copy in copies[:_COPIES_SHOWN]],
        }
    spans = rows("spans", "id = ? ORDER BY start, level", id)
    if spans and documents:
        story["cut"] = cut_story(documents[0]["text"], spans)
    near = rows("pairs", "(a = ? OR b = ?) AND level <> 'semantic' ORDER BY similarity DESC LIMIT 5", id, id)
    if near:
        story["nearest"] = {(pair["b"] if pair["a"] == id else pair["a"]).hex(): pair["similarity"] for pair in near}
    mixed = rows("mixture", "id = ?", id)
    if mixed:
        story["mixture"] = {name: mixed[0][name] for name in ("split", "weight", "epochs", "token_count")}
    deciding = ("ingest",) if "refused" in story else _DATA_STAGES
    story["stages"] = {
        report.stage: report.fingerprint
        for report in manifest.stages
        if report.stage in deciding and report.fingerprint
    }
    return story


# Trace ----------------------------------------------------------------------------------------------------------


def find_checkpoint(lake: Lake, name: str) -> StageRecord:
    """The record of a training stage by stage name (of the last run that has it), folder, or fingerprint.

    Raises:
        UserError: when there is none, or the folder is not a checkpoint of this lake.
    """
    order = ("ppo", "sft", "pretrain")
    if name == "last" or name in (*order, "reward"):
        wanted = order if name == "last" else (name,)
        for manifest in reversed(manifests(lake)):
            for stage in wanted:
                for report in manifest.stages:
                    if report.stage == stage and report.fingerprint and report.outputs:
                        record = read_record(lake, report.fingerprint)
                        if record is not None:
                            return record
        raise UserError(f"no finished run in {lake.root} has a model{'' if name == 'last' else f' of stage {name}'}")
    path = Path(os.path.realpath(Path(name).expanduser()))
    known = []
    for file in (lake.root / "records").glob("*.json"):
        if file.stem.startswith(name):
            known.append(file.stem)
    if len(known) == 1:
        record = read_record(lake, known[0])
        if record is not None:
            return record
    for file in (lake.root / "records").glob("*.json"):
        record = read_record(lake, file.stem)
        if record and any(
            isinstance(ref, FolderRef) and (lake.path(ref) == path or lake.path(ref).parent == path)
            for ref in record.outputs.values()
        ):
            return record
    raise UserError(
        f"{name} is not a checkpoint of {lake.root}: give a stage (ppo), a checkpoint's folder, or a fingerprint"
    )


def trace_checkpoint(checkpoint: str, step: int | None, lake_folder: Path, json: bool) -> int:
    """Print a model's ancestors, nearest first, or the documents of one training step."""
    lake = Lake(lake_folder).require()
    record = find_checkpoint(lake, checkpoint)
    if step is not None:
        return _trace_step(lake, record, step, json)
    ancestors = [_summary(lake, one) for one in lineage(lake, record).values() if one]
    if json:
        as_json(ancestors)
        return 0
    as_table(
        ["stage", "fingerprint", "records in", "records out", "seconds", "commit", "made"],
        [
            [
                one["stage"],
                one["fingerprint"][:16],
                one["records_in"],
                one["records_out"],
                one["seconds"],
                (one["git_commit"] or "")[:12] + ("+" if one["git_dirty"] else ""),
                ", ".join(ref.get("table") or ref.get("name", "") for ref in one["outputs"]),
            ]
            for one in ancestors
        ],
    )
    archives: list[dict[str, Any]] = next((one["archives"] for one in ancestors if one["archives"]), [])
    print(f"\n{len(archives)} archives at the source:")
    for archive in archives[:20]:
        print(f"  {archive['kind']}  {archive['name']}  {archive['version'][:16]}")
    if len(archives) > 20:
        print(f"  ... and {len(archives) - 20} more (--json shows all)")
    return 0


def _summary(lake: Lake, record: StageRecord) -> dict[str, Any]:
    body = record.model_dump(mode="json", exclude={"payload", "report"})
    body["config"] = record.payload["config"]
    body["outputs"] = [ref.model_dump(mode="json") for ref in record.outputs.values()]
    body["archives"] = record.payload["inputs"].get("archives", [])
    return body


def _trace_step(lake: Lake, record: StageRecord, step: int, json: bool) -> int:
    """The documents that a pretraining step saw: its batch, turned back through the token index."""
    records = [one for one in lineage(lake, record).values() if one]
    pretrain = next((one for one in records if one.stage == "pretrain"), None)
    if pretrain is None:
        raise UserError("only a model that was pretrained here has steps to trace")
    steps = int(pretrain.report["steps"])
    if not 0 <= step < steps:
        raise UserError(f"step {step} is out of range: this model was trained for {steps} steps, 0 to {steps - 1}")
    from models.text.sampler import Sampler
    from models.text.shards import TokenShards
    from models.training.config import PretrainConfig
    from tasks.training import token_indices, training_documents

    config = PretrainConfig.model_validate(pretrain.payload["config"])
    tokens, mixture = pretrain.inputs["tokens"][0], pretrain.inputs["mixture"][0]
    assert isinstance(tokens, FolderRef)
    assert isinstance(mixture, TableRef)
    documents, _ = training_documents(lake, mixture, tokens, int(pretrain.payload["inputs"]["repetition_seed"]))
    shards = TokenShards(token_indices(lake, tokens))
    sampler = Sampler(shards, documents, config.seed, config.context, config.batch)
    seen = sampler.documents(step)
    # The run that used it may have another corpus than the one that built it: equal sources share their stages.
    manifest = find_manifest_of(lake, pretrain)
    connection = connect(lake, manifest.run)
    ids = sorted({id for id, _, _ in seen})
    known = {
        row[0]: row[1:]
        for row in connection.execute(
            f'SELECT id, uri, source, language FROM "{manifest.corpus}".documents WHERE id IN (SELECT unnest(?))', [ids]
        ).fetchall()
    }
    rows = [[*known.get(id, (None, None, None)), id, first, count] for id, first, count in seen]
    columns = ["uri", "source", "language", "id", "first_token", "tokens"]
    if json:
        as_json([dict(zip(columns, row, strict=True)) for row in rows])
    else:
        as_table(columns, rows)
    return 0


def find_manifest_of(lake: Lake, record: StageRecord) -> Manifest:
    """The last finished run that used a record."""
    for manifest in reversed(manifests(lake)):
        if any(report.fingerprint == record.fingerprint for report in manifest.stages):
            return manifest
    return find_manifest(lake, corpus=record.corpus)
