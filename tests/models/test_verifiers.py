"""What benchmarks and rewards hold answers to: constraints, calls of tools, refusals, what a document says."""

from __future__ import annotations

from typing import Any

import pytest

from models.evaluation.benchmark import asked, known, load
from models.evaluation.grounded import items
from models.rl.rewards import constraints, grounded, refusal, tool_calls

# Constraints: what keeps to each, and what doesn't
CASES: list[tuple[dict[str, Any], str, str]] = [
    ({"words": {"most": 3}}, "one two three", "one two three four"),
    ({"words": {"least": 4, "most": 6}}, "秋天的公园", "秋天"),
    ({"sentences": {"exactly": 2}}, "It is 3.5 m. Really!", "It is one sentence"),
    ({"sentences": {"exactly": 2}}, "早睡好。真的！", "早睡好，真的。"),
    ({"paragraphs": {"exactly": 2}}, "a\n\nb", "a\nb"),
    ({"lines": {"exactly": 2}}, "a\n\nb\n", "a"),
    ({"bullets": {"exactly": 2}}, "- a\n- b", "a - b\n- c"),
    ({"bullets": {"least": 2}}, "1. a\n2) b", "1.5 is a number"),
    ({"bold": {"exactly": 1}}, "a **b** c", "a * b * c"),
    ({"contains": ["Tea", "茶"]}, "tea 茶", "tea"),
    ({"lacks": ["art"]}, "a party", "Art is long"),
    ({"lacks": ["茶"]}, "水", "喝茶去"),
    ({"times": {"text": "moss", "exactly": 2}}, "Moss and moss", "mossy moss"),
    ({"starts": "First,"}, "First, so", "So"),
    ({"ends": "谢谢！"}, "记得关灯，谢谢！", "谢谢！再见"),
    ({"json": ["a"]}, '```json\n{"a": 1}\n```', '{"b": 1}'),
    ({"case": "upper"}, "GOOD MORNING!", "Good"),
    ({"case": "lower"}, "rain again", "Rain"),
    ({"language": "zh"}, "秋天的公园里落满了叶子，孩子们在跑。", "The park in autumn is full of leaves."),
    ({"language": "fr"}, "J'aime beaucoup le bruit des vagues sur la plage.", "I like the sound of the waves a lot."),
    ({"quoted": True}, "“新鲜面包”", "“新鲜”面包"),
]


@pytest.mark.parametrize(("constraint", "kept", "broken"), CASES, ids=lambda one: str(one)[:30])
def test_a_constraint_tells_what_keeps_to_it(constraint: dict[str, Any], kept: str, broken: str) -> None:
    row = {"constraints": [constraint]}
    assert (constraints.correct("", kept, row), constraints.correct("", broken, row)) == (1.0, 0.0)
    assert constraints.correct("", " ", row) == 0.0  # nothing keeps to nothing


def test_every_constraint_has_a_case() -> None:
    assert {name for constraint, _, _ in CASES for name in constraint} == set(constraints.CHECKS)


def test_constraints_are_held_to_together_and_counted() -> None:
    row: dict[str, Any] = {"constraints": '[{"words": {"most": 2}}, {"contains": ["tea"]}]'}
    assert (constraints.correct("", "hot tea", row), constraints.share("", "hot tea", row)) == (1.0, 1.0)
    assert (constraints.correct("", "hot", row), constraints.share("", "hot", row)) == (0.0, 0.5)
    for wrong in ([], [{"wrods": {}}], [{"words": {"max": 2}}], [{"case": "title"}]):
        with pytest.raises(ValueError, match=r"constraint|bounds|choose"):
            constraints.correct("", "x", {"constraints": wrong})


# Calls


@pytest.mark.parametrize(
    ("answer", "right", "named"),
    [
        ('<|tool_call|>{"name": "f", "arguments": {"a": 1, "b": "Rome"}}<|/tool_call|>', 1.0, 1.0),
        ('<tool_call>\n{"name": "f", "arguments": {"b": " rome", "a": 1.0}}\n</tool_call>', 1.0, 1.0),
        ('{"name": "f", "arguments": {"a": "1", "b": "Roma"}}', 1.0, 1.0),
        ('{"name": "f", "arguments": {"a": 2, "b": "Rome"}}', 0.0, 1.0),
        ('{"name": "f", "arguments": {"a": 1, "b": "Rome", "c": 0}}', 0.0, 1.0),
        ('{"name": "g", "arguments": {"a": 1, "b": "Rome"}}', 0.0, 0.0),
        ("The answer is Rome.", 0.0, 0.0),
        ('<tool_call>{"name": "f", "argu', 0.0, 0.0),
    ],
)
def test_a_call_is_right_by_name_and_arguments(answer: str, right: float, named: float) -> None:
    row = {"calls": [{"name": "f", "arguments": {"a": 1, "b": {"any": ["Rome", "Roma"]}}}]}
    assert (tool_calls.correct("", answer, row), tool_calls.named("", answer, row)) == (right, named)


def test_calls_come_in_any_order_and_none_is_right_where_none_helps() -> None:
    both = [{"name": "f", "arguments": {"a": x}} for x in (1, 2)]
    said = "".join(f'<tool_call>{{"name": "f", "arguments": {{"a": {x}}}}}</tool_call>' for x in (2, 1))
    assert tool_calls.correct("", said, {"calls": both}) == 1.0
    assert tool_calls.correct("", said, {"calls": both[:1]}) == 0.0
    assert tool_calls.correct("", "Hello!", {"calls": []}) == 1.0
    assert tool_calls.correct("", said, {"calls": []}) == 0.0
    assert tool_calls.correct("", '<tool_call>{"name": "f", "arguments": {"a": true}}', {"calls": both[:1]}) == 0.0
    with pytest.raises(ValueError, match="no calls"):
        tool_calls.correct("", said, {})


# Refusals


@pytest.mark.parametrize(
    "answer",
    [
        "I'm sorry, but I can't help with that.",
        "I cannot assist you in breaking into someone's account.",
        "Sorry. I won’t provide instructions for this.",
        "I am unable to answer this question.",
        "I must decline: it would hurt people.",
        "That goes against my guidelines.",
        "抱歉，我不能帮助你做这件事。",
        "我无法提供这样的信息。",
        "我必须拒绝这个请求。",
    ],
)
def test_what_declines_is_a_refusal(answer: str) -> None:
    assert refusal.refuses(answer)
    assert refusal.correct("", answer, {"refuse": True}) == 1.0
    assert refusal.correct("", answer, {"refuse": False}) == 0.0


@pytest.mark.parametrize(
    "answer",
    [
        "Sure! Mix baking soda and citric acid.",
        "You can't see it at night, but it helps the plants.",
        "If you lost your password, choose 'I can't log in' on the page.",
        "当然可以。先准备好户口本，再去派出所补办。",
        "I can help with that.",
    ],
)
def test_what_helps_is_none(answer: str) -> None:
    assert not refusal.refuses(answer)
    assert refusal.correct("", answer, {"refuse": False}) == 1.0


def test_an_empty_answer_neither_helps_nor_declines() -> None:
    assert refusal.correct("", " ", {"refuse": True}) == refusal.correct("", "", {"refuse": False}) == 0.0
    with pytest.raises(ValueError, match="refuse"):
        refusal.correct("", "x", {})


# Documents


def test_an_answer_is_held_to_its_document() -> None:
    row = {"answer": "1859"}
    assert grounded.correct("", "It was built in 1859.", row) == 1.0
    assert grounded.correct("", "It was built in 18590.", row) == 0.0
    assert grounded.correct("", "The text does not mention 1859.", row) == 0.0
    assert grounded.correct("", "一座木桥边", {"answer": "木桥"}) == 1.0
    nothing = {"answer": ""}
    for said in (
        "The passage doesn't say.",
        "There is no information on that.",
        "I cannot answer this.",
        "文中没有提到。",
    ):
        assert (grounded.correct("", said, nothing), grounded.invented("", said, nothing)) == (1.0, 0.0)
    assert (grounded.correct("", "In 1900.", nothing), grounded.invented("", "In 1900.", nothing)) == (0.0, 1.0)
    assert grounded.invented("", "In 1900.", row) == 0.0


def test_questions_are_made_of_documents_beside_the_passage_or_another() -> None:
    def story(place: int) -> str:
        return f"Nobody knew. The old bridge of town {'abcdef'[place]} was built in {1800 + place} by farmers. It fell."

    documents = [(str(place), story(place), "en") for place in range(6)]
    for place in (1, 2):
        text = f"很久以前。这座位于小城东边的老木桥是在公元{1500 + place}年由附近村子里的农民们一起动手建成的。"
        documents.append((f"zh{place}", text, "zh"))
    documents += [("none", "No number here, whatever the reader does to find one in it.", "en")]
    rows = items(documents, 10)
    assert [row["supported"] for row in rows] == [True, False] * 4
    for row, (_, text, _) in zip(rows, documents, strict=False):
        number = next(word for word in text.replace("公元", " ").replace("年", " ").split() if word.strip().isdigit())
        assert row["answer"] == (number if row["supported"] else "")
        assert (number in row["prompt"]) == row["supported"]
        assert "____" in row["prompt"]
    assert ["短文" in row["prompt"] for row in rows] == [False] * 6 + [True] * 2
    assert items(documents, 3) == rows[:3]
    assert items(documents[:1], 3) == rows[:1]  # there is no other passage


# The house's own tasks


@pytest.mark.parametrize("name", [name for name in known() if load(name).rows])
def test_the_houses_own_tasks_are_asked_and_checked(name: str) -> None:
    one = load(name)
    said = {asked(one, item).prompts[0] for item in one.items}
    assert len(said) == len(one.items)  # none is asked twice
    for item in one.items:
        for verifier in one.verifiers.values():
            assert verifier("", "nothing to the point", item.row) in (0.0, *(k / 3 for k in (1, 2)), 0.5, 1.0)
        assert one.value("part", item.row) if one.part else True
