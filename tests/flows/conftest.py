"""The suite's Prefect server with deployments and a worker, as `headwater up` leaves it, and a browser on it."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import psutil
import pytest
import world
import yaml
from begun import Begun, Start, processes_of
from browser import Browser, chromium
from harness import ROOT, Command, Ended, PrefectServer, up
from world import Whole

from flows.cli import main


@pytest.fixture(scope="session")
def running(prefect_server: PrefectServer) -> dict[str, Any]:
    """What `up` says where only a server is there: the suite's. The suite's end stops all of it."""
    return up(prefect_server.lake, prefect_server.port)


@pytest.fixture(scope="session")
def whole(prefect_server: PrefectServer, tmp_path_factory: pytest.TempPathFactory) -> Whole:
    """The suite's one run of everything; read only."""
    return world.whole(tmp_path_factory)


@pytest.fixture
def headwater(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Command:
    """Runs the command in this process. Not for runs that succeed: they prepare the whole process for their lake."""
    monkeypatch.delenv("HEADWATER_LAKE", raising=False)
    monkeypatch.chdir(tmp_path)

    def call(*arguments: str | Path) -> Ended:
        capsys.readouterr()
        with pytest.raises(SystemExit) as end:
            main([str(argument) for argument in arguments])
        out, err = capsys.readouterr()
        assert isinstance(end.value.code, int)
        return Ended(end.value.code, out, err)

    return call


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Starts `headwater run`, or another command over a recipe, as a process, `within` another one where it is told;
    whatever it leaves is ended after the test."""
    begun: list[Begun] = []
    lakes: set[Path] = set()

    def run(
        recipe: dict[str, Any],
        lake: Path,
        until: str,
        api: str = "",
        cwd: Path = ROOT,
        within: Sequence[str] = (),
        command: Sequence[str] = (),
        **more: str | None,
    ) -> Begun:
        path = tmp_path / f"recipe{len(begun)}.yaml"
        path.write_text(yaml.safe_dump(recipe))
        ours = ("HEADWATER_LAKE", "HEADWATER_PROCESS_LAKE", "HEADWATER_PROCESS_OWNER", "PREFECT_API_URL")
        environment = {name: value for name, value in os.environ.items() if name not in ours}
        environment["PYTHONPATH"] = str(ROOT)
        environment |= {name: value for name, value in more.items() if value is not None}
        files = path.with_suffix(".out"), path.with_suffix(".err")
        name, *options = command or ("run", "--until", until)
        arguments = [name, str(path), "--lake", str(lake), *options, "--json"]
        with files[0].open("wb") as out, files[1].open("wb") as err:
            process = subprocess.Popen(
                [*within, sys.executable, "-m", "flows.cli", *arguments],
                stdout=out,
                stderr=err,
                cwd=cwd,
                env=environment | ({"PREFECT_API_URL": api} if api else {}),
                start_new_session=True,  # a Ctrl-C for it is none for the suite
                preexec_fn=partial(signal.signal, signal.SIGINT, signal.default_int_handler),
            )
        begun.append(Begun(process, *files))
        lakes.add(lake)
        return begun[-1]

    yield run
    for one in begun:
        if one.process.poll() is None:
            one.process.kill()
        one.process.wait()
    ours = psutil.Process().children(recursive=True)  # Ray of the runs in this process, which others use after them
    for lake in lakes:
        for left in set(processes_of(lake)).difference(ours):
            try:
                left.kill()
            except psutil.Error:
                continue


@pytest.fixture(scope="session")
def browser(prefect_server: PrefectServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    """Chromium, logged in to the suite's server with the password that `up` shows."""
    pytest.importorskip("selenium", reason="no selenium: pip install -e .[dev]")
    binary = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    driver = shutil.which("chromedriver")
    if not binary or not driver:
        pytest.skip("no Chromium with its driver: apt-get install chromium chromium-driver")
    with chromium(binary, driver, prefect_server.ui, tmp_path_factory.mktemp("browser")) as opened:
        opened.log_in(prefect_server.login)
        yield opened


@pytest.fixture(scope="session")
def open_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder as the hub has them: another family, its own tokenizer and template, settings we don't know."""
    import torch
    from transformers import GPT2Config, GPT2LMHeadModel

    from models.text.config import TokenizerConfig
    from models.text.tokenizer import train

    folder = tmp_path_factory.mktemp("open") / "model"
    words = train([world.prose(n) for n in range(20)], TokenizerConfig(vocabulary=400), folder.parent / "words")
    words.add_special_tokens({"bos_token": "<s>", "eos_token": "</s>"})
    words.chat_template = world.TEMPLATE
    torch.manual_seed(0)
    config = GPT2Config(
        vocab_size=len(words), n_embd=32, n_layer=2, n_head=2, n_positions=128, bos_token_id=words.bos_token_id,
        eos_token_id=words.eos_token_id, attn_pdrop=0.1, resid_pdrop=0.1, embd_pdrop=0.1,
    )  # fmt: skip
    GPT2LMHeadModel(config).save_pretrained(folder)
    words.save_pretrained(folder)
    settings = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(settings | {"an_unknown_setting": 7}))
    return folder
