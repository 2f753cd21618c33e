"""The tasks a model is judged by. Each is a function from a model and plain data to figures per item.

Likelihoods are taken of token sequences laid out as in training; wrong answers and the choice of items come from the
seed alone, so that two models are asked the same questions.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F
from transformers import PreTrainedTokenizerBase

from models.evaluation.preferences import Scored
from models.network.decoder import within_documents
from models.network.generate import generate
from models.objectives.bradley_terry import scores_of
from models.text.packing import fit_all, fit_pair
from models.text.rendering import UnfitError, render, writes_all
from models.text.sampler import IGNORED, Batch
from models.text.tokenizer import beginning, encode, end_of_turn, stop_ids, vocabulary_size

WORDS = re.compile(r"[\u3400-\u9fff]|[^\W_]+")  # a Chinese character is a word, as everywhere in this house


@dataclass(frozen=True, slots=True)
class Losses:
    """Held-out losses by document: nats and predicted tokens (float64, int64) of each; all targets (N) in any order."""

    nats: np.ndarray
    tokens: np.ndarray
    targets: np.ndarray


@torch.no_grad()
def losses(model: nn.Module, batches: Iterable[Batch]) -> Losses:
    """The loss of every target of held-out batches (`models.text.sampler.heldout`), documents kept apart by mask."""
    network: Any = model
    device = next(model.parameters()).device
    nats: defaultdict[int, float] = defaultdict(float)
    tokens: Counter[int] = Counter()
    seen = [np.empty(0, np.int64)]
    for batch in batches:
        batch = batch.to(device)
        hidden_BTD = network(batch.tokens, batch.positions, within_documents(batch.segments))
        chosen = batch.targets != IGNORED
        targets_N = batch.targets[chosen]
        nats_N = F.cross_entropy(network.logits(hidden_BTD[chosen]).float(), targets_N, reduction="none").double()
        segments_N = batch.segments[chosen]
        for document in segments_N.unique().tolist():
            own = segments_N == document
            nats[document] += float(nats_N[own].sum())
            tokens[document] += int(own.sum())
        seen.append(targets_N.cpu().numpy())
    documents = range(max(tokens, default=-1) + 1)
    return Losses(
        np.array([nats[document] for document in documents], np.float64),
        np.array([tokens[document] for document in documents], np.int64),
        np.concatenate(seen),
    )


@torch.no_grad()
def log_likelihoods(model: nn.Module, pairs: Sequence[tuple[list[int], list[int]]], batch: int) -> list[float]:
    """log p(answer | prompt) in nats of each pair of token lists.

    A pair too long for the context loses the oldest of its prompt but the first token; an answer that alone is too long
    is cut to the context.
    """
    network: Any = model
    device = next(model.parameters()).device
    context = int(network.config.context)
    rows = []
    for prompt, answer in pairs:
        answer = answer[: context - 1]
        prompt = shortened(prompt, context + 1 - len(answer))  # the last token of a row is a target only
        rows.append((prompt + answer, len(prompt)))
    found = [0.0] * len(rows)
    order = sorted(range(len(rows)), key=lambda number: len(rows[number][0]))
    for first in range(0, len(order), batch):
        numbers = order[first : first + batch]
        width = max(len(rows[number][0]) for number in numbers) - 1
        tokens = torch.zeros(len(numbers), width, dtype=torch.long)
        targets = torch.full((len(numbers), width), IGNORED)
        for place, number in enumerate(numbers):
            ids, opening = torch.tensor(rows[number][0]), rows[number][1]
            tokens[place, : len(ids) - 1] = ids[:-1]
            targets[place, opening - 1 : len(ids) - 1] = ids[opening:]
        tokens, targets = tokens.to(device), targets.to(device)
        hidden_BTD = network(tokens)
        chosen = targets != IGNORED
        logs_N = -F.cross_entropy(
            network.logits(hidden_BTD[chosen]).float(), targets[chosen], reduction="none"
        ).double()
        row_N = torch.where(chosen)[0]
        for number, value in zip(
            numbers,
            torch.zeros(len(numbers), dtype=torch.float64, device=device).index_add(0, row_N, logs_N),
            strict=True,
        ):
            found[number] = float(value)
    return found


def shortened(prompt: list[int], room: int) -> list[int]:
    """The prompt in at most `room` tokens (at least one): its first token and the last ones."""
    if len(prompt) <= room:
        return prompt
    return prompt[:1] + prompt[len(prompt) - room + 1 :] if room > 1 else prompt[:1]


def drawn(count: int, limit: int, seed: int) -> list[int]:
    """At most `limit` of `count` items, in order, chosen by the seed."""
    order = np.random.Generator(np.random.Philox(seed)).permutation(count)
    return sorted(order[:limit].tolist())


@dataclass(frozen=True, slots=True)
class Question:
    """One multiple-choice item: messages up to the answer, the candidates, and the place of the right one."""

    messages: list[dict[str, str]]
    choices: list[str]
    right: int


def questions(conversations: Sequence[dict[str, Any]], choices: int, limit: int, seed: int) -> list[Question]:
    """Items from dialogues that end with the assistant: its last answer among answers to other prompts.

    Wrong answers differ from the right one, and from each other, in their words, and never answer the same prompt.
    Where there are too few for the asked number of choices there are no items.
    """
    asked = [_turns(conversation) for conversation in conversations]
    made: list[Question] = []
    for number in drawn(len(asked), limit, seed):
        prompt, answer = asked[number]
        draw = np.random.Generator(np.random.Philox(np.random.SeedSequence([seed, number])))
        known = {" ".join(WORDS.findall(other.lower())) for turns, other in asked if turns == prompt}
        wrong: list[str] = []
        for other in draw.permutation(len(asked)).tolist():
            words = " ".join(WORDS.findall(asked[other][1].lower()))
            if words not in known:
                known.add(words)
                wrong.append(asked[other][1])
            if len(wrong) == choices - 1:
                right = int(draw.integers(choices))
                made.append(Question(prompt, [*wrong[:right], answer, *wrong[right:]], right))
                break
    return made


def _turns(conversation: dict[str, Any]) -> tuple[list[dict[str, str]], str]:
    """A dialogue up to its last message of the assistant, and that message."""
    messages = list(conversation["messages"])
    while messages and messages[-1]["role"] != "assistant":
        messages.pop()
    if not messages:
        raise ValueError("a dialogue without an answer can't be judged: leave it out")
    return messages[:-1], messages[-1]["content"]


def askable(conversations: Sequence[dict[str, Any]], tokenizer: PreTrainedTokenizerBase) -> list[dict[str, Any]]:
    """Of these dialogues those that the tokenizer's chat template can ask for; none where it has no template."""
    if writes_all(tokenizer):
        return list(conversations)
    if not tokenizer.chat_template:
        return []
    found = []
    for conversation in conversations:
        with suppress(UnfitError):
            render(_turns(conversation)[0], tokenizer, prompt=True)
            found.append(conversation)
    return found


def multiple_choice(
    model: nn.Module, tokenizer: PreTrainedTokenizerBase, items: Sequence[Question], batch: int
) -> list[bool]:
    """Whether each item's right answer has the highest likelihood per byte of its text (its end token included).

    Of an answer that the context doesn't hold even without the question, the beginning is judged: the likelihood of its
    tokens over their bytes, as if it ended there; it has no end token.
    """
    context = int(model.config.context)  # type: ignore[union-attr, arg-type]
    stop = [number for number in (end_of_turn(tokenizer),) if number is not None]
    pairs, sizes = [], []
    for item in items:
        prompt, _ = render(item.messages, tokenizer, prompt=True)
        for choice, ids in zip(item.choices, encode(tokenizer, item.choices), strict=True):
            if len(ids) + 1 < context:
                answer, size = [*ids, *stop], len(choice.encode("utf-8", "replace")) + 1
            else:
                answer, size = beginning(tokenizer, choice, ids, context - 1)
            pairs.append((prompt, answer))
            sizes.append(max(size, 1))
    scores = iter(np.array(log_likelihoods(model, pairs, batch)) / np.array(sizes or [1])[: len(pairs)])
    return [int(np.argmax([next(scores) for _ in item.choices])) == item.right for item in items]


@dataclass(frozen=True, slots=True)
class Written:
    """One generated answer: its text, the reference, their token F1, and whether it ended by itself."""

    text: str
    reference: str
    f1: float
    ended: bool


def written(
    model: nn.Module,
    tokenizer: PreTrainedTokenizerBase,
    conversations: Sequence[dict[str, Any]],
    max_new_tokens: int,
    batch: int,
) -> list[Written]:
    """Greedy answers to the last question of each dialogue."""
    context = int(model.config.context)  # type: ignore[union-attr, arg-type]
    new = min(max_new_tokens, context // 2)
    stops = stop_ids(tokenizer, model)
    asked = [_turns(conversation) for conversation in conversations]
    prompts = [shortened(render(messages, tokenizer, prompt=True)[0], context - new) for messages, _ in asked]
    answers: list[list[int]] = [[] for _ in prompts]
    order = sorted(range(len(prompts)), key=lambda number: len(prompts[number]))
    for first in range(0, len(order), batch):
        numbers = order[first : first + batch]
        found = generate(
            model,
            [prompts[n] for n in numbers],
            new,
            temperature=0,
            eos_id=stops,
            vocabulary=vocabulary_size(tokenizer),
        )
        for number, answer in zip(numbers, found, strict=True):
            answers[number] = answer
    results = []
    for answer, (_, reference) in zip(answers, asked, strict=True):
        text = str(tokenizer.decode(answer, skip_special_tokens=True))
        results.append(Written(text, reference, token_f1(text, reference), bool(answer) and answer[-1] in stops))
    return results


def token_f1(answer: str, reference: str) -> float:
    """F1 of two texts as bags of words (Rajpurkar et al. 2016, SQuAD, section 6.1; words as in this house)."""
    ours, theirs = (Counter(WORDS.findall(text.lower())) for text in (answer, reference))
    if not ours or not theirs:
        return float(ours == theirs)
    shared = (ours & theirs).total()
    return 2 * shared / (ours.total() + theirs.total())


def scored_pairs(
    reward: nn.Module, tokenizer: PreTrainedTokenizerBase, preferences: Sequence[dict[str, Any]], batch: int
) -> Scored:
    """The scores that a reward model gives both answers of each pair.

    Pairs are made to fit as in training (`models.text.packing.fit_pair`); those that can't be are left out.
    """
    context = int(reward.config.context)  # type: ignore[union-attr, arg-type]
    fitted = fit_all(preferences, lambda pair: fit_pair(pair, tokenizer, context))
    scores = scores_of(reward, [answer for pair in fitted.items for answer in pair[:2]], batch)
    return Scored.of(fitted.items, scores.tolist(), [preferences[n].get("source", "") for n in fitted.numbers])
