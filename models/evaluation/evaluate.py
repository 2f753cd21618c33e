"""Judge a model: every task it has data for, each figure with its interval and the number of items behind it."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from torch import nn
from transformers import PreTrainedTokenizerBase

from models.evaluation import tasks
from models.evaluation.config import EvaluateConfig
from models.evaluation.heldout import unigram_losses
from models.evaluation.intervals import Result, bootstrap, wilson
from models.evaluation.preferences import shares
from models.text.sampler import Batch

Keep = Callable[[Sequence[dict[str, Any]], Sequence[tasks.Written]], None]


@dataclass(frozen=True, slots=True)
class Held:
    """Held-out data, plain: what a task needs of it; a task whose data is empty gives no results.

    windows: batches of `models.text.sampler.heldout`, and the bytes of text of each of their documents, in the same
    order. training_counts: how often each token (V) is a target in training. conversations: dicts with `messages`
    (ending with the assistant). preferences: dicts with `prompt` (messages), `chosen`, `rejected`.
    """

    windows: Sequence[Batch] = ()
    window_bytes: Sequence[int] = ()
    training_counts: np.ndarray | None = None
    conversations: Sequence[dict[str, Any]] = ()
    preferences: Sequence[dict[str, Any]] = field(default_factory=tuple)


def evaluate(
    model: nn.Module,
    tokenizer: PreTrainedTokenizerBase,
    held: Held,
    config: EvaluateConfig,
    reward: nn.Module | None = None,
    keep: Keep | None = None,
) -> list[Result]:
    """The results of all tasks named in the config, in its order; `keep` is shown the dialogues asked and the answers.

    perplexity: `loss` (nats per token, <|eos|> included), `unigram_entropy` of the training tokens and
    `unigram_cross_entropy` of the held-out ones under these, `loss_over_entropy`, `bits_per_byte`; intervals resample
    documents. multiple_choice: `accuracy`, `chance`. generation: `token_f1`, `ended`. reward_accuracy: `accuracy` of
    `reward` (a `ScalarHead`), a tie counting half, over the pairs that can be compared within its context, by source
    too, on pairs of `equal_length`, and that of the rule `longer_wins`.
    """
    training = model.training
    model.eval()
    results: list[Result] = []
    held = replace(held, conversations=tasks.askable(held.conversations, tokenizer))
    try:
        for task in config.tasks:
            if task == "perplexity" and held.windows:
                results += _perplexity(model, held, config)
            elif task == "multiple_choice" and held.conversations:
                results += _multiple_choice(model, tokenizer, held, config)
            elif task == "generation" and held.conversations:
                results += _generation(model, tokenizer, held, config, keep)
            elif task == "reward_accuracy" and held.preferences and reward is not None:
                results += _reward_accuracy(reward, tokenizer, held, config)
    finally:
        model.train(training)
    return results


def _perplexity(model: nn.Module, held: Held, config: EvaluateConfig) -> list[Result]:
    found = tasks.losses(model, held.windows)
    n, tokens = len(found.nats), int(found.tokens.sum())
    if not tokens:
        return []
    loss = float(found.nats.sum()) / tokens
    low, high = bootstrap(found.nats, found.tokens, config.confidence, config.resamples, config.seed)
    results = [Result("perplexity", "loss", loss, low, high, n)]
    if held.training_counts is not None:
        entropy, cross = unigram_losses(found.targets, held.training_counts)
        results.append(Result("perplexity", "unigram_entropy", entropy, entropy, entropy, n))
        results.append(Result("perplexity", "unigram_cross_entropy", cross, cross, cross, n))
        if entropy:
            results.append(Result("perplexity", "loss_over_entropy", loss / entropy, low / entropy, high / entropy, n))
    if held.window_bytes:
        if len(held.window_bytes) < n:
            raise ValueError(f"{n} held-out documents but {len(held.window_bytes)} sizes: give the bytes of each")
        sizes = np.asarray(held.window_bytes, np.float64)[:n] * math.log(2)
        bits = float(found.nats.sum() / sizes.sum())
        results.append(
            Result(
                "perplexity",
                "bits_per_byte",
                bits,
                *bootstrap(found.nats, sizes, config.confidence, config.resamples, config.seed),
                n,
            )
        )
    return results


def _multiple_choice(
    model: nn.Module, tokenizer: PreTrainedTokenizerBase, held: Held, config: EvaluateConfig
) -> list[Result]:
    items = tasks.questions(held.conversations, config.choices, config.limit, config.seed)
    if not items:
        return []
    right = tasks.multiple_choice(model, tokenizer, items, config.batch)
    n, chance = len(items), 1 / config.choices
    return [
        Result("multiple_choice", "accuracy", sum(right) / n, *wilson(sum(right), n, config.confidence), n),
        Result("multiple_choice", "chance", chance, chance, chance, n),
    ]


def _generation(
    model: nn.Module, tokenizer: PreTrainedTokenizerBase, held: Held, config: EvaluateConfig, keep: Keep | None
) -> list[Result]:
    chosen = tasks.drawn(len(held.conversations), min(config.limit, config.generation_limit), config.seed)
    asked = [held.conversations[number] for number in chosen]
    answers = tasks.written(model, tokenizer, asked, config.max_new_tokens, config.batch)
    if keep is not None:
        keep(asked, answers)
    scores, ended, n = [answer.f1 for answer in answers], sum(answer.ended for answer in answers), len(answers)
    low, high = bootstrap(scores, None, config.confidence, config.resamples, config.seed)
    return [
        Result("generation", "token_f1", sum(scores) / n, low, high, n),
        Result("generation", "ended", ended / n, *wilson(ended, n, config.confidence), n),
    ]


def _reward_accuracy(
    reward: nn.Module, tokenizer: PreTrainedTokenizerBase, held: Held, config: EvaluateConfig
) -> list[Result]:
    chosen = tasks.drawn(len(held.preferences), config.limit, config.seed)
    pairs = [held.preferences[number] for number in chosen]
    training = reward.training
    reward.eval()
    scored = tasks.scored_pairs(reward, tokenizer, pairs, config.batch)
    reward.train(training)
    return [
        Result("reward_accuracy", name, *share) for name, share in shares(scored, config.confidence).items() if share.n
    ]
