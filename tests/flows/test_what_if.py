"""`what-if`, what `explain` says of rules and edits, and what curation shows of itself, over a run of a small world."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import world
import yaml
from harness import PrefectServer

from datalake.lake.lake import Lake
from datalake.lake.records import StageRecord, manifests, read_record
from flows.cli import main
from flows.commands.look import changed_lines
from flows.commands.what_if import _settings

NEWS = "http://host100.example/page"


class Told(NamedTuple):
    status: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


Command = Callable[..., Told]


class Ran(NamedTuple):
    recipe: Path
    data: dict[str, Any]
    lake: Path


@pytest.fixture(scope="module")
def ran(prefect_server: PrefectServer, tmp_path_factory: pytest.TempPathFactory) -> Ran:
    """A small world curated, deduplicated and mixed; its recipe as a file."""
    folder = tmp_path_factory.mktemp("what-if")
    data = world.everything(folder / "input")
    # A document that its edits change: they drop lines of two words.
    lines = world.prose(400, 24).split("\n\n")
    rows = [{"id": "edited", "text": "\n".join([*lines[:3], "Read on", *lines[3:]])}]
    rows += [{"id": f"long{n}", "text": world.prose(500 + n, 40)} for n in range(3)]
    rows += [{"id": f"brief{n}", "text": world.prose(600 + n, 3)} for n in range(3)]
    world.jsonl(folder / "input" / "more.jsonl", rows)
    data["sources"].append({"kind": "table", "paths": [f"{folder}/input/more.jsonl"]})
    path = folder / "recipe.yaml"
    path.write_text(yaml.safe_dump(data))
    world.run(data, folder / "lake", until="mixture")
    return Ran(path, data, folder / "lake")


@pytest.fixture
def headwater(capsys: pytest.CaptureFixture[str]) -> Command:
    def call(*arguments: str | Path) -> Told:
        capsys.readouterr()
        with pytest.raises(SystemExit) as end:
            main([str(argument) for argument in arguments])
        out, err = capsys.readouterr()
        assert isinstance(end.value.code, int)
        return Told(end.value.code, out, err)

    return call


def rerun(ran: Ran, section: str, **values: Any) -> list[tuple[bytes, str, str, list[str]]]:
    """The decisions of a real run with another value, in the same lake but under another corpus."""
    data = ran.data | {"corpus": "again", section: {**ran.data.get(section, {}), **values}}
    until = "curate" if section == "curate" else "deduplicate"
    world.run(data, ran.lake, until=until)
    return world.rows(
        ran.lake, "SELECT id, verdict, rule, rules FROM again.ledger l WHERE id IN (FROM again.raw SELECT id)"
    )  # type: ignore[return-value]


@pytest.mark.parametrize(
    ("setting", "values"),
    [
        (
            "curate.thresholds={min_words: 300, wiki/min_words: 20}",
            {"thresholds": {"min_words": 300, "wiki/min_words": 20}},
        ),
        (
            "curate.thresholds={min_words: 2, min_prose: 0.1}",
            {"thresholds": {"min_words": 2, "min_prose": 0.1}},
        ),
        ("curate.languages=[zh]", {"languages": ["zh"]}),
        (
            "curate.extra_rules=[{name: long_enough, metric: words, op: '>=', threshold: 300}]",
            {"extra_rules": [{"name": "long_enough", "metric": "words", "op": ">=", "threshold": 300}]},
        ),
    ],
)
def test_the_answer_is_that_of_a_run(ran: Ran, headwater: Command, setting: str, values: dict[str, Any]) -> None:
    told = headwater("what-if", ran.recipe, "--set", setting, "--lake", ran.lake, "--json")
    assert told.status == 0, told.err
    answer = told.json
    before = {row[0]: row for row in world.rows(ran.lake, "SELECT id, verdict, rule FROM tiny.curation")}
    rerun(ran, "curate", **values)
    after = {row[0]: row for row in world.rows(ran.lake, "SELECT id, verdict, rule FROM again.curation")}
    assert before.keys() == after.keys()
    kept = {id for id, row in before.items() if row[1] == "kept"}, {id for id, row in after.items() if row[1] == "kept"}
    assert (answer["corpus"], answer["stage"], answer["documents"]) == ("tiny", "curate", len(before))
    assert (answer["before"], answer["after"]) == (len(kept[0]), len(kept[1]))
    assert (answer["gained"], answer["lost"]) == (len(kept[1] - kept[0]), len(kept[0] - kept[1]))
    assert answer["gained"] + answer["lost"] > 0
    rejected = {row["rule"]: row["rejects_after"] for row in answer["rules"] if row["rejects_after"]}
    found: dict[str, int] = {}
    for _, _, rule in after.values():
        if rule:
            found[rule] = found.get(rule, 0) + 1
    assert rejected == found
    addresses = dict(world.rows(ran.lake, "SELECT uri, id FROM tiny.raw WHERE source = 'table'"))
    for side, changed in (("gained", kept[1] - kept[0]), ("lost", kept[0] - kept[1])):
        shown = answer["examples"][side]
        assert len(shown) == min(5, len(changed))
        assert {bytes.fromhex(one["id"]) for one in shown} <= changed
        assert all(addresses.get(one["uri"], bytes.fromhex(one["id"])).hex() == one["id"] for one in shown)
    plain = headwater("what-if", ran.recipe, "--set", setting, "--lake", ran.lake)
    assert plain.status == 0
    assert f"kept {len(kept[0])} -> {len(kept[1])} of {len(before)}" in plain.out
    assert all(one["uri"] in plain.out for side in answer["examples"].values() for one in side)


def test_another_similarity_is_answered_from_pairs(ran: Ran, headwater: Command) -> None:
    told = headwater("what-if", ran.recipe, "--set", "deduplicate.threshold=0.95", "--lake", ran.lake, "--json")
    assert told.status == 0, told.err
    rerun(ran, "deduplicate", threshold=0.95)
    [(kept,)] = world.rows(ran.lake, "SELECT count(*) FROM again.clean")
    [(now,)] = world.rows(ran.lake, "SELECT count(*) FROM tiny.clean")
    assert (told.json["before"], told.json["after"]) == (now, kept)
    assert headwater("what-if", ran.recipe, "--set", "deduplicate.threshold=0.95", "--lake", ran.lake).status == 0


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ([], "say what to change"),
        (["curate.preset=gopher"], "curate.preset measures prose together with the code in it"),
        (["curate.preset=auto"], "nothing differs from the recipe"),
        (["curate.thresholds.min_wordz=3"], "has no rule 'min_wordz'"),
        (["mixture.holdout=0.1"], "`mixture` is not asked about"),
        (["curate.languages=[en]", "deduplicate.threshold=0.9"], "one of them at a time"),
        (["deduplicate.ngram=7"], "deduplicate.ngram changes which documents are compared"),
        (["deduplicate.threshold=0.2"], "lies below 0.5"),
        (["curate.thresholds"], "write it as key=value"),
    ],
)
def test_what_it_cannot_tell_is_one_line(ran: Ran, headwater: Command, settings: list[str], said: str) -> None:
    told = headwater("what-if", ran.recipe, *(a for s in settings for a in ("--set", s)), "--lake", ran.lake, "--json")
    assert told.status == 2
    assert told.out == ""
    assert told.err.count("\n") == 1
    assert said in told.err


def test_a_recipe_that_has_not_been_run_is_to_be_run_first(ran: Ran, headwater: Command, tmp_path: Path) -> None:
    other = tmp_path / "other.yaml"
    other.write_text(yaml.safe_dump(ran.data | {"curate": {"thresholds": {"min_words": 7}}}))
    told = headwater("what-if", other, "--set", "curate.thresholds.min_words=8", "--lake", ran.lake)
    assert told.status == 2
    assert "run it first, with headwater run" in told.err
    told = headwater("what-if", other, "--set", "curate.languages=[en]", "--lake", tmp_path / "none")
    assert told.status == 2
    assert "no lake at" in told.err


def explained(headwater: Command, ran: Ran, document: str) -> dict[str, Any]:
    told = headwater("explain", document, "--lake", ran.lake, "--json")
    assert told.status == 0, told.err
    return next(story for story in told.json if story["corpus"] == "tiny")


def test_explain_shows_every_rule_with_value_threshold_and_outcome(ran: Ran, headwater: Command) -> None:
    import operator

    ops = {"<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge, "==": operator.eq}
    kept, short = explained(headwater, ran, NEWS), explained(headwater, ran, "table.jsonl#short")
    assert len(kept["judged"]) > 15
    assert {rule["outcome"] for rule in kept["judged"]} == {"passed"}
    for story in (kept, short):
        for rule in story["judged"]:
            assert rule["value"] == story["curation"].get(rule["metric"])
            passes = rule["value"] is None or ops[rule["operator"]](rule["value"], rule["threshold"])
            assert passes == (rule["outcome"] != "failed"), rule
        assert [rule["rule"] for rule in story["judged"] if rule["outcome"] == "failed"] == story["curation"]["rules"]
    words = next(rule for rule in short["judged"] if rule["rule"] == "min_words")
    assert (words["metric"], words["value"], words["operator"], words["threshold"]) == ("words", 4, ">=", 50)
    assert "FineWeb" in words["source"]
    plain = headwater("explain", "table.jsonl#short", "--lake", ran.lake).out
    assert "failed    min_words              words 4 (asked >= 50; FineWeb examples/fineweb.py)" in plain


def test_explain_shows_what_edits_changed_and_by_which_stages(ran: Ran, headwater: Command) -> None:
    story = explained(headwater, ran, "more.jsonl#edited")
    [(raw, text)] = world.rows(
        ran.lake,
        "SELECT r.text, d.text FROM tiny.raw r JOIN tiny.documents d USING (id) WHERE r.uri = 'more.jsonl#edited'",
    )
    assert "Read on" in raw
    assert "Read on" not in text
    edits = story["edits"]
    assert (edits["characters_before"], edits["characters_after"]) == (len(raw), len(text))
    assert (edits["lines_before"], edits["lines_after"]) == (raw.count("\n") + 1, text.count("\n") + 1)
    assert (edits["lines_removed"], edits["lines_added"]) == (1, 0)
    assert "edits" in explained(headwater, ran, "table.jsonl#short"), "a rejected text is repaired before it is judged"
    [manifest] = [m for m in manifests(Lake(ran.lake)) if m.corpus == "tiny"]
    prints = {r.stage: r.fingerprint for r in manifest.stages if r.fingerprint}
    assert story["stages"] == {s: prints[s] for s in ("ingest", "curate", "deduplicate", "mixture")}


def test_explain_counts_the_copies_of_a_document(ran: Ran, headwater: Command) -> None:
    told = headwater("explain", "http://host103.example/page", "--lake", ran.lake, "--json").json
    kept = next(s for s in told if s["corpus"] == "tiny" and s["verdict"] == "kept")
    copy = next(s for s in told if s["corpus"] == "tiny" and s["verdict"] == "duplicate")
    assert kept["duplicates"] == {"level": None, "similarity": None, "copies": 1, "some copies": [copy["id"]]}
    assert (copy["duplicates"]["level"], copy["duplicates"]["copies"]) == ("exact", 0)


def test_explain_tells_what_of_an_archive_could_not_be_read(ran: Ran, headwater: Command) -> None:
    story = explained(headwater, ran, "two.warc.gz")
    assert story["table"] == "quarantine"
    assert story["reason"]


def test_lines_that_edits_change_are_counted() -> None:
    assert changed_lines("a\nb\nb\nc", "a\nb\nd") == {
        "characters_before": 7,
        "characters_after": 5,
        "lines_before": 4,
        "lines_after": 3,
        "lines_removed": 2,
        "lines_added": 1,
    }
    assert changed_lines("", "")["lines_before"] == 0


def test_a_setting_is_called_as_the_recipe_calls_it() -> None:
    changes = {"pii": [{"maximum": None}, {"maximum": 5}], "thresholds": [{}, {"min_words": 30.0}]}
    files = {"rules": ["", "r.yaml"], "rules_version": ["", "0123"]}
    assert _settings(files) == "rules not set -> r.yaml"
    own = [{"name": "long", "metric": "words", "op": ">=", "threshold": 90.0, "languages": None, "source": "recipe"}]
    assert _settings({"extra_rules": [[], own]}) == "extra_rules not set -> long (words >= 90)"
    assert _settings(changes) == "pii.maximum not set -> 5, min_words as the preset has it -> 30"


# What curation shows ------------------------------------------------------------------------------------------------


def test_the_report_shows_metrics_and_what_was_asked(ran: Ran, headwater: Command, tmp_path: Path) -> None:
    [manifest] = [m for m in manifests(Lake(ran.lake)) if m.corpus == "tiny"]
    out = tmp_path / "page.html"
    assert headwater("report", manifest.run, "--out", out, "--lake", ran.lake).status == 0
    text = out.read_text()
    assert 'alt="english: words"' in text
    assert "prose</b> &gt;= 0.64 (min_prose)" in text
    assert len(re.findall(r"<br>words \d+, asked &gt;= 50 \(FineWeb examples/fineweb.py\)", text)) == 3
    assert 'alt="english: later_line_punct"' not in text
    again = tmp_path / "again.html"
    assert headwater("report", manifest.run, "--out", again, "--lake", ran.lake).status == 0
    assert "data:image/svg+xml" in text
    assert [line for line in text.splitlines() if "<figure>" in line] == [
        line for line in again.read_text().splitlines() if "<figure>" in line
    ]


def shown(ran: Ran, server: PrefectServer, stage: str, page: str) -> tuple[str, StageRecord]:
    """A page that a stage of the run published, and the stage's record."""
    [manifest] = [m for m in manifests(Lake(ran.lake)) if m.corpus == "tiny"]
    report = next(r for r in manifest.stages if r.stage == stage)
    record = read_record(Lake(ran.lake), report.fingerprint or "")
    assert record is not None
    wanted = {"artifacts": {"key": {"any_": [f"tiny-{stage}-{page}"]}, "task_run_id": {"any_": [record.task_run]}}}
    found = server.call("/artifacts/filter", wanted)
    [text] = [artifact["data"] for artifact in found]
    return text, record


def test_deduplication_publishes_the_curve_of_its_bands(ran: Ran, prefect_server: PrefectServer) -> None:
    text, record = shown(ran, prefect_server, "deduplicate", "bands")
    assert f"{record.report['bands']} bands of {record.report['rows']} rows." in text
    [picture] = re.findall(r"!\[How likely .*\]\(data:image/svg\+xml;base64,(.*)\)", text)
    drawn = base64.b64decode(picture).decode()
    for label in ("Jaccard similarity of word n-grams", "probability of being compared", "threshold 0.8"):
        assert label in drawn


def test_the_stage_publishes_a_page_and_its_record_knows_nothing_of_it(ran: Ran, prefect_server: PrefectServer) -> None:
    page, record = shown(ran, prefect_server, "curate", "page")
    assert f"| kept | {record.counts['documents']} |" in page
    assert "### min_words" in page
    dropped = page.split("### min_words")[1]
    told = re.findall(r"^table · \w+ · `(.*)` · words (\d+), asked >= 50 \(.*\)\n\n((?:    .*\n?)+)", dropped, re.M)
    assert len(told) == 2, "a sample of the four"
    for uri, words, text in told:
        [(whole, count)] = world.rows(
            ran.lake, f"SELECT text, words FROM tiny.raw JOIN tiny.curation c USING (id) WHERE uri = '{uri}'"
        )
        assert int(words) == count
        excerpt = "\n".join(line[4:] for line in text.splitlines())
        assert excerpt.removesuffix(" …") == whole[:300].rstrip()
    assert "| english<br>en | words<br>>= 50" in page
    for row in re.findall(r"`([^`]*)`<br>", page.split("## Metrics")[1].split("## Some")[0]):
        assert all("\u2580" <= character <= "\u259f" for character in row), "one font, one width"
    assert "page" not in record.report
    assert "page" not in json.dumps(record.payload)


def test_the_page_looks_at_a_bounded_part_and_says_so(ran: Ran) -> None:
    from datalake.curate.config import CurateConfig
    from tasks.shown.curation import drawn, page

    lake = Lake(ran.lake)
    [manifest] = [m for m in manifests(lake) if m.corpus == "tiny"]
    outputs = {name: ref for r in manifest.stages for name, ref in r.outputs.items()}
    raws = {Path(path).parent.name: path for path in lake.files(outputs["raw"])}  # type: ignore[arg-type]
    files = dict.fromkeys(lake.files(outputs["curation"]), "")  # type: ignore[arg-type]
    whole, rows = drawn(files)
    assert rows == outputs["raw"].rows  # type: ignore[union-attr]
    assert len(whole) > 3
    some, few = drawn(files, 12)
    assert 0 < few <= 12
    assert list(some) == list(whole)[: len(some)]
    both = dict.fromkeys(files, next(iter(raws.values())))
    text = page([{"what": "documents in", "records": rows}], both, CurateConfig(), rows=12)
    assert f"From {few} of {rows} documents." in text
    assert text == page([{"what": "documents in", "records": rows}], both, CurateConfig(), rows=12)


def test_a_page_that_takes_too_long_keeps_what_it_has(ran: Ran, monkeypatch: pytest.MonkeyPatch) -> None:
    import duckdb

    from datalake.curate.config import CurateConfig
    from tasks.shown import curation as curation_page

    def endless(connection: duckdb.DuckDBPyConnection, *_: Any) -> list[Any]:
        connection.execute("SELECT sum(a.range * b.range) FROM range(10000000) a, range(10000000) b").fetchall()
        return []

    lake = Lake(ran.lake)
    [manifest] = [m for m in manifests(lake) if m.corpus == "tiny"]
    outputs = {name: ref for r in manifest.stages for name, ref in r.outputs.items()}
    files = dict.fromkeys(lake.files(outputs["curation"]), lake.files(outputs["raw"])[0])  # type: ignore[arg-type]
    monkeypatch.setattr(curation_page, "histograms", endless)
    text = curation_page.page([{"what": "documents in", "records": 38}], files, CurateConfig(), seconds=0.3)
    assert "| documents in | 38 |" in text
    assert text.endswith("took more than 0.3 s: `headwater report` has it.")
