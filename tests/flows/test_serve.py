"""`headwater serve`: what it listens on, how it calls its models, where these come from, and what it refuses."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from clusters import ray_head

from datalake.atomic import write_atomically
from datalake.lake.lake import FolderRef, Lake
from datalake.lake.records import StageRecord
from flows.cli import main
from flows.commands.chat import Chosen
from flows.commands.serve import ancestry, names
from models.network import checkpoint
from models.network.build import build_model
from models.network.config import NetworkConfig
from models.text.config import TokenizerConfig
from models.text.tokenizer import train

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("model")
    words = train(["the cat sees the dog. " * 20], TokenizerConfig(vocabulary=300), root / "tokenizer")
    shape = NetworkConfig(layers=1, width=32, heads=2, kv_heads=1, context=64).sized(len(words))
    return checkpoint.save(build_model(shape, 0), words, root / "tiny")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--host", "0.0.0.0"], "HEADWATER_TOKEN"),
        (["--host", "192.0.2.1", "--token", "x"], "can't be used"),
        (["--port", "99999"], "--port"),
        (["--slots", "0"], "--slots"),
        (["--token", "密钥"], "ASCII"),
    ],
)
def test_mistakes_are_one_line(
    folder: Path, arguments: list[str], said: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("HEADWATER_TOKEN", raising=False)
    with pytest.raises(SystemExit) as end:
        main(["serve", str(folder), *arguments])
    told = capsys.readouterr().err
    assert (end.value.code, told.count("\n")) == (2, 1)
    assert said in told


def test_what_is_no_checkpoint_is_not_served(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        main(["serve", str(tmp_path)])
    assert end.value.code == 2
    assert "not a checkpoint" in capsys.readouterr().err


def test_models_are_called_after_stage_or_folder() -> None:
    stage = Chosen(Path("/lake/folders/sft/ab/checkpoint"), "sft", "run", "demo")
    folders = [Chosen(Path(f"/models/{name}")) for name in ("smol", "other/smol", "run-7/checkpoint", "Q4.gguf")]
    assert names([stage, stage, stage, *folders]) == ["sft", "sft-2", "sft-3", "smol", "smol-2", "run-7", "Q4"]


def test_the_ancestry_of_a_checkpoint_is_that_of_its_lake(tmp_path: Path) -> None:
    lake = Lake(tmp_path / "lake")
    made = lake.folder("sft", "b" * 64) / "checkpoint"
    made.mkdir(parents=True)
    (made / "config.json").write_text("{}")
    (lake.root / "runs").mkdir()
    ref = FolderRef(name="sft", path=lake.relative(made), fingerprint="b" * 64, data_version="1")
    archives = [{"kind": "table", "name": f"a{number}", "version": "1"} for number in range(60)]
    record = StageRecord(
        stage="sft", version="1", corpus="demo", fingerprint="b" * 64, state="done",
        payload={"config": {}, "inputs": {"archives": archives}},
        inputs={}, outputs={"model": ref}, counts={}, started=datetime(2026, 11, 30, tzinfo=UTC), seconds=2, run="r",
    )  # fmt: skip
    write_atomically(lake.root / "records" / f"{'b' * 64}.json", record.model_dump_json().encode())
    for named in (tmp_path / "lake", tmp_path / "another"):  # the lake that it lies in is found
        [one] = ancestry(made, named)
        assert (one["stage"], one["fingerprint"], one["outputs"]) == ("sft", "b" * 64, ["sft"])
        assert (len(one["archives"]), one["archives_in_all"]) == (50, 60)
        json.dumps(one)
    assert ancestry(tmp_path, tmp_path / "another") == []


@pytest.mark.parametrize("more", [(), pytest.param(("--replicas", "2"), marks=pytest.mark.slow)], ids=["here", "ray"])
def test_the_command_serves_until_it_is_interrupted(folder: Path, tmp_path: Path, more: tuple[str, ...]) -> None:
    command = [
        sys.executable,
        "-m",
        "flows.cli",
        "serve",
        str(folder),
        "--port",
        "0",
        "--json",
        "--lake",
        str(tmp_path),
        *more,
    ]
    environment = {name: value for name, value in os.environ.items() if name != "HEADWATER_TOKEN"}
    running = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    try:
        assert running.stdout is not None
        told = json.loads(running.stdout.readline())
        assert told["models"] == {"tiny": str(folder)}

        def ask(path: str, body: Any = None, **headers: str) -> Any:
            data = json.dumps(body).encode() if body else None
            return urllib.request.urlopen(urllib.request.Request(told["url"] + path, data, headers), timeout=120)

        with ask("/") as page:
            assert "default-src 'none'" in page.headers["content-security-policy"]
        with ask("/v1/models") as models:
            assert json.load(models)["data"][0]["id"] == "tiny"
        body = {"model": "tiny", "messages": [{"role": "user", "content": "the cat"}], "max_tokens": 3, "seed": 0}
        with ask("/v1/chat/completions", body) as answer:
            assert json.load(answer)["usage"]["completion_tokens"] <= 3
        for headers in ({"Host": "evil.example"}, {"Origin": "http://evil.example"}):  # another site's page
            with pytest.raises(urllib.error.HTTPError, match="403"):
                ask("/v1/models", **headers)
        running.send_signal(signal.SIGINT)
        assert running.wait(120) == 0
    finally:
        running.kill()
        running.wait()


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_replicas_of_a_cluster_that_was_joined_end_with_the_command(
    folder: Path, tmp_path: Path, number: signal.Signals
) -> None:
    with ray_head() as head:
        where = ["--port", "0", "--replicas", "2", "--cluster", f"127.0.0.1:{head.port}"]
        command = [sys.executable, "-m", "flows.cli", "serve", str(folder), "--json", "--lake", str(tmp_path), *where]
        environment = {name: value for name, value in os.environ.items() if name != "HEADWATER_TOKEN"}
        running = subprocess.Popen(command, cwd=ROOT, env=environment | head.environment, stdout=subprocess.PIPE)
        try:
            assert running.stdout is not None
            url = json.loads(running.stdout.readline())["url"]
            with urllib.request.urlopen(f"{url}/v1/models", timeout=120) as models:
                assert json.load(models)["data"][0]["id"] == "tiny"
            running.send_signal(number)
            assert running.wait(120) == (143 if number is signal.SIGTERM else 0)
        finally:
            running.kill()
            running.wait()
        with pytest.raises(urllib.error.URLError, match="refused"):
            urllib.request.urlopen(f"{url}/v1/models", timeout=120)
