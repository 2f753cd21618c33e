"""Log-probabilities of sampling and of training are equal to the bit, where a test of the model says they can be."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from test_families import TRAINED, saved

from models.network import bitwise, checkpoint
from models.network.build import build_model
from models.network.config import LoraConfig, NetworkConfig
from models.network.lora import apply_lora
from models.rl import exact
from models.rl.answers import Answer, Sampling
from models.rl.engine import Engine

SAMPLING = Sampling(20, 0.9, (3, 11, 17, 40), 60)
PROMPTS = [[5], [1, 2, 3, 4, 5, 6, 7], [9, 8, 7], [30, 31], [5] * 25, [8, 1], [12, 13, 14, 15]] * 3
SHAPES = {
    "grouped queries": {},
    "QK-norm": {"qk_norm": True},
    "experts": {"experts": 4},
    "a width of 30": {"width": 30, "heads": 3, "kv_heads": 3, "hidden": 50},
    "a width of 52": {"width": 52, "heads": 2, "kv_heads": 1, "hidden": 99},
    "heads of 128": {"width": 256, "heads": 2, "kv_heads": 1, "hidden": 160},
    "a width of 192": {"width": 192, "heads": 6, "kv_heads": 3, "hidden": 512, "vocabulary": 1000},
}


def network(**shape: object) -> torch.nn.Module:
    fields = {"vocabulary": 64, "layers": 2, "width": 32, "heads": 4, "kv_heads": 2, "hidden": 48, "context": 96}
    model = build_model(NetworkConfig(**(fields | shape)), 3)
    draw = torch.Generator().manual_seed(3)
    for parameter in model.parameters():
        if parameter.ndim > 1:
            parameter.data.normal_(0, 0.12, generator=draw)
    return model


def gap(model: torch.nn.Module, answers: list[Answer], rows: int) -> float:
    """The largest difference between sampling and a training pass over so many rows at once, as wide as the widest."""
    width, largest = max(len(answer.prompt) + len(answer.tokens) for answer in answers), 0.0
    model.train()
    for first in range(0, len(answers), rows):
        part = answers[first : first + rows]
        tokens = torch.zeros(len(part), width, dtype=torch.long)
        for row, answer in enumerate(part):
            ids = answer.prompt + answer.tokens
            tokens[row, : len(ids)] = torch.tensor(ids)
        states = exact.hidden(model, tokens)
        assert states.requires_grad
        for row, answer in enumerate(part):
            start = len(answer.prompt) - 1
            said = bitwise.log_softmax(model, states[row, start : start + len(answer.tokens)], 0.9, SAMPLING.vocabulary)
            taken = said.gather(1, torch.tensor(answer.tokens)[:, None])[:, 0]
            own = torch.tensor(answer.written)
            largest = max(largest, float((taken - torch.tensor(answer.log_probs))[own].abs().max()))
    return largest


@pytest.fixture
def threads():
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


def require(model: torch.nn.Module) -> None:
    if not exact.holds(model, SAMPLING):
        pytest.skip("this machine doesn't give equal bits")


@pytest.mark.parametrize("number", [1, pytest.param(2, marks=pytest.mark.slow)])
@pytest.mark.parametrize("name", SHAPES)
def test_sampling_equals_training_to_the_bit(name: str, number: int, threads) -> None:
    """Rows that join late, whatever the number of slots and the rows of a micro-batch."""
    threads(number)
    model = network(**SHAPES[name])
    require(model)
    for slots in (4, 17):
        answers = Engine(model, SAMPLING, slots, exact=True)(PROMPTS, range(len(PROMPTS)))
        assert gap(model, answers, 21) == gap(model, answers, 4) == 0.0


def test_turns_with_tools_are_equal_too(threads) -> None:
    threads(1)
    model = network()
    require(model)
    sampling = Sampling(30, 0.9, (*SAMPLING.stop_ids, *range(20, 40)), 60)

    def observe(row: int, answer: Answer) -> list[int] | None:
        return [50, 51, 52, 53, 54][: 1 + row % 5] if answer.written.count(True) < 20 else None

    answers = Engine(model, sampling, 4, exact=True)(PROMPTS, range(len(PROMPTS)), observe)
    assert any(False in answer.written for answer in answers)
    assert gap(model, answers, 7) == 0.0


def test_adapters_are_equal_too_and_learn_through_the_pass(threads) -> None:
    threads(1)
    model = apply_lora(network(width=64, hidden=192), LoraConfig(rank=4))
    adapters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    for parameter in adapters:
        parameter.data.normal_(0, 0.1)
    require(model)
    answers = Engine(model, SAMPLING, 4, exact=True)(PROMPTS, range(len(PROMPTS)))
    assert gap(model, answers, 5) == 0.0
    exact.hidden(model, torch.ones(2, 5, dtype=torch.long)).square().sum().backward()
    assert all(parameter.grad is not None for parameter in adapters)


@pytest.mark.parametrize(
    "family", ["GPT-2", "Gemma 2", *(pytest.param(name, marks=pytest.mark.slow) for name in ("OPT", "Falcon", "GPT"))]
)
def test_other_families_are_equal_too(family: str, tmp_path: Path, threads) -> None:
    threads(1)
    model = checkpoint.load_model(saved(tmp_path, *TRAINED[family]))
    require(model)
    prompts = [[5 + token % 60 for token in prompt] for prompt in PROMPTS]
    answers = Engine(model, SAMPLING, 4, exact=True)(prompts, range(len(prompts)))
    assert gap(model, answers, 7) == 0.0


def test_without_it_bits_differ(threads) -> None:
    """The case is worth something: ordinary decoding with a cache gives other bits, and the self-test would say so."""
    threads(1)
    model = network(width=192, heads=6, kv_heads=3, hidden=512)
    answers = Engine(model, SAMPLING, 3)(PROMPTS, range(len(PROMPTS)))
    assert 0.0 < gap(model, answers, 7) < 1e-4


def test_the_pass_is_the_models_own() -> None:
    """Padding and masks change no state, with gradients or without; a row at the end of the context has room."""
    model = network()
    tokens = torch.randint(0, 64, (3, 91), generator=torch.Generator().manual_seed(1))
    states = exact.hidden(model, tokens)
    assert torch.allclose(states, model(tokens), atol=1e-5)
    with torch.no_grad():
        assert torch.equal(exact.hidden(model.eval(), tokens), states)
    model.checkpointing = True
    again = exact.hidden(model.train(), tokens)
    again.sum().backward()
    assert torch.allclose(again, states, atol=1e-5)


def test_other_machines_are_told_apart() -> None:
    assert not exact.holds(network().to(torch.bfloat16), SAMPLING)
