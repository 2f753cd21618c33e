"""The engine's answers are a function of seed and prompt, whatever stands beside them, and say how they ended."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from test_families import TRAINED, saved
from test_generate import naive

from datalake.errors import UserError
from models.network import checkpoint, slots
from models.network.build import build_model
from models.network.config import NetworkConfig
from models.network.generate import write
from models.rl.answers import Sampling
from models.rl.engine import Engine

STOPS = (3, 11, 17, 40)
SAMPLING = Sampling(20, 1.0, STOPS, 60)
PROMPTS = [[5], [1, 2, 3, 4, 5, 6, 7], [9, 8, 7], [30, 31], [5] * 25, [8, 1], [12, 13, 14, 15]]
SEEDS = [7, 1, 2, 3, 4, 5, 6]


@pytest.fixture(scope="module")
def model() -> torch.nn.Module:
    shape = NetworkConfig(vocabulary=64, layers=2, width=32, heads=4, kv_heads=2, hidden=48, context=64)
    built = build_model(shape, 3)
    draw = torch.Generator().manual_seed(3)
    for parameter in built.parameters():
        if parameter.ndim > 1:
            parameter.data.normal_(0, 0.12, generator=draw)
    return built


def test_answers_equal_the_plain_loop(model) -> None:
    """One row, no cache, everything computed anew: the same tokens, and their log-probabilities at the temperature."""
    answers = Engine(model, Sampling(20, 0.7, STOPS, 60), 3)(PROMPTS, SEEDS)
    assert len({len(answer.tokens) for answer in answers}) > 2
    for prompt, seed, answer in zip(PROMPTS, SEEDS, answers, strict=True):
        uniforms = torch.rand(20, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
        assert answer.tokens == naive(model, prompt, uniforms, set(STOPS), temperature=0.7, vocabulary=60)
        ids = torch.tensor([prompt + answer.tokens])
        said = (model.logits(model(ids))[0, len(prompt) - 1 : -1, :60] / 0.7).log_softmax(-1)
        expected = said.gather(1, torch.tensor(answer.tokens)[:, None])[:, 0]
        assert torch.allclose(torch.tensor(answer.log_probs), expected, atol=1e-5)
        assert answer.prompt == prompt
        assert answer.ended == (answer.tokens[-1] in STOPS)
        assert answer.written == [True] * len(answer.tokens)


@pytest.mark.parametrize("exact", [False, True])
def test_an_answer_depends_on_seed_and_prompt_alone(model, exact: bool) -> None:
    whole = Engine(model, SAMPLING, 3, exact)(PROMPTS, SEEDS)
    order = [4, 0, 6, 2, 5, 1, 3]
    for rows in (1, 2, 7, 40):
        turned = Engine(model, SAMPLING, rows, exact)([PROMPTS[n] for n in order], [SEEDS[n] for n in order])
        for place, n in enumerate(order):
            assert turned[place].tokens == whole[n].tokens
            if exact:
                assert turned[place].log_probs == whole[n].log_probs


def test_a_finished_row_leaves_its_slot_to_the_next_prompt(model) -> None:
    """Fewer passes than batches that wait for their longest row would take, and never more rows than slots."""
    sizes: list[int] = []
    ends = [1, 12, 1, 1, 1, 12]

    def follow(row: int, token: int, _: object) -> tuple[int, ...]:
        ends[row] -= 1
        return (token,) if ends[row] else ()

    def choose(hidden: torch.Tensor, rows) -> tuple[list[int], list[None]]:
        return [5] * len(rows), [None] * len(rows)

    for tokens in write(model, [[1, 2]] * 6, 16, 2, choose, follow):
        sizes.append(len(tokens))
    assert max(sizes) == 2
    assert sum(sizes) == 28
    assert len(sizes) < 24  # what three batches of two would take


def test_what_a_tool_says_is_appended_and_trains_nothing(model) -> None:
    sampling = Sampling(40, 1.0, (*STOPS, *range(20, 40)), 50)

    def observe(row: int, answer) -> list[int] | None:
        assert answer.tokens[-1] in sampling.stop_ids
        return [50, 51, 52] if answer.tokens.count(50) < 2 and row != 1 else None

    model.requires_grad_(False)
    answers = Engine(model, sampling, 3)(PROMPTS, SEEDS, observe)
    assert any(answer.written.count(False) == 6 for answer in answers)
    for answer in answers:
        seen = [token for token, own in zip(answer.tokens, answer.written, strict=True) if not own]
        assert seen == [50, 51, 52] * (len(seen) // 3)
        assert all(said == 0.0 for said, own in zip(answer.log_probs, answer.written, strict=True) if not own)
        assert not answer.ended or answer.tokens[-1] in sampling.stop_ids
        ids = torch.tensor([answer.prompt + answer.tokens])
        said = model.logits(model(ids))[0, len(answer.prompt) - 1 : -1, :50].log_softmax(-1)
        for place, (token, own) in enumerate(zip(answer.tokens, answer.written, strict=True)):
            assert not own or abs(float(said[place, token]) - answer.log_probs[place]) < 1e-5
    again = Engine(model, sampling, 7)(PROMPTS, SEEDS, observe)
    assert [answer.tokens for answer in again] == [answer.tokens for answer in answers]


def test_what_reaches_the_context_or_the_budget_is_truncated(model) -> None:
    long = Sampling(100, 1.0, (), 60)
    (whole,) = Engine(model, long)([[5] * 60], [1])
    assert len(whole.tokens) == 4
    assert not whole.ended
    budget = Sampling(6, 1.0, tuple(range(60)), 60)  # every token is a stop, and the tool always answers
    (turns,) = Engine(model, budget)([[5]], [1], lambda row, answer: [7, 7])
    assert turns.written.count(True) == 6
    assert not turns.ended
    with pytest.raises(UserError, match="a prompt of 64 tokens leaves no room"):
        Engine(model, long)([[5] * 64], [1])
    with pytest.raises(UserError, match="a prompt is empty"):
        Engine(model, long)([[]], [1])
    assert Engine(model, long)([], []) == []


def test_answers_carry_the_version_and_the_likeliest_can_be_asked_for(model) -> None:
    engine = Engine(model, Sampling(8, 0.0, (), 60))
    engine.version = 12
    (answer,) = engine([[5, 6]], [1])
    assert answer.version == 12
    assert answer.tokens == engine([[5, 6]], [2])[0].tokens
    model.train()
    engine([[5]], [1])
    assert model.training


@pytest.mark.parametrize(
    ("family", "kind"), [("GPT-2", slots.Slots), ("Gemma 2", slots.Slots), ("GPT", slots.Recomputed)]
)
def test_other_families_answer_too(family: str, kind: type, tmp_path: Path) -> None:
    """Windows shorter than the rows, learned positions, and a family whose cache can't have slots."""
    model = checkpoint.load_model(saved(tmp_path, *TRAINED[family]))
    assert isinstance(slots.slots_for(model, 2, 16), kind)
    answers = Engine(model, SAMPLING, 3)(PROMPTS, SEEDS)
    for prompt, seed, answer in zip(PROMPTS, SEEDS, answers, strict=True):
        uniforms = torch.rand(20, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
        assert answer.tokens == naive(model, prompt, uniforms, set(STOPS), vocabulary=60)


def test_slots_grow_with_what_is_observed(model) -> None:
    store = slots.Slots(model, 2, 16)
    tokens = torch.arange(40)[None] % 60
    first = store.read([1], tokens[:, :10], torch.tensor([0]), torch.tensor([10]))
    later = store.read([1], tokens[:, 10:], torch.tensor([10]), torch.tensor([30]))
    assert store.width >= 40
    with torch.no_grad():
        expected = model(tokens)[0]
    assert torch.allclose(first[0], expected[9], atol=1e-5)
    assert torch.allclose(later[0], expected[-1], atol=1e-5)
    assert store.width % slots.KEYS == 0
