"""What the command line prints: whole in a pipe, cut to the width of a terminal, and nothing a terminal acts on."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Callable
from typing import Any

import pytest

from flows.output import Console, Json, command, note

NASTY = "\x1b]0;owned\x07\x1b[2J \x9b31m \u202egnp.exe [/red] [bold]"


class Screen(io.StringIO):
    """A terminal of 60 columns."""

    encoding = "utf-8"

    def isatty(self) -> bool:
        return True


@pytest.fixture
def terminal(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Callable[[], Screen]:
    """Puts a terminal in the place of stdout: to be called in a test, where pytest has set up its own."""

    def put() -> Screen:
        screen = Screen()
        monkeypatch.setattr(sys, "stdout", screen)
        return screen

    monkeypatch.setenv("COLUMNS", "60")
    monkeypatch.setenv("TERM", "dumb")
    return put


def harmless(text: str) -> bool:
    return not any((char < " " and char not in "\n\t") or "\x7f" <= char <= "\x9f" or char == "\u202e" for char in text)


def test_long_values_are_cut_to_the_terminal_and_it_is_said_how_to_see_them(
    terminal: Callable[[], Screen], capsys: pytest.CaptureFixture[str]
) -> None:
    screen = terminal()
    rows = [["http://a.example/", "many words and\nlines " * 1000], ["b", "水" * 500]]
    Console().table(["uri", "text"], rows, full=False)
    shown = screen.getvalue()
    assert len(shown.splitlines()) == 3
    assert shown.count("…") == 2
    from rich.cells import cell_len

    assert max(map(cell_len, shown.splitlines())) <= 60
    err = capsys.readouterr().err
    assert "--full" in err
    assert "--json" in err


def test_asked_for_in_full_a_value_is_whole(terminal: Callable[[], Screen], capsys: pytest.CaptureFixture[str]) -> None:
    screen = terminal()
    Console().table(["text"], [["word " * 100]], full=True)
    assert screen.getvalue().count("word") == 100
    assert capsys.readouterr().err == ""


def test_what_fits_is_shown_as_it_is(terminal: Callable[[], Screen], capsys: pytest.CaptureFixture[str]) -> None:
    screen = terminal()
    Console().table(["verdict", "number"], [["kept", 3], ["rejected", 1]], full=False)
    assert [text.split() for text in screen.getvalue().splitlines()] == [
        ["verdict", "number"],
        ["kept", "3"],
        ["rejected", "1"],
    ]
    assert capsys.readouterr().err == ""


def test_more_columns_than_a_line_has_room_for_are_lines_of_name_and_value(terminal: Callable[[], Screen]) -> None:
    screen = terminal()
    columns = [f"column{n}" for n in range(40)]
    Console().table(columns, [list(range(40)), ["x" * 500] * 40], full=False)
    shown = screen.getvalue().splitlines()
    assert len(shown) == 81
    assert shown[3].split() == ["column3", "3"]
    assert max(map(len, shown)) <= 60


def test_a_pipe_gets_every_value_whole(capsys: pytest.CaptureFixture[str]) -> None:
    Console().table(["text"], [["word " * 1000 + "\n\tend"]], full=False)
    out, err = capsys.readouterr()
    assert out.count("word") == 1000
    assert len(out.splitlines()) == 2
    assert err == ""


@pytest.mark.parametrize("full", [False, True])
def test_no_value_and_no_name_moves_a_terminal(terminal: Callable[[], Screen], full: bool) -> None:
    screen = terminal()
    Console().table([NASTY, "b"], [[NASTY, 1]], full=full)
    Console().table([NASTY] * 20, [[NASTY] * 20], full=full)
    Console().line(NASTY)
    assert harmless(screen.getvalue())
    assert r"\x1b]0;owned" in screen.getvalue()
    assert "[/red] [bold]" in screen.getvalue()  # no markup either


def test_nor_does_a_pipe_pass_it_on(capsys: pytest.CaptureFixture[str]) -> None:
    Console().table([NASTY], [[NASTY]], full=False)
    note(NASTY)
    Json().answer({NASTY: [NASTY]})
    out, err = capsys.readouterr()
    assert harmless(out)
    assert harmless(err)
    assert json.loads(out.splitlines()[-1]) == {NASTY: [NASTY]}


def test_a_terminal_of_few_characters_and_a_closed_one_are_no_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    narrow = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    monkeypatch.setattr(sys, "stdout", narrow)
    Console().table(["a"], [["café 水"]])
    Json().answer({"a": "café 水"})
    narrow.seek(0)
    table, told = narrow.read().splitlines()[1:]
    assert table == r"caf\xe9 \u6c34"
    assert json.loads(told) == {"a": "café 水"}
    closed: Any = None
    monkeypatch.setattr(sys, "stdout", closed)
    monkeypatch.setattr(sys, "stderr", closed)
    Console().table(["a"], [[1]])
    Json().answer(1)
    Console().line("a")
    note("a")


def test_an_answer_is_drawn_for_people_and_is_json_for_programs(capsys: pytest.CaptureFixture[str]) -> None:
    told = {"id": b"\x01\xff", "kept": 3}

    def use(output: Console | Json) -> tuple[str, str]:
        output.say("at work")
        output.stream("a part ")
        output.answer(told, lambda console, answer: console.line(f"{answer['kept']} kept"))
        return tuple(capsys.readouterr())

    assert use(Console()) == ("at work\na part 3 kept\n", "")
    assert use(Json()) == ('{"id": "01ff", "kept": 3}\n', "at work\n")


def test_a_command_can_be_copied_into_a_shell() -> None:
    from pathlib import Path

    assert command("report", "last", lake=Path("/a lake")) == "headwater report last --lake '/a lake'"
