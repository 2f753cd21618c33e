"""`query` and `explain`: reading what a lake knows of its documents."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from datalake.errors import LostDataError, UserError
from datalake.lake.corpora import Corpus, corpora, corpus_of
from datalake.lake.lake import Lake
from datalake.lake.ledger import RECORDS, ask, connect
from datalake.lake.records import Manifest
from datalake.printable import from_terminal, one_line
from flows.output import as_json, as_table, line, note, text

if TYPE_CHECKING:
    from datalake.curate.config import CurateConfig

_DATA_STAGES = ("ingest", "curate", "deduplicate", "mixture")  # what decides about a document
_COPIES_SHOWN = 5
_CUT_SHOWN = 200  # characters


def query_lake(sql: str, lake: Path, run: str | None, full: bool, json: bool, allow_files: bool = False) -> int:
    """Run SQL over the lake and print the rows; values too long for a terminal's line are cut unless `full`."""
    columns, rows, notes = ask(Lake(lake).require(), from_terminal(sql), run, allow_files)
    for said in notes:
        note(said)
    if json:
        as_json([dict(zip(columns, row, strict=True)) for row in rows])
    else:
        as_table(columns, rows, full)
    return 0


# Explain --------------------------------------------------------------------------------------------------------


def explain_document(document: str, lake_folder: Path, json: bool) -> int:
    """Print what became of every record with this address or id, in each corpus."""
    lake, document = Lake(lake_folder).require(), from_terminal(document)
    shown = corpora(lake)
    stories: list[dict[str, Any]] = []
    lost: LostDataError | None = None
    for corpus in shown:
        try:
            stories += stories_in(lake, corpus, document)
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
                line(f"{name}:")
                for key, item in value.items():
                    line(f"  {one_line(key):<22} {one_line(text(item))}")
            elif name == "judged":
                line("rules:")
                for rule in value:
                    line(f"  {rule_line(rule)}")
            else:
                line(f"{name:<24} {one_line(text(value))}")
        line()
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
    return stories_in(lake, corpus_of(lake, manifest), document)


def stories_in(lake: Lake, corpus: Corpus, document: str) -> list[dict[str, Any]]:
    """Everything a corpus knows of the records with this address or id."""
    connection = connect(lake, shown=[corpus])
    manifest = corpus.manifest
    tables = {name for base in RECORDS for name in corpus.joined(base)} | corpus.joined("quarantine").keys()
    try:
        id = bytes.fromhex(document)
    except ValueError:
        id = b""

    def rows(table: str, condition: str, *values: Any) -> list[dict[str, Any]]:
        if table not in tables | {"ledger"}:
            return []
        cursor = connection.execute(f'SELECT * FROM "{corpus.name}"."{table}" WHERE {condition}', list(values))
        names = [column[0] for column in cursor.description or []]
        return [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]

    stories: list[dict[str, Any]] = []
    if tables & set(RECORDS):
        judged = corpus.earlier.get("curation", manifest)
        from flows.recipe import curated_by

        config = curated_by(lake, judged) if "curation" in tables else None
        for row in rows("ledger", "uri = ? OR id = ?", document, id):
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


def cut_story(text: str, spans: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
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


def decontamination_story(text: str, curation: Mapping[str, Any]) -> dict[str, Any]:
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


def _document_story(corpus: Corpus, ledger: dict[str, Any], rows: Any, config: CurateConfig | None) -> dict[str, Any]:
    id = ledger["id"]
    story: dict[str, Any] = {"corpus": corpus.name, "run": corpus.manifest.run}
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
        story["mixture"] = {name: mixed[0][name] for name in ("split", "weight", "epochs", "token_count")}
    deciding = ("ingest",) if "refused" in story else _DATA_STAGES
    earlier = [corpus.earlier[name] for name in corpus.joined("raw") if name in corpus.earlier]
    stages: dict[str, str] = {}
    for manifest in {run.run: run for run in (corpus.manifest, *earlier)}.values():
        for report in manifest.stages:
            if report.stage in deciding and report.fingerprint:
                stages.setdefault(report.stage, report.fingerprint)
    story["stages"] = stages
    return story
