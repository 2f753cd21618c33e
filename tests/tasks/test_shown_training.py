"""What a stage that trains shows while it does: progress, findings once each, its figures, answers as a table."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from models.training.figures import BEGINNING, FIGURES, bars, lines, marked, table
from models.training.metrics import SAMPLES, read_metrics
from tasks import learning
from tasks.shown import figures
from tasks.shown.curves import curves
from tasks.shown.training import Training, chosen, of_record, sample_rows, samples_markdown


def write(path: Path, rows: list[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")


def test_progress_tells_the_last_step_by_what_there_is(tmp_path: Path) -> None:
    shown = Training("ppo", tmp_path)
    assert shown.progress() == (0, "")
    (tmp_path / BEGINNING).write_text("the model before its first step: 3 of 8 passes over answers")
    assert shown.progress() == (0, "the model before its first step: 3 of 8 passes over answers")
    rows = [{"step": 1, "loss": 2.0, "mfu": None}, {"step": 2, "loss": 1.5, "heldout_loss": 1.75}]
    write(tmp_path / "metrics.jsonl", rows)
    assert shown.progress() == (2, "loss 1.500")
    rows.append(
        {"step": 3, "loss": 1.0, "kl_per_token": 0.0125, "score": 0.5} | {f"reward_{k}": 0.0 for k in range(30)}
    )
    write(tmp_path / "metrics.jsonl", rows)
    assert shown.progress() == (3, "score 0.500, kl per token 0.013")


def test_a_finding_is_said_once_while_the_stage_trains(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Training, "EVERY_S", 0.0)
    shown = Training("ppo", tmp_path)
    rows = [{"step": step, "clip_fraction": 0.5, "score": 0.1} for step in range(1, 11)]
    for number in (9, 10, 10):
        write(tmp_path / "metrics.jsonl", rows[:number])
        shown.look()
    shown.look(ended=True)
    said = capsys.readouterr().err
    assert said.count("the clip share is high (0.50 over steps 1-10): lower the learning rate") == 1


def test_figures_known_before_the_first_step_are_shown_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shown = Training("sft", tmp_path)
    shown.look()
    (tmp_path / FIGURES).write_text(json.dumps([marked("what trains", [[("user: hi ", False), ("yes", True)]])]))
    shown.look()
    shown.look(ended=True)
    said = capsys.readouterr().err
    assert said.count("what trains") == 1
    assert said.count("user: hi ⟦yes⟧") == 1


ALL = [
    lines("calibration", {"said": ([0.0, 1.0], [0.25, 0.75], [0.0, 0.5], [0.5, 1.0])}, "said", "true"),
    bars("by source", ["a", "zh"], [0.5, 0.75], [0.25, 0.5], [0.75, 1.0], chance=0.5),
    table("rows", ["name", "n"], [["x|y\n<b>", 1], ["z", None]], note="read them"),
    marked("what trains", [[("a ", False), ("b", True)]]),
]


@pytest.mark.parametrize("figure", ALL, ids=lambda figure: figure["kind"])
def test_every_kind_of_figure_is_plain_and_is_shown_everywhere(figure: dict[str, Any]) -> None:
    assert json.loads(json.dumps(figure)) == figure
    page, told = figures.markdown(figure), figures.text(figure)
    assert page.startswith(f"### {figure['title']}\n\n")
    assert told[0] == ": ".join(filter(None, (figure["title"], figure["note"])))
    assert len(told) > 1
    drawn = figures.picture(figure)
    assert (drawn is None) == (figure["kind"] in ("table", "marked"))
    assert drawn is None or drawn == figures.picture(figure), "the same bytes for the same values"


def test_a_line_of_few_points_is_told_whole_and_of_many_by_its_ends() -> None:
    few, many = range(3), range(99)
    figure = lines("t", {"few": (few, few), "many": (many, many), "none": ((), ())}, "x", "y")
    assert figures.text(figure) == ["t", "  few: 0 → 0, 1 → 1, 2 → 2", "  many: 0 → 0 ... 98 → 98"]


def test_intervals_and_chance_are_drawn() -> None:
    points, ends = ([0, 1], [0.5, 0.5]), ([0.1, 0.1], [0.6, 0.6])
    for plain, more in (
        (lines("t", {"a": points}, "x", "y"), lines("t", {"a": (*points, *ends)}, "x", "y")),
        (bars("t", ["a"], [0.5]), bars("t", ["a"], [0.5], chance=0.25)),
    ):
        assert str(figures.picture(more)).count("<path") > str(figures.picture(plain)).count("<path")


def test_a_cell_is_never_markup() -> None:
    page = figures.markdown(ALL[2])
    assert "| x&#124;y<br>&#60;b&#62; | 1 |" in page
    assert "read them" in page
    assert figures.text(ALL[1])[1:] == ["  a        0.5  (0.25 to 0.75)", "  zh      0.75  (0.5 to 1)"]


def test_marked_texts_are_pictures_in_colour_whatever_they_hold() -> None:
    odd = "⏎\n<b>&amp; ** | 水 \x1b[2J\x00\u202e\ufffe"
    page = figures.markdown(marked("what trains", [[(odd, False), (odd + "yes", True)]] * 2, note="2 of 4"))
    title, note, image = page.split("\n\n")
    assert (title, note) == ("### what trains", "2 of 4")
    svg = base64.b64decode(image.partition("base64,")[2].removesuffix(")")).decode()
    drawn = ElementTree.fromstring(svg)
    shown = (
        odd.replace("\x1b", "\\x1b").replace("\x00", "\\x00").replace("\u202e", "\\u202e").replace("\ufffe", "\ufffd")
    )
    assert [one.text for one in drawn.iter("{http://www.w3.org/1999/xhtml}b")] == [shown + "yes"] * 2
    assert int(drawn.attrib["height"]) == 2 * 19 * 4  # three lines and a gap each


def test_marked_texts_have_colours_or_brackets() -> None:
    pieces = [("user: ", False), ("yes\x1b", True)]
    assert figures.bracketed(pieces) == "user: ⟦yes\x1b⟧"
    assert [(span.start, span.end, span.style) for span in figures.coloured(pieces).spans] == [
        (0, 6, "dim"),
        (6, 13, "black on green"),
    ]


WROTE = [
    {
        "step": step,
        "prompt": "q\u2028|",
        "answer": "ja\n",
        "tokens": 2,
        "ended": True,
        "figures": {"score": 0.5, "kl": None},
    }
    for step in (1, 5, 10, 15, 20)
    for _ in range(2)
]


def test_answers_are_read_whatever_ends_of_line_they_hold(tmp_path: Path) -> None:
    write(tmp_path / SAMPLES, WROTE)
    assert read_metrics(tmp_path / SAMPLES) == WROTE
    rows = sample_rows(tmp_path)
    assert rows[0]["figures"] == [("kl", None), ("score", 0.5)]
    assert {row["step"] for row in chosen(rows)} == {1, 5, 15, 20}
    page = samples_markdown(rows)
    assert "| step | prompt | answer | kl | score | tokens | ended |" in page
    assert page.count("\n| 20 | q<br>&#124; | ja |  | 0.5 | 2 | yes |") == 2
    assert sample_rows(tmp_path / "nowhere") == []


def test_a_stage_has_the_pages_that_it_has_something_for() -> None:
    assert of_record({}, []) == {}
    found = {"what": "all is lost", "advice": "stop"}
    pages = of_record({"findings": [found], "figures": ALL}, [WROTE[0] | {"figures": [("score", 0.5)]}])
    assert pages["findings"]() == "- all is lost: stop"
    assert pages["figures"]().count("### ") == 4
    assert "What it wrote" in pages["samples"]()


def test_parts_of_a_reward_are_drawn_together_and_nothing_twice() -> None:
    names = ("score", "reward", "reward_a", "reward_b", "heldout_other_x", "reward_chosen", "unknown")
    drawn = curves([{"step": 1, "name": name, "value": 1.0} for name in names])
    assert [one.names for one in drawn] == [
        ("score",),
        ("reward_chosen",),
        ("reward", "reward_a", "reward_b"),
        ("heldout_other_x",),
    ]


def test_a_run_that_stopped_says_so_in_one_line() -> None:
    stopped = {"step": 46, "good": 30, "rule": "kl", "why": "KL runs away (2 nats): raise kl_coefficient"}
    assert learning.ended_early({}, 200) == ""
    assert learning.ended_early({"stopped": stopped}, 200) == (
        "stopped at step 46 of 200 (stop_when kl): KL runs away (2 nats): raise kl_coefficient;"
        " the model is that of step 30"
    )
    assert "the model" not in learning.ended_early({"stopped": stopped | {"good": 46}}, 200)


def test_tokens_that_a_base_never_learned_are_named_in_one_line() -> None:
    assert learning.learned({}) == ""
    assert learning.learned({"learned_tokens": ["<|user|>", "<|end|>"]}) == (
        "the base never learned <|user|>, <|end|>: their rows are trained beside the adapters"
    )
