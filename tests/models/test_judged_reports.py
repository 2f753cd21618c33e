"""What misled other harnesses, as small items of our own: answers that are nothing, that grow together with a prompt,
that overflow; examples that give the answer away; turns that end at a blank line; numbers and code as models write."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
import toys
from served import scripted

from datalake.errors import UserError
from models.evaluation.benchmark import Benchmark, asked, load
from models.evaluation.exam import Settings
from models.evaluation.judge import judge, pairs
from models.evaluation.judged import Judged, results
from models.network.checkpoint import load as load_checkpoint
from models.rl.rewards.constraints import CHECKS
from models.rl.rewards.numbers import final
from models.rl.rewards.unit_tests import code_of
from models.text.tokenizer import encode

CHOICE: dict[str, Any] = {"kind": "choice", "prompt": "{{ q }}", "choices": "c", "gold": "g"}
WRITTEN: dict[str, Any] = {"kind": "generation", "prompt": "{{ q }}", "target": "{{ t }}", "new_tokens": 60}


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = tmp_path_factory.mktemp("tiny")
    return load_checkpoint(toys.base(folder / "base", toys.words(folder / "words"), context=128))


def own(folder: Path, rows: list[dict[str, Any]], **keys: Any) -> Benchmark:
    path = folder / "mine.yaml"
    path.write_text(json.dumps(CHOICE | keys | {"rows": rows}))  # JSON is YAML
    return load(str(path))


def test_an_answer_of_nothing_is_refused_since_every_model_would_choose_it(tiny: Any, tmp_path: Path) -> None:
    continued = {"kind": "continuation", "target": "{{ t }}", "choices": "", "gold": ""}
    for rows, keys in (
        ([{"q": "the cat", "c": ["", "dog"], "g": 1}], {"between": ""}),
        ([{"q": "the cat", "c": [" ", "dog"], "g": 1}], {}),
        ([{"q": "the cat", "t": ""}], continued),
        ([{"q": "", "c": ["a", "b"], "g": 0, "t": ""}], {"contexts": "c", "choices": "", "target": "{{ t }}"}),
    ):
        with pytest.raises(UserError, match=r"item 0 has an empty (choice|target)"):
            judge(*tiny, own(tmp_path, rows, **keys))


def test_an_answer_that_grows_together_with_its_prompt_is_judged_apart(tiny: Any, tmp_path: Path) -> None:
    model, tokenizer = tiny
    assert len(encode(tokenizer, ["the cat"])[0]) == len(encode(tokenizer, ["the c"])[0])
    (_, merged), (_, plain) = pairs(tokenizer, [("the c", "at"), ("the c", "ow and")])
    assert merged == encode(tokenizer, ["at"])[0]
    assert plain
    row = judge(model, tokenizer, own(tmp_path, [{"q": "the c", "c": ["at", "ow and"], "g": 1}], between=""))[0]
    assert all(value < 0 for value in row.scores.values())


def test_numbers_that_overflow_are_no_answer(tiny: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model, tokenizer = tiny
    one = own(tmp_path, [{"q": "the cat", "c": ["dog", "bird"], "g": 0}])
    monkeypatch.setattr(
        model, "logits", lambda hidden: torch.full((*hidden.shape[:-1], model.config.vocabulary), math.nan)
    )
    with pytest.raises(UserError, match="numbers overflow"):
        judge(model, tokenizer, one)


def test_a_perplexity_may_be_infinite() -> None:
    rows = [
        Judged("t", str(n), 0, 0, False, "", "", "", {"perplexity": (nats, 1.0)}) for n, nats in enumerate((800.0, 9))
    ]
    assert results(rows[:1])[0].value == math.inf
    assert results(rows)[0].value == pytest.approx(math.exp(404.5))
    assert results(rows)[0].high == math.inf


def test_the_same_question_under_another_number_is_no_worked_example(tmp_path: Path) -> None:
    rows = [{"id": n, "q": "the cat sees", "c": ["dog", "bird"], "g": 1} for n in range(4)]
    one = own(tmp_path, [*rows, {"id": 9, "q": "the cow eats", "c": ["dog", "milk"], "g": 1}])
    for item in one.items[:4]:
        assert asked(one, item, 1).prompts == ["the cow eats milk\n\nthe cat sees"]
    with pytest.raises(UserError, match="2 worked examples are asked for and there are 1"):
        asked(one, one.items[0], 2)


@pytest.mark.parametrize("prompt", ["{{ 1 / 0 }}", "{{ range(10 ** 9) | list }}", "{{ q.nothing() }}", "{{ c[7] }}"])
def test_what_a_template_trips_over_is_one_line(prompt: str, tmp_path: Path) -> None:
    one = own(tmp_path, [{"q": "a", "c": ["x", "y"], "g": 0}], prompt=prompt)
    with pytest.raises(UserError, match="prompt is wrong") as error:
        asked(one, one.items[0])
    assert "\n" not in str(error.value)


def test_in_a_dialogue_a_turn_ends_by_itself_and_not_at_a_blank_line(tiny: Any, tmp_path: Path) -> None:
    model, tokenizer = tiny
    said = "First the cat.\n\nThen the dog: 3"
    ids = [*encode(tokenizer, [said])[0], tokenizer.convert_tokens_to_ids("<|end|>")]
    one = own(tmp_path, [{"q": "the cat", "t": "3"}], **WRITTEN, choices="", gold="", stop=["\n\n"])
    for chat, text in ((True, said), (False, "First the cat.")):
        with scripted(model, ids):
            row = judge(model, tokenizer, one, Settings(chat=chat))[0]
        assert row.answer == text
        assert row.figures["ended"] == (1.0, 1.0)


@pytest.mark.parametrize(
    ("answer", "value"),
    [
        ("The total is 72 clips, altogether.", 72),
        (r"\boxed{$9{,}500}", 9500),
        ("His profit is $200,000 - $130,000 = $70,000.", 70_000),
        (r"Thus \[ \boxed{\text{460}} \]", 460),
        ("temperature: #### -3", -3),
        ("**18** dollars", 18),
        ("It is *18*.", 18),
        ("***18***", 18),
        ("The answer is **18**, since 9*2", 18),
        ("540 meters a week (3*3*60)", 60),
        ("9 * 2 = 18", 18),
        ("so 9*2=18", 18),
        ("(3)*(6)", 6),
    ],
)
def test_numbers_are_read_as_models_write_them(answer: str, value: int) -> None:
    found = final(answer)
    assert found is not None
    assert found.value == value


def test_code_is_found_inside_lists_and_behind_other_line_ends() -> None:
    code = "def f():\n    return 1\n"
    assert (
        code_of(f"1. Here:\n\n     ```python\n{''.join(f'     {line}' for line in code.splitlines(True))}     ```\n")
        == code
    )
    windows = code_of("```python\n" + code.replace("\n", "\r\n") + "```\r\nIt returns 1.")
    assert windows.replace("\r\n", "\n") == code


def test_titles_end_no_sentence_and_other_line_ends_part_paragraphs() -> None:
    assert CHECKS["sentences"]("Dr. Smith paid $3.50. Fine, e.g. this.", {"exactly": 2})
    assert CHECKS["sentences"]("Is it? Yes! It is.", {"exactly": 3})
    assert CHECKS["paragraphs"]("one\r\n\r\ntwo", {"exactly": 2})
