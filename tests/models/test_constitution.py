"""Constitutional feedback: revisions by principles, judgements both ways, and what is left out."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from datalake.errors import UserError
from models.serving.endpoint import Reply
from models.synthesis.config import FeedbackConfig
from models.synthesis.constitution import PRINCIPLES, Constitution, Judged, Prompt, feedback

ENDPOINT = {"endpoint": {"url": "http://host/v1", "model": "m"}}
PROMPTS = [
    Prompt("01", "g1", [{"role": "user", "content": "How do I open a {jar}?"}], "en"),
    Prompt("02", "g2", [{"role": "user", "content": "怎样打开罐子？"}], "zh"),
]


class Scripted:
    name = "scripted"

    def __init__(self, *replies: str | Reply, chosen: Sequence[float | None] = ()):
        self.replies, self.chosen = list(replies), list(chosen)
        self.asked: list[Any] = []

    def __call__(self, dialogues: Sequence[Any], seeds: Sequence[int]) -> list[Reply]:
        self.asked += map(list, dialogues)
        found = [self.replies.pop(0) for _ in dialogues]
        return [one if isinstance(one, Reply) else Reply(one) for one in found]

    def choose(self, dialogues: Sequence[Any], seeds: Sequence[int]) -> list[float | None]:
        self.asked += map(list, dialogues)
        return [self.chosen.pop(0) for _ in dialogues]

    def usage(self) -> dict[str, int]:
        return {}


def run(write: Scripted, judge: Scripted | None = None, prompts: Sequence[Prompt] = PROMPTS[:1], **more: Any) -> Judged:
    config = FeedbackConfig.model_validate({"writer": ENDPOINT, "judge": ENDPOINT if judge else None, **more})
    constitution = Constitution.read(PRINCIPLES, config.kinds)
    return feedback(config, constitution, write, judge, prompts)  # type: ignore[arg-type]


def test_a_revision_is_preferred_to_the_answer_that_was_criticised() -> None:
    write = Scripted("Twist it.", "Too short.", " Hold it warm, then twist. ")
    found = run(write, kinds=["helpful"])
    (pair,) = found.kept
    assert (pair.chosen, pair.rejected, pair.prompt) == ("Hold it warm, then twist.", "Twist it.", PROMPTS[0].messages)
    first, critique, revision = write.asked
    assert first == PROMPTS[0].messages
    assert [turn["role"] for turn in critique] == ["user", "assistant", "user"]
    assert [turn["content"] for turn in revision[1:4:2]] == ["Twist it.", "Too short."]
    about = pair.attributes
    assert (about["group"], about["conversation"], about["kind"], about["critique"]) == (
        "g1",
        "01",
        "helpful",
        "Too short.",
    )
    assert about["principle"] == about["principles"]
    assert "judge" not in about


def test_each_revision_has_a_principle_of_its_own_draw_and_goes_on_from_the_last() -> None:
    write = Scripted("one", "c1", "two", "c2", "three")
    found = run(write, revisions=2)
    assert (found.kept[0].chosen, found.kept[0].rejected) == ("three", "one")
    assert write.asked[3][1]["content"] == "two"
    assert len(found.kept[0].attributes["principles"].split()) == 2


@pytest.mark.parametrize(
    ("chosen", "expected"),
    [
        ([0.9, 0.2], ("first", "second")),
        ([0.3, 0.8], ("second", "first")),
        ([0.9, 0.8], "inconsistent"),
        ([0.1, 0.2], "inconsistent"),
        ([0.5, 0.2], "inconsistent"),
        ([None, 0.2], "no_verdict"),
    ],
)
def test_only_what_a_judge_says_both_ways_is_believed(chosen: list[float | None], expected: Any) -> None:
    judge = Scripted(chosen=chosen)
    found = run(Scripted("first", "second"), judge, answers=["sampled"])
    straight, turned = (one[0]["content"] for one in judge.asked)
    assert straight.index("first") < straight.index("second")
    assert turned.index("second") < turned.index("first")
    assert "How do I open a {jar}?" in straight
    if isinstance(expected, tuple):
        assert (found.kept[0].chosen, found.kept[0].rejected) == expected
        assert found.kept[0].attributes["judge"] == "scripted"
        assert found.kept[0].attributes["question"] in straight
    else:
        assert [one.reason for one in found.unused] == [expected]
        assert [turn["content"] for turn in found.unused[0].messages[1:]] == ["first", "second"]


def test_the_bias_of_a_position_is_measured() -> None:
    prompts = [PROMPTS[0]._replace(name=f"{n:02}") for n in range(4)]
    judge = Scripted(chosen=[0.9, 0.9, 0.9, 0.8, 0.9, 0.1, 0.2, 0.9])
    write = Scripted(*["first"] * 4, *[f"critique {n}" for n in range(4)], *[f"revised {n}" for n in range(4)])
    found = run(write, judge, prompts)
    assert found.figures == {"first_position": 0.75, "consistent": 0.5, "revision_preferred": 0.5}
    assert len(found.kept) == len(found.unused) == 2


@pytest.mark.parametrize(
    ("replies", "reason"),
    [
        ([Reply("", False, "filtered: no")], "filtered"),
        ([Reply("cut", False)], "truncated"),
        (["first", Reply("", False, "empty: nothing")], "empty"),
        (["first", "critique", Reply("cut", False)], "truncated"),
        (["first", "critique", " first\n"], "equal"),
    ],
)
def test_answers_that_are_none_are_left_out_for_a_reason(replies: list[Any], reason: str) -> None:
    found = run(Scripted(*replies))
    assert [one.reason for one in found.unused] == [reason]
    assert found.kept == []


def test_prompts_are_criticised_in_their_language_by_principles_that_there_are(tmp_path: Path) -> None:
    write = Scripted("a", "b", "ca", "cb", "ra", "rb")
    run(write, prompts=PROMPTS)
    assert "批评" in write.asked[3][-1]["content"]
    with pytest.raises(UserError, match="no principle is 'brave': there are harmless, helpful, honest"):
        run(Scripted(), kinds=["brave"])
    own = tmp_path / "own.yaml"
    own.write_text("templates: {}\nprinciples: [{name: x}]\n")
    with pytest.raises(UserError, match=r"principles\.0\.kind: Field required"):
        Constitution.read(own)
