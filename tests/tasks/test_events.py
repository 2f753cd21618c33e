"""What happens in a run is told with its place: as JSON on stderr, and to Prometheus by a file."""

from __future__ import annotations

import json
import sys
from io import StringIO
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from datalake import secrets
from datalake.lake.shards import ShardResult
from tasks.cluster import Shard
from tasks.shards import map_all
from tasks.shown import events, meters
from tasks.shown.artifacts import progress, say
from tasks.shown.training import Training


def json_logs(monkeypatch: pytest.MonkeyPatch) -> StringIO:
    """Stderr of a process whose logs are JSON, from here on: pytest puts its own there before a test is called."""
    stream = StringIO()
    monkeypatch.setenv("HEADWATER_LOG", "json")
    monkeypatch.setattr(sys, "stderr", stream)
    events.listen()
    return stream


def objects(stream: StringIO) -> list[dict[str, object]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def _work(shard: Shard) -> ShardResult:
    if shard.payload == "bad":
        raise ValueError("the archive is cut")
    return ShardResult(shard.name, shard.key, seconds=2.0, counts={"records": 7})


def test_a_shard_is_told_with_its_run_stage_and_name(monkeypatch: pytest.MonkeyPatch, inline: object) -> None:
    told = json_logs(monkeypatch)
    shards = [Shard("a.warc.gz", "1" * 8, "good"), Shard("b.warc.gz", "2" * 8, "bad")]
    with events.within(run="20261130-1", corpus="web", stage="ingest"):
        map_all(_work, shards, inline(retries=0), "ingest")  # type: ignore[operator]
    place = {"run": "20261130-1", "corpus": "web", "stage": "ingest"}
    good, bad = (one for one in objects(told) if one["event"] == "shard")
    assert good.items() >= (place | {"shard": "a.warc.gz", "state": "ran", "seconds": 2.0, "level": "info"}).items()
    assert (good["counts"], good["shard_id"]) == ({"records": 7}, "1" * 8)
    assert bad.items() >= (place | {"shard": "b.warc.gz", "state": "failed", "level": "warning"}).items()
    assert "the archive is cut" in str(bad["error"])
    assert any(one["event"] == "progress" for one in objects(told))


def test_every_line_on_stderr_is_an_object_without_secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    told = json_logs(monkeypatch)
    secrets.remember(["hunter2-hunter2"])
    with events.within(stage="sft"):
        say("reads s3://key:hunter2-hunter2@bucket/x")
        print("a library's\nwarning \x1b[31m", file=sys.stderr)
        print("half", end="", file=sys.stderr)
        print(" a line", file=sys.stderr)
    lines = objects(told)
    assert [one["message"] for one in lines if one["event"] == "line"] == [
        "a library's", "warning \x1b[31m", "half a line",
    ]  # fmt: skip
    assert all(one["stage"] == "sft" and one["time"] for one in lines)
    assert "hunter2" not in told.getvalue()
    assert "\x1b" not in told.getvalue()


@pytest.mark.parametrize(
    ("value", "told"),
    [
        (float("nan"), None),
        ({"loss": float("inf"), "steps": [1, float("-inf")]}, {"loss": None, "steps": [1, None]}),
        ({(1, 2): Path("/lake")}, {"[1, 2]": "/lake"}),
        (b"\xff", "ff"),
        (ValueError("two\nlines"), "two\nlines"),
        ("bytes that are no text: \udcff", "bytes that are no text: \udcff"),
    ],
)
def test_whatever_is_told_is_one_line_of_json(monkeypatch: pytest.MonkeyPatch, value: object, told: object) -> None:
    stream = json_logs(monkeypatch)
    events.tell("step", value=value)
    text = stream.getvalue()
    assert text.count("\n") == 1
    text.encode()  # a stream's encoding has no lone surrogates
    assert json.loads(text, parse_constant=pytest.fail)["value"] == told


def test_what_only_looks_like_an_event_and_last_words_are_objects_too(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = json_logs(monkeypatch)
    print('{"time": cut', file=sys.stderr)
    print("and no end of a line", end="", file=sys.stderr)
    assert isinstance(sys.stderr, events.Lines)
    sys.stderr.end()
    sys.stderr.end()
    assert [one["message"] for one in objects(stream)] == ['{"time": cut', "and no end of a line"]


def test_without_the_option_lines_are_for_people(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = StringIO()
    monkeypatch.setattr(sys, "stderr", stream)
    monkeypatch.delenv("HEADWATER_LOG", raising=False)
    events.listen()
    events.tell("shard", shard="a")
    say("hello")
    assert stream.getvalue() == "  hello\n"


def test_prometheus_reads_what_a_run_has_done(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, inline: object) -> None:
    monkeypatch.setenv("HEADWATER_METRICS", str(tmp_path / "metrics"))
    monkeypatch.setattr(meters, "_meters", None)
    shards = [Shard(f"{n}", f"{n}" * 8, "good" if n else "bad") for n in range(3)]
    with events.within(run="r", corpus="web", stage="ingest"):
        map_all(_work, shards, inline(retries=0), "ingest")  # type: ignore[operator]
        events.tell("shard", shard="c", shard_id="c", state="found", seconds=50.0)  # which an earlier run worked on
        events.tell("stage", state="partial", seconds=3.5, records_in=14, records_out=9)
    rows = [{"step": step, "loss": 5.0 - step, "tokens_per_s": 900.0, "tokens": 64} for step in (1, 2, 3)]
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    with events.within(run="r", corpus="web", stage="sft"):
        Training("sft", tmp_path).look()
        with progress("sft", 4, "steps") as bar:
            bar.at(4)
        events.tell("stage", state="ran", seconds=7.0)
    [file] = (tmp_path / "metrics").iterdir()
    assert file.name == "headwater-web.prom"
    found = {
        (sample.name, *sorted(sample.labels.values())): sample.value
        for family in text_string_to_metric_families(file.read_text())
        for sample in family.samples
    }
    assert found["headwater_shards_total", "ingest", "ran", "web"] == 2
    assert found["headwater_shards_total", "failed", "ingest", "web"] == 1
    assert found["headwater_shard_seconds_total", "ingest", "web"] == 4.0
    assert found["headwater_stages_total", "ingest", "partial", "web"] == 1
    assert found["headwater_stage_records", "in", "ingest", "web"] == 14
    assert found["headwater_stage_records", "ingest", "out", "web"] == 9
    assert found["headwater_stage_seconds", "sft", "web"] == 7.0
    assert found["headwater_training_step", "sft", "web"] == 3
    assert found["headwater_training_value", "loss", "sft", "web"] == 2.0
    assert found["headwater_training_value", "sft", "tokens_per_s", "web"] == 900.0
    assert found["headwater_stage_progress_ratio", "sft", "web"] == 1.0


def test_a_folder_that_cannot_be_written_fails_nothing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("HEADWATER_METRICS", str(tmp_path / "file"))
    monkeypatch.setattr(meters, "_meters", None)
    events.tell("stage", state="ran", seconds=1.0)
