"""Repeated parts of documents are cut in a run: what `clean` shows is what the mixture counts and training reads."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import world

from datalake.dedup.spans.cut import cut
from datalake.dedup.texts.shingles import word_list
from datalake.explain import explain
from datalake.lake.lake import Lake
from datalake.lake.records import read_record
from datalake.lake.tokens import token_indices
from flows.service.api import call
from tasks.tokens import split_documents

NOTICE = "Every visitor of this harbour library agrees to return borrowed lanterns before the evening bell is rung."
CHINESE = "本馆所有图书均可免费借阅，读者须在晚钟敲响之前归还借出的灯笼与地图。"


@pytest.fixture(scope="module", autouse=True)
def _server(prefect_server: Any) -> None:
    """Every test here runs flows."""


def documents(folder: Path) -> list[Path]:
    """Two files: a notice that six documents hold, a long passage that two share, and one with the notice alone."""
    passage = world.prose(77, 8).replace("\n\n", " ")
    rows = []
    for n in range(6):
        text = f"{world.prose(n, 16)}\n\n{NOTICE}\n{CHINESE}\n\n{world.prose(n + 100, 16)}"
        if n in (1, 4):
            text += f"\n\nBut {world.prose(n + 50, 2)} {passage} {world.prose(n + 60, 2)} 🙂 end."
        rows.append({"id": str(n), "text": text, "created": f"2020-01-0{n + 1}"})
    rows.append({"id": "alone", "text": f"{NOTICE}\n\n{CHINESE}", "created": "2021-01-01"})
    first = world.jsonl(folder / "a.jsonl", rows[:3])
    return [first, world.jsonl(folder / "b.jsonl", rows[3:])]


@pytest.fixture(scope="module")
def done(prefect_server: Any, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any], dict[str, Any]]:
    folder = tmp_path_factory.mktemp("spans")
    recipe = world.tables(
        folder / "lake",
        documents(folder / "in"),
        deduplicate={"lines": {"copies": 3}, "substrings": {"minimum": 60}},
        mixture={"holdout": 0.0},
        tokenizer={"vocabulary": 300},
    )
    return folder / "lake", recipe, world.run(recipe, folder / "lake", "tokenize")


def test_clean_is_what_the_one_function_leaves_and_the_mixture_counts_its_words(done: Any) -> None:
    lake, _, reports = done
    texts = dict(world.rows(lake, "SELECT id, text FROM small.documents"))
    clean = dict(world.rows(lake, "SELECT id, text FROM small.clean"))
    spans: dict[bytes, list[tuple[int, int]]] = {}
    for id, start, end in world.rows(lake, 'SELECT id, start, "end" FROM small.spans'):
        spans.setdefault(id, []).append((start, end))
    assert len(spans) == 6
    after = {id: cut(text, spans.get(id, [])) for id, text in texts.items()}
    assert clean == {id: text for id, text in after.items() if text}
    assert len(clean) == len(texts) - 1, "of the notice alone nothing is left"
    counted = dict(world.rows(lake, "SELECT id, words FROM small.mixture"))
    assert counted == {id: len(word_list(text)) for id, text in clean.items()}
    assert sum(NOTICE in text for text in clean.values()) == 1
    assert sum(CHINESE in text for text in clean.values()) == 1
    record = read_record(Lake(lake), reports["deduplicate"].fingerprint)
    assert record is not None
    assert record.counts["emptied"] == 1
    assert record.counts["characters_kept"] == sum(map(len, clean.values()))
    assert record.counts["characters"] == sum(map(len, texts.values()))


def test_the_report_shows_what_was_cut_most(done: Any) -> None:
    text = world.report(done[0])
    assert re.search(r"in the mixture 6 .* 1 of which cuts leave nothing", text)
    assert text.index("near") < text.index("What was cut from documents that stay") < text.index("line spans")
    assert re.search(rf"line in 7 documents · [ab]\.jsonl#\d {NOTICE}", text)


def test_the_progress_of_marking_is_shown(done: Any, prefect_server: Any) -> None:
    for key in ("deduplicate-lines-progress", "deduplicate-substrings-progress"):
        asked = {"artifacts": {"key": {"like_": f"%-{key}"}}}
        assert call(prefect_server.url, "/artifacts/filter", asked), key


def test_tokens_are_those_of_the_clean_texts(done: Any) -> None:
    from models.text.shards import TokenShards
    from models.text.tokenizer import encode, load

    lake, _, reports = done
    tokenizer = load(world.folder_of(lake, reports["tokenizer"], "tokenizer"))
    shards = TokenShards(token_indices(Lake(lake), reports["tokenize"].outputs["tokens"]))
    clean = dict(world.rows(lake, "SELECT id, text FROM small.clean"))
    assert set(shards.ids) == set(clean)
    for id, text in clean.items():
        assert shards.tokens(shards.number(id))[1:-1].tolist() == encode(tokenizer, [text])[0]


def test_ledger_and_explain_say_how_much_was_cut_and_by_what(done: Any) -> None:
    lake, _, _ = done
    rows = world.rows(lake, "SELECT id, cut, cut_by FROM small.ledger")
    left = dict(world.rows(lake, "SELECT id, length(text) FROM small.clean"))
    whole = dict(world.rows(lake, "SELECT id, length(text) FROM small.documents"))
    assert {id: size for id, size, _ in rows} == {id: whole[id] - left.get(id, 0) for id in whole}
    assert sorted({tuple(by) for _, _, by in rows}) == [(), ("line",), ("line", "substring")]
    id = next(id for id, _, by in rows if len(by) == 2)
    story = explain(Lake(lake), id.hex())[0]["cut"]
    assert story["characters"] == whole[id] - left[id]
    assert story["by line"] + story["by substring"] == story["characters"]
    assert story["stays in"]
    assert story["left"] == story["of"] - story["characters"]


def test_marks_of_a_shard_serve_other_settings_and_workers_change_nothing(done: Any, tmp_path: Path) -> None:
    lake, recipe, reports = done
    marks = {path.parent.name for path in (lake / "shards" / "deduplicate").rglob("members.parquet")}
    stricter = recipe | {"deduplicate": {"lines": {"copies": 7}, "substrings": {"minimum": 60}}}
    again = world.run(stricter, lake, "deduplicate")
    assert world.states(again)["deduplicate"] == "ran"
    assert marks == {path.parent.name for path in (lake / "shards" / "deduplicate").rglob("members.parquet")}
    assert world.rows(lake, "SELECT count(*) FROM small.spans WHERE level = 'line'")[0] == (12,)
    other = world.run(recipe | {"runtime": world.on_ray()}, tmp_path / "other", "deduplicate")
    first, second = (
        pq.read_table(Lake(place).files(world.table_of(report["deduplicate"], "spans"))[0])
        for place, report in ((lake, reports), (tmp_path / "other", other))
    )
    assert first == second


def test_without_these_sections_there_is_no_table_and_nothing_is_cut(done: Any, tmp_path: Path) -> None:
    _, recipe, _ = done
    lake = tmp_path / "lake"
    reports = world.run(recipe | {"deduplicate": {}}, lake, "mixture")
    assert "spans" not in reports["deduplicate"].outputs
    assert world.rows(lake, "SELECT count(*) FROM small.clean") == [(7,)]
    assert "cut" not in [row[0] for row in world.rows(lake, "DESCRIBE small.ledger")]


def test_a_file_that_cannot_be_marked_is_left_whole_and_done_by_the_next_run(
    done: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from datalake.dedup.spans import marks

    lake, recipe, _ = done
    expected = world.rows(lake, "SELECT * FROM small.spans ORDER BY ALL", _first_run(lake))
    real = marks.mark

    def failing(batches: Any, marking: Any) -> Any:
        batches = list(batches)
        if any("lantern" in text and len(batch) == 3 for batch in batches for text in batch["text"].to_pylist()):
            raise OSError("the disk is gone")
        return real(batches, marking)

    monkeypatch.setattr(marks, "mark", failing)
    other = tmp_path / "lake"
    reports = world.run(recipe, other, "deduplicate")
    assert world.states(reports)["deduplicate"] == "partial"
    assert set(world.unfinished(other).values()) == {"OSError: the disk is gone"}
    ids = {row[0] for row in world.rows(other, "SELECT id FROM small.documents WHERE archive LIKE '%a.jsonl%'")}
    assert ids
    assert not ids & {row[0] for row in world.rows(other, "SELECT id FROM small.spans")}
    monkeypatch.undo()
    assert world.states(world.run(recipe, other, "deduplicate"))["deduplicate"] == "ran"
    assert world.rows(other, "SELECT * FROM small.spans ORDER BY ALL") == expected


def test_spans_are_decided_anew_for_other_duplicates_and_another_order(tmp_path: Path) -> None:
    # The second text is like the first but for a few words, and longer; the third is the earliest. All hold the notice.
    first = world.prose(1, 30).replace("\n", " ")
    second = first.replace(" river", " brook", 3).replace(" the ", " that ", 4)
    rows = [
        {"id": str(n), "text": f"{text}\n{NOTICE}", "created": f"2020-01-0{3 - n}"}
        for n, text in enumerate((first, second, world.prose(3, 10).replace("\n", " ")))
    ]
    files = [world.jsonl(tmp_path / "in" / f"{row['id']}.jsonl", [row]) for row in rows]
    section: dict[str, Any] = {"lines": {}, "threshold": 1.0, "floor": 0.3}
    found = []
    for changed in ({}, {"threshold": 0.6}, {"precedence": ["length"]}):
        world.run(world.tables(tmp_path, files, deduplicate=section | changed), tmp_path / "lake", "deduplicate")
        sql = "SELECT split_part(d.uri, '#', 2) FROM small.spans s JOIN small.documents d USING (id) ORDER BY 1"
        found.append([name for (name,) in world.rows(tmp_path / "lake", sql)])
    assert found == [["0", "1"], ["1"], ["0", "2"]]


def _first_run(lake: Path) -> str:
    from datalake.lake.records import manifests

    return manifests(Lake(lake))[0].run


def test_shares_are_told_in_tokens_too_as_an_epoch_reads_them(done: Any) -> None:
    lake, recipe, _ = done
    reports = world.run(recipe, lake, "tokenize")  # what is shown is the last run
    index = {}
    for path in token_indices(Lake(lake), reports["tokenize"].outputs["tokens"]):
        table = pq.read_table(path).to_pydict()
        index |= dict(zip(table["id"], table["length"], strict=True))
    seen, held = split_documents(Lake(lake), reports["mixture"].outputs["mixture"], 0)
    columns = "source, language, documents, tokens, share, distinct_tokens, heldout_documents, heldout_tokens"
    rows = world.rows(lake, f"SELECT {columns} FROM small.tokens")
    assert {row[0] for row in rows} == {"table"}
    assert sum(row[2] for row in rows) == sum(times > 0 for _, times in seen)
    assert sum(row[3] for row in rows) == sum(index[id] * times for id, times in seen)
    assert sum(row[4] for row in rows) == pytest.approx(1)
    assert sum(row[5] for row in rows) == sum(index[id] for id, times in seen if times)
    assert [sum(row[n] for row in rows) for n in (6, 7)] == [len(held), sum(index[id] for id in held)]
    ((words,),) = world.rows(lake, "SELECT sum(words)::BIGINT FROM small.mixture")
    half = world.run(recipe | {"mixture": {"holdout": 0.0, "tokens": words // 2}}, lake, "tokenize")
    seen, _ = split_documents(Lake(lake), half["mixture"].outputs["mixture"], 0)
    (counted,) = world.rows(lake, "SELECT sum(documents), sum(tokens) FROM small.tokens")
    assert 0 < counted[0] == sum(times > 0 for _, times in seen) < len(seen)
    assert counted[1] == sum(index[id] * times for id, times in seen)
