"""Generation with batches, padding and a cache says what the plain loop says, and the same again for the same seed."""

from __future__ import annotations

import pytest
import torch

from datalake.errors import UserError
from models.network.build import build_model
from models.network.config import NetworkConfig
from models.network.generate import generate, pick, stream

PROMPTS = [[5], [1, 2, 3, 4, 5, 6, 7], [9, 8, 7], [30, 31], [5, 5, 5, 5]]


@pytest.fixture(scope="module", params=[{}, {"qk_norm": True}, {"experts": 3}], ids=["llama", "qwen3", "mixtral"])
def model(request) -> torch.nn.Module:
    config = NetworkConfig(
        vocabulary=64, layers=2, width=32, heads=4, kv_heads=2, hidden=48, context=48, **request.param
    )
    built = build_model(config, 3)
    draw = torch.Generator().manual_seed(3)
    for parameter in built.parameters():
        if parameter.ndim > 1:
            parameter.data.normal_(0, 0.12, generator=draw)
    return built.eval()


@torch.no_grad()
def naive(model, prompt: list[int], uniforms: torch.Tensor, stops: set[int], **options) -> list[int]:
    """One row, no cache, no padding: everything is computed anew for every token."""
    answer: list[int] = []
    for uniform in uniforms:
        logits = model.logits(model(torch.tensor([prompt + answer])))[:, -1]
        answer.append(int(pick(logits, uniform[None], **options)))
        if answer[-1] in stops:
            break
    return answer


@pytest.mark.parametrize(
    "options", [{"temperature": 0.0}, {}, {"temperature": 0.7, "top_p": 0.8}, {"top_k": 5}], ids=str
)
def test_generation_equals_the_plain_loop(model, options: dict) -> None:
    new = 20
    uniforms = torch.rand(len(PROMPTS), new, dtype=torch.float64, generator=torch.Generator().manual_seed(7))
    stops = {3, 11, 17, 40, 41, 42, 50}
    expected = [naive(model, p, u, stops, **options) for p, u in zip(PROMPTS, uniforms, strict=True)]
    found = generate(model, PROMPTS, new, eos_id=stops, generator=torch.Generator().manual_seed(7), **options)
    assert found == expected
    if options == {}:  # the case is worth something: rows end at different times, so that the batch shrinks
        assert len({len(answer) for answer in expected}) > 2
    for answer in found:
        assert not set(answer[:-1]) & stops


def test_one_seed_one_answer(model) -> None:
    answers = [generate(model, PROMPTS, 16, generator=torch.Generator().manual_seed(seed)) for seed in (1, 1, 2)]
    assert answers[0] == answers[1] != answers[2]
    assert all(len(answer) == 16 for answer in answers[0])


def test_a_row_doesnt_depend_on_its_neighbours(model) -> None:
    together = generate(model, PROMPTS[:2], 12, generator=torch.Generator().manual_seed(1))
    other = generate(model, [PROMPTS[0], [60] * 20], 12, generator=torch.Generator().manual_seed(1))
    assert together[0] == other[0]


def test_streaming_says_what_generation_says(model) -> None:
    for options in ({"temperature": 0.0}, {"temperature": 1.2, "top_p": 0.9}):
        whole = generate(model, [PROMPTS[1]], 24, eos_id=3, generator=torch.Generator().manual_seed(5), **options)
        one = stream(model, PROMPTS[1], 24, eos_id=3, generator=torch.Generator().manual_seed(5), **options)
        assert list(one) == whole[0]


def test_training_mode_is_given_back(model) -> None:
    model.train()
    generate(model, PROMPTS, 2)
    assert model.training
    model.eval()


def test_picking_follows_the_probabilities() -> None:
    logits = torch.tensor([0.5, 0.3, 0.15, 0.05]).log().repeat(4, 1)
    uniform = torch.tensor([0.0, 0.499, 0.799, 0.9999999])
    assert pick(logits, uniform.double()).tolist() == [0, 0, 1, 3]
    assert pick(logits, uniform.double(), top_p=0.6).tolist() == [0, 0, 1, 1]  # 0.5 + 0.3 reach 0.6
    assert pick(logits, uniform.double(), top_k=1).tolist() == [0] * 4
    assert pick(logits, uniform.double(), temperature=0).tolist() == [0] * 4
    assert pick(logits.flip(-1), uniform.double(), vocabulary=2).max() == 1
    many = torch.rand(20000, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    counts = torch.bincount(pick(logits[:1].expand(20000, 4), many, temperature=0.5), minlength=4) / 20000
    squared = torch.tensor([0.25, 0.09, 0.0225, 0.0025])
    assert torch.allclose(counts, squared / squared.sum(), atol=0.01)


def test_a_token_of_no_mass_is_never_picked() -> None:
    logits = torch.tensor([[0.0, -torch.inf, 0.0, -torch.inf]])
    for uniform in (0.0, 0.5, 1 - 1e-16):
        assert int(pick(logits, torch.tensor([uniform], dtype=torch.float64))) in (0, 2)


def test_what_cant_be_written_is_said_in_one_line(model) -> None:
    with pytest.raises(UserError, match="don't fit the model's context of 48"):
        generate(model, [[1] * 40], 9)
    with pytest.raises(UserError, match="prompt is empty"):
        generate(model, [[1], []], 2)
    assert generate(model, [], 4) == []
    assert generate(model, [[1]], 0) == [[]]
