"""Self-instruct: what is asked, what is refused and why, and that rounds are a function of what was answered."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from datalake.errors import UserError
from models.serving.endpoint import Reply
from models.synthesis.config import InstructConfig
from models.synthesis.instructions import Instructed, Task, instruct, numbered

SEEDS = [
    Task("01", "Name three colours of the rainbow.", "Red, green, blue.", "en"),
    Task("02", "Explain why the sky looks blue.", "Light is scattered by the air, blue light most of all.", "en"),
    Task("03", "为什么天空看起来是蓝色的？", "因为空气散射蓝光最多。", "zh"),
]
GIVEN = [Task("aa", "How do I bake a loaf of bread at home?", "Mix flour, water, salt and yeast; wait; bake.", "en")]


class Scripted:
    """A writer that answers requests for tasks with what a test says, and everything else with an answer of its own."""

    name = "scripted"

    def __init__(self, *lists: str | Reply, answers: dict[str, str | Reply] | None = None):
        self.lists, self.answers = list(lists), answers or {}
        self.asked: list[str] = []

    def __call__(self, dialogues: Sequence[Any], seeds: Sequence[int]) -> list[Reply]:
        return [self._one(dialogue[-1]["content"]) for dialogue in dialogues]

    def _one(self, text: str) -> Reply:
        self.asked.append(text)
        if text.startswith(("You invent", "你来为", "A list of")):
            said: str | Reply = self.lists.pop(0) if self.lists else "1. Nothing"
        else:
            said = self.answers.get(text, f"Here you are: {text[::-1]}")
        return said if isinstance(said, Reply) else Reply(said)

    def usage(self) -> dict[str, int]:
        return {}


def settings(**more: Any) -> InstructConfig:
    writer = {"endpoint": {"url": "http://host/v1", "model": "m"}, **more.pop("writer", {})}
    return InstructConfig.model_validate({"writer": writer, "requests": 1, "rounds": 1, "examples": 2, **more})


def run(write: Scripted, seeds: Sequence[Task] = SEEDS, **more: Any) -> Instructed:
    return instruct(settings(**more), write, seeds, GIVEN)  # type: ignore[arg-type]


def reasons(found: Instructed) -> list[tuple[str, str]]:
    return [(one.reason, one.messages[0]["content"]) for one in found.unused]


def test_what_passes_is_a_dialogue_that_tells_where_it_comes_from() -> None:
    write = Scripted("3. Describe a winter morning.\n4. Translate 'good night' into French.")
    found = run(write, instructions=2)
    assert [one.messages[0]["content"] for one in found.kept] == [
        "Describe a winter morning.",
        "Translate 'good night' into French.",
    ]
    row = found.kept[0]
    assert row.messages[1] == {"role": "assistant", "content": f"Here you are: {'Describe a winter morning.'[::-1]}"}
    assert (row.source, row.language, row.attributes["writer"], row.attributes["round"]) == (
        "instruct", "en", "scripted", "1",
    )  # fmt: skip
    shown = row.attributes["seeds"].split()
    assert sorted(shown) == ["01", "02"]
    known = {one.name: one for one in SEEDS}
    assert all(f"{n}. {known[name].question}" in write.asked[0] for n, name in enumerate(shown, 1))
    assert found.unused == []
    assert found.note == ""


@pytest.mark.parametrize(
    ("instruction", "reason"),
    [
        ("Sing!", "short"),
        ("Write " + "a very " * 80 + "long poem.", "long"),
        ("- , what is this about today", "punctuation"),
        ("Describe the picture above in one line.", "keyword"),
        ("Summarise the attached file.", "keyword"),
        ("Schreibe bitte einen kurzen Aufsatz über deine letzte Reise nach Hamburg.", "language"),
        ("Name three colours of the rainbow, please.", "similar"),
        ("How do I bake a loaf of bread at home, please?", "near"),
    ],
)
def test_an_instruction_is_refused_for_a_reason(instruction: str, reason: str) -> None:
    found = run(Scripted(f"3. {instruction}"))
    assert reasons(found) == [(reason, instruction.strip())]
    assert found.kept == []


def test_words_inside_others_are_no_keywords() -> None:
    assert len(run(Scripted("3. Explain what a profile of a company is.\n4. Say who was Mapuche.")).kept) == 2


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (Reply("", False, "empty: no content"), "empty"),
        (Reply("", False, "filtered: content_filter"), "filtered"),
        (Reply("", False, "refused: 400: too long"), "refused"),
        (Reply("It was a cold", False), "truncated"),
        ("I’m sorry, but I can’t help with that.", "declined"),
        ("Describe a winter morning!", "echo"),
    ],
)
def test_an_answer_is_refused_for_a_reason(answer: str | Reply, reason: str) -> None:
    found = run(Scripted("3. Describe a winter morning.", answers={"Describe a winter morning.": answer}))
    assert reasons(found) == [(reason, "Describe a winter morning.")]


def test_a_dialogue_that_is_nearly_another_is_refused_with_the_name_of_that_one() -> None:
    long = "Rain falls on the hills, runs down in brooks, gathers in rivers and flows at last into the wide open sea."
    write = Scripted(
        "3. Where does rain water go?\n4. Tell the way of a drop.",
        answers={"Where does rain water go?": long, "Tell the way of a drop.": long},
    )
    found = run(write, jaccard=0.5)
    assert len(found.kept) == 1
    assert [(one.reason, one.detail.split()[0]) for one in found.unused] == [("near", found.kept[0].id.hex())]


def test_replies_without_a_list_and_lists_that_are_cut_are_refused() -> None:
    whole = "3. Describe a winter morning.\n4. Translate 'good ni"
    found = run(Scripted("I can't do that.", Reply(whole, False), Reply("", False, "empty: x")), requests=3)
    assert [one.reason for one in found.unused] == ["format", "cut", "empty"]
    assert len(found.kept) == 1


def test_languages_take_turns_with_seeds_of_their_own() -> None:
    write = Scripted("3. Describe a winter morning.", "2. 请介绍一种常见的水果。\n3. 请描述这张图片。")
    found = run(write, requests=2, languages=["en", "zh"])
    assert [one.language for one in found.kept] == ["en", "zh"]
    assert "天空" in write.asked[1]
    assert "rainbow" not in write.asked[1]
    assert [one.reason for one in found.unused] == ["keyword"]
    with pytest.raises(UserError, match="no seed task in 'zh'"):
        run(Scripted(), seeds=SEEDS[:2], languages=["zh"])


def test_rounds_show_what_was_written_and_end_where_nothing_comes() -> None:
    write = Scripted("3. Describe a winter morning.")
    found = run(write, rounds=50, instructions=50)
    assert [row["kept"] for row in found.rounds] == [1, 0, 0, 0]
    assert "ended after 3 rounds that gave nothing" in found.note
    assert any("Describe a winter morning." in asked for asked in write.asked if asked.startswith("You invent"))
    assert sum(row["refused"] for row in found.rounds) == len(found.unused) == 3
    assert len({one.id for one in found.unused}) == 3


def test_a_model_that_is_not_tuned_goes_on_with_the_list_and_with_the_task() -> None:
    write = Scripted(" Describe a winter morning.\n4. List two birds and their songs.")
    found = run(write, writer={"format": "text"}, instructions=2)
    assert write.asked[0].startswith("A list of tasks")
    assert write.asked[0].endswith("\n3.")
    assert write.asked[1].endswith("Task: Describe a winter morning.\nAnswer:")
    assert len(found.kept) == 2
    more = Scripted(" Describe a winter morning.", answers={})
    more._one = lambda text: (
        Reply(" Describe a winter morning.")
        if text.startswith("A list")
        else Reply(  # type: ignore[method-assign]
            " Snow lies on the roofs.\n\nTask: another\nAnswer: no", False
        )
    )
    assert run(more, writer={"format": "text"}).kept[0].messages[1]["content"] == "Snow lies on the roofs."


@pytest.mark.parametrize(
    ("text", "items"),
    [
        ("Sure! Here:\n\n9. One\n10) Two\nlines\n", ["One", "Two\nlines"]),
        ("1. **Bold**\n**2.** Two", ["Bold", "Two"]),
        ("Task 3: Three\n任务4：四\n5、五", ["Three", "四", "五"]),
        ("- a\n* b\n• c", ["a", "b", "c"]),
        ("1.\n2. Two", ["Two"]),
        ("no list", []),
        ("", []),
    ],
)
def test_the_items_of_a_list(text: str, items: list[str]) -> None:
    assert numbered(text) == items
