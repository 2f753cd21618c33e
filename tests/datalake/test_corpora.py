"""After a run that ended early a corpus keeps the later tables of the run before, and says whose they are."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from datalake.curate.schema import CURATION
from datalake.dedup.schema import DUPLICATES
from datalake.errors import UserError
from datalake.lake.corpora import corpora
from datalake.lake.lake import Lake, TableRef
from datalake.lake.ledger import ask, query
from datalake.lake.records import Manifest, StageRecord, StageReport, find_manifest, write_manifest, write_record
from datalake.lake.shards import ShardWriter
from datalake.tables import CONVERSATIONS, DOCUMENTS, PREFERENCES, RAW, REFUSED

START = datetime(2026, 11, 23, tzinfo=UTC)
ORDER = ("ingest", "curate", "deduplicate")


def row(n: int, schema: pa.Schema, **more: Any) -> dict[str, Any]:
    known = {
        "id": n.to_bytes(16, "big"),
        "uri": f"u{n}",
        "source": "web",
        "language": "en",
        "archive": "a",
        "offset": n,
    }
    return {name: value for name, value in {**known, **more}.items() if name in schema.names}


class Story:
    """A lake that is told run by run, without running anything."""

    def __init__(self, folder: Path):
        self.lake, self.minute = Lake(folder / "lake").create(), 0

    def stage(
        self, stage: str, key: str, tables: dict[str, tuple[pa.Schema, list[Any]]], *read: TableRef
    ) -> StageReport:
        made: dict[str, Any] = {}
        for name, (schema, rows) in tables.items():
            with ShardWriter(self.lake.shard_folder(name, key), key, key, {name: schema}) as out:
                out.write(name, pa.Table.from_pylist(rows, schema=schema))
            made[name] = self.lake.commit(f"small.{name}", schema, out.result.files, key)
        record = StageRecord(
            stage=stage, version="1", corpus="small", fingerprint=key, state="done", payload={}, outputs=made,
            inputs={ref.table: [ref] for ref in read}, counts={}, started=START, seconds=1,
        )  # fmt: skip
        write_record(self.lake, record)
        return StageReport(stage=stage, state="ran", seconds=1, fingerprint=key, outputs=made)

    def ingest(self, key: str, count: int) -> StageReport:
        return self.stage(
            "ingest",
            key,
            {
                "raw": (RAW, [row(n, RAW, text=f"text {n}") for n in range(count)]),
                "refused": (REFUSED, [row(90, REFUSED, reason="status")]),
                "conversations": (CONVERSATIONS, [row(91, CONVERSATIONS, messages=[])]),
                "preferences": (PREFERENCES, [row(92, PREFERENCES, prompt=[])]),
            },
        )

    def curate(self, key: str, ingest: StageReport, kept: list[int]) -> StageReport:
        raw: Any = ingest.outputs["raw"]
        verdicts = [
            row(n, CURATION, verdict="kept" if n in kept else "rejected", rule=None if n in kept else "r", rules=[])
            for n in range(raw.rows)
        ]
        documents = [row(n, DOCUMENTS, text=f"text {n}") for n in kept]
        return self.stage("curate", key, {"curation": (CURATION, verdicts), "documents": (DOCUMENTS, documents)}, raw)

    def deduplicate(self, key: str, curate: StageReport, gone: dict[int, int]) -> StageReport:
        documents: Any = curate.outputs["documents"]
        decided = [row(n, DUPLICATES, duplicate_of=of.to_bytes(16, "big"), similarity=1.0) for n, of in gone.items()]
        return self.stage("deduplicate", key, {"duplicates": (DUPLICATES, decided)}, documents)

    def end(self, run: str, *stages: StageReport, until: str | None = None, corpus: str = "small") -> None:
        self.minute += 1
        at = START + timedelta(minutes=self.minute)
        write_manifest(
            self.lake,
            Manifest(run=run, corpus=corpus, recipe={}, started=at, finished=at, until=until, stages=list(stages)),
        )

    def verdicts(self, run: str | None = None) -> dict[str, str]:
        return dict(query(self.lake, "SELECT uri, verdict FROM small.ledger", run)[1])


@pytest.fixture
def story(tmp_path: Path) -> Story:
    """A whole run: of 3 documents 0 is kept, 1 a duplicate of it, 2 rejected."""
    story = Story(tmp_path)
    read = story.ingest("one", 3)
    good = story.curate("two", read, [0, 1])
    story.end("whole", read, good, story.deduplicate("three", good, {1: 0}))
    return story


WHOLE = {"u0": "kept", "u1": "duplicate", "u2": "rejected", "u90": "refused", "u91": "kept", "u92": "kept"}


def test_the_ledger_has_kept_dialogues_and_pairs_and_calls_refusals_refused(story: Story) -> None:
    assert story.verdicts() == WHOLE
    columns, rows = query(story.lake, "SELECT * FROM small.ledger WHERE verdict = 'refused'")
    assert rows[0][columns.index("rule")] == "status"


def test_a_corpus_of_dialogues_alone_has_a_ledger(tmp_path: Path) -> None:
    story = Story(tmp_path)
    tables = {"conversations": (CONVERSATIONS, [row(1, CONVERSATIONS, messages=[])])}
    story.end("said", story.stage("ingest", "one", tables))
    columns, rows = query(story.lake, "SELECT * FROM small.ledger")
    assert columns[:8] == ["id", "uri", "source", "language", "verdict", "rule", "duplicate_of", "similarity"]
    assert [one[4] for one in rows] == ["kept"]


def test_after_until_the_same_data_is_shown_with_all_that_is_known_of_it(story: Story) -> None:
    read = find_manifest(story.lake, "whole").stages[0]
    story.end("short", read, until="ingest")
    assert story.verdicts() == WHOLE
    assert query(story.lake, "SELECT uri FROM small.clean")[1] == [("u0",)]
    said = ask(story.lake, "SELECT * FROM small.curation")[2]
    assert said == ["small.curation: as run whole left it; the last run, short, ended after ingest"]
    [said_of_ledger] = ask(story.lake, "SELECT * FROM small.ledger")[2]
    assert "small.curation" in said_of_ledger
    assert "small.duplicates" in said_of_ledger
    assert ask(story.lake, "WITH curation AS (SELECT 1) SELECT * FROM curation, small.raw")[2] == []


def test_what_was_made_of_other_data_is_there_and_joined_to_nothing(story: Story) -> None:
    story.end("short", story.ingest("other", 5), until="ingest")
    assert story.verdicts() == {**{f"u{n}": None for n in range(5)}, "u90": "refused", "u91": "kept", "u92": "kept"}
    assert query(story.lake, "SELECT count(*) FROM small.curation")[1] == [(3,)]
    assert query(story.lake, "SELECT uri FROM small.clean")[1] == [("u0",)]  # the run before: all of it is its own
    assert ask(story.lake, "SELECT * FROM small.ledger")[2] == []
    [said] = ask(story.lake, "SELECT * FROM small.clean")[2]
    assert "as run whole left them" in said


def test_a_new_curation_is_not_shown_with_duplicates_among_the_old_one(story: Story) -> None:
    read = find_manifest(story.lake, "whole").stages[0]
    story.end("short", read, story.curate("new", read, [0, 1, 2]), until="curate")
    assert {uri for uri, verdict in story.verdicts().items() if verdict == "kept"} == {"u0", "u1", "u2", "u91", "u92"}
    assert query(story.lake, "SELECT count(*) FROM small.clean")[1] == [(3,)]
    assert query(story.lake, "SELECT count(*) FROM small.duplicates")[1] == [(1,)]


def test_a_named_run_is_shown_alone_and_a_whole_one_borrows_nothing(story: Story) -> None:
    read = find_manifest(story.lake, "whole").stages[0]
    story.end("short", read, until="ingest")
    with pytest.raises(UserError, match="nothing wrote a table curation here"):
        query(story.lake, "SELECT * FROM small.curation", "short")
    story.end("narrow", read, until=None)  # a recipe that has no later stages
    assert list(corpora(story.lake)[0].earlier) == []


def test_a_manifest_from_before_until_was_written_says_it_in_its_notes() -> None:
    skipped = {"stage": "curate", "state": "skipped", "seconds": 0, "note": "after --until ingest"}
    at = START.isoformat()
    body = {"run": "r", "corpus": "c", "recipe": {}, "started": at, "finished": at, "stages": [skipped]}
    assert Manifest.model_validate(body).until == "ingest"
    assert Manifest.model_validate({**body, "stages": []}).until is None


def test_the_beginning_of_several_runs_is_not_one_of_them(story: Story) -> None:
    read = find_manifest(story.lake, "whole").stages[0]
    for run in ("2026-a", "2026-b", "2026-bb"):
        story.end(run, read)
    with pytest.raises(UserError, match="2026 is the beginning of 3 runs: name one of 2026-a, 2026-b, 2026-bb"):
        query(story.lake, "SELECT 1", "2026")
    assert find_manifest(story.lake, "2026-b").run == "2026-b"
    assert find_manifest(story.lake, "2026-a").run == "2026-a"


def test_show_tables_names_every_table_and_view_and_a_single_corpus_needs_no_namespace(story: Story) -> None:
    story.end("empty", story.ingest("none", 0))
    for sql in ("SHOW TABLES", "show tables ;"):
        columns, rows = query(story.lake, sql)
        assert columns == ["table", "columns", "names"]
        assert {one[0] for one in rows} >= {"small.raw", "small.ledger", "small.refused", "runs.stages"}
        assert not [one[0] for one in rows if "empty" in one[0] or one[0].startswith("main.")]
    assert {one[1] for one in query(story.lake, "SHOW ALL TABLES")[1]} == {"small", "runs"}
    assert query(story.lake, "SELECT count(*) FROM ledger")[1] == [(3,)]
    assert [one[0] for one in query(story.lake, "DESCRIBE small.raw")[1]] == RAW.names
    assert query(story.lake, "SELECT * FROM raw")[0] == RAW.names
    story.end("second", story.ingest("more", 1), corpus="other")
    with pytest.raises(UserError, match=r"there are .*small\.ledger"):
        query(story.lake, "SELECT count(*) FROM ledger")
