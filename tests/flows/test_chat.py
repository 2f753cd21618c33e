"""`headwater chat`: what is typed, pasted or piped reaches the model as it was meant, and ends the command well."""

from __future__ import annotations

import ast
import io
import json
import os
import pty
import select
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from datalake.atomic import write_atomically
from datalake.errors import UserError
from datalake.lake.lake import FolderRef, Lake
from datalake.lake.records import Manifest, StageRecord, StageReport, write_manifest
from flows.cli import main
from flows.commands.chat import choose, converse, piped
from flows.commands.dialogue import Sampling

ROOT = Path(__file__).parents[2]
PROMPT = b"\x1b[?2004h"  # what opens a line to be edited: pastes are asked for as such
PATIENCE_S = 120  # of a wait for something that comes at once on a quiet machine

# A dialogue that tells what it was told, in ASCII, so that the terminal's own echo can't be mistaken for it.
ECHO = """
import sys
from flows.commands.chat import converse
class Echo:
    def answer(self, text, show):
        if text == "stop me":
            show("[started]")
            while True: pass
        show("[" + ascii(text) + "]" if len(text) < 100 else f"[{len(text)}]")
sys.exit(converse(Echo()))
"""
# The same with commands, and what was typed in a file.
COMMANDED = ECHO.replace(
    "converse(Echo())", "converse(Echo(), Commands(Echo(), print, print, None), Path(sys.argv[1]))"
).replace("import sys", "import sys\nfrom pathlib import Path\nfrom flows.commands.chat_commands import Commands")


class Terminal:
    """A process at a terminal of its own, typed at and read as a person does."""

    def __init__(self, code: str, *arguments: str):
        self.pid, self.fd = pty.fork()
        if self.pid == 0:
            os.chdir(ROOT)
            environment = {**os.environ, "PROMPT_TOOLKIT_NO_CPR": "1", "TERM": "xterm", "PYTHONUTF8": "1"}
            os.execve(sys.executable, [sys.executable, "-c", code, *arguments], environment)
        self.shown = b""

    def until(self, text: bytes) -> None:
        """Wait until something new is shown, and take what was shown up to it."""
        while text not in self.shown:
            assert select.select([self.fd], [], [], PATIENCE_S)[0], self.shown
            try:
                self.shown += os.read(self.fd, 65536)
            except OSError:  # the process has ended
                raise AssertionError(self.shown) from None
        self.shown = self.shown.partition(text)[2]

    def type(self, keys: bytes) -> None:
        while keys:
            keys = keys[os.write(self.fd, keys[:512]) :]
            while select.select([self.fd], [], [], 0)[0]:
                self.shown += os.read(self.fd, 65536)

    def ended(self) -> int:
        while True:
            try:
                if not os.read(self.fd, 65536):
                    break
            except OSError:
                break
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])


@pytest.fixture
def terminal() -> Iterator[Terminal]:
    """A chat at its first prompt."""
    terminal = Terminal(ECHO)
    try:
        terminal.until(PROMPT)
        yield terminal
    finally:
        os.close(terminal.fd)


def test_lines_are_edited_by_characters_and_bytes_that_are_none_end_nothing(terminal: Terminal) -> None:
    terminal.type("你好".encode() + b"\x7f" + "们".encode() + b"\r")  # Backspace takes one character, not one byte
    terminal.until(rb"['\u4f60\u4eec']")
    terminal.until(PROMPT)
    terminal.type(b"ab\xff\xfec\r")
    terminal.until(b"c']")
    terminal.until(PROMPT)
    terminal.type(b"\x1b[A\x1b[A\r")  # the first line again
    terminal.until(rb"['\u4f60\u4eec']")
    terminal.until(PROMPT)
    terminal.type(b"\x1b[200~one\rtwo\x1b[201~\r")  # a paste
    terminal.until(rb"['one\ntwo']")
    terminal.until(PROMPT)
    terminal.type(b"\x1b[200~" + b"x" * 50_000 + b"\x1b[201~\r")
    terminal.until(b"[50000]")
    terminal.until(PROMPT)
    terminal.type(b"\x04")
    assert terminal.ended() == 0


def test_ctrl_c_gives_up_a_line_stops_an_answer_and_ends_the_chat(terminal: Terminal) -> None:
    terminal.type(b"not this\x03")
    terminal.until(PROMPT)
    terminal.type(b"stop me\r")
    terminal.until(b"[started]")
    terminal.type(b"\x03")
    terminal.until(PROMPT)
    terminal.type(b"but this\r")
    terminal.until(b"['but this']")
    terminal.until(PROMPT)
    terminal.type(b"\x03")
    assert terminal.ended() == 130


def test_a_line_with_a_slash_is_for_the_chat_itself_and_all_of_it_is_remembered(tmp_path: Path) -> None:
    file = tmp_path / "history"
    for keys, shown in ((b"/help\r", b"/system"), (b"\x1b[A\r", b"/system")):  # in the next chat by one key
        terminal = Terminal(COMMANDED, str(file))
        try:
            terminal.until(PROMPT)
            terminal.type(keys)
            terminal.until(shown)
            terminal.until(PROMPT)
            terminal.type(b"//etc\r")
            terminal.until(b"['/etc']")
            terminal.until(PROMPT)
            terminal.type(b"/nothing\r")
            terminal.until(b"there is no command /nothing")
            terminal.until(PROMPT)
            terminal.type(b"/help\r")
            terminal.until(PROMPT)
            terminal.type(b"\x04")
            assert terminal.ended() == 0
        finally:
            os.close(terminal.fd)
    assert "+//etc" in file.read_text()


class Echo:
    """Answers with what it was told; what is too long for it is a mistake."""

    def __init__(self) -> None:
        self.told: list[str] = []

    def answer(self, text: str, show: Any) -> None:
        if len(text) > 100_000:
            raise UserError("the message is too long: shorten it")
        self.told.append(text)
        show(text)


def pipe(monkeypatch: pytest.MonkeyPatch, content: bytes) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content), encoding="ascii"))


def test_what_is_piped_in_is_read_whatever_its_bytes_are(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pipe(monkeypatch, b"\xef\xbb\xbfone\r\n\xff\xfe two\n\x1b[31m \xe4\xbd\xa0\nlast\n\nafter the empty line\n")
    dialogue: Any = Echo()
    assert converse(dialogue) == 0
    assert dialogue.told == ["one", "\ufffd\ufffd two", "\x1b[31m 你", "last"]
    assert capsys.readouterr().out.splitlines() == ["one", "\ufffd\ufffd two", r"\x1b[31m 你", "last"]


def test_a_message_that_does_not_fit_ends_a_piped_dialogue(monkeypatch: pytest.MonkeyPatch) -> None:
    pipe(monkeypatch, b"x" * 200_000)
    with pytest.raises(UserError, match="too long"):
        converse(Echo())  # type: ignore[arg-type]


def test_without_an_input_there_is_nothing_to_say(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", None)
    with pytest.raises(UserError, match="--message"):
        list(piped())


@pytest.mark.parametrize(
    "given",
    ["--temperature=nan", "--temperature=inf", "--temperature=-1", "--temperature=1e-300", "--seed=-1",
     "--seed=99999999999999999999999", "--seed=" + "9" * 5000, "--top-p=0", "--top-p=1.5", "--top-p=nan",
     "--max-tokens=0", "--max-tokens=99999999999"],
)  # fmt: skip
def test_numbers_out_of_bounds_are_one_line(given: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        main(["chat", "-m", "Hello", given, "--lake", str(tmp_path)])
    err = capsys.readouterr().err
    assert end.value.code == 2
    assert err.startswith("headwater: ")
    assert err.count("\n") == 1
    assert given.partition("=")[0] in err


def test_numbers_within_bounds_are_taken() -> None:
    for temperature in (0, 0.001, 1, 100):
        Sampling(temperature, 1.0, 1, (1 << 62) - 1)


@pytest.mark.parametrize("name", ["x" * 5000, "~nobody-of-this-name/model", "a\x00b"])
def test_a_name_that_can_be_no_folder_is_no_checkpoint(name: str, tmp_path: Path) -> None:
    (tmp_path / "runs").mkdir()
    with pytest.raises(UserError, match="not a checkpoint"):
        choose(name, tmp_path)


# Which model --------------------------------------------------------------------------------------------------------


def model(lake: Lake, run: str, stage: str, minute: int) -> StageReport:
    """A stage that left a model, as far as choosing one goes."""
    key = f"{run}{stage}".encode().hex()
    folder = lake.folder(stage, key) / "checkpoint"
    folder.mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    ref = FolderRef(name=stage, path=lake.relative(folder), fingerprint=key, data_version=key)
    record = StageRecord(
        stage=stage, version="1", corpus="small", fingerprint=key, state="done", payload={}, inputs={},
        outputs={stage: ref}, counts={}, started=datetime(2026, 11, 23, tzinfo=UTC), seconds=1, run=run,
    )  # fmt: skip
    write_atomically(lake.root / "records" / f"{key}.json", record.model_dump_json().encode())
    return StageReport(stage=stage, state="ran", seconds=1, fingerprint=key, outputs={stage: ref})


def finished(lake: Lake, run: str, minute: int, stages: tuple[str, ...], until: str | None = None) -> None:
    at = datetime(2026, 11, 23, tzinfo=UTC) + timedelta(minutes=minute)
    reports = [model(lake, run, stage, minute) for stage in stages]
    write_manifest(
        lake,
        Manifest(run=run, corpus="small", recipe={"ppo": {}}, started=at, finished=at, until=until, stages=reports),
    )


def test_the_last_model_is_that_of_the_last_complete_run(tmp_path: Path) -> None:
    lake = Lake(tmp_path)
    finished(lake, "smoke", 0, ("pretrain",), until="pretrain")
    assert (choose("last", tmp_path).stage, choose("last", tmp_path).run) == ("pretrain", "smoke")
    finished(lake, "whole", 1, ("pretrain", "sft", "reward", "ppo"))
    finished(lake, "twenty-steps", 2, ("pretrain",), until="pretrain")
    assert str(choose("last", tmp_path)).startswith("ppo of run whole (small): ")
    assert choose("pretrain", tmp_path).run == "twenty-steps"  # asked for by name: the last there is
    finished(lake, "no-ppo", 3, ("pretrain", "sft", "reward"))
    assert (choose("last", tmp_path).stage, choose("last", tmp_path).run) == ("sft", "no-ppo")
    finished(lake, "not-evaluated", 4, ("pretrain", "sft", "reward", "ppo"), until="ppo")
    assert choose("last", tmp_path).run == "not-evaluated"


# Code in folders ----------------------------------------------------------------------------------------------------


@pytest.fixture
def with_code(tmp_path: Path) -> tuple[Path, Path]:
    """A model's folder with Python code of its own, and the file which that code makes when it is run."""
    folder, mark = tmp_path / "model", tmp_path / "ran"
    folder.mkdir()
    code = f"""
from pathlib import Path
Path({str(mark)!r}).write_text("ran")
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast
class OwnConfig(LlamaConfig):
    model_type = "own"
class OwnModel(LlamaForCausalLM):
    config_class = OwnConfig
class OwnTokenizer(PreTrainedTokenizerFast):
    pass
"""
    (folder / "own.py").write_text(code)
    names = {"AutoConfig": "own.OwnConfig", "AutoModelForCausalLM": "own.OwnModel", "AutoModel": "own.OwnModel"}
    config = {"model_type": "own", "architectures": ["OwnModel"], "auto_map": names, "vocab_size": 64}
    shape = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    (folder / "config.json").write_text(json.dumps({**config, **shape}))
    tokenizer = {"tokenizer_class": "OwnTokenizer", "auto_map": {"AutoTokenizer": ["own.OwnTokenizer", None]}}
    (folder / "tokenizer_config.json").write_text(json.dumps(tokenizer))
    return folder, mark


def test_code_in_a_models_folder_is_not_run_whatever_is_said_to_it(
    with_code: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from models.network.foreign import Foreign
    from models.text import tokenizer as text

    folder, mark = with_code
    for arguments in ([], ["-m", "Hello"]):
        monkeypatch.setattr(sys, "stdin", io.StringIO("y\ny\ny\n"))
        with pytest.raises(SystemExit) as end:
            main(["chat", str(folder), *arguments])
        err = capsys.readouterr().err
        assert end.value.code == 2
        assert "--trust-remote-code" in err
        assert err.count("\n") == 1
    for load in (Foreign.load, text.load):
        monkeypatch.setattr(sys, "stdin", io.StringIO("y\ny\ny\n"))
        with pytest.raises(UserError):
            load(folder)
    assert not mark.exists()


def test_classifiers_of_documents_run_no_code_of_a_folder(
    with_code: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    from datalake.text import transformer
    from datalake.text.transformer_config import Model

    folder, mark = with_code
    model = Model.model_validate(str(folder))
    monkeypatch.setattr(sys, "stdin", io.StringIO("y\ny\ny\n"))
    with pytest.raises(UserError):
        transformer.load(model, "AutoModel", "encoder", "deduplicate.semantic")
    assert not mark.exists()


def test_whoever_loads_a_model_or_tokenizer_says_whether_its_code_may_run() -> None:
    """Left unsaid, Transformers asks on stdin."""
    unsaid = []
    for floor in ("flows", "tasks", "datalake", "models"):
        for path in (ROOT / floor).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.Call) and getattr(node.func, "attr", "") == "from_pretrained":
                    given = ast.unparse(node)
                    if "trust_remote_code=" not in given and "**where" not in given:
                        unsaid.append(f"{path}:{node.lineno}")
    assert unsaid == []


def test_code_is_run_where_that_was_asked_for(with_code: tuple[Path, Path]) -> None:
    from models.network.foreign import Foreign

    folder, mark = with_code
    with pytest.raises(UserError, match="can't be loaded"):  # it has no weights
        Foreign.load(folder, trust_remote_code=True)
    assert mark.exists()
