"""Rewards that a recipe names: known by their content, told apart, checked, within a time limit; and those built in."""

from __future__ import annotations

import gzip
import json
import math
import shutil
import threading
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
from pydantic import TypeAdapter, ValidationError

from datalake.errors import UserError
from datalake.identity import fingerprint
from models.rl.rewards import Asked, RewardFunction, Rewards
from models.rl.rewards import format as form
from models.rl.rewards.arithmetic import correct as sum_correct
from models.rl.rewards.config import built_in
from models.rl.rewards.gsm8k import correct as gsm8k
from models.rl.rewards.gsm8k import marked
from models.rl.rewards.numbers import evaluate, final, numbers

FILE = """
from __future__ import annotations
import dataclasses

@dataclasses.dataclass
class Point:
    x: int

def correct(prompt, answer, row):
    return answer == row["answer"]

def longer(prompt: str, answer: str, row: dict, *, than: int = 3) -> float:
    return len(answer) / than

def spoils(prompt, answer, row):
    row["answer"] = "spoilt"
    return 0

def raises(prompt, answer, row):
    if answer == "b":
        raise LookupError("no\\nsuch thing")
    return 1

def gives(prompt, answer, row):
    return eval(answer)

def never(prompt, answer, row):
    while True:
        pass

def leaves(prompt, answer, row):
    if not answer:
        raise SystemExit(0)
    return 1

async def later(prompt, answer, row):
    return 1
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    (tmp_path / "mine.py").write_text(FILE)
    return tmp_path / "mine.py"


def rewards(*entries: Any, scored: dict[str, float] | None = None) -> Rewards:
    return Rewards(TypeAdapter(list[RewardFunction]).validate_python(list(entries)), scored, "grpo.rewards")


def asked(*answers: str, gold: str = "a") -> list[Asked]:
    return [Asked("?", answer, {"id": f"0{place}", "answer": gold}) for place, answer in enumerate(answers)]


def test_each_function_is_a_column_and_the_total_their_weighted_sum(file: Path) -> None:
    mine = rewards(
        f"{file}:correct",
        {"function": f"{file}:longer", "weight": 0.5, "options": {"than": 2}},
        scored={"model": 2.0},
    )
    columns = mine(asked("a", "bbbb"), {"model": [0.25, -1]})
    assert columns == {"model": [0.25, -1.0], "correct": [1.0, 0.0], "longer": [0.5, 2.0]}
    assert mine.names == list(columns)
    assert mine.total(columns) == [2 * 0.25 + 1 + 0.25, -2 + 0 + 1]
    assert mine([], {"model": []}) == {"model": [], "correct": [], "longer": []}


def test_a_reward_is_known_by_what_it_says_and_weighs_and_not_by_where_it_lies(file: Path, tmp_path: Path) -> None:
    one = RewardFunction.model_validate(f"{file}:correct")
    moved = shutil.copytree(file.parent, tmp_path / "elsewhere") / file.name
    assert fingerprint(RewardFunction.model_validate(f"{moved}:correct")) == fingerprint(one)
    assert fingerprint(RewardFunction.model_validate({"function": f"{file}:correct", "seconds": 5})) == fingerprint(one)
    moved.write_text(FILE.replace("==", "!="))
    others = [f"{moved}:correct", {"function": f"{file}:correct", "weight": 2}, f"{file}:longer", "gsm8k"]
    prints = {fingerprint(RewardFunction.model_validate(other)) for other in others}
    assert len(prints) == 4
    assert fingerprint(one) not in prints


def test_what_was_stored_needs_no_file(file: Path) -> None:
    stored = RewardFunction.model_validate(f"{file}:correct").model_dump_json()
    file.unlink()
    again = RewardFunction.model_validate_json(stored)
    assert Rewards([again])(asked("a", "b")) == {"correct": [1.0, 0.0]}


def test_functions_of_one_name_are_told_apart(file: Path, tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    other, far = file.with_name("other-one.py"), tmp_path / "deep" / "mine.py"
    for copy in (other, far):
        shutil.copy(file, copy)
    names = rewards(f"{file}:correct", f"{other}:correct", f"{far}:correct", "gsm8k", "format:tags").names
    assert names == ["mine_correct", "other_one_correct", "mine_correct_2", "gsm8k", "tags"]
    file.write_text("def model(prompt, answer, row): return 1\n")
    assert rewards(f"{file}:model", scored={"model": 1.0}).names == ["model", "mine_model"]


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ("{file}:nothing", "there is no function 'nothing' in it"),
        ("{file}", "is no FILE:function nor package.module:function"),
        ("nowhere.py:f", "there is no file"),
        ("no_such_package.x:f", "there is no module 'no_such_package.x' installed here"),
        ("gsm8k:nothing", "there is no function 'nothing' in it"),
    ],
)
def test_what_is_wrong_in_a_recipe_is_said_in_one_line(file: Path, entry: str, message: str) -> None:
    with pytest.raises(ValidationError, match=message) as caught:
        RewardFunction.model_validate(entry.format(file=file))
    assert "\n" not in caught.value.errors()[0]["msg"]


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ("later", "grpo.rewards: later is async"),
        ("Point", r"can't be called as \(prompt, answer, row\)"),
        ({"options": {"above": 2}, "function": "longer"}, r"row, above=\).*unexpected keyword argument 'above'"),
    ],
)
def test_what_cannot_be_called_is_said_before_any_answer(file: Path, entry: Any, message: str) -> None:
    entry = f"{file}:{entry}" if isinstance(entry, str) else {**entry, "function": f"{file}:{entry['function']}"}
    with pytest.raises(UserError, match=message):
        rewards(entry)


@pytest.mark.parametrize(
    ("function", "answer", "why"),
    [
        ("raises", "b", r"LookupError: no \(line 21 of <grpo.rewards>\)"),
        ("gives", "float('nan')", "it gave nan, which is no reward"),
        ("gives", "float('-inf')", "it gave -inf, which is no reward"),
        ("gives", "1e39", "it gave 1e[+]39, which is no reward"),
        ("gives", "10 ** 400", "it gave a int, which is no number"),
        ("gives", "None", "it gave None, which is no number"),
        ("gives", "'1'", "it gave '1', which is no number"),
        ("gives", "[1.0]", "it gave a list, which is no number"),
        ("gives", "__import__('numpy').array([1, 2])", "it gave a ndarray, which is no number"),
        ("leaves", "", "SystemExit: 0"),
    ],
)
def test_a_function_that_fails_is_one_line_with_function_row_and_cause(
    file: Path, function: str, answer: str, why: str
) -> None:
    good = "1" if function == "gives" else "a"
    expected = rf"^grpo.rewards: {function} \(mine.py:{function}\) failed on row 01: {why}.*; mend what it calls on and"
    with pytest.raises(UserError, match=expected) as caught:
        rewards(f"{file}:{function}")(asked(good, answer))
    assert "\n" not in str(caught.value)


def test_numbers_of_any_kind_are_rewards(file: Path) -> None:
    given = ["True", "0", "__import__('numpy').float32(0.5)", "__import__('torch').tensor(2.0)"]
    given.append("__import__('fractions').Fraction(1, 4)")
    assert rewards(f"{file}:gives")(asked(*given)) == {"gives": [1.0, 0.0, 0.5, 2.0, 0.25]}


def test_a_function_that_never_returns_is_ended(file: Path) -> None:
    before = set(threading.enumerate())
    with pytest.raises(UserError, match=r"never \(mine.py:never\) failed on row 00: it took longer than 0.2 s"):
        rewards({"function": f"{file}:never", "seconds": 0.2})(asked("a"))
    for thread in set(threading.enumerate()) - before:
        thread.join(30)
        assert not thread.is_alive()


def test_a_function_cannot_change_what_the_next_one_sees(file: Path) -> None:
    rows = asked("a")
    assert rewards(f"{file}:spoils", f"{file}:correct")(rows)["correct"] == [1.0]
    assert rows[0].row["answer"] == "a"


def test_a_reward_model_that_diverged_is_said() -> None:
    with pytest.raises(UserError, match="model gave nan for row 01"):
        rewards(scored={"model": 1.0})(asked("a", "b"), {"model": [0.0, math.nan]})


def test_every_file_of_rewards_is_found_by_its_name() -> None:
    assert {"arithmetic", "format", "gsm8k"} <= set(built_in())
    assert rewards("arithmetic", "gsm8k").names == ["arithmetic", "gsm8k"]


# Numbers, as answers write them


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("#### 18", "18"),
        ("####18", "18"),
        ("#### $1,234.50", "1234.5"),
        ("#### 18.00 dollars", "18"),
        ("#### −5", "-5"),
        ("#### -$5", "-5"),
        ("#### 1/2", "1/2"),
        ("#### x = 18", "18"),
        ("#### 9 * 2 = 18", "18"),
        ("#### 17\nno:\n#### 18", "18"),
        ("#### 17 or 18", None),
        ("#### 17, 18", None),
        ("#### Step 2: add\nSo it is 18.", "18"),
        (r"\boxed{18}", "18"),
        (r"$\boxed{\$1{,}000}$", "1000"),
        (r"\boxed{\frac{1}{2}}", "1/2"),
        (r"\boxed{-\dfrac{3}{4}}", "-3/4"),
        (r"\boxed{\text{18 dollars}}", "18"),
        (r"\boxed{17} no, \boxed{18}", "18"),
        (r"\boxed{17, 18}", None),
        (r"\boxed{}", None),
        (r"#### 17 and then \boxed{18}", "18"),
        ("The answer is 3 1/2.", "7/2"),
        ("The answer is **18**, since 2 of 20 are gone.", "18"),
        ("The answer is 9 * 2 = 18 for 3 people", "18"),
        ("答案是１８。", "18"),
        ("She has 3 and 15, so 18 apples.", "18"),
        ("½", "1/2"),
        ("10-5", "5"),
        (r"1.2 \times 10^{5}", "120000"),
        ("1e-3", "1/1000"),
        ("1e999999999", None),
        ("9" * 5000, None),
        ("<think>17</think>18", "18"),
        ("<think>18</think> I don't know", None),
        ("<think>18", None),
        ("no number", None),
        ("", None),
    ],
)
def test_the_number_that_an_answer_ends_in(text: str, value: str | None) -> None:
    found = final(text)
    assert (found and found.value) == (value and Fraction(value))


def test_a_sign_between_numbers_is_no_sign() -> None:
    assert [number.value for number in numbers("5-3 = -2, (1)-2")] == [5, 3, -2, 1, 2]


@pytest.mark.parametrize(
    ("answer", "gold", "score"),
    [
        ("#### 25%", "#### 25", 1),
        ("#### 25%", "#### 0.25", 1),
        ("#### 0.25%", "#### 25%", 0),
        ("#### 2 million", "#### 2,000,000", 1),
        ("#### 0.5", "#### 1/2", 1),
        ("#### 0.3333333", "1/3", 1),
        ("#### 0.33", "1/3", 0),
        ("#### 70,000", "#### 70000", 1),
        ("#### -18", "#### 18", 0),
        ("18 of them", "#### 18", 1),
        ("#### ", "#### 18", 0),
    ],
)
def test_numbers_are_compared_by_value(answer: str, gold: str, score: float) -> None:
    assert gsm8k("", answer, {"answer": gold}) == score


def test_a_row_without_a_solution_is_an_error_and_no_zero() -> None:
    with pytest.raises(ValueError, match="the row's 'answer' has no number"):
        gsm8k("", "#### 1", {"answer": ""})
    with pytest.raises(ValueError, match="no number, and its prompt no expression"):
        sum_correct("How are you?", "1", {"answer": ""})
    assert gsm8k("", "#### 1", {"answer": "", "gold": "1"}, gold="gold") == 1


def test_strictly_the_number_stands_where_it_was_asked_for() -> None:
    assert [gsm8k("", answer, {"answer": "18"}, strict=True) for answer in ("18", "#### 18")] == [0, 1]
    assert [marked("", answer, {}) for answer in ("18", "#### 18", r"\boxed{18}", "#### 1 or 2")] == [0, 1, 1, 0]


def test_every_solution_of_gsm8k_is_its_own_right_answer_and_no_others(samples: Path) -> None:
    lines = gzip.decompress((samples / "eval" / "gsm8k-test.jsonl.gz").read_bytes()).splitlines()
    solutions = [json.loads(line)["answer"] for line in lines]
    golds = [Fraction(solution.split("####")[1].strip().replace(",", "")) for solution in solutions]
    for solution, gold, other, others in zip(solutions, golds, solutions[1:], golds[1:], strict=False):
        assert gsm8k("", solution, {"answer": solution}) == 1
        assert gsm8k("", solution, {"answer": other}) == (gold == others)


@pytest.mark.parametrize(
    ("prompt", "value"),
    [
        ("What is 3 + 4?", "7"),
        ("12 × (3 + 4) = ?", "84"),
        ("1. Compute 7 ÷ 2.", "7/2"),
        ("3 x 4", "12"),
        ("2^10 - 1,000", "24"),
        ("-3 - -4", "1"),
        ("7 % 3", "1"),
    ],
)
def test_arithmetic_asks_the_prompt_where_there_is_no_answer(prompt: str, value: str) -> None:
    right = f"It is {Fraction(value)}."
    for row in ({"answer": ""}, {"messages": [{"role": "user", "content": prompt}]}):
        assert sum_correct(prompt, right, dict(row)) == 1
        assert sum_correct(prompt, "It is 99.", dict(row)) == 0
    assert sum_correct(prompt, right, {"answer": "It is 99."}) == 0


@pytest.mark.parametrize(
    "text", ["9**9**9", "2**100000", "1/0", "__import__('os')", "a", "(" * 500 + "1", "1 if 1 else 2", "True + 1", "3j"]
)
def test_only_arithmetic_is_evaluated_and_none_that_grows_large(text: str) -> None:
    assert evaluate(text) is None


def test_exact_values() -> None:
    assert evaluate("0.1 + 0.2") == Fraction(3, 10)
    assert evaluate("2 ** -2 * 8 // 1 % 3") == 2


# Format


@pytest.mark.parametrize(
    ("answer", "score"),
    [
        ("<think>a</think><answer>b</answer>", 1),
        ("\n<think>a</think>\n\n<answer>b</answer> ", 1),
        ("<think>a</think><answer>b</answer> so", 0),
        ("well <think>a</think><answer>b</answer>", 0),
        ("<think>a</think> so <answer>b</answer>", 0),
        ("<answer>b</answer><think>a</think>", 0),
        ("<think>a<answer>b</answer></think>", 0),
        ("<think>a</think><think>a</think><answer>b</answer>", 0),
        ("<think></think><answer>b</answer>", 0),
        ("<think>a</think><answer> </answer>", 0),
        ("<think>a</think><answer>b", 0),
        ("", 0),
    ],
)
def test_tags_once_and_in_order(answer: str, score: float) -> None:
    assert form.tags("?", answer, {}) == score
    assert form.tags("? <think>\n", answer.removeprefix("<think>"), {}) == (score if answer[:1] == "<" else 0)


def test_a_prompt_that_opened_the_thinking_counts_its_tag() -> None:
    assert form.tags("...<think>\n", "a</think><answer>b</answer>", {}) == 1
    assert form.tags("...<think>\n", "<think>a</think><answer>b</answer>", {}) == 0
    assert form.tags("", "<a>1</a>", {}, names=["a"]) == 1


@pytest.mark.parametrize(
    ("answer", "score"),
    [
        ('{"a": 1}', 1),
        ('```json\n{"a": 1}\n```', 1),
        ("{'a': 1}", 0),
        ("NaN", 0),
        ("[" * 100_000, 0),
        ('{"a": 1} ok', 0),
    ],
)
def test_json_that_is_valid(answer: str, score: float) -> None:
    assert form.json_valid("", answer, {}) == score


def test_json_with_keys() -> None:
    assert form.json_valid("", '{"a": 1}', {}, keys=["a"]) == 1
    assert form.json_valid("", '{"a": 1}', {}, keys=["a", "b"]) == 0
    assert form.json_valid("", "[1]", {}, keys=["a"]) == 0


def test_length_falls_in_a_line_behind_its_limit() -> None:
    lengths = [form.length("", "w " * n, {}, least=2, most=4, buffer=3) for n in range(1, 9)]
    assert lengths == [0, 1, 1, 1, 0.75, 0.5, 0.25, 0]
    assert form.length("", "四个汉字", {}, most=4) == 1
    assert form.length("", "four", {}, most=3, unit="characters") == 0


def test_language_of_the_answer() -> None:
    english, chinese = "This is a plain English sentence about the weather.", "今天天气很好，我们去公园散步吧。"
    assert form.language(english, english, {}) == 1
    assert form.language(english, chinese, {}) == 0
    assert form.language(english, chinese, {"messages": [{"role": "user", "content": chinese}]}) == 1
    assert form.language(english, chinese, {}, code="zh") == 1
    assert form.language(english, "18", {}, code="en") == 0
