"""The commands of `headwater chat`: what a line with a slash does to the dialogue, and what it can't."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from datalake.errors import UserError
from flows.commands.chat import _history
from flows.commands.chat_commands import Commands, EndChat
from flows.commands.dialogue import Dialogue, Sampling


class Echo(Dialogue):
    """A dialogue whose model repeats the message, and the seed."""

    def answer(self, text: str, show: Callable[[str], None]) -> None:
        answer = f"{self.sampling.seed} {text}"
        self.messages += [{"role": "user", "content": text}, {"role": "assistant", "content": answer}]
        show(answer)


@pytest.fixture
def said() -> list[str]:
    return []


@pytest.fixture
def commands(said: list[str]) -> Commands:
    dialogue = Echo("model", "tokenizer", Sampling(seed=1), name="first")
    return Commands(dialogue, said.append, said.append, lambda name: (f"model {name}", "words", f"folder of {name}"))


def test_what_begins_with_no_slash_or_two_is_said(commands: Commands) -> None:
    assert commands.take("Hello /reset") == "Hello /reset"
    assert commands.take("//etc/passwd") == "/etc/passwd"
    for text in ("/", "/nothing", "/take x", "/_last", "/__init__", "/say", "/etc/passwd is a file"):
        with pytest.raises(UserError, match="/help"):
            commands.take(text)


def test_help_names_every_command(commands: Commands, said: list[str]) -> None:
    assert commands.take("/help") is None
    names = [line.split()[0] for line in said]
    assert names == sorted(names)
    assert {"/system", "/reset", "/save", "/load", "/model", "/set", "/again", "/undo", "/show", "/exit"} < set(names)


def test_the_dialogue_is_reset_and_taken_back_and_answered_again(commands: Commands, said: list[str]) -> None:
    dialogue = commands.dialogue
    with pytest.raises(UserError, match="nothing was said"):
        commands.take("/undo")
    commands.take("/system be brief")
    commands.take("/system be very brief")
    dialogue.answer("one", said.append)
    dialogue.answer("two", said.append)
    commands.take("/again")
    assert [one["content"] for one in dialogue.messages] == ["be very brief", "one", "1 one", "two", "2 two"]
    commands.take("/undo")
    assert [one["content"] for one in dialogue.messages] == ["be very brief", "one", "1 one"]
    commands.take("/reset")
    assert dialogue.messages == [{"role": "system", "content": "be very brief"}]
    commands.take("/system none")
    assert dialogue.messages == []


def test_sampling_and_model_change_on_the_way(commands: Commands, said: list[str]) -> None:
    dialogue = commands.dialogue
    commands.take("/set temperature 0")
    commands.take("/set max-tokens=7")
    commands.take("/set seed none")
    assert dialogue.sampling == Sampling(temperature=0, max_tokens=7, seed=None)
    for wrong in ("/set temperature hot", "/set heat 1", "/set top_p 2", "/set temperature nan", "/set max_tokens"):
        with pytest.raises(UserError):
            commands.take(wrong)
    assert dialogue.sampling == Sampling(temperature=0, max_tokens=7, seed=None)
    commands.take("/model")
    commands.take("/model sft")
    assert said[-2:] == ["first", "folder of sft"]
    assert (dialogue.model, dialogue.tokenizer) == ("model sft", "words")


def test_a_dialogue_is_saved_once_and_loaded(commands: Commands, said: list[str], tmp_path: Path) -> None:
    file = tmp_path / "a dialogue.json"
    commands.dialogue.answer("你好 \ud800", said.append)
    before = list(commands.dialogue.messages)
    commands.take(f"/save {file}")
    assert json.loads(file.read_text())["checkpoint"] == "first"
    with pytest.raises(UserError, match="there already"):
        commands.take(f"/save '{file}'")
    commands.take("/reset")
    commands.take(f"/load {file}")
    assert commands.dialogue.messages == before
    bad = {"list": "[]", "deep": "[" * 100_000, "role": '{"messages": [{"role": "x", "content": ""}]}'}
    for name, content in bad.items():
        (tmp_path / name).write_text(content)
    for name in ("none", *bad):
        with pytest.raises(UserError):
            commands.take(f"/load {tmp_path / name}")
    assert commands.dialogue.messages == before
    for text in ("/save", "/load"):
        with pytest.raises(UserError, match="file is wanted"):
            commands.take(text)


def test_the_chat_ends_on_command(commands: Commands) -> None:
    with pytest.raises(EndChat):
        commands.take("/exit")


def test_what_was_typed_is_kept_for_its_owner_alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    path: Any = _history()
    assert path.stat().st_mode & 0o077 == 0
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "file"))
    assert _history() is None
