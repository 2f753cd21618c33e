"""The engine over vLLM, tried on a stand-in: a module with vLLM's call signatures, whose model is ours.

vLLM itself needs a GPU and isn't installed where these tests run: they show that tokens, log-probabilities, seeds,
turns and weights pass through its interface as they should, not that vLLM does what it says.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import pytest
import torch
from pydantic import ValidationError
from toys import asked, base, reversals, words

from datalake.errors import UserError
from datalake.identity import fingerprint
from models.methods.grpo import GrpoConfig, grpo
from models.network import checkpoint
from models.network.config import LoraConfig
from models.network.lora import apply_lora, merged
from models.rl.answers import Answer, Sampling
from models.rl.engine import Engine
from models.rl.vllm import Vllm
from models.training.metrics import read_metrics

SAMPLING = Sampling(9, 0.8, tuple(range(0, 300, 5)), 300)
PROMPTS = [[5 + place % 60] * (1 + place % 7) for place in range(13)]
SEEDS = [100 + place for place in range(13)]
OFF = 0.01  # nats that the stand-in's log-probabilities are off


@dataclass
class SamplingParams:
    """Those of vLLM's that are used here, with its defaults."""

    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    seed: int | None = None
    max_tokens: int | None = 16
    stop_token_ids: list[int] | None = None
    ignore_eos: bool = False
    logprobs: int | None = None
    detokenize: bool = True
    allowed_token_ids: list[int] | None = None


class Model:
    """vLLM's model: takes weights by the names of files."""

    def __init__(self, inner: torch.nn.Module):
        self.inner = inner

    def load_weights(self, weights: Iterator[tuple[str, torch.Tensor]]) -> None:
        found = checkpoint.from_hub(dict(weights), self.inner.config)  # type: ignore[arg-type]
        self.inner.load_state_dict(found)


class LLM:
    """Reads a folder and answers one row after the other."""

    made: ClassVar[list[LLM]] = []

    def __init__(self, model: str, *, skip_tokenizer_init: bool = False, dtype: str = "auto", **more: Any):
        assert (skip_tokenizer_init, dtype, more.pop("logprobs_mode")) == (True, "bfloat16", "processed_logprobs")
        assert set(more) == {"max_model_len", "gpu_memory_utilization"}
        self.model, self.resets = Model(checkpoint.load_model(model)), 0
        self.made.append(self)

    def apply_model(self, func: Callable[[Any], Any]) -> list[Any]:
        return [func(self.model)]

    def reset_prefix_cache(self) -> bool:
        self.resets += 1
        return True

    def generate(
        self,
        prompts: Sequence[dict[str, list[int]]],
        sampling_params: Sequence[SamplingParams],
        *,
        use_tqdm: bool = True,
    ) -> list[Any]:
        assert not use_tqdm
        return [
            self._one(prompt["prompt_token_ids"], its) for prompt, its in zip(prompts, sampling_params, strict=True)
        ]

    def _one(self, prompt: list[int], its: SamplingParams) -> Any:
        assert (its.top_p, its.top_k, its.ignore_eos, its.detokenize, its.logprobs) == (1.0, 0, True, False, 0)
        allowed = None if its.allowed_token_ids is None else len(its.allowed_token_ids)
        sampling = Sampling(its.max_tokens or 0, its.temperature, tuple(its.stop_token_ids or ()), allowed)
        (answer,) = Engine(self.model.inner, sampling)([prompt], [its.seed or 0])
        told = [
            {token: SimpleNamespace(logprob=said + OFF)}
            for token, said in zip(answer.tokens, answer.log_probs, strict=True)
        ]
        return SimpleNamespace(outputs=[SimpleNamespace(token_ids=tuple(answer.tokens), logprobs=told)])


@pytest.fixture
def stand_in(monkeypatch: pytest.MonkeyPatch) -> type[LLM]:
    monkeypatch.setitem(sys.modules, "vllm", SimpleNamespace(LLM=LLM, SamplingParams=SamplingParams))  # type: ignore[arg-type]
    return LLM


@pytest.fixture(scope="module")
def start(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    folder = tmp_path_factory.mktemp("start")
    tokenizer = words(folder / "tokenizer")
    return base(folder / "base", tokenizer), tokenizer


def alike(ours: list[Answer], theirs: list[Answer]) -> bool:
    """The same tokens, and log-probabilities that are off by as much as they were put off."""
    for one, other in zip(ours, theirs, strict=True):
        off = [OFF * on for on in one.written]
        if (one.tokens, one.written, one.ended) != (other.tokens, other.written, other.ended):
            return False
        assert [a + b for a, b in zip(one.log_probs, off, strict=True)] == pytest.approx(other.log_probs, abs=1e-4)
    return True


def test_answers_are_those_of_the_weights_by_the_seeds_of_their_rows(start: Any, stand_in: type[LLM]) -> None:
    model = checkpoint.load_model(start[0])
    ours, theirs = Engine(model, SAMPLING), Vllm(model, SAMPLING, start[1])
    first = theirs(PROMPTS, SEEDS)
    assert alike(ours(PROMPTS, SEEDS), first)
    with torch.no_grad():
        for weight in model.parameters():
            weight.mul_(0.5)
    theirs.version = 2
    later = theirs(PROMPTS, SEEDS)
    assert alike(ours(PROMPTS, SEEDS), later)
    assert [answer.tokens for answer in later] != [answer.tokens for answer in first]
    assert {answer.version for answer in later} == {2}
    assert stand_in.made[-1].resets == 1
    assert theirs([], []) == []


def test_adapters_are_added_to_the_weights_that_it_is_given(start: Any, stand_in: type[LLM]) -> None:
    model = apply_lora(checkpoint.load_model(start[0]), LoraConfig(rank=2))
    theirs = Vllm(model, SAMPLING, start[1])
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data.normal_(0, 0.3)
    theirs.version = 1
    assert alike(Engine(merged(model), SAMPLING)(PROMPTS, SEEDS), theirs(PROMPTS, SEEDS))


def test_tools_are_asked_where_a_turn_ends(start: Any, stand_in: type[LLM]) -> None:
    def observe(row: int, answer: Answer) -> list[int] | None:
        return [200 + row] * 2 if all(answer.written) else None

    model = checkpoint.load_model(start[0])
    answers = Vllm(model, SAMPLING, start[1])(PROMPTS, SEEDS, observe)
    plain = Engine(model, SAMPLING)(PROMPTS, SEEDS)
    seen = [(row, answer) for row, answer in enumerate(answers) if not all(answer.written)]
    assert seen
    for row, answer in seen:
        at = answer.written.index(False)
        assert answer.tokens[:at] == plain[row].tokens[:at]
        assert answer.tokens[at : at + 2] == [200 + row] * 2
        assert answer.log_probs[at : at + 2] == [0.0, 0.0]
        assert sum(answer.written) <= SAMPLING.new_tokens
        assert answer.ended == (answer.tokens[-1] in SAMPLING.stop_ids and answer.written[-1])
    with pytest.raises(UserError, match="leaves no room"):
        Vllm(model, SAMPLING, start[1])([[1] * 24], [0])


def test_the_gap_is_a_figure_and_may_weigh_tokens(start: Any, stand_in: type[LLM], tmp_path: Path) -> None:
    (tmp_path / "rewards.py").write_text("def sevens(prompt, answer, row):\n    return float(answer.count('7'))\n")
    config = GrpoConfig(
        batch=16, group=4, steps=2, new_tokens=6, engine="vllm", importance_cap=2.0,
        rewards=(f"{tmp_path / 'rewards.py'}:sevens",),
    )  # fmt: skip
    prompts = asked(reversals(20, seed=2, digits=2))
    grpo(config, start[0], prompts, prompts[:4], None, tmp_path)
    gaps = [row["logprob_gap"] for row in read_metrics(tmp_path / "metrics.jsonl")]
    assert gaps == pytest.approx([OFF, OFF], abs=1e-3)


def test_where_it_is_not_installed_one_line_says_so(start: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "vllm", None)  # type: ignore[arg-type]
    with pytest.raises(UserError, match="engine: vllm isn't installed: pip install vllm"):
        Vllm(checkpoint.load_model(start[0]), SAMPLING, start[1])


def test_where_answers_are_written_is_a_meaning_only_where_it_gives_others() -> None:
    plain = GrpoConfig()
    assert "engine" not in str(fingerprint(plain))
    assert fingerprint(plain) == fingerprint(GrpoConfig(engine="ray", workers=7))
    assert fingerprint(plain) != fingerprint(GrpoConfig(engine="vllm"))
    with pytest.raises(ValidationError, match="set exact to auto"):
        GrpoConfig(engine="vllm", exact="on")
