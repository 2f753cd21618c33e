"""What a second run costs, after nothing, a threshold, an archive, a folder's name or a file has changed; and whether
all records are accounted for.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import world
from world import Whole

from datalake.lake.funnel import by_source, funnel_of
from datalake.lake.lake import Lake
from datalake.lake.records import find_manifest, read_record
from flows.report.summary import archives, lines

DATA = ("ingest", "curate", "deduplicate", "mixture", "tokenizer", "tokenize")


@pytest.fixture(scope="module", autouse=True)
def _server(prefect_server: Any) -> None:
    """Every test here runs flows."""


@pytest.fixture
def lake(tmp_path: Path) -> Path:
    return tmp_path / "lake"


@pytest.fixture
def two_files(tmp_path: Path) -> list[Path]:
    """Two tables of six documents each; documents 0 and 5 of the first are repeated in the second, 5 with changes."""
    first = tmp_path / "in" / "a.jsonl"
    changed = world.prose(5, 40).replace("river", "brook").replace("the ", "that ", 12)
    early = [{"id": str(n), "text": world.prose(n, 40 if n == 5 else 12), "created": "2020-01-01"} for n in range(6)]
    late = [{"id": "copy", "text": world.prose(0)}, {"id": "changed", "text": changed}]
    late += [{"id": str(n), "text": world.prose(n)} for n in range(10, 14)]
    second = world.jsonl(tmp_path / "in" / "b.jsonl", [row | {"created": "2021-01-01"} for row in late])
    return [world.jsonl(first, early), second]


# The same again ------------------------------------------------------------------------------------------------------


def test_a_whole_run_does_every_stage(whole: Whole) -> None:
    states = world.states(whole.reports, skipped=True)
    assert {stage for stage, state in states.items() if state == "skipped"} == {"instruct", "feedback", "grpo"}
    assert {state for state in states.values() if state != "skipped"} == {"ran"}
    assert len(whole.reports) == 18


def test_a_second_run_does_no_stage_work_and_prefect_calls_each_stage_cached(whole: Whole) -> None:
    from flows.stages import STAGES
    from tasks.log import RunLog
    from tasks.tracked import RUN_LOG

    before = _everything_made(whole.lake)
    log = RunLog("second")
    token = RUN_LOG.set(log)
    try:
        reports = world.run(whole.recipe, whole.lake)
    finally:
        RUN_LOG.reset(token)
    ran = [stage for stage in STAGES if whole.reports[stage].state == "ran"]
    assert world.states(reports) == dict.fromkeys(ran, "cached")
    assert [state.name for state in log.states.values()] == ["Cached"] * len(ran)
    assert _everything_made(whole.lake) == before
    for stage, report in reports.items():
        assert report.outputs == whole.reports[stage].outputs


def _everything_made(lake: Path) -> dict[str, tuple[int, int]]:
    """Inode and time of all that stages make."""
    return {
        str(path): (path.stat().st_ino, path.stat().st_mtime_ns)
        for folder in ("shards", "folders", "records")
        for path in (lake / folder).rglob("*")
        if path.is_file()
    }


def test_another_corpus_of_the_same_sources_takes_everything_from_the_cache(two_files: list[Path], lake: Path) -> None:
    world.run(world.tables(lake, two_files, "first"), lake, "mixture")
    again = world.run(world.tables(lake, two_files, "second"), lake, "mixture")
    assert set(world.states(again).values()) == {"cached"}
    assert world.rows(lake, "SELECT count(*) FROM second.raw") == [(12,)]
    assert world.rows(lake, "SELECT count(*) FROM second.ledger") == world.rows(lake, "SELECT count(*) FROM first.raw")


def test_an_output_that_is_gone_is_made_again(two_files: list[Path], lake: Path) -> None:
    recipe = world.tables(lake, two_files)
    first = world.run(recipe, lake, "curate")
    gone = Path(Lake(lake).files(world.table_of(first["curate"], "documents"))[0])
    before = world.parquet(lake)
    gone.unlink()
    again = world.run(recipe, lake, "curate")
    assert world.states(again) == {"ingest": "cached", "curate": "ran"}
    assert world.parquet(lake) == before


def test_workers_and_places_are_no_part_of_identity(two_files: list[Path], lake: Path) -> None:
    first = world.run(world.tables(lake, two_files), lake, "curate")
    other = world.tables(lake, two_files, runtime=world.inline() | {"workers": 7, "retries": 3, "memory_gb": 9})
    again = world.run(other, lake, "curate")
    assert world.states(again) == {"ingest": "cached", "curate": "cached"}
    assert again["curate"].fingerprint == first["curate"].fingerprint


# A threshold ---------------------------------------------------------------------------------------------------------


def test_a_changed_threshold_reruns_deduplication_and_what_its_output_reaches(
    two_files: list[Path], lake: Path
) -> None:
    strict = world.tables(lake, two_files, deduplicate={"threshold": 0.95}, tokenizer={"vocabulary": 300})
    first = world.run(strict, lake, "tokenize")
    assert _duplicates(lake) == ["b.jsonl#copy"]
    loose = strict | {"deduplicate": {"threshold": 0.4}}
    again = world.run(loose, lake, "tokenize")
    assert _duplicates(lake) == ["b.jsonl#changed", "b.jsonl#copy"]
    assert world.states(again) == {
        "ingest": "cached",
        "curate": "cached",
        "deduplicate": "ran",
        "mixture": "ran",
        "tokenizer": "ran",
        "tokenize": "ran",
    }
    assert again["mixture"].records_out == (first["mixture"].records_out or 0) - 1


def test_another_order_of_precedence_decides_anew_from_the_same_signatures(two_files: list[Path], lake: Path) -> None:
    removed = []
    for precedence in (["created"], ["length"]):  # the one with changes is the later and the longer one
        section = {"precedence": precedence, "threshold": 0.5}
        world.run(world.tables(lake, two_files, deduplicate=section), lake, "deduplicate")
        sql = """SELECT split_part(r.uri, '#', 2) FROM small.duplicates d JOIN small.raw r USING (id)
                 WHERE d.level = 'near'"""
        removed += world.rows(lake, sql)
    assert removed == [("changed",), ("5",)]
    assert len(world.shard_marks(lake, "deduplicate")) == 4, "two shards signed, and two decisions"


def test_where_a_rerun_stage_gives_the_same_output_the_rerun_stops(two_files: list[Path], lake: Path) -> None:
    recipe = world.tables(lake, two_files, deduplicate={"threshold": 0.95}, tokenizer={"vocabulary": 300})
    world.run(recipe, lake, "tokenize")
    again = world.run(recipe | {"deduplicate": {"threshold": 0.94}}, lake, "tokenize")
    assert world.states(again) == dict.fromkeys(DATA, "cached") | {"deduplicate": "ran"}


def _duplicates(lake: Path) -> list[str]:
    return [row[0] for row in world.rows(lake, "SELECT uri FROM small.ledger WHERE verdict = 'duplicate' ORDER BY 1")]


# Archives ------------------------------------------------------------------------------------------------------------


def test_one_more_archive_costs_one_more_shard_in_every_stage(
    two_files: list[Path], tmp_path: Path, lake: Path
) -> None:
    world.run(world.tables(lake, two_files), lake, "mixture")
    stages = ("ingest", "curate", "deduplicate")
    before = {stage: world.shard_marks(lake, stage) for stage in stages}
    third = world.texts(tmp_path / "in" / "c.jsonl", range(20, 24))
    again = world.run(world.tables(lake, [*two_files, third]), lake, "mixture")
    assert set(world.states(again).values()) == {"ran"}
    for stage, extra in (("ingest", 1), ("curate", 1), ("deduplicate", 2)):  # one signed, one decision over all
        marks = world.shard_marks(lake, stage)
        assert len(marks) == len(before[stage]) + extra
        assert before[stage].items() <= marks.items(), f"{stage} did a finished shard again"
    assert world.rows(lake, "SELECT count(*) FROM small.raw") == [(16,)]


def test_one_archive_less_costs_nothing_but_the_decisions(two_files: list[Path], lake: Path) -> None:
    world.run(world.tables(lake, two_files), lake, "mixture")
    before = {stage: world.shard_marks(lake, stage) for stage in ("ingest", "curate")}
    world.run(world.tables(lake, two_files[1:]), lake, "mixture")
    assert {stage: world.shard_marks(lake, stage) for stage in ("ingest", "curate")} == before
    assert world.rows(lake, "SELECT count(*), count(DISTINCT archive) FROM small.raw") == [(6, 1)]


def test_a_source_put_before_others_leaves_their_shards_and_counts_alone(
    two_files: list[Path], tmp_path: Path, lake: Path
) -> None:
    old = world.tables(lake, two_files[:1])
    world.run(old, lake, "ingest")
    before = world.shard_marks(lake, "ingest")
    wiki = {"kind": "wikipedia", "paths": [str(world.wiki(tmp_path / "in" / "wiki.xml", range(30, 33)))]}
    again = world.run(old | {"sources": [wiki, *old["sources"]]}, lake, "ingest")["ingest"]
    assert before.items() <= world.shard_marks(lake, "ingest").items()
    fates = funnel_of(Lake(lake), again.outputs)
    told = {source: (fate.records, fate.taken, fate.refused.total()) for source, fate in fates.items()}
    assert told == {"wikipedia": (4, 3, 1), "table": (6, 6, 0)}


def test_outputs_depend_on_the_recipe_and_not_on_what_the_lake_has_seen_before(
    two_files: list[Path], tmp_path: Path, lake: Path
) -> None:
    tables = world.tables(lake, two_files, tokenizer={"vocabulary": 300})
    wiki = {"kind": "wikipedia", "paths": [str(world.wiki(tmp_path / "in" / "wiki.xml", range(30, 33)))]}
    both = tables | {"sources": [wiki, *tables["sources"]]}
    world.run(tables, lake, "tokenize")
    after = world.run(both, lake, "tokenize")
    fresh = world.run(both, tmp_path / "fresh", "tokenize")
    assert _versions(after) == _versions(fresh)


def _versions(reports: Any) -> dict[str, str]:
    return {name: ref.data_version for report in reports.values() for name, ref in report.outputs.items()}


def test_the_same_archive_in_two_sources_is_refused(two_files: list[Path], lake: Path) -> None:
    from datalake.errors import UserError

    recipe = world.tables(lake, two_files)
    recipe["sources"] = [*recipe["sources"], {"kind": "table", "name": "again", "paths": [str(two_files[0])]}]
    with pytest.raises(UserError, match=r"a\.jsonl"):
        world.run(recipe, lake, "ingest")


def test_moving_the_input_folder_reruns_nothing(two_files: list[Path], tmp_path: Path, lake: Path) -> None:
    folder = tmp_path / "in"
    first = world.run(world.tables(lake, [folder]), lake, "mixture")
    moved = folder.rename(tmp_path / "elsewhere" if (tmp_path / "elsewhere").mkdir() else tmp_path / "elsewhere" / "in")
    again = world.run(world.tables(lake, [moved]), lake, "mixture")
    assert set(world.states(again).values()) == {"cached"}
    assert again["ingest"].fingerprint == first["ingest"].fingerprint


def test_a_touched_or_copied_file_reruns_nothing(two_files: list[Path], lake: Path) -> None:
    world.run(world.tables(lake, two_files), lake, "ingest")
    os.utime(two_files[0], ns=(1, 1))
    content = two_files[1].read_bytes()
    two_files[1].unlink()
    two_files[1].write_bytes(content)
    assert world.states(world.run(world.tables(lake, two_files), lake, "ingest")) == {"ingest": "cached"}


def test_a_file_changed_in_place_reruns_what_read_it(two_files: list[Path], lake: Path) -> None:
    world.run(world.tables(lake, two_files), lake, "curate")
    before = {stage: world.shard_marks(lake, stage) for stage in ("ingest", "curate")}
    old = two_files[1].read_text()
    two_files[1].write_text(old.replace("people", "peoplo"))  # the same size
    again = world.run(world.tables(lake, two_files), lake, "curate")
    assert world.states(again) == {"ingest": "ran", "curate": "ran"}
    for stage in before:
        marks = world.shard_marks(lake, stage)
        assert before[stage].items() <= marks.items()
        assert len(marks) == 3  # the first file's, the second's old and new
    assert world.rows(
        lake, "SELECT count(*) FROM small.raw WHERE contains(text, 'people') AND archive = 'b.jsonl'"
    ) == [(0,)]


# Going back ----------------------------------------------------------------------------------------------------------


def test_going_back_to_an_earlier_recipe_shows_its_tables_again(two_files: list[Path], lake: Path) -> None:
    one, both = world.tables(lake, two_files[:1]), world.tables(lake, two_files)
    count = "SELECT count(*) FROM small.raw"
    world.run(one, lake, "curate")
    assert world.rows(lake, count) == [(6,)]
    first = find_manifest(Lake(lake)).run
    world.run(both, lake, "curate")
    assert world.rows(lake, count) == [(12,)]
    assert world.rows(lake, count, run=first) == [(6,)]
    again = world.run(one, lake, "curate")
    assert set(world.states(again).values()) == {"cached"}
    assert world.rows(lake, count) == [(6,)]
    assert world.rows(lake, "SELECT count(*) FROM small.ledger") == [(6,)]


# Partial -------------------------------------------------------------------------------------------------------------


@pytest.fixture
def failing(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Makes the reader of tables raise for one archive, until called with another name."""
    from datalake.sources.tables import table

    real, wanted = table.read, [""]

    def read(shard: Any, config: Any) -> Any:
        if shard.name == wanted[0]:
            raise OSError("the disk is on fire")
        return real(shard, config)

    monkeypatch.setattr(table, "read", read)
    return lambda name: wanted.__setitem__(0, name)


def test_a_shard_that_fails_makes_the_stage_partial_and_the_next_run_does_just_that_one(
    two_files: list[Path], lake: Path, tmp_path: Path, failing: Callable[[str], None]
) -> None:
    recipe = world.tables(lake, two_files)
    failing("b.jsonl")
    first = world.run(recipe, lake, "mixture")
    assert world.states(first) == {"ingest": "partial", "curate": "ran", "deduplicate": "ran", "mixture": "ran"}
    record = read_record(Lake(lake), str(first["ingest"].fingerprint))
    assert record is not None
    assert record.state == "partial"
    assert list(record.unfinished.values()) == ["OSError: the disk is on fire"]
    assert "b.jsonl" in next(iter(record.unfinished))
    assert world.rows(lake, "SELECT count(*) FROM small.raw") == [(6,)]

    still = world.run(recipe, lake, "mixture")  # not cached while it isn't whole; what rests on it is
    assert world.states(still) == {
        "ingest": "partial",
        "curate": "cached",
        "deduplicate": "cached",
        "mixture": "cached",
    }

    before = world.shard_marks(lake, "ingest")
    failing("")
    second = world.run(recipe, lake, "mixture")
    assert world.states(second) == dict.fromkeys(("ingest", "curate", "deduplicate", "mixture"), "ran")
    marks = world.shard_marks(lake, "ingest")
    assert before.items() <= marks.items()
    assert len(marks) == 2
    assert second["ingest"].fingerprint == first["ingest"].fingerprint
    assert set(world.states(world.run(recipe, lake, "mixture")).values()) == {"cached"}
    undisturbed = world.run(recipe, tmp_path / "other", "mixture")
    assert _versions(second) == _versions(undisturbed)


def test_a_partial_deduplication_is_never_mixed(
    two_files: list[Path], lake: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from datalake.dedup.texts import sign
    from tasks.tracked import StageError

    recipe = world.tables(lake, two_files)
    world.run(recipe, lake, "curate")
    real, calls = sign.sign_batches, []

    def once(*arguments: Any) -> Any:
        calls.append(1)
        if len(calls) == 1:
            raise OSError("no")
        return real(*arguments)

    with monkeypatch.context() as patched:
        patched.setattr(sign, "sign_batches", once)
        with pytest.raises(StageError, match=r"mixture failed: .*some documents have no decision on duplicates"):
            world.run(recipe, lake, "mixture")
    assert world.states(world.run(recipe, lake, "mixture")) == {
        "ingest": "cached",
        "curate": "cached",
        "deduplicate": "ran",
        "mixture": "ran",
    }
    decided = world.rows(lake, "SELECT count(*), count(duplicate_of) FROM small.duplicates")
    assert decided == [(12, 1)]


def test_records_that_do_not_add_up_fail_the_stage_and_change_no_table(
    two_files: list[Path], lake: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from datalake.lake.shards import ShardWriter
    from tasks.tracked import StageError

    world.run(world.tables(lake, two_files[:1]), lake, "ingest")
    real = ShardWriter.count

    def forgetful(self: ShardWriter, name: str, amount: int = 1) -> None:
        real(self, name, min(amount, 3 - self.result.counts.get("raw", 0)) if name == "raw" else amount)

    monkeypatch.setattr(ShardWriter, "count", forgetful)
    with pytest.raises(StageError, match=r"ingest failed: .*records don't add up.*6 against 3"):
        world.run(world.tables(lake, two_files[1:]), lake, "ingest")
    assert len(list((lake / "records").glob("*.json"))) == 1
    assert len(Lake(lake).current_files("small.raw")) == 1
    assert world.rows(lake, "SELECT DISTINCT archive FROM small.raw") == [("a.jsonl",)]


@pytest.mark.parametrize("forgotten", ["documents", "raw"])
def test_a_curation_that_loses_a_document_fails(
    two_files: list[Path], lake: Path, monkeypatch: pytest.MonkeyPatch, forgotten: str
) -> None:
    from datalake.lake.shards import ShardWriter
    from tasks.tracked import StageError

    real = ShardWriter.count

    def forgetful(self: ShardWriter, name: str, amount: int = 1) -> None:
        lost = name == forgotten and "rejected" not in name and self.result.counts.get("forgot") is None
        real(self, "forgot" if lost else name, amount - 1 if lost and amount > 1 else amount)

    world.run(world.tables(lake, two_files), lake, "ingest")
    monkeypatch.setattr(ShardWriter, "count", forgetful)
    with pytest.raises(StageError, match=r"curate failed: .*records don't add up: raw = documents \+ rejected"):
        world.run(world.tables(lake, two_files), lake, "curate")


def test_a_file_that_cannot_be_curated_leaves_the_others_and_is_done_by_the_next_run(
    two_files: list[Path], lake: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from datalake.curate import curate

    real, calls = curate.curate_file, []

    def once(*arguments: Any) -> Any:
        calls.append(1)
        if len(calls) == 1:
            raise OSError("the disk is gone")
        return real(*arguments)

    recipe = world.tables(lake, two_files)
    with monkeypatch.context() as patched:
        patched.setattr(curate, "curate_file", once)
        assert world.states(world.run(recipe, lake, "curate"))["curate"] == "partial"
    assert set(world.unfinished(lake).values()) == {"OSError: the disk is gone"}
    assert world.rows(lake, "SELECT count(*) FROM small.curation") == [(6,)]
    assert world.states(world.run(recipe, lake, "curate"))["curate"] == "ran"
    assert world.rows(lake, "SELECT count(*) FROM small.curation") == [(12,)]


def test_a_corpus_without_a_document_ends_in_one_clear_line(tmp_path: Path, lake: Path) -> None:
    from tasks.tracked import StageError

    empty = world.jsonl(tmp_path / "in" / "empty.jsonl", [{"id": "1", "text": " "}])
    with pytest.raises(StageError) as failure:
        world.run(world.tables(lake, [empty], **world.tiny_models()), lake)
    assert "no text to train a tokenizer on: lower mixture.holdout" in str(failure.value)
    assert "\n" not in str(failure.value)


# Accounts ------------------------------------------------------------------------------------------------------------


def test_every_record_of_every_source_is_accounted_for(whole: Whole) -> None:
    record = read_record(Lake(whole.lake), str(whole.reports["ingest"].fingerprint))
    assert record is not None
    fates = funnel_of(Lake(whole.lake), whole.reports["ingest"].outputs)
    told = {row["source"]: row for row in by_source(fates, archives(record))}
    assert {name: row["archives"] for name, row in told.items()} == {
        "common_crawl": 2,
        "wikipedia": 1,
        "code": 1,
        "table": 1,
        "conversations": 1,
        "preferences": 1,
    }
    assert {name: row["records"] for name, row in told.items()} == {
        "common_crawl": 14,  # twelve pages, one 404, one record cut off
        "wikipedia": 7,
        "code": 3,
        "table": 11,
        "conversations": 30,
        "preferences": 30,
    }
    held = {
        table: dict(world.rows(whole.lake, f"SELECT source, count(*) FROM tiny.{table} GROUP BY ALL"))
        for table in ("raw", "conversations", "preferences", "refused", "quarantine")
    }
    for name, row in told.items():
        taken = sum(held[table].get(name, 0) for table in ("raw", "conversations", "preferences"))
        refused, quarantined = held["refused"].get(name, 0), held["quarantine"].get(name, 0)
        assert row["records"] == taken + refused + quarantined, name
        assert (row["raw"], row["refused"], row["quarantined"]) == (taken, refused, quarantined), name
    assert held["quarantine"] == {"common_crawl": 1}
    assert held["refused"] == {"common_crawl": 1, "wikipedia": 1, "table": 1}


def test_raw_is_documents_and_rejected_in_every_source(whole: Whole) -> None:
    rows = world.rows(
        whole.lake,
        """SELECT r.source, count(*), count(d.id), count(*) FILTER (c.verdict = 'rejected')
           FROM tiny.raw r JOIN tiny.curation c ON c.id = r.id LEFT JOIN tiny.documents d ON d.id = r.id
           GROUP BY ALL ORDER BY ALL""",
    )
    assert [(source, raw) for source, raw, *_ in rows] == [
        ("code", 3),
        ("common_crawl", 12),
        ("table", 10),
        ("wikipedia", 6),
    ]
    assert all(raw == kept + rejected for _, raw, kept, rejected in rows)
    assert sum(rejected for *_, rejected in rows) == 1


def test_the_ledger_has_one_row_for_each_record_that_was_read(whole: Whole) -> None:
    tables = ("raw", "refused", "conversations", "preferences")
    read = " + ".join(f"(SELECT count(*) FROM tiny.{name})" for name in tables)
    sql = f"SELECT count(*), count(DISTINCT id), {read} FROM tiny.ledger"
    assert world.rows(whole.lake, sql) == [(94, 94, 94)]
    verdicts = dict(world.rows(whole.lake, "SELECT verdict, count(*) FROM tiny.ledger GROUP BY ALL"))
    assert verdicts == {"kept": 27 + 30 + 30, "duplicate": 3, "rejected": 1, "refused": 3}
    assert world.rows(whole.lake, "SELECT count(*) FROM tiny.clean") == [(27,)]
    assert world.rows(whole.lake, "SELECT count(*) FROM tiny.mixture") == [(27,)]


def test_metrics_and_checkpoints_are_written_once(whole: Whole) -> None:
    repeated = "SELECT count(*) - count(DISTINCT (fingerprint, step, name)) FROM runs.metrics"
    assert world.rows(whole.lake, repeated) == [(0,)]
    made = world.rows(whole.lake, "SELECT stage, count(*) FROM models.checkpoints GROUP BY ALL ORDER BY 1")
    assert made == [("dpo", 1), ("kto", 1), ("ppo", 1), ("pretrain", 1), ("reward", 1), ("sft", 1)]


# Width ---------------------------------------------------------------------------------------------------------------


def test_two_ray_workers_and_one_process_write_the_same_bytes(whole: Whole, lake: Path) -> None:
    reports = world.run(whole.recipe | {"runtime": world.on_ray(2)}, lake, "tokenize")
    assert set(world.states(reports).values()) == {"ran"}, world.unfinished(lake)
    ours, theirs = world.parquet(lake), world.parquet(whole.lake, DATA)
    assert len(ours) > 20
    assert ours == theirs
    for stage in DATA:
        assert _versions({stage: reports[stage]}) == _versions({stage: whole.reports[stage]})


def test_the_summary_of_a_run_of_everything_is_told_to_its_end(whole: Whole) -> None:
    told = list(lines(Lake(whole.lake), list(whole.reports.values())))
    assert any(line.startswith("reward: accuracy") for line in told)
    assert any(line.startswith("evaluation, with") for line in told), "what comes after all figures"
