"""The `headwater` command: what it prints where, how it ends, and that a mistake leaves nothing behind."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import world
import yaml
from harness import ROOT, Command, Ended
from world import Whole

from datalake.lake.lake import Lake
from datalake.lake.records import find_manifest
from datalake.printable import printable
from flows.cli import COMMANDS

NAMES = [place.rpartition(":")[2].replace("_", "-") for place in COMMANDS]


def process(*arguments: str | Path, **environment: str) -> Ended:
    """Runs the command in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-m", "flows.cli", *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=300,
        env={name: value for name, value in os.environ.items() if name != "HEADWATER_LAKE"} | environment,
        cwd=ROOT,
        check=False,
    )
    return Ended(done.returncode, done.stdout, done.stderr)


def recipe(folder: Path, data: Any = None, **changes: Any) -> Path:
    table = {"kind": "table", "paths": [str(world.texts(folder / "in.jsonl", range(3)))]}
    path = folder / "recipe.yaml"
    path.write_text(
        yaml.safe_dump(data or {"corpus": "small", "sources": [table], "runtime": world.inline()} | changes)
    )
    return path


# Help ----------------------------------------------------------------------------------------------------------------


def children_s() -> float:
    """Processor seconds of this process's ended children."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def test_help_comes_at_once_and_imports_nothing_heavy() -> None:
    best = 99.0
    for _ in range(3):  # processor time, the best of three: the machine may be busy with other things
        start = children_s()
        done = process("--help")
        best = min(best, children_s() - start)
    assert done.status == 0
    assert done.err == ""
    code = (
        "import sys, flows.cli; flows.cli.app(['--help'], result_action='return_value')\n"
        "heavy = ('prefect', 'ray', 'torch', 'numpy', 'pyarrow', 'duckdb', 'pyiceberg', 'pydantic', 'transformers')\n"
        "print('heavy:', [name for name in heavy if name in sys.modules])"
    )
    imported = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert "heavy: []" in imported.stdout
    assert best < 1.0


def test_help_lists_what_works_and_nothing_else(headwater: Command) -> None:
    done = headwater("--help")
    assert done.status == 0
    listed = {line.split()[1] for line in done.out.splitlines() if line.startswith("│ ") and len(line.split()) > 2}
    assert set(NAMES) <= listed


@pytest.mark.parametrize("command", NAMES)
def test_every_command_takes_a_lake_and_json_and_says_what_it_does(headwater: Command, command: str) -> None:
    done = headwater(command, "--help")
    assert done.status == 0
    assert "--lake" in done.out
    assert "--json" in done.out
    assert "HEADWATER_LAKE" in done.out


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["rnu"], "run"),
        (["query"], "SQL"),
        (["run", "r.yaml", "--until", "curation"], "curate"),
        (["run", "r.yaml", "--bogus"], "--bogus"),
        (["trace", "ppo", "--step", "first"], "first"),
        (["run", "r.yaml", "--workers", "many"], "many"),
    ],
)
def test_a_mistyped_command_is_answered_in_one_line(headwater: Command, arguments: list[str], said: str) -> None:
    assert said.lower() in headwater(*arguments).mistake().lower()


def test_a_shell_is_taught_all_commands_and_options() -> None:
    from flows.cli import app

    for shell in ("bash", "zsh", "fish"):
        script = app.generate_completion(shell=shell)
        assert all(word in script for word in ("what-if", "runs", "trust-remote-code", "until"))


def test_bytes_that_are_no_text_are_no_traceback(headwater: Command, tmp_path: Path) -> None:
    (tmp_path / "lake" / "runs").mkdir(parents=True)
    bad = os.fsdecode(b"a\xff\x1b[2J")
    assert r"\x1b[2J" in headwater("explain", bad, "--lake", tmp_path / "lake").mistake()
    headwater("query", bad, "--lake", tmp_path / "lake").mistake()
    headwater("trace", bad, "--lake", tmp_path / "lake").mistake()
    headwater("chat", bad, "--lake", tmp_path / "lake").mistake()
    headwater("run", bad, "--lake", tmp_path / "lake").mistake()
    headwater("report", bad, "--lake", tmp_path / "lake").mistake()


def test_stages_after_the_last_one_asked_for_go_without_saying() -> None:
    from datalake.lake.records import StageReport

    assert StageReport(stage="ingest", state="ran", seconds=1).asked_for
    assert StageReport(stage="sft", state="skipped", seconds=0, note="`sft` is null in the recipe").asked_for
    assert not StageReport(stage="curate", state="skipped", seconds=0, note="after --until ingest").asked_for


# Bad recipes leave nothing -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("json", [False, True])
@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"dedupliacte": {}}, "did you mean 'deduplicate'?"),
        ({"deduplicate": {"threshold": 1.5}}, "deduplicate.threshold"),
        ({"corpus": "two words"}, "not an identifier"),
        ({"corpus": "runs"}, "is taken"),
        ({"sources": [{"kind": "table", "paths": ["/nowhere/*.jsonl"]}]}, "nothing matches '/nowhere/*.jsonl'"),
        ({"sources": [{"kind": "common_crawl", "paths": ["/nowhere/a.warc.gz"]}]}, "there is no '/nowhere/a.warc.gz'"),
        ({"sources": [{"kind": "table", "paths": ["${nowhere}/a"]}]}, "HEADWATER_NOWHERE"),
    ],
)
def test_a_bad_recipe_is_one_line_and_leaves_no_lake(
    headwater: Command, tmp_path: Path, changes: dict[str, Any], said: str, json: bool
) -> None:
    lake = tmp_path / "lake"
    done = headwater("run", recipe(tmp_path, **changes), "--lake", lake, *(["--json"] if json else []))
    assert said in done.mistake()
    assert not lake.exists()


def test_a_recipe_that_is_not_there_is_one_line_and_leaves_no_lake(headwater: Command, tmp_path: Path) -> None:
    assert "recipes/demo.yaml" in headwater("run", tmp_path / "none.yaml").mistake()
    assert "is a folder" in headwater("run", tmp_path).mistake()
    assert "--set" in headwater("run", recipe(tmp_path), "--set", "threshold").mistake()
    assert "runtime.workers" in headwater("run", recipe(tmp_path), "--workers", "0").mistake()
    assert not (tmp_path / "lake").exists()


def test_a_lake_that_cannot_be_written_is_one_line(headwater: Command, tmp_path: Path) -> None:
    path = recipe(tmp_path)
    file = tmp_path / "file"
    file.write_text("I am a file")
    for place in (file, file / "below", Path("/proc/lake"), Path("/dev/null")):
        assert "--lake" in headwater("run", path, "--lake", place).mistake()
    assert file.read_text() == "I am a file"


def test_a_lake_in_a_read_only_folder_is_one_line(headwater: Command, tmp_path: Path) -> None:
    if os.geteuid() == 0:
        pytest.skip("root writes everywhere")
    (tmp_path / "closed").mkdir(mode=0o500)
    assert "--lake" in headwater("run", recipe(tmp_path), "--lake", tmp_path / "closed" / "lake").mistake()


@pytest.mark.parametrize(
    "command",
    [["query", "SELECT 1"], ["explain", "x"], ["trace", "last"], ["chat", "-m", "Hello"], ["report"]],
)
def test_without_a_lake_reading_is_one_line_and_makes_none(
    headwater: Command, tmp_path: Path, command: list[str]
) -> None:
    assert "run a recipe first" in headwater(*command, "--lake", tmp_path / "none").mistake()
    assert not (tmp_path / "none").exists()
    (tmp_path / "file").write_text("")
    headwater(*command, "--lake", tmp_path / "file").mistake()
    headwater(*command, "--lake", "/proc").mistake()


# Runs ----------------------------------------------------------------------------------------------------------------


def test_run_json_is_one_object_on_stdout_and_the_rest_goes_to_stderr(prefect_server: Any, tmp_path: Path) -> None:
    path, lake = recipe(tmp_path, curate={"preset": "none"}), tmp_path / "lake"
    first = process("run", path, "--lake", lake, "--until", "curate", "--json", PREFECT_API_URL=prefect_server.url)
    assert first.status == 0, first.err
    body = first.json
    assert {"run", "corpus", "stages"} <= body.keys()
    states = {stage["stage"]: stage["state"] for stage in body["stages"]}
    assert (states["ingest"], states["curate"], states["deduplicate"]) == ("ran", "ran", "skipped")
    for stage in body["stages"]:
        assert {"stage", "state", "seconds", "records_in", "records_out", "fingerprint", "outputs"} <= stage.keys()
    assert body["stages"][0]["records_in"] == body["stages"][0]["records_out"] == 3
    assert "ingest" in first.err
    assert find_manifest(Lake(lake)).run == body["run"]

    # A stage that fails by a user's mistake: still one object, with what was done; exit 2, no manifest.
    (tmp_path / "in.jsonl").write_text('{"text": " "}\n')
    failed = process("run", path, "--lake", lake, "--json", PREFECT_API_URL=prefect_server.url)
    assert failed.status in (1, 2), failed.err
    assert failed.json["error"] in failed.err
    assert [stage["state"] for stage in failed.json["stages"]][-1] == "failed"
    assert "Traceback" not in failed.err
    assert find_manifest(Lake(lake)).run == body["run"]


def test_a_failed_run_exits_1_and_names_the_stage_and_the_way_to_resume(
    prefect_server: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from datalake.lake.shards import ShardWriter
    from flows.commands.common import Common
    from flows.commands.run import run
    from flows.service import environment
    from tasks.cluster import connect

    monkeypatch.setattr(environment, "prepare", lambda lake: prefect_server.url)  # this process is prepared
    monkeypatch.setattr(connect, "disconnect", lambda: None)
    monkeypatch.setattr(ShardWriter, "count", lambda *_: None)
    status = run(recipe(tmp_path), until="curate", common=Common(tmp_path / "lake"))
    out, err = capsys.readouterr()
    assert status == 1
    last = [line for line in err.splitlines() if line.startswith("headwater: ")]
    assert len(last) == 1
    assert last[0].startswith("headwater: ingest failed: ")
    assert last[0].endswith("the same command goes on from what is finished")
    assert "ingest       failed" in out


# Reading a lake ------------------------------------------------------------------------------------------------------


def test_query_prints_a_table_or_json(headwater: Command, whole: Whole) -> None:
    sql = "SELECT id, verdict FROM tiny.ledger WHERE uri = 'http://host100.example/page'"
    plain = headwater("query", sql, "--lake", whole.lake)
    assert plain.status == 0
    assert plain.out.splitlines()[0] == "id\tverdict"
    told = headwater("query", sql, "--lake", whole.lake, "--json").json
    assert [sorted(row) for row in told] == [["id", "verdict"]]
    assert told[0]["verdict"] == "kept"
    assert bytes.fromhex(told[0]["id"]).hex() in plain.out
    assert headwater("query", "SELECT 1 WHERE false", "--lake", whole.lake, "--json").json == []


def test_every_table_of_a_run_can_be_queried_as_json(headwater: Command, whole: Whole) -> None:
    names = "raw refused quarantine curation documents pairs duplicates clean ledger mixture conversations preferences"
    tables = [f"tiny.{name}" for name in names.split()]
    tables += ["runs.stages", "runs.metrics", "runs.evaluations", "models.checkpoints"]
    for table in tables:
        found = headwater("query", f"SELECT * FROM {table} LIMIT 3", "--lake", whole.lake, "--json")
        assert found.json, table


def test_wrong_sql_is_one_line(headwater: Command, whole: Whole) -> None:
    text = headwater("query", "SELECT nothing FROM tiny.raw", "--lake", whole.lake).mistake()
    assert "nothing" in text
    headwater("query", "", "--lake", whole.lake, "--json").mistake()
    assert "no finished run" in headwater("query", "SELECT 1", "--run", "zzz", "--lake", whole.lake).mistake()


def explained(headwater: Command, whole: Whole, document: str) -> list[dict[str, Any]]:
    done = headwater("explain", document, "--lake", whole.lake, "--json")
    assert done.status == 0, done.err
    assert headwater("explain", document, "--lake", whole.lake).status == 0
    return list(done.json)


def test_explain_tells_of_a_kept_document(headwater: Command, whole: Whole) -> None:
    [story] = explained(headwater, whole, "http://host100.example/page")
    assert (story["corpus"], story["verdict"], story["rule"], story["duplicate_of"]) == ("tiny", "kept", None, None)
    assert story["archive"] == "one.warc.gz"
    assert story["provenance"]["created"] == "2024-05-20T10:00:00+00:00"
    assert story["curation"]["rules"] == []
    assert story["mixture"]["split"] in ("train", "heldout")
    [same] = explained(headwater, whole, story["id"])
    assert same == story


def test_explain_tells_by_which_rule_a_document_was_rejected(headwater: Command, whole: Whole) -> None:
    [story] = explained(headwater, whole, "table.jsonl#short")
    assert (story["verdict"], story["rule"]) == ("rejected", "min_words")
    assert story["rule"] in story["curation"]["rules"]
    assert "mixture" not in story


def test_explain_tells_which_document_was_kept_in_place_of_a_duplicate(headwater: Command, whole: Whole) -> None:
    stories = explained(headwater, whole, "http://host103.example/page")
    assert sorted(story["verdict"] for story in stories) == ["duplicate", "kept"]
    duplicate, kept = sorted(stories, key=lambda story: story["verdict"])
    assert duplicate["kept instead"] == {"id": kept["id"], "uri": "http://host103.example/page"}
    assert duplicate["similarity"] == 1.0
    assert {duplicate["archive"], kept["archive"]} == {"one.warc.gz", "two.warc.gz"}


def test_explain_tells_why_a_record_was_refused(headwater: Command, whole: Whole) -> None:
    [story] = explained(headwater, whole, "http://gone.example/")
    assert (story["verdict"], story["rule"]) == ("refused", "status")
    assert story["refused"]["reason"] == "status"
    assert "404" in story["refused"]["detail"]


def test_explain_knows_dialogues_and_says_what_it_does_not_know(headwater: Command, whole: Whole) -> None:
    [row] = headwater("query", "SELECT uri FROM tiny.conversations LIMIT 1", "--lake", whole.lake, "--json").json
    [story] = explained(headwater, whole, row["uri"])
    assert (story["table"], story["verdict"]) == ("conversations", "kept")
    assert [message["role"] for message in story["messages"]] == ["user", "assistant"]
    assert "no record 'http://never/'" in headwater("explain", "http://never/", "--lake", whole.lake).mistake()
    headwater("explain", "00" * 16, "--lake", whole.lake).mistake()


# Trace ---------------------------------------------------------------------------------------------------------------


def test_trace_names_every_ancestor_down_to_the_archives_and_their_contents(headwater: Command, whole: Whole) -> None:
    from datalake.files import file_digest

    line = headwater("trace", "ppo", "--lake", whole.lake, "--json").json
    stages = [one["stage"] for one in line]
    assert stages[0] == "ppo"
    assert sorted(stages) == sorted(
        [
            "ppo",
            "sft",
            "reward",
            "pretrain",
            "tokenize",
            "tokenizer",
            "mixture",
            "deduplicate",
            "curate",
            "quality",
            "ingest",
        ]
    )
    archives = next(one["archives"] for one in line if one["stage"] == "ingest")
    inputs = whole.folder / "input"
    places = {"one.warc.gz": inputs / "cc/one.warc.gz", "two.warc.gz": inputs / "cc/two.warc.gz"}
    places |= {name: inputs / name for name in ("wiki.xml", "table.jsonl", "dialogues.jsonl", "preferences.jsonl")}
    told = {archive["name"]: archive["version"] for archive in archives}
    assert told.keys() == {*places, "code"}
    for name, path in places.items():
        assert told[name] == file_digest(str(path))
    shown = headwater("trace", "ppo", "--lake", whole.lake)
    assert shown.status == 0
    assert "7 archives" in shown.out
    assert told["wiki.xml"][:16] in shown.out


def test_a_checkpoints_row_names_the_same_ancestors(headwater: Command, whole: Whole) -> None:
    for stage in ("pretrain", "ppo"):
        line = headwater("trace", stage, "--lake", whole.lake, "--json").json
        sql = f"SELECT ancestors, path FROM models.checkpoints WHERE stage = '{stage}'"
        [row] = headwater("query", sql, "--lake", whole.lake, "--json").json
        assert row["ancestors"] == [one["fingerprint"] for one in line[1:]]
        for name in (line[0]["fingerprint"], line[0]["fingerprint"][:12], str(whole.lake / row["path"])):
            again = headwater("trace", name, "--lake", whole.lake, "--json").json
            assert [one["fingerprint"] for one in again] == [one["fingerprint"] for one in line]


def test_a_step_traces_to_exactly_the_documents_its_batch_holds(headwater: Command, whole: Whole) -> None:
    from datalake.lake.tokens import token_indices
    from models.methods.pretrain import PretrainConfig
    from models.text.sampler import Sampler
    from models.text.shards import TokenShards
    from models.text.tokenizer import load
    from tasks.tokens import training_documents

    reports, lake = whole.reports, Lake(whole.lake)
    config = PretrainConfig.model_validate(whole.recipe["pretrain"])
    tokenizer = load(world.folder_of(whole.lake, reports["tokenizer"], "tokenizer"))
    tokens: Any = reports["tokenize"].outputs["tokens"]
    documents, _ = training_documents(lake, world.table_of(reports["mixture"], "mixture"), tokens, 0)
    sampler = Sampler(TokenShards(token_indices(lake, tokens)), documents, config.seed, config.context, config.batch)
    texts = dict(world.rows(whole.lake, "SELECT lower(hex(id)), text FROM tiny.documents"))
    for step in (1, 6, config.steps):
        traced = headwater("trace", "pretrain", "--step", str(step), "--lake", whole.lake, "--json").json
        batch = sampler.batch(step - 1)
        segments = [
            (row, segment, batch.tokens[row][batch.segments[row] == segment].tolist())
            for row in range(len(batch.tokens))
            for segment in range(int(batch.segments[row].max()) + 1)
        ]
        assert len(traced) == len(segments)
        for told, (_, _, piece) in zip(traced, segments, strict=True):
            assert told["tokens"] == len(piece)
            text = tokenizer.decode(piece, skip_special_tokens=True, clean_up_tokenization_spaces=False)
            assert text.strip("\ufffd") in texts[told["id"]], told
            assert told["uri"]
        assert sum(told["tokens"] for told in traced) == int((batch.segments >= 0).sum())


@pytest.mark.parametrize(
    ("stage", "table"), [("sft", "conversations"), ("reward", "preferences"), ("ppo", "conversations")]
)
def test_a_tuning_step_traces_to_its_own_dialogues_or_pairs(
    headwater: Command, whole: Whole, stage: str, table: str
) -> None:
    addresses = {id: uri for uri, id in world.rows(whole.lake, f"SELECT uri, lower(hex(id)) FROM tiny.{table}")}
    seen: list[str] = []
    for step in range(1, whole.recipe[stage]["steps"] + 1):
        told = headwater("trace", stage, "--step", str(step), "--lake", whole.lake, "--json").json
        assert len(told) == whole.recipe[stage]["batch"]
        assert all(one["uri"] == addresses[one["id"]] and one["tokens"] > 0 for one in told)
        seen += [one["id"] for one in told]
    assert len(set(seen)) == len(seen)  # the first epoch: none comes twice
    assert headwater("trace", stage, "--step", "1", "--lake", whole.lake).out.startswith("uri\tsource")


def test_a_step_that_was_never_taken_is_told(headwater: Command, whole: Whole) -> None:
    for step in (0, 13):
        asked = headwater("trace", "pretrain", "--step", str(step), "--lake", whole.lake)
        assert "12 steps, 1 to 12" in asked.mistake()
    headwater("trace", "pretrain", "--step=-1", "--lake", whole.lake).mistake()
    evaluated = whole.reports["evaluate"].fingerprint
    assert evaluated
    assert "has no steps" in headwater("trace", evaluated, "--step", "1", "--lake", whole.lake).mistake()


@pytest.mark.parametrize("name", ["nothing", "/tmp", "ffff", "", "deduplicate"])
def test_what_is_no_checkpoint_of_the_lake_is_told(headwater: Command, whole: Whole, name: str) -> None:
    assert "not a checkpoint" in headwater("trace", name, "--lake", whole.lake).mistake()


# Chat ----------------------------------------------------------------------------------------------------------------


def test_chat_answers_with_the_last_model(headwater: Command, whole: Whole) -> None:
    asked = ("chat", "-m", "Where is the river?", "--max-tokens", "8", "--seed", "1", "--lake", whole.lake)
    told = headwater(*asked, "--json").json
    assert told["checkpoint"] == str(world.folder_of(whole.lake, whole.reports["ppo"], "ppo"))
    assert [message["role"] for message in told["messages"]] == ["user", "assistant"]
    assert headwater(*asked, "--json").json == told
    assert headwater(*asked).out.strip() == printable(told["messages"][1]["content"]).strip()


def test_chat_takes_a_stage_or_a_folder_that_no_lake_knows(headwater: Command, whole: Whole, tmp_path: Path) -> None:
    import shutil

    folder = world.folder_of(whole.lake, whole.reports["sft"], "sft")
    copy = shutil.copytree(folder, tmp_path / "copy")
    asked = ("-m", "Hello", "--max-tokens", "4", "--seed", "1", "--json")
    by_stage = headwater("chat", "sft", *asked, "--lake", whole.lake).json
    by_folder = headwater("chat", copy, *asked, "--lake", tmp_path / "none").json
    assert by_stage["messages"] == by_folder["messages"]
    assert not (tmp_path / "none").exists()


def test_a_checkpoint_that_is_none_is_one_line(headwater: Command, whole: Whole, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "text").write_text("no model")
    (tmp_path / "odd").mkdir()
    (tmp_path / "odd" / "config.json").write_text("{}")
    (tmp_path / "odder").mkdir()
    (tmp_path / "odder" / "config.json").write_text("[1")
    for name in ("empty", "text", "odd", "odder"):
        text = headwater("chat", tmp_path / name, "-m", "Hello", "--lake", whole.lake).mistake()
        assert str(tmp_path / name) in text
    headwater("chat", tmp_path / "none", "-m", "Hello", "--lake", whole.lake).mistake()
    assert "reward model" in headwater("chat", "reward", "-m", "Hello", "--lake", whole.lake).mistake()


@pytest.mark.parametrize("damage", ["cut", "garbage", "missing", "empty"])
def test_a_damaged_checkpoint_is_one_line(headwater: Command, whole: Whole, tmp_path: Path, damage: str) -> None:
    import shutil

    folder = shutil.copytree(world.folder_of(whole.lake, whole.reports["sft"], "sft"), tmp_path / "copy")
    weights = folder / "model.safetensors"
    if damage == "missing":
        weights.unlink()
    else:
        content = weights.read_bytes()
        weights.write_bytes({"cut": content[: len(content) // 2], "garbage": b"\xff" * 500, "empty": b""}[damage])
    text = headwater("chat", folder, "-m", "Hello", "--lake", whole.lake).mistake()
    assert str(folder) in text
    assert "can't be read" in text or "model.safetensors is missing" in text


def test_chat_holds_its_numbers_to_bounds(headwater: Command, whole: Whole) -> None:
    headwater("chat", "-m", "Hello", "--temperature=-1", "--lake", whole.lake).mistake()
    headwater("chat", "-m", "Hello", "--max-tokens", "0", "--lake", whole.lake).mistake()
    headwater("chat", "-m", "", "--lake", whole.lake).mistake()
    headwater("chat", "--json", "--lake", whole.lake).mistake()
