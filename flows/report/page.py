"""`headwater report`: one self-contained HTML page about a run, to read, print and pass on.

What the page says is read from the run's manifest, its stages' records and its tables, never from a log. Samples are
drawn by the digest of id and seed, so the same run gives the same page.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from datalake.atomic import write_atomically
from datalake.errors import UserError
from datalake.explain import curated_by
from datalake.lake.funnel import Fate, by_source, funnel_of, whole
from datalake.lake.lake import FolderRef, Lake, TableRef
from datalake.lake.records import Manifest, StageRecord, find_manifest, manifests, read_record
from datalake.places import is_local
from flows.label.labels import Labels
from flows.label.summary import summary
from flows.output import command, note
from flows.report import headlines
from flows.report.summary import archives
from flows.report.words import excerpt, number, seconds, share

if TYPE_CHECKING:
    import duckdb

    from datalake.curate.config import CurateConfig

SEED = "headwater"
TEXTS_PER_RULE = 3  # dropped texts shown for each rule
PAIRS_PER_LEVEL = 3
REFUSED_PER_REASON = 3
SPANS_PER_LEVEL = 4

Row = dict[str, Any]


def write_report(lake: Lake, run: str, out: Path | None) -> Row:
    """Write the page about a run; its place as `report`, its size as `bytes`, and the `run`.

    Raises:
        UserError: where there is no such run, or `out` can't be written.
    """
    manifest = last_complete(lake) if run == "last" else find_manifest(lake, run)
    place = out.expanduser().absolute() if out else lake.root / "reports" / f"{manifest.run}.html"
    if is_local(place) and place.is_dir():
        raise UserError(f"{place} is a folder: name a file, such as {place / 'report.html'}")
    page = render(lake, manifest)
    try:
        write_atomically(place, page.encode("utf-8", "replace"))
    except OSError as error:
        raise UserError(f"{place} can't be written ({error.strerror}): name another place with --out") from None
    return {"run": manifest.run, "report": str(place), "bytes": len(page.encode())}


def last_complete(lake: Lake) -> Manifest:
    """The last run; where --until ended it early, the last one of its corpus that went on, which is then said."""
    last = find_manifest(lake)
    whole = [manifest for manifest in manifests(lake) if manifest.corpus == last.corpus and not manifest.until]
    if not last.until or not whole:
        return last
    note(
        f"the last run, {last.run}, ended after {last.until}: this is {whole[-1].run}, the last that went to its end;"
        f" {command('report', last.run, lake=lake.root)} shows the other"
    )
    return whole[-1]


def render(lake: Lake, manifest: Manifest) -> str:
    """The page as HTML. It leads nowhere but within itself, so it reads the same wherever it lies."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"number": number, "share": share, "seconds": seconds, "excerpt": excerpt}
    return environment.get_template("report.html.j2").render(contents(lake, manifest))


def contents(lake: Lake, manifest: Manifest) -> Row:
    """Everything the page shows."""
    from datalake.lake.ledger import connect
    from flows.report.shares import shares

    records = {report.stage: record for report in manifest.stages if (record := _record(lake, report.fingerprint))}
    connection = connect(lake, manifest.run)
    tables = {name for name, ref in manifest.refs.items() if isinstance(ref, TableRef)}
    config = curated_by(lake, manifest) if "curation" in tables else None
    look, counts = _Look(connection, manifest.corpus, tables), _counts(records, "deduplicate")
    weights = records["mixture"].payload.get("config", {}).get("weights", {}) if "mixture" in records else {}
    shares_by_source, by_language = shares(lake, manifest.refs, weights)
    fates = funnel_of(lake, manifest.refs)
    every, became = whole(fates.values()), look.by_source()
    read = by_source(fates, archives(records["ingest"])) if "ingest" in records else []
    evaluations = _evaluations(connection, manifest)
    return {
        "run": manifest,
        "lake": str(lake.root),
        "code": headlines.code_sources(manifest),
        "states": headlines.states(manifest),
        "models": headlines.models(records),
        "warnings": headlines.warnings(manifest, records, read, became, shares_by_source),
        "mixture": shares_by_source,
        "mixture_languages": by_language,
        "answers": headlines.answers(records),
        "took": (manifest.finished - manifest.started).total_seconds(),
        "stages": _stages(manifest, records),
        "priced": manifest.recipe.get("runtime", {}).get("price_per_hour"),
        "funnel": _funnel(manifest, records, every),
        "sources": read,
        "rules": _rules(every.rejected, look, config),
        "metrics": _metrics(connection, manifest.corpus, config),
        "found": _found(records),
        "quality": records["quality"].report if "quality" in records else None,
        "thresholds": _thresholds(records),
        "by_source": became,
        "refused": look.refused(),
        "quarantine": look.quarantine(),
        "duplicates": look.duplicates(),
        "deduplication": {name: n for name, n in counts.items() if not _of_spans(name)},
        "cut": dict(sorted(((name, n) for name, n in counts.items() if _of_spans(name)), key=_of_search)),
        "spans": look.spans(),
        "s_curve": _s_curve(records, manifest),
        "training": _training(connection, manifest, records),
        "evaluations": headlines.by_model(evaluations),
        "compared": records["evaluate"].report.get("compared", []) if "evaluate" in records else [],
        "labels": summary(Labels(lake.root)),
        "lineage": _lineage(records),
        "recipe": json.dumps(manifest.recipe, indent=1, ensure_ascii=False),
        "versions": next((record.versions for record in records.values()), {}),
    }


# Parts of the page ----------------------------------------------------------------------------------------------


def _record(lake: Lake, fingerprint: str | None) -> StageRecord | None:
    return read_record(lake, fingerprint) if fingerprint else None


def _stages(manifest: Manifest, records: dict[str, StageRecord]) -> list[Row]:
    price = manifest.recipe.get("runtime", {}).get("price_per_hour")
    longest = max((record.seconds for record in records.values()), default=0.0) or 1.0
    rows = []
    for report in manifest.stages:
        record = records.get(report.stage)
        rows.append(
            {
                "stage": report.stage,
                "state": report.state,
                "seconds": report.seconds,
                "built": record.seconds if record else None,
                "hours": record.seconds / 3600 if record else None,
                "cost": price * record.seconds / 3600 if record and price else None,
                "bar": 100 * record.seconds / longest if record else 0,
                "records_in": report.records_in,
                "records_out": report.records_out,
                "note": report.note,
                "fingerprint": report.fingerprint,
                "unfinished": record.unfinished if record else {},
            }
        )
    return rows


def _counts(records: dict[str, StageRecord], stage: str) -> dict[str, int]:
    return records[stage].counts if stage in records else {}


def _funnel(manifest: Manifest, records: dict[str, StageRecord], every: Fate) -> list[Row]:
    """What is left after each stage: label, number, and what became of the others."""
    steps: list[tuple[str, int, list[tuple[str, int]]]] = []
    if "ingest" in records:
        lost = [("refused", every.refused.total()), ("quarantined", every.quarantined.total())]
        steps += [("records read", every.records, []), ("taken (raw)", every.taken, lost)]
    raw, base = manifest.refs.get("raw"), 0
    if "curate" in records:
        if isinstance(raw, TableRef) and raw.rows != every.taken:
            base = len(steps)  # dialogues take another way from here: what follows is a share of the documents
            steps.append(("of these documents", raw.rows, []))
        steps.append(("kept by curation", every.kept, [("rejected", every.rejected.total())]))
    if "deduplicate" in records:
        record = records["deduplicate"]
        steps.append(
            ("no duplicate", record.records_out, [("duplicates", max(record.records_in - record.records_out, 0))])
        )
    mixture = manifest.refs.get("mixture")
    if isinstance(mixture, TableRef):
        emptied = _counts(records, "deduplicate").get("emptied", 0)
        steps.append(("in the mixture", mixture.rows, [("of which cuts leave nothing", emptied)]))
    rows = []
    for place, (what, amount, lost) in enumerate(steps):
        whole = steps[base if place >= base else 0][1]
        bar = 100 * amount / whole if whole else 0
        rows.append({"what": what, "number": amount, "whole": whole, "bar": bar, "lost": [x for x in lost if x[1]]})
    return rows


def _rules(rejected: Mapping[str, int], look: _Look, config: CurateConfig | None) -> list[Row]:
    """Rules by how many documents they rejected first, with samples of those and what was asked of them."""
    from tasks.shown.curation import asked

    samples = look.rejected()
    for text in (text for texts in samples.values() for text in texts):
        text["asked"] = asked(text, config)
    most = max(rejected.values(), default=1)
    return [
        {"rule": rule, "number": amount, "bar": 100 * amount / most, "texts": samples.get(rule, [])}
        for rule, amount in sorted(rejected.items(), key=lambda item: (-item[1], item[0]))
    ]


def _metrics(connection: duckdb.DuckDBPyConnection, corpus: str, config: CurateConfig | None) -> list[Row]:
    """For each group of documents held to the same rules, a picture of every metric that these rules ask for."""
    if config is None:
        return []
    from datalake.curate.histograms import histograms
    from datalake.curate.metrics.catalog import definition
    from flows.report.pictures import histogram_svg
    from tasks.shown.curves import svg_uri

    try:
        spread = histograms(connection, f'"{corpus}".curation', config)
    except UserError:  # a file of rules that has gone or changed since
        return []
    groups: dict[tuple[str, tuple[str, ...]], list[Row]] = {}
    for one in spread:
        groups.setdefault((one.rule_set, one.languages), []).append(
            {
                "metric": one.metric,
                "definition": definition(one.metric),
                "picture": svg_uri(histogram_svg(one)),
                "asked": ", ".join(f"{rule.op} {rule.threshold:g} ({rule.name})" for rule in one.rules),
                "kept": sum(one.kept),
                "rejected": sum(one.rejected),
                "missing": one.missing,
                "logarithmic": one.logarithmic,
            }
        )
    return [
        {"rule_set": rule_set, "languages": languages, "rows": rows} for (rule_set, languages), rows in groups.items()
    ]


def _found(records: dict[str, StageRecord]) -> list[tuple[str, str, list[Row]]]:
    """What curation found by lists, evaluation sets and kinds of personal data: title, what it says, rows."""
    if "curate" not in records:
        return []
    report, counts = records["curate"].report, records["curate"].counts
    found = []
    if rows := report.get("block_lists"):
        found.append(("Block lists", "Entries read, lines that are none, documents under one of them.", rows))
    if rows := report.get("evaluation_sets"):
        note = (
            "Rows; those looked for as a whole and those too short for that; n-grams; those left out as figures and as "
            f"boilerplate; documents that hold some. Cut of {number(report['cut']['documents'])} kept documents: "
            f"{number(report['cut']['characters'])} characters."
        )
        found.append(("Evaluation sets", note, rows))
    if "with personal data" in counts:
        found.append(("Personal data", f"{number(counts['with personal data'])} documents have some.", []))
    return found


def _thresholds(records: dict[str, StageRecord]) -> list[Row]:
    """Thresholds that the corpus suggests, a group for each rule set and language."""
    groups: dict[tuple[str, str], list[Row]] = {}
    for row in records["thresholds"].report.get("thresholds", []) if "thresholds" in records else []:
        rule_set, _, rule = row["rule"].rpartition("/")
        groups.setdefault((rule_set, row["language"]), []).append({**row, "rule": rule})
    return [
        {
            "rule_set": rule_set,
            "language": language,
            "rows": rows,
            "proposed": sum(row["method"] != "published" for row in rows),
        }
        for (rule_set, language), rows in groups.items()
    ]


def _of_spans(name: str) -> bool:
    """Whether a count of deduplication is about what is cut from documents that stay."""
    return name.startswith(("characters", "line_", "paragraph_", "substring_")) or name in ("documents_cut", "emptied")


def _of_search(count: tuple[str, int]) -> bool:
    """Whether a count says how spans were looked for, rather than what was found."""
    return count[0].endswith(("_candidates", "_crowded"))


def _s_curve(records: dict[str, StageRecord], manifest: Manifest) -> str | None:
    """How likely a pair of a given similarity is found, as a picture."""
    points = records["deduplicate"].report.get("s_curve") if "deduplicate" in records else None
    if not points:
        return None
    from tasks.shown.curves import bands_svg, svg_uri

    return svg_uri(bands_svg(points, manifest.recipe.get("deduplicate", {}).get("threshold")))


def _training(connection: duckdb.DuckDBPyConnection, manifest: Manifest, records: dict[str, StageRecord]) -> list[Row]:
    """Of each training stage what its metrics say, its curves, its own figures, answers it wrote, closing figures."""
    from tasks.shown import figures as own
    from tasks.shown.curves import curves, svg_uri

    if not _there(connection, "runs", "metrics"):
        return []
    parts = []
    for report in manifest.stages:
        rows = connection.execute(
            "SELECT DISTINCT step, name, value FROM runs.metrics WHERE fingerprint = ? ORDER BY name, step",
            [report.fingerprint],
        ).fetchall()
        said = records[report.stage].report if report.stage in records else {}
        marks: dict[str, list[tuple[int, int]]] = {}
        for finding in said.get("findings", ()):
            marks.setdefault(finding["metric"], []).append((finding["first"], finding["last"]))
        drawn = curves([{"step": step, "name": name, "value": value} for step, name, value in rows], marks)
        if not drawn or not said:
            continue
        figures = {
            name.replace("_", " "): value
            for name, value in said.items()
            if isinstance(value, int | float) and not isinstance(value, bool)
        }
        pictures = [
            {"title": title, "address": svg_uri(svg), "id": f"{report.stage}-{names[0]}"} for title, svg, names in drawn
        ]
        place = {name: picture["id"] for picture, one in zip(pictures, drawn, strict=True) for name in one.names}
        told = [finding | {"at": place.get(finding["metric"])} for finding in said.get("findings", ())]
        shown = [
            figure | {"picture": svg_uri(svg) if (svg := own.picture(figure)) else None}
            for figure in said.get("figures", ())
        ]
        samples = _samples(connection, report.fingerprint)
        parts.append({"stage": report.stage, "pictures": pictures, "figures": figures, "findings": told}
                     | {"shown": shown, "samples": samples})  # fmt: skip
    return parts


def _samples(connection: duckdb.DuckDBPyConnection, fingerprint: str | None) -> Row | None:
    """Some of the answers that a model wrote while it learned, by step, and the names of their figures."""
    from tasks.shown.training import chosen

    if not _there(connection, "runs", "samples"):
        return None
    found = connection.execute(
        "SELECT step, prompt, answer, tokens, ended, map_entries(figures) AS figures FROM runs.samples "
        "WHERE fingerprint = ? ORDER BY step, prompt, answer",
        [fingerprint],
    )
    names = [column[0] for column in found.description or []]
    rows = [dict(zip(names, row, strict=True)) for row in found.fetchall()]
    for row in rows:
        row["figures"] = {entry["key"]: entry["value"] for entry in row["figures"]}
    rows = chosen(rows)
    if not rows:
        return None
    figures = list(dict.fromkeys(name for row in rows for name in row["figures"]))
    return {"names": figures, "rows": rows, "last": rows[-1]["step"]}


def _evaluations(connection: duckdb.DuckDBPyConnection, manifest: Manifest) -> list[Row]:
    """Figures of the run, those of benchmarks with what of their items was seen in training."""
    if not _there(connection, "runs", "evaluations"):
        return []
    prints = [report.fingerprint for report in manifest.stages if report.fingerprint]
    found = connection.execute(
        "SELECT DISTINCT * EXCLUDE fingerprint FROM runs.evaluations WHERE list_contains(?, fingerprint)", [prints]
    )
    names = [column[0] for column in found.description or []]
    rows = [dict(zip(names, row, strict=True)) for row in found.fetchall()]
    order = {report.stage: place for place, report in enumerate(manifest.stages)}
    return sorted(rows, key=lambda row: (order.get(row["checkpoint"], -1), row["task"], row["metric"]))


def _lineage(records: dict[str, StageRecord]) -> list[Row]:
    """For each stage, its inputs and outputs by name, fingerprint and data version."""

    def shown(ref: TableRef | FolderRef) -> Row:
        name = ref.name if isinstance(ref, FolderRef) else ref.table
        rows = None if isinstance(ref, FolderRef) else ref.rows
        return {"name": name, "rows": rows, "made_by": ref.fingerprint[:12], "version": ref.data_version[:12]}

    return [
        {
            "stage": stage,
            "version": record.version,
            "fingerprint": record.fingerprint,
            "commit": (record.git_commit or "")[:12] + (" with changes" if record.git_dirty else ""),
            "libraries": record.payload.get("libraries", {}),
            "inputs": [shown(ref) for refs in record.inputs.values() for ref in refs],
            "outputs": [shown(ref) for ref in record.outputs.values()],
        }
        for stage, record in records.items()
    ]


def _there(connection: duckdb.DuckDBPyConnection, schema: str, table: str) -> bool:
    found = connection.execute(
        "SELECT 1 FROM information_schema.tables WHERE table_schema = ? AND table_name = ?", [schema, table]
    ).fetchone()
    return found is not None


class _Look:
    """Samples from a corpus as the run left it; empty where the run has no such table."""

    def __init__(self, connection: duckdb.DuckDBPyConnection, corpus: str, tables: set[str]):
        self.connection, self.corpus, self.tables = connection, corpus, tables

    def rows(self, sql: str, needed: set[str], *values: Any) -> list[Row]:
        """Rows of a query in which {c} stands for the corpus."""
        if not needed <= self.tables:
            return []
        found = self.connection.execute(sql.replace("{c}", f'"{self.corpus}"'), list(values))
        names = [column[0] for column in found.description or []]
        return [dict(zip(names, row, strict=True)) for row in found.fetchall()]

    def by_source(self) -> list[Row]:
        """Each source's documents: read, kept, rejected, duplicates."""
        return self.rows(
            """SELECT source, count(*) AS raw, count(*) FILTER (verdict = 'kept') AS kept,
                      count(*) FILTER (verdict = 'rejected') AS rejected,
                      count(*) FILTER (verdict = 'duplicate') AS duplicates
               FROM {c}.ledger l WHERE l.id IN (SELECT id FROM {c}.raw) GROUP BY source ORDER BY source""",
            {"raw", "curation"},
        )

    def rejected(self) -> dict[str, list[Row]]:
        """Some of the texts each rule rejected."""
        rows = self.rows(
            """WITH drawn AS (
                   SELECT * FROM {c}.curation WHERE verdict = 'rejected'
                   QUALIFY row_number() OVER (PARTITION BY rule ORDER BY md5(hex(id) || ?)) <= ?)
               SELECT d.*, r.uri, r.text
               FROM drawn d JOIN {c}.raw r ON r.id = d.id ORDER BY d.rule, md5(hex(d.id) || ?)""",
            {"raw", "curation"},
            SEED,
            TEXTS_PER_RULE,
            SEED,
        )
        samples: dict[str, list[Row]] = {}
        for row in rows:
            samples.setdefault(row["rule"], []).append(row)
        return samples

    def refused(self) -> list[Row]:
        """How many records were refused for each reason, with some of their addresses."""
        return self.rows(
            """SELECT source, reason, count(*) AS number,
                      list({'uri': uri, 'detail': detail} ORDER BY md5(hex(id) || ?))[1:?] AS some
               FROM {c}.refused GROUP BY source, reason ORDER BY source, number DESC, reason""",
            {"refused"},
            SEED,
            REFUSED_PER_REASON,
        )

    def quarantine(self) -> list[Row]:
        """What could not be read, by reason, with the first places."""
        return self.rows(
            """SELECT source, reason, count(*) AS number,
                      list({'archive': archive, 'offset': "offset", 'detail': detail}
                           ORDER BY archive, "offset")[1:?] AS some
               FROM {c}.quarantine GROUP BY source, reason ORDER BY source, number DESC, reason""",
            {"quarantine"},
            REFUSED_PER_REASON,
        )

    def duplicates(self) -> list[Row]:
        """Some duplicates beside the kept document they repeat."""
        return self.rows(
            """WITH drawn AS (
                   SELECT * FROM {c}.duplicates WHERE duplicate_of IS NOT NULL
                   QUALIFY row_number() OVER (PARTITION BY level ORDER BY md5(hex(id) || ?)) <= ?)
               SELECT d.level, d.similarity, a.uri, a.text, a.source, b.uri AS kept_uri, b.text AS kept_text,
                      b.source AS kept_source
               FROM drawn d JOIN {c}.documents a ON a.id = d.id JOIN {c}.documents b ON b.id = d.duplicate_of
               ORDER BY d.level, d.similarity, hex(d.id)""",
            {"documents", "duplicates"},
            SEED,
            PAIRS_PER_LEVEL,
        )

    def spans(self) -> list[Row]:
        """What is cut from most documents, an example for each level and number of copies."""
        return self.rows(
            """WITH drawn AS (
                   SELECT * FROM {c}.spans
                   QUALIFY row_number() OVER (PARTITION BY level, copies ORDER BY md5(hex(id) || ?), start) = 1),
               most AS (
                   SELECT * FROM drawn
                   QUALIFY row_number() OVER (PARTITION BY level ORDER BY copies DESC) <= ?)
               SELECT s.level, s.copies, d.uri, substr(d.text, s.start + 1, s."end" - s.start) AS text
               FROM most s JOIN {c}.documents d ON d.id = s.id ORDER BY s.level, s.copies DESC""",
            {"documents", "spans"},
            SEED,
            SPANS_PER_LEVEL,
        )
