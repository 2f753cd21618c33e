"""What became of a document, and why: everything that a lake's tables say of one record, told in one piece.

Here and not in `datalake.lake`, since rules and edits are asked as well: how the document stood to each rule it was
held to, what the edits changed, what is cut from it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import ValidationError

from datalake.curate.config import CurateConfig
from datalake.errors import LostDataError, UserError, note
from datalake.lake.corpora import Corpus, corpora
from datalake.lake.lake import Lake
from datalake.lake.ledger import RECORDS, connect
from datalake.lake.records import Manifest, read_record

_DATA_STAGES = ("ingest", "curate", "deduplicate", "mixture")  # what decides about a document
_COPIES_SHOWN = 5
_CUT_SHOWN = 200  # characters

Row = dict[str, Any]


def explain(lake: Lake, document: str) -> list[Row]:
    """The story of every record with this address or id (in hex), in each corpus of a lake.

    A document's names source, verdict, rule and place, its provenance, its metrics, every rule with value and outcome,
    what edits changed, its duplicates, its place in the mixture, spikes of a loss that it was part of, and the stages
    that decided. Of a record that is no
    document, and of an archive a part of which couldn't be read, it is the row that there is.

    Raises:
        UserError: where no record is called so; of several corpora those that can be read are told.
    """
    stories: list[Row] = []
    lost: LostDataError | None = None
    for corpus in corpora(lake):
        try:
            stories += stories_in(lake, corpus, document)
        except LostDataError as error:  # another corpus may still know the document
            note(str(error))
            lost = error
    if not stories:
        raise lost or UserError(
            f"no record {document!r} in {lake.root}: give an address as in the `uri` column, or an id in hex"
        )
    return stories


def curated_by(lake: Lake, manifest: Manifest) -> CurateConfig | None:
    """The config of a run's curation; None where it is not one of this version.

    Places of files are the recipe's, which the record leaves out; the kinds of named sources are the record's.
    """
    prints = [report.fingerprint for report in manifest.stages if report.stage == "curate" and report.fingerprint]
    record = read_record(lake, prints[0]) if prints else None
    judged_by: dict[str, Any] | None = record.payload.get("config") if record else None
    asked = manifest.recipe.get("curate")
    if isinstance(asked, dict) and judged_by:
        asked = asked | {"kinds": judged_by.get("kinds", {})}
    for config in filter(None, (asked, judged_by)):
        try:
            return CurateConfig.model_validate(config)
        except ValidationError:
            continue
    return None


def stories_in(lake: Lake, corpus: Corpus, document: str) -> list[Row]:
    """Everything a corpus knows of the records with this address or id."""
    connection = connect(lake, shown=[corpus])
    manifest = corpus.manifest
    tables = {name for base in RECORDS for name in corpus.joined(base)} | corpus.joined("quarantine").keys()
    shared = {name for name in ("runs.spikes",) if lake.current_files(name)}  # of all runs
    try:
        id = bytes.fromhex(document)
    except ValueError:
        id = b""

    def rows(table: str, condition: str, *values: Any) -> list[Row]:
        if table not in tables | {"ledger"} | shared:
            return []
        place = table if table in shared else f'"{corpus.name}"."{table}"'
        cursor = connection.execute(f"SELECT * FROM {place} WHERE {condition}", list(values))
        names = [column[0] for column in cursor.description or []]
        return [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]

    stories: list[Row] = []
    if tables & set(RECORDS):
        config = curated_by(lake, corpus.earlier.get("curation", manifest)) if "curation" in tables else None
        for row in rows("ledger", "uri = ? OR id = ? ORDER BY id", document, id):
            found = next((name for name in ("conversations", "preferences") if rows(name, "id = ?", row["id"])), None)
            if found is None:
                stories.append(_document_story(corpus, row, rows, config))
            else:
                head = {"corpus": corpus.name, "run": manifest.run, "table": found, "verdict": row["verdict"]}
                stories += [{**head, **one} for one in rows(found, "id = ?", row["id"])]
    if not stories:
        for row in rows("quarantine", "archive = ?", document):
            stories.append({"corpus": corpus.name, "run": manifest.run, "table": "quarantine", **row})
    notes = corpus.notes(tables)
    return [{**story, "note": " ".join(notes)} if notes else story for story in stories]


def _repaired(text: str, curation: Mapping[str, Any], config: CurateConfig | None) -> str | None:
    """A text as it was measured; None where the rules it was held to are not known."""
    from datalake.curate.edits import repair
    from datalake.curate.judge import rules_for

    if config is None:
        return None
    try:
        return repair(text, rules_for(config, curation["source"], curation["language"]).repair)
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


def cut_story(text: str, spans: Sequence[Mapping[str, Any]]) -> Row:
    """How much of a text is cut, at which levels, and which documents hold what stays of it elsewhere."""
    from datalake.dedup.spans.cut import cut

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


def decontamination_story(text: str, curation: Mapping[str, Any]) -> Row:
    """What a document holds of evaluation sets, sentence by sentence, and how much of its kept text was cut for it."""
    spans = curation["contaminated_spans"]
    return {
        "characters cut": curation["contaminated_cut"],
        "spans": len(spans),
        **{
            f"{span['set']} at {span['start']}": " ".join(text[span["start"] : span["end"]].split())[:_CUT_SHOWN]
            for span in spans[:_COPIES_SHOWN]
        },
    }


def _document_story(corpus: Corpus, ledger: Row, rows: Any, config: CurateConfig | None) -> Row:
    id = ledger["id"]
    story: Row = {"corpus": corpus.name, "run": corpus.manifest.run}
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
        shown_elsewhere = (*decided, "contaminated_spans")
        story["curation"] = {
            name: value for name, value in curation[0].items() if name not in shown_elsewhere and value is not None
        }
        if config is not None:
            from datalake.curate.judge import explain

            story["judged"] = explain(curation[0], config)
    documents = rows("documents", "id = ?", id)
    if raw and curation:
        text_before = raw[0]["text"] or ""
        # What was rejected has no text of its own: the text that was judged is the repaired one.
        text_after = documents[0]["text"] if documents else _repaired(text_before, curation[0], config)
        if text_after is not None:
            story["edits"] = changed_lines(text_before, text_after)
    if raw and curation and curation[0].get("contaminated_spans"):
        story["decontaminated"] = decontamination_story(text_before, curation[0])
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
        story["mixture"] = {name: mixed[0][name] for name in ("split", "weight", "epochs", "words") if name in mixed[0]}
    spikes = rows("runs.spikes", "id = ? ORDER BY stage, spike", id)
    if spikes:
        shown = ("stage", "run", "spike", "step", "tokens", "loss", "rank")
        story["spikes"] = [{name: row[name] for name in shown} for row in spikes]
    deciding = ("ingest",) if "refused" in story else _DATA_STAGES
    earlier = [corpus.earlier[name] for name in corpus.joined("raw") if name in corpus.earlier]
    stages: dict[str, str] = {}
    for manifest in {run.run: run for run in (corpus.manifest, *earlier)}.values():
        for report in manifest.stages:
            if report.stage in deciding and report.fingerprint:
                stages.setdefault(report.stage, report.fingerprint)
    story["stages"] = stages
    return story
