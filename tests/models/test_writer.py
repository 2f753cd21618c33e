"""Whoever writes for training: a model at hand and an endpoint behind one interface, neither asked twice."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import toys
from completions import completions
from pydantic import ValidationError

from models.network import checkpoint
from models.network.generate import generate
from models.synthesis.config import WriterConfig
from models.synthesis.writer import Local, Remote, Writer, letter, writer
from models.text.rendering import render
from models.text.tokenizer import stop_ids


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    return toys.base(folder / "base", toys.words(folder / "words"), context=64)


def asked(*texts: str) -> list[list[dict[str, str]]]:
    return [[{"role": "user", "content": text}] for text in texts]


def local(model: Path, answers: Path, **more: Any) -> Local:
    config = WriterConfig.model_validate({"model": str(model), "new_tokens": 8, "batch": 2, **more})
    made = writer(config, model, "", answers)
    assert isinstance(made, Local)
    return made


def remote(url: str, answers: Path, **more: Any) -> Writer:
    config = WriterConfig.model_validate({"endpoint": {"url": url, "model": "m"}, "new_tokens": 8, **more})
    return writer(config, None, "", answers)


def test_a_model_at_hand_answers_as_generation_does_and_a_stored_answer_needs_no_model(
    model: Path, tmp_path: Path
) -> None:
    dialogues, seeds = asked("the cat", "a dog runs", "who"), [1, 2, 3]
    first = local(model, tmp_path)
    replies = first(dialogues, seeds)
    network, words = checkpoint.load(model)
    greedy = local(model, tmp_path, temperature=0)(dialogues[:2], seeds[:2])
    prompts = [render(one, words, prompt=True)[0] for one in dialogues[:2]]
    expected = generate(network, prompts, 8, 0.0, eos_id=set(stop_ids(words, network)), vocabulary=len(words))
    assert [one.new_tokens for one in greedy] == [len(ids) for ids in expected]
    assert [one.text for one in greedy] == [words.decode(ids, skip_special_tokens=True) for ids in expected]
    again = local(model, tmp_path)
    assert again(dialogues, seeds) == replies
    assert "_loaded" not in vars(again)
    assert again.usage() == first.usage() | {"requests": 0}
    assert local(model, tmp_path)(dialogues[:2], [4, 5]) != replies[:2], "other seeds draw others"


def test_an_ended_writer_goes_on_batch_by_batch_to_the_same_answers(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dialogues, seeds = asked(*"abcdefgh"), list(range(8))
    whole = local(model, tmp_path / "whole")(dialogues, seeds)
    write, batches = Local._write, 0

    def ended(self: Local, batch: Any, drawn: Any) -> Any:
        nonlocal batches
        batches += 1
        if batches == 3:
            raise KeyboardInterrupt
        return write(self, batch, drawn)

    monkeypatch.setattr(Local, "_write", ended)
    with pytest.raises(KeyboardInterrupt):
        local(model, tmp_path / "ended")(dialogues, seeds)
    assert local(model, tmp_path / "ended")(dialogues, seeds) == whole
    assert batches == 5, "two batches before it was ended, the third once more, the fourth"


def test_a_prompt_beyond_the_context_is_its_own_problem(model: Path, tmp_path: Path) -> None:
    long, short = local(model, tmp_path)(asked("the cat " * 60, "the cat"), [1, 2])
    assert long.problem.startswith("refused: a prompt of")
    assert not short.problem.startswith("refused")


def test_a_model_that_is_not_tuned_goes_on_from_a_text(model: Path, tmp_path: Path) -> None:
    _, words = checkpoint.load(model)
    one = local(model, tmp_path, format="text", temperature=0)
    ids = one._ids([{"role": "user", "content": "the cat"}])
    assert words.decode(ids[1:]).strip() == "the cat"
    with completions(lambda body: b'{"choices": [{"text": " sat", "finish_reason": "stop"}]}') as server:
        assert remote(server.url, tmp_path, format="text")(asked("the cat"), [1])[0].text == " sat"
        assert server.paths == ["/v1/completions"]
        assert server.asked[0]["prompt"] == "the cat"


def test_a_choice_is_the_share_of_two_letters_by_logits_or_the_letter_that_is_said(model: Path, tmp_path: Path) -> None:
    network, words = checkpoint.load(model)
    (share,) = local(model, tmp_path).choose(asked("A or B"), [1])
    (ids, _) = render(asked("A or B")[0], words, prompt=True)
    with torch.no_grad():
        logits = network.logits(network(torch.tensor([ids]))[:, -1])[0]
    spelt = [
        [i for t in (x, f" {x}") for i in [words.encode(t, add_special_tokens=False)] if len(i) == 1] for x in "AB"
    ]
    a, b = (torch.stack([logits[i[0]] for i in ways]).logsumexp(0) for ways in spelt)
    assert share == pytest.approx(float(torch.sigmoid(a - b)), abs=1e-5)
    with completions(lambda body: body["messages"][0]["content"]) as server:
        judge = remote(server.url, tmp_path, temperature=0.7)
        assert isinstance(judge, Remote)
        assert judge.choose(asked("A", "The answer is B.", "who knows"), [1, 1, 1]) == [1.0, 0.0, None]
        assert {body["temperature"] for body in server.asked} == {0}
        assert judge.usage() == {"answers": 3, "prompt_tokens": 21, "new_tokens": 9, "requests": 3, "retries": 0}
        assert judge.name == f"m at {server.url}"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("A", "A"), ("(B)", "B"), ("**B**", "B"), ("The answer is A.", "A"), ("B. Because A is worse", "B"),
        ("I think A is good, but B is better.\n\nB", "B"), ("选项A", "A"), ("答案：B。", "B"),
        ("A better answer is hard", None), ("As both are fine, neither", None), ("", None),
        ("Response B is better than response A", None),
    ],
)  # fmt: skip
def test_the_letter_that_an_answer_names(text: str, said: str | None) -> None:
    assert letter(text) == said


def test_one_of_model_and_endpoint_writes() -> None:
    endpoint = {"url": "http://host/v1", "model": "m"}
    for both in ({}, {"model": "sft", "endpoint": endpoint}):
        with pytest.raises(ValidationError, match="name a `model` or an `endpoint`"):
            WriterConfig.model_validate(both)
    assert WriterConfig.model_validate({"model": "sft"}).own
    assert not WriterConfig.model_validate({"endpoint": endpoint}).own
